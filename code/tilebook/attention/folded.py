"""Rung 7, one tile folded into the next: tensor cores don't wait at its end (Gluon).

A program stays, and takes tile after tile. The last values of a tile are added up while
the first scores of the next are made, and its result leaves while the next is computed;
the next queries have come meanwhile, if there are two places for them. Under a causal
mask tiles differ: programs ask a counter in global memory for their next tile, early,
since the answer takes a while. The producer asks, and tells the groups::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `q_free[place]` | every group, its last keys multiplied | the producer | bring |
    | `told_arrived[turn]` | the producer | every group | read the next tile |
    | `told_free[turn]` | every group | the producer | write another |
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook.attention import folding, launching
from tilebook.attention.counters import counter_on
from tilebook.attention.launching import Config, Task
from tilebook.attention.overlapped import steps
from tilebook.attention.telling import WORDS, hear, place_next, tell
from tilebook.attention.wgmma import (
    add,
    bring,
    bring_queries,
    bring_rest,
    finish,
    let_go,
    matrix,
    nothing_yet,
    place_of,
    ring_of,
    rounded,
    score,
    skip,
    span_of,
    unseen,
    weigh,
)
from tilebook.hopper.wgmma import barriers
from tilebook.softmax.occupancy import programs

CONFIGS = folding.CONFIGS


@gluon.jit
def produce(
    q_desc, k_desc, v_desc, counter, q_places, ring, told,
    q_arrived, q_free, bars, told_arrived, told_free,
    all_heads, heads, share, rows, keys, left,
    PARTS: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
    DYNAMIC: gl.constexpr, PLACED: gl.constexpr,
):  # fmt: skip
    """Bring queries and blocks, tile after tile, and say which tile is next."""
    BLOCK_M: gl.constexpr = PARTS * q_desc.block_type.shape[2]
    BLOCK_N: gl.constexpr = k_desc.block_type.shape[2]
    TURNS: gl.constexpr = q_places.shape[0] // PARTS
    k_arrived, k_free = bars[0], bars[2]
    tiles = gl.cdiv(rows, BLOCK_M) * all_heads
    count = 0
    turn = 0
    tile = gl.program_id(0)
    while tile < tiles:
        head, row = place_of(tile, all_heads, rows, BLOCK_M, GROUP, CAUSAL)
        batch, head = head // heads, head % heads
        at = turn % TURNS
        mbarrier.wait(q_free.index(at), ((turn // TURNS) & 1) ^ 1)
        bring_queries(
            q_desc, batch, head, row, q_arrived.index(at), q_places, PARTS * at, PARTS
        )
        begin, _, end = span_of(row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
        head //= share
        first = (end - 1) * BLOCK_N
        bring(k_desc, batch, head, first, ring, k_arrived, k_free, count, 0)
        if DYNAMIC:
            each = gl.num_programs(0)
            tile = each + gl.atomic_add(counter, 1)
            # As many have asked as there are tiles: nobody else will.
            if tile == each + tiles - 1:
                gl.store(counter, 0)
            tell(
                told, told_arrived, told_free, turn, tile, all_heads, rows,
                BLOCK_M, GROUP, CAUSAL, PLACED,
            )  # fmt: skip
        else:
            tile += gl.num_programs(0)
        bring_rest(k_desc, v_desc, batch, head, begin, end, ring, bars, count)
        count += end - begin
        turn += 1


@gluon.jit
def consume(
    out_desc, lse, q_places, ring, places, told,
    q_arrived, q_free, bars, told_arrived, told_free,
    all_heads, heads, rows, keys, left, scale,
    PART: gl.constexpr, PARTS: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
    DYNAMIC: gl.constexpr, PLACED: gl.constexpr, HALVED: gl.constexpr,
):  # fmt: skip
    """Compute a part of every tile; end each while the next begins."""
    k_arrived, v_arrived, k_free, v_free = bars
    ROWS: gl.constexpr = q_places.shape[3]
    COLUMNS: gl.constexpr = q_places.shape[4]
    BLOCK_M: gl.constexpr = PARTS * ROWS
    BLOCK_N: gl.constexpr = ring.shape[3]
    # The second half of the first group's first block is beyond the diagonal.
    FIRST: gl.constexpr = BLOCK_N // 2 if HALVED and PART == 0 else BLOCK_N
    TURNS: gl.constexpr = q_places.shape[0] // PARTS
    tiles = gl.cdiv(rows, BLOCK_M) * all_heads
    tile = gl.program_id(0)
    head, row = place_of(tile, all_heads, rows, BLOCK_M, GROUP, CAUSAL)
    begin, _, last = span_of(row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    row += PART * ROWS
    _, whole, end = span_of(row, ROWS, rows, keys, left, BLOCK_N, CAUSAL, WINDOW)
    turn = 0
    count = last - end
    skip(ring, bars, 0, count)
    mbarrier.wait(q_arrived.index(0), 0)
    queries = matrix(q_places.index(PART))
    scores = score(queries, ring, k_arrived, count, FIRST)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    let_go(k_free, count)
    column = (end - 1) * BLOCK_N
    scores = unseen(scores, row, column, keys, left, CAUSAL, RAGGED, WINDOW)
    most, sums, weights = weigh(scores, scale, BLOCK_N)
    weights = rounded(weights, nothing_yet(ROWS, COLUMNS), ring.dtype)
    while tile < tiles:
        queries = matrix(q_places.index(PARTS * (turn % TURNS) + PART))
        acc, weights, most, sums = steps(
            queries, ring, bars, count, nothing_yet(ROWS, COLUMNS), weights,
            most, sums, scale, row, begin, whole, end, keys, left, WINDOW,
        )  # fmt: skip
        mbarrier.arrive(q_free.index(turn % TURNS))
        count += end - begin - 1
        turn += 1
        if DYNAMIC:
            tile, next_head, next_row = hear(
                told, told_arrived, told_free, turn - 1, all_heads, rows,
                BLOCK_M, GROUP, CAUSAL, PLACED,
            )  # fmt: skip
        else:
            tile += gl.num_programs(0)
            next_head, next_row = place_next(
                tile, all_heads, rows, BLOCK_M, GROUP, CAUSAL
            )
        # Without a next tile the product below is of old data, and nobody's.
        there = tile < tiles
        begin, _, last = span_of(
            next_row, BLOCK_M, rows, keys, left, BLOCK_N, CAUSAL, WINDOW
        )
        next_row += PART * ROWS
        _, whole, end = span_of(
            next_row, ROWS, rows, keys, left, BLOCK_N, CAUSAL, WINDOW
        )
        first = count + 1 + last - end
        if there:
            skip(ring, bars, count + 1, last - end)
            mbarrier.wait(q_arrived.index(turn % TURNS), (turn // TURNS) & 1)
        queries = matrix(q_places.index(PARTS * (turn % TURNS) + PART))
        scores = score(queries, ring, k_arrived, first, FIRST, there)
        acc = add(acc, weights, ring, v_arrived, count)
        scores = warpgroup_mma_wait(1, deps=(scores,))
        let_go(k_free, first, there)
        column = (end - 1) * BLOCK_N
        scores = unseen(scores, next_row, column, keys, left, CAUSAL, RAGGED, WINDOW)
        next_most, next_sums, fresh = weigh(scores, scale, BLOCK_N)
        acc, weights = warpgroup_mma_wait(0, deps=(acc, weights))
        let_go(v_free, count)
        # Before the store: rounded weights take half of the registers.
        weights = rounded(fresh, acc, ring.dtype)
        place = places.index(PART)
        finish(acc, most, sums, out_desc, lse, place, head, heads, row, rows)
        head, row, most, sums, count = next_head, next_row, next_most, next_sums, first
    tma.store_wait(0)


@gluon.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out_desc, lse, all_heads, heads, share, rows, keys, left,
    scale, counter,
    PARTS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
    Q_STAGES: gl.constexpr, DYNAMIC: gl.constexpr,
    PLACED: gl.constexpr, HALVED: gl.constexpr,
):  # fmt: skip
    q_places, places = ring_of(q_desc, Q_STAGES * PARTS), ring_of(out_desc, PARTS)
    ring = ring_of(k_desc, 2 * STAGES)
    plain: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
    told = gl.allocate_shared_memory(gl.int32, [2 * WORDS, 1], plain)
    q_arrived, q_free = barriers(Q_STAGES, 1), barriers(Q_STAGES, PARTS)
    k_arrived, v_arrived = barriers(STAGES, 1), barriers(STAGES, 1)
    k_free, v_free = barriers(STAGES, PARTS), barriers(STAGES, PARTS)
    bars = (k_arrived, v_arrived, k_free, v_free)
    told_arrived, told_free = barriers(2, 1), barriers(2, PARTS)
    if PARTS == 2:
        gl.warp_specialize(
            [
                (consume, (
                    out_desc, lse, q_places, ring, places, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, rows, keys, left, scale,
                    0, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                    DYNAMIC, PLACED, HALVED,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, rows, keys, left, scale,
                    1, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                    DYNAMIC, PLACED, HALVED,
                )),
                (produce, (
                    q_desc, k_desc, v_desc, counter, q_places, ring, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, share, rows, keys, left,
                    PARTS, GROUP, CAUSAL, WINDOW, DYNAMIC, PLACED,
                )),
            ],
            [4, 1],
            [240, 24],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (consume, (
                    out_desc, lse, q_places, ring, places, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, rows, keys, left, scale,
                    0, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                    DYNAMIC, PLACED, HALVED,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, rows, keys, left, scale,
                    1, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                    DYNAMIC, PLACED, HALVED,
                )),
                (consume, (
                    out_desc, lse, q_places, ring, places, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, rows, keys, left, scale,
                    2, PARTS, GROUP, CAUSAL, RAGGED, WINDOW,
                    DYNAMIC, PLACED, HALVED,
                )),
                (produce, (
                    q_desc, k_desc, v_desc, counter, q_places, ring, told,
                    q_arrived, q_free, bars, told_arrived, told_free,
                    all_heads, heads, share, rows, keys, left,
                    PARTS, GROUP, CAUSAL, WINDOW, DYNAMIC, PLACED,
                )),
            ],
            [4, 4, 1],
            [160, 160, 32],
        )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Describe the tensors and launch as many programs as live at once.

    Args:
        task: what is computed, nothing that `refusal` refuses.
        config: how; by default what `folding.config_for` chooses.

    Raises:
        ValueError: it is refused, or groups would wait for one another.
    """
    if reason := launching.refusal(task):
        raise ValueError(reason)
    config = config or folding.config_for(task)
    # While a group skips what only others need it still holds the last tile's values.
    skipped = -(-(config.parts - 1) * config.part // config.block_n)
    if task.right == 0 and config.stages <= skipped:
        raise ValueError(
            f"stages must be above {skipped} where groups skip blocks, got "
            f"{config.stages}"
        )
    args, meta = launching.arguments(task, config)
    count = launching.tiles(task, config)
    dynamic = task.right == 0 if config.dynamic is None else config.dynamic
    task.wrap(attention_kernel)[(programs(count, 1),)](
        *args, counter_on(task.q.device), **meta,
        Q_STAGES=config.q_stages, DYNAMIC=dynamic,
        PLACED=config.placed, HALVED=config.halved and folding.half(task, config),
    )  # fmt: skip


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend: each tile ends while the next begins.

    See `launching.attended` for arguments, results and errors.
    """
    return launching.attended(launch, q, k, v, causal, window, scale)
