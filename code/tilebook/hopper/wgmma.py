"""What the chapter's Gluon kernels share: who brings chunks, who multiplies them, and
how a tile leaves.

A chunk is what one step along k needs: BLOCK_K terms of a tile's rows of `a` and of its
columns of `b`. Chunks live in a ring of STAGES slots. Chunk q lives in slot
q % STAGES as that slot's use q // STAGES, whose parity is the phase to wait for::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `arrived[slot]` | the producer, and the bytes | who multiplies | read the slot |
    | `free[slot]` | each who multiplied, a step later | the producer | overwrite it |
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook._gluon import async_load, async_store
from tilebook.tiling import grouped as strips

# The same lines as in Triton's kernels: Gluon compiles them, too.
grouped = gluon.jit(strips.grouped.fn)

LOGGED = gl.constexpr(16)
"""Tiles of each program whose times a log takes."""
EVENTS = gl.constexpr(4)
BEGUN, SUMMED, STORING, STORED = map(gl.constexpr, range(4))
"""Of a group: the first product has begun, the last is done, the store begins, and the
copy engine has been asked. Of the producer the first two: the first and the last chunk
have been asked for."""


@gluon.jit
def ring_of(desc, SLOTS: gl.constexpr):
    """Allocate room for so many tiles of a descriptor."""
    shape: gl.constexpr = desc.block_type.shape
    return gl.allocate_shared_memory(
        desc.dtype, [SLOTS, shape[0], shape[1]], desc.layout
    )


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """Allocate barriers whose phase is over after so many arrivals."""
    found = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(found.index(i), count=ARRIVALS)
    return found


@gluon.jit
def place_of(
    tile, m, n, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP: gl.constexpr
):
    """The first row and column of a tile, in strips of GROUP rows of tiles."""
    tiles_m, tiles_n = gl.cdiv(m, BLOCK_M), gl.cdiv(n, BLOCK_N)
    pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
    return pid_m * BLOCK_M, pid_n * BLOCK_N


@gluon.jit
def mark(log, who, tile, event: gl.constexpr):
    """Note the time of an event of one of a program's first tiles, if there is a log.

    `log` has (programs, 3, LOGGED, EVENTS) int64; `who` is a group, or 2, the producer.
    """
    if log is not None:
        turn = tile // gl.num_programs(0)
        if turn < LOGGED:
            now = gl.inline_asm_elementwise(
                "mov.u64 $0, %clock64;", "=l", [], dtype=gl.int64, is_pure=False, pack=1
            )
            at = ((gl.program_id(0) * 3 + who) * LOGGED + turn) * EVENTS + event
            gl.store(log + at, now)


@gluon.jit
def bring(desc, row, column, arrived, slot, TURNED: gl.constexpr):
    """Ask the copy engine for a tile of a matrix, described as it is or as its
    transpose."""
    if TURNED:
        async_load(desc, [column, row], arrived, slot)
    else:
        async_load(desc, [row, column], arrived, slot)


@gluon.jit
def produce(
    a_desc, b_desc, more_desc, a_ring, b_ring, more_ring, arrived, free, log, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, MORE: gl.constexpr,
    BLOCK_K: gl.constexpr, PARTS: gl.constexpr, LEAST: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Bring the chunks of every tile, as their slots become free: `a` in PARTS, `b` in
    one or in two of BLOCK_N and MORE columns."""
    STAGES: gl.constexpr = b_ring.shape[0]
    ROWS: gl.constexpr = BLOCK_M // PARTS
    WIDTH: gl.constexpr = BLOCK_N + MORE
    NBYTES: gl.constexpr = (
        PARTS * a_desc.block_type.nbytes + b_desc.block_type.nbytes * WIDTH // BLOCK_N
    )
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, WIDTH)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = place_of(tile, m, n, BLOCK_M, WIDTH, GROUP)
        for at in range(gl.maximum(gl.cdiv(k, BLOCK_K), LEAST)):
            slot = chunk % STAGES
            here = arrived.index(slot)
            # At first all slots are free: the phase before the first is over.
            mbarrier.wait(free.index(slot), ((chunk // STAGES) & 1) ^ 1)
            # What lies outside a matrix counts, too: it comes as zeros.
            mbarrier.expect(here, NBYTES)
            for part in gl.static_range(PARTS):
                bring(
                    a_desc, row + part * ROWS, at * BLOCK_K, here,
                    a_ring.index(PARTS * slot + part), A_TURNED,
                )  # fmt: skip
            bring(b_desc, at * BLOCK_K, column, here, b_ring.index(slot), B_TURNED)
            if MORE > 0:
                bring(
                    more_desc, at * BLOCK_K, column + BLOCK_N, here,
                    more_ring.index(slot), B_TURNED,
                )  # fmt: skip
            if at == 0:
                mark(log, 2, tile, BEGUN)
            chunk += 1
        mark(log, 2, tile, SUMMED)


@gluon.jit
def operand(slot, TURNED: gl.constexpr):
    """View a tile in shared memory as the product reads it."""
    return slot.permute((1, 0)) if TURNED else slot


@gluon.jit
def multiply(acc, a_slot, b_slot, adds, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr):
    """Begin to multiply two tiles in shared memory; `adds` to `acc`, or begins anew."""
    a, b = operand(a_slot, A_TURNED), operand(b_slot, B_TURNED)
    return warpgroup_mma(a, b, acc, use_acc=adds, is_async=True)


@gluon.jit
def begin(
    acc, a_ring, b_ring, arrived, chunk, adds,
    PART: gl.constexpr, PARTS: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr,
):  # fmt: skip
    """Wait for a chunk and begin to multiply it."""
    STAGES: gl.constexpr = b_ring.shape[0]
    slot = chunk % STAGES
    mbarrier.wait(arrived.index(slot), (chunk // STAGES) & 1)
    a, b = a_ring.index(PARTS * slot + PART), b_ring.index(slot)
    return multiply(acc, a, b, adds, A_TURNED, B_TURNED)


@gluon.jit
def settle(acc, free, chunk, freed, STAGES: gl.constexpr):
    """Wait until all but the last product are done: what the chunk before this one had
    is free."""
    acc = warpgroup_mma_init(warpgroup_mma_wait(1, deps=(acc,)))
    mbarrier.arrive(free.index((chunk + STAGES - 1) % STAGES), pred=freed)
    return acc


@gluon.jit
def total(acc, free, chunk, STAGES: gl.constexpr):
    """Wait for the last product, that of `chunk`: its operands are free then."""
    found = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(free.index(chunk % STAGES))
    return found


@gluon.jit
def halves(tile):
    """Cut a tile between its columns."""
    ROWS: gl.constexpr = tile.shape[0]
    COLUMNS: gl.constexpr = tile.shape[1]
    return gl.split(tile.reshape([ROWS, 2, COLUMNS // 2]).permute((0, 2, 1)))


@gluon.jit
def put(tile, out_desc, row, column, place):
    """Store a tile through shared memory: the copy engine takes it from there."""
    # What was here before has left.
    tma.store_wait(0)
    place.store(tile)
    fence_async_shared()
    async_store(out_desc, [row, column], place)


@gluon.jit
def put_all(tile, out_desc, row, column, place):
    """Store a tile in pieces as wide as `place`."""
    COLUMNS: gl.constexpr = tile.shape[1]
    if place.shape[1] < COLUMNS:
        left, right = halves(tile)
        put_all(left, out_desc, row, column, place)
        put_all(right, out_desc, row, column + COLUMNS // 2, place)
    else:
        put(tile, out_desc, row, column, place)


@gluon.jit
def packed(tile):
    """Round now, two elements to a register, and not where the result is used.

    ptxas makes one instruction of rounding and packing, and puts it where the pair is
    needed. If products of the next tile have begun by then, they had to wait for it.
    """
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [tile], dtype=tile.dtype, is_pure=True, pack=2
    )
