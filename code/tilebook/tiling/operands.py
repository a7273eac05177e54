"""What the chapter's kernels ask of their operands."""

import torch

from tilebook import check

# The integer that carries an element's bits. A kernel that only moves elements never
# looks at what they mean, and integers of every width compile for every target.
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_matrix(x: torch.Tensor, name: str = "x", *, least: int = 2) -> torch.Tensor:
    """Check that elements of a tensor can be moved by this process's kernels.

    Args:
        x: the tensor.
        name: what the caller calls it.
        least: dimensions it has at least; exactly two by default.

    Returns:
        The same tensor.

    Raises:
        TypeError: not a tensor, or its elements take more than 8 bytes.
        ValueError: another number of dimensions, or a tensor where this process's
            kernels can't reach it.
    """
    check.tensor(x, name)
    if least == 2 and x.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions, got {x.ndim}")
    carrier(x, name)
    return check.runs_here(x, name)


def carrier(x: torch.Tensor, name: str = "x") -> torch.dtype:
    """Name the integer type that carries a tensor's elements.

    Args:
        x: the tensor.
        name: what the caller calls it.

    Returns:
        An integer type of the same size.

    Raises:
        TypeError: elements of another size than 1, 2, 4 or 8 bytes.
    """
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
