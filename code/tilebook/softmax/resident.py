"""Rung 8, the row in shared memory: Hopper's copy engine brings it there (Gluon).

Each row is read once, up to what shared memory and registers hold together: 112 Ki
bfloat16 in 224 KiB of the one and 16 Ki in the other. A program stays, and walks over
rows. Its shared memory is a ring of slots, each for a chunk of a row, which the engine
fills while the threads compute. In the first pass they take chunks as they come into
their running maxima and sums. In the second they read each chunk again, and as soon as
all have it in registers its slot goes to the engine, for a chunk of a row to come: the
next row is read while this one is written.

What a row has beyond whole chunks, or beyond the ring, is its tail, which stays in
registers as narrow as in memory. It is the last that the first pass takes and the first
that the second writes, so that the next row's is on its way for the longest.

Who arrives, who waits, what becomes safe::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `arrived[slot]` | one thread, and the bytes | all, first pass | read the slot |
    | before a refill | all, with their chunk loaded | all | overwrite the slot |
    | in `settled` | all, with the first pass done | all | the second pass |

The first is an mbarrier: a thread announces the bytes to come, the engine counts them
off, and its phase flips. The compiler puts the other two, and a fence before a refill:
what the threads did to a slot is ordered before what the engine does.

Chunk q of a program lives in slot q % SLOTS, as that slot's use q // SLOTS: the parity
of the use is the phase to wait for. No wait is for ever: chunk q is asked for once
chunk q - SLOTS has been read the second time, and since no row has more chunks than
there are slots, that one is of an earlier row.
"""

from typing import NamedTuple

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import device, library
from tilebook._gluon import async_load
from tilebook.softmax import arithmetic
from tilebook.softmax.occupancy import programs
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    prepared,
    row_stride,
    starts_aligned,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHARED = 224 * 1024
"""Bytes of shared memory that the rings of a multiprocessor's programs take."""
CHUNK = 16 * 1024
"""Bytes of a chunk, at most."""
TAIL = 2
"""Chunks that registers hold beside the ring, at most."""
SHORT = {8: 4 * 1024, 4: 8 * 1024, 2: 128 * 1024}
"""Programs that share a multiprocessor, and bytes of a row up to which they do."""
WARPS_PER_SM = 16
LARGEST = 2**31 - 2**16
LAG, LAGGING = 2, 2
"""Chunks by which the next row's first pass is behind this one's second, where a
multiprocessor has so many programs or fewer: more are out of step by themselves."""

