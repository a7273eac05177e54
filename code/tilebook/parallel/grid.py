"""Rung 2, many programs: each adds one tile, and the tiles must fit exactly."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.operands import check_int32_offsets, check_operands

BLOCK = 1024


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)  # (BLOCK,)
    y = tl.load(y_ptr + offs)  # (BLOCK,)
    tl.store(out_ptr + offs, x + y)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors with one program per tile of `BLOCK` elements.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`; its number of elements
            is a multiple of `BLOCK`, at most 2^31.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, an operand isn't contiguous, or
            the length isn't a multiple of `BLOCK` or is above 2^31.
    """
    check_operands(x, y)
    n = x.numel()
    if n % BLOCK:
        raise ValueError(f"x has {n} elements; without a mask, a multiple of {BLOCK}")
    check_int32_offsets(x, BLOCK)
    out = torch.empty_like(x)
    if n:
        add_kernel[(n // BLOCK,)](x, y, out, BLOCK=BLOCK)
    return out
