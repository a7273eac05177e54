"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import math

import triton
import triton.language as tl

__all__ = [
    "backward",
    "blocks",
    "delta_kernel",
    "group_kernel",
    "merge",
    "queries_kernel",
    "sink_kernel",
    "spans",
    "split_kernel",
    "traffic",
]


def traffic(s: int, d: int) -> tuple[int, int]:
    """Bytes that a head of attention has to move, in three kernels and in one.

    Args:
        s: queries, and keys.
        d: features.

    Returns:
        With scores in float32 and weights in bfloat16 in memory, and without either.
    """
    operands = 4 * s * d * 2
    # Scores are written and read, weights too.
    return operands + s * s * 2 * (4 + 2), operands


def blocks(s: int, block_m: int, block_n: int) -> tuple[int, int]:
    """Blocks of keys that a causal attention goes through.

    Args:
        s: queries, and keys, a multiple of both.
        block_m: queries of a tile, a multiple of the other.
        block_n: keys of a block.

    Returns:
        Those without a mask, and those with one, of all tiles.
    """
    tiles, ratio = s // block_m, block_m // block_n
    return ratio * tiles * (tiles - 1) // 2, ratio * tiles


def merge(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Put together what two programs found of disjoint keys.

    Args:
        one: the logarithm of its denominator, and its result.
        other: likewise.

    Returns:
        Both of all keys.
    """
    top = max(one[0], other[0])
    powers = [math.exp(each[0] - top) for each in (one, other)]
    total = sum(powers)
    out = sum(w * each[1] for w, each in zip(powers, (one, other), strict=True))
    return top + math.log(total), out / total


def backward(
    x: tuple[float, ...], v: tuple[float, ...], g: float, c: float
) -> tuple[float, ...]:
    """Gradients of the logits of one row.

    Args:
        x: logits.
        v: values, one number each.
        g: what arrives for the result.
        c: what arrives for the logarithm.
    """
    total = sum(math.exp(each) for each in x)
    p = [math.exp(each) / total for each in x]
    out = sum(w * value for w, value in zip(p, v, strict=True))
    delta = g * out - c
    return tuple(w * (g * value - delta) for w, value in zip(p, v, strict=True))


def spans(
    m0: int, block_m: int, block_n: int, sq: int, sk: int, left: int, right: int
) -> tuple[int, int]:
    """Count the blocks that a tile of queries needs, without a mask and with one.

    Args:
        m0: its first query.
        block_m: how many it has, at most.
        block_n: keys of a block.
        sq: queries.
        sk: keys.
        left: keys before its own that a query sees.
        right: keys after its own.
    """
    last = min(m0 + block_m, sq) - 1
    low, high = max(m0 - left, 0), min(last + right + 1, sk)
    if low >= high:
        return 0, 0
    needed = -(-high // block_n) - low // block_n
    # What the last row's window begins with, and what the first one's ends before.
    inner_low, inner_high = max(last - left, 0), min(m0 + right + 1, sk)
    plain = max(0, inner_high // block_n - -(-inner_low // block_n))
    return plain, needed - plain


@triton.jit
def split_kernel(
    part_ptr, log_ptr, out_ptr, lse_ptr, splits, m,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK_E)
    acc = tl.zeros((BLOCK_E,), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    top = tl.full((), -float("inf"), tl.float32)
    for split in range(splits):
        log = tl.load(log_ptr + split * m + row)
        at = part_ptr + (split * m + row) * E + offs
        part = tl.load(at, mask=offs < E, other=0.0)  # (BLOCK_E,)
        highest = tl.maximum(top, log)
        # Nobody has seen anything yet: there is nothing to subtract.
        base = tl.where(highest == -float("inf"), 0.0, highest)
        shrink, weight = tl.exp(top - base), tl.exp(log - base)
        acc = acc * shrink + part * weight
        total = total * shrink + weight
        top = highest
    seen = tl.where(total == 0.0, 1.0, total)
    tl.store(out_ptr + row * E + offs, acc / seen, mask=offs < E)
    tl.store(lse_ptr + row, top + tl.log(seen))


@triton.jit
def sink_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, scale, sink,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d, in_m = tl.arange(0, D), (offs_m < m)[:, None]
    q_at = q_ptr + offs_m[:, None] * D + offs_d[None, :]
    q = tl.load(q_at, mask=in_m, other=0.0)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    # As if a key with this logit and no value had been seen already.
    top = tl.zeros((BLOCK_M,), tl.float32) + sink
    total = tl.full((BLOCK_M,), 1.0, tl.float32)
    for start in range(0, n, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        in_n = (offs_n < n)[:, None]
        at = offs_n[:, None] * D + offs_d[None, :]
        k = tl.load(k_ptr + at, mask=in_n, other=0.0)  # (BLOCK_N, D)
        v = tl.load(v_ptr + at, mask=in_n, other=0.0)
        s = tl.dot(q, tl.trans(k)) * scale
        s = tl.where((offs_n < n)[None, :], s, -float("inf"))
        highest = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp(s - highest[:, None])  # (BLOCK_M, BLOCK_N)
        shrink = tl.exp(top - highest)
        total = total * shrink + tl.sum(p, axis=1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        top = highest
    out_at = out_ptr + offs_m[:, None] * D + offs_d[None, :]
    tl.store(out_at, acc / total[:, None], mask=in_m)


@triton.jit
def delta_kernel(
    do_ptr, o_ptr, dlse_ptr, out_ptr, m,
    E: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_e = tl.arange(0, BLOCK_E)
    mask = (offs_m < m)[:, None] & (offs_e < E)[None, :]
    at = offs_m[:, None] * E + offs_e[None, :]
    do = tl.load(do_ptr + at, mask=mask, other=0.0)  # (BLOCK_M, BLOCK_E)
    o = tl.load(o_ptr + at, mask=mask, other=0.0)
    dlse = tl.load(dlse_ptr + offs_m, mask=offs_m < m, other=0.0)
    tl.store(out_ptr + offs_m, tl.sum(do * o, axis=1) - dlse, mask=offs_m < m)


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr, dq_ptr, m, n, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    m0 = tl.program_id(0) * BLOCK_M
    offs_m, offs_d = m0 + tl.arange(0, BLOCK_M), tl.arange(0, D)
    in_m = offs_m < m
    at_m = offs_m[:, None] * D + offs_d[None, :]
    q = tl.load(q_ptr + at_m, mask=in_m[:, None], other=0.0)
    do = tl.load(do_ptr + at_m, mask=in_m[:, None], other=0.0)
    lse = tl.load(lse_ptr + offs_m, mask=in_m, other=0.0)
    delta = tl.load(delta_ptr + offs_m, mask=in_m, other=0.0)
    dq = tl.zeros((BLOCK_M, D), tl.float32)
    # The tile's last query sees keys up to here.
    end = tl.minimum(n, m0 + BLOCK_M + n - m)
    for start in range(0, end, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        in_n = (offs_n < n)[:, None]
        at = offs_n[:, None] * D + offs_d[None, :]
        k = tl.load(k_ptr + at, mask=in_n, other=0.0)  # (BLOCK_N, D)
        v = tl.load(v_ptr + at, mask=in_n, other=0.0)
        p = tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
        seen = offs_n[None, :] <= offs_m[:, None] + n - m
        dp = tl.dot(do, tl.trans(v))  # (BLOCK_M, BLOCK_N)
        ds = tl.where(seen, p * (dp - delta[:, None]), 0.0)
        dq = tl.dot(ds.to(k.dtype), k, dq)
    tl.store(dq_ptr + at_m, dq * scale, mask=in_m[:, None])


@triton.jit
def group_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, n, scale, GROUP: tl.constexpr,
    D: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    offs_g, offs_d = tl.arange(0, BLOCK_G), tl.arange(0, D)
    # The heads that share these keys are the rows of one tile.
    at_g = (head * GROUP + offs_g)[:, None] * D + offs_d[None, :]
    in_g = (offs_g < GROUP)[:, None]
    q = tl.load(q_ptr + at_g, mask=in_g, other=0.0)
    acc = tl.zeros((BLOCK_G, D), tl.float32)
    top = tl.full((BLOCK_G,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    for start in range(0, n, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        in_n = (offs_n < n)[:, None]
        at = (head * n + offs_n)[:, None] * D + offs_d[None, :]
        k = tl.load(k_ptr + at, mask=in_n, other=0.0)  # (BLOCK_N, D)
        v = tl.load(v_ptr + at, mask=in_n, other=0.0)
        s = tl.dot(q, tl.trans(k)) * scale
        s = tl.where((offs_n < n)[None, :], s, -float("inf"))
        highest = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp(s - highest[:, None])  # (BLOCK_G, BLOCK_N)
        shrink = tl.exp(top - highest)
        total = total * shrink + tl.sum(p, axis=1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        top = highest
    tl.store(out_ptr + at_g, acc / total[:, None], mask=in_g)
