"""Rung 2, a row per program: what is read once stays in registers until it is written.

The traffic is the floor, 2mn elements: at 3.0 TB/s 89 us for 64 Mi of bfloat16. A row
has to fit into one program's registers, which bounds its length.
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

LARGEST = 32768
"""Elements of a row that one program's registers hold."""

# Elements that a thread holds. More would spill before `LARGEST`, fewer would leave a
# thread with less than two loads of 16 bytes on their way.
PER_THREAD = 16


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block: int
    """Elements of the tile that covers a row, a power of two."""
    num_warps: int
    """Warps that share a row."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        A tile that covers the row, and a warp for each 512 of its elements, up to the
        32 that a program can have.
    """
    block = cover(n)
    warps = block // (32 * PER_THREAD)
    return Config(block, min(max(warps, 1), 16 if itemsize == 8 else 32))


@triton.jit
def softmax_kernel(
    x_ptr, out_ptr, n, stride, inverse_t,
    DIV: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    n, stride = n * DIV, tl.cast(stride, tl.int64) * DIV
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    # The power of -inf is 0: what lies past the row's end adds nothing.
    x = tl.load(
        x_ptr + row * stride + offs, mask=mask, other=-float("inf"),
        eviction_policy=POLICY,
    )  # fmt: skip
    x = wide(x)  # (BLOCK,)
    top = tl.max(x, axis=0)
    total = tl.sum(power(x - top, inverse_t), axis=0)
    y = finished(x, top, total, inverse_t, LOG)
    tl.store(out_ptr + row * n + offs, y, mask=mask)


def launch_as(
    config: Config,
    x: torch.Tensor,
    out: torch.Tensor,
    task: Task = PLAIN,
    *,
    asking: str | None = None,
) -> None:
    """Launch the kernel in a way of your own.

    Args:
        config: the way.
        x: matrix (m, n), not empty, neighbours in its rows.
        out: the same shape, contiguous; receives the result.
        task: what is wanted besides.
        asking: the loads' eviction policy; `caches.policy` chooses by default.
    """
    m, n = map(int, x.shape)
    check_cover(config.block, n)
    div = divisor(x, out)
    task.wrap(softmax_kernel)[(m,)](
        x,
        out,
        n // div,
        row_stride(x) // div,
        task.inverse_t,
        DIV=div,
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(x, out) if asking is None else asking,
        num_warps=config.num_warps,
    )


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one."""
    return LARGEST // 4 if itemsize == 8 else LARGEST


def refusal(x: torch.Tensor) -> str | None:
    """Say why a row of a matrix is too long to be held by one program.

    Args:
        x: matrix (m, n).

    Returns:
        The reason; None if there is none.
    """
    most = longest(x.itemsize)
    if x.shape[1] > most:
        return f"a row must have at most {most} elements, got {x.shape[1]}"
    return None


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, a row per program.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, any row stride, n at most
            `LARGEST` (a quarter of it for float64).
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, rows that are too long or
            that `config` doesn't cover, or a tensor where this process's kernels can't
            reach it.

    Notes:
        Computed in float32 and rounded once. `accuracy` has the bound.
    """
    out = prepared(x, refusal)
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
