"""Rung 2, descriptors and programs that stay: the copy engine brings both operands.

Tensor cores read eight bits only with the terms of a sum together. So rows of `a` and
columns of `b` have to lie along k; what doesn't is for `tiled`, or for a quantiser that
writes transposes.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device
from tilebook.fp8.products import BLOCK, Product
from tilebook.fp8.tiled import finished, scale_arguments, scaled, scales_at
from tilebook.matmul.descriptors import unfit, unfit_place
from tilebook.softmax.occupancy import programs
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import check_grid

SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile, a power of two from 64 on."""
    block_n: int
    """Columns of it."""
    num_warps: int
    num_stages: int
    """Blocks of terms that are on their way or in use."""
    pieces: int = 1
    """Pieces, 1 or 2, in which a tile is stored."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 8, 4, 2), Config(128, 256, 8, 3, 2), Config(128, 128, 8, 4)),
    *(Config(128, 128, 8, 5), Config(64, 128, 4, 4), Config(64, 64, 4, 6)),
)
"""What to try on a card."""


@triton.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
    scale_am, scale_ak, scale_bk, scale_bn, bias_n,
    GROUP_A: tl.constexpr, GROUP_B: tl.constexpr,
    BLOCKS: tl.constexpr, FAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True
    ):
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        start_m, start_n = pid_m * BLOCK_M, pid_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(tl.cdiv(k, BLOCK_K)):
            a = a_desc.load([start_m, step * BLOCK_K])  # (BLOCK_M, BLOCK_K)
            b = b_desc.load([start_n, step * BLOCK_K])  # (BLOCK_N, BLOCK_K)
            if BLOCKS:
                left = scales_at(
                    scale_a_ptr, start_m.to(tl.int64), m, scale_am, step, scale_ak,
                    BLOCK_M, GROUP_A,
                )  # fmt: skip
                right = scales_at(
                    scale_b_ptr, start_n.to(tl.int64), n, scale_bn, step, scale_bk,
                    BLOCK_N, GROUP_B,
                )  # fmt: skip
                acc += scaled(tl.dot(a, b.T), left, right, GROUP_A, GROUP_B)
            elif FAST:
                acc = tl.dot(a, b.T, acc)
            else:
                acc += tl.dot(a, b.T)
        acc = finished(
            acc, start_m.to(tl.int64), start_n.to(tl.int64), m, n,
            scale_a_ptr, scale_b_ptr, bias_ptr, scale_am, scale_bn, bias_n,
            GROUP_A, GROUP_B, BLOCKS,
        )  # fmt: skip
        if PIECES == 2:
            halves = tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2))
            left, right = tl.split(tl.permute(halves, (0, 2, 1)))
            out_desc.store([start_m, start_n], left.to(out_desc.dtype))
            out_desc.store([start_m, start_n + BLOCK_N // 2], right.to(out_desc.dtype))
        else:
            out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


def refusal(product: Product) -> str | None:
    """Say why a product can't be made by descriptors.

    Args:
        product: the product.

    Returns:
        The first rule that is broken; None if none is.
    """
    for name, x in {"a": product.a, "b's transpose": product.b.t()}.items():
        if reason := unfit(x):
            return f"{name} can't be described: {reason}"
    if reason := unfit_place(product.out):
        return f"out can't be described: {reason}"
    return None


def shared_bytes(product: Product, config: Config) -> int:
    """Count the shared memory of a program; barriers and the like in full."""
    chunk = (config.block_m + config.block_n) * BLOCK
    place = config.block_m * config.block_n * product.out.itemsize // config.pieces
    return config.num_stages * chunk + place + 2048


def room(product: Product, config: Config) -> Config | None:
    """Fit a configuration to this process's GPU and to a product.

    Args:
        product: the product.
        config: how it is launched.

    Returns:
        It, with as many stages as shared memory holds; None if these are fewer than
        two, or registers don't hold its tile, twice where blocks are summed apart.
    """
    has = device.current().shared_memory_per_block or SHARED
    apart = product.blocks or not product.fast
    each = config.block_m * config.block_n // (32 * config.num_warps)
    if each * (2 if apart else 1) > 128:
        return None
    while config.num_stages > 1 and shared_bytes(product, config) > has:
        config = config._replace(num_stages=config.num_stages - 1)
    return config if config.num_stages > 1 else None


def config_for(product: Product) -> Config:
    """Choose how to launch the kernel.

    Args:
        product: the product.

    Returns:
        The largest tile of which there is one for each multiprocessor, or the smallest.
    """
    sms = device.current().sms or 132
    kept = [each for c in CONFIGS if (each := room(product, c))]
    for config in kept:
        rows, columns = config.block_m, config.block_n
        if -(-product.m // rows) * -(-product.n // columns) >= sms:
            return config
    return kept[-1]


def launch(product: Product, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        product: the product, one with terms that `refusal` doesn't refuse.
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := refusal(product):
        raise ValueError(reason)
    config = config or config_for(product)
    rows, columns = config.block_m, config.block_n
    count = -(-product.m // rows) * -(-product.n // columns)
    check_grid(count, "tiles", "the product")
    tensors, strides, constants = scale_arguments(product)
    product.wrap(matmul_kernel)[(programs(count, 8 // config.num_warps),)](
        TensorDescriptor.from_tensor(product.a, [rows, BLOCK]),
        TensorDescriptor.from_tensor(product.b.t(), [columns, BLOCK]),
        TensorDescriptor.from_tensor(product.out, [rows, columns // config.pieces]),
        *tensors, product.m, product.n, product.k, *strides, **constants,
        BLOCK_M=rows, BLOCK_N=columns, BLOCK_K=BLOCK, PIECES=config.pieces,
        GROUP=config.group, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
