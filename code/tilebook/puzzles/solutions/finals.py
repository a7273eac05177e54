"""Our solutions to puzzles 25 to 27."""

import triton
import triton.language as tl


@triton.jit
def split_k_kernel(
    x_ptr, y_ptr, z_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
    mask_m, mask_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(tl.program_id(2) * BLOCK_K, k, SPLITS * BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K).to(tl.int64)
        x = tl.load(  # (BLOCK_M, BLOCK_K)
            x_ptr + offs_m[:, None] * k + offs_k[None, :],
            mask=mask_m & (offs_k < k)[None, :],
            other=0.0,
        )
        y = tl.load(  # (BLOCK_K, BLOCK_N)
            y_ptr + offs_k[:, None] * n + offs_n[None, :],
            mask=(offs_k < k)[:, None] & mask_n,
            other=0.0,
        )
        acc = tl.dot(x, y, acc)
    at = offs_m[:, None] * n + offs_n[None, :]
    tl.atomic_add(z_ptr + at, acc, mask=mask_m & mask_n)


@triton.jit
def layer_norm_gradient_kernel(
    x_ptr, w_ptr, dy_ptr, dx_ptr, dw_ptr, db_ptr, n, eps, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * n
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + row + offs, mask=mask, other=0.0)  # (BLOCK,)
    dy = tl.load(dy_ptr + row + offs, mask=mask, other=0.0)  # (BLOCK,)
    w = tl.load(w_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    centred = tl.where(mask, x - tl.sum(x, axis=0) / n, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / n + eps)
    hat = centred * rstd
    g = w * dy
    mean = tl.sum(g, axis=0) / n
    along = tl.sum(g * hat, axis=0) / n
    tl.store(dx_ptr + row + offs, (g - mean - hat * along) * rstd, mask=mask)
    # Every row adds to the same elements.
    tl.atomic_add(dw_ptr + offs, dy * hat, mask=mask)
    tl.atomic_add(db_ptr + offs, dy, mask=mask)


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, z_ptr, m, n, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, D)[None, :]
    mask_m = (offs_m < m)[:, None]
    at = offs_m[:, None] * D + offs_d
    q = tl.load(q_ptr + at, mask=mask_m, other=0.0)  # (BLOCK_M, D)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    d = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    last = offs_m + n - m
    # Keys that no query of this program sees are not read.
    for start in range(0, tl.minimum(n, tl.max(last, axis=0) + 1), BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_n = (offs_n < n)[:, None]
        at_n = offs_n[:, None] * D + offs_d
        k = tl.load(k_ptr + at_n, mask=mask_n, other=0.0)  # (BLOCK_N, D)
        v = tl.load(v_ptr + at_n, mask=mask_n, other=0.0)  # (BLOCK_N, D)
        s = tl.dot(q, tl.trans(k)) * scale  # (BLOCK_M, BLOCK_N)
        sees = (offs_n < n)[None, :] & (offs_n[None, :] <= last[:, None])
        s = tl.where(sees, s, float("-inf"))
        # Key 0 is seen by every query, so no maximum stays -inf.
        new = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp(s - new[:, None])
        factor = tl.exp(top - new)
        d = d * factor + tl.sum(p, axis=1)
        acc = tl.dot(p.to(tl.float16), v, acc * factor[:, None])
        top = new
    tl.store(z_ptr + at, (acc / d[:, None]).to(tl.float16), mask=mask_m)
