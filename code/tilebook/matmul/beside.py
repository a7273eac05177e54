"""Rung 7, two tiles beside each other: widths that aren't powers of two.

10,240 columns are 80 tiles of 128, or 160 of 64, for 132 multiprocessors: a third of
them idle, or a second round for a few. 128 tiles of 80 columns would be right, and
Triton's tiles are powers of two. But 80 is 64 and 16: a program that loads a tile of
`a` once may multiply it with two tiles of `b`, of unlike widths, which lie beside each
other, into two accumulators. The tensor cores' instructions are as wide as either.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.matmul import described, epilogues, estimates, fitting
from tilebook.matmul.descriptors import ends, operand, part, store
from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, divisor, multiplied, tiles
from tilebook.softmax.occupancy import programs
from tilebook.tiling.grouped import grouped


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile of the product, a power of two from 64 on, at most 256."""
    block_n: int
    """Columns of the wider of the two, a power of two from 32 on, at most 256."""
    more: int
    """Columns of the other, a power of two from 16 on, less than `block_n`."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 32 on."""
    num_warps: int
    """Warps that share a tile."""
    num_stages: int
    """Steps of the loop whose loads are on their way or in use."""
    pieces: int = 1
    """Pieces, 1, 2 or 4, in which the wider one is finished and stored."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 64, 64, 8, 4, 2), Config(128, 256, 64, 32, 8, 7, 2)),
    *(Config(256, 128, 32, 64, 8, 4, 2), Config(256, 64, 32, 64, 8, 5)),
    *(Config(128, 128, 64, 64, 8, 5, 2), Config(128, 128, 32, 64, 8, 5, 2)),
    *(Config(128, 64, 32, 64, 4, 7), Config(128, 64, 16, 64, 4, 8)),
    *(Config(64, 128, 64, 64, 4, 7), Config(64, 128, 32, 128, 4, 4)),
    *(Config(64, 64, 32, 64, 4, 9), Config(64, 64, 16, 64, 4, 10)),
)
"""What to try on a card, for operands of two bytes."""
MOST_SUMS = 160
"""Sums that a thread holds."""


@triton.jit
def matmul_kernel(
    a_desc, b_desc, more_desc, out_desc, out_more_desc, residual_desc,
    residual_more_desc, out_ptr, m, n, k, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    A_TURNED: tl.constexpr, B_TURNED: tl.constexpr,
    N_DIV: tl.constexpr, OUT_DIV: tl.constexpr, ACC: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    MORE: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    n *= N_DIV
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N + MORE)
    # One stage: what waits to be stored lies where stages were.
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), num_stages=1
    ):
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        start_m, start_n = pid_m * BLOCK_M, pid_n * (BLOCK_N + MORE)
        acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
        more = tl.zeros((BLOCK_M, MORE), ACC)
        for step in range(tl.cdiv(k, BLOCK_K)):
            start_k = step * BLOCK_K
            a = part(a_desc, start_m, start_k, A_TURNED)  # (BLOCK_M, BLOCK_K)
            b = part(b_desc, start_k, start_n, B_TURNED)  # (BLOCK_K, BLOCK_N)
            c = part(more_desc, start_k, start_n + BLOCK_N, B_TURNED)
            acc = tl.dot(a, b, acc, out_dtype=ACC)
            more = tl.dot(a, c, more, out_dtype=ACC)
        store(
            acc, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n, scale,
            bias_ptr, bias_n, residual_desc, residual_ptr, residual_m, residual_n,
            OUT_DIV, ACTIVATION, PIECES,
        )  # fmt: skip
        store(
            more, start_m, start_n + BLOCK_N, m, n, out_more_desc, out_ptr, out_m,
            out_n, scale, bias_ptr, bias_n, residual_more_desc, residual_ptr,
            residual_m, residual_n, OUT_DIV, ACTIVATION, 1,
        )  # fmt: skip


def refusal(task: Task) -> str | None:
    """Say why a product can't be multiplied so; see `described.refusal`."""
    if task.a.itemsize != 2:
        return f"it takes elements of two bytes, got {task.a.dtype}"
    return described.refusal(task)


def room(task: Task, config: Config) -> Config | None:
    """Fit one of `CONFIGS` to a product; see `fitting.room`.

    Args:
        task: the product.
        config: for operands of two bytes.

    Returns:
        It, with as many stages as shared memory holds; None for tiles that registers or
        shared memory don't.
    """
    sums = config.block_m * (config.block_n + config.more) // (32 * config.num_warps)
    if task.a.itemsize != 2 or sums > MOST_SUMS:
        return None
    config = described.in_pieces(task, config)
    has = device.current().shared_memory_per_block or fitting.SHARED
    lines = config.block_m + config.block_n + config.more
    stage = lines * config.block_k * task.a.itemsize
    last = config.block_m * (config.block_n // config.pieces + config.more)
    last *= task.out.itemsize * (1 if task.residual is None else 2)
    stages = min(config.num_stages, (has - 1024) // stage)
    if last > has - 1024:
        return None
    return config._replace(num_stages=stages) if stages > 1 else None


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `ordered.config_for`."""
    found = [fitted for c in CONFIGS if (fitted := room(task, c))]
    return min(found, key=lambda c: estimates.seconds(task, fitting.tile(c, 1)))


def launch(task: Task, config: Config | None = None) -> None:
    """Describe the matrices and launch the kernel.

    Args:
        task: the product, one that `refusal` doesn't refuse.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := refusal(task):
        raise ValueError(reason)
    config = config or config_for(task)
    block_m, block_n, more, block_k = config[:4]
    a_desc, a_turned = operand(task.a, "a", (block_m, block_k))
    b_desc, b_turned = operand(task.b, "b", (block_k, block_n))
    more_desc, _ = operand(task.b, "b", (block_k, more))
    out_m, out_n = task.out.stride()
    out_div, n_div = divisor(task.out)[0], math.gcd(task.n, 16)
    rest, activation = epilogues.arguments(task)
    count = tiles(task, block_m, block_n + more)
    places, residuals = ends(task, block_m, block_n // config.pieces, more)
    task.wrap(matmul_kernel)[(programs(count, 1),)](
        a_desc, b_desc, more_desc, *places, *residuals, task.out,
        task.m, task.n // n_div, task.k, out_m // out_div, out_n, *rest,
        A_TURNED=a_turned, B_TURNED=b_turned, N_DIV=n_div, OUT_DIV=out_div,
        ACC=accumulator(task.a.dtype), **activation,
        BLOCK_M=block_m, BLOCK_N=block_n, MORE=more, BLOCK_K=block_k,
        PIECES=config.pieces, GROUP=config.group,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in tiles of two widths.

    Args:
        a: matrix (m, k) in bfloat16 or float16, such as `described.matmul` takes.
        b: matrix (k, n), likewise, of the same dtype.

    Returns:
        The product (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, elements of another size, a
            matrix that can't be described, or a tensor where this process's kernels
            can't reach it.
    """
    return multiplied(launch, a, b, None)
