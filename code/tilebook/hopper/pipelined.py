"""Rung 3, the same by hand (Gluon): layouts, shared memory and barriers are written.

Eight warps do everything: one thread of them asks for the chunk that is STAGES - 1
steps ahead, then all wait for the one that is due, and multiply. The chunks of the next
tile are asked for while this one's last are multiplied, so that only the store of a
tile stops the tensor cores.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook._gluon import async_load
from tilebook.hopper import launching
from tilebook.hopper.launching import Config
from tilebook.hopper.wgmma import barriers, begin, place_of, put_all, ring_of
from tilebook.matmul.operands import Task

CONFIGS = (
    *(Config(128, 256, 64, 4, 2), Config(128, 256, 64, 3), Config(256, 128, 64, 4, 2)),
    *(Config(128, 128, 64, 6), Config(128, 128, 128, 3), Config(128, 64, 64, 8)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
WARPS = 8


@gluon.jit
def fetch(
    a_desc, b_desc, a_ring, b_ring, arrived, chunk, tile, row, column, step, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Ask for a chunk, if there is such a tile; say which chunk is the next."""
    slot = chunk % b_ring.shape[0]
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    here, any_left = arrived.index(slot), tile < tiles
    mbarrier.expect(
        here, a_desc.block_type.nbytes + b_desc.block_type.nbytes, pred=any_left
    )
    term = step * BLOCK_K
    bring(a_desc, row, term, here, a_ring.index(slot), any_left, A_TURNED)
    bring(b_desc, term, column, here, b_ring.index(slot), any_left, B_TURNED)
    step += 1
    # Divisions take as long as a product: once a tile is often enough.
    if step * BLOCK_K >= k:
        step = 0
        tile += gl.num_programs(0)
        # Past the last tile, where nothing is asked for, there is no place to compute.
        there = gl.minimum(tile, tiles - 1)
        row, column = place_of(there, m, n, BLOCK_M, BLOCK_N, GROUP)
    return tile, row, column, step


@gluon.jit
def bring(desc, row, column, arrived, slot, pred, TURNED: gl.constexpr):
    """Ask the copy engine for a tile; see `wgmma.bring`."""
    if TURNED:
        async_load(desc, [column, row], arrived, slot, pred=pred)
    else:
        async_load(desc, [row, column], arrived, slot, pred=pred)


@gluon.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr,
    GROUP: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[WARPS, 1],
        instr_shape=[16, BLOCK_N, 256 // a_desc.dtype.primitive_bitwidth],
    )  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, STAGES), ring_of(b_desc, STAGES)
    place = ring_of(out_desc, 1).index(0)
    arrived = barriers(STAGES, 1)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    # What is asked for runs ahead of what is multiplied, into the tiles after it.
    ahead, ahead_step = gl.program_id(0), 0
    row, column = place_of(gl.minimum(ahead, tiles - 1), m, n, BLOCK_M, BLOCK_N, GROUP)
    for i in gl.static_range(STAGES - 1):
        ahead, row, column, ahead_step = fetch(
            a_desc, b_desc, a_ring, b_ring, arrived, i, ahead, row, column, ahead_step,
            m, n, k, BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
        )  # fmt: skip
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = warpgroup_mma_init(gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout))
        for step in range(gl.cdiv(k, BLOCK_K)):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0, 0, 1, A_TURNED, B_TURNED
            )
            # The product before this one is done: its slot is the next to be filled.
            acc = warpgroup_mma_init(warpgroup_mma_wait(1, deps=(acc,)))
            ahead, row, column, ahead_step = fetch(
                a_desc, b_desc, a_ring, b_ring, arrived, chunk + STAGES - 1,
                ahead, row, column, ahead_step, m, n, k,
                BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )  # fmt: skip
            chunk += 1
        sums = warpgroup_mma_wait(0, deps=(acc,)).to(out_desc.dtype)
        here_row, here_column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        put_all(sums, out_desc, here_row, here_column, place)
    tma.store_wait(0)


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    return launching.config_for(task, CONFIGS, 2)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `launching.launch`."""
    which = launching.Kernel(matmul_kernel, 1, {"WARPS": WARPS, "num_warps": WARPS}, ())
    launching.launch(which, task, config or config_for(task))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in a pipeline that is written out.

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
