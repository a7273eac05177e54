"""Our solutions to puzzles 10 to 12."""

import triton
import triton.language as tl


@triton.jit
def correlation_kernel(
    x_ptr, k_ptr, z_ptr, h, w, kh, kw,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64) * h * w
    offs_h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    offs_w = tl.program_id(2) * BLOCK_W + tl.arange(0, BLOCK_W)
    acc = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
    for a in range(kh):
        for c in range(kw):
            rows, columns = offs_h + a, offs_w + c
            mask = (rows < h)[:, None] & (columns < w)[None, :]
            at = image + rows[:, None] * w + columns[None, :]
            x = tl.load(x_ptr + at, mask=mask, other=0.0)  # (BLOCK_H, BLOCK_W)
            acc += x * tl.load(k_ptr + a * kw + c)
    mask = (offs_h < h)[:, None] & (offs_w < w)[None, :]
    at = image + offs_h[:, None] * w + offs_w[None, :]
    tl.store(z_ptr + at, acc, mask=mask)


@triton.jit
def products_kernel(
    x_ptr, y_ptr, z_ptr, m, n, k,
    stride_xb, stride_xm, stride_xk, stride_yb, stride_yk, stride_yn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
    offs_n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
    mask_m, mask_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    x_ptrs = x_ptr + batch * stride_xb + offs_m[:, None] * stride_xm
    y_ptrs = y_ptr + batch * stride_yb + offs_n[None, :] * stride_yn
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K).to(tl.int64)
        x = tl.load(  # (BLOCK_M, BLOCK_K)
            x_ptrs + offs_k[None, :] * stride_xk,
            mask=mask_m & (offs_k < k)[None, :],
            other=0.0,
        )
        y = tl.load(  # (BLOCK_K, BLOCK_N)
            y_ptrs + offs_k[:, None] * stride_yk,
            mask=(offs_k < k)[:, None] & mask_n,
            other=0.0,
        )
        acc = tl.dot(x, y, acc)
    at = batch * m * n + offs_m[:, None] * n + offs_n[None, :]
    tl.store(z_ptr + at, acc.to(tl.float16), mask=mask_m & mask_n)


@triton.jit
def packed_product_kernel(
    w_ptr, s_ptr, o_ptr, x_ptr, z_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_m, mask_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        group = offs_k // 8
        at = offs_m[:, None] * (k // 8) + group[None, :]
        w = tl.load(w_ptr + at, mask=mask_m, other=0)  # (BLOCK_M, BLOCK_K)
        s = tl.load(s_ptr + at, mask=mask_m, other=0.0)  # (BLOCK_M, BLOCK_K)
        at = offs_m[:, None] * (k // 64) + (group // 8)[None, :]
        o = tl.load(o_ptr + at, mask=mask_m, other=0)  # (BLOCK_M, BLOCK_K)
        # The shift brings copies of the sign with it, which the mask takes off.
        w = (w >> (4 * (offs_k % 8))[None, :]) & 15
        o = (o >> (4 * (group % 8))[None, :]) & 15
        x = tl.load(  # (BLOCK_K, BLOCK_N)
            x_ptr + offs_k[:, None] * n + offs_n[None, :],
            mask=mask_n,
            other=0.0,
        )
        weights = (w - o).to(tl.float32) * s.to(tl.float32)
        acc = tl.dot(weights.to(tl.float16), x, acc)
    at = offs_m[:, None] * n + offs_n[None, :]
    tl.store(z_ptr + at, acc.to(tl.float16), mask=mask_m & mask_n)
