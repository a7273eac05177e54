"""The gradient along rows of any length: two passes over both tensors.

The first goes front to back for the sum, the second back to front for the gradient, as
in `online` and for the same reason. Without any hit in a cache that is 5mn elements
where 3mn are the floor. Up to 26 Ki float32 or 52 Ki bfloat16 a row of both tensors
fits into the L1 cache of a multiprocessor, and the second pass costs memory nothing.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.softmax.arithmetic import wide
from tilebook.softmax.backward import contribution, derived
from tilebook.softmax.occupancy import programs
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    divisor,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import ends_of, uneven


class Config(NamedTuple):
    """How `long_kernel` is launched."""

    block: int
    """Elements of a chunk, a power of two."""
    num_warps: int
    """Warps that share a chunk."""
    per_sm: int = 1
    """Programs, and so rows, on a multiprocessor."""
    keep: bool = True
    """Whether the first pass asks the caches to keep what it reads."""
    drop: bool = True
    """Whether the second asks them to drop it."""


# What rows may take of L1; by the programs on a multiprocessor, the warps of each and
# the bytes of both chunks for a thread.
L1 = 208 * 1024
SHARES = {8: (4, 64), 4: (8, 64), 2: (16, 64), 1: (16, 64)}


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        As many programs on a multiprocessor as it has room in L1 for their rows of
        both tensors, up to eight.
    """
    room = max(L1 // (2 * int(n) * itemsize), 1)
    per_sm, (num_warps, share) = next(s for s in SHARES.items() if s[0] <= room)
    each = share // (2 * itemsize)
    block = min(32 * num_warps * each, max(cover(n), 32 * each))
    return Config(block, block // (32 * each), per_sm)


@triton.jit
def summed(
    y_ptr, grad_ptr, length,
    BLOCK: tl.constexpr, KEEP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Pass one over `length` neighbours of both tensors, a sum for each lane."""
    HINT: tl.constexpr = "evict_last" if KEEP else ""
    offs = tl.arange(0, BLOCK)
    if y_ptr.dtype.element_ty == tl.float64:
        sums = tl.zeros([BLOCK], tl.float64)
    else:
        sums = tl.zeros([BLOCK], tl.float32)
    for i in tl.range(0, length, BLOCK):
        mask = offs < tl.minimum(length - i, BLOCK).to(tl.int32)
        y = tl.load(y_ptr + i + offs, mask=mask, other=0, eviction_policy=HINT)
        grad = tl.load(grad_ptr + i + offs, mask=mask, other=0, eviction_policy=HINT)
        sums += contribution(wide(y), wide(grad), LOG)  # (BLOCK,)
    return tl.sum(sums, axis=0)


@triton.jit
def returned(
    y_ptr, grad_ptr, dx_ptr, length, s, inverse_t,
    BLOCK: tl.constexpr, DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Pass two over the same neighbours, back to front."""
    HINT: tl.constexpr = "evict_first" if DROP else ""
    offs = tl.arange(0, BLOCK)
    last = (length - 1) // BLOCK * BLOCK
    for i in tl.range(0, length, BLOCK):
        at = last - i
        mask = offs < tl.minimum(length - at, BLOCK).to(tl.int32)
        y = tl.load(y_ptr + at + offs, mask=mask, other=0, eviction_policy=HINT)
        grad = tl.load(grad_ptr + at + offs, mask=mask, other=0, eviction_policy=HINT)
        dx = derived(wide(y), wide(grad), s, inverse_t, LOG)  # (BLOCK,)
        tl.store(dx_ptr + at + offs, dx, mask=mask, cache_modifier=".cs")


@triton.jit(do_not_specialize=["m"])
def long_kernel(
    y_ptr, grad_ptr, dx_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
    KEEP: tl.constexpr, DROP: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    for row in tl.range(
        tl.program_id(0).to(tl.int64), m, tl.num_programs(0), num_stages=1
    ):
        start, g_start = row * n, row * stride
        if W == 1:
            s = summed(y_ptr + start, grad_ptr + g_start, n, BLOCK, KEEP, LOG)
            returned(
                y_ptr + start, grad_ptr + g_start, dx_ptr + start, n, s, inverse_t,
                BLOCK, DROP, LOG,
            )  # fmt: skip
        else:
            # The ends of the row go apart, as in `ragged`.
            _, body, at, outside = ends_of(start, n, W)
            first, g_first = (start + W - 1) // W * W, (g_start + W - 1) // W * W
            s = summed(y_ptr + first, grad_ptr + g_first, body, BLOCK, KEEP, LOG)
            y = wide(tl.load(y_ptr + start + at, mask=outside, other=0))  # (2 * W,)
            grad = wide(tl.load(grad_ptr + g_start + at, mask=outside, other=0))
            s += tl.sum(contribution(y, grad, LOG), axis=0)
            dx = derived(y, grad, s, inverse_t, LOG)
            tl.store(dx_ptr + start + at, dx, mask=outside, cache_modifier=".cs")
            returned(
                y_ptr + first, grad_ptr + g_first, dx_ptr + first, body, s, inverse_t,
                BLOCK, DROP, LOG,
            )  # fmt: skip


def launch_as(
    config: Config,
    y: torch.Tensor,
    grad: torch.Tensor,
    dx: torch.Tensor,
    task: Task = PLAIN,
) -> None:
    """Launch `long_kernel` in a way of your own; see `backward.launch_as`."""
    m, n = map(int, y.shape)
    div, vector = divisor(grad, y, dx), 16 // y.itemsize
    same = y.itemsize == grad.itemsize
    apart = div < vector and same and starts_aligned(y) and uneven(grad) is None
    div = 1 if apart else div
    task.wrap(long_kernel)[(programs(m, config.per_sm),)](
        y,
        grad,
        dx,
        m,
        n // div,
        row_stride(grad) // div,
        task.inverse_t,
        DIV=div,
        W=vector if apart else 1,
        BLOCK=config.block,
        KEEP=config.keep,
        DROP=config.drop,
        LOG=task.log,
        num_warps=config.num_warps,
    )
