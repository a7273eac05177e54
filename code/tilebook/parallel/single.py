"""Rung 1, one program: a single tile that holds the whole vector."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.operands import check_operands

LARGEST = 2**14
"""Most elements one program takes here: 128 per thread and operand, in registers."""


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)  # (BLOCK,)
    y = tl.load(y_ptr + offs)  # (BLOCK,)
    tl.store(out_ptr + offs, x + y)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors with one program.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`; its number of elements
            is zero or a power of two up to `LARGEST`.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, an operand isn't contiguous, or
            the length isn't one that a single tile can have.
    """
    check_operands(x, y)
    n = x.numel()
    if n > LARGEST or n & (n - 1):
        raise ValueError(
            f"x has {n} elements; one tile takes a power of two up to {LARGEST}"
        )
    out = torch.empty_like(x)
    if n:
        # A tile's shape is part of the program: every length compiles anew.
        add_kernel[(1,)](x, y, out, BLOCK=n)
    return out
