"""Our solutions to puzzles 13 to 16."""

import triton
import triton.language as tl


@triton.jit
def transpose_kernel(
    x_ptr, z_ptr, m, n, stride_m, stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    at = offs_m[:, None] * stride_m + offs_n[None, :] * stride_n
    x = tl.load(x_ptr + at, mask=mask, other=0.0)  # (BLOCK_M, BLOCK_N)
    tl.store(z_ptr + offs_n[None, :] * m + offs_m[:, None], x, mask=mask)


@triton.jit
def nibbles_kernel(w_ptr, s_ptr, z_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    w = tl.load(w_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    s = tl.load(s_ptr + offs // 4, mask=mask, other=0.0)  # (BLOCK,)
    j = tl.arange(0, 8)[None, :]
    # Left until the field's sign is the word's; right again copies it.
    field = (w[:, None] << (28 - 4 * j)) >> 28  # (BLOCK, 8)
    z = field.to(tl.float32) * s[:, None]
    tl.store(z_ptr + offs[:, None] * 8 + j, z, mask=mask[:, None])


@triton.jit
def rotary_kernel(
    x_ptr, c_ptr, s_ptr, z_ptr, h, half, stride_t, stride_h, stride_d,
    stride_ct, stride_ci, BLOCK: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    offs = tl.arange(0, BLOCK).to(tl.int64)
    mask = offs < half
    at = x_ptr + position * stride_t + head * stride_h + offs * stride_d
    a = tl.load(at, mask=mask, other=0.0).to(tl.float32)  # (BLOCK,)
    b = tl.load(at + half * stride_d, mask=mask, other=0.0).to(tl.float32)
    angle = position * stride_ct + offs * stride_ci
    c = tl.load(c_ptr + angle, mask=mask, other=0.0).to(tl.float32)  # (BLOCK,)
    s = tl.load(s_ptr + angle, mask=mask, other=0.0).to(tl.float32)  # (BLOCK,)
    to = z_ptr + (position * h + head) * (2 * half) + offs
    tl.store(to, a * c - b * s, mask=mask)
    tl.store(to + half, b * c + a * s, mask=mask)


@triton.jit
def histogram_kernel(x_ptr, z_ptr, n, bins, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=-1)  # (BLOCK,)
    tl.atomic_add(z_ptr + x, 1, mask=(x >= 0) & (x < bins))
