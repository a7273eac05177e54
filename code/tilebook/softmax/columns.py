"""Beside the ladder: a softmax over a dimension that isn't the last.

Along such a dimension the elements of a row lie far apart, but those of neighbouring
rows lie side by side. A tile (BLOCK_N, COLS) reads whole stretches of them and reduces
along its first side. Where a column is longer than the tile there are two passes, as in
`online`, and each element of the tile keeps a maximum and a sum of its own.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax.arithmetic import begin, finished, power, step, wide
from tilebook.softmax.operands import DTYPES, PLAIN, Task, cover, starts_aligned


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block_n: int
    """Elements of a column in a tile, a power of two."""
    cols: int
    """Columns of the tile, a power of two."""
    num_warps: int
    """Warps that share a tile."""


WHOLE = 8192
"""Elements of a tile that holds whole columns, at most."""
PASSING = 4096
"""Elements of a tile that walks along them."""
PER_WARP = 512
"""Elements of a tile for each warp."""
LINE = 128
"""Bytes side by side that are worth a tile's width."""
SECTOR = 32
"""Bytes side by side below which memory moves what nobody asked for."""
MOST_PROGRAMS = 2**31 - 1


def config_for(n: int, inner: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a column.
        inner: columns side by side.
        itemsize: bytes of an element.

    Returns:
        Tiles of whole columns, `LINE` wide or down to `SECTOR` if they are long; tiles
        `LINE` wide that walk along columns longer than that.
    """
    most = cover(inner)
    block_n, cols = cover(n), min(LINE // itemsize, most)
    while block_n * cols > WHOLE and cols > SECTOR // itemsize:
        cols //= 2
    if block_n * cols > WHOLE:
        cols = min(LINE // itemsize, most)
        block_n = PASSING // cols
    return Config(block_n, cols, max(1, block_n * cols // PER_WARP))


@triton.jit
def softmax_kernel(
    x_ptr, out_ptr, n, inner, stride_o, stride_n, stride_i, inverse_t,
    DIV: tl.constexpr, BLOCK_N: tl.constexpr, COLS: tl.constexpr,
    ONCE: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, inner = tl.cast(n, tl.int64), tl.cast(inner, tl.int64) * DIV
    stride_o = tl.cast(stride_o, tl.int64) * DIV
    stride_n = tl.cast(stride_n, tl.int64) * DIV
    tiles = tl.cdiv(inner, COLS)
    pid = tl.program_id(0).to(tl.int64)
    x_ptr += pid // tiles * stride_o
    out_ptr += pid // tiles * n * inner
    offs_i = pid % tiles * COLS + tl.arange(0, COLS)[None, :]
    offs_n = tl.arange(0, BLOCK_N)[:, None]
    if ONCE:
        mask = (offs_n < n) & (offs_i < inner)
        x = tl.load(
            x_ptr + offs_n * stride_n + offs_i * stride_i,
            mask=mask, other=-float("inf"),
        )  # (BLOCK_N, COLS)  # fmt: skip
        x = wide(x)
        top = tl.max(x, axis=0)[None, :]  # (1, COLS)
        total = tl.sum(power(x - top, inverse_t), axis=0)[None, :]
        y = finished(x, top, total, inverse_t, LOG)
        tl.store(out_ptr + offs_n * inner + offs_i, y, mask=mask, cache_modifier=".cs")
    else:
        tops, totals = begin(x_ptr, [BLOCK_N, COLS])
        for i in tl.range(0, n, BLOCK_N):
            mask = (offs_n < n - i) & (offs_i < inner)
            x = tl.load(
                x_ptr + (i + offs_n) * stride_n + offs_i * stride_i,
                mask=mask, other=-float("inf"), eviction_policy="evict_last",
            )  # (BLOCK_N, COLS)  # fmt: skip
            tops, totals = step(tops, totals, wide(x), inverse_t)
        top = tl.max(tops, axis=0)[None, :]  # (1, COLS)
        total = tl.sum(totals * power(tops - top, inverse_t), axis=0)[None, :]
        last = (n - 1) // BLOCK_N * BLOCK_N
        for j in tl.range(0, n, BLOCK_N):
            i = last - j
            mask = (offs_n < n - i) & (offs_i < inner)
            x = tl.load(
                x_ptr + (i + offs_n) * stride_n + offs_i * stride_i,
                mask=mask, other=0, eviction_policy="evict_first",
            )  # (BLOCK_N, COLS)  # fmt: skip
            y = finished(wide(x), top, total, inverse_t, LOG)
            tl.store(
                out_ptr + (i + offs_n) * inner + offs_i, y,
                mask=mask, cache_modifier=".cs",
            )  # fmt: skip


def divisor(x: torch.Tensor) -> int:
    """What divides where each stretch of neighbours starts, and its length.

    Args:
        x: tensor (outer, n, inner), not empty.

    Returns:
        A power of two, at most the elements that 16 bytes hold; 1 unless columns are
        side by side.
    """
    outer, n, inner = map(int, x.shape)
    strides = list(map(int, x.stride()))
    if inner > 1 and strides[2] != 1:
        return 1
    div = 16 // x.itemsize
    needed = [inner] + [strides[0]] * (outer > 1) + [strides[1]] * (n > 1)
    while any(number % div for number in needed):
        div //= 2
    return div if starts_aligned(x) else 1


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own.

    Args:
        config: the way.
        x: tensor (outer, n, inner), any strides, not empty.
        out: the same shape, contiguous; receives the result.
        task: what is wanted besides.
    """
    outer, n, inner = map(int, x.shape)
    tiles = -(-inner // config.cols)
    fit = MOST_PROGRAMS // tiles
    if outer > fit:
        for start in range(0, outer, fit):
            part = slice(start, start + fit)
            launch_as(config, x[part], out[part], task)
        return
    div = divisor(x)
    stride_o, stride_n, stride_i = map(int, x.stride())
    # Of a dimension of one element no stride counts.
    task.wrap(softmax_kernel)[(outer * tiles,)](
        x,
        out,
        n,
        inner // div,
        (stride_o if outer > 1 else 0) // div,
        (stride_n if n > 1 else 0) // div,
        stride_i if inner > 1 else 1,
        task.inverse_t,
        DIV=div,
        BLOCK_N=config.block_n,
        COLS=config.cols,
        ONCE=config.block_n >= n,
        LOG=task.log,
        num_warps=config.num_warps,
    )


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax over the middle one of three dimensions.

    Args:
        x: tensor (outer, n, inner) of a type in `operands.DTYPES`, any strides.
        config: how to launch; `config_for` chooses by default.

    Returns:
        `x.softmax(1)`, contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: another number of dimensions, or a tensor where this process's
            kernels can't reach it.
    """
    check.tensor(x, "x", dtype=DTYPES, ndim=3)
    # A kernel reads what lies in memory.
    x = check.runs_here(x, "x").resolve_neg()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(*x.shape[1:], x.itemsize), x, out)
    return out
