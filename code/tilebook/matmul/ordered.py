"""Rung 4, the same tiles in strips, and a loop that only loads and multiplies.

* Programs that run at a time work in a strip of GROUP rows of tiles: they share what
  they read, and the L2 cache holds it.
* No mask in the loop: rows past the edge of `a` are rows from within the tile once
  more, whose products nobody stores, and where BLOCK_K divides k no term is missing.
* What divides sizes and strides is told to the compiler, so that 16 bytes go at a time
  past the registers into shared memory, `num_stages` steps ahead.
* Whatever else is to be done to the product is done to the tile in registers.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.matmul import epilogues, fitting, versions
from tilebook.matmul.fitting import Config
from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, divisor, multiplied, tiles
from tilebook.tiling.grouped import grouped


@triton.jit
def product(
    a_ptr, b_ptr, pid_m, pid_n, m, n, k, a_m, a_k, b_k, b_n,
    ACC: tl.constexpr, PRECISION: tl.constexpr, EVEN_K: tl.constexpr,
    WITHIN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Multiply what a tile of the product needs; sizes and strides have 64 bits."""
    start_m, start_n = pid_m.to(tl.int64) * BLOCK_M, pid_n.to(tl.int64) * BLOCK_N
    # Within the tile 32 bits do, and divide in a quarter of the instructions.
    rows = tl.arange(0, BLOCK_M) % tl.minimum(m - start_m, BLOCK_M).to(tl.int32)
    columns = tl.arange(0, BLOCK_N) % tl.minimum(n - start_n, BLOCK_N).to(tl.int32)
    offs_k = tl.arange(0, BLOCK_K)
    # To where the tile begins in 64 bits, and within it in as few as hold the farthest.
    a_ptr += start_m * a_m
    b_ptr += start_n * b_n
    a_at = rows[:, None] * a_m.to(WITHIN) + offs_k[None, :] * a_k.to(WITHIN)
    b_at = offs_k[:, None] * b_k.to(WITHIN) + columns[None, :] * b_n.to(WITHIN)
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(tl.cdiv(k, BLOCK_K).to(tl.int32)):
        if EVEN_K:
            a = tl.load(a_ptr + a_at)  # (BLOCK_M, BLOCK_K)
            b = tl.load(b_ptr + b_at)  # (BLOCK_K, BLOCK_N)
        else:
            left = tl.minimum(k - tl.cast(step, tl.int64) * BLOCK_K, BLOCK_K).to(
                tl.int32
            )
            a = tl.load(a_ptr + a_at, mask=(offs_k < left)[None, :], other=0)
            b = tl.load(b_ptr + b_at, mask=(offs_k < left)[:, None], other=0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=ACC)
        a_ptr += BLOCK_K * a_k
        b_ptr += BLOCK_K * b_k
    return acc


@triton.jit
def scaled(x, FACTOR: tl.constexpr):
    """A size or a stride in 64 bits, of which the compiler knows what divides it."""
    return tl.cast(x, tl.int64) * FACTOR


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    M_DIV: tl.constexpr, N_DIV: tl.constexpr, K_DIV: tl.constexpr,
    A_M_DIV: tl.constexpr, A_K_DIV: tl.constexpr,
    B_K_DIV: tl.constexpr, B_N_DIV: tl.constexpr,
    OUT_M_DIV: tl.constexpr, OUT_N_DIV: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, EVEN_K: tl.constexpr,
    WITHIN: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    m, n, k = scaled(m, M_DIV), scaled(n, N_DIV), scaled(k, K_DIV)
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    pid_m, pid_n = grouped(tl.program_id(0), tiles_m, tiles_n, GROUP)
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


CONFIGS = fitting.CONFIGS


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: the product, with elements.

    Returns:
        Of the tiles that fit, those with which the busiest multiprocessor is done
        first, as far as a count of its terms and of what it reads tells.
    """
    wide = fitting.width(task)
    return fitting.cheapest(task, [room(task, c, wide) for c in CONFIGS])


def room(task: Task, config: Config, wide: int) -> Config | None:
    """Fit one of `CONFIGS` to a product, as `fitting.room` does.

    Args:
        task: the product.
        config: for operands of two bytes.
        wide: `fitting.width` of the product.

    Returns:
        As `fitting.room`; None, too, for tiles whose tensor cores would wait for one
        another.
    """
    fitted = fitting.room(task, config, wide)
    return None if fitted and waits(task, fitted) else fitted


def waits(task: Task, config: Config) -> bool:
    """Whether ptxas makes tensor cores wait for one another: its remark C7515.

    Args:
        task: the product.
        config: how it is launched.

    Returns:
        True for wgmma on tiles of 256 columns, where columns of `b` lie together and
        Triton is older than 3.7. Tiles turned by a quarter are spared.
    """
    hopper = device.has("wgmma") or device.current().backend not in ("cuda", "hip")
    along = task.b.stride(0) == 1 != task.b.stride(1)
    return versions.serialises() and hopper and along and config.block_n > 128


def constants(task: Task, config: Config) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the kernels of this chapter that follow pointers are launched with.

    Args:
        task: the product, with elements.
        config: how.

    Returns:
        All arguments in order, and constants and options by name.
    """
    a, b, out = task.a, task.b, task.out
    most = 16 // a.itemsize
    names = ("M_DIV", "N_DIV", "K_DIV", "A_M_DIV", "A_K_DIV", "B_K_DIV", "B_N_DIV")
    names += ("OUT_M_DIV", "OUT_N_DIV")
    values = (task.m, task.n, task.k, *a.stride(), *b.stride(), *out.stride())
    factors = [math.gcd(size, most) for size in values[:3]]
    factors += [*divisor(a), *divisor(b), *divisor(out)]
    rest, activation = epilogues.arguments(task)
    args = [value // by for value, by in zip(values, factors, strict=True)]
    return (a, b, out, *args, *rest), dict(
        zip(names, factors, strict=True),
        ACC=accumulator(a.dtype),
        PRECISION=task.precision,
        EVEN_K=task.k % config.block_k == 0,
        WITHIN=tl.int32 if fitting.reach(task, config) < 2**31 else tl.int64,
        **activation,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        GROUP=config.group,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: the product, with elements.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than a grid takes.
    """
    config = config or config_for(task)
    args, meta = constants(task, config)
    grid = (tiles(task, config.block_m, config.block_n),)
    task.wrap(matmul_kernel)[grid](*args, **meta)


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices in tiles, strip by strip.

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
