"""What forward and backward kernels share: tiles, logits, windows, and what is dropped.

Position i of the queries and position j of the keys meet in the logit

    x_ij = f(scale q_i . k_j) - slope abs(i + shift - j) + bias_ij,

where f(x) = cap tanh(x / cap), if there is a cap. It counts for

    i + shift - left <= j <= i + shift + right.

Of a causal attention `right` is 0. `shift` is 0 where the first query stands at the
first key, and the number of keys less that of queries where the last ones meet.

Powers are taken of 2, for which there is an instruction, so logits are multiplied by
log2(e). If nothing but a positive scale is asked for, both factors wait until the
largest logit of a row has been found: one multiply-add per element does the rest.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def head(
    ptr, b, h, start, stride_b, stride_h, stride, DESCRIBED: tl.constexpr
):  # fmt: skip
    """Where a head's rows begin; of a descriptor itself, which is told at each load."""
    if DESCRIBED:
        return ptr
    else:
        return ptr + b * stride_b + h * stride_h + start * stride


@triton.jit
def block(
    base, b, h, stride, start, offs_d, length, BLOCK: tl.constexpr, D: tl.constexpr,
    BLOCK_D: tl.constexpr, MASKED: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    """Load rows of a head inside a loop: by a descriptor, which knows what is outside,
    or by pointers."""
    if DESCRIBED:
        at = [tl.cast(b, tl.int32), tl.cast(h, tl.int32), tl.cast(start, tl.int32), 0]
        return base.load(at).reshape([BLOCK, BLOCK_D])
    else:
        return tile(base, stride, start, offs_d, length, BLOCK, D, BLOCK_D, MASKED)


@triton.jit
def tile(
    base, stride, start, offs_d, length,
    BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Load rows of a head from `start` on, (BLOCK, BLOCK_D); what lies outside is 0.

    What a program's threads differ in are 32-bit numbers: `operands.aligned` sees to
    it that they suffice. The 64-bit start is one for all of them.
    """
    offs = tl.arange(0, BLOCK)
    at = base + tl.cast(start, tl.int64) * stride
    at = at + (offs[:, None] * stride + offs_d[None, :])
    left = length - start
    if MASKED and D != BLOCK_D:
        mask = (offs < left)[:, None] & (offs_d < D)[None, :]
        return tl.load(at, mask=mask, other=0)
    elif MASKED:
        return tl.load(at, mask=(offs < left)[:, None], other=0)
    elif D != BLOCK_D:
        return tl.load(at, mask=(offs_d < D)[None, :], other=0)
    else:
        return tl.load(at)


@triton.jit
def put(
    base, stride, start, offs_d, length, x,
    BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Store rows of a head from `start` on."""
    offs = tl.arange(0, BLOCK)
    at = base + tl.cast(start, tl.int64) * stride
    at = at + (offs[:, None] * stride + offs_d[None, :])
    mask = (offs < length - start)[:, None] & (offs_d < D)[None, :]
    tl.store(at, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def place(
    pid, tiles, heads, ends_ptr, sequences, here_ptr, there_ptr, here, there,
    here_most, there_most, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Which tile a program has.

    Returns its number in its sequence; batch index (0 where packed), head, sequence;
    where the sequence starts on this side and on the other, and how long it is there.
    The last tile comes first: of a causal attention it has the most to do.
    """
    slot = tiles - 1 - pid % tiles
    number = pid // tiles
    if PACKED:
        # `ends` has the tiles up to the end of each sequence: those before it count.
        sequence, first = 0, 0
        for c in range(0, sequences, 1024):
            offs = c + tl.arange(0, 1024)
            ends = tl.load(ends_ptr + offs, mask=offs < sequences, other=2147483647)
            sequence += tl.sum((ends <= slot).to(tl.int32), axis=0)
            first = tl.maximum(first, tl.max(tl.where(ends <= slot, ends, 0), axis=0))
        valid = sequence < sequences
        at = tl.where(valid, sequence, 0)
        start, here = extent(here_ptr + at, here_most, valid)
        other_start, there = extent(there_ptr + at, there_most, valid)
        return (
            slot - first, 0, number, at, start, other_start, here, there
        )  # fmt: skip
    else:
        batch = number // heads
        zero = tl.full((), 0, tl.int64)
        return (
            slot, batch.to(tl.int64), number % heads, batch, zero, zero, here, there
        )  # fmt: skip


@triton.jit
def extent(ptr, most, valid):
    """A sequence's start and length; what was asked for stays inside the tensor."""
    start = tl.load(ptr, mask=valid, other=0)
    end = tl.load(ptr + 1, mask=valid, other=0)
    start = tl.minimum(tl.maximum(start, 0), most)
    end = tl.minimum(tl.maximum(end, start), most)
    return start.to(tl.int64), (end - start).to(tl.int32)


@triton.jit
def columns(
    m0, sq, sk, shift, left, right,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """Keys that rows m0, m0 + 1, ... of a tile see: from, all from, all up to, to."""
    last = tl.minimum(m0 + BLOCK_M, sq) - 1
    low, high = 0, sk
    full_low, full_high = 0, sk
    if RIGHT:
        high = tl.minimum(sk, tl.maximum(last + shift + right + 1, 0))
        full_high = tl.minimum(sk, tl.maximum(m0 + shift + right + 1, 0))
    if LEFT:
        low = tl.maximum(m0 + shift - left, 0)
        full_low = tl.maximum(last + shift - left, 0)
    return spans(low, full_low, full_high, high, BLOCK_N)


@triton.jit
def rows(
    n0, sq, sk, shift, left, right,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """Queries that see keys n0, n0 + 1, ...: from, all from, all up to, to."""
    last = tl.minimum(n0 + BLOCK_N, sk) - 1
    low, high = 0, sq
    full_low, full_high = 0, sq
    if RIGHT:
        low = tl.maximum(n0 - shift - right, 0)
        full_low = tl.maximum(last - shift - right, 0)
    if LEFT:
        high = tl.minimum(sq, tl.maximum(last - shift + left + 1, 0))
        full_high = tl.minimum(sq, tl.maximum(n0 - shift + left + 1, 0))
    return spans(low, full_low, full_high, high, BLOCK_M)


@triton.jit
def spans(low, full_low, full_high, high, BLOCK: tl.constexpr):
    """Round ends to blocks: those between the inner two need no mask."""
    low = low // BLOCK * BLOCK
    high = tl.maximum(high, low)
    full_low = tl.minimum(tl.cdiv(full_low, BLOCK) * BLOCK, high)
    full_high = tl.maximum(full_high // BLOCK * BLOCK, full_low)
    return low, full_low, full_high, high


@triton.jit
def scored(
    s, offs_m, offs_n, m0, n0, bias, bias_m, bias_n, slope, scale, cap,
    sq, sk, shift, left, right,
    FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr, BIAS: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Make logits of products, times log2(e) unless the factor is to be folded.

    Returns them and the derivative of the cap, which is 1 without one. `offs_m` and
    `offs_n`, from m0 and n0 on, broadcast to the shape of `s`, whichever way it lies.
    """
    steep = s
    if not FOLD:
        s *= scale
        if CAP:
            # tanh by a power; beyond float32's range it gives 1 and -1 all the same. Of
            # small numbers the power has lost most, and a few terms are exact.
            x = s / cap
            t = 1 - 2 / (tl.exp2(s * (2 * LOG2E / cap)) + 1)
            xx = x * x
            few = x * (1 - xx * (1 / 3 - xx * (2 / 15 - xx * (17 / 315))))
            t = tl.where(tl.abs(x) < 0.125, few, t)
            s = cap * t
            steep = 1 - t * t
        if ALIBI:
            s -= slope * tl.abs(offs_m + shift - offs_n).to(tl.float32)
        if BIAS != "":
            there = (offs_m < sq) & (offs_n < sk)
            at = bias + tl.cast(m0, tl.int64) * bias_m + tl.cast(n0, tl.int64) * bias_n
            at = at + ((offs_m - m0) * bias_m + (offs_n - n0) * bias_n)
            b = tl.load(at, mask=there, other=0)
            if BIAS == "mask":
                s = tl.where(b != 0, s, -float("inf"))
            else:
                s += b.to(tl.float32)
        s *= LOG2E
    if MASKED:
        seen = offs_n < sk
        if RIGHT:
            seen = seen & (offs_n <= offs_m + shift + right)
        if LEFT:
            seen = seen & (offs_n >= offs_m + shift - left)
        s = tl.where(seen, s, -float("inf"))
    return s, steep


@triton.jit
def kept(seed, head, offs_m, offs_n, threshold):
    """What dropout leaves: 24 bits of Philox's first word aren't below a threshold.

    They depend on the seed, the head and the position alone, so that a backward kernel
    finds the same in tiles of other sizes.
    """
    first, _, _, _ = tl.philox(
        seed, offs_m + tl.zeros_like(offs_n), offs_n + tl.zeros_like(offs_m),
        head + tl.zeros_like(offs_m + offs_n), tl.zeros_like(offs_m + offs_n),
    )  # fmt: skip
    return (first >> 8).to(tl.int32) >= threshold
