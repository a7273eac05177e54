"""What a block of queries does to gradients, in `backward_fused` (Gluon).

A group of four warps, one of PARTS, has KEYS keys. For BLOCK_M queries it begins five
products: scores k q^T, dp^T = v do^T, dv += p^T do, dk += ds^T q, and its half of
dq = ds k, which needs the other group's ds as well. Where heads are narrow and leave
registers, the next block's scores are begun before that, and are there when its turn
comes: weights are computed while dp is. `EARLY` is that choice. The copy engine adds dq
to memory, from shared memory.
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

from tilebook._gluon import async_add, async_load
from tilebook.attention.wgmma import matrix, nothing_yet, place_of
from tilebook.hopper.wgmma import packed

PARTS = gl.constexpr(2)
"""Groups of warps, each with a part of the keys."""
NARROW = gl.constexpr(64)
"""Columns of a head up to which scores are begun early."""


@gluon.jit
def span_of(
    key, rows, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, CAUSAL: gl.constexpr
):
    """The first block of queries that sees any of a tile's keys, the first from which
    on all are seen, and the one after the last."""
    end = gl.cdiv(rows, BLOCK_M)
    begin, whole = 0, 0
    if CAUSAL:
        begin = gl.minimum(key // BLOCK_M, end)
        whole = gl.minimum(gl.cdiv(key + BLOCK_N - 1, BLOCK_M), end)
    return begin, whole, end


@gluon.jit
def operand(tile, COLUMNS: gl.constexpr):
    """Hold a rounded tile as tensor cores take it from registers."""
    sums: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 16]
    )
    layout: gl.constexpr = gl.DotOperandLayout(0, sums, k_width=2)
    return packed(gl.convert_layout(tile, layout))


@gluon.jit
def unseen(weights, ahead, keys_left, CAUSAL: gl.constexpr, RAGGED: gl.constexpr):
    """Take away the weights of keys that a query doesn't see, or that aren't there."""
    layout: gl.constexpr = weights.type.layout
    keys = gl.arange(0, weights.shape[0], layout=gl.SliceLayout(1, layout))
    queries = gl.arange(0, weights.shape[1], layout=gl.SliceLayout(0, layout))
    keys, queries = gl.expand_dims(keys, 1), gl.expand_dims(queries, 0)
    if CAUSAL:
        weights = gl.where(keys + ahead <= queries, weights, 0.0)
    if RAGGED:
        weights = gl.where(keys < keys_left, weights, 0.0)
    return weights


@gluon.jit
def bring(desc, lines_desc, where, line, ring, lines, arrived, slot):
    """Ask the copy engine for a block's queries or for `do`, and for a number of each,
    into a slot of either ring."""
    mbarrier.expect(arrived, desc.block_type.nbytes + lines_desc.block_type.nbytes)
    async_load(desc, where, arrived, ring.index(slot))
    async_load(lines_desc, [line, where[2]], arrived, lines.index(slot))


@gluon.jit
def produce(
    q_desc, k_desc, v_desc, do_desc, powers_desc, deltas_desc, places, ring, lines,
    kv_arrived, q_arrived, do_arrived, free, all_heads, heads, share, rows, keys,
    GROUP: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Bring keys and values, in parts, then block after block of queries and `do`."""
    SHARES: gl.constexpr = places.shape[0] // 2
    PART_N: gl.constexpr = k_desc.block_type.shape[2]
    BLOCK_N: gl.constexpr = SHARES * PART_N
    BLOCK_M: gl.constexpr = q_desc.block_type.shape[2]
    STAGES: gl.constexpr = ring.shape[0] // 2
    head, key = place_of(gl.program_id(0), all_heads, keys, BLOCK_N, GROUP, False)
    batch, head = head // heads, head % heads
    begin, _, end = span_of(key, rows, BLOCK_M, BLOCK_N, CAUSAL)
    for which in gl.static_range(2):
        desc = v_desc if which else k_desc
        arrived = kv_arrived.index(which)
        mbarrier.expect(arrived, SHARES * desc.block_type.nbytes)
        for part in gl.static_range(SHARES):
            async_load(
                desc, [batch, head, key + part * PART_N, 0], arrived,
                places.index(SHARES * which + part),
            )  # fmt: skip
    count = 0
    for each in range(share):
        for block in range(begin, end):
            at = count % STAGES
            one = head * share + each
            where = [batch, one, block * BLOCK_M, 0]
            line = batch * heads * share + one
            # At first all places are free: the phase before the first is over.
            mbarrier.wait(free.index(at), ((count // STAGES) & 1) ^ 1)
            bring(
                q_desc, powers_desc, where, line, ring, lines,
                q_arrived.index(at), 2 * at,
            )  # fmt: skip
            bring(
                do_desc, deltas_desc, where, line, ring, lines,
                do_arrived.index(at), 2 * at + 1,
            )  # fmt: skip
            count += 1


@gluon.jit
def score(places, ring, q_arrived, count, PART: gl.constexpr, there=True):
    """Begin to multiply a part's keys and a block's queries, if they are to come."""
    STAGES: gl.constexpr = ring.shape[0] // 2
    at = count % STAGES
    mbarrier.wait(q_arrived.index(at), (count // STAGES) & 1, pred=there)
    q = matrix(ring.index(2 * at))
    return against(matrix(places.index(PART)), q)


@gluon.jit
def against(lines, block):
    """Begin to multiply each of a part's rows with each of a block's."""
    KEYS: gl.constexpr = lines.shape[0]
    BLOCK_M: gl.constexpr = block.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_M, 16]
    )
    nothing = gl.zeros([KEYS, BLOCK_M], gl.float32, layout)
    return warpgroup_mma(
        lines, block.permute((1, 0)), nothing, use_acc=False, is_async=True
    )


@gluon.jit
def halve(places, ds_places, turn, PART: gl.constexpr):
    """Begin to compute a group's half of dq, half of the columns."""
    WIDE: gl.constexpr = places.shape[4] // PARTS
    half = nothing_yet(ds_places.shape[2], WIDE)
    for part in gl.static_range(PARTS):
        half = warpgroup_mma(
            ds_places.index(PARTS * turn + part).permute((1, 0)),
            matrix(places.index(part)).slice(PART * WIDE, WIDE, 1),
            half, use_acc=part > 0, is_async=True,
        )  # fmt: skip
    return half


@gluon.jit
def add_half(half, dq_desc, place, batch, head, row, PART: gl.constexpr):
    """Ask the copy engine to add a group's half of dq to memory."""
    # What was here before has been read.
    tma.store_wait(0)
    matrix(place).store(half)
    fence_async_shared()
    async_add(dq_desc, [batch, head, row, PART * half.shape[1]], place)


@gluon.jit
def step(
    dq_desc, places, ring, ds_places, dq_places,
    q_arrived, do_arrived, free, ds_there,
    count, dk, dv, scores, lines, batch, head, row, key,
    more, keys, power, scale,
    PART: gl.constexpr, CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """Take a block of queries into the gradients of a part's keys and values, and add
    half of its own to memory. `EARLY`, its scores are given, and the next block's are
    returned."""
    DTYPE: gl.constexpr = ring.dtype
    COLUMNS: gl.constexpr = ring.shape[4]
    STAGES: gl.constexpr = ring.shape[0] // 2
    EARLY: gl.constexpr = COLUMNS <= NARROW
    layout: gl.constexpr = scores.type.layout
    at, turn = count % STAGES, count & 1
    q, do = matrix(ring.index(2 * at)), matrix(ring.index(2 * at + 1))
    if not EARLY:
        scores = score(places, ring, q_arrived, count, PART)
    mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)
    dp = against(matrix(places.index(PARTS + PART)), do)
    # What a query that isn't there adds is 0: of it, all is 0 but its weights.
    most = lines.index(2 * at).load(layout)
    if not EARLY:
        scores = warpgroup_mma_wait(1, deps=(scores,))
    weights = gl.exp2(scores * power - most)
    weights = unseen(weights, key - row, keys - key, CAUSAL, RAGGED)
    p = operand(weights.to(DTYPE), COLUMNS)
    dv = warpgroup_mma(p, do, dv, is_async=True)
    dp = warpgroup_mma_wait(1, deps=(dp,))
    delta = lines.index(2 * at + 1).load(layout) * scale
    ds = (weights * (dp * scale - delta)).to(DTYPE)
    ds_places.index(PARTS * turn + PART).store(ds)
    fence_async_shared()
    mbarrier.arrive(ds_there.index(turn))
    ds = operand(ds, COLUMNS)
    dk = warpgroup_mma(ds, q, dk, is_async=True)
    if EARLY:
        scores = score(places, ring, q_arrived, count + 1, PART, more)
    mbarrier.wait(ds_there.index(turn), (count >> 1) & 1)
    half = halve(places, ds_places, turn, PART)
    if EARLY:
        dk, dv, scores, half, _, _ = warpgroup_mma_wait(
            0, deps=(dk, dv, scores, half, p, ds)
        )
    else:
        dk, dv, half, _, _ = warpgroup_mma_wait(0, deps=(dk, dv, half, p, ds))
    mbarrier.arrive(free.index(at))
    add_half(half, dq_desc, dq_places.index(PART), batch, head, row, PART)
    return dk, dv, scores
