"""How long one load takes: a chain in which each says where the next one is."""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory.layout import written

LINE = 128
"""Bytes of a cache line; no two links of a chain share one."""


@triton.jit(do_not_specialize=["hops"])
def chase_kernel(next_ptr, at_ptr, hops):
    at = tl.load(at_ptr)
    # The address of each load is what the one before has loaded.
    for _ in range(hops):
        at = tl.load(next_ptr + at)
    tl.store(at_ptr, at)


def chain(nbytes: int, *, device: torch.device, seed: int = 0) -> torch.Tensor:
    """Make a chain through memory that visits every line once, in random order.

    Args:
        nbytes: of memory, at least two lines; rounded down to whole lines.
        device: where it lies.
        seed: of the order.

    Returns:
        int64 tensor: at each line's start the index of the next line's, so that a walk
        from 0 comes back to 0 after as many hops as there are lines.

    Raises:
        TypeError: `nbytes` isn't an integer.
        ValueError: fewer than two lines.
    """
    step = LINE // 8
    lines = check.positive_int(nbytes, "nbytes") // LINE
    if lines < 2:
        raise ValueError(f"nbytes must be at least {2 * LINE}, got {nbytes}")
    generator = torch.Generator(device).manual_seed(seed)
    order = torch.zeros(lines, dtype=torch.int64, device=device)
    order[1:] = 1 + torch.randperm(lines - 1, generator=generator, device=device)
    links = torch.zeros(lines * step, dtype=torch.int64, device=device)
    links[order * step] = order.roll(-1) * step
    return links


def chase(links: torch.Tensor, hops: int, at: torch.Tensor) -> torch.Tensor:
    """Walk along a chain with one program.

    Args:
        links: int64, as `chain` makes it.
        hops: loads, each of which waits for the one before.
        at: (1,) int64, the index where the walk begins; changed to that where it ends,
            so that the next call walks on.

    Returns:
        `at`.

    Raises:
        TypeError: a tensor isn't one of int64, or `hops` no integer.
        ValueError: not contiguous, another shape or device, or `hops` below 1.

    Notes:
        Nothing checks where the links lead: they must stay inside.
    """
    check.tensor(links, "links", dtype=torch.int64, ndim=1, contiguous=True)
    check.tensor(at, "at", dtype=torch.int64, shape=(1,), device=links.device)
    check.runs_here(links, "links", current=True)
    written(at, links)
    check.positive_int(hops, "hops")
    chase_kernel[(1,)](links, at, hops, num_warps=1)
    return at
