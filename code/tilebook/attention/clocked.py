"""`overlapped` with clocks: when each group of warps does what (Gluon).

The same steps for the plain case, no mask and no window, and after each part of a step
a look at the multiprocessor's clock. Weights are numbers in registers, and who reads
a clock doesn't wait for them; so that look is made if a sum of them is above -infinity.
Without a log nobody looks.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook.attention import launching
from tilebook.attention.cooperative import produce
from tilebook.attention.launching import Config, Task
from tilebook.attention.wgmma import (
    PARTIAL,
    add,
    finish,
    let_go,
    matrix,
    nothing_yet,
    place_of,
    ring_of,
    rounded,
    scaled,
    score,
    unseen,
    weigh,
    weigh_more,
)
from tilebook.hopper.wgmma import barriers

PARTS = gl.constexpr(2)
"""Groups of a program."""
LOGGED = gl.constexpr(32)
"""Blocks of a program whose times a log takes."""
EVENTS = gl.constexpr(4)
MARKS = gl.constexpr(16)
"""Threads of a group that look when weights are there: four of each warp."""
ASKED, THERE, WEIGHED, ADDED = map(gl.constexpr, range(4))
"""Of a block: its scores and the last block's values have been asked for, scores are
there, weights are, and the last block's values have been added up."""
EVENT = ("asked", "there", "weighed", "added")
WHO = ("first group", "second group")


@gluon.jit
def place_in(PART: gl.constexpr, block, event: gl.constexpr):
    """Where an event's marks are in a log (programs, PARTS, LOGGED, EVENTS, MARKS)."""
    which = (gl.program_id(0) * PARTS + PART) * LOGGED + block
    return (which * EVENTS + event) * MARKS


@gluon.jit
def mark(log, PART: gl.constexpr, block, event: gl.constexpr):
    """Note when the group's first thread comes by, if there is a log."""
    if log is not None:
        at = log + place_in(PART, block, event)
        if block < LOGGED:
            now = gl.inline_asm_elementwise(
                "mov.u64 $0, %clock64;", "=l", [], dtype=gl.int64, is_pure=False, pack=1
            )
            gl.store(at, now)


@gluon.jit
def mark_when(log, PART: gl.constexpr, block, event: gl.constexpr, sums):
    """Note when a thread of each row of four has its part of a row's sum."""
    if log is not None:
        at = log + place_in(PART, block, event)
        if block < LOGGED:
            ROWS: gl.constexpr = sums.shape[0]
            EACH: gl.constexpr = PARTIAL // 2
            a, b = gl.split(sums.reshape([ROWS, EACH, 2]))
            now = gl.inline_asm_elementwise(
                "{ .reg .pred p; setp.gt.f32 p, $1, 0fFF800000; mov.u64 $0, 0; "
                "@p mov.u64 $0, %clock64; }",
                "=l,f", [a + b], dtype=gl.int64, is_pure=False, pack=1,
            )  # fmt: skip
            layout: gl.constexpr = now.type.layout
            row = gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))
            column = gl.arange(0, EACH, layout=gl.SliceLayout(0, layout))
            row, column = gl.expand_dims(row, 1), gl.expand_dims(column, 0)
            gl.store(at + (row // 16 * EACH + column), now, mask=row % 16 == 0)


@gluon.jit
def step(
    queries, ring, bars, count, acc, weights, most, sums, scale, log,
    PART: gl.constexpr,
):  # fmt: skip
    """Weigh a block while the values of the one before are added up."""
    k_arrived, v_arrived, k_free, v_free = bars
    BLOCK_N: gl.constexpr = ring.shape[3]
    scores = score(queries, ring, k_arrived, count, BLOCK_N)
    acc = add(acc, weights, ring, v_arrived, count - 1)
    mark(log, PART, count, ASKED)
    scores = warpgroup_mma_wait(1, deps=(scores,))
    mark(log, PART, count, THERE)
    let_go(k_free, count)
    most, sums, fresh, shrink = weigh_more(scores, scale, most, sums)
    mark_when(log, PART, count, WEIGHED, sums)
    # Of the weights, too: their registers are read until then.
    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))
    mark(log, PART, count, ADDED)
    let_go(v_free, count - 1)
    acc = scaled(acc, shrink)
    return acc, rounded(fresh, acc, ring.dtype), most, sums


