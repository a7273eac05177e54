"""Rung 4, as many programs as fit: each strides over the vector and loads ahead."""

import torch
import triton
import triton.language as tl

from tilebook import check, device
from tilebook.memory import vectors, wide

PER_SM = 4
STAGES = 8


@triton.jit(do_not_specialize=["n"])
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    first = tl.program_id(0).to(tl.int64) * BLOCK
    # The tiles up to here are whole; at most one comes after.
    whole = (n.to(tl.int64) // BLOCK) * BLOCK
    for start in tl.range(first, whole, step, num_stages=STAGES):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs)  # (BLOCK,)
        tl.store(out_ptr + offs, x)
    if first == 0:
        offs = whole + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
        tl.store(out_ptr + offs, x, mask=mask)


def copy(
    x: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    programs: int | None = None,
    stages: int = STAGES,
) -> torch.Tensor:
    """Copy a vector with a fixed number of programs.

    Args:
        x: contiguous tensor, any dtype of up to 8 bytes.
        out: contiguous, the same shape, dtype and device; receives the copy.
        programs: how many; by default `PER_SM` on each multiprocessor.
        stages: tiles that a program has on their way at a time.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, a tensor isn't contiguous, or a number
            isn't positive.
    """
    if programs is None:
        programs = PER_SM * (device.current().sms or 1)
    check.positive_int(programs, "programs")
    check.positive_int(stages, "stages")
    out = vectors.check(x, out)
    if x.numel():
        source, target = vectors.words(x, out)
        n, block = source.numel(), wide.block_of(source)
        grid = (min(programs, triton.cdiv(n, block)),)
        copy_kernel[grid](
            source, target, n, BLOCK=block, STAGES=stages, num_warps=wide.NUM_WARPS
        )
    return out
