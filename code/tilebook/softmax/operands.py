"""What the chapter's rungs ask of a matrix, and what they are told besides."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton

from tilebook import check

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The element types that the chapter's kernels take."""


def _itself(kernel: Any) -> Any:
    return kernel


class Task(NamedTuple):
    """What is wanted of the rows besides their softmax."""

    inverse_t: float = 1.0
    """One over the temperature. Exact for float64: kernels get it as float32."""
    log: bool = False
    """Whether the logarithm of the softmax is wanted."""
    wrap: Callable[[Any], Any] = _itself
    """Makes of a kernel what is launched; `library.launchable` inside an operator."""


PLAIN = Task()


def check_rows(x: torch.Tensor, name: str = "x") -> torch.Tensor:
    """Check that a rung can walk along the rows of a matrix.

    Args:
        x: the matrix (m, n), any row stride.
        name: what the caller calls it.

    Returns:
        The same tensor.

    Raises:
        TypeError: not a tensor, or a dtype outside `DTYPES`.
        ValueError: not a matrix, elements of a row that aren't neighbours, or a
            tensor where this process's kernels can't reach it.
    """
    check.tensor(x, name, dtype=DTYPES, ndim=2)
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(
            f"{name} must have neighbours in its rows, got a last stride of "
            f"{x.stride(1)}; tilebook.softmax.columns walks across them"
        )
    return check.runs_here(x, name)


def prepared(
    x: torch.Tensor, refusal: Callable[[torch.Tensor], str | None] | None = None
) -> torch.Tensor:
    """Check a rung's operand and make room for its result.

    Args:
        x: the matrix (m, n).
        refusal: says why the rung can't take a matrix, if it can't take all.

    Returns:
        Memory of the same shape and dtype, contiguous.

    Raises:
        TypeError: as `check_rows`.
        ValueError: as `check_rows`, or the rung refuses it.
    """
    check_rows(x)
    if refusal and x.numel() and (reason := refusal(x)):
        raise ValueError(f"x doesn't fit: {reason}; tilebook.softmax.softmax takes it")
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def row_stride(x: torch.Tensor) -> int:
    """Elements from one row of a matrix to the next; a single row has no next."""
    m, n = map(int, x.shape)
    return int(x.stride(0)) if m > 1 else n


def divisor(x: torch.Tensor, *others: torch.Tensor) -> int:
    """What divides the rows' length and distance, and so where each row starts.

    Args:
        x: matrix (m, n), not empty.
        *others: matrices of the same shape.

    Returns:
        A power of two, at most the elements that 16 bytes hold. A kernel that gets it
        as a constant knows by how many elements at a time it can load.
    """
    most = 16 // min(t.itemsize for t in (x, *others))
    strides = (row_stride(t) for t in (x, *others))
    return math.gcd(int(x.shape[1]), most, *strides)


def starts_aligned(x: torch.Tensor) -> bool:
    """Whether a tensor starts at a multiple of 16 bytes, as far as can be told.

    A fake tensor has no address: what is told is its place in an allocation.
    """
    if type(x) in (torch.Tensor, torch.nn.Parameter):
        return x.is_meta or x.data_ptr() % 16 == 0
    return int(x.storage_offset()) * x.itemsize % 16 == 0


def cover(n: int) -> int:
    """The smallest power of two from n on: the tile's side that covers n elements."""
    return triton.next_power_of_2(max(int(n), 1))


def check_cover(held: int, n: int) -> None:
    """Check that a program holds what a way of launching gives it.

    Args:
        held: elements of a row that it holds.
        n: elements that there are.

    Raises:
        ValueError: fewer than there are; the rest would never be written.
    """
    if held < n:
        raise ValueError(f"config must cover {n} elements of a row, got {held}")
