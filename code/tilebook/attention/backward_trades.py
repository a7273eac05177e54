"""What a block of queries does to gradients, in `backward_wide` (Gluon).

For BLOCK_M queries the group that weighs computes scores k q^T and weights p, which it
writes for the other group, and dv += p^T do; the group that differentiates computes
dp^T = v do^T and ds, which it writes for the first, and dk += ds^T q. Each multiplies
its half of dq = ds k before it adds to its gradient, and sends that half to memory
while tensor cores add.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from tilebook._gluon import async_add
from tilebook.attention.backward_blocks import against, operand, score, unseen
from tilebook.attention.wgmma import matrix, nothing_yet
from tilebook.hopper.wgmma import halves

WEIGHS = gl.constexpr(0)
"""The group that computes weights; the first half of the columns of dq is its."""
DIFFERENTIATES = gl.constexpr(1)
"""The group that computes gradients of scores."""


@gluon.jit
def halve(places, ds_place, HALF: gl.constexpr):
    """Begin to compute half of the columns of dq."""
    WIDE: gl.constexpr = places.shape[4] // 2
    keys = matrix(places.index(0)).slice(HALF * WIDE, WIDE, 1)
    return warpgroup_mma(
        ds_place.permute((1, 0)), keys, nothing_yet(ds_place.shape[1], WIDE),
        use_acc=False, is_async=True,
    )  # fmt: skip


@gluon.jit
def add_half(tile, dq_desc, batch, head, row, column, place):
    """Ask the copy engine to add a tile of dq to memory, in pieces as a place is wide."""
    COLUMNS: gl.constexpr = tile.shape[1]
    if place.shape[3] < COLUMNS:
        left, right = halves(tile)
        add_half(left, dq_desc, batch, head, row, column, place)
        add_half(right, dq_desc, batch, head, row, column + COLUMNS // 2, place)
    else:
        # What was here before has been read.
        tma.store_wait(0)
        matrix(place).store(tile)
        fence_async_shared()
        async_add(dq_desc, [batch, head, row, column], place)


@gluon.jit
def weigh_block(
    dq_desc, places, ring, p_place, ds_place, dq_place, lines,
    q_arrived, do_arrived, free, p_there, p_free, ds_there, ds_free,
    count, dv, batch, row, before, row_before, key, keys, power,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """Write a block's weights, take it into the gradient of values, and add half of the
    block before to memory."""
    DTYPE: gl.constexpr = ring.dtype
    STAGES: gl.constexpr = ring.shape[0] // 2
    at = count % STAGES
    scores = score(places, ring, q_arrived, count, 0)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    # What a query that isn't there adds is 0: of it, all is 0 but its weights.
    most = lines.index(2 * at).load(scores.type.layout)
    weights = gl.exp2(scores * power - most)
    weights = unseen(weights, key - row, keys - key, CAUSAL, RAGGED).to(DTYPE)
    mbarrier.wait(p_free.index(0), (count & 1) ^ 1)
    p_place.store(weights)
    mbarrier.arrive(p_there.index(0))
    p = operand(weights, ring.shape[4])
    # Before the first block there is none: what is computed of it goes nowhere.
    mbarrier.wait(ds_there.index(0), (count & 1) ^ 1, pred=count > 0)
    half = halve(places, ds_place, WEIGHS)
    mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)
    dv = warpgroup_mma(p, matrix(ring.index(2 * at + 1)), dv, is_async=True)
    half = warpgroup_mma_wait(1, deps=(half,))
    mbarrier.arrive(ds_free.index(0))
    if count > 0:
        add_half(half, dq_desc, batch, before, row_before, 0, dq_place)
    dv, _ = warpgroup_mma_wait(0, deps=(dv, p))
    mbarrier.arrive(free.index(at))
    return dv


@gluon.jit
def differentiate_block(
    dq_desc, places, ring, p_place, ds_place, dq_place, lines,
    q_arrived, do_arrived, free, p_there, p_free, ds_there, ds_free,
    count, dk, batch, head, row, scale,
):  # fmt: skip
    """Write gradients of a block's scores, take it into the gradient of keys, and add
    half of its own to memory."""
    DTYPE: gl.constexpr = ring.dtype
    STAGES: gl.constexpr = ring.shape[0] // 2
    at = count % STAGES
    mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)
    dp = against(matrix(places.index(1)), matrix(ring.index(2 * at + 1)))
    dp = warpgroup_mma_wait(0, deps=(dp,))
    layout: gl.constexpr = dp.type.layout
    delta = lines.index(2 * at + 1).load(layout) * scale
    mbarrier.wait(p_there.index(0), count & 1)
    weights = p_place.load(layout).to(gl.float32)
    mbarrier.arrive(p_free.index(0))
    ds = (weights * (dp * scale - delta)).to(DTYPE)
    mbarrier.wait(ds_free.index(0), count & 1)
    ds_place.store(ds)
    fence_async_shared()
    mbarrier.arrive(ds_there.index(0))
    half = halve(places, ds_place, DIFFERENTIATES)
    ds = operand(ds, ring.shape[4])
    mbarrier.wait(q_arrived.index(at), (count // STAGES) & 1)
    dk = warpgroup_mma(ds, matrix(ring.index(2 * at)), dk, is_async=True)
    half = warpgroup_mma_wait(1, deps=(half,))
    add_half(half, dq_desc, batch, head, row, half.shape[1], dq_place)
    dk, _ = warpgroup_mma_wait(0, deps=(dk, ds))
    mbarrier.arrive(free.index(at))
    return dk
