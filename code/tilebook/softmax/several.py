"""Rung 3, several short rows per program: a tile of rows, each reduced on its own.

A row of 256 bfloat16 is 512 bytes, one load of 16 bytes for each thread of one warp.
With a row per program, few bytes are on their way at a time and a program's start and
end weigh more than its work. A tile of rows gives each thread several loads, and where
a row fits into a warp, reducing it takes no barrier.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.softmax.arithmetic import finished, power, wide
from tilebook.softmax.caches import policy
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    check_cover,
    cover,
    divisor,
    prepared,
    row_stride,
)

LONGEST = 4096
"""Elements of a row from which on a program has enough to do with one."""

# Bytes of a tile for each of its threads: four loads of 16.
PER_THREAD = 64


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    rows: int
    """Rows of a tile, a power of two."""
    block: int
    """Columns of the tile, a power of two that covers a row."""
    num_warps: int
    """Warps that share a tile."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row, at most `LONGEST`.
        itemsize: bytes of one.

    Returns:
        As many rows as give each thread `PER_THREAD` bytes; one warp as long as a row
        isn't longer than what it holds so, then more.
    """
    block = cover(n)
    share = 32 * PER_THREAD // itemsize
    warps = min(max(block // share, 1), 4)
    return Config(max(warps * share // block, 1), block, warps)


@triton.jit(do_not_specialize=["m"])
def softmax_kernel(
    x_ptr, out_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr,
    POLICY: tl.constexpr,
):  # fmt: skip
    n, stride = n * DIV, tl.cast(stride, tl.int64) * DIV
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    offs = tl.arange(0, BLOCK)[None, :]
    mask = (rows < m) & (offs < n)
    x = tl.load(
        x_ptr + rows * stride + offs, mask=mask, other=-float("inf"),
        eviction_policy=POLICY,
    )  # fmt: skip
    x = wide(x)  # (ROWS, BLOCK)
    top = tl.max(x, axis=1)[:, None]  # (ROWS, 1)
    total = tl.sum(power(x - top, inverse_t), axis=1)[:, None]
    y = finished(x, top, total, inverse_t, LOG)
    tl.store(out_ptr + rows * n + offs, y, mask=mask)


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    check_cover(config.block, n)
    div = divisor(x, out)
    task.wrap(softmax_kernel)[(-(-m // config.rows),)](
        x,
        out,
        m,
        n // div,
        row_stride(x) // div,
        task.inverse_t,
        DIV=div,
        ROWS=config.rows,
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(x, out),
        num_warps=config.num_warps,
    )


def refusal(x: torch.Tensor) -> str | None:
    """Say why rows are too long to be taken several at a time.

    Args:
        x: matrix (m, n).

    Returns:
        The reason; None if there is none.
    """
    if x.shape[1] > LONGEST:
        return f"a row must have at most {LONGEST} elements, got {x.shape[1]}"
    return None


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, several rows per program.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, any row stride, n at most
            `LONGEST`.
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, rows that are too long or
            that `config` doesn't cover, or a tensor where this process's kernels can't
            reach it.
    """
    out = prepared(x, refusal)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
