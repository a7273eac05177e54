"""Rung 1, an element for each thread: loads as narrow as the elements."""

import torch
import triton
import triton.language as tl

from tilebook.memory import vectors

NUM_WARPS = 4
BLOCK = 32 * NUM_WARPS


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    # As many elements in a tile as a program has threads: one for each.
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


def copy(x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Copy a vector, one element for each thread.

    Args:
        x: contiguous tensor, any dtype of up to 8 bytes.
        out: contiguous, the same shape, dtype and device; receives the copy.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, or a tensor isn't contiguous.
    """
    out = vectors.check(x, out)
    n = x.numel()
    if n:
        source, target = vectors.elements(x), vectors.elements(out)
        grid = (triton.cdiv(n, BLOCK),)
        copy_kernel[grid](source, target, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out