@gluon.jit
def consume(
    out_desc, lse, q_places, ring, places, q_arrived, bars, log,
    all_heads, heads, rows, keys, scale,
    PART: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Compute a part of the tile, and store it."""
    k_arrived, v_arrived, k_free, v_free = bars
    ROWS: gl.constexpr = q_places.shape[3]
    COLUMNS: gl.constexpr = q_places.shape[4]
    BLOCK_N: gl.constexpr = ring.shape[3]
    head, row = place_of(gl.program_id(0), all_heads, rows, PARTS * ROWS, GROUP, False)
    row += PART * ROWS
    blocks = gl.cdiv(keys, BLOCK_N)
    mbarrier.wait(q_arrived.index(0), 0)
    queries = matrix(q_places.index(PART))
    scores = score(queries, ring, k_arrived, 0, BLOCK_N)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    let_go(k_free, 0)
    scores = unseen(scores, row, 0, keys, 0, False, False, False)
    most, sums, weights = weigh(scores, scale, BLOCK_N)
    acc = nothing_yet(ROWS, COLUMNS)
    weights = rounded(weights, acc, ring.dtype)
    for count in range(1, blocks):
        acc, weights, most, sums = step(
            queries, ring, bars, count, acc, weights, most, sums, scale, log, PART
        )
    acc = add(acc, weights, ring, v_arrived, blocks - 1)
    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))
    let_go(v_free, blocks - 1)
    finish(acc, most, sums, out_desc, lse, places.index(PART), head, heads, row, rows)
    tma.store_wait(0)


@gluon.jit
def clocked_kernel(
    q_desc, k_desc, v_desc, out_desc, lse, all_heads, heads, share, rows, keys, scale,
    log, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    q_places, places = ring_of(q_desc, PARTS), ring_of(out_desc, PARTS)
    ring = ring_of(k_desc, 2 * STAGES)
    q_arrived = barriers(1, 1)
    k_arrived, v_arrived = barriers(STAGES, 1), barriers(STAGES, 1)
    k_free, v_free = barriers(STAGES, PARTS), barriers(STAGES, PARTS)
    bars = (k_arrived, v_arrived, k_free, v_free)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, lse, q_places, ring, places, q_arrived, bars, log,
                all_heads, heads, rows, keys, scale, 0, GROUP,
            )),
            (consume, (
                out_desc, lse, q_places, ring, places, q_arrived, bars, log,
                all_heads, heads, rows, keys, scale, 1, GROUP,
            )),
            (produce, (
                q_desc, k_desc, v_desc, q_places, ring, q_arrived, bars,
                all_heads, heads, share, rows, keys, 0, PARTS, GROUP, False, False,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def log_for(task: Task, config: Config) -> torch.Tensor:
    """Make an empty log for a launch.

    Args:
        task: what is computed.
        config: how.

    Returns:
        (programs, PARTS, LOGGED, EVENTS, MARKS) int64 of zeros.
    """
    shape = (PARTS.value, LOGGED.value, EVENTS.value, MARKS.value)
    count = launching.tiles(task, config)
    return torch.zeros((count, *shape), dtype=torch.int64, device=task.q.device)


def launch(task: Task, config: Config, log: torch.Tensor | None = None) -> None:
    """Launch the kernel.

    Args:
        task: what is computed, nothing that `launching.refusal` refuses; no mask, no
            window, and keys that fill blocks.
        config: how, with two groups.
        log: from `log_for`; None for no clocks.

    Raises:
        ValueError: it is refused.
    """
    reason = launching.refusal(task)
    if task.right is not None or task.left is not None:
        reason = "there must be no mask and no window"
    elif task.k.shape[2] % config.block_n or config.parts != PARTS.value:
        reason = f"keys must fill blocks of {config.block_n}, for two groups"
    if reason:
        raise ValueError(reason)
    args, meta = launching.arguments(task, config)
    # No keys before a query's own are counted: there is no window.
    *first, _, scale = args
    told = {name: meta[name] for name in ("STAGES", "GROUP", "num_warps")}
    grid = (launching.tiles(task, config),)
    task.wrap(clocked_kernel)[grid](*first, scale, log, **told)
