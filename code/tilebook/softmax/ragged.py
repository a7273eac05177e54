"""Rung 5, rows that start anywhere: the ends of a row apart from its aligned body.

The 4,097 elements of a bfloat16 row take 8,194 bytes, so the next row starts 2 bytes
past a multiple of 16, the one after it 4 bytes past, and no tile of the rungs before
can be loaded otherwise than element by element. But seven of eight elements are in
vectors of 16 bytes all the same, wherever a row starts. The body of these vectors is
one tile, whose start the kernel rounds up where the compiler can see it; at most W - 1
elements before it and W - 1 after it are a second, tiny tile, of which each warp holds
a copy, so that taking it into the maximum and the sum needs no barrier.

This asks that a row and its result start equally far from a multiple of 16 bytes: so it
is with contiguous rows, and with rows of any matrix whose stride exceeds their length
by a multiple of W.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.softmax import fused
from tilebook.softmax.arithmetic import finished, power, wide
from tilebook.softmax.caches import policy
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    check_cover,
    prepared,
    row_stride,
    starts_aligned,
)


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block: int
    """Elements of the tile that covers a row's body, a power of two."""
    num_warps: int
    """Warps that share a row."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        A tile that covers the longest body of such a row, with as many warps as
        `fused` would take.
    """
    vector = 16 // itemsize
    body = n // vector * vector
    return Config(*fused.config_for(max(body, vector), itemsize))


@triton.jit
def ends_of(start, n, W: tl.constexpr):
    """Where a row's ends are, given that it starts at element `start` of memory.

    Returns the elements before its body, those in the body, and for 2W lanes the places
    in the row of what lies outside the body, with a mask.
    """
    head = tl.minimum((W - start % W) % W, n)
    # The compiler knows that W divides what is multiplied by it.
    body = (n - head) // W * W
    lanes = tl.arange(0, 2 * W)
    at = tl.where(lanes < W, lanes, lanes - W + head + body)
    return head, body, at, tl.where(lanes < W, lanes < head, at < n)


@triton.jit
def softmax_kernel(
    x_ptr, out_ptr, n, stride, inverse_t,
    W: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    start, out_start = row * stride, row * n
    _, body, at, outside = ends_of(start, n, W)
    # start + head, in a form in which W divides it for all to see.
    first, out_first = (start + W - 1) // W * W, (out_start + W - 1) // W * W
    offs = tl.arange(0, BLOCK)
    mask = offs < body
    x = tl.load(
        x_ptr + first + offs, mask=mask, other=-float("inf"), eviction_policy=POLICY
    )  # (BLOCK,)
    ends = tl.load(x_ptr + start + at, mask=outside, other=-float("inf"))  # (2 * W,)
    x, ends = wide(x), wide(ends)
    top = tl.maximum(tl.max(x, axis=0), tl.max(ends, axis=0))
    total = tl.sum(power(x - top, inverse_t), axis=0)
    total += tl.sum(power(ends - top, inverse_t), axis=0)
    y = finished(x, top, total, inverse_t, LOG)
    tl.store(out_ptr + out_first + offs, y, mask=mask)
    y_ends = finished(ends, top, total, inverse_t, LOG)
    tl.store(out_ptr + out_start + at, y_ends, mask=outside)


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    vector = 16 // x.itemsize
    check_cover(config.block, n // vector * vector)
    task.wrap(softmax_kernel)[(m,)](
        x,
        out,
        n,
        row_stride(x),
        task.inverse_t,
        W=vector,
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(x, out),
        num_warps=config.num_warps,
    )


def uneven(x: torch.Tensor) -> str | None:
    """Say why a row and its result can't have their bodies in the same place.

    Args:
        x: matrix (m, n).

    Returns:
        The reason; None if there is none.
    """
    vector = 16 // x.itemsize
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    if (row_stride(x) - int(x.shape[1])) % vector:
        return (
            f"its rows must be followed by a multiple of {vector} elements that aren't "
            f"theirs, got rows of {x.shape[1]} that lie {x.stride(0)} apart"
        )
    return None


def refusal(x: torch.Tensor) -> str | None:
    """Say why a matrix's rows can't be taken apart so, or held by one program.

    Args:
        x: matrix (m, n).

    Returns:
        The first reason; None if there is none.
    """
    return fused.refusal(x) or uneven(x)


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, 16 bytes at a time wherever it starts.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, n at most `fused.LARGEST`
            (a quarter of it for float64). It starts at a multiple of 16 bytes, and its
            rows are followed by a multiple of 16 bytes that aren't theirs, or by none.
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, rows that are too long,
            lie otherwise or aren't covered by `config`, or a tensor where this
            process's kernels can't reach it.
    """
    out = prepared(x, refusal)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
