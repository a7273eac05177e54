"""The gradient over a dimension that isn't the last: see `columns`, and `backward`."""

import torch
import triton
import triton.language as tl

from tilebook.softmax import columns
from tilebook.softmax.arithmetic import wide
from tilebook.softmax.backward import contribution, derived
from tilebook.softmax.columns import Config
from tilebook.softmax.operands import PLAIN, Task, cover


def config_for(n: int, inner: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel; see `columns.config_for`.

    Args:
        n: elements of a column.
        inner: columns side by side.
        itemsize: bytes of an element.

    Returns:
        Tiles that walk along columns, smaller for float64.
    """
    most = columns.PASSING // max(itemsize // 4, 1)
    cols = min(columns.LINE // itemsize, cover(inner))
    block_n = min(cover(n), most // cols)
    return Config(block_n, cols, max(1, block_n * cols // columns.PER_WARP))


@triton.jit
def gradient_kernel(
    y_ptr, grad_ptr, dx_ptr, n, inner, inverse_t,
    DIV: tl.constexpr, BLOCK_N: tl.constexpr, COLS: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, inner = tl.cast(n, tl.int64), tl.cast(inner, tl.int64) * DIV
    tiles = tl.cdiv(inner, COLS)
    pid = tl.program_id(0).to(tl.int64)
    start = pid // tiles * n * inner
    offs_i = pid % tiles * COLS + tl.arange(0, COLS)[None, :]
    offs_n = tl.arange(0, BLOCK_N)[:, None]
    at = start + offs_n * inner + offs_i
    if y_ptr.dtype.element_ty == tl.float64:
        sums = tl.zeros([BLOCK_N, COLS], tl.float64)
    else:
        sums = tl.zeros([BLOCK_N, COLS], tl.float32)
    for i in tl.range(0, n, BLOCK_N):
        mask = (offs_n < n - i) & (offs_i < inner)
        y = wide(tl.load(y_ptr + at + i * inner, mask=mask, other=0))
        grad = wide(tl.load(grad_ptr + at + i * inner, mask=mask, other=0))
        sums += contribution(y, grad, LOG)  # (BLOCK_N, COLS)
    s = tl.sum(sums, axis=0)[None, :]  # (1, COLS)
    last = (n - 1) // BLOCK_N * BLOCK_N
    for j in tl.range(0, n, BLOCK_N):
        i = last - j
        mask = (offs_n < n - i) & (offs_i < inner)
        y = wide(tl.load(y_ptr + at + i * inner, mask=mask, other=0))
        grad = wide(tl.load(grad_ptr + at + i * inner, mask=mask, other=0))
        dx = derived(y, grad, s, inverse_t, LOG)
        tl.store(dx_ptr + at + i * inner, dx, mask=mask, cache_modifier=".cs")


def launch_as(
    config: Config,
    y: torch.Tensor,
    grad: torch.Tensor,
    dx: torch.Tensor,
    task: Task = PLAIN,
) -> None:
    """Launch `gradient_kernel` in a way of your own.

    Args:
        config: the way.
        y: the result (outer, n, inner), contiguous, not empty.
        grad: what arrives for it, contiguous.
        dx: the same shape, contiguous; receives the gradient of the operand.
        task: what was wanted.
    """
    outer, n, inner = map(int, y.shape)
    tiles = -(-inner // config.cols)
    fit = columns.MOST_PROGRAMS // tiles
    if outer > fit:
        for start in range(0, outer, fit):
            part = slice(start, start + fit)
            launch_as(config, y[part], grad[part], dx[part], task)
        return
    div = min(columns.divisor(y), columns.divisor(grad))
    task.wrap(gradient_kernel)[(outer * tiles,)](
        y,
        grad,
        dx,
        n,
        inner // div,
        task.inverse_t,
        DIV=div,
        BLOCK_N=config.block_n,
        COLS=config.cols,
        LOG=task.log,
        num_warps=config.num_warps,
    )
