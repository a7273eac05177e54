"""Our solutions to puzzles 7 to 9."""

import triton
import triton.language as tl


@triton.jit
def row_sums_kernel(x_ptr, z_ptr, n, stride_m, stride_n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK).to(tl.int64)
        at = x_ptr + row * stride_m + offs * stride_n
        acc += tl.load(at, mask=offs < n, other=0.0).to(tl.float32)  # (BLOCK,)
    tl.store(z_ptr + row, tl.sum(acc, axis=0))


@triton.jit
def softmax_kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    m = tl.full((), float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        at = x_ptr + row * n + offs
        x = tl.load(at, mask=offs < n, other=float("-inf"))  # (BLOCK,)
        new = tl.maximum(m, tl.max(x, axis=0))
        d = d * tl.exp(m - new) + tl.sum(tl.exp(x - new), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        at = row * n + offs
        x = tl.load(x_ptr + at, mask=offs < n, other=0.0)  # (BLOCK,)
        tl.store(z_ptr + at, tl.exp(x - m) / d, mask=offs < n)


@triton.jit
def scalar_attention_kernel(
    q_ptr, k_ptr, v_ptr, z_ptr, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = tl.load(q_ptr + offs_m, mask=offs_m < n, other=0.0)  # (BLOCK_M,)
    m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    d = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, n, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask = offs_n < n
        k = tl.load(k_ptr + offs_n, mask=mask, other=0.0)  # (BLOCK_N,)
        v = tl.load(v_ptr + offs_n, mask=mask, other=0.0)  # (BLOCK_N,)
        s = tl.where(mask[None, :], q[:, None] * k[None, :], float("-inf"))
        new = tl.maximum(m, tl.max(s, axis=1))
        p = tl.exp(s - new[:, None])  # (BLOCK_M, BLOCK_N)
        factor = tl.exp(m - new)
        d = d * factor + tl.sum(p, axis=1)
        acc = acc * factor + tl.sum(p * v[None, :], axis=1)
        m = new
    tl.store(z_ptr + offs_m, acc / d, mask=offs_m < n)