LOG2E = gl.constexpr(arithmetic.LOG2E.value)
LOWEST = gl.constexpr(arithmetic.LOWEST.value)


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    chunk: int
    """Elements of a chunk, a power of two from 256 on."""
    slots: int
    """Chunks that the ring holds."""
    tail: int
    """Chunks that registers hold: 0, 1 or 2."""
    num_warps: int
    """Warps that share a row."""
    per_sm: int
    """Programs on a multiprocessor."""
    lag: int
    """Chunks by which the next row's first pass is behind this one's second; 0 if it
    begins after that."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        Chunks of 16 KiB, or the row if that is shorter, for 16 warps and as many slots
        as there is room for; parts of these for several programs if rows are short.
    """
    sharing = [each for each, most in SHORT.items() if n * itemsize <= most]
    per_sm = max(sharing, default=1)
    chunk = min(CHUNK // per_sm // itemsize, cover(n + 1) // 2)
    whole = n // chunk
    # Four rows ahead are enough: each slot has a barrier to be set up.
    slots = min(SHARED // per_sm // (chunk * itemsize), max(2, 4 * whole))
    left = n - min(whole, slots) * chunk
    tail = cover(-(-left // chunk)) if left else 0
    lag = LAG if per_sm <= LAGGING else 0
    return Config(chunk, slots, tail, WARPS_PER_SM // per_sm, per_sm, lag)


@gluon.jit
def taken(top, total, x, scale):
    """Take a row of x (LANES, V) into each lane's maximum and sum; see `fold`."""
    higher = gl.maximum(top, gl.max(x, axis=1))
    parts = gl.sum(gl.exp2((x - gl.expand_dims(higher, 1)) * scale), axis=1)
    return higher, total * gl.exp2((top - higher) * scale) + parts


@gluon.jit
def received(
    top, total, ring, arrived, q, scale, flat: gl.constexpr, rows: gl.constexpr
):  # fmt: skip
    """Wait for a chunk, and take it into each lane's maximum and sum."""
    SLOTS: gl.constexpr = ring.shape[0]
    V: gl.constexpr = rows.size_per_thread[1]
    mbarrier.wait(arrived.index(q % SLOTS), (q // SLOTS) & 1)
    x = ring.index(q % SLOTS).load(flat).reshape([ring.shape[2] // V, V])
    x = gl.convert_layout(x, rows, assert_trivial=True)
    return taken(top, total, x.to(gl.float32), scale)


@gluon.jit
def settled(top, total, scale):
    """Merge all lanes; see `settle`."""
    best = gl.max(top, axis=0)
    return best, gl.sum(total * gl.exp2((top - best) * scale), axis=0)


@gluon.jit
def final(x, top, total, inverse_t, LOG: gl.constexpr):
    """Turn elements into results; see `finished`."""
    if LOG:
        y = (x - top) * inverse_t - gl.log(total)
    else:
        y = gl.exp2((x - top) * (inverse_t * LOG2E)) * (1.0 / total)
    return y


@gluon.jit
def softmax_kernel(
    x_desc, x_ptr, out_ptr, m, n, stride, chunks, inverse_t,
    SLOTS: gl.constexpr, TAIL: gl.constexpr, V: gl.constexpr, LAG: gl.constexpr,
    LOG: gl.constexpr,
):  # fmt: skip
    CHUNK: gl.constexpr = x_desc.block_type.shape[1]
    NBYTES: gl.constexpr = x_desc.block_type.nbytes
    WARPS: gl.constexpr = gl.num_warps()
    LANES: gl.constexpr = CHUNK // V
    # V neighbours a thread, 16 bytes; as a row of the chunk, and as a lane's
    # row of its own. The same threads hold the same elements in both.
    flat: gl.constexpr = gl.BlockedLayout([1, V], [1, 32], [1, WARPS], [1, 0])
    rows: gl.constexpr = gl.BlockedLayout([1, V], [32, 1], [WARPS, 1], [1, 0])
    lanes: gl.constexpr = gl.SliceLayout(1, rows)

    # Rows may lie 16 bytes apart: Triton makes a constant of an argument of 1.
    n, stride = n * V, gl.to_tensor(stride).to(gl.int64) * V
    scale = inverse_t * LOG2E
    ring = gl.allocate_shared_memory(x_desc.dtype, [SLOTS, 1, CHUNK], x_desc.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(SLOTS):
        mbarrier.init(arrived.index(i), count=1)

    first = gl.program_id(0)
    step = gl.num_programs(0)
    turns = gl.cdiv(m - first, step)
    ours = turns * chunks
    for i in gl.static_range(SLOTS):
        mbarrier.expect(arrived.index(i), NBYTES, pred=i < ours)
        async_load(
            x_desc, [first + i // chunks * step, i % chunks * CHUNK],
            arrived.index(i), ring.index(i), pred=i < ours,
        )  # fmt: skip

    at_lane = gl.arange(0, LANES, lanes) * V
    at = gl.expand_dims(at_lane, 1) + gl.expand_dims(
        gl.arange(0, V, gl.SliceLayout(0, rows)), 0
    )  # (LANES, V)
    if TAIL > 0:
        # A lane has V neighbours of each chunk of the tail.
        at_v = gl.arange(0, TAIL * V, gl.SliceLayout(0, rows))
        at_v = at_v // V * CHUNK + at_v % V
        at_tail = gl.expand_dims(at_lane, 1) + gl.expand_dims(at_v, 0)
        at_tail += chunks * CHUNK  # (LANES, TAIL * V)
        inside = at_tail < n
        tail = gl.load(
            x_ptr + first.to(gl.int64) * stride + at_tail,
            mask=inside, other=-float("inf"),
        )  # fmt: skip

    top = gl.full([LANES], LOWEST, gl.float32, lanes)
    total = gl.zeros([LANES], gl.float32, lanes)
    for c in range(chunks):
        top, total = received(top, total, ring, arrived, c, scale, flat, rows)
    if TAIL > 0:
        top, total = taken(top, total, tail.to(gl.float32), scale)
    best, d = settled(top, total, scale)

    for turn in range(turns):
        row = (first + turn * step).to(gl.int64)
        more = turn + 1 < turns
        row_ptr = out_ptr + row * n
        if TAIL > 0:
            y_tail = final(tail.to(gl.float32), best, d, inverse_t, LOG)
            gl.store(
                row_ptr + at_tail, y_tail.to(out_ptr.dtype.element_ty),
                mask=inside, cache_modifier=".cs",
            )  # fmt: skip
            tail = gl.load(
                x_ptr + (row + step) * stride + at_tail,
                mask=inside & more, other=-float("inf"),
            )  # fmt: skip
        top = gl.full([LANES], LOWEST, gl.float32, lanes)
        total = gl.zeros([LANES], gl.float32, lanes)
        for c in range(chunks):
            q = turn * chunks + c
            x = ring.index(q % SLOTS).load(flat).reshape([LANES, V])
            x = gl.convert_layout(x, rows, assert_trivial=True)
            # All have it in registers: the slot is for the chunk that is
            # SLOTS further on.
            ahead = q + SLOTS
            mbarrier.expect(arrived.index(q % SLOTS), NBYTES, pred=ahead < ours)
            async_load(
                x_desc, [first + ahead // chunks * step, ahead % chunks * CHUNK],
                arrived.index(q % SLOTS), ring.index(q % SLOTS), pred=ahead < ours,
            )  # fmt: skip
            y = final(x.to(gl.float32), best, d, inverse_t, LOG)
            gl.store(
                row_ptr + c * CHUNK + at, y.to(out_ptr.dtype.element_ty),
                cache_modifier=".cs",
            )  # fmt: skip
            # Meanwhile the next row's first pass, a few chunks behind.
            if more & (c >= LAG) & (LAG > 0):
                top, total = received(
                    top, total, ring, arrived, q + chunks - LAG, scale, flat, rows
                )  # fmt: skip
        if more:
            for c in range(gl.maximum(chunks - LAG, 0) if LAG else 0, chunks):
                top, total = received(
                    top, total, ring, arrived, (turn + 1) * chunks + c, scale,
                    flat, rows,
                )  # fmt: skip
            if TAIL > 0:
                top, total = taken(top, total, tail.to(gl.float32), scale)
        best, d = settled(top, total, scale)


def describe(x: torch.Tensor, chunk: int) -> TensorDescriptor:
    """Make the engine's description of a matrix, with chunks of rows as its blocks."""
    layout = gl.NVMMASharedLayout(
        swizzle_byte_width=0, element_bitwidth=8 * x.itemsize, rank=2
    )
    return TensorDescriptor.from_tensor(x, [1, chunk], layout)


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one."""
    return (SHARED + TAIL * CHUNK) // itemsize


def refusal(x: torch.Tensor) -> str | None:
    """Say why a matrix can't be brought by the engine, or held.

    Args:
        x: matrix (m, n).

    Returns:
        The first reason; None if there is none.
    """
    m, n = map(int, x.shape)
    row = row_stride(x) * x.itemsize
    if x.dtype not in DTYPES:
        return f"its elements must be of up to 4 bytes, got {x.itemsize}"
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    if n * x.itemsize % 16 or row % 16 or row <= 0:
        return (
            "its rows must be, and lie apart, a multiple of 16 bytes, got "
            f"{n * x.itemsize} and {row}"
        )
    if not 256 <= n <= longest(x.itemsize):
        return f"a row must have 256 to {longest(x.itemsize)} elements, got {n}"
    if m > LARGEST:
        return f"there must be at most {LARGEST} rows, got {m}"
    return None


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    vector = 16 // x.itemsize
    # A single row may say any stride; the engine wants one that is possible.
    x = x.as_strided((m, n), (row_stride(x), 1))
    task.wrap(softmax_kernel)[(programs(m, config.per_sm),)](
        describe(x, config.chunk),
        x,
        out,
        m,
        n // vector,
        row_stride(x) // vector,
        min(n // config.chunk, config.slots),
        task.inverse_t,
        SLOTS=config.slots,
        TAIL=config.tail,
        V=vector,
        LAG=config.lag,
        LOG=task.log,
        num_warps=config.num_warps,
    )


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, kept in shared memory between its passes.

    Args:
        x: matrix (m, n) of float32, bfloat16 or float16, n from 256 to what `longest`
            says. It starts at a multiple of 16 bytes, and so do its rows, whose length
            is one, too.
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        HardwareError: there is no such engine here.
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, one that can't be taken,
            or a tensor where this process's kernels can't reach it.
    """
    out = prepared(x, refusal)
    device.require("tma")
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
