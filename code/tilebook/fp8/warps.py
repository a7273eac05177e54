"""What the chapter's Gluon kernels share: how they are launched, and how sums end.

Who brings blocks of terms and when they are free is as in `tilebook.hopper.wgmma`: a
chunk is a block of 128 terms. Tensor cores read eight bits with the terms of a sum
together: `b` comes as its transpose, and is turned where it lies, by reading.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma_init
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import device
from tilebook.fp8 import described, products
from tilebook.fp8.products import BLOCK, Product
from tilebook.fp8.tiled import scale_arguments
from tilebook.hopper.wgmma import begin
from tilebook.matmul import estimates
from tilebook.softmax.occupancy import programs
from tilebook.tiling.operands import check_grid

TYPES = {
    torch.float8_e4m3fn: gl.float8e4nv,
    torch.float8_e5m2: gl.float8e5,
    torch.bfloat16: gl.bfloat16,
    torch.float16: gl.float16,
}
"""Gluon's names of the operands' types and of the results'."""
RESULTS = (torch.bfloat16, torch.float16)
SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""
BARRIERS = 1024
"""Bytes that barriers and alignment take, at most."""


class Config(NamedTuple):
    """How a kernel is launched."""

    block_m: int
    """Rows of a tile of the product, shared by two groups of four warps."""
    block_n: int
    """Columns of it, a power of two from 16 to 256."""
    num_stages: int
    """Blocks of terms that are on their way or in use."""
    pieces: int = 1
    """Pieces, 1 or 2, in which a tile is stored."""
    group: int = 8
    """Rows of tiles in a strip."""


