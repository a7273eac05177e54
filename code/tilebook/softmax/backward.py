"""The gradient of softmax and of its logarithm, along rows.

With y_i = e^(x_i / T) / d the derivative of y_i by x_j is y_i (1 if i = j else 0) / T
less y_i y_j / T. Multiplied with the gradient g that arrives, and summed over i,

    dx_j = y_j (g_j - s) / T,    s = sum of g_i y_i.

No input is needed, and no maximum: the result y has all there is to know. For the
logarithm y_i = x_i / T - log d the derivative is (1 if i = j else 0) / T less
e^(y_j) / T, and so

    dx_j = (g_j - s e^(y_j)) / T,    s = sum of g_i.

Two tensors are read and one is written, 3mn elements: at 3.0 TB/s 134 us for 64 Mi of
bfloat16. `tile_kernel` takes a tile of whole rows, or a row in two halves, both of
which it reads again from L1, where registers don't hold a row that was widened;
`walk_kernel` walks over rows and has the next one on its way; `backward_long` takes
rows of any length.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.softmax.arithmetic import power, single, wide
from tilebook.softmax.caches import policy
from tilebook.softmax.occupancy import REGISTERS, fits, programs
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    check_cover,
    cover,
    divisor,
    row_stride,
)

LARGEST = 64 * 1024
"""Bytes of a row that these kernels take, of each tensor."""
VECTOR = 16
"""Bytes of each tensor in a tile for each of its threads, if warps suffice."""
LEAST_WARPS, MOST_WARPS = 8, 32
"""Of a tile."""


class Config(NamedTuple):
    """How a kernel is launched."""

    rows: int
    """Rows of a tile, a power of two; 1 where programs walk."""
    block: int
    """Columns of the tile, a power of two that covers a row, or a chunk of it."""
    num_warps: int
    """Warps that share it."""
    stages: int
    """Rows on their way in shared memory, and one; 0 for a tile per program."""
    per_sm: int
    """Programs on a multiprocessor where they walk; of a tile 0, as many as fit, or 1,
    so that L1 is left to it."""


def registers(block: int, num_warps: int, itemsize: int) -> int:
    """Estimate what a thread of `walk_kernel` takes; a test holds it to account.

    Args:
        block: elements of the tile.
        num_warps: warps that share it.
        itemsize: bytes of an element.

    Returns:
        Registers: those of both rows in float32, and of what else there is.
    """
    each = max(block // (32 * num_warps), 1)
    used = (6 if itemsize == 8 else 2) * each + 32
    return min(used, 65536 // (32 * num_warps), 255)


def config_for(n: int, itemsize: int = 2, *, stages: int | None = None) -> Config:
    """Choose how to launch.

    Args:
        n: elements of a row, at most what `longest` says.
        itemsize: bytes of one.
        stages: as in `Config`; 0 by default.

    Returns:
        A tile of rows with `VECTOR` bytes of each tensor for a thread, or more where
        all warps there are have more; the halves of longer rows of narrow elements; or
        a walk with sixteen elements a thread.
    """
    block = cover(n)
    if stages:
        num_warps = min(max(block // 512, 1), 16 if itemsize == 8 else 32)
        used = registers(block, num_warps, itemsize)
        shared = 2 * (stages - 1) * block * itemsize
        return Config(1, block, num_warps, stages, fits(num_warps, used, shared))
    share = 32 * VECTOR // itemsize
    if block > MOST_WARPS * share and itemsize < 4:
        # What is read again stays in L1: of two rows at a time, or of a long one.
        return Config(1, block // 2, MOST_WARPS, 0, int(block * itemsize == LARGEST))
    num_warps = min(max(block // share, LEAST_WARPS), MOST_WARPS)
    return Config(max(num_warps * share // block, 1), block, num_warps, 0, 0)


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one."""
    return LARGEST // itemsize


@triton.jit
def contribution(y, grad, LOG: tl.constexpr):
    """What an element adds to the sum s of its row."""
    if LOG:
        return grad
    else:
        return y * grad


@triton.jit
def derived(y, grad, s, inverse_t, LOG: tl.constexpr):
    """The gradient of an element, given its row's s."""
    inverse_t = single(inverse_t)
    if LOG:
        return (grad - power(y, 1.0) * s) * inverse_t
    else:
        return y * (grad - s) * inverse_t


