"""Rung 7, scales that travel with their block (Gluon).

In `paired` each group asks memory for its scales a pair of blocks ahead. How long an
answer takes depends on what else is asked of L2, and that is much: tiles of 128 by 128
are all that registers hold. Here a warp beside the one that brings blocks brings
their scales: it copies them past registers into a ring of their own, and they are there
when the block is, as far ahead as the ring is long. The groups read them from there.

Scales lie anywhere, one apart from the next; the copy engine brings rectangles whose
rows begin at multiples of 16 bytes. So the older copy is used, `cp.async`, four bytes
for each lane, whose completion arrives at the same barrier. That takes more
instructions than tiles do, so it is left to a warp that has nothing else to do.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook._gluon import async_copy_load
from tilebook.fp8 import warps
from tilebook.fp8.products import Product
from tilebook.fp8.warps import Config, columns_of, finished, start
from tilebook.hopper.wgmma import barriers, place_of, produce, put_all, ring_of

CONFIGS = (
    *(Config(128, 128, 4), Config(128, 128, 5), Config(128, 64, 8)),
    *(Config(128, 128, 4, group=16), Config(128, 32, 8)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
META = {"REGISTERS": 232, "num_warps": 4}
"""Registers of a thread of the second group, and warps of the first."""


@gluon.jit
def scale_ring(SLOTS: gl.constexpr, SIZE: gl.constexpr):
    """Allocate room for the scales of so many blocks."""
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
    return gl.allocate_shared_memory(gl.float32, [SLOTS, SIZE], layout)


@gluon.jit
def carry(
    left_ring, right_ring, arrived, free, scale_a_ptr, scale_b_ptr, m, n, k,
    scale_am, scale_ak, scale_bk, scale_bn,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    GROUP: gl.constexpr, GROUP_A: gl.constexpr, GROUP_B: gl.constexpr,
):  # fmt: skip
    """Bring the scales of every tile's blocks, as their slots become free; past the
    last block zeros, as the partner that it may need has no scale."""
    STAGES: gl.constexpr = right_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    RIGHT: gl.constexpr = right_ring.shape[1]
    lanes: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    blocks = gl.cdiv(k, BLOCK_K)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        first = gl.arange(0, HALF, layout=lanes) + row
        second = first + HALF
        across = gl.arange(0, RIGHT, layout=lanes)
        if GROUP_B < BLOCK_N:
            here_b = column + across
            in_n = here_b < n
        else:
            # All columns share one: it is brought once for each row of a group.
            here_b = column + across * 0
            in_n = across < RIGHT
        left_a = scale_a_ptr + first // GROUP_A * scale_am
        left_b = scale_a_ptr + second // GROUP_A * scale_am
        right = scale_b_ptr + here_b // GROUP_B * scale_bn
        for at in range(gl.cdiv(blocks, 2) * 2):
            slot = chunk % STAGES
            here = arrived.index(slot)
            # At first all slots are free: the phase before the first is over.
            mbarrier.wait(free.index(slot), ((chunk // STAGES) & 1) ^ 1)
            there = at < blocks
            async_copy_load(
                left_ring.index(2 * slot), left_a + at * scale_ak, (first < m) & there
            )
            async_copy_load(
                left_ring.index(2 * slot + 1), left_b + at * scale_ak,
                (second < m) & there,
            )  # fmt: skip
            async_copy_load(right_ring.index(slot), right + at * scale_bk, in_n & there)
            # Each lane's copies are one more arrival, due when they are there. They are
            # announced before the warp itself arrives: until then the phase can't end.
            async_copy.mbarrier_arrive(here)
            mbarrier.arrive(here)
            chunk += 1


@gluon.jit
def added(
    sums, found, left, right_ring, slot,
    GROUP_B: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Scale a block's sums, and add them."""
    COLUMNS: gl.constexpr = sums.shape[1]
    if GROUP_B < COLUMNS:
        many = right_ring.index(slot).load(gl.SliceLayout(0, layout))
        found = found * columns_of(many, COLUMNS, GROUP_B)
    return sums + found * gl.expand_dims(left, 1)


