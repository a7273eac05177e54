"""Our solutions to the chapter's exercises, each under its exercise's last word."""

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

__all__ = [
    "ends",
    "l2",
    "parities",
    "pieces_kernel",
    "ring_kernel",
    "shared",
    "third_kernel",
    "tile_kernel",
]  # fmt: skip


def shared() -> tuple[int, int]:
    """Bytes of the cooperative program, and chunks of the one that plays ping-pong.

    Returns:
        Bytes without barriers, and the most chunks.
    """
    chunk = (128 + 256) * 64 * 2
    place = 128 * 256 // 2 * 2
    has, turned, places = 226 * 1024, (128 + 128) * 64 * 2, 2 * 128 * 128 * 2
    return 4 * chunk + place, (has - places) // turned


def l2(rows: int, columns: int, tflops: float, size: int = 2) -> float:
    """What a product asks of L2.

    Args:
        rows: of a tile.
        columns: of it.
        tflops: the product's rate.
        size: bytes of an element.

    Returns:
        GB/s.
    """
    operations = 2 * rows * columns / ((rows + columns) * size)
    return tflops * 1e3 / operations


def ends(
    rows: int, columns: int, end: int, k: int, least: float
) -> tuple[float, int]:  # fmt: skip
    """What the end of a tile costs.

    Args:
        rows: of a tile.
        columns: of it.
        end: clocks in which nothing is multiplied.
        k: terms of a sum.
        least: share of the time that products should be.

    Returns:
        Their share at k, and the first multiple of 64 from which on it is large enough.
    """
    each = 2 * rows * columns / 4096
    terms = least * end / (1 - least) / each
    return each * k / (each * k + end), -(-int(terms + 1) // 64) * 64


def parities(chunk: int, slots: int) -> tuple[int, int]:
    """The phases to wait for around a chunk.

    Args:
        chunk: its number, from 0, over all tiles.
        slots: of the ring.

    Returns:
        The parity that who multiplies waits for, and that which the producer waits for
        before it asks for the chunk.
    """
    use = chunk // slots
    # The slot's use before this one freed it. Before the first there was none, and a
    # new barrier lets those through who wait for parity 1.
    return use & 1, (use & 1) ^ 1


@gluon.jit
def tile_kernel(a_desc, b_desc, out_desc):
    N: gl.constexpr = b_desc.block_type.shape[1]
    K: gl.constexpr = b_desc.block_type.shape[0]
    a = gl.allocate_shared_memory(
        a_desc.dtype, [2, a_desc.block_type.shape[0], K], a_desc.layout
    )
    b = gl.allocate_shared_memory(b_desc.dtype, [2, K, N], b_desc.layout)
    out = gl.allocate_shared_memory(
        out_desc.dtype, out_desc.block_type.shape, out_desc.layout
    )
    found = gl.allocate_shared_memory(
        gl.int64, [1, 1], mbarrier.MBarrierLayout()
    )  # fmt: skip
    arrived = found.index(0)
    mbarrier.init(arrived, count=1)
    # Four tiles, whole ones: zeros from outside a matrix are bytes, too.
    mbarrier.expect(
        arrived, 2 * (a_desc.block_type.nbytes + b_desc.block_type.nbytes)
    )  # fmt: skip
    for half in gl.static_range(2):
        async_load(a_desc, [0, half * K], arrived, a.index(half))
        async_load(b_desc, [half * K, 0], arrived, b.index(half))
    mbarrier.wait(arrived, 0)
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, N, 16]
    )
    shape: gl.constexpr = [a_desc.block_type.shape[0], N]
    acc = warpgroup_mma_init(gl.zeros(shape, gl.float32, layout))
    for half in gl.static_range(2):
        acc = warpgroup_mma(a.index(half), b.index(half), acc, is_async=True)
    sums = warpgroup_mma_wait(0, deps=(acc,))
    out.store(sums.to(out_desc.dtype))
    fence_async_shared()
    async_store(out_desc, [0, 0], out)
    tma.store_wait(0)


