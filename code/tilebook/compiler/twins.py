"""The three programs as Triton's own front end takes them, to compare what is made."""

import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """`kernels.add` in Triton's language."""
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, x + y, mask=mask)


@triton.jit
def softmax_kernel(x_ptr, out_ptr, n, stride_x, stride_out, BLOCK: tl.constexpr):
    """`kernels.softmax` in Triton's language."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + row * stride_x + offs, mask=mask, other=-float("inf"))
    x = x.to(tl.float32)
    power = tl.exp(x - tl.max(x, axis=0))
    out = power / tl.sum(power, axis=0)
    tl.store(out_ptr + row * stride_out + offs, out, mask=mask)


@triton.jit
def matmul_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_am,
    stride_bk,
    stride_om,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`kernels.matmul` in Triton's language."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    terms = tl.arange(0, BLOCK_K)
    a_rows = a_ptr + rows.to(tl.int64)[:, None] * stride_am
    b_columns = b_ptr + columns[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs = start + terms
        a = tl.load(
            a_rows + offs[None, :],
            mask=(rows < m)[:, None] & (offs < k)[None, :],
            other=0.0,
        )
        b = tl.load(
            b_columns + offs.to(tl.int64)[:, None] * stride_bk,
            mask=(offs < k)[:, None] & (columns < n)[None, :],
            other=0.0,
        )
        acc = tl.dot(a, b, acc, input_precision="ieee")
    mask = (rows < m)[:, None] & (columns < n)[None, :]
    to = out_ptr + rows.to(tl.int64)[:, None] * stride_om + columns[None, :]
    tl.store(to, acc.to(out_ptr.dtype.element_ty), mask=mask)
