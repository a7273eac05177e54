"""Rung 6, rows of any length: two passes, of which the second finds caches warm.

A row that no program can hold is read twice. The maximum isn't known before the first
pass ends, so the first pass keeps a running maximum and a sum relative to it, which
shrinks whenever the maximum grows: the online recurrence. Each lane keeps its own pair,
and they are merged once, after the loop: no barrier waits inside it.

The second pass walks back to front. What the first pass read last is what caches still
hold: some 200 KiB in the L1 cache of each multiprocessor, and in L2 what all of them
read last. Front to back, each chunk would be evicted just before its turn. The first
pass asks the caches to keep what it reads, the second to drop it, and what is stored
passes by. For the same reason few programs walk over the rows, and no more than have
room for theirs in L1: a row of 256 KiB has a multiprocessor to itself.

Without any hit the traffic is 3mn elements, two thirds of the bandwidth. 131,072
bfloat16 take 256 KiB, 33 MiB for 132 of them: less than L2, most of it in L1.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.softmax.arithmetic import (
    begin,
    finished,
    fold,
    merged,
    settle,
    step,
    wide,
)
from tilebook.softmax.occupancy import programs
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    divisor,
    prepared,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import ends_of, uneven


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block: int
    """Elements of a chunk, a power of two."""
    num_warps: int
    """Warps that share a chunk."""
    per_sm: int = 1
    """Programs, and so rows, on a multiprocessor."""
    back: bool = True
    """Whether the second pass walks back to front."""
    keep: bool = True
    """Whether the first pass asks the caches to keep what it reads."""
    drop: bool = True
    """Whether the second asks them to drop it."""


# Bytes of a chunk for each thread, two loads of 16; what rows may take of L1; and the
# threads that a multiprocessor keeps busy with it.
PER_THREAD = 32
L1 = 256 * 1024
WARPS_PER_SM = 32


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        As many programs on a multiprocessor as it has room in L1 for their rows, up
        to eight; they share its 32 warps, with 32 bytes of a chunk for each thread,
        64 for a program by itself.
    """
    room = L1 // (int(n) * itemsize)
    per_sm = next(p for p in (8, 4, 2, 1) if p <= max(room, 1))
    each = (PER_THREAD if per_sm > 1 else 2 * PER_THREAD) // itemsize
    num_warps = WARPS_PER_SM // per_sm
    block = min(32 * num_warps * each, max(cover(n), 32 * each))
    return Config(block, block // (32 * each), per_sm)


@triton.jit
def gathered(
    x_ptr, length, inverse_t,
    V: tl.constexpr, BLOCK: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Pass one: the maximum and the sum of `length` neighbours in memory.

    V elements are a load's, all of one thread, so that taking them together asks
    nobody else; V = 1 where nothing is known of their alignment.
    """
    LANES: tl.constexpr = BLOCK // V
    offs = tl.arange(0, LANES)[:, None] * V + tl.arange(0, V)[None, :]
    top, total = begin(x_ptr, [LANES])
    for i in tl.range(0, length, BLOCK):
        left = tl.minimum(length - i, BLOCK).to(tl.int32)
        x = tl.load(
            x_ptr + i + offs, mask=offs < left, other=-float("inf"),
            eviction_policy="evict_last" if KEEP else "",
        )  # (LANES, V)  # fmt: skip
        if V == 1:
            top, total = step(top, total, tl.reshape(wide(x), [LANES]), inverse_t)
        else:
            top, total = fold(top, total, wide(x), inverse_t)
    return settle(top, total, inverse_t)


@triton.jit
def spread(
    x_ptr, out_ptr, length, top, total, inverse_t,
    BLOCK: tl.constexpr, BACK: tl.constexpr, DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Pass two: read the same neighbours again, and store what becomes of them."""
    offs = tl.arange(0, BLOCK)
    last = (length - 1) // BLOCK * BLOCK
    for i in tl.range(0, length, BLOCK):
        at = last - i if BACK else i
        mask = offs < tl.minimum(length - at, BLOCK).to(tl.int32)
        x = tl.load(
            x_ptr + at + offs, mask=mask, other=0,
            eviction_policy="evict_first" if DROP else "",
        )  # (BLOCK,)  # fmt: skip
        y = finished(wide(x), top, total, inverse_t, LOG)
        tl.store(out_ptr + at + offs, y, mask=mask, cache_modifier=".cs")


@triton.jit
def rewritten(
    x_ptr, out_ptr, row, n, stride, inverse_t,
    V: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
    BACK: tl.constexpr, KEEP: tl.constexpr, DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Both passes over one row."""
    start, out_start = row * stride, row * n
    if W == 1:
        top, total = gathered(x_ptr + start, n, inverse_t, V, BLOCK, KEEP)
        spread(
            x_ptr + start, out_ptr + out_start, n, top, total, inverse_t,
            BLOCK, BACK, DROP, LOG,
        )  # fmt: skip
    else:
        # The ends of the row go apart, as in `ragged`.
        _, body, at, outside = ends_of(start, n, W)
        first, out_first = (start + W - 1) // W * W, (out_start + W - 1) // W * W
        top, total = gathered(x_ptr + first, body, inverse_t, V, BLOCK, KEEP)
        ends = tl.load(x_ptr + start + at, mask=outside, other=-float("inf"))
        ends = wide(ends)  # (2 * W,)
        top, total = merged(top, total, ends, inverse_t)
        y = finished(ends, top, total, inverse_t, LOG)
        tl.store(out_ptr + out_start + at, y, mask=outside, cache_modifier=".cs")
        spread(
            x_ptr + first, out_ptr + out_first, body, top, total, inverse_t,
            BLOCK, BACK, DROP, LOG,
        )  # fmt: skip


@triton.jit(do_not_specialize=["m"])
def softmax_kernel(
    x_ptr, out_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, V: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
    BACK: tl.constexpr, KEEP: tl.constexpr, DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    for row in tl.range(
        tl.program_id(0).to(tl.int64), m, tl.num_programs(0), num_stages=1
    ):
        rewritten(
            x_ptr, out_ptr, row, n, stride, inverse_t,
            V, W, BLOCK, BACK, KEEP, DROP, LOG,
        )  # fmt: skip


def vectors(x: torch.Tensor, out: torch.Tensor) -> dict[str, int]:
    """What the kernel is told of the rows' alignment.

    Args:
        x: matrix (m, n), not empty.
        out: the same shape, contiguous.

    Returns:
        "DIV", what divides lengths and strides; "V", the elements that a lane takes at
        a time; "W", those of 16 bytes where the rows' ends go apart, else 1.
    """
    most = 16 // x.itemsize
    div = divisor(x, out)
    if starts_aligned(x) and div == most:
        return {"DIV": div, "V": most, "W": 1}
    if uneven(x) is None:
        return {"DIV": 1, "V": most, "W": most}
    return {"DIV": div, "V": 1, "W": 1}


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    facts = vectors(x, out)
    task.wrap(softmax_kernel)[(programs(m, config.per_sm),)](
        x,
        out,
        m,
        n // facts["DIV"],
        row_stride(x) // facts["DIV"],
        task.inverse_t,
        **facts,
        BLOCK=config.block,
        BACK=config.back,
        KEEP=config.keep,
        DROP=config.drop,
        LOG=task.log,
        num_warps=config.num_warps,
    )


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row in two passes, whatever its length.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, any row stride.
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, or one where this
            process's kernels can't reach it.

    Notes:
        The recurrence is Milakov and Gimelshein's, "Online normalizer calculation for
        softmax" (2018).
    """
    out = prepared(x)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
