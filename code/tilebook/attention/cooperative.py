"""Rung 5, a warp that only loads and groups that only compute (Gluon).

One warp of a program, the producer, asks the copy engine for a tile's queries, and then
for block after block of keys and values. Two groups of four warps have half of the
tile's rows each. A group still does one thing at a time: it multiplies queries and
keys, and waits; weighs; adds up values, and waits. But while one group weighs, the
other may multiply.
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
from tilebook.attention.launching import Config, Task
from tilebook.attention.wgmma import (
    add,
    bring,
    bring_queries,
    bring_rest,
    clear_of,
    finish,
    let_go,
    matrix,
    nothing_yet,
    place_of,
    ring_of,
    rounded,
    scaled,
    score,
    skip,
    span_of,
    unseen,
    weigh,
    weigh_more,
)
from tilebook.hopper.wgmma import barriers

CONFIGS = {
    64: (Config(64, 2, 128, 3), Config(64, 3, 128, 3)),
    128: (Config(64, 2, 128, 2),),
    256: (Config(64, 2, 64, 2, pieces=2),),
}
"""What to try on a card, by columns of a head; the first is what `config_for` takes."""


@gluon.jit
def produce(
    q_desc, k_desc, v_desc, q_places, ring, q_arrived, bars,
    all_heads, heads, share, rows, keys, left,
    PARTS: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Bring a tile's queries, then its blocks, as there is room."""
    BLOCK_M: gl.constexpr = PARTS * q_desc.block_type.shape[2]
    BLOCK_N: gl.constexpr = k_desc.block_type.shape[2]
    head, row = place_of(gl.program_id(0), all_heads, rows, BLOCK_M, GROUP, CAUSAL)
    batch, head = head // heads, head % heads
    bring_queries(q_desc, batch, head, row, q_arrived.index(0), q_places, 0, PARTS)
    begin, _, end = span_of(row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    head //= share
    k_arrived, k_free = bars[0], bars[2]
    bring(k_desc, batch, head, (end - 1) * BLOCK_N, ring, k_arrived, k_free, 0, 0)
    bring_rest(k_desc, v_desc, batch, head, begin, end, ring, bars, 0)


@gluon.jit
def step(
    queries, ring, bars, count, acc, most, sums, scale,
    row, column, keys, left, FIRST: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Multiply, weigh and add up one block."""
    k_arrived, v_arrived, k_free, v_free = bars
    BLOCK_N: gl.constexpr = ring.shape[3]
    scores = score(queries, ring, k_arrived, count, BLOCK_N)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    let_go(k_free, count)
    scores = unseen(scores, row, column, keys, left, CAUSAL, RAGGED, WINDOW)
    if FIRST:
        most, sums, weights = weigh(scores, scale, BLOCK_N)
    else:
        most, sums, weights, shrink = weigh_more(scores, scale, most, sums)
        acc = scaled(acc, shrink)
    weights = rounded(weights, acc, ring.dtype)
    acc = add(acc, weights, ring, v_arrived, count)
    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))
    let_go(v_free, count)
    return acc, most, sums


@gluon.jit
def consume(
    out_desc, lse, q_places, ring, places, q_arrived, bars,
    all_heads, heads, rows, keys, left, scale,
    PART: gl.constexpr, PARTS: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Compute a part of the tile, and store it."""
    ROWS: gl.constexpr = q_places.shape[3]
    COLUMNS: gl.constexpr = q_places.shape[4]
    BLOCK_M: gl.constexpr = PARTS * ROWS
    BLOCK_N: gl.constexpr = ring.shape[3]
    head, row = place_of(gl.program_id(0), all_heads, rows, BLOCK_M, GROUP, CAUSAL)
    begin, _, last = span_of(row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    row += PART * ROWS
    _, whole, end = span_of(row, ROWS, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    first = last - end
    skip(ring, bars, 0, first)
    mbarrier.wait(q_arrived.index(0), 0)
    queries = matrix(q_places.index(PART))
    acc = nothing_yet(ROWS, COLUMNS)
    acc, most, sums = step(
        queries, ring, bars, first, acc, None, None, scale,
        row, (end - 1) * BLOCK_N, keys, left, True, CAUSAL, RAGGED, WINDOW,
    )  # fmt: skip
    clear = clear_of(begin, whole, end)
    for done in range(1, clear):
        acc, most, sums = step(
            queries, ring, bars, first + done, acc, most, sums, scale,
            row, 0, keys, left, False, False, False, False,
        )  # fmt: skip
    if WINDOW:
        for done in range(clear, end - begin):
            acc, most, sums = step(
                queries, ring, bars, first + done, acc, most, sums, scale,
                row, (end - 1 - done) * BLOCK_N, keys, left, False, False, False, True,
            )  # fmt: skip
    finish(acc, most, sums, out_desc, lse, places.index(PART), head, heads, row, rows)
    tma.store_wait(0)


@gluon.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out_desc, lse, all_heads, heads, share, rows, keys, left,
    scale,
    PARTS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    q_places, places = ring_of(q_desc, PARTS), ring_of(out_desc, PARTS)
    ring = ring_of(k_desc, 2 * STAGES)
    q_arrived = barriers(1, 1)
    k_arrived, v_arrived = barriers(STAGES, 1), barriers(STAGES, 1)
    k_free, v_free = barriers(STAGES, PARTS), barriers(STAGES, PARTS)
    bars = (k_arrived, v_arrived, k_free, v_free)
    if PARTS == 2:
        gl.warp_specialize(
            [
                (consume, (
                    out_desc, lse, q_places, ring, places, q_arrived, bars,
                    all_heads, heads, rows, keys, left, scale,
                    0, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, q_arrived, bars,
                    all_heads, heads, rows, keys, left, scale,
                    1, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                )),
                (produce, (
                    q_desc, k_desc, v_desc, q_places, ring, q_arrived, bars,
                    all_heads, heads, share, rows, keys, left,
                    PARTS, GROUP, CAUSAL, WINDOW,
                )),
            ],
            [4, 1],
            [240, 24],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (consume, (
                    out_desc, lse, q_places, ring, places, q_arrived, bars,
                    all_heads, heads, rows, keys, left, scale,
                    0, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, q_arrived, bars,
                    all_heads, heads, rows, keys, left, scale,
                    1, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, q_arrived, bars,
                    all_heads, heads, rows, keys, left, scale,
                    2, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                )),
                (produce, (
                    q_desc, k_desc, v_desc, q_places, ring, q_arrived, bars,
                    all_heads, heads, share, rows, keys, left,
                    PARTS, GROUP, CAUSAL, WINDOW,
                )),
            ],
            [4, 4, 1],
            [160, 160, 32],
        )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `launching.launch`."""
    launching.launch(attention_kernel, task, config, CONFIGS)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend: one warp loads, two or three groups of four compute.

    See `launching.attended` for arguments, results and errors.
    """
    return launching.attended(launch, q, k, v, causal, window, scale)