@gluon.jit
def bring_all(
    a_desc, b_desc, a_ring, b_ring, arrived, free, k, PARTS: gl.constexpr
):  # fmt: skip
    SLOTS: gl.constexpr = b_ring.shape[0]
    M: gl.constexpr = a_desc.block_type.shape[0]
    K: gl.constexpr = b_desc.block_type.shape[0]
    for chunk in range(gl.cdiv(k, K)):
        slot = chunk % SLOTS
        here = arrived.index(slot)
        mbarrier.wait(free.index(slot), ((chunk // SLOTS) & 1) ^ 1)
        mbarrier.expect(
            here, PARTS * a_desc.block_type.nbytes + b_desc.block_type.nbytes
        )
        for part in gl.static_range(PARTS):
            place = a_ring.index(PARTS * slot + part)
            async_load(a_desc, [part * M, chunk * K], here, place)
        async_load(b_desc, [chunk * K, 0], here, b_ring.index(slot))


@gluon.jit
def multiply_all(
    out_desc, a_ring, b_ring, places, arrived, free, k,
    PART: gl.constexpr, PARTS: gl.constexpr,
):  # fmt: skip
    SLOTS: gl.constexpr = b_ring.shape[0]
    M: gl.constexpr = a_ring.shape[1]
    K: gl.constexpr = b_ring.shape[1]
    N: gl.constexpr = b_ring.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, N, 16]
    )
    acc = warpgroup_mma_init(gl.zeros([M, N], gl.float32, layout))
    for chunk in range(gl.cdiv(k, K)):
        slot = chunk % SLOTS
        mbarrier.wait(arrived.index(slot), (chunk // SLOTS) & 1)
        a, b = a_ring.index(PARTS * slot + PART), b_ring.index(slot)
        acc = warpgroup_mma(a, b, acc, use_acc=chunk > 0, is_async=True)
        # All but this product are done: the slot before is read no more.
        acc = warpgroup_mma_init(warpgroup_mma_wait(1, deps=(acc,)))
        before = (chunk + SLOTS - 1) % SLOTS
        mbarrier.arrive(free.index(before), pred=chunk > 0)
    sums = warpgroup_mma_wait(0, deps=(acc,))
    place = places.index(PART)
    place.store(sums.to(out_desc.dtype))
    fence_async_shared()
    async_store(out_desc, [PART * M, 0], place)
    tma.store_wait(0)


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    found = gl.allocate_shared_memory(
        gl.int64, [COUNT, 1], mbarrier.MBarrierLayout()
    )  # fmt: skip
    for i in gl.static_range(COUNT):
        mbarrier.init(found.index(i), count=ARRIVALS)
    return found


@gluon.jit
def ring(desc, COUNT: gl.constexpr):
    shape: gl.constexpr = desc.block_type.shape
    return gl.allocate_shared_memory(
        desc.dtype, [COUNT, shape[0], shape[1]], desc.layout
    )


@gluon.jit
def ring_kernel(a_desc, b_desc, out_desc, k, SLOTS: gl.constexpr):
    a_ring, b_ring = ring(a_desc, SLOTS), ring(b_desc, SLOTS)
    places = ring(out_desc, 1)
    arrived, free = barriers(SLOTS, 1), barriers(SLOTS, 1)
    gl.warp_specialize(
        [
            (multiply_all, (
                out_desc, a_ring, b_ring, places, arrived, free, k, 0, 1
            )),
            (bring_all, (a_desc, b_desc, a_ring, b_ring, arrived, free, k, 1)),
        ],
        [1],
        [24],
    )  # fmt: skip


@gluon.jit
def third_kernel(a_desc, b_desc, out_desc, k, SLOTS: gl.constexpr):
    a_ring, b_ring = ring(a_desc, 3 * SLOTS), ring(b_desc, SLOTS)
    places = ring(out_desc, 3)
    # A slot is free when all three have read what they share.
    arrived, free = barriers(SLOTS, 1), barriers(SLOTS, 3)
    gl.warp_specialize(
        [
            (multiply_all, (
                out_desc, a_ring, b_ring, places, arrived, free, k, 0, 3
            )),
            (multiply_all, (
                out_desc, a_ring, b_ring, places, arrived, free, k, 1, 3
            )),
            (multiply_all, (
                out_desc, a_ring, b_ring, places, arrived, free, k, 2, 3
            )),
            (bring_all, (a_desc, b_desc, a_ring, b_ring, arrived, free, k, 3)),
        ],
        [4, 4, 1],
        [160, 160, 24],
    )  # fmt: skip


@gluon.jit
def halves(tile):
    M: gl.constexpr = tile.shape[0]
    N: gl.constexpr = tile.shape[1]
    return gl.split(tile.reshape([M, 2, N // 2]).permute((0, 2, 1)))


@gluon.jit
def put(tile, out_desc, column, place):
    # The piece before this one has left.
    tma.store_wait(0)
    place.store(tile)
    fence_async_shared()
    async_store(out_desc, [0, column], place)


@gluon.jit
def pieces_kernel(a_desc, b_desc, out_desc):
    N: gl.constexpr = b_desc.block_type.shape[1]
    WIDTH: gl.constexpr = N // 4
    a, b = ring(a_desc, 1).index(0), ring(b_desc, 1).index(0)
    place = ring(out_desc, 1).index(0)
    arrived = barriers(1, 1).index(0)
    mbarrier.expect(
        arrived, a_desc.block_type.nbytes + b_desc.block_type.nbytes
    )  # fmt: skip
    async_load(a_desc, [0, 0], arrived, a)
    async_load(b_desc, [0, 0], arrived, b)
    mbarrier.wait(arrived, 0)
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, N, 16]
    )
    shape: gl.constexpr = [a_desc.block_type.shape[0], N]
    acc = warpgroup_mma_init(gl.zeros(shape, gl.float32, layout))
    acc = warpgroup_mma(a, b, acc, use_acc=False, is_async=True)
    sums = warpgroup_mma_wait(0, deps=(acc,)).to(out_desc.dtype)
    left, right = halves(sums)
    one, two = halves(left)
    three, four = halves(right)
    put(one, out_desc, 0, place)
    put(two, out_desc, WIDTH, place)
    put(three, out_desc, 2 * WIDTH, place)
    put(four, out_desc, 3 * WIDTH, place)
    tma.store_wait(0)
