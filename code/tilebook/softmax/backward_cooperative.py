"""The gradient along long rows, both tensors in the registers of several programs.

As `cooperative`, with one float to send: a part's share of the sum s. A letter's other
half says that it is one.
"""

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.softmax.arithmetic import wide
from tilebook.softmax.backward import contribution, derived
from tilebook.softmax.cooperative import (
    Config,
    body_of,
    collected,
    mailbox,
    opened,
    parts_of,
    place_of,
    share_of,
    together,
)
from tilebook.softmax.occupancy import PRETENDED
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    divisor,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import ends_of, uneven

BYTES = 16 * 1024
"""Of a part of each tensor, about."""
PER_THREAD = 32
"""Bytes of a part of each tensor for each thread."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel; see `cooperative.config_for`."""
    block = BYTES // itemsize
    while parts_of(n, block) > _most_parts() and block * itemsize < 2 * BYTES:
        block *= 2
    warps = min(block * itemsize // (32 * PER_THREAD), 32)
    return Config(block, warps, max(1, 32 // warps))


def _most_parts() -> int:
    return device.current().sms or PRETENDED


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one; 0 for none."""
    return 0 if itemsize == 8 else _most_parts() * 2 * BYTES // itemsize


@triton.jit
def fetched(
    x_ptr, item, items, n, stride, parts, share,
    W: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Ask for an item of one tensor: (BLOCK,), and its row's ends (2W,)."""
    row = (item // parts).to(tl.int64)
    start = row * stride
    first, body = body_of(start, n, W)
    _, part, skip, left = place_of(item, items, parts, body, share, VECTOR)
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + first + skip + offs, mask=offs < left, other=0)
    if W == 1:
        ends = 0.0
    else:
        # The ends of the row go apart, as in `ragged`, to its first part.
        _, _, at, outside = ends_of(start, n, W)
        outside = outside & (part == 0) & (item < items)
        ends = tl.load(x_ptr + start + at, mask=outside, other=0)
    return x, ends


@triton.jit
def sent(
    mail_ptr, item, items, y, grad, y_ends, grad_ends,
    W: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Write an item's letter: its share of the row's s."""
    s = tl.sum(contribution(wide(y), wide(grad), LOG), axis=0)
    if W > 1:
        s += tl.sum(contribution(wide(y_ends), wide(grad_ends), LOG), axis=0)
    word = (s.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF) | (1 << 32)
    tl.atomic_xchg(mail_ptr + item, word, mask=item < items, sem="relaxed")


@triton.jit(do_not_specialize=["items", "parts"])
def gradient_kernel(
    y_ptr, grad_ptr, dx_ptr, mail_ptr, items, n, stride, parts, share, inverse_t,
    DIV: tl.constexpr, W: tl.constexpr, VECTOR: tl.constexpr, LANES: tl.constexpr,
    BLOCK: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    first, step = tl.program_id(0), tl.num_programs(0)
    offs = tl.arange(0, BLOCK)
    y, y_ends = fetched(y_ptr, first, items, n, n, parts, share, W, VECTOR, BLOCK)
    grad, grad_ends = fetched(
        grad_ptr, first, items, n, stride, parts, share, W, VECTOR, BLOCK
    )  # fmt: skip
    y_1, y_ends_1 = fetched(
        y_ptr, first + step, items, n, n, parts, share, W, VECTOR, BLOCK
    )  # fmt: skip
    grad_1, grad_ends_1 = fetched(
        grad_ptr, first + step, items, n, stride, parts, share, W, VECTOR, BLOCK
    )  # fmt: skip
    sent(mail_ptr, first, items, y, grad, y_ends, grad_ends, W, LOG)
    for item in tl.range(first, items, step, num_stages=1):
        # As in `cooperative`: two items ahead on its way, one ahead sends its letter.
        y_2, y_ends_2 = fetched(
            y_ptr, item + 2 * step, items, n, n, parts, share, W, VECTOR, BLOCK
        )  # fmt: skip
        grad_2, grad_ends_2 = fetched(
            grad_ptr, item + 2 * step, items, n, stride, parts, share, W, VECTOR, BLOCK
        )  # fmt: skip
        sent(mail_ptr, item + step, items, y_1, grad_1, y_ends_1, grad_ends_1, W, LOG)
        row = item // parts
        _, sums = opened(collected(mail_ptr + row * parts, parts, LANES))
        s = tl.sum(sums, axis=0)
        start = row.to(tl.int64) * n
        begin, body = body_of(start, n, W)
        _, part, skip, left = place_of(item, items, parts, body, share, VECTOR)
        dx = derived(wide(y), wide(grad), s, inverse_t, LOG)
        tl.store(
            dx_ptr + begin + skip + offs, dx, mask=offs < left, cache_modifier=".cs"
        )
        if W > 1:
            _, _, at, outside = ends_of(start, n, W)
            dx = derived(wide(y_ends), wide(grad_ends), s, inverse_t, LOG)
            tl.store(
                dx_ptr + start + at, dx, mask=outside & (part == 0),
                cache_modifier=".cs",
            )  # fmt: skip
        y, grad, y_ends, grad_ends = y_1, grad_1, y_ends_1, grad_ends_1
        y_1, grad_1, y_ends_1, grad_ends_1 = y_2, grad_2, y_ends_2, grad_ends_2


def launch_as(
    config: Config,
    y: torch.Tensor,
    grad: torch.Tensor,
    dx: torch.Tensor,
    task: Task = PLAIN,
) -> None:
    """Launch the kernel in a way of your own; see `backward.launch_as`."""
    m, n = map(int, y.shape)
    div, vector = divisor(grad, y, dx), 16 // y.itemsize
    same = y.itemsize == grad.itemsize
    apart = div < vector and same and starts_aligned(y) and uneven(grad) is None
    div = 1 if apart else div
    parts = parts_of(n, config.block)
    task.wrap(gradient_kernel)[(together(m, parts, config.per_sm),)](
        y,
        grad,
        dx,
        mailbox(m, parts, y),
        m * parts,
        n // div,
        row_stride(grad) // div,
        parts,
        share_of(n, parts, vector),
        task.inverse_t,
        DIV=div,
        W=vector if apart else 1,
        VECTOR=vector,
        LANES=cover(parts),
        BLOCK=config.block,
        LOG=task.log,
        num_warps=config.num_warps,
        launch_cooperative_grid=True,
    )
