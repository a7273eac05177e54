"""Which elements lie where: dimensions merged, order found, overlap noticed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.autograd.graph import increment_version

from tilebook import check


class Dim(NamedTuple):
    """A dimension of two tensors of one shape."""

    size: int
    x: int
    """Elements from one index to the next in the tensor that is read."""
    out: int
    """The same in the tensor that is written."""


def merged(x: torch.Tensor, out: torch.Tensor) -> list[Dim]:
    """Describe a pair of tensors by as few dimensions as can be.

    Args:
        x: any strides, at least one element.
        out: the same shape; no two elements in one place.

    Returns:
        The dimensions in the order of `out` in memory, the innermost last; a single
        one with strides of 1 where both are dense in one and the same order.
    """
    dims = [Dim(*d) for d in zip(x.shape, x.stride(), out.stride(), strict=True)]
    dims = sorted((d for d in dims if d.size != 1), key=lambda d: (-d.out, -d.x))
    found: list[Dim] = []
    for dim in dims:
        last = found[-1] if found else None
        if last and last.x == dim.size * dim.x and last.out == dim.size * dim.out:
            found[-1] = Dim(last.size * dim.size, dim.x, dim.out)
        else:
            found.append(dim)
    return found or [Dim(1, 1, 1)]


def flat(dims: Sequence[Dim]) -> bool:
    """Whether `merged` found two dense tensors in one and the same order."""
    return len(dims) == 1 and (dims[0].x, dims[0].out) == (1, 1)


def spreads(x: torch.Tensor) -> bool:
    """Whether every element surely has a place of its own."""
    reach = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


def disturbs(x: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether writing `out` may change an element of `x` that is still to be read.

    Args:
        x: what is read, at least one element.
        out: what is written; the very elements of `x` in the same places are no danger.
    """
    if x.data_ptr() == out.data_ptr() and x.stride() == out.stride():
        return False
    (first, last), (low, high) = _extent(out), _extent(x)
    return low < last and first < high


def written(out: torch.Tensor, *read: torch.Tensor) -> None:
    """Check that a kernel may write a tensor, and count it as written in place.

    Args:
        out: what the kernel is about to write.
        read: what it reads meanwhile.

    Raises:
        ValueError: `out` takes part in a gradient, or overlaps what is read other than
            element by element.
    """
    if torch.is_grad_enabled() and out.requires_grad:
        raise ValueError("out can't take part in a gradient: call under no_grad()")
    if out.numel() and any(disturbs(x, out) for x in read):
        raise ValueError("out must not overlap what is read; tilebook.memory.copy may")
    # Autograd doesn't see a kernel write.
    increment_version(out)


def check_output(x: torch.Tensor, out: torch.Tensor) -> None:
    """Check a tensor that a copy is written to.

    Raises:
        TypeError: not a tensor, or another dtype than that of `x`.
        ValueError: another shape or device, or elements that may share a place.
    """
    check.tensor(out, "out", dtype=x.dtype, shape=x.shape, device=x.device)
    if not spreads(out):
        raise ValueError(
            "out must have strides each of which exceeds all that lies within, so that "
            f"no elements share a place; got {out.stride()} for shape "
            f"{tuple(out.shape)}"
        )


def _extent(x: torch.Tensor) -> tuple[int, int]:
    """Address of the first byte of a tensor, and of the first byte after it."""
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    return x.data_ptr(), x.data_ptr() + reach * x.element_size()
