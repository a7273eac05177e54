"""What the chapter's Gluon kernels share: which blocks a tile needs, who brings them,
what becomes of scores, and how a tile leaves.

A tile is BLOCK_M queries of one head; each of PARTS groups of four warps has some of
its rows, a *part*. Blocks of BLOCK_N keys, and of as many values, come from the last
that a tile needs to its first: only the last one has keys that a query doesn't see, or
that aren't there, and it is the one that begins. A program's block number n lives in
place n % STAGES of a ring as that place's use n // STAGES, whose parity is the phase to
wait for::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `q_arrived[place]` | the producer, and the bytes | every group | read queries |
    | `k_arrived[place]` | the producer, and the bytes | every group | read keys |
    | `v_arrived[place]` | the producer, and the bytes | every group | read values |
    | `k_free[place]` | every group, keys multiplied | the producer | overwrite them |
    | `v_free[place]` | every group, values added | the producer | overwrite them |

Keys and values have barriers of their own so that a group may wait for one while the
other is in use: between two waits in one array the compiler would put a barrier of all
four warps.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
)

from tilebook._gluon import async_load, async_store
from tilebook.attention import launching
from tilebook.hopper.wgmma import grouped, halves, packed

PARTIAL = gl.constexpr(8)
"""Sums of a row that are kept apart in the loop: no two of them are in one thread's
registers and another's, so nothing is exchanged before the end."""
LN2 = gl.constexpr(launching.LN2)


@gluon.constexpr_function
def sums_of(COLUMNS):
    """Who holds which sums of a tile that a group of four warps multiplies."""
    return gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 16]
    )


@gluon.jit
def ring_of(desc, SLOTS: gl.constexpr):
    """Allocate room for so many tiles of a descriptor of four dimensions."""
    ROWS: gl.constexpr = desc.block_type.shape[2]
    COLUMNS: gl.constexpr = desc.block_type.shape[3]
    return gl.allocate_shared_memory(
        desc.dtype, [SLOTS, 1, 1, ROWS, COLUMNS], desc.layout
    )


@gluon.jit
def matrix(place):
    """View a tile of one head as a matrix."""
    ROWS: gl.constexpr = place.shape[2]
    COLUMNS: gl.constexpr = place.shape[3]
    return place.reshape([ROWS, COLUMNS])


