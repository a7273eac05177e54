"""What a tile won't let you write, and what to write instead.

A tile has no `x[2:4]`, no `x[3]`, no `cat`: its elements lie in the registers of many
threads, and an index would ask which. Each helper here does with whole tiles what the
indexing would have done, and is called from a kernel.
"""

import triton
import triton.language as tl


@triton.jit
def element(x, i):
    """Select `x[i]` of a vector.

    All lanes but one are zero, so their sum is the one: for floats an infinity or
    NaN elsewhere does not leak in, because `where` chooses and does not multiply.
    What was -0.0 comes out as 0.0, and floats of 8 bits can't be summed.
    """
    offs = tl.arange(0, x.shape[0])
    # Sums of small integers are wider than these.
    return tl.sum(tl.where(offs == i, x, tl.zeros_like(x)), axis=0).to(x.dtype)


@triton.jit
def row(x, i):
    """Select `x[i, :]` of a matrix: (m, n) to (n,)."""
    offs = tl.arange(0, x.shape[0])[:, None]
    return tl.sum(tl.where(offs == i, x, tl.zeros_like(x)), axis=0).to(x.dtype)


@triton.jit
def column(x, j):
    """Select `x[:, j]` of a matrix: (m, n) to (m,)."""
    offs = tl.arange(0, x.shape[1])[None, :]
    return tl.sum(tl.where(offs == j, x, tl.zeros_like(x)), axis=1).to(x.dtype)


@triton.jit
def with_element(x, i, value):
    """Replace an element of a vector: instead of `x[i] = value`."""
    return tl.where(tl.arange(0, x.shape[0]) == i, tl.cast(value, x.dtype), x)


@triton.jit
def evens_and_odds(x):
    """Split a vector into `x[0::2]` and `x[1::2]`: (2n,) to two of (n,)."""
    n: tl.constexpr = x.shape[0] // 2
    return tl.split(tl.reshape(x, (n, 2)))


@triton.jit
def interleaved(a, b):
    """Join two vectors in turn, a[0], b[0], a[1], ...: the inverse of the split."""
    n: tl.constexpr = 2 * a.shape[0]
    # join puts its operands side by side in a new last dimension.
    return tl.reshape(tl.join(a, b), (n,))


@triton.jit
def halves(x):
    """Split a vector into `x[:n]` and `x[n:]`: (2n,) to two of (n,)."""
    n: tl.constexpr = x.shape[0] // 2
    # split takes the last dimension apart, so the halves have to get there.
    return tl.split(tl.trans(tl.reshape(x, (2, n))))


@triton.jit
def concatenated(a, b):
    """Join two vectors end to end: two of (n,) to (2n,), in order.

    `tl.cat` does so only if it is told not to reorder, and not on every version.
    """
    n: tl.constexpr = 2 * a.shape[0]
    return tl.reshape(tl.trans(tl.join(a, b)), (n,))


@triton.jit
def quarter(x, i: tl.constexpr):
    """Slice `x[i * n : (i + 1) * n]` of a vector: (4n,) to (n,), i from 0 to 3."""
    tl.static_assert(i >= 0 and i < 4, "i must be 0, 1, 2 or 3")
    low, high = halves(x)
    half = low
    if i >= 2:
        half = high
    first, second = halves(half)
    out = first
    if i % 2 == 1:
        out = second
    return out


@triton.jit
def reversed_(x):
    """Turn a vector round, `x[::-1]`: every element names the place it comes from."""
    n: tl.constexpr = x.shape[0]
    return tl.gather(x, n - 1 - tl.arange(0, n), axis=0)


@triton.jit
def rolled(x, shift):
    """Shift a vector round its end: element i is `x[(i - shift) % n]`."""
    n: tl.constexpr = x.shape[0]
    return tl.gather(x, (tl.arange(0, n) + n - shift % n) % n, axis=0)
