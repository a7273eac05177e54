"""What it costs when many add to one place: atomics, by the number of places."""

import torch
import triton
import triton.language as tl

from tilebook import check

BLOCK = 256
NUM_WARPS = 4


@triton.jit
def count_kernel(out_ptr, places, repeats, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ones = tl.full((BLOCK,), 1, tl.int32)
    for i in range(repeats):
        tl.atomic_add(out_ptr + (lanes + i) % places, ones, sem="relaxed")


def count(
    places: int, programs: int, repeats: int, *, device: torch.device
) -> torch.Tensor:
    """Add ones to places in turn, from many programs at a time.

    Args:
        places: how many there are to add to.
        programs: how many programs add, `BLOCK` lanes each.
        repeats: how often each lane does.
        device: where the places lie.

    Returns:
        (places,) int32: what was added to each; all of it together is
        ``programs * BLOCK * repeats``, in whatever order.

    Raises:
        TypeError: a number isn't an integer.
        ValueError: a number below 1, or a sum that doesn't fit into 31 bits.
    """
    for name, value in (
        ("places", places),
        ("programs", programs),
        ("repeats", repeats),
    ):
        check.positive_int(value, name)
    if places >= 2**31:
        raise ValueError(f"places must be below 2^31, got {places}")
    if programs * BLOCK * repeats >= 2**31:
        raise ValueError(
            f"programs * {BLOCK} * repeats must be below 2^31, got {programs} programs "
            f"and {repeats} repeats"
        )
    check.runs_here(torch.empty(0, device=device), "device", current=True)
    out = torch.zeros(places, dtype=torch.int32, device=device)
    count_kernel[(programs,)](out, places, repeats, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out