@gluon.jit
def place_of(
    tile, heads, rows,
    BLOCK_M: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """The head and the first row of a tile, GROUP heads at a time; under a causal mask
    the tiles with the most keys come first, so that the short ones fill the gaps."""
    blocks = gl.cdiv(rows, BLOCK_M)
    head, block = grouped(tile, heads, blocks, GROUP)
    if CAUSAL:
        block = blocks - 1 - block
    return head, block * BLOCK_M


@gluon.jit
def span_of(
    row, ROWS: gl.constexpr, rows, keys, left,
    BLOCK_N: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """The first block that ROWS rows need, the first that all of them see whole from
    its first key on, and the one after the last that they need."""
    begin, whole = 0, 0
    end = gl.cdiv(keys, BLOCK_N)
    if CAUSAL:
        end = gl.minimum(end, gl.cdiv(gl.minimum(row + ROWS, rows), BLOCK_N))
    if WINDOW:
        begin = gl.minimum(gl.maximum(row - left, 0) // BLOCK_N, end - 1)
        whole = gl.cdiv(gl.maximum(row + ROWS - 1 - left, 0), BLOCK_N)
    return begin, whole, end


@gluon.jit
def clear_of(begin, whole, end):
    """How many of a part's blocks, from the last on, need no look at the window; the
    last is masked anyway."""
    return gl.minimum(gl.maximum(end - whole, 1), end - begin)


@gluon.jit
def bring_queries(
    q_desc, batch, head, row, arrived, places, FIRST: gl.constexpr, PARTS: gl.constexpr
):
    """Ask the copy engine for a tile's queries, part by part."""
    ROWS: gl.constexpr = q_desc.block_type.shape[2]
    mbarrier.expect(arrived, PARTS * q_desc.block_type.nbytes)
    for part in gl.static_range(PARTS):
        async_load(
            q_desc, [batch, head, row + part * ROWS, 0], arrived,
            places.index(FIRST + part),
        )  # fmt: skip


@gluon.jit
def bring(desc, batch, head, row, ring, arrived, free, count, WHICH: gl.constexpr):
    """Ask the copy engine for keys (WHICH is 0) or values (1), once there is room."""
    STAGES: gl.constexpr = ring.shape[0] // 2
    at = count % STAGES
    # At first all places are free: the phase before the first is over.
    mbarrier.wait(free.index(at), ((count // STAGES) & 1) ^ 1)
    # What lies outside the tensor counts, too: it comes as zeros.
    mbarrier.expect(arrived.index(at), desc.block_type.nbytes)
    async_load(
        desc, [batch, head, row, 0], arrived.index(at), ring.index(2 * at + WHICH)
    )


@gluon.jit
def bring_rest(k_desc, v_desc, batch, head, begin, end, ring, bars, count):
    """Bring a tile's blocks, from the last on, whose keys are here; it is a program's
    number `count`. Keys come before the values of the block before: they are needed
    before, and their place is free before."""
    BLOCK_N: gl.constexpr = k_desc.block_type.shape[2]
    k_arrived, v_arrived, k_free, v_free = bars
    for done in range(1, end - begin):
        row = (end - 1 - done) * BLOCK_N
        bring(k_desc, batch, head, row, ring, k_arrived, k_free, count + done, 0)
        row += BLOCK_N
        bring(v_desc, batch, head, row, ring, v_arrived, v_free, count + done - 1, 1)
    last = count + end - begin - 1
    bring(v_desc, batch, head, begin * BLOCK_N, ring, v_arrived, v_free, last, 1)


@gluon.jit
def come(ring, arrived, count, WHICH: gl.constexpr, there=True):
    """Wait for keys or values, if they are to come; their matrix."""
    STAGES: gl.constexpr = ring.shape[0] // 2
    at = count % STAGES
    mbarrier.wait(arrived.index(at), (count // STAGES) & 1, pred=there)
    return matrix(ring.index(2 * at + WHICH))


@gluon.jit
def let_go(free, count, there=True):
    """Say that a block's keys, or its values, have been read."""
    mbarrier.arrive(free.index(count % free.shape[0]), pred=there)


@gluon.jit
def skip(ring, bars, count, blocks):
    """Let go of blocks that only other groups need.

    Each is waited for: who arrived for a place's next use before others have for this
    one would be counted in their stead.
    """
    k_arrived, v_arrived, k_free, v_free = bars
    for more in range(blocks):
        come(ring, k_arrived, count + more, 0)
        let_go(k_free, count + more)
        come(ring, v_arrived, count + more, 1)
        let_go(v_free, count + more)


@gluon.jit
def score(queries, ring, k_arrived, count, KEYS: gl.constexpr, there=True):
    """Begin to multiply queries and a block's first KEYS keys."""
    ROWS: gl.constexpr = queries.shape[0]
    keys = come(ring, k_arrived, count, 0, there)
    if ring.shape[3] > KEYS:
        keys = keys.slice(0, KEYS, 0)
    # No sums go in: these zeros are never written anywhere.
    nothing = gl.zeros([ROWS, KEYS], gl.float32, sums_of(KEYS))
    return warpgroup_mma(
        queries, keys.permute((1, 0)), nothing, use_acc=False, is_async=True
    )


@gluon.jit
def add(acc, weights, ring, v_arrived, count):
    """Begin to add up a block's values, by weight."""
    values = come(ring, v_arrived, count, 1)
    return warpgroup_mma(weights, values, acc, is_async=True)


@gluon.jit
def unseen(
    scores, row, column, keys, left,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Take the keys out of a block that a row doesn't see, or that aren't there."""
    layout: gl.constexpr = scores.type.layout
    rows = row + gl.arange(0, scores.shape[0], layout=gl.SliceLayout(1, layout))
    columns = column + gl.arange(0, scores.shape[1], layout=gl.SliceLayout(0, layout))
    rows, columns = gl.expand_dims(rows, 1), gl.expand_dims(columns, 0)
    if CAUSAL:
        scores = gl.where(columns <= rows, scores, -float("inf"))
    if RAGGED:
        scores = gl.where(columns < keys, scores, -float("inf"))
    if WINDOW:
        scores = gl.where(columns + left >= rows, scores, -float("inf"))
    return scores


@gluon.jit
def partial_sums(weights):
    """Add up each row's weights as far as one thread has them."""
    ROWS: gl.constexpr = weights.shape[0]
    COLUMNS: gl.constexpr = weights.shape[1]
    return gl.sum(weights.reshape([ROWS, COLUMNS // PARTIAL, PARTIAL]), 1)


@gluon.jit
def weigh(scores, scale, BLOCK_N: gl.constexpr):
    """A tile's first block: the greatest score of each row, sums of weights, weights.

    `scale` is the softmax's, times log2(e): powers of two are what hardware has. Of
    half a block scores, the other half's weights are zeros.
    """
    most = gl.max(scores, 1) * scale
    weights = gl.exp2(scores * scale - gl.expand_dims(most, 1))
    if scores.shape[1] < BLOCK_N:
        ROWS: gl.constexpr = scores.shape[0]
        nothing = nothing_yet(ROWS, scores.shape[1])
        both = gl.join(weights, nothing).permute((0, 2, 1))
        layout: gl.constexpr = sums_of(BLOCK_N)
        weights = gl.convert_layout(both.reshape([ROWS, BLOCK_N]), layout)
        most = gl.convert_layout(most, gl.SliceLayout(1, layout))
    return most, partial_sums(weights), weights


@gluon.jit
def weigh_more(scores, scale, most, sums):
    """Another block: as `weigh`, and by what everything before has to shrink."""
    now = gl.maximum(most, gl.max(scores, 1) * scale)
    shrink = gl.exp2(most - now)
    weights = gl.exp2(scores * scale - gl.expand_dims(now, 1))
    sums = scaled(sums, shrink) + partial_sums(weights)
    return now, sums, weights, shrink


@gluon.jit
def weights_first(sums):
    """Let weights be there before anything that follows.

    A wait names no weights, and ptxas moves it up before them, where nothing is left
    to be done meanwhile. Past an instruction that may sleep it moves none; and nobody
    sleeps, for no sum is below 0.
    """
    ROWS: gl.constexpr = sums.shape[0]
    a, b = gl.split(sums.reshape([ROWS, PARTIAL // 2, 2]))
    gl.inline_asm_elementwise(
        "/* read */ { .reg .pred p; setp.lt.f32 p, $1, 0f00000000; "
        "@p nanosleep.u32 0; }",
        "=r,f", [a + b], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def scaled(tile, factors):
    """Multiply each row."""
    layout: gl.constexpr = gl.SliceLayout(1, tile.type.layout)
    return tile * gl.expand_dims(gl.convert_layout(factors, layout), 1)


@gluon.jit
def rounded(weights, like, DTYPE: gl.constexpr):
    """Round weights, and hold them as tensor cores take them from registers."""
    layout: gl.constexpr = gl.DotOperandLayout(0, like.type.layout, k_width=2)
    found = gl.convert_layout(weights.to(DTYPE), layout)
    if like.shape[1] <= 64:
        # Three groups have few registers: ptxas would carry halves of pairs around.
        found = packed(found)
    return found


@gluon.jit
def nothing_yet(ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    """Sums of no values."""
    return gl.zeros([ROWS, COLUMNS], gl.float32, sums_of(COLUMNS))


@gluon.jit
def note(lse, head, row, rows, most, total):
    """Store the natural logarithm of each row's sum of exponentials."""
    layout: gl.constexpr = most.type.layout
    at = row + gl.arange(0, most.shape[0], layout=layout)
    logarithms = (most + gl.log2(total)) * LN2
    gl.store(lse + (head * rows + at), logarithms, mask=at < rows)


@gluon.jit
def put(tile, out_desc, batch, head, row, column, place):
    """Store a tile through shared memory, in pieces as wide as `place`."""
    COLUMNS: gl.constexpr = tile.shape[1]
    if place.shape[3] < COLUMNS:
        left, right = halves(tile)
        put(left, out_desc, batch, head, row, column, place)
        put(right, out_desc, batch, head, row, column + COLUMNS // 2, place)
    else:
        # What was here before has left.
        tma.store_wait(0)
        matrix(place).store(tile)
        fence_async_shared()
        async_store(out_desc, [batch, head, row, column], place)


@gluon.jit
def finish(acc, most, sums, out_desc, lse, place, head, heads, row, rows):
    """Divide by each row's sum, and store a part and its logarithms."""
    total = gl.convert_layout(gl.sum(sums, 1), most.type.layout)
    note(lse, head, row, rows, most, total)
    found = scaled(acc, 1.0 / total).to(out_desc.dtype)
    put(found, out_desc, head // heads, head % heads, row, 0, place)
