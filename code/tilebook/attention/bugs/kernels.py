"""The kernels of the gallery, small: a tile of queries a head, every key in turn."""

import triton
import triton.language as tl


@triton.jit
def rows_of(ptr, head, length, offs, D: tl.constexpr):
    """Load rows of a head; those that don't exist are 0."""
    offs_d = tl.arange(0, D)
    at = ptr + (head * length + offs)[:, None] * D + offs_d[None, :]
    return tl.load(at, mask=(offs < length)[:, None], other=0.0)


@triton.jit
def put(ptr, head, length, offs, acc, total, D: tl.constexpr):
    """Store the rows of a head, 0 where nothing was seen."""
    offs_d = tl.arange(0, D)
    at = ptr + (head * length + offs)[:, None] * D + offs_d[None, :]
    total = tl.where(total == 0.0, 1.0, total)
    tl.store(at, acc / total[:, None], mask=(offs < length)[:, None])


@triton.jit
def nothing(ROWS: tl.constexpr, D: tl.constexpr):
    """Sums and maxima before the first key."""
    acc = tl.zeros((ROWS, D), tl.float32)
    top = tl.full((ROWS,), -float("inf"), tl.float32)
    return acc, tl.zeros((ROWS,), tl.float32), top


@triton.jit
def take(acc, total, top, s, v):
    """Add a block's values, weighted by its logits (rows, keys)."""
    highest = tl.maximum(top, tl.max(s, axis=1))
    base = tl.where(highest == -float("inf"), 0.0, highest)
    p, shrink = tl.exp(s - base[:, None]), tl.exp(top - base)
    acc = tl.dot(p, v, acc * shrink[:, None], input_precision="ieee")
    return acc, total * shrink + tl.sum(p, axis=1), highest


@triton.jit
def late_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, h // group, n, offs_n, D)
        v = rows_of(v_ptr, h // group, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        highest = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp(s - highest[:, None])  # (ROWS, KEYS)
        seen = offs_n[None, :] <= offs_m[:, None] + n - m
        p = tl.where(seen, p, 0.0)
        shrink = tl.exp(top - highest)
        acc = tl.dot(p, v, acc * shrink[:, None], input_precision="ieee")
        total = total * shrink + tl.sum(p, axis=1)
        top = highest
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def corner_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, h // group, n, offs_n, D)
        v = rows_of(v_ptr, h // group, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = offs_n[None, :] <= offs_m[:, None]
        s = tl.where(seen, s, -float("inf"))
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def causal_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, h // group, n, offs_n, D)
        v = rows_of(v_ptr, h // group, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = offs_n[None, :] <= offs_m[:, None] + n - m
        s = tl.where(seen, s, -float("inf"))
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def padded_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    hk = h // group
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, hk, n, offs_n, D)
        v = rows_of(v_ptr, hk, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def modulo_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    hk = h % (tl.num_programs(0) // group)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, hk, n, offs_n, D)
        v = rows_of(v_ptr, hk, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s = tl.where((offs_n < n)[None, :], s, -float("inf"))
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def full_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    hk = h // group
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, hk, n, offs_n, D)
        v = rows_of(v_ptr, hk, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s = tl.where((offs_n < n)[None, :], s, -float("inf"))
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def finite_kernel(
    q_ptr, k_ptr, v_ptr, seen_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, h // group, n, offs_n, D)
        v = rows_of(v_ptr, h // group, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        at = seen_ptr + offs_m[:, None] * n + offs_n[None, :]
        there = (offs_m < m)[:, None] & (offs_n < n)[None, :]
        seen = tl.load(at, mask=there, other=0)
        s += tl.where(seen != 0, 0.0, -1.0e6)
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)


@triton.jit
def infinite_kernel(
    q_ptr, k_ptr, v_ptr, seen_ptr, out_ptr, m, n, group, scale,
    D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    h, offs_m = tl.program_id(0), tl.arange(0, ROWS)
    q = rows_of(q_ptr, h, m, offs_m, D)
    acc, total, top = nothing(ROWS, D)
    for start in range(0, n, KEYS):
        offs_n = start + tl.arange(0, KEYS)
        k = rows_of(k_ptr, h // group, n, offs_n, D)
        v = rows_of(v_ptr, h // group, n, offs_n, D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        at = seen_ptr + offs_m[:, None] * n + offs_n[None, :]
        there = (offs_m < m)[:, None] & (offs_n < n)[None, :]
        seen = tl.load(at, mask=there, other=0)
        s = tl.where(seen != 0, s, -float("inf"))
        acc, total, top = take(acc, total, top, s, v)
    put(out_ptr, h, m, offs_m, acc, total, D)
