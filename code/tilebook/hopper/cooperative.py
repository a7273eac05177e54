"""Rung 6, a warp that only loads and two groups that only multiply (Gluon).

One warp of a program, the producer, asks the copy engine for chunk after chunk, of the
next tile as soon as the last one's are on their way. Two groups of four warps multiply,
each a half of the tile's rows; both read the same columns of `b`. Nobody else waits for
memory: the producer is ahead by as many chunks as there are slots.
"""

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
    mark,
    place_of,
    produce,
    put_all,
    ring_of,
    settle,
    total,
)
from tilebook.matmul.operands import Task

CONFIGS = (
    *(Config(128, 256, 64, 4, 2), Config(128, 256, 64, 3), Config(256, 128, 64, 3)),
    *(Config(128, 128, 64, 5), Config(128, 128, 128, 3), Config(128, 64, 64, 8)),
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
    """Multiply one half of every tile, then store it."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1],
        instr_shape=[16, BLOCK_N, 256 // a_ring.dtype.primitive_bitwidth],
    )  # fmt: skip
    place = places.index(PART)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = warpgroup_mma_init(gl.zeros([HALF, BLOCK_N], gl.float32, layout))
        for step in range(gl.cdiv(k, BLOCK_K)):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0,
                PART, 2, A_TURNED, B_TURNED,
            )  # fmt: skip
            if step == 0:
                mark(log, PART, tile, BEGUN)
            acc = settle(acc, free, chunk, step > 0, STAGES)
            chunk += 1
        sums = total(acc, free, chunk - 1, STAGES).to(out_desc.dtype)
        mark(log, PART, tile, SUMMED)
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        row += PART * HALF
        mark(log, PART, tile, STORING)
        put_all(sums, out_desc, row, column, place)
        mark(log, PART, tile, STORED)
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
                2, 1, A_TURNED, B_TURNED, GROUP,
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
    """Multiply two matrices: one warp loads, two groups of four multiply.

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
