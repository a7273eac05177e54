"""Rung 1, descriptors that the kernel makes: nothing to prepare before a launch.

Each program writes three descriptors into memory of its own, 128 bytes each, before it
walks over its tiles. The host, which otherwise fills them in before every launch, has
nothing to do but launch.
"""

import torch
import triton
import triton.language as tl

from tilebook.hopper import launching
from tilebook.hopper.launching import Config
from tilebook.matmul.descriptors import part, turned
from tilebook.matmul.operands import Task, tiles
from tilebook.softmax.occupancy import programs
from tilebook.tiling.descriptors import allocate
from tilebook.tiling.grouped import grouped

CONFIGS = (
    *(Config(128, 256, 64, 3, 2), Config(128, 256, 64, 4, 2), Config(128, 128, 64, 4)),
    *(Config(128, 128, 64, 6), Config(128, 64, 64, 6), Config(64, 128, 128, 4)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
WARPS = 8


# Of a sum with one term, were that a constant, no loop would be left to specialise:
# Triton 3.6 fails there.
@triton.jit(do_not_specialize=["k"])
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_row, b_row, out_row,
    A_TURNED: tl.constexpr, B_TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECES: tl.constexpr, GROUP: tl.constexpr,
    FLATTEN: tl.constexpr, SPECIALIZE: tl.constexpr,
):  # fmt: skip
    # Rows lie 16 bytes apart, or multiples of that.
    a_row, b_row, out_row = a_row * 8, b_row * 8, out_row * 8
    a_desc = described(a_ptr, m, k, a_row, BLOCK_M, BLOCK_K, A_TURNED)
    b_desc = described(b_ptr, k, n, b_row, BLOCK_K, BLOCK_N, B_TURNED)
    out_desc = described(out_ptr, m, n, out_row, BLOCK_M, BLOCK_N // PIECES, False)
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0),
        flatten=FLATTEN, warp_specialize=SPECIALIZE,
    ):  # fmt: skip
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        start_m, start_n = pid_m * BLOCK_M, pid_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(tl.cdiv(k, BLOCK_K)):
            a = part(a_desc, start_m, step * BLOCK_K, A_TURNED)
            b = part(b_desc, step * BLOCK_K, start_n, B_TURNED)
            acc = tl.dot(a, b, acc)
        if PIECES == 2:
            halves = tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2))
            left, right = tl.split(tl.permute(halves, (0, 2, 1)))
            out_desc.store([start_m, start_n], left.to(out_desc.dtype))
            out_desc.store([start_m, start_n + BLOCK_N // 2], right.to(out_desc.dtype))
        else:
            out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


@triton.jit
def described(
    ptr, rows, columns, row, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    """Describe a matrix, or its transpose, whose rows lie `row` elements apart."""
    if TURNED:
        desc = tl.make_tensor_descriptor(
            ptr, [columns, rows], [row, 1], [COLUMNS, ROWS]
        )
    else:
        desc = tl.make_tensor_descriptor(
            ptr, [rows, columns], [row, 1], [ROWS, COLUMNS]
        )
    return desc


def launch_as(
    task: Task, config: Config, *, warps: int, flatten: bool, specialize: bool
) -> None:
    """Launch the kernel in a way of your own.

    Args:
        task: the product, one that `launching.refusal` doesn't refuse.
        config: how.
        warps: that share a tile.
        flatten: whether to make one loop of the two.
        specialize: whether the compiler is to give loads to warps of their own.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := launching.refusal(task):
        raise ValueError(reason)
    count = tiles(task, config.block_m, config.block_n)
    # Descriptors lie in memory that torch provides.
    triton.set_allocator(allocate)
    a_turned, b_turned = turned(task.a), turned(task.b)
    placed = (task.a.t() if a_turned else task.a, task.b.t() if b_turned else task.b)
    rows = (x.stride(0) // 8 for x in (*placed, task.out))
    task.wrap(matmul_kernel)[(programs(count, 1),)](
        task.a, task.b, task.out, task.m, task.n, task.k, *rows,
        A_TURNED=a_turned, B_TURNED=b_turned, BLOCK_M=config.block_m,
        BLOCK_N=config.block_n, BLOCK_K=config.block_k, PIECES=config.pieces,
        GROUP=config.group, FLATTEN=flatten, SPECIALIZE=specialize,
        num_warps=warps, num_stages=config.num_stages,
    )  # fmt: skip


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    return launching.config_for(task, CONFIGS, 2)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `launch_as`."""
    config = config or config_for(task)
    launch_as(task, config, warps=WARPS, flatten=True, specialize=False)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices through descriptors that the kernel makes.

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
