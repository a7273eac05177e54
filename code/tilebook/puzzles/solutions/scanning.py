"""Our solutions to puzzles 17 to 21."""

import triton
import triton.language as tl


@triton.jit
def causal_kernel(x_ptr, z_ptr, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    sees = (offs < n) & (offs <= row + n - m)
    at = row * n + offs
    x = tl.load(x_ptr + at, mask=sees, other=float("-inf"))  # (BLOCK,)
    top = tl.max(x, axis=0)
    e = tl.exp(x - tl.where(top == float("-inf"), 0.0, top))
    d = tl.sum(e, axis=0)
    z = e / tl.where(d == 0.0, 1.0, d)
    tl.store(z_ptr + at, z, mask=offs < n)


@triton.jit
def prefix_sum_kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    carry = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row + offs, mask=offs < n, other=0.0)  # (BLOCK,)
        z = carry + tl.cumsum(x, axis=0)
        tl.store(z_ptr + row + offs, z, mask=offs < n)
        carry += tl.sum(x, axis=0)


@triton.jit
def joined_segments(fa, xa, fb, xb):
    return fa | fb, tl.where(fb != 0, xb, xa + xb)


@triton.jit
def segmented_sum_kernel(x_ptr, f_ptr, z_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    carry = tl.full((), 0.0, tl.float32)
    last = tl.arange(0, BLOCK) == BLOCK - 1
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row + offs, mask=offs < n, other=0.0)  # (BLOCK,)
        f = tl.load(f_ptr + row + offs, mask=offs < n, other=0)  # (BLOCK,)
        begun, z = tl.associative_scan((f, x), 0, joined_segments)
        z += tl.where(begun != 0, 0.0, carry)
        tl.store(z_ptr + row + offs, z, mask=offs < n)
        carry = tl.sum(tl.where(last, z, 0.0), axis=0)


@triton.jit
def compaction_kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
    kept = 0
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
        one = (x > 0).to(tl.int32)
        # cumsum counts the element itself, hence less one.
        tl.store(z_ptr + kept + tl.cumsum(one, axis=0) - 1, x, mask=x > 0)
        kept += tl.sum(one, axis=0)


@triton.jit
def joined_steps(a, b, a_next, b_next):
    return a * a_next, a_next * b + b_next


@triton.jit
def recurrence_kernel(a_ptr, b_ptr, h_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    state = tl.full((), 0.0, tl.float32)
    last = tl.arange(0, BLOCK) == BLOCK - 1
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        # Lanes that don't exist leave the state as it is.
        a = tl.load(a_ptr + row + offs, mask=offs < n, other=1.0)  # (BLOCK,)
        b = tl.load(b_ptr + row + offs, mask=offs < n, other=0.0)  # (BLOCK,)
        a, b = tl.associative_scan((a, b), 0, joined_steps)
        h = a * state + b
        tl.store(h_ptr + row + offs, h, mask=offs < n)
        state = tl.sum(tl.where(last, h, 0.0), axis=0)
