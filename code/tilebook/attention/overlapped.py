"""Rung 6, weights while tensor cores work (Gluon).

A group begins to multiply queries and a block's keys, and to add up the values of the
block before. It weighs the new scores while those values are being added up: tensor
cores and exponentials no longer wait for each other in one group either. This is what
FlashAttention-3 does within a group of warps (Shah et al., 2024, section 3.2).
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
from tilebook.attention.cooperative import CONFIGS, produce
from tilebook.attention.launching import Config, Task
from tilebook.attention.wgmma import (
    add,
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


@gluon.jit
def step(
    queries, ring, bars, count, acc, weights, most, sums, scale,
    row, column, keys, left, WINDOW: gl.constexpr,
):  # fmt: skip
    """Weigh a block while the values of the one before are added up."""
    k_arrived, v_arrived, k_free, v_free = bars
    BLOCK_N: gl.constexpr = ring.shape[3]
    scores = score(queries, ring, k_arrived, count, BLOCK_N)
    acc = add(acc, weights, ring, v_arrived, count - 1)
    scores = warpgroup_mma_wait(1, deps=(scores,))
    let_go(k_free, count)
    scores = unseen(scores, row, column, keys, left, False, False, WINDOW)
    most, sums, fresh, shrink = weigh_more(scores, scale, most, sums)
    # Of the weights, too: their registers are read until then.
    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))
    let_go(v_free, count - 1)
    acc = scaled(acc, shrink)
    return acc, rounded(fresh, acc, ring.dtype), most, sums


@gluon.jit
def steps(
    queries, ring, bars, count, acc, weights, most, sums, scale,
    row, begin, whole, end, keys, left, WINDOW: gl.constexpr,
):  # fmt: skip
    """All of a part's blocks but the first, which is the program's number `count`."""
    BLOCK_N: gl.constexpr = ring.shape[3]
    clear = clear_of(begin, whole, end)
    for done in range(1, clear):
        acc, weights, most, sums = step(
            queries, ring, bars, count + done, acc, weights, most, sums,
            scale, row, 0, keys, left, False,
        )  # fmt: skip
    if WINDOW:
        for done in range(clear, end - begin):
            acc, weights, most, sums = step(
                queries, ring, bars, count + done, acc, weights, most, sums,
                scale, row, (end - 1 - done) * BLOCK_N, keys, left, True,
            )  # fmt: skip
    return acc, weights, most, sums


@gluon.jit
def consume(
    out_desc, lse, q_places, ring, places, q_arrived, bars,
    all_heads, heads, rows, keys, left, scale,
    PART: gl.constexpr, PARTS: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Compute a part of the tile, and store it."""
    k_arrived, v_arrived, k_free, v_free = bars
    ROWS: gl.constexpr = q_places.shape[3]
    COLUMNS: gl.constexpr = q_places.shape[4]
    BLOCK_M: gl.constexpr = PARTS * ROWS
    BLOCK_N: gl.constexpr = ring.shape[3]
    head, row = place_of(gl.program_id(0), all_heads, rows, BLOCK_M, GROUP, CAUSAL)
    begin, _, last = span_of(row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    row += PART * ROWS
    _, whole, end = span_of(row, ROWS, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    count = last - end
    skip(ring, bars, 0, count)
    mbarrier.wait(q_arrived.index(0), 0)
    queries = matrix(q_places.index(PART))
    scores = warpgroup_mma_wait(
        0, deps=(score(queries, ring, k_arrived, count, BLOCK_N),)
    )
    let_go(k_free, count)
    column = (end - 1) * BLOCK_N
    scores = unseen(scores, row, column, keys, left, CAUSAL, RAGGED, WINDOW)
    most, sums, weights = weigh(scores, scale, BLOCK_N)
    acc = nothing_yet(ROWS, COLUMNS)
    weights = rounded(weights, acc, ring.dtype)
    acc, weights, most, sums = steps(
        queries, ring, bars, count, acc, weights, most, sums, scale,
        row, begin, whole, end, keys, left, WINDOW,
    )  # fmt: skip
    count += end - begin - 1
    acc = add(acc, weights, ring, v_arrived, count)
    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))
    let_go(v_free, count)
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
    """Attend: weights are computed while tensor cores work.

    See `launching.attended` for arguments, results and errors.
    """
    return launching.attended(launch, q, k, v, causal, window, scale)
