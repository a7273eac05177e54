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

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device, library
from tilebook.softmax.arithmetic import LOWEST, finished, power, settle, wide
from tilebook.softmax.occupancy import PRETENDED
from tilebook.softmax.online import vectors
from tilebook.softmax.operands import PLAIN, Task, cover, prepared, row_stride
from tilebook.softmax.ragged import ends_of


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
def place_of(item, items, parts, n, share, VECTOR: tl.constexpr):
    """Where an item is: its row, its part, the elements before it and in it."""
    row = item // parts
    part = item - row * parts
    skip = part.to(tl.int64) * share * VECTOR
    length = tl.minimum(n - skip, share * VECTOR).to(tl.int32)
    return row.to(tl.int64), part, skip, tl.where(item < items, length, 0)


@triton.jit
def body_of(start, n, W: tl.constexpr):
    """Where a row's body starts, and its elements, given where the row starts."""
    if W == 1:
        first, body = start, n
    else:
        head = tl.minimum((W - start % W) % W, n)
        first, body = (start + W - 1) // W * W, (n - head) // W * W
    return first, body


@triton.jit
def fetched(
    x_ptr, item, items, n, stride, parts, share,
    W: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Ask for an item, as narrow as in memory: (BLOCK,), and its row's ends (2W,)."""
    row = (item // parts).to(tl.int64)
    start = row * stride
    first, body = body_of(start, n, W)
    _, part, skip, left = place_of(item, items, parts, body, share, VECTOR)
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + first + skip + offs, mask=offs < left, other=-float("inf"))
    if W == 1:
        ends = 0.0
    else:
        # The ends of the row go apart, as in `ragged`, to its first part.
        _, _, at, outside = ends_of(start, n, W)
        outside = outside & (part == 0) & (item < items)
        ends = tl.load(x_ptr + start + at, mask=outside, other=-float("inf"))
    return x, ends


@triton.jit
def sent(mail_ptr, item, items, x, ends, inverse_t, W: tl.constexpr):
    """Write an item's letter: its maximum and its sum."""
    x = wide(x)
    top = tl.maximum(tl.max(x, axis=0), LOWEST)
    if W > 1:
        ends = wide(ends)
        top = tl.maximum(top, tl.max(ends, axis=0))
    total = tl.sum(power(x - top, inverse_t), axis=0)
    if W > 1:
        total += tl.sum(power(ends - top, inverse_t), axis=0)
    tl.atomic_xchg(
        mail_ptr + item, letter(top, total), mask=item < items, sem="relaxed"
    )


@triton.jit(do_not_specialize=["items", "parts"])
def softmax_kernel(
    x_ptr, out_ptr, mail_ptr, items, n, stride, parts, share, inverse_t,
    DIV: tl.constexpr, W: tl.constexpr, VECTOR: tl.constexpr, LANES: tl.constexpr,
    BLOCK: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    n, stride = tl.cast(n, tl.int64) * DIV, tl.cast(stride, tl.int64) * DIV
    first, step = tl.program_id(0), tl.num_programs(0)
    offs = tl.arange(0, BLOCK)
    x, ends = fetched(
        x_ptr, first, items, n, stride, parts, share, W, VECTOR, BLOCK
    )  # fmt: skip
    coming, ends_coming = fetched(
        x_ptr, first + step, items, n, stride, parts, share, W, VECTOR, BLOCK
    )  # fmt: skip
    sent(mail_ptr, first, items, x, ends, inverse_t, W)
    for item in tl.range(first, items, step, num_stages=1):
        # Two items ahead: on its way. One ahead: here, its letter goes off. This one's
        # letters went off a turn ago, from all of its row.
        later, ends_later = fetched(
            x_ptr, item + 2 * step, items, n, stride, parts, share, W, VECTOR, BLOCK
        )  # fmt: skip
        sent(mail_ptr, item + step, items, coming, ends_coming, inverse_t, W)
        row = item // parts
        words = collected(mail_ptr + row * parts, parts, LANES)
        tops, totals = opened(words)
        best, d = settle(tl.where(words == 0, LOWEST, tops), totals, inverse_t)
        out_start = row.to(tl.int64) * n
        out_first, _ = body_of(out_start, n, W)
        start = row.to(tl.int64) * stride
        _, body = body_of(start, n, W)
        _, part, skip, left = place_of(item, items, parts, body, share, VECTOR)
        y = finished(wide(x), best, d, inverse_t, LOG)
        tl.store(
            out_ptr + out_first + skip + offs, y, mask=offs < left, cache_modifier=".cs"
        )
        if W > 1:
            _, _, at, outside = ends_of(start, n, W)
            y = finished(wide(ends), best, d, inverse_t, LOG)
            tl.store(
                out_ptr + out_start + at, y, mask=outside & (part == 0),
                cache_modifier=".cs",
            )  # fmt: skip
        x, ends = coming, ends_coming
        coming, ends_coming = later, ends_later


def launch_as(
    config: Config, x: torch.Tensor, out: torch.Tensor, task: Task = PLAIN
) -> None:
    """Launch the kernel in a way of your own; see `fused.launch_as`."""
    m, n = map(int, x.shape)
    facts, vector = vectors(x, out), 16 // x.itemsize
    div = facts["DIV"]
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
        DIV=div,
        W=facts["W"],
        VECTOR=vector,
        LANES=cover(parts),
        BLOCK=config.block,
        LOG=task.log,
        num_warps=config.num_warps,
        launch_cooperative_grid=True,
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
    return None


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
