"""Rung 6, two blocks under way: one is added while the next one is multiplied (Gluon).

In `promoted` a group has one place for the sums of a block, and asks tensor cores for
nothing until that has been added; the other group must fill the gap, and nothing keeps
the two out of step. Here a group has two places: it begins two blocks, and scales and
adds the first while the second is multiplied. So two groups ask for up to four blocks,
and gaps are half as many. A block without a partner gets one of zeros.

To begin the next pair before the second block is added would leave no gap. But then
products are under way from one turn of the loop to the next, in other registers each
time, and ptxas makes each `wgmma` wait for the one before (C7514).
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook.fp8 import warps
from tilebook.fp8.products import Product
from tilebook.fp8.warps import Config, added, asked, finished, start
from tilebook.hopper.wgmma import barriers, place_of, produce, put_all, ring_of

CONFIGS = (
    *(Config(128, 128, 6), Config(128, 128, 5), Config(128, 64, 8)),
    *(Config(128, 128, 6, group=16), Config(128, 32, 8)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
META = {"REGISTERS": 232, "num_warps": 4}
"""Registers of a thread of the second group, and warps of the first."""


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, places, arrived, free,
    scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
    scale_am, scale_ak, scale_bk, scale_bn, bias_n,
    PART: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    GROUP: gl.constexpr, GROUP_A: gl.constexpr, GROUP_B: gl.constexpr,
    BLOCKS: gl.constexpr,
):  # fmt: skip
    """Multiply one half of every tile, two blocks at a time, then store it."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 32]
    )
    place = places.index(PART)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    blocks = gl.cdiv(k, BLOCK_K)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        row += PART * HALF
        # A group may be wholly below the last row: its scales are of the last there is.
        known = gl.minimum(row, m - 1)
        sums = gl.zeros([HALF, BLOCK_N], gl.float32, layout)
        even_left, even_right, odd_left, odd_right = 0.0, 0.0, 0.0, 0.0
        if BLOCKS:
            even_left, even_right = asked(
                scale_a_ptr, scale_b_ptr, row, column, m,
                scale_am, scale_ak, scale_bk, scale_bn, 0, blocks,
                HALF, BLOCK_N, GROUP_A, GROUP_B, layout,
            )  # fmt: skip
            odd_left, odd_right = asked(
                scale_a_ptr, scale_b_ptr, row, column, m,
                scale_am, scale_ak, scale_bk, scale_bn, 1, blocks,
                HALF, BLOCK_N, GROUP_A, GROUP_B, layout,
            )  # fmt: skip
        for pair in range(gl.cdiv(blocks, 2)):
            block = 2 * pair
            even = start(a_ring, b_ring, arrived, chunk, PART, HALF, BLOCK_N, layout)
            odd = start(a_ring, b_ring, arrived, chunk + 1, PART, HALF, BLOCK_N, layout)
            found = warpgroup_mma_wait(1, deps=(even,))
            mbarrier.arrive(free.index(chunk % STAGES))
            sums = added(
                sums, found, even_left, even_right, scale_b_ptr, column, n,
                scale_bn, scale_bk, block, blocks, GROUP_B, BLOCKS, layout,
            )  # fmt: skip
            if BLOCKS:
                even_left, even_right = asked(
                    scale_a_ptr, scale_b_ptr, row, column, m,
                    scale_am, scale_ak, scale_bk, scale_bn, block + 2, blocks,
                    HALF, BLOCK_N, GROUP_A, GROUP_B, layout,
                )  # fmt: skip
            found = warpgroup_mma_wait(0, deps=(odd,))
            mbarrier.arrive(free.index((chunk + 1) % STAGES))
            sums = added(
                sums, found, odd_left, odd_right, scale_b_ptr, column, n,
                scale_bn, scale_bk, block + 1, blocks, GROUP_B, BLOCKS, layout,
            )  # fmt: skip
            if BLOCKS:
                odd_left, odd_right = asked(
                    scale_a_ptr, scale_b_ptr, row, column, m,
                    scale_am, scale_ak, scale_bk, scale_bn, block + 3, blocks,
                    HALF, BLOCK_N, GROUP_A, GROUP_B, layout,
                )  # fmt: skip
            chunk += 2
        sums = finished(
            sums, known, column, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
            scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, BLOCKS, layout,
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
    places = ring_of(out_desc, 2)
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 2)
    # Past the last term there are zeros: a partner for a block without one.
    even = gl.cdiv(k, 2 * BLOCK_K) * 2 * BLOCK_K
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
                scale_am, scale_ak, scale_bk, scale_bn, bias_n, 0,
                BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B, BLOCKS,
            )),
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
                scale_am, scale_ak, scale_bk, scale_bn, bias_n, 1,
                BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B, BLOCKS,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, None,
                m, n, even, BLOCK_M, BLOCK_N, 0, BLOCK_K, 2, 1, False, True, GROUP,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )  # fmt: skip


def refusal(product: Product) -> str | None:
    """Say why this kernel can't make a product; None if it can."""
    return warps.refusal(product)


def room(product: Product, config: Config) -> Config | None:
    """Fit a configuration to this process's GPU; see `warps.room`."""
    return warps.room(config)


def config_for(product: Product) -> Config:
    """Choose how to launch the kernel; see `warps.config_for`."""
    return warps.config_for(product, CONFIGS)


def launch(product: Product, config: Config | None = None) -> None:
    """Launch the kernel; see `warps.launch`.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    warps.launch(matmul_kernel, product, config or config_for(product), META)
