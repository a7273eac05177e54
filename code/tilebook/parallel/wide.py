"""Rung 5, any size: offsets in 64 bits."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.operands import check_operands

BLOCK = 1024


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    # program_id is an int32: widen it before the product, not after.
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)  # int64
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    y = tl.load(y_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + y, mask=mask)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors of any length, also above 2^31 elements.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, or an operand isn't contiguous.
    """
    check_operands(x, y)
    n = x.numel()
    out = torch.empty_like(x)
    if n:
        add_kernel[(triton.cdiv(n, BLOCK),)](x, y, out, n, BLOCK=BLOCK)
    return out
