"""Rung 5, as many programs as multiprocessors: each walks over tiles of the product.

A program that ends leaves its multiprocessor idle until the next one has filled its
stages. One that stays goes from tile to tile, and what starts it is paid for once.
"""

import torch
import triton
import triton.language as tl

from tilebook.matmul import epilogues, fitting, ordered
from tilebook.matmul.operands import Task, multiplied, tiles
from tilebook.matmul.ordered import product, scaled
from tilebook.softmax.occupancy import programs
from tilebook.tiling.grouped import grouped

CONFIGS = ordered.CONFIGS
room = fitting.room


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    M_DIV: tl.constexpr, N_DIV: tl.constexpr, K_DIV: tl.constexpr,
    A_M_DIV: tl.constexpr, A_K_DIV: tl.constexpr,
    B_K_DIV: tl.constexpr, B_N_DIV: tl.constexpr,
    OUT_M_DIV: tl.constexpr, OUT_N_DIV: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, EVEN_K: tl.constexpr,
    WITHIN: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    m, n, k = scaled(m, M_DIV), scaled(n, N_DIV), scaled(k, K_DIV)
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0)):
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        acc = product(
            a_ptr, b_ptr, pid_m, pid_n, m, n, k,
            scaled(a_m, A_M_DIV), scaled(a_k, A_K_DIV),
            scaled(b_k, B_K_DIV), scaled(b_n, B_N_DIV),
            ACC, PRECISION, EVEN_K, WITHIN, BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
        offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        acc = epilogues.finish(acc, offs_n, n, scale, bias_ptr, bias_n, ACTIVATION)
        offs_n, n_out = epilogues.offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
        epilogues.put(
            acc, out_ptr, offs_m, offs_n, m, n_out,
            scaled(out_m, OUT_M_DIV), scaled(out_n, OUT_N_DIV),
            residual_ptr, residual_m, residual_n,
        )  # fmt: skip


def config_for(task: Task) -> fitting.Config:
    """Choose how to launch the kernel; see `ordered.config_for`."""
    wide = fitting.width(task)
    return fitting.cheapest(task, [room(task, c, wide) for c in CONFIGS])


def launch(task: Task, config: fitting.Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: the product, with elements.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than 32 bits count.
    """
    config = config or config_for(task)
    args, meta = ordered.constants(task, config)
    count = tiles(task, config.block_m, config.block_n)
    # Programs of four warps leave room for a second, which works while one stores.
    grid = (programs(count, 1 if config.num_warps >= 8 else 2),)
    task.wrap(matmul_kernel)[grid](*args, **meta)


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices with programs that walk over tiles of the product.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.

    Returns:
        The product (m, n), contiguous, of the same dtype; int32 for int8.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, another precision, or a tensor
            where this process's kernels can't reach it.
    """
    return multiplied(launch, a, b, precision)
