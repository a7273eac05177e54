"""Rung 3, `tl.dot`: tiles of both operands, multiplied by tensor cores.

Each of BLOCK_K columns and rows is loaded once for a whole tile of the product, and
what multiplies them is a unit that takes tiles.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, multiplied, tiles

# What `tl.dot` takes at least, of any dtype.
LEAST_SIDE, LEAST_K = 16, 32


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile of the product, a power of two from 16 on."""
    block_n: int
    """Columns of it, likewise."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 32 on."""
    num_warps: int
    """Warps that share a tile."""


LARGEST = Config(64, 64, 32, 4)


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: the product, with elements.

    Returns:
        The largest tile, or one about as large as the product.
    """
    return LARGEST._replace(
        block_m=min(LARGEST.block_m, max(LEAST_SIDE, triton.next_power_of_2(task.m))),
        block_n=min(LARGEST.block_n, max(LEAST_SIDE, triton.next_power_of_2(task.n))),
    )


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(tl.cdiv(k, BLOCK_K)):
        offs_k = tl.cast(step, tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
        a = tl.load(
            a_ptr + offs_m[:, None] * a_m + offs_k[None, :] * a_k,
            mask=in_m & (offs_k < k)[None, :],
            other=0,
        )  # (BLOCK_M, BLOCK_K)
        b = tl.load(
            b_ptr + offs_k[:, None] * b_k + offs_n[None, :] * b_n,
            mask=(offs_k < k)[:, None] & in_n,
            other=0,
        )  # (BLOCK_K, BLOCK_N)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=ACC)
    tl.store(
        out_ptr + offs_m[:, None] * out_m + offs_n[None, :] * out_n,
        acc.to(out_ptr.dtype.element_ty),
        mask=in_m & in_n,
    )


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: a plain product with elements.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than a grid takes.
    """
    block_m, block_n, block_k, num_warps = config or config_for(task)
    task.wrap(matmul_kernel)[(tiles(task, block_m, block_n),)](
        task.a, task.b, task.out, task.m, task.n, task.k,
        *task.a.stride(), *task.b.stride(), *task.out.stride(),
        ACC=accumulator(task.a.dtype), PRECISION=task.precision,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, num_warps=num_warps,
    )  # fmt: skip


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices tile by tile.

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
