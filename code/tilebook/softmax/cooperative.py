"""Rung 9, a row in the registers of several programs, which wait for one another.

What one multiprocessor can't hold, several can: a row is cut into parts, and a program
keeps its part in registers, as `fused` keeps a row. It sends the part's maximum and
sum to the others of its row, waits for theirs, merges them all in the order of the
parts, and writes. One launch, the floor of traffic, and the same bits every time.

Waiting takes as long as two trips to L2 and the latest of the programs. So programs
stay, walk over parts, and send the letter of a part a turn before they finish it, while
one more part is on its way. When they look for letters, these have long been there.

Two floats in one word of 64 bits are a letter: it is there whole or not at all, so that
no fence has to order anything. A word of zeros is no letter yet, since a sum is zero
only where the maximum is the lowest number.

Who waits must be sure that whom it waits for is running: all programs are launched
together or not at all (a cooperative launch), there are at least as many as a row has
parts, and each takes its parts in order and sends a part's letter before it waits for
those of the part's row. So the first unfinished row is never waited for in vain:
whoever has a part of it waits for no later row. One at a time, as an interpreter runs
programs, they would wait for ever.
"""

import torch
import triton
import triton.language as tl

from tilebook import device, library
from tilebook.softmax.arithmetic import LOWEST, finished, power, settle, wide
from tilebook.softmax.caches import policy
from tilebook.softmax.letters import (
    Config,
    all_at_once,
    collected,
    letter,
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
    prepared,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import uneven
from tilebook.softmax.words import (
    MINUS_INFINITY,
    added,
    body_of,
    ends_of_row,
    fetched,
    largest,
    unpacked,
    written,
)

BYTES = 16 * 1024
"""Of a part, at most."""
PER_THREAD = 16
"""Elements of a part for each thread."""
PER_SM = 2
"""Programs on a multiprocessor."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        Parts of `BYTES`, or of less where that covers the row, with `PER_THREAD`
        elements a thread.
    """
    block = min(BYTES // itemsize, max(cover(n), 32 * PER_THREAD))
    return Config(block, block // (32 * PER_THREAD), PER_SM)


@triton.jit
def sent(
    x_ptr, mail_ptr, item, items, words, n, stride, parts, inverse_t,
    V: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """Write an item's letter: its maximum and its sum."""
    x = unpacked(words, x_ptr.dtype.element_ty)
    top = tl.maximum(largest(x), LOWEST)
    if APART:
        row = item // parts
        at, outside = ends_of_row(row, item - row * parts, n, stride, V)
        outside = outside & (item < items)
        ends = wide(tl.load(x_ptr + at, mask=outside, other=-float("inf")))  # (2V,)
        top = tl.maximum(top, tl.max(ends, axis=0))
    total = added(power(x - top, inverse_t))
    if APART:
        total += tl.sum(power(ends - top, inverse_t), axis=0)
    tl.atomic_xchg(
        mail_ptr + item, letter(top, total), mask=item < items, sem="relaxed"
    )


@triton.jit(do_not_specialize=["items", "parts"])
def softmax_kernel(
    x_ptr, out_ptr, mail_ptr, items, n, stride, parts, share, inverse_t,
    NONE: tl.constexpr, V: tl.constexpr, APART: tl.constexpr, LANES: tl.constexpr,
    BLOCK: tl.constexpr, LOG: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    DIV: tl.constexpr = 1 if APART else V
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    first, step = tl.program_id(0), tl.num_programs(0)
    now = fetched(
        x_ptr, first, items, n, stride, parts, share, NONE, V, BLOCK, APART, POLICY
    )  # fmt: skip
    coming = fetched(
        x_ptr, first + step, items, n, stride, parts, share, NONE, V, BLOCK, APART,
        POLICY,
    )  # fmt: skip
    sent(x_ptr, mail_ptr, first, items, now, n, stride, parts, inverse_t, V, APART)
    for item in tl.range(first, items, step, num_stages=1):
        # Two items ahead: on its way. One ahead: here, its letter goes off. This one's
        # letters went off a turn ago, from all of its row.
        later = fetched(
            x_ptr, item + 2 * step, items, n, stride, parts, share,
            NONE, V, BLOCK, APART, POLICY,
        )  # fmt: skip
        sent(
            x_ptr, mail_ptr, item + step, items, coming, n, stride, parts, inverse_t,
            V, APART,
        )  # fmt: skip
        row = item // parts
        words = collected(mail_ptr + row * parts, parts, LANES)
        tops, totals = opened(words)
        best, d = settle(tl.where(words == 0, LOWEST, tops), totals, inverse_t)
        x = unpacked(now, x_ptr.dtype.element_ty)
        y = finished(x, best, d, inverse_t, LOG)
        _, body = body_of(row, n, stride, V, APART)
        out_first, _ = body_of(row, n, n, V, APART)
        written(out_ptr, y, item, items, n, parts, share, out_first, body, V, BLOCK)
        if APART:
            part = item - row * parts
            at, outside = ends_of_row(row, part, n, stride, V)
            ends = wide(tl.load(x_ptr + at, mask=outside, other=0))
            at, _ = ends_of_row(row, part, n, n, V)
            y_ends = finished(ends, best, d, inverse_t, LOG)
            tl.store(out_ptr + at, y_ends, mask=outside, cache_modifier=".cs")
        now, coming = coming, later


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    vector = 16 // x.itemsize
    apart = divisor(x, out) < vector
    div = 1 if apart else vector
    parts = parts_of(n, config.block)
    task.wrap(softmax_kernel)[(together(m, parts, config.per_sm),)](
        x,
        out,
        mailbox(m, parts, x),
        m * parts,
        n // div,
        row_stride(x) // div,
        parts,
        share_of(n, parts, vector),
        task.inverse_t,
        NONE=MINUS_INFINITY[x.dtype],
        V=vector,
        APART=apart,
        LANES=cover(parts),
        BLOCK=config.block,
        LOG=task.log,
        POLICY=policy(x, out),
        num_warps=config.num_warps,
        **all_at_once(config),
    )


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one."""
    return most_parts() * BYTES // itemsize


def refusal(x: torch.Tensor) -> str | None:
    """Say why a matrix's rows can't be held by programs that run at the same time.

    Args:
        x: matrix (m, n).

    Returns:
        The first reason; None if there is none.
    """
    most = longest(x.itemsize)
    if x.itemsize == 8:
        return "its elements must be of up to 4 bytes, got 8"
    if x.shape[1] > most:
        return f"a row must have at most {most} elements, got {x.shape[1]}"
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    return None if divisor(x) * x.itemsize == 16 else uneven(x)


def softmax(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Compute the softmax of each row, held in the registers of several programs.

    Args:
        x: matrix (m, n) of float32, bfloat16 or float16, any row stride, n at most
            what `longest` says.
        config: how to launch; `config_for` chooses by default.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        HardwareError: there is no NVIDIA GPU of compute capability 8.0 or more; an
            interpreter runs one program after the other, and they would wait for ever.
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, rows that are too long,
            or a tensor where this process's kernels can't reach it.

    Notes:
        Takes 8 bytes of memory for each part, and sets them to zero first.
    """
    out = prepared(x, refusal)
    device.require("sm80")
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
