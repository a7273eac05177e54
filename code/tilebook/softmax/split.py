"""Rung 7, a few very long rows: each shared out among programs, in two launches.

Eight rows keep eight multiprocessors busy if a program takes a whole row. Here a row is
cut into parts. The first kernel writes the maximum and the sum of each part, two floats
for some ten thousand elements. The second merges those of its row, each program for
itself, and finishes its part. Merging is associative, which is what allows to cut:
(m, d) and (m', d') make (M, d e^(m-M) + d' e^(m'-M)), with M the larger of m and m'. No
atomic operation, and no program that waits for another: the order is fixed, and so are
the bits.

The second kernel takes the parts in reverse. If all rows together fit into L2 it finds
everything there, and the traffic to memory is the floor.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device, library
from tilebook.softmax.arithmetic import finished, merged, settle, wide
from tilebook.softmax.occupancy import PRETENDED
from tilebook.softmax.online import gathered, spread, vectors
from tilebook.softmax.operands import PLAIN, Task, cover, prepared, row_stride
from tilebook.softmax.ragged import ends_of


class Config(NamedTuple):
    """How the two kernels are launched."""

    block: int
    """Elements of a chunk, a power of two."""
    num_warps: int
    """Warps that share a chunk."""
    parts: int
    """Programs that share a row."""
    keep: bool = True
    """Whether the first kernel asks the caches to keep what it reads."""
    drop: bool = True
    """Whether the second asks them to drop it."""


PER_THREAD = 64
"""Bytes of a chunk for each thread: four loads of 16."""
NUM_WARPS = 8
PER_SM = 4
"""Programs for each multiprocessor, if the rows have that many chunks."""
MOST_PARTS = 1024


def config_for(m: int, n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernels.

    Args:
        m: rows.
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        As many parts as give each multiprocessor `PER_SM` programs, and each at least
        a chunk.
    """
    block = 32 * NUM_WARPS * PER_THREAD // itemsize
    wanted = -(-PER_SM * (device.current().sms or PRETENDED) // m)
    parts = min(wanted, -(-n // block), MOST_PARTS)
    return Config(block, NUM_WARPS, max(parts, 1))


@triton.jit(do_not_specialize=["parts", "span"])
def partial_kernel(
    x_ptr, partial_ptr, n, stride, parts, span, inverse_t,
    DIV: tl.constexpr, V: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    pid = tl.program_id(0).to(tl.int64)
    row, part = pid // parts, pid % parts
    start, skip = row * stride, part * span * BLOCK
    if W == 1:
        left = tl.minimum(n - skip, span * BLOCK)
        top, total = gathered(x_ptr + start + skip, left, inverse_t, V, BLOCK, KEEP)
    else:
        _, body, at, outside = ends_of(start, n, W)
        first = (start + W - 1) // W * W + skip
        left = tl.minimum(body - skip, span * BLOCK)
        top, total = gathered(x_ptr + first, left, inverse_t, V, BLOCK, KEEP)
        # The row's first part takes the ends, too.
        ends = tl.load(
            x_ptr + start + at, mask=outside & (part == 0), other=-float("inf")
        )  # (2 * W,)
        top, total = merged(top, total, wide(ends), inverse_t)
    tl.store(partial_ptr + 2 * pid, top)
    tl.store(partial_ptr + 2 * pid + 1, total)


@triton.jit(do_not_specialize=["parts", "span"])
def finish_kernel(
    x_ptr, out_ptr, partial_ptr, n, stride, parts, span, inverse_t,
    DIV: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr,
    DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    # What the first kernel read last is the likeliest to be in a cache.
    pid = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    row, part = pid // parts, pid % parts
    lanes = tl.arange(0, LANES)
    partial_ptr += row * parts * 2
    # A part of no elements: the lowest maximum of all, and a sum of 0.
    tops = tl.load(
        partial_ptr + 2 * lanes, mask=lanes < parts, other=-float("inf")
    )  # (LANES,)
    totals = tl.load(
        partial_ptr + 2 * lanes + 1, mask=lanes < parts, other=0
    )  # (LANES,)
    top, total = settle(tops, totals, inverse_t)
    start, out_start, skip = row * stride, row * n, part * span * BLOCK
    if W == 1:
        left = tl.minimum(n - skip, span * BLOCK)
        spread(
            x_ptr + start + skip, out_ptr + out_start + skip, left,
            top, total, inverse_t, BLOCK, True, DROP, LOG,
        )  # fmt: skip
    else:
        _, body, at, outside = ends_of(start, n, W)
        first, out_first = (start + W - 1) // W * W, (out_start + W - 1) // W * W
        left = tl.minimum(body - skip, span * BLOCK)
        outside = outside & (part == 0)
        ends = tl.load(x_ptr + start + at, mask=outside, other=0)  # (2 * W,)
        y = finished(wide(ends), top, total, inverse_t, LOG)
        tl.store(out_ptr + out_start + at, y, mask=outside, cache_modifier=".cs")
        spread(
            x_ptr + first + skip, out_ptr + out_first + skip, left,
            top, total, inverse_t, BLOCK, True, DROP, LOG,
        )  # fmt: skip


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernels in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    facts = vectors(x, out)
    div, vector = facts["DIV"], facts.pop("V")
    kept = torch.float64 if x.dtype == torch.float64 else torch.float32
    # Spans of whole chunks, and no part without any.
    chunks = -(-n // config.block)
    span = -(-chunks // config.parts)
    parts = -(-chunks // span)
    partial = torch.empty((m, parts, 2), dtype=kept, device=x.device)
    sizes = (n // div, row_stride(x) // div, parts, span, task.inverse_t)
    shared = facts | {"BLOCK": config.block}
    task.wrap(partial_kernel)[(m * parts,)](
        x,
        partial,
        *sizes,
        **shared,
        V=vector,
        KEEP=config.keep,
        num_warps=config.num_warps,
    )
    task.wrap(finish_kernel)[(m * parts,)](
        x,
        out,
        partial,
        *sizes,
        **shared,
        LANES=cover(parts),
        DROP=config.drop,
        LOG=task.log,
        num_warps=config.num_warps,
    )


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, each shared out among several programs.

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
        Takes 8 bytes of memory for each part.
    """
    out = prepared(x)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(*x.shape, x.itemsize), x, out)
    return out
