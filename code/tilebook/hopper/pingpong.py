"""Rung 8, ping-pong: a tile to each group, and one multiplies while the other stores.

Both groups multiply whole tiles, in turns: the first takes a program's tiles 0, 2, 4,
..., the second 1, 3, 5, ... A group begins when the other has begun its tile's last
product, and stores while the other multiplies. A third kind of barrier says whose turn
it is::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `handed[g]` | group g, all its tile's chunks seen | the other | wait for chunks |

It is needed for more than order. A wait names a phase by its parity alone. Who would
wait for a chunk two uses of its slot ahead would be let through by the use before.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_init,
)

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
    put,
    ring_of,
    settle,
    total,
)
from tilebook.matmul.operands import Task

CONFIGS = (
    *(Config(128, 128, 64, 5), Config(64, 256, 64, 4), Config(64, 128, 64, 8)),
    *(Config(64, 128, 128, 4), Config(64, 64, 128, 6), Config(64, 32, 128, 8)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
META = {"REGISTERS": 232, "num_warps": 4}
"""Registers of a thread of the second group, and warps of the first."""


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, places, arrived, free, handed, log, m, n, k,
    WHICH: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Multiply every other tile, and store it while the other group multiplies."""
    STAGES: gl.constexpr = b_ring.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1],
        instr_shape=[16, BLOCK_N, 256 // a_ring.dtype.primitive_bitwidth],
    )  # fmt: skip
    place = places.index(WHICH)
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    steps = gl.cdiv(k, BLOCK_K)
    each = gl.num_programs(0)
    first = gl.program_id(0) + WHICH * each
    for turn in range(gl.cdiv(tiles - first, 2 * each)):
        tile = first + 2 * turn * each
        # The first group's first turn follows none: the phase before the first is over.
        mbarrier.wait(handed.index(1 - WHICH), (turn & 1) ^ (1 - WHICH))
        chunk = (2 * turn + WHICH) * steps
        acc = warpgroup_mma_init(gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout))
        for step in range(steps):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0, 0, 1, A_TURNED, B_TURNED
            )
            if step == 0:
                mark(log, WHICH, tile, BEGUN)
            acc = settle(acc, free, chunk, step > 0, STAGES)
            chunk += 1
        mbarrier.arrive(handed.index(WHICH))
        sums = total(acc, free, chunk - 1, STAGES).to(out_desc.dtype)
        mark(log, WHICH, tile, SUMMED)
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)
        mark(log, WHICH, tile, STORING)
        put(sums, out_desc, row, column, place)
        mark(log, WHICH, tile, STORED)
    tma.store_wait(0)


@gluon.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, log, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr,
    GROUP: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, STAGES), ring_of(b_desc, STAGES)
    places = ring_of(out_desc, 2)
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 1)
    handed = barriers(2, 1)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free, handed, log,
                m, n, k, 0,
                BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (consume, (
                out_desc, a_ring, b_ring, places, arrived, free, handed, log,
                m, n, k, 1,
                BLOCK_M, BLOCK_N, BLOCK_K, A_TURNED, B_TURNED, GROUP,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, log,
                m, n, k, BLOCK_M, BLOCK_N, 0, BLOCK_K,
                1, 1, A_TURNED, B_TURNED, GROUP,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )  # fmt: skip


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    return launching.config_for(task, CONFIGS, 1)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `launching.launch`."""
    which = launching.Kernel(matmul_kernel, 1, META)
    launching.launch(which, task, config or config_for(task))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices: one group multiplies while the other stores.

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
