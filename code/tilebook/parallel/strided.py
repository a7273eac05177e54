"""Rung 4, a fixed number of programs: each strides over the vector, tile by tile."""

import torch
import triton
import triton.language as tl

from tilebook import check, device
from tilebook.parallel.operands import check_int32_offsets, check_operands

BLOCK = 1024
PROGRAMS_PER_SM = 8


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr, STAGES: tl.constexpr = 1):
    # Program p takes tiles p, p + P, p + 2P, ... of the P programs' tiles, so
    # that at any moment the programs read one stretch of memory together.
    first = tl.program_id(0) * BLOCK
    step = tl.num_programs(0) * BLOCK
    # STAGES > 1 lets the loads run that many tiles ahead of the stores.
    for start in tl.range(first, n, step, num_stages=STAGES):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
        y = tl.load(y_ptr + offs, mask=mask, other=0)  # (BLOCK,)
        tl.store(out_ptr + offs, x + y, mask=mask)


def add(
    x: torch.Tensor, y: torch.Tensor, *, programs: int | None = None, stages: int = 1
) -> torch.Tensor:
    """Add two vectors of any length with a fixed number of programs.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`; with one step of all
            programs, at most 2^31 elements.
        y: the same shape, dtype and device as `x`.
        programs: how many programs share the tiles; `PROGRAMS_PER_SM` for each of
            the GPU's multiprocessors unless given. Never more than there are tiles.
        stages: how many tiles of each operand a program has on their way at a time.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, its dtype isn't supported, or `programs`
            or `stages` isn't an integer.
        ValueError: shapes, dtypes or devices differ, an operand isn't contiguous,
            there are too many elements for 32-bit offsets, or `programs` or
            `stages` < 1.
    """
    check_operands(x, y)
    if programs is None:
        programs = PROGRAMS_PER_SM * (device.current().sms or 1)
    check.positive_int(programs, "programs")
    check.positive_int(stages, "stages")
    n = x.numel()
    programs = min(programs, max(1, triton.cdiv(n, BLOCK)))
    # The loop counter passes n by up to one step before the loop ends.
    check_int32_offsets(x, programs * BLOCK)
    out = torch.empty_like(x)
    if n:
        add_kernel[(programs,)](x, y, out, n, BLOCK=BLOCK, STAGES=stages)
    return out
