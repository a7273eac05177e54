"""Rows in parts, two narrow elements in a register: loads and stores of `cooperative`.

A register holds a bfloat16 as it holds a float32. What waits in registers for its turn
therefore stays in words of 32 bits, as it came from memory, until it is needed.
"""

import math

import torch
import triton
import triton.language as tl

from tilebook.softmax.ragged import ends_of

MINUS_INFINITY = {
    torch.float32: -math.inf,
    torch.bfloat16: 0xFF80FF80 - 2**32,
    torch.float16: 0xFC00FC00 - 2**32,
}
"""In a word of 32 bits, as often as it holds an element."""


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
    POLICY: tl.constexpr,
):  # fmt: skip
    """Ask for an item, and leave it as narrow as in memory: words of 32 bits.

    A register holds a bfloat16 as it holds a float32. Two in a word save half.
    """
    first, body = body_of(item // parts, n, stride, V, APART)
    _, _, skip, count = span_of(item, items, parts, share, body)
    offs = tl.arange(0, BLOCK // (V // 4))
    at = (first + skip) * 4 + offs
    return tl.load(
        words_of(x_ptr) + at, mask=offs < count * 4, other=NONE,
        eviction_policy=POLICY,
    )  # fmt: skip


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
    """Round and store an item: element by element, which hardware rounds in pairs."""
    _, _, skip, count = span_of(item, items, parts, share, body)
    offs = tl.arange(0, BLOCK)
    y = tl.reshape(y, [BLOCK]).to(out_ptr.dtype.element_ty)
    at = (first + skip) * V + offs
    tl.store(out_ptr + at, y, mask=offs < count * V, cache_modifier=".cs")
