"""Rung 3, any length: a mask keeps the last tile inside the vector."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.operands import check_int32_offsets, check_operands

BLOCK = 1024


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n  # (BLOCK,), all true but in the last program
    # A masked-off lane doesn't touch memory; its value is `other`.
    x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    y = tl.load(y_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + y, mask=mask)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors of any length with one program per tile.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`, at most 2^31 elements.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, an operand isn't contiguous, or
            there are too many elements for 32-bit offsets.
    """
    check_operands(x, y)
    check_int32_offsets(x, BLOCK)
    n = x.numel()
    out = torch.empty_like(x)
    if n:
        add_kernel[(triton.cdiv(n, BLOCK),)](x, y, out, n, BLOCK=BLOCK)
    return out