@gluon.jit
def scales_at(
    ptr, start, side, stride, block, blocks, stride_k,
    SIZE: gl.constexpr, GROUP: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Load the scales of SIZE rows, or columns, for a block of terms: one if they share
    it, or a vector; 0 past the last block."""
    if GROUP >= SIZE:
        place = ptr + start // GROUP * stride + block * stride_k
        found = gl.load(place, mask=block < blocks, other=0.0)
    else:
        offs = gl.arange(0, SIZE, layout=layout) + start
        found = gl.load(
            ptr + (offs // GROUP * stride + block * stride_k),
            mask=(offs < side) & (block < blocks),
            other=0.0,
        )
    return found


@gluon.jit
def rows_of(found, SIZE: gl.constexpr, GROUP: gl.constexpr):
    """What `scales_at` found for rows, as a column."""
    return gl.expand_dims(found, 1) if GROUP < SIZE else found


@gluon.jit
def columns_of(found, SIZE: gl.constexpr, GROUP: gl.constexpr):
    """What `scales_at` found for columns, as a row."""
    return gl.expand_dims(found, 0) if GROUP < SIZE else found


@gluon.jit
def asked(
    scale_a_ptr, scale_b_ptr, row, column, m,
    scale_am, scale_ak, scale_bk, scale_bn, block, blocks,
    ROWS: gl.constexpr, COLUMNS: gl.constexpr,
    GROUP_A: gl.constexpr, GROUP_B: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Ask for the scales of a block: those of a tile's rows, and that of its columns if
    they share one, once for each row; 0 below the last row and past the last block.

    A number that a whole warp has in common goes to a register in common, and there the
    warp waits for it before its products are done. What differs between rows doesn't.
    """
    down: gl.constexpr = gl.SliceLayout(1, layout)
    offs = gl.arange(0, ROWS, layout=down) + row
    inside = (offs < m) & (block < blocks)
    at = offs // GROUP_A * scale_am + block * scale_ak
    left = gl.load(scale_a_ptr + at, mask=inside, other=0.0)
    right = left
    if GROUP_B >= COLUMNS:
        here = column // GROUP_B * scale_bn + block * scale_bk
        right = gl.load(
            scale_b_ptr + gl.zeros([ROWS], gl.int32, down) + here,
            mask=inside,
            other=0.0,
        )
    return left, right


@gluon.jit
def added(
    sums, found, left, right, scale_b_ptr, column, n, scale_bn, scale_bk, block, blocks,
    GROUP_B: gl.constexpr, BLOCKS: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Scale a block's sums by what was asked for, where scales change along k, and add
    them."""
    COLUMNS: gl.constexpr = sums.shape[1]
    if BLOCKS:
        if GROUP_B < COLUMNS:
            # Of columns there are many scales: registers have no room for more of them.
            many = scales_at(
                scale_b_ptr, column, n, scale_bn, block, blocks, scale_bk,
                COLUMNS, GROUP_B, gl.SliceLayout(0, layout),
            )  # fmt: skip
            found = found * columns_of(many, COLUMNS, GROUP_B)
            sums = sums + found * gl.expand_dims(left, 1)
        else:
            sums = sums + found * gl.expand_dims(left * right, 1)
    else:
        sums = sums + found
    return sums


@gluon.jit
def start(
    a_ring, b_ring, arrived, chunk,
    PART: gl.constexpr, HALF: gl.constexpr, BLOCK_N: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Wait for a block and begin to multiply it, from zero."""
    acc = warpgroup_mma_init(gl.zeros([HALF, BLOCK_N], gl.float32, layout))
    return begin(acc, a_ring, b_ring, arrived, chunk, False, PART, 2, False, True)


@gluon.jit
def finished(
    sums, row, column, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
    scale_am, scale_bn, bias_n,
    GROUP_A: gl.constexpr, GROUP_B: gl.constexpr, BLOCKS: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """Scale a tile, if its blocks haven't been, and add the bias."""
    ROWS: gl.constexpr = sums.shape[0]
    COLUMNS: gl.constexpr = sums.shape[1]
    across: gl.constexpr = gl.SliceLayout(0, layout)
    if not BLOCKS:
        left = scales_at(
            scale_a_ptr, row, m, scale_am, 0, 1, 0, ROWS, GROUP_A,
            gl.SliceLayout(1, layout),
        )  # fmt: skip
        right = scales_at(
            scale_b_ptr, column, n, scale_bn, 0, 1, 0, COLUMNS, GROUP_B, across
        )
        sums = sums * rows_of(left, ROWS, GROUP_A)
        sums = sums * columns_of(right, COLUMNS, GROUP_B)
    if bias_ptr is not None:
        offs = gl.arange(0, COLUMNS, layout=across) + column
        bias = gl.load(bias_ptr + offs * bias_n, mask=offs < n, other=0.0)
        sums = sums + gl.expand_dims(bias.to(gl.float32), 0)
    return sums


def refusal(product: Product) -> str | None:
    """Say why these kernels can't make a product.

    Args:
        product: the product.

    Returns:
        The first rule that is broken; None if none is.
    """
    if product.out.dtype not in RESULTS:
        return f"the result must be of bfloat16 or float16, got {product.out.dtype}"
    if reason := described.refusal(product):
        return reason
    for name, x in (("scale_a", product.scale_a), ("scale_b", product.scale_b)):
        sizes = zip(x.shape, x.stride(), strict=True)
        if sum((size - 1) * stride for size, stride in sizes) >= 2**31:
            return f"{name} must lie within 2^31 elements"
    return None


def shared_bytes(config: Config) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
    """
    chunk = (config.block_m + config.block_n) * BLOCK
    place = config.block_m * config.block_n // config.pieces
    return config.num_stages * chunk + 2 * place + BARRIERS


def room(
    config: Config, counted: Callable[[Config], int] = shared_bytes
) -> Config | None:
    """Fit a configuration to this process's GPU.

    Args:
        config: how the kernel is launched.
        counted: counts the shared memory of a program.

    Returns:
        It, with as many stages as shared memory holds; None if that is fewer than two.
    """
    has = device.current().shared_memory_per_block or SHARED
    while config.num_stages > 1 and counted(config) > has:
        config = config._replace(num_stages=config.num_stages - 1)
    return config if config.num_stages > 1 else None


def seconds(product: Product, config: Config) -> float:
    """Estimate how long a product takes; see `products.seconds`.

    Args:
        product: the product.
        config: how it is launched.
    """
    sides = (config.block_m, config.block_n, BLOCK)
    # Eight warps multiply, whoever else there is.
    return products.seconds(product, estimates.Tile(*sides, 8, config.num_stages, 1))


def config_for(
    product: Product,
    configs: Iterable[Config],
    counted: Callable[[Config], int] = shared_bytes,
) -> Config:
    """Choose how to launch a kernel: the first of those that should cost least.

    Args:
        product: the product.
        configs: to choose from.
        counted: counts the shared memory of a program.
    """
    fitted = [each for config in configs if (each := room(config, counted))]
    return min(fitted, key=lambda c: seconds(product, c))


def describe(x: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Make the copy engine's description of a matrix, swizzled as tensor cores read it.

    Args:
        x: the matrix.
        rows: of a tile.
        columns: of it.
    """
    layout = gl.NVMMASharedLayout.get_default_for([rows, columns], TYPES[x.dtype])
    return TensorDescriptor.from_tensor(x, [rows, columns], layout)


def launch(
    kernel: Any, product: Product, config: Config, meta: Mapping[str, Any]
) -> None:
    """Describe the matrices and launch a kernel.

    Args:
        kernel: the kernel.
        product: the product, one with terms that `refusal` doesn't refuse.
        config: how.
        meta: more constants and options.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := refusal(product):
        raise ValueError(reason)
    rows, columns = config.block_m, config.block_n
    count = -(-product.m // rows) * -(-product.n // columns)
    check_grid(count, "tiles", "the product")
    tensors, strides, constants = scale_arguments(product)
    product.wrap(kernel)[(programs(count, 1),)](
        describe(product.a, rows // 2, BLOCK),
        describe(product.b.t(), columns, BLOCK),
        describe(product.out, rows // 2, columns // config.pieces),
        *tensors, product.m, product.n, product.k, *strides,
        BLOCK_M=rows, BLOCK_N=columns, BLOCK_K=BLOCK, STAGES=config.num_stages,
        GROUP=config.group, **constants, **meta,
    )  # fmt: skip
