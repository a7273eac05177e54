"""Rung 4, as many programs as fit: each walks over rows, and asks for one ahead.

A program that takes one row first waits for it, then computes, then stores, and only
with it gone the next may come in its place. With long rows few programs fit on a
multiprocessor, and if all of them compute nothing is on its way. Here a program stays,
and asks for its next row before it computes on the one it has. Two designs do so:

* `softmax_kernel` keeps the next row in registers, in the type that it has in memory;
* `staged_kernel` lets the compiler copy it to shared memory (`num_stages`), past the
  registers, which leaves more of these for programs.

An H100 has some 600 ns of latency to hide and at 3.0 TB/s reads 11 bytes a nanosecond
for each multiprocessor: 7 KiB on their way would do if they came without a gap. Rows
of 8 Ki bfloat16 ask for 16 KiB at a time, and three programs fit.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.softmax import fused
from tilebook.softmax.arithmetic import finished, power, wide
from tilebook.softmax.caches import policy
from tilebook.softmax.occupancy import fits, programs
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    check_cover,
    divisor,
    prepared,
    row_stride,
)

refusal = fused.refusal


class Config(NamedTuple):
    """How the rows are walked."""

    block: int
    """Elements of the tile that covers a row, a power of two."""
    num_warps: int
    """Warps that share a row."""
    stages: int
    """Rows on their way in shared memory, and one; 0 keeps one in registers."""
    per_sm: int
    """Programs on a multiprocessor."""


def registers(block: int, num_warps: int, itemsize: int, stages: int) -> int:
    """Estimate what a thread takes; a test holds it against the compiled kernels.

    Args:
        block: elements of the tile.
        num_warps: warps that share it.
        itemsize: bytes of an element.
        stages: as in `Config`.

    Returns:
        Registers: those of the row in float32, of the row to come as it is, and of
        addresses and what else there is.
    """
    each = max(block // (32 * num_warps), 1)
    if itemsize == 8:
        used = 6 * each + 40
    elif stages:
        used = 3 * each // 2 + 24
    else:
        used = (3 if itemsize == 2 else 4) * each
    return min(max(used, 40), 65536 // (32 * num_warps), 255)


def config_for(n: int, itemsize: int = 2, *, stages: int | None = None) -> Config:
    """Choose how to launch a kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.
        stages: as in `Config`; by default registers hold the next row as long as they
            can.

    Returns:
        Sixteen elements a thread, as `fused`, and as many programs as fit; more
        elements for rows that leave no room for the next one otherwise.
    """
    block, num_warps = fused.config_for(n, itemsize)
    if stages is None:
        stages = 2 if block * itemsize > 2**16 else 0
    used = registers(block, num_warps, itemsize, stages)
    shared = stages and (stages - 1) * block * itemsize
    per_sm = fits(num_warps, used, shared)
    # Of one program after the other, each starts in its own time: what the GPU does in
    # step, all reading and then all computing, falls out of it.
    return Config(block, num_warps, stages, max(per_sm, 2))


@triton.jit(do_not_specialize=["m"])
def softmax_kernel(
    x_ptr, out_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    offs = tl.arange(0, BLOCK)
    inside = offs < n
    first = tl.program_id(0).to(tl.int64)
    # (BLOCK,), as narrow as in memory
    coming = tl.load(
        x_ptr + first * stride + offs, mask=inside, other=-float("inf"),
        eviction_policy=POLICY,
    )  # fmt: skip
    for row in tl.range(first, m, tl.num_programs(0), num_stages=1):
        x = wide(coming)
        # Before anything waits for this row: ask for the next.
        after = row + tl.num_programs(0)
        coming = tl.load(
            x_ptr + after * stride + offs, mask=inside & (after < m),
            other=-float("inf"), eviction_policy=POLICY,
        )  # fmt: skip
        top = tl.max(x, axis=0)
        total = tl.sum(power(x - top, inverse_t), axis=0)
        y = finished(x, top, total, inverse_t, LOG)
        out = out_ptr + row * n + offs
        tl.store(out, y, mask=inside)


@triton.jit(do_not_specialize=["m"])
def staged_kernel(
    x_ptr, out_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    offs = tl.arange(0, BLOCK)
    inside = offs < n
    first = tl.program_id(0).to(tl.int64)
    for row in tl.range(first, m, tl.num_programs(0), num_stages=STAGES):
        x = tl.load(
            x_ptr + row * stride + offs, mask=inside, other=-float("inf"),
            eviction_policy=POLICY,
        )  # fmt: skip
        x = wide(x)  # (BLOCK,)
        top = tl.max(x, axis=0)
        total = tl.sum(power(x - top, inverse_t), axis=0)
        y = finished(x, top, total, inverse_t, LOG)
        out = out_ptr + row * n + offs
        tl.store(out, y, mask=inside)


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch one of the kernels in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    check_cover(config.block, n)
    div = divisor(x, out)
    staged = {"STAGES": config.stages} if config.stages else {}
    task.wrap(staged_kernel if staged else softmax_kernel)[
        (programs(m, config.per_sm),)
    ](
        x,
        out,
        m,
        n // div,
        row_stride(x) // div,
        task.inverse_t,
        DIV=div,
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(x, out),
        num_warps=config.num_warps,
        **staged,
    )


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row with programs that walk over rows.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, any row stride, n at most
            `fused.LARGEST` (a quarter of it for float64).
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