@triton.jit
def loaded(
    y_ptr, grad_ptr, rows, offs, m, n, stride, POLICY: tl.constexpr
):  # fmt: skip
    """Part of both tensors' rows, with a mask of what is there."""
    mask = (rows < m) & (offs < n)
    y = tl.load(
        y_ptr + rows * n + offs, mask=mask, other=0, eviction_policy=POLICY
    )  # fmt: skip
    grad = tl.load(
        grad_ptr + rows * stride + offs, mask=mask, other=0, eviction_policy=POLICY
    )  # fmt: skip
    return wide(y), wide(grad), mask


@triton.jit(do_not_specialize=["m"])
def tile_kernel(
    y_ptr, grad_ptr, dx_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    n, stride = n * DIV, tl.cast(stride, tl.int64) * DIV
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    offs = tl.arange(0, BLOCK)[None, :]
    y, grad, mask = loaded(y_ptr, grad_ptr, rows, offs, m, n, stride, POLICY)
    sums = contribution(y, grad, LOG)  # (ROWS, BLOCK)
    for c in tl.static_range(1, CHUNKS):
        y, grad, mask = loaded(
            y_ptr, grad_ptr, rows, c * BLOCK + offs, m, n, stride, POLICY
        )  # fmt: skip
        sums += contribution(y, grad, LOG)
    s = tl.sum(sums, axis=1)[:, None]  # (ROWS, 1)
    for c in tl.static_range(CHUNKS):
        # What is in several chunks is read again, from L1: registers hold one.
        if CHUNKS > 1:
            y, grad, mask = loaded(
                y_ptr, grad_ptr, rows, c * BLOCK + offs, m, n, stride,
                "evict_first",
            )  # fmt: skip
        dx = derived(y, grad, s, inverse_t, LOG)
        tl.store(dx_ptr + rows * n + c * BLOCK + offs, dx, mask=mask)


@triton.jit(do_not_specialize=["m"])
def walk_kernel(
    y_ptr, grad_ptr, dx_ptr, m, n, stride, inverse_t,
    DIV: tl.constexpr, BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    first = tl.program_id(0).to(tl.int64)
    for row in tl.range(first, m, tl.num_programs(0), num_stages=STAGES):
        y = tl.load(
            y_ptr + row * n + offs, mask=mask, other=0, eviction_policy=POLICY
        )  # (BLOCK,)
        grad = tl.load(
            grad_ptr + row * stride + offs, mask=mask, other=0, eviction_policy=POLICY
        )  # fmt: skip
        y, grad = wide(y), wide(grad)
        s = tl.sum(contribution(y, grad, LOG), axis=0)
        dx = derived(y, grad, s, inverse_t, LOG)
        tl.store(dx_ptr + row * n + offs, dx, mask=mask)


def alone(config: Config) -> dict[str, int]:
    """What a launch says so that one program has a multiprocessor, if it is to.

    Args:
        config: of a tile.

    Returns:
        The compiler's leave to give a thread so many registers that no second program
        fits; nothing where the config doesn't ask for that, or the compiler is AMD's.
    """
    if not config.per_sm or torch.version.hip:
        return {}
    return {"maxnreg": REGISTERS // (32 * config.num_warps * config.per_sm)}


def launch_as(
    config: Config,
    y: torch.Tensor,
    grad: torch.Tensor,
    dx: torch.Tensor,
    task: Task = PLAIN,
    *,
    asking: str | None = None,
) -> None:
    """Launch one of the kernels in a way of your own.

    Args:
        config: the way.
        y: the result (m, n) of softmax or of its logarithm, contiguous, not empty.
        grad: what arrives for it (m, n), neighbours in its rows.
        dx: the same shape, contiguous; receives the gradient of the operand.
        task: what was wanted of the rows.
        asking: the loads' eviction policy; `caches.policy` chooses by default.
    """
    m, n = map(int, y.shape)
    div = divisor(grad, y, dx)
    shared = {
        "DIV": div,
        "BLOCK": config.block,
        "LOG": task.log,
        "POLICY": policy(y, grad, dx) if asking is None else asking,
        "num_warps": config.num_warps,
    }
    sizes = (m, n // div, row_stride(grad) // div, task.inverse_t)
    if config.stages:
        check_cover(config.block, n)
        grid = (programs(m, config.per_sm),)
        task.wrap(walk_kernel)[grid](
            y, grad, dx, *sizes, STAGES=config.stages, **shared
        )
    else:
        grid = (-(-m // config.rows),)
        chunks = -(-n // config.block)
        task.wrap(tile_kernel)[grid](
            y, grad, dx, *sizes, ROWS=config.rows, CHUNKS=chunks, **shared,
            **alone(config),
        )  # fmt: skip