@gluon.jit
def scale_of(
    left_ring, right_ring, slot,
    PART: gl.constexpr, SHARED: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Read what a block's rows are scaled by, and its columns, if all alike."""
    down: gl.constexpr = gl.SliceLayout(1, layout)
    left = left_ring.index(2 * slot + PART).load(down)
    if SHARED:
        left = left * right_ring.index(slot).load(down)
    return left


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, left_ring, right_ring, places, arrived, free,
    scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k, scale_am, scale_bn, bias_n,
    PART: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    GROUP: gl.constexpr, GROUP_A: gl.constexpr, GROUP_B: gl.constexpr,
):  # fmt: skip
    """Multiply one half of every tile, two blocks at a time, then store it."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    SHARED: gl.constexpr = GROUP_B >= BLOCK_N
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 32]
    )
    place = places.index(PART)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        row += PART * HALF
        sums = gl.zeros([HALF, BLOCK_N], gl.float32, layout)
        for _ in range(gl.cdiv(k, 2 * BLOCK_K)):
            one, two = chunk % STAGES, (chunk + 1) % STAGES
            even = start(a_ring, b_ring, arrived, chunk, PART, HALF, BLOCK_N, layout)
            odd = start(a_ring, b_ring, arrived, chunk + 1, PART, HALF, BLOCK_N, layout)
            even_scale = scale_of(left_ring, right_ring, one, PART, SHARED, layout)
            odd_scale = scale_of(left_ring, right_ring, two, PART, SHARED, layout)
            found = warpgroup_mma_wait(1, deps=(even,))
            sums = added(sums, found, even_scale, right_ring, one, GROUP_B, layout)
            mbarrier.arrive(free.index(one))
            found = warpgroup_mma_wait(0, deps=(odd,))
            sums = added(sums, found, odd_scale, right_ring, two, GROUP_B, layout)
            mbarrier.arrive(free.index(two))
            chunk += 2
        sums = finished(
            sums, row, column, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
            scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, True, layout,
        )  # fmt: skip
        put_all(sums.to(out_desc.dtype), out_desc, row, column, place)
    tma.store_wait(0)


@gluon.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
    scale_am, scale_ak, scale_bk, scale_bn, bias_n,
    GROUP_A: gl.constexpr, GROUP_B: gl.constexpr,
    BLOCKS: gl.constexpr, FAST: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, GROUP: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, 2 * STAGES), ring_of(b_desc, STAGES)
    left_ring = scale_ring(2 * STAGES, BLOCK_M // 2)
    right_ring = scale_ring(STAGES, BLOCK_N if GROUP_B < BLOCK_N else BLOCK_M // 2)
    places = ring_of(out_desc, 2)
    # A block is there when its tiles are and its scales.
    arrived, free = barriers(STAGES, 2), barriers(STAGES, 2)
    # Past the last term there are zeros: a partner for a block without one.
    even = gl.cdiv(k, 2 * BLOCK_K) * 2 * BLOCK_K
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, left_ring, right_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k, scale_am, scale_bn, bias_n,
                0, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B,
            )),
            (consume, (
                out_desc, a_ring, b_ring, left_ring, right_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k, scale_am, scale_bn, bias_n,
                1, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, None,
                m, n, even, BLOCK_M, BLOCK_N, 0, BLOCK_K, 2, 1, False, True, GROUP,
            )),
            (carry, (
                left_ring, right_ring, arrived, free, scale_a_ptr, scale_b_ptr, m, n, k,
                scale_am, scale_ak, scale_bk, scale_bn,
                BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B,
            )),
        ],
        [4, 1, 1],
        [REGISTERS, 40, 40],
    )  # fmt: skip


def refusal(product: Product) -> str | None:
    """Say why this kernel can't make a product; None if it can."""
    if not product.blocks:
        return "scales must change along k"
    return warps.refusal(product)


def shared_bytes(config: Config) -> int:
    """Count the shared memory of a program: that of `warps.shared_bytes`, and scales.

    Args:
        config: how it is launched.
    """
    most = max(config.block_n, config.block_m // 2)
    scales = 4 * config.num_stages * (config.block_m + most)
    return warps.shared_bytes(config) + scales


def room(product: Product, config: Config) -> Config | None:
    """Fit a configuration to this process's GPU; see `warps.room`."""
    return warps.room(config, shared_bytes)


def config_for(product: Product) -> Config:
    """Choose how to launch the kernel; see `warps.config_for`."""
    return warps.config_for(product, CONFIGS, shared_bytes)


def launch(product: Product, config: Config | None = None) -> None:
    """Launch the kernel; see `warps.launch`.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := refusal(product):
        raise ValueError(reason)
    warps.launch(matmul_kernel, product, config or config_for(product), META)
