"""Rung 7, the store folded into the next tile: tensor cores don't wait for it."""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma, warpgroup_mma_init

from tilebook.hopper import launching
from tilebook.hopper.launching import Config
from tilebook.hopper.wgmma import (
    BEGUN,
    STORED,
    STORING,
    SUMMED,
    barriers,
    begin,
    halves,
    mark,
    packed,
    place_of,
    produce,
    put,
    ring_of,
    settle,
    total,
)
from tilebook.matmul.operands import Task

CONFIGS = (
    *(Config(128, 256, 64, 4, 2), Config(128, 256, 64, 3), Config(256, 128, 64, 4, 2)),
    *(Config(128, 128, 64, 5), Config(128, 128, 128, 3), Config(128, 64, 64, 8)),
    *(Config(128, 64, 128, 4), Config(128, 256, 64, 4, 2, group=16)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
META = {"REGISTERS": 232, "num_warps": 4}
"""Registers of a thread of the second group, and warps of the first."""


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, places, arrived, free, log, m, n, k,
    PART: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Multiply one half of every tile; store the last one's while this one's first
    products are under way."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    PIECES: gl.constexpr = BLOCK_N // places.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1],
        instr_shape=[16, BLOCK_N, 256 // a_ring.dtype.primitive_bitwidth],
    )  # fmt: skip
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
        acc = begin(
            acc, a_ring, b_ring, arrived, chunk, False, PART, 2, A_TURNED, B_TURNED
        )
        mark(log, PART, tile, BEGUN)
        # In the log this store is the tile's that follows.
        mark(log, PART, tile, STORING)
        put(left, out_desc, last_row, last_column, place)
        chunk += 1
        if PIECES == 2:
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, True, PART, 2, A_TURNED, B_TURNED
            )
            acc = settle(acc, free, chunk, True, STAGES)
            put(right, out_desc, last_row, last_column + BLOCK_N // 2, place)
            chunk += 1
        mark(log, PART, tile, STORED)
        for _ in range(PIECES, steps):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, True, PART, 2, A_TURNED, B_TURNED
            )
            acc = settle(acc, free, chunk, True, STAGES)
            chunk += 1
        sums = total(acc, free, chunk - 1, STAGES).to(out_desc.dtype)
        mark(log, PART, tile, SUMMED)
        last_row, last_column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        last_row += PART * HALF
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
    a_desc, b_desc, out_desc, log, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr,
    GROUP: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, 2 * STAGES), ring_of(b_desc, STAGES)
    places = ring_of(out_desc, 2)
    PIECES: gl.constexpr = BLOCK_N // out_desc.block_type.shape[1]
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 2)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free, log, m, n, k, 0,
                BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free, log, m, n, k, 1,
                BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, log,
                m, n, k, BLOCK_M, BLOCK_N, 0, BLOCK_K,
                2, PIECES, A_TURNED, B_TURNED, GROUP,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )  # fmt: skip


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    return launching.config_for(task, CONFIGS, 2)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `launching.launch`."""
    which = launching.Kernel(matmul_kernel, 2, META)
    launching.launch(which, task, config or config_for(task))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices, and store each tile while the next is multiplied.

    Args:
        a: matrix (m, k) in bfloat16 or float16, rows or columns of neighbours that lie
            multiples of 16 bytes apart, as does its start.
        b: matrix (k, n), likewise, of the same dtype; n a multiple of 8.

    Returns:
        The product (m, n), contiguous, of the same dtype.

    Raises:
        HardwareError: this GPU has no such tensor cores.
        TypeError: not tensors, no dtype that any kernel multiplies, or two of them.
        ValueError: not matrices, sides that don't meet, elements of another type, a
            matrix that can't be described, or a tensor where this process's kernels
            can't reach it.
    """
    return launching.multiplied(launch, a, b)
