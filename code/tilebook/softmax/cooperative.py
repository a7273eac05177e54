"""Rung 9, a row in the registers of several programs, which wait for one another.

What one multiprocessor can't hold, several can: a row is cut into parts, and a program
keeps its part in registers, as `fused` keeps a row. It sends the part's maximum and
sum to the others of its row, waits for theirs, merges them all in the order of the
parts, and writes. One launch, the floor of traffic, and the same bits every time.

Waiting takes as long as two trips to L2 and the latest of the programs. So programs
stay, walk over parts, and have the next one on its way, as in `persistent`.

Two floats in one word of 64 bits are a letter: it is there whole or not at all, so that
no fence has to order anything. A word of zeros is no letter yet, since a sum is zero
only where the maximum is the lowest number.

Who waits must be sure that whom it waits for is running: all programs are launched
together or not at all (a cooperative launch), there are at least as many as a row has
parts, and each takes its parts in order and sends its letter before it waits. So the
first unfinished row is never waited for in vain: whoever has a part of it waits for no
later row. One at a time, as an interpreter runs programs, they would wait for ever.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device, library
from tilebook.softmax.arithmetic import LOWEST, finished, power, settle, wide
from tilebook.softmax.occupancy import PRETENDED, REGISTERS
from tilebook.softmax.operands import (
    PLAIN,
    Task,
    cover,
    divisor,
    prepared,
    row_stride,
    starts_aligned,
)
from tilebook.softmax.ragged import ends_of, uneven


class Config(NamedTuple):
    """How `softmax_kernel` is launched."""

    block: int
    """Elements of the tile that covers a part, a power of two."""
    num_warps: int
    """Warps that share a part."""
    per_sm: int
    """Programs on a multiprocessor."""


BYTES = 16 * 1024
"""Of a part, about."""
MINUS_INFINITY = {
    torch.float32: -math.inf,
    torch.bfloat16: 0xFF80FF80 - 2**32,
    torch.float16: 0xFC00FC00 - 2**32,
}
"""In a word of 32 bits, as often as it holds an element."""
PER_THREAD = 32
"""Bytes of a part for each thread: two loads of 16."""


def config_for(n: int, itemsize: int = 2) -> Config:
    """Choose how to launch the kernel.

    Args:
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        Tiles of `BYTES`, larger for a row that would otherwise have more parts than
        there are multiprocessors.
    """
    block = BYTES // itemsize
    while parts_of(n, block) > _most_parts() and block * itemsize < 4 * BYTES:
        block *= 2
    warps = min(block * itemsize // (32 * PER_THREAD), 32)
    return Config(block, warps, max(1, 32 // warps))


def parts_of(n: int, block: int) -> int:
    """Count the parts of a row of n elements in tiles of `block`."""
    return -(-int(n) // block)


def _most_parts() -> int:
    return device.current().sms or PRETENDED


@triton.jit
def letter(top, total):
    """Two float32 in a word of 64 bits."""
    high = top.to(tl.int32, bitcast=True).to(tl.int64) << 32
    return high | (total.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def opened(words):
    """The two float32 of each word."""
    top = (words >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return top, words.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def collected(mail_ptr, parts, LANES: tl.constexpr):
    """Wait for the letters of a row's parts (LANES,); zeros past the last."""
    lanes = tl.arange(0, LANES)
    here = lanes < parts
    words = tl.load(mail_ptr + lanes, mask=here, other=0, volatile=True)
    while tl.sum((here & (words == 0)).to(tl.int32), axis=0) > 0:
        words = tl.load(mail_ptr + lanes, mask=here, other=0, volatile=True)
    return words


@triton.jit
def body_of(row, n, stride, V: tl.constexpr, APART: tl.constexpr):
    """The vectors before a row's body, and those in it."""
    start = row.to(tl.int64) * stride
    if APART:
        head = tl.minimum((V - start % V) % V, n)
        return (start + V - 1) // V, (n - head) // V
    else:
        return start // V, n // V


@triton.jit
def ends_of_row(row, part, n, stride, V: tl.constexpr):
    """Where a row's ends are (2V,): what isn't in its body goes with its first part."""
    start = row.to(tl.int64) * stride
    _, _, at, outside = ends_of(start, n, V)
    return start + at, outside & (part == 0)


@triton.jit
def span_of(item, items, parts, share, body):
    """An item's row and part, the vectors of the body before it, and its own."""
    row = item // parts
    part = item - row * parts
    skip = part.to(tl.int64) * share
    count = tl.minimum(body - skip, share).to(tl.int32)
    return row, part, skip, tl.where(item < items, count, 0)


@triton.jit
def words_of(ptr):
    """A pointer to words of 32 bits, each of which holds one element or two."""
    if ptr.dtype.element_ty.primitive_bitwidth == 16:
        return ptr.to(tl.pointer_type(tl.int32), bitcast=True)
    else:
        return ptr


