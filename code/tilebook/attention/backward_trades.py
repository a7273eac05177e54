"""What a block of queries does to gradients, in `backward_wide` (Gluon).

For BLOCK_M queries the group that weighs computes scores k q^T and weights p, which it
writes for the other group, and dv += p^T do; the group that differentiates computes
dp^T = v do^T and ds, which it writes for the first, and dk += ds^T q. Each multiplies
its half of dq = ds k before it adds to its gradient, and sends that half to memory
after that, from where `do` or the queries were, which it was the last to read.
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

from tilebook._gluon import async_add, seen_as
from tilebook.attention.backward_blocks import against, operand, score, unseen
from tilebook.attention.wgmma import matrix, nothing_yet

WEIGHS = gl.constexpr(0)
"""The group that computes weights; the first half of the columns of dq is its."""
DIFFERENTIATES = gl.constexpr(1)
"""The group that computes gradients of scores."""


@gluon.jit
def halve(places, ds_places, turn, HALF: gl.constexpr):
    """Begin to compute half of the columns of dq."""
    WIDE: gl.constexpr = places.shape[4] // 2
    ds = ds_places.index(turn).permute((1, 0))
    keys = matrix(places.index(0)).slice(HALF * WIDE, WIDE, 1)
    nothing = nothing_yet(ds.shape[0], WIDE)
    return warpgroup_mma(ds, keys, nothing, use_acc=False, is_async=True)


@gluon.jit
def add_half(half, dq_desc, batch, head, row, ring, slot, HALF: gl.constexpr):
    """Ask the copy engine to add half of dq to memory, from a slot of the ring."""
    place = seen_as(
        ring.index(slot), dq_desc.dtype, dq_desc.block_type.shape, dq_desc.layout
    )
    matrix(place).store(half)
    fence_async_shared()
    async_add(dq_desc, [batch, head, row, HALF * half.shape[1]], place)


@gluon.jit
def let_go(free, count, there=True):
    """Say that a block's slots may be overwritten: the copy engine has read, too."""
    tma.store_wait(0)
    mbarrier.arrive(free.index(count % free.shape[0]), pred=there)


@gluon.jit
def weigh_block(
    dq_desc, places, ring, p_place, ds_places, lines,
    q_arrived, do_arrived, free, p_there, p_free, ds_there,
    count, dv, batch, row, before, row_before, key, keys, power,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """Write a block's weights, take it into the gradient of values, and add half of the
    block before to memory."""
    DTYPE: gl.constexpr = ring.dtype
    STAGES: gl.constexpr = ring.shape[0] // 2
    at, last = count % STAGES, count - 1
    scores = score(places, ring, q_arrived, count, 0)
    let_go(free, count + STAGES - 1, count > 0)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    # What a query that isn't there adds is 0: of it, all is 0 but its weights.
    most = lines.index(2 * at).load(scores.type.layout)
    weights = gl.exp2(scores * power - most)
    weights = unseen(weights, key - row, keys - key, CAUSAL, RAGGED).to(DTYPE)
    p_place.store(weights)
    mbarrier.arrive(p_there.index(0))
    p = operand(weights, ring.shape[4])
    # Before the first block there is none: what is computed of it goes nowhere.
    turn = (count + 1) & 1
    mbarrier.wait(ds_there.index(turn), (last >> 1) & 1, pred=count > 0)
    half = halve(places, ds_places, turn, WEIGHS)
    mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)
    dv = warpgroup_mma(p, matrix(ring.index(2 * at + 1)), dv, is_async=True)
    dv, half, _ = warpgroup_mma_wait(0, deps=(dv, half, p))
    # Who has read weights has multiplied `do` before.
    mbarrier.wait(p_free.index(0), count & 1)
    if count > 0:
        add_half(half, dq_desc, batch, before, row_before, ring, 2 * at + 1, WEIGHS)
    return dv


@gluon.jit
def differentiate_block(
    dq_desc, places, ring, p_place, ds_places, lines,
    q_arrived, do_arrived, free, p_there, p_free, ds_there,
    count, dk, batch, head, row, scale,
):  # fmt: skip
    """Write gradients of a block's scores, take it into the gradient of keys, and add
    half of its own to memory."""
    DTYPE: gl.constexpr = ring.dtype
    STAGES: gl.constexpr = ring.shape[0] // 2
    at, turn = count % STAGES, count & 1
    mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)
    dp = against(matrix(places.index(1)), matrix(ring.index(2 * at + 1)))
    let_go(free, count + STAGES - 1, count > 0)
    dp = warpgroup_mma_wait(0, deps=(dp,))
    layout: gl.constexpr = dp.type.layout
    delta = lines.index(2 * at + 1).load(layout) * scale
    # Who has written weights has multiplied these queries before, and ds of two blocks
    # before, which was where this block's is to be.
    mbarrier.wait(p_there.index(0), count & 1)
    weights = p_place.load(layout).to(gl.float32)
    mbarrier.arrive(p_free.index(0))
    ds = (weights * (dp * scale - delta)).to(DTYPE)
    ds_places.index(turn).store(ds)
    fence_async_shared()
    mbarrier.arrive(ds_there.index(turn))
    half = halve(places, ds_places, turn, DIFFERENTIATES)
    ds = operand(ds, ring.shape[4])
    mbarrier.wait(q_arrived.index(at), (count // STAGES) & 1)
    dk = warpgroup_mma(ds, matrix(ring.index(2 * at)), dk, is_async=True)
    dk, half, _ = warpgroup_mma_wait(0, deps=(dk, half, ds))
    add_half(half, dq_desc, batch, head, row, ring, 2 * at, DIFFERENTIATES)
    return dk
