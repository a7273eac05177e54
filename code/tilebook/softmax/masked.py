"""Beside the ladder: rows of which parts are left out, by a mask or as in attention.

What is left out counts as -inf, whatever stands there, NaN included. A causal row i has
its first i + 1 elements only: the others aren't read, and their result is written
without having been computed. Masks are broadcast by their strides: one of a single row,
or of a single head, is read where it is and never expanded in memory.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.softmax.arithmetic import begin, finished, power, settle, step, wide
from tilebook.softmax.operands import PLAIN, Task, cover, starts_aligned


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block: int
    """Elements of a chunk, a power of two; the whole row if that is no longer."""
    num_warps: int
    """Warps that share a chunk."""


WHOLE = 16384
"""Elements of a row that one program's registers hold besides its mask."""
CHUNK = 8192
PER_THREAD = 16
OUTER = 3
"""Dimensions of rows that the kernel tells apart."""
MOST_PROGRAMS = 2**31 - 1


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        A tile that covers the row, or chunks of `CHUNK`; sixteen elements a thread.
    """
    block = cover(n) if n <= WHOLE // max(itemsize // 4, 1) else CHUNK // 2
    return Config(block, max(1, min(32, block // (32 * PER_THREAD))))


@triton.jit
def kept(
    x_ptr, mask_ptr, offs, length, fetched, stride_x, stride_m, MASK: tl.constexpr
):
    """Load a chunk in which what is left out is -inf."""
    stride_x, stride_m = tl.cast(stride_x, tl.int64), tl.cast(stride_m, tl.int64)
    # Whole vectors, if the row is made of them, and then the exact end.
    x = wide(tl.load(x_ptr + offs * stride_x, mask=offs < fetched, other=-float("inf")))
    keep = offs < length
    if MASK:
        chosen = tl.load(mask_ptr + offs * stride_m, mask=offs < fetched, other=0)
        keep = keep & (chosen != 0)
    return tl.where(keep, x, -float("inf"))


@triton.jit
def softmax_kernel(
    x_ptr, mask_ptr, out_ptr, n, size_1, size_2,
    x_0, x_1, x_2, x_n, m_0, m_1, m_2, m_n, inverse_t,
    DIV: tl.constexpr, DIV_M: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, ONCE: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n = tl.cast(n, tl.int64) * DIV
    row = tl.program_id(0).to(tl.int64)
    # The row's place in each of three dimensions; n is the fourth.
    i_0, i_1, i_2 = row // size_2 // size_1, row // size_2 % size_1, row % size_2
    x_ptr += (i_0 * x_0 + i_1 * x_1 + i_2 * x_2) * DIV
    if MASK:
        mask_ptr += (i_0 * m_0 + i_1 * m_1 + i_2 * m_2) * DIV_M
    out_ptr += row * n
    length = n
    if CAUSAL:
        length = tl.minimum(i_2 + 1, n)
    fetched = tl.cdiv(length, DIV) * DIV
    offs = tl.arange(0, BLOCK)
    if ONCE:
        x = kept(x_ptr, mask_ptr, offs, length, fetched, x_n, m_n, MASK)  # (BLOCK,)
        top = tl.max(x, axis=0)
        total = tl.sum(power(x - top, inverse_t), axis=0)
        y = finished(x, top, total, inverse_t, LOG)
        tl.store(out_ptr + offs, y, mask=offs < n, cache_modifier=".cs")
    else:
        top, total = begin(x_ptr, [BLOCK])
        for i in tl.range(0, fetched, BLOCK):
            x = kept(x_ptr, mask_ptr, i + offs, length, fetched, x_n, m_n, MASK)
            top, total = step(top, total, x, inverse_t)
        best, d = settle(top, total, inverse_t)
        last = (n - 1) // BLOCK * BLOCK
        for j in tl.range(0, n, BLOCK):
            at = last - j + offs
            x = kept(x_ptr, mask_ptr, at, length, fetched, x_n, m_n, MASK)
            y = finished(x, best, d, inverse_t, LOG)
            tl.store(out_ptr + at, y, mask=at < n, cache_modifier=".cs")


def outer_dimensions(
    x: torch.Tensor, mask: torch.Tensor | None, causal: bool
) -> list[tuple[int, int, int]]:
    """Merge the dimensions of rows into as few as their strides allow.

    Args:
        x: tensor (..., n).
        mask: of the same shape, expanded, or None.
        causal: whether the dimension before the last must stay one of its own.

    Returns:
        Size, stride of `x` and stride of `mask` of each, without those of one element.
    """
    steps = mask.stride() if mask is not None else [0] * x.ndim
    merged: list[tuple[int, int, int]] = []
    sizes = zip(x.shape[:-1], x.stride(), steps, strict=False)
    for i, (size, x_step, m_step) in enumerate(sizes):
        alone = causal and i == x.ndim - 2
        if size == 1 and not alone:
            continue
        if merged and not alone:
            before, x_before, m_before = merged[-1]
            if (x_before, m_before) == (x_step * size, m_step * size):
                merged[-1] = (before * size, x_step, m_step)
                continue
        merged.append((int(size), int(x_step), int(m_step)))
    return merged


def launch_as(
    config: Config,
    x: torch.Tensor,
    mask: torch.Tensor | None,
    out: torch.Tensor,
    causal: bool,
    task: Task = PLAIN,
) -> None:
    """Launch the kernel in a way of your own.

    Args:
        config: the way.
        x: tensor (..., n), any strides, not empty.
        mask: bool of the same shape, expanded; True is kept. None keeps all.
        out: of the same shape, contiguous; receives the result.
        causal: whether row i of the dimension before the last keeps its first i + 1.
        task: what is wanted besides.
    """
    if x.numel() // x.shape[-1] > MOST_PROGRAMS:
        _launch_halves(config, x, mask, out, causal, task)
        return
    outer = outer_dimensions(x, mask, causal)
    if len(outer) > OUTER:
        x, mask = x.contiguous(), None if mask is None else mask.contiguous()
        outer = outer_dimensions(x, mask, causal)
    outer = [(1, 0, 0)] * (OUTER - len(outer)) + outer
    sizes, x_steps, m_steps = zip(*outer, strict=True)
    n = int(x.shape[-1])
    x_n = int(x.stride(-1)) if n > 1 else 1
    div = math.gcd(n, 16 // x.itemsize, *x_steps) if x_n == 1 else 1
    div = div if starts_aligned(x) else 1
    m_n = int(mask.stride(-1)) if mask is not None and n > 1 else 1
    div_m = math.gcd(div, *m_steps) if m_n == 1 else 1
    task.wrap(softmax_kernel)[(math.prod(sizes),)](
        x,
        x if mask is None else mask.view(torch.uint8),
        out,
        n // div,
        *sizes[1:],
        *(step // div for step in x_steps),
        x_n,
        *(step // div_m for step in m_steps),
        m_n,
        task.inverse_t,
        DIV=div,
        DIV_M=div_m,
        MASK=mask is not None,
        CAUSAL=causal,
        BLOCK=config.block,
        ONCE=config.block >= n,
        LOG=task.log,
        num_warps=config.num_warps,
    )


def _launch_halves(
    config: Config,
    x: torch.Tensor,
    mask: torch.Tensor | None,
    out: torch.Tensor,
    causal: bool,
    task: Task,
) -> None:
    """Launch for more rows than there may be programs: one half after the other."""
    n = x.shape[-1]
    dim = next(i for i, size in enumerate(x.shape) if size > 1)
    # Of causal rows the first n are special, and those behind them are whole.
    alone = causal and dim == x.ndim - 2
    first = max(x.shape[dim] // 2, n if alone else 0)
    for start, size in ((0, first), (first, x.shape[dim] - first)):
        part, place = x.narrow(dim, start, size), out.narrow(dim, start, size)
        keep = None if mask is None else mask.narrow(dim, start, size)
        launch_as(config, part, keep, place, causal and not (alone and start), task)