@triton.jit
def fetched(
    x_ptr, item, items, n, stride, parts, share,
    NONE: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """Ask for an item, and leave it as narrow as in memory: words of 32 bits.

    A register holds a bfloat16 as it holds a float32. Two in a word save half.
    """
    first, body = body_of(item // parts, n, stride, V, APART)
    _, _, skip, count = span_of(item, items, parts, share, body)
    offs = tl.arange(0, BLOCK // (V // 4))
    at = (first + skip) * 4 + offs
    return tl.load(words_of(x_ptr) + at, mask=offs < count * 4, other=NONE)


@triton.jit
def unpacked(words, DTYPE: tl.constexpr):
    """The elements in words, in float32: (N, 2) of narrow ones, else (N,)."""
    if DTYPE.is_bf16():
        # The upper half of a float32.
        low = (words << 16).to(tl.float32, bitcast=True)
        return tl.join(low, (words & -65536).to(tl.float32, bitcast=True))
    elif DTYPE.is_fp16():
        low = words.to(tl.int16).to(tl.float16, bitcast=True)
        high = (words >> 16).to(tl.int16).to(tl.float16, bitcast=True)
        return tl.join(low.to(tl.float32), high.to(tl.float32))
    else:
        return words


@triton.jit
def packed(y, DTYPE: tl.constexpr):
    """Round to elements, and put them into words of 32 bits."""
    if DTYPE.is_fp32():
        return y
    else:
        low, high = tl.split(y)
        low = low.to(DTYPE).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        return low | high.to(DTYPE).to(tl.int16, bitcast=True).to(tl.int32) << 16


@triton.jit
def largest(x):
    """Of all elements."""
    return tl.max(tl.max(x, axis=1), axis=0) if len(x.shape) == 2 else tl.max(x, axis=0)


@triton.jit
def added(x):
    """All elements, added."""
    return tl.sum(tl.sum(x, axis=1), axis=0) if len(x.shape) == 2 else tl.sum(x, axis=0)


@triton.jit
def written(
    out_ptr, y, item, items, n, parts, share, first, body, V: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Round and store an item."""
    _, _, skip, count = span_of(item, items, parts, share, body)
    offs = tl.arange(0, BLOCK // (V // 4))
    words = packed(y, out_ptr.dtype.element_ty)
    at = (first + skip) * 4 + offs
    tl.store(words_of(out_ptr) + at, words, mask=offs < count * 4, cache_modifier=".cs")


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
    BLOCK: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    DIV: tl.constexpr = 1 if APART else V
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    first, step = tl.program_id(0), tl.num_programs(0)
    now = fetched(
        x_ptr, first, items, n, stride, parts, share, NONE, V, BLOCK, APART
    )  # fmt: skip
    coming = fetched(
        x_ptr, first + step, items, n, stride, parts, share, NONE, V, BLOCK, APART
    )  # fmt: skip
    sent(x_ptr, mail_ptr, first, items, now, n, stride, parts, inverse_t, V, APART)
    for item in tl.range(first, items, step, num_stages=1):
        # Two items ahead: on its way. One ahead: here, its letter goes off. This one's
        # letters went off a turn ago, from all of its row.
        later = fetched(
            x_ptr, item + 2 * step, items, n, stride, parts, share,
            NONE, V, BLOCK, APART,
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
        num_warps=config.num_warps,
        maxnreg=registers(config),
        launch_cooperative_grid=True,
    )


def registers(config: Config) -> int:
    """Registers that a thread may take, so that all programs have room at a time."""
    threads = 32 * config.num_warps * config.per_sm
    return min(
        (device.current().registers_per_sm or REGISTERS) // threads // 8 * 8, 255
    )


def together(m: int, parts: int, per_sm: int) -> int:
    """How many programs to launch: as many as run at a time, if there is work."""
    return min(m * parts, per_sm * _most_parts())


def mailbox(m: int, parts: int, like: torch.Tensor) -> torch.Tensor:
    """Room for a letter of each part, empty."""
    return torch.zeros(m * parts, dtype=torch.int64, device=like.device)


def share_of(n: int, parts: int, vector: int) -> int:
    """Vectors of a part: as many in each, but for the last."""
    whole = -(-n // vector)
    return -(-whole // parts)


def longest(itemsize: int) -> int:
    """Elements of the longest row that is taken, by the bytes of one."""
    return _most_parts() * 4 * BYTES // itemsize


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
        HardwareError: kernels are interpreted here, one program after the other.
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, rows that are too long,
            or a tensor where this process's kernels can't reach it.

    Notes:
        Takes 8 bytes of memory for each part, and sets them to zero first.
    """
    out = prepared(x, refusal)
    device.require("gpu")
    if out.numel():
        with library.on(x):
            launch_as(config or config_for(x.shape[1], x.itemsize), x, out)
    return out
