"""Rung 1, tiles by pointers: any strides, any sizes, scales at the end or by blocks.

Codes are multiplied as they are; `tl.dot` makes of a block of them a tile of float32.
Where scales change along k, and where sums have to be precise, each block of 128 terms
is summed from zero, scaled, and added to what came before by float32's own addition.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from tilebook import device
from tilebook.fp8.products import BLOCK, Product, scale_of
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import check_grid


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile, a power of two from 16 on."""
    block_n: int
    """Columns of it."""
    num_warps: int
    num_stages: int
    """Blocks of terms that are on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 8, 3), Config(128, 128, 8, 3), Config(64, 128, 4, 4)),
    *(Config(64, 64, 4, 4), Config(16, 64, 4, 4), Config(16, 32, 4, 3)),
)
"""What to try on a card, the largest first."""
SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""


@triton.jit
def scales_at(
    ptr, start, side, stride, block, stride_k,
    SIZE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Load the scales of SIZE rows, or columns, for a block of terms: one if they share
    it, or a vector."""
    at = ptr + tl.cast(block, tl.int64) * stride_k
    if GROUP >= SIZE:
        found = tl.load(at + (start // GROUP) * stride)
    else:
        offs = start + tl.arange(0, SIZE)
        found = tl.load(at + (offs // GROUP) * stride, mask=offs < side, other=0.0)
    return found


@triton.jit
def scaled(
    tile, left, right, GROUP_A: tl.constexpr, GROUP_B: tl.constexpr
):  # fmt: skip
    """Multiply a tile with what `scales_at` found for its rows and its columns."""
    if tile.shape[0] > GROUP_A and tile.shape[1] > GROUP_B:
        tile = tile * (left[:, None] * right[None, :])
    elif tile.shape[0] > GROUP_A:
        tile = tile * (left * right)[:, None]
    elif tile.shape[1] > GROUP_B:
        tile = tile * (left * right)[None, :]
    else:
        tile = tile * (left * right)
    return tile


@triton.jit
def finished(
    acc, start_m, start_n, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
    scale_am, scale_bn, bias_n,
    GROUP_A: tl.constexpr, GROUP_B: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Scale a tile, if its blocks haven't been, and add the bias."""
    ROWS: tl.constexpr = acc.shape[0]
    COLUMNS: tl.constexpr = acc.shape[1]
    if not BLOCKS:
        left = scales_at(scale_a_ptr, start_m, m, scale_am, 0, 0, ROWS, GROUP_A)
        right = scales_at(scale_b_ptr, start_n, n, scale_bn, 0, 0, COLUMNS, GROUP_B)
        acc = scaled(acc, left, right, GROUP_A, GROUP_B)
    if bias_ptr is not None:
        offs_n = start_n + tl.arange(0, COLUMNS)
        bias = tl.load(bias_ptr + offs_n * bias_n, mask=offs_n < n, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    return acc


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
    a_m, a_k, b_k, b_n, out_m, out_n, scale_am, scale_ak, scale_bk, scale_bn, bias_n,
    GROUP_A: tl.constexpr, GROUP_B: tl.constexpr,
    BLOCKS: tl.constexpr, FAST: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = grouped(tl.program_id(0), tiles_m, tiles_n, GROUP)
    start_m, start_n = pid_m.to(tl.int64) * BLOCK_M, pid_n.to(tl.int64) * BLOCK_N
    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_n = start_n + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K).to(tl.int64)
    a_ptrs = a_ptr + offs_m[:, None] * a_m + offs_k[None, :] * a_k
    b_ptrs = b_ptr + offs_k[:, None] * b_k + offs_n[None, :] * b_n
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(k, BLOCK_K)):
        if EVEN_K:
            a = tl.load(a_ptrs, mask=in_m, other=0.0)  # (BLOCK_M, BLOCK_K)
            b = tl.load(b_ptrs, mask=in_n, other=0.0)  # (BLOCK_K, BLOCK_N)
        else:
            inside = offs_k < k - tl.cast(step, tl.int64) * BLOCK_K
            a = tl.load(a_ptrs, mask=in_m & inside[None, :], other=0.0)
            b = tl.load(b_ptrs, mask=inside[:, None] & in_n, other=0.0)
        if BLOCKS:
            left = scales_at(
                scale_a_ptr, start_m, m, scale_am, step, scale_ak, BLOCK_M, GROUP_A
            )
            right = scales_at(
                scale_b_ptr, start_n, n, scale_bn, step, scale_bk, BLOCK_N, GROUP_B
            )
            acc += scaled(tl.dot(a, b), left, right, GROUP_A, GROUP_B)
        elif FAST:
            acc = tl.dot(a, b, acc)
        else:
            acc += tl.dot(a, b)
        a_ptrs += BLOCK_K * a_k
        b_ptrs += BLOCK_K * b_k
    acc = finished(
        acc, start_m, start_n, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
        scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, BLOCKS,
    )  # fmt: skip
    tl.store(
        out_ptr + offs_m[:, None] * out_m + offs_n[None, :] * out_n,
        acc.to(out_ptr.dtype.element_ty),
        mask=in_m & in_n,
    )


def scale_arguments(product: Product) -> tuple[tuple, tuple, dict[str, object]]:
    """What kernels are told of a product's scales and bias.

    Args:
        product: the product.

    Returns:
        Tensors, strides, and constants by name.
    """
    a, b = scale_of(product, "a"), scale_of(product, "b")
    bias = product.bias
    strides = (
        *(a.stride, a.stride_k, b.stride_k, b.stride),
        0 if bias is None else bias.stride(0),
    )
    constants = {
        "GROUP_A": a.group,
        "GROUP_B": b.group,
        "BLOCKS": product.blocks,
        "FAST": product.fast,
    }
    return (product.scale_a, product.scale_b, bias), strides, constants


def room(product: Product, config: Config) -> Config | None:
    """Fit a configuration to this process's GPU and to a product.

    Args:
        product: the product.
        config: how it is launched.

    Returns:
        It, with as many stages as shared memory holds, at least one; None if registers
        don't hold its tile, twice where blocks are summed apart.
    """
    apart = product.blocks or not product.fast
    each = config.block_m * config.block_n // (32 * config.num_warps)
    if each * (2 if apart else 1) > 128:
        return None
    has = device.current().shared_memory_per_block or SHARED
    most = has // ((config.block_m + config.block_n) * BLOCK)
    if device.current().backend == "hip":
        most = min(most, 2)
    return config._replace(num_stages=max(1, min(config.num_stages, most)))


def config_for(product: Product) -> Config:
    """Choose how to launch the kernel.

    Args:
        product: the product.

    Returns:
        The largest tile that isn't much larger than the product, and of which there is
        one for each multiprocessor; the smallest that isn't if there is none.
    """
    sms = device.current().sms or 132
    kept = [each for config in CONFIGS if (each := room(product, config))]
    for config in kept:
        rows, columns = config.block_m, config.block_n
        count = -(-product.m // rows) * -(-product.n // columns)
        if (rows <= 16 or product.m > rows // 2) and count >= sms:
            return config
    low = [c for c in kept if c.block_m == (16 if product.m <= 32 else 64)]
    return low[-1]


def launch(product: Product, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        product: the product, with elements.
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: there are more tiles than a grid has programs.
    """
    config = config or config_for(product)
    count = -(-product.m // config.block_m) * -(-product.n // config.block_n)
    tensors, strides, constants = scale_arguments(product)
    product.wrap(matmul_kernel)[(check_grid(count, "tiles", "the product"),)](
        product.a, product.b, product.out, *tensors, product.m, product.n, product.k,
        *product.a.stride(), *product.b.stride(), *product.out.stride(), *strides,
        **constants, EVEN_K=product.k % BLOCK == 0,
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=BLOCK,
        GROUP=config.group, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
