"""Rung 7, the store folded into the next tile: tensor cores don't wait for it.

As in `tilebook.hopper.folded`: a tile is scaled, rounded and packed when its last
product is done, and leaves while the next tile's first products are under way.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma, warpgroup_mma_init

from tilebook.fp8 import cooperative, warps
from tilebook.fp8.products import Product
from tilebook.fp8.warps import Config, finished
from tilebook.hopper.wgmma import (
    barriers,
    begin,
    halves,
    packed,
    place_of,
    produce,
    put,
    ring_of,
    settle,
    total,
)

CONFIGS = (
    *(Config(128, 256, 4, 2), Config(128, 256, 3, 2), Config(256, 128, 4, 2)),
    *(Config(128, 128, 6), Config(128, 64, 8), Config(128, 256, 4, 2, group=16)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
META = {"REGISTERS": 232, "num_warps": 4}
"""Registers of a thread of the second group, and warps of the first."""


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, places, arrived, free,
    scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k, scale_am, scale_bn, bias_n,
    PART: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    GROUP: gl.constexpr, GROUP_A: gl.constexpr, GROUP_B: gl.constexpr,
):  # fmt: skip
    """Multiply one half of every tile; store the last one's while this one's first
    products are under way."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    PIECES: gl.constexpr = BLOCK_N // places.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 32]
    )
    place = places.index(PART)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    steps = gl.cdiv(k, BLOCK_K)
    # Of no tile yet, and past the last row: nothing is stored there.
    left = gl.zeros([HALF, BLOCK_N], out_desc.dtype, layout)
    right = left
    if PIECES == 2:
        left, right = halves(left)
    last_row, last_column = gl.cdiv(m, BLOCK_M) * BLOCK_M, 0
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = warpgroup_mma_init(gl.zeros([HALF, BLOCK_N], gl.float32, layout))
        acc = begin(acc, a_ring, b_ring, arrived, chunk, False, PART, 2, False, True)
        put(left, out_desc, last_row, last_column, place)
        chunk += 1
        if PIECES == 2:
            acc = begin(acc, a_ring, b_ring, arrived, chunk, True, PART, 2, False, True)
            acc = settle(acc, free, chunk, True, STAGES)
            put(right, out_desc, last_row, last_column + BLOCK_N // 2, place)
            chunk += 1
        for _ in range(PIECES, steps):
            acc = begin(acc, a_ring, b_ring, arrived, chunk, True, PART, 2, False, True)
            acc = settle(acc, free, chunk, True, STAGES)
            chunk += 1
        sums = total(acc, free, chunk - 1, STAGES)
        last_row, last_column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        last_row += PART * HALF
        sums = finished(
            sums, last_row, last_column, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
            scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, False, layout,
        ).to(out_desc.dtype)  # fmt: skip
        if PIECES == 2:
            left, right = halves(sums)
            left, right = packed(left), packed(right)
        else:
            left = packed(sums)
            right = left
    put(left, out_desc, last_row, last_column, place)
    if PIECES == 2:
        put(right, out_desc, last_row, last_column + BLOCK_N // 2, place)
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
    PIECES: gl.constexpr = BLOCK_N // out_desc.block_type.shape[1]
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 2)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
                scale_am, scale_bn, bias_n, 0,
                BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B,
            )),
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free,
                scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
                scale_am, scale_bn, bias_n, 1,
                BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GROUP_A, GROUP_B,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, None,
                m, n, k, BLOCK_M, BLOCK_N, 0, BLOCK_K, 2, PIECES, False, True, GROUP,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )  # fmt: skip


def refusal(product: Product) -> str | None:
    """Say why this kernel can't make a product; None if it can."""
    return cooperative.refusal(product)


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
    if reason := refusal(product):
        raise ValueError(reason)
    warps.launch(matmul_kernel, product, config or config_for(product), META)
