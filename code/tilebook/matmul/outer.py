"""Rung 2, a tile of the product per program: each term of the sums is an outer product.

A column piece of `a` and a row piece of `b` make BLOCK_M * BLOCK_N terms of
BLOCK_M + BLOCK_N elements. The tile stays in registers until the last term.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, multiplied, tiles


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile, a power of two."""
    block_n: int
    """Columns of it, a power of two."""
    num_warps: int
    """Warps that share a tile."""


LARGEST = Config(64, 64, 4)
"""32 sums a thread, and 32 registers to hold them."""


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: the product, with elements.

    Returns:
        The largest tile, or one no larger than the product.
    """
    return Config(
        min(LARGEST.block_m, triton.next_power_of_2(task.m)),
        min(LARGEST.block_n, triton.next_power_of_2(task.n)),
        LARGEST.num_warps,
    )


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    a_at, b_at = a_ptr + offs_m * a_m, b_ptr + offs_n * b_n
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for _ in range(k):
        a = tl.load(a_at, mask=offs_m < m, other=0)  # (BLOCK_M,)
        b = tl.load(b_at, mask=offs_n < n, other=0)  # (BLOCK_N,)
        acc += a.to(ACC)[:, None] * b.to(ACC)[None, :]
        a_at += a_k
        b_at += b_k
    tl.store(
        out_ptr + offs_m[:, None] * out_m + offs_n[None, :] * out_n,
        acc.to(out_ptr.dtype.element_ty),
        mask=(offs_m < m)[:, None] & (offs_n < n)[None, :],
    )


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: a plain product with elements. Terms are float32 whatever the precision.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than a grid takes.
    """
    block_m, block_n, num_warps = config or config_for(task)
    task.wrap(matmul_kernel)[(tiles(task, block_m, block_n),)](
        task.a, task.b, task.out, task.m, task.n, task.k,
        *task.a.stride(), *task.b.stride(), *task.out.stride(),
        ACC=accumulator(task.a.dtype), BLOCK_M=block_m, BLOCK_N=block_n,
        num_warps=num_warps,
    )  # fmt: skip


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices by outer products of their columns and rows.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: one of `operands.PRECISIONS`; this rung multiplies float32 as it is
            whichever is asked for.

    Returns:
        The product (m, n), contiguous, of the same dtype; int32 for int8.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, another precision, or a tensor
            where this process's kernels can't reach it.
    """
    return multiplied(launch, a, b, precision)
