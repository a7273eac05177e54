"""Other ways to multiply: float32 as three products of bfloat16, and sums in float16.

A float32 has 24 significant bits, a bfloat16 eight. So x is about high + rest, with
high = bfloat16(x) and rest = bfloat16(x - high): high is off by at most 2^-8 abs(x),
rest by 2^-8 of that, and both together by 2^-16 abs(x). Of the four products of two
such sums three are worth having, high high, high rest and rest high; the fourth is at
most 2^-16 abs(a b). With the 2 * 2^-16 abs(a b) that the two sums are off by, an
element of the product is off by at most

    (3 * 2^-16 + k 2^-24) sum abs(a b),

which is 171 times less than bfloat16's own 2 * 2^-8, and as much again as float32's
k 2^-24 at k = 768. The tensor cores do the work of three bfloat16 products.

Sums in float16 have a unit roundoff of 2^-11: k terms are off by at most
k 2^-11 sum abs(a b), 8,192 times what float32 would allow, and beyond 65,504 they are
infinite. That is what `half_accumulated` is here to show.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.matmul.operands import Task, alone, check_pair, tiles
from tilebook.matmul.split import block_for, stages_for
from tilebook.tiling.grouped import grouped


class Config(NamedTuple):
    """How a kernel is launched."""

    block_m: int
    """Rows of a tile."""
    block_n: int
    """Columns of a tile."""
    block_k: int
    """Terms that are loaded at once."""
    num_warps: int = 8
    num_stages: int = 3
    """Blocks of terms on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


THREE_PRODUCTS = 3 * 2.0**-16
"""Relative error of a product of two numbers each taken as high + rest."""


def config_for(task: Task) -> Config:
    """Choose how to launch a kernel.

    Args:
        task: the product.

    Returns:
        Tiles of 128 by 128, or as low or narrow as the product.
    """
    block_m, block_n = block_for(task.m, 128), block_for(task.n, 128)
    stages = stages_for(3, block_m, block_n)
    if task.a.dtype == torch.float16:
        return Config(block_m, block_n, 64, 4, stages)
    warps = 8 if block_m * block_n >= 128 * 128 else 4
    return Config(block_m, block_n, 32, warps, stages)


@triton.jit
def parted(x):
    """A float32 as the sum of two bfloat16."""
    high = x.to(tl.bfloat16)
    # An infinity has no rest: infinity less infinity would be NaN.
    rest = tl.where(tl.abs(high.to(tl.float32)) < float("inf"), x - high, 0.0)
    return high, rest.to(tl.bfloat16)


@triton.jit
def three_products(a, b, acc):
    """Add what three products of bfloat16 make of two tiles of float32."""
    a_high, a_rest = parted(a)
    b_high, b_rest = parted(b)
    small = tl.dot(a_high, b_rest)
    small = tl.dot(a_rest, b_high, small)
    # Where it isn't finite the large product says what the sum is.
    acc += tl.where(tl.abs(small) < float("inf"), small, 0.0)
    return tl.dot(a_high, b_high, acc)


@triton.jit
def precision_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k,
    stride_am, stride_ak, stride_bk, stride_bn, stride_om, stride_on,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = grouped(tl.program_id(0), tiles_m, tiles_n, GROUP)
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float16 if HALF else tl.float32)
    for step in range(0, tl.cdiv(k, BLOCK_K)):
        offs_k = tl.cast(step, tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
        a = tl.load(
            a_ptr + offs_m[:, None] * stride_am + offs_k[None, :] * stride_ak,
            mask=in_m & (offs_k < k)[None, :],
            other=0,
        )  # (BLOCK_M, BLOCK_K)
        b = tl.load(
            b_ptr + offs_k[:, None] * stride_bk + offs_n[None, :] * stride_bn,
            mask=(offs_k < k)[:, None] & in_n,
            other=0,
        )  # (BLOCK_K, BLOCK_N)
        if HALF:
            acc = tl.dot(a, b, acc, out_dtype=tl.float16)
        else:
            acc = three_products(a, b, acc)
    at = offs_m[:, None] * stride_om + offs_n[None, :] * stride_on
    tl.store(out_ptr + at, acc, mask=in_m & in_n)


def launch(task: Task, config: Config | None = None) -> None:
    """Multiply, and write the result that a task names.

    Args:
        task: the plain product of two matrices of float32, or of float16.
        config: how to launch; `config_for` chooses by default.

    Raises:
        ValueError: there are more tiles than a grid has programs.
    """
    if not task.out.numel():
        return
    config = config or config_for(task)
    grid = (tiles(task, config.block_m, config.block_n),)
    with library.on(task.a):
        task.wrap(precision_kernel)[grid](
            task.a, task.b, task.out, task.m, task.n, task.k,
            *task.a.stride(), *task.b.stride(), *task.out.stride(),
            BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
            GROUP=min(config.group, -(-task.m // config.block_m)),
            HALF=task.a.dtype == torch.float16,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip


def _multiplied(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    check.tensor(a, "a", dtype=dtype, ndim=2)
    check_pair(a, b)
    a, b = alone(a, "a"), alone(b, "b")
    out = torch.empty((a.shape[0], b.shape[1]), dtype=dtype, device=a.device)
    launch(Task(a, b, out))
    return out


def bf16x3(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two float32 matrices by three products of bfloat16.

    Args:
        a: matrix (m, k) of float32, any strides.
        b: matrix (k, n), likewise.

    Returns:
        Their product (m, n) in float32, contiguous, off by at most
        (`THREE_PRODUCTS` + k 2^-24) times the sum of the terms' magnitudes.

    Raises:
        TypeError: not tensors, or another dtype.
        ValueError: not matrices, sides that don't meet, two devices, or a tensor where
            this process's kernels can't reach it.

    Notes:
        Where a rest is below 2^-126 it is lost, and with it the bound: elements smaller
        than about 2^-110. Those beyond bfloat16's largest number, 3.39e38, count as
        infinite.
    """
    return _multiplied(a, b, torch.float32)


def half_accumulated(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two float16 matrices and sum in float16, to show what that loses.

    Args:
        a: matrix (m, k) of float16, any strides.
        b: matrix (k, n), likewise.

    Returns:
        Their product (m, n) in float16, contiguous, off by at most k 2^-11 times the
        sum of the terms' magnitudes, and infinite beyond 65,504.

    Raises:
        TypeError: not tensors, or another dtype.
        ValueError: not matrices, sides that don't meet, two devices, or a tensor where
            this process's kernels can't reach it.
    """
    return _multiplied(a, b, torch.float16)
