"""Our solutions to puzzles 1 to 6."""

import triton
import triton.language as tl


@triton.jit
def add_ten_kernel(x_ptr, z_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)  # (BLOCK,)
    tl.store(z_ptr + offs, x + 10.0)


@triton.jit
def add_ten_blocks_kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(z_ptr + offs, x + 10.0, mask=mask)


@triton.jit
def outer_sum_kernel(x_ptr, y_ptr, z_ptr, M: tl.constexpr, N: tl.constexpr):
    offs_m = tl.arange(0, M)
    offs_n = tl.arange(0, N)
    x = tl.load(x_ptr + offs_n)  # (N,)
    y = tl.load(y_ptr + offs_m)  # (M,)
    z = y[:, None] + x[None, :]
    tl.store(z_ptr + offs_m[:, None] * N + offs_n[None, :], z)


@triton.jit
def outer_sum_tiles_kernel(
    x_ptr, y_ptr, z_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_m, mask_n = offs_m < m, offs_n < n
    x = tl.load(x_ptr + offs_n, mask=mask_n, other=0.0)  # (BLOCK_N,)
    y = tl.load(y_ptr + offs_m, mask=mask_m, other=0.0)  # (BLOCK_M,)
    z = y[:, None] + x[None, :]
    mask = mask_m[:, None] & mask_n[None, :]
    tl.store(z_ptr + offs_m[:, None] * n + offs_n[None, :], z, mask=mask)


@triton.jit
def outer_relu_kernel(
    x_ptr, y_ptr, z_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_m, mask_n = offs_m < m, offs_n < n
    x = tl.load(x_ptr + offs_n, mask=mask_n, other=0.0)  # (BLOCK_N,)
    y = tl.load(y_ptr + offs_m, mask=mask_m, other=0.0)  # (BLOCK_M,)
    z = tl.maximum(y[:, None] * x[None, :], 0.0)
    mask = mask_m[:, None] & mask_n[None, :]
    tl.store(z_ptr + offs_m[:, None] * n + offs_n[None, :], z, mask=mask)


@triton.jit
def relu_gradient_kernel(
    x_ptr, y_ptr, dz_ptr, dx_ptr, m, n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs = offs_m[:, None] * n + offs_n[None, :]
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK_M, BLOCK_N)
    dz = tl.load(dz_ptr + offs, mask=mask, other=0.0)  # (BLOCK_M, BLOCK_N)
    y = tl.load(y_ptr + offs_m, mask=offs_m < m, other=0.0)  # (BLOCK_M,)
    y = y[:, None]
    # Strictly: at the corner PyTorch's gradient is 0.
    tl.store(dx_ptr + offs, tl.where(x * y > 0, dz * y, 0.0), mask=mask)
