"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import torch
import triton
import triton.language as tl

from tilebook.measure import Roof

__all__ = [
    "control",
    "flight",
    "inclusive",
    "neighbour_kernel",
    "race",
    "requests",
    "sectors",
    "utilisation",
]

SECTOR = 32


def sectors(stride: int, size: int, lanes: int = 32) -> tuple[int, int]:
    """Sectors of a warp's request for elements that lie apart.

    Args:
        stride: elements from one lane's to the next one's.
        size: bytes of an element.
        lanes: of the warp, the first at the beginning of a sector.

    Returns:
        Sectors handed out, and sectors that the bytes wanted would fill.
    """
    touched = {lane * stride * size // SECTOR for lane in range(lanes)}
    return len(touched), -(-lanes * size // SECTOR)


def requests(offsets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Count the sectors of each warp's request.

    Args:
        offsets: (warps, 32) int64, in bytes; every lane wants four.
        mask: the same shape, int64; 0 where a lane wants nothing.

    Returns:
        (warps,) int64.
    """
    found = []
    for row, on in zip(offsets, mask, strict=True):
        found.append(torch.unique(row[on != 0] // SECTOR).numel())
    return torch.tensor(found, dtype=torch.int64, device=offsets.device)


def race(
    program: torch.Tensor, element: torch.Tensor, kind: torch.Tensor, n: int
) -> torch.Tensor:
    """Say which elements are raced for.

    Args:
        program: (accesses,) int64, who.
        element: (accesses,) int64, what; from 0 to n - 1.
        kind: (accesses,) int64: 0 a load, 1 a store, 2 an atomic addition.
        n: elements.

    Returns:
        (n,) int64, 1 where two programs touch an element, at least one of them
        writes, and not both atomically.
    """
    found = torch.zeros(n, dtype=torch.int64, device=program.device)
    for e in range(n):
        at = element == e
        who, what = program[at].tolist(), kind[at].tolist()
        here = list(zip(who, what, strict=True))
        found[e] = any(
            p != q and {a, b} not in ({0}, {2})
            for p, a in here
            for q, b in here
        )  # fmt: skip
    return found


def flight(loads: tuple[int, ...], threads: int) -> int:
    """Bytes on their way to an SM.

    Args:
        loads: bits of each load that a thread issues before it waits.
        threads: that live on the SM.

    Returns:
        Bytes.
    """
    return threads * sum(loads) // 8


def utilisation(
    moved: float, flops: float, microseconds: float, gbps: float, tflops: float
) -> float:
    """Part of the roofline that a kernel reaches.

    Args:
        moved: bytes that it must move.
        flops: operations that it must do.
        microseconds: that it takes.
        gbps: what the memory can do.
        tflops: what the arithmetic can do.

    Returns:
        From 0 to 1.
    """
    return Roof(gbps, tflops).floor(moved, flops) * 1e3 / microseconds


@triton.jit
def neighbour_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offs < n
    # The last column's right neighbour is itself, not the next row's first.
    right = tl.minimum(offs + 1, n - 1)
    x = tl.load(x_ptr + row * n + offs, mask=inside, other=0.0)  # (BLOCK,)
    y = tl.load(x_ptr + row * n + right, mask=inside, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + row * n + offs, tl.maximum(x, y), mask=inside)


def inclusive(parent: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Add times up over a profile's tree.

    Args:
        parent: (nodes,) int64, the number of each node's parent, which is
            smaller than its own; the root's is 0.
        own: (nodes,) int64, nanoseconds noted at each node itself.

    Returns:
        (nodes,) int64, of each node with all below it.
    """
    total = own.clone()
    for node in range(len(own) - 1, 0, -1):
        total[parent[node]] += total[node]
    return total


def control(field: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Take instructions' control fields apart.

    Args:
        field: (instructions,) int64: bits 0 to 3 clocks to stall, 4 yield, 5 to
            7 the barrier of the result, 8 to 10 that of the operands, 11 to 16
            the mask of barriers waited for.

    Returns:
        Clocks, the result's barrier (-1 for 7, which is none), and how many
        barriers are waited for.
    """
    result = field >> 5 & 7
    waits = sum(field >> 11 + bit & 1 for bit in range(6))
    return field & 15, torch.where(result == 7, -1, result), waits
