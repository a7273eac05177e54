"""Beside the ladder: tiles of two widths, for fewer bytes from L2 or fuller turns.

A tile's sides are powers of two, but for this: each group adds up two tiles beside each
other, of BLOCK_N and of MORE columns, for the same rows of `a`. 256 rows and 128 + 64
columns ask L2 for a fifth less than 128 and 256 do. 128 rows and 128 + 32 columns fill
turns that broader tiles would leave half empty.
"""

from typing import NamedTuple

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook import device
from tilebook.hopper import launching
from tilebook.hopper.wgmma import (
    BEGUN,
    STORED,
    STORING,
    SUMMED,
    barriers,
    mark,
    multiply,
    place_of,
    produce,
    put,
    put_all,
    ring_of,
)
from tilebook.matmul import estimates
from tilebook.matmul.descriptors import turned
from tilebook.matmul.operands import Task, tiles
from tilebook.softmax.occupancy import programs


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile, a power of two from 128 on."""
    block_n: int
    """Columns of its first part, a power of two up to 256."""
    more: int
    """Columns of its second, a power of two from 16 on, no more than the first has."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 16 on."""
    num_stages: int
    """Chunks that are on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(256, 128, 64, 64, 3), Config(256, 128, 32, 64, 4)),
    *(Config(256, 128, 16, 64, 4), Config(256, 64, 32, 64, 4)),
    *(Config(128, 256, 64, 64, 3), Config(128, 128, 64, 64, 4)),
    *(Config(128, 128, 32, 64, 5), Config(128, 64, 32, 64, 6)),
    Config(128, 64, 16, 64, 8),
)
"""What to try on a card; of two equals `config_for` takes the first."""
REGISTERS = 232
"""Of a thread of the second group."""


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, more_ring, places, arrived, free, log, m, n, k,
    PART: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, MORE: gl.constexpr,
    BLOCK_K: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Multiply one half of every tile's rows with both widths, then store both."""
    STAGES: gl.constexpr = b_ring.shape[0]
    HALF: gl.constexpr = BLOCK_M // 2
    WIDTH: gl.constexpr = BLOCK_N + MORE
    terms: gl.constexpr = 256 // a_ring.dtype.primitive_bitwidth
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, terms]
    )
    narrow: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, MORE, terms]
    )
    place = places.index(PART)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, WIDTH)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = warpgroup_mma_init(gl.zeros([HALF, BLOCK_N], gl.float32, layout))
        more = warpgroup_mma_init(gl.zeros([HALF, MORE], gl.float32, narrow))
        for step in range(gl.cdiv(k, BLOCK_K)):
            slot = chunk % STAGES
            mbarrier.wait(arrived.index(slot), (chunk // STAGES) & 1)
            a = a_ring.index(2 * slot + PART)
            acc = multiply(acc, a, b_ring.index(slot), step > 0, A_TURNED, B_TURNED)
            more = multiply(
                more, a, more_ring.index(slot), step > 0, A_TURNED, B_TURNED
            )
            if step == 0:
                mark(log, PART, tile, BEGUN)
            # Both products of the chunk before are done.
            acc, more = warpgroup_mma_wait(2, deps=(acc, more))
            acc, more = warpgroup_mma_init(acc), warpgroup_mma_init(more)
            before = (chunk + STAGES - 1) % STAGES
            mbarrier.arrive(free.index(before), pred=step > 0)
            chunk += 1
        sums, rest = warpgroup_mma_wait(0, deps=(acc, more))
        mbarrier.arrive(free.index((chunk - 1) % STAGES))
        mark(log, PART, tile, SUMMED)
        row, column = place_of(tile, m, n, BLOCK_M, WIDTH, GROUP)
        row += PART * HALF
        sums, rest = sums.to(out_desc.dtype), rest.to(out_desc.dtype)
        mark(log, PART, tile, STORING)
        put_all(sums, out_desc, row, column, place)
        put(rest, out_desc, row, column + BLOCK_N, place)
        mark(log, PART, tile, STORED)
    tma.store_wait(0)


@gluon.jit
def matmul_kernel(
    a_desc, b_desc, more_desc, out_desc, log, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, MORE: gl.constexpr,
    BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
    REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, 2 * STAGES), ring_of(b_desc, STAGES)
    more_ring, places = ring_of(more_desc, STAGES), ring_of(out_desc, 2)
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 2)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, more_ring, places, arrived, free, log,
                m, n, k, 0,
                BLOCK_M, BLOCK_N, MORE, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (consume, (
                out_desc, a_ring, b_ring, more_ring, places, arrived, free, log,
                m, n, k, 1,
                BLOCK_M, BLOCK_N, MORE, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (produce, (
                a_desc, b_desc, more_desc, a_ring, b_ring, more_ring, arrived, free,
                log, m, n, k, BLOCK_M, BLOCK_N, MORE, BLOCK_K, 2, 1,
                A_TURNED, B_TURNED, GROUP,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )  # fmt: skip


def room(config: Config) -> Config | None:
    """Fit a configuration to this process's GPU; see `launching.room`."""
    has = device.current().shared_memory_per_block or launching.SHARED
    chunk = config.block_m + config.block_n + config.more
    chunk *= 2 * config.block_k
    place = 2 * config.block_m * config.more
    stages = min(config.num_stages, (has - launching.BARRIERS - place) // chunk)
    return config._replace(num_stages=stages) if stages > 1 else None


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    fitted = [each for config in CONFIGS if (each := room(config))]
    return min(fitted, key=lambda c: seconds(task, c))


def seconds(task: Task, config: Config) -> float:
    """Estimate how long a product takes; see `matmul.estimates.seconds`."""
    columns = config.block_n + config.more
    sides = (config.block_m, columns, config.block_k)
    return estimates.seconds(task, estimates.Tile(*sides, 8, config.num_stages, 1))


def launch(task: Task, config: Config | None = None) -> None:
    """Describe the matrices and launch the kernel.

    Args:
        task: the product, one that `launching.refusal` doesn't refuse.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := launching.refusal(task):
        raise ValueError(reason)
    config = config or config_for(task)
    block_m, block_n, more, block_k = config[:4]
    half = block_m // 2
    a_turned, b_turned = turned(task.a), turned(task.b)
    count = tiles(task, block_m, block_n + more)
    describe = launching.describe
    task.wrap(matmul_kernel)[(programs(count, 1),)](
        describe(task.a, half, block_k, a_turned),
        describe(task.b, block_k, block_n, b_turned),
        describe(task.b, block_k, more, b_turned),
        describe(task.out, half, more, False),
        None, task.m, task.n, task.k,
        BLOCK_M=block_m, BLOCK_N=block_n, MORE=more, BLOCK_K=block_k,
        STAGES=config.num_stages, A_TURNED=a_turned, B_TURNED=b_turned,
        GROUP=config.group, REGISTERS=REGISTERS, num_warps=4,
    )  # fmt: skip


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in tiles of two widths.

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
