"""The gradient along long rows, both tensors in the registers of several programs.

As `cooperative`, with one float to send: a part's share of the sum s. A letter's other
half says that it is one.
"""

import torch
import triton
import triton.language as tl

from tilebook.softmax.arithmetic import wide
from tilebook.softmax.backward import contribution, derived
from tilebook.softmax.caches import policy
from tilebook.softmax.letters import (
    Config,
    all_at_once,
    collected,
    mailbox,
    most_parts,
    opened,
    parts_of,
    share_of,
    together,
)
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    divisor,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import uneven
from tilebook.softmax.words import (
    added,
    body_of,
    ends_of_row,
    fetched,
    unpacked,
    written,
)

BLOCK, MOST = 2048, 8192
"""Elements of a part, at least and at most."""
LETTERS = 32
"""Parts of a row up to which a warp reads all letters in one load."""
PER_THREAD = {2: 16, 4: 8}
"""Elements of each tensor's part for a thread, by the bytes of one."""
WARPS_PER_SM = 24


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        Parts as small as leave a row `LETTERS` of them, or as large as there are, and
        as many programs as make `WARPS_PER_SM`.
    """
    block = BLOCK
    while parts_of(n, block) > min(LETTERS, most_parts()) and block < MOST:
        block *= 2
    warps = block // (32 * PER_THREAD[itemsize])
    return Config(block, warps, max(WARPS_PER_SM // warps, 1))


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one; 0 for none."""
    return 0 if itemsize == 8 else most_parts() * MOST


@triton.jit
def sent(
    y_ptr, grad_ptr, mail_ptr, item, items, y_words, grad_words, n, stride, parts,
    V: tl.constexpr, APART: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """Write an item's letter: its share of the row's s."""
    y = unpacked(y_words, y_ptr.dtype.element_ty)
    grad = unpacked(grad_words, grad_ptr.dtype.element_ty)
    s = added(contribution(y, grad, LOG))
    if APART:
        row = item // parts
        at, outside = ends_of_row(row, item - row * parts, n, n, V)
        grad_at, _ = ends_of_row(row, item - row * parts, n, stride, V)
        outside = outside & (item < items)
        y = wide(tl.load(y_ptr + at, mask=outside, other=0))  # (2V,)
        grad = wide(tl.load(grad_ptr + grad_at, mask=outside, other=0))
        s += tl.sum(contribution(y, grad, LOG), axis=0)
    word = (s.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF) | (1 << 32)
    tl.atomic_xchg(mail_ptr + item, word, mask=item < items, sem="relaxed")


@triton.jit(do_not_specialize=["items", "parts"])
def gradient_kernel(
    y_ptr, grad_ptr, dx_ptr, mail_ptr, items, n, stride, parts, share, inverse_t,
    V: tl.constexpr, APART: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
    LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    DIV: tl.constexpr = 1 if APART else V
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    first, step = tl.program_id(0), tl.num_programs(0)
    y_now = fetched(y_ptr, first, items, n, n, parts, share, 0, V, BLOCK, APART, POLICY)
    grad_now = fetched(
        grad_ptr, first, items, n, stride, parts, share, 0, V, BLOCK, APART, POLICY
    )  # fmt: skip
    y_coming = fetched(
        y_ptr, first + step, items, n, n, parts, share, 0, V, BLOCK, APART, POLICY
    )  # fmt: skip
    grad_coming = fetched(
        grad_ptr, first + step, items, n, stride, parts, share, 0, V, BLOCK, APART,
        POLICY,
    )  # fmt: skip
    sent(
        y_ptr, grad_ptr, mail_ptr, first, items, y_now, grad_now, n, stride, parts,
        V, APART, LOG,
    )  # fmt: skip
    for item in tl.range(first, items, step, num_stages=1):
        # As in `cooperative`: two items ahead on its way, one ahead sends its letter.
        y_later = fetched(
            y_ptr, item + 2 * step, items, n, n, parts, share, 0, V, BLOCK, APART,
            POLICY,
        )  # fmt: skip
        grad_later = fetched(
            grad_ptr, item + 2 * step, items, n, stride, parts, share, 0,
            V, BLOCK, APART, POLICY,
        )  # fmt: skip
        sent(
            y_ptr, grad_ptr, mail_ptr, item + step, items, y_coming, grad_coming,
            n, stride, parts, V, APART, LOG,
        )  # fmt: skip
        row = item // parts
        _, sums = opened(collected(mail_ptr + row * parts, parts, LANES))
        s = tl.sum(sums, axis=0)
        y = unpacked(y_now, y_ptr.dtype.element_ty)
        grad = unpacked(grad_now, grad_ptr.dtype.element_ty)
        dx = derived(y, grad, s, inverse_t, LOG)
        begin, body = body_of(row, n, n, V, APART)
        written(dx_ptr, dx, item, items, n, parts, share, begin, body, V, BLOCK)
        if APART:
            part = item - row * parts
            at, outside = ends_of_row(row, part, n, n, V)
            grad_at, _ = ends_of_row(row, part, n, stride, V)
            y = wide(tl.load(y_ptr + at, mask=outside, other=0))
            grad = wide(tl.load(grad_ptr + grad_at, mask=outside, other=0))
            dx = derived(y, grad, s, inverse_t, LOG)
            tl.store(dx_ptr + at, dx, mask=outside, cache_modifier=".cs")
        y_now, y_coming = y_coming, y_later
        grad_now, grad_coming = grad_coming, grad_later


def launch_as(
    config: Config,
    y: torch.Tensor,
    grad: torch.Tensor,
    dx: torch.Tensor,
    task: Task = PLAIN,
) -> None:
    """Launch the kernel in a way of your own; see `backward.launch_as`."""
    m, n = map(int, y.shape)
    vector = 16 // y.itemsize
    apart = divisor(grad, y, dx) < vector
    div = 1 if apart else vector
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
        V=vector,
        APART=apart,
        LANES=cover(parts),
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(y, grad, dx),
        num_warps=config.num_warps,
        **all_at_once(config),
    )


def refusal(y: torch.Tensor, grad: torch.Tensor, dx: torch.Tensor) -> str | None:
    """Say why rows can't be held by programs that run at the same time.

    Args:
        y: the result (m, n), contiguous.
        grad: what arrives for it (m, n), neighbours in its rows.
        dx: the same shape, contiguous.

    Returns:
        The first reason; None if there is none.
    """
    most = longest(y.itemsize)
    if not y.dtype == grad.dtype == dx.dtype or y.itemsize == 8:
        return f"all must have one dtype of up to 4 bytes, got {y.dtype}, {grad.dtype}"
    if y.shape[1] > most:
        return f"a row must have at most {most} elements, got {y.shape[1]}"
    if not starts_aligned(y) or not starts_aligned(grad):
        return "both must start at a multiple of 16 bytes"
    return None if divisor(grad, y) * y.itemsize == 16 else uneven(grad)
