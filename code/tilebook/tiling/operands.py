"""What the chapter's kernels ask of their operands."""

import torch

from tilebook import check

# The integer that carries an element's bits. A kernel that only moves elements never
# looks at what they mean, and integers of every width compile for every target.
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_matrix(
    x: torch.Tensor, name: str = "x", *, batches: bool = False, gradient: bool = False
) -> torch.Tensor:
    """Check that elements of a tensor can be moved by this process's kernels.

    Args:
        x: the tensor.
        name: what the caller calls it.
        batches: allow dimensions before the last two.
        gradient: allow a tensor that takes part in one.

    Returns:
        The tensor as it lies in memory: a view that PyTorch conjugates or negates
        when it is read has been.

    Raises:
        TypeError: not a tensor, a quantised one, or its elements take more than 8
            bytes.
        ValueError: another number of dimensions, a tensor where this process's
            kernels can't reach it, or one that takes part in a gradient.
    """
    check.tensor(x, name)
    if x.ndim < 2 or (x.ndim > 2 and not batches):
        least = "at least " if batches else ""
        raise ValueError(f"{name} must have {least}2 dimensions, got {x.ndim}")
    carrier(x, name)
    check.runs_here(x, name)
    if not gradient:
        no_gradient(x, name)
    return x.resolve_conj().resolve_neg()


def check_grid(programs: int, what: str, name: str = "x") -> int:
    """Check that a grid has as many programs as a tensor needs.

    Args:
        programs: along the first axis.
        what: programs take, in the plural.
        name: what the caller calls the tensor.

    Returns:
        The number of programs.

    Raises:
        ValueError: there are too many.
    """
    if programs >= 2**31:
        raise ValueError(
            f"{name} has {programs} {what}, and a grid at most {2**31 - 1} programs"
        )
    return programs


def no_gradient(x: torch.Tensor, name: str) -> None:
    """Refuse a tensor whose gradient would get lost.

    Args:
        x: the tensor.
        name: what the caller calls it.

    Raises:
        ValueError: it takes part in a gradient.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        raise ValueError(
            f"{name} takes part in a gradient, which there is none of: pass "
            f"{name}.detach(), or call under torch.no_grad()"
        )


def carrier(x: torch.Tensor, name: str = "x") -> torch.dtype:
    """Name the integer type that carries a tensor's elements.

    Args:
        x: the tensor.
        name: what the caller calls it.

    Returns:
        An integer type of the same size.

    Raises:
        TypeError: elements of another size than 1, 2, 4 or 8 bytes, or quantised.
    """
    if x.is_quantized:
        raise TypeError(f"{name} must not be quantised, got {x.dtype}")
    if x.itemsize not in CARRIERS:
        dtype = str(x.dtype).removeprefix("torch.")
        raise TypeError(
            f"{name} must have elements of 1, 2, 4 or 8 bytes, got {dtype} of "
            f"{x.itemsize}"
        )
    return CARRIERS[x.itemsize]


def bits(x: torch.Tensor) -> torch.Tensor:
    """View a tensor's elements as the integers that carry them.

    Args:
        x: any strides; no conjugate or negated view, whose bits are still to change.

    Returns:
        The same memory.
    """
    return x.view(CARRIERS[x.itemsize])
