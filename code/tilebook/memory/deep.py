"""Rung 3, bytes in flight: several loads for each thread before its first store."""

import torch

from tilebook import check
from tilebook.memory import vectors, wide

LOADS = 4
"""Loads of 16 bytes that a thread has on their way at a time."""


def copy(
    x: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    loads: int = LOADS,
    num_warps: int = wide.NUM_WARPS,
    maxnreg: int | None = None,
) -> torch.Tensor:
    """Copy a vector, several times 16 bytes for each thread.

    Args:
        x: contiguous tensor, any dtype of up to 8 bytes.
        out: contiguous, the same shape, dtype and device; receives the copy.
        loads: of 16 bytes for each thread, a power of two up to 64.
        num_warps: warps in a program, a power of two up to 32.
        maxnreg: registers of a thread at most.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, a tensor isn't contiguous, `out` overlaps
            `x`, or a number isn't what it must be.
    """
    check.power_of_two(loads, "loads", 64)
    check.power_of_two(num_warps, "num_warps", 32)
    if maxnreg is not None:
        check.positive_int(maxnreg, "maxnreg")
    out = vectors.check(x, out)
    if x.numel():
        wide.launch(
            wide.copy_kernel,
            *vectors.words(x, out),
            loads=loads,
            num_warps=num_warps,
            maxnreg=maxnreg,
        )
    return out
