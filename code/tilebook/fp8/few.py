"""Rung 3, few rows: sides swapped, and the terms of a sum shared out.

A product of one to 128 rows reads all of `b` for little work, and memory is what limits
it. Tensor cores multiply at least 64 rows at a time, but as few as eight columns. So
columns of `b` stand here where rows stood: nothing is padded but a few of the rows. And
there are too few tiles for all multiprocessors to read at once: each tile's sum over k
is cut into parts. A second kernel adds them in a fixed order, scales, and adds the
bias.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device
from tilebook.fp8.products import BLOCK, Product
from tilebook.fp8.tiled import finished, scale_arguments, scaled, scales_at
from tilebook.matmul.descriptors import unfit
from tilebook.matmul.operands import compiled, itself
from tilebook.tiling.operands import check_grid

MOST = 128
"""Rows up to which the kernels serve."""
SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""
SUM_ELEMENTS = 1024
"""Of a tile of the second kernel."""
UNROLL = 4
"""Parts that the second kernel asks for at once."""


class Config(NamedTuple):
    """How the kernels are launched."""

    block_n: int
    """Columns of `b` in a tile, a power of two from 64 on."""
    block_k: int
    """Terms that are loaded at a time: 128, or 256 in a fast product."""
    parts: int
    """Programs that share a tile's sums, if there are so many blocks of terms."""
    num_stages: int
    """Blocks of terms that are on their way or in use."""


@triton.jit
def parts_kernel(
    a_desc, b_desc, out_ptr, scale_a_ptr, scale_b_ptr, bias_ptr, m, n, k,
    out_p, out_m, out_n, scale_am, scale_ak, scale_bk, scale_bn, bias_n, span,
    GROUP_A: tl.constexpr, GROUP_B: tl.constexpr,
    BLOCKS: tl.constexpr, FAST: tl.constexpr, FINISH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        # The second kernel may be brought here, and wait here, once all of this runs.
        gdc_launch_dependents()
    tiles_n = tl.cdiv(n, BLOCK_N)
    part, tile = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    start_n = tile * BLOCK_N
    wide_n = start_n.to(tl.int64)
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for step in range(part * span, tl.minimum((part + 1) * span, tl.cdiv(k, BLOCK_K))):
        a = a_desc.load([0, step * BLOCK_K])  # (BLOCK_M, BLOCK_K)
        b = b_desc.load([start_n, step * BLOCK_K])  # (BLOCK_N, BLOCK_K)
        if BLOCKS:
            left = scales_at(
                scale_b_ptr, wide_n, n, scale_bn, step, scale_bk, BLOCK_N, GROUP_B
            )
            right = scales_at(
                scale_a_ptr, 0, m, scale_am, step, scale_ak, BLOCK_M, GROUP_A
            )
            acc += scaled(tl.dot(b, a.T), left, right, GROUP_B, GROUP_A)
        elif FAST:
            acc = tl.dot(b, a.T, acc)
        else:
            acc += tl.dot(b, a.T)
    acc = tl.trans(acc)  # (BLOCK_M, BLOCK_N)
    if FINISH:
        acc = finished(
            acc, 0, wide_n, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
            scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, BLOCKS,
        )  # fmt: skip
    offs_m, offs_n = tl.arange(0, BLOCK_M), wide_n + tl.arange(0, BLOCK_N)
    tl.store(
        out_ptr + part.to(tl.int64) * out_p + offs_m[:, None] * out_m
        + offs_n[None, :] * out_n,
        acc.to(out_ptr.dtype.element_ty),
        mask=(offs_m < m)[:, None] & (offs_n < n)[None, :],
    )  # fmt: skip


@triton.jit
def sum_kernel(
    parts_ptr, out_ptr, scale_a_ptr, scale_b_ptr, bias_ptr, m, n, parts,
    out_m, out_n, scale_am, scale_bn, bias_n,
    GROUP_A: tl.constexpr, GROUP_B: tl.constexpr, BLOCKS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        # Until the first kernel has ended and its parts can be seen.
        gdc_wait()
    tiles_n = tl.cdiv(n, BLOCK_N)
    start_m = (tl.program_id(0) // tiles_n).to(tl.int64) * BLOCK_M
    start_n = (tl.program_id(0) % tiles_n).to(tl.int64) * BLOCK_N
    offs_m, offs_n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    at = parts_ptr + offs_m[:, None] * n + offs_n[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # The loads of a turn don't wait for one another; the sums keep their order.
    for first in range(0, parts, UNROLL):
        for j in tl.static_range(UNROLL):
            part = tl.cast(first + j, tl.int64)
            acc += tl.load(at + part * m * n, mask=mask & (part < parts), other=0.0)
    acc = finished(
        acc, start_m, start_n, m, n, scale_a_ptr, scale_b_ptr, bias_ptr,
        scale_am, scale_bn, bias_n, GROUP_A, GROUP_B, BLOCKS,
    )  # fmt: skip
    tl.store(
        out_ptr + offs_m[:, None] * out_m + offs_n[None, :] * out_n,
        acc.to(out_ptr.dtype.element_ty),
        mask=mask,
    )


def refusal(product: Product) -> str | None:
    """Say why a product can't be made by these kernels.

    Args:
        product: the product.

    Returns:
        The first rule that is broken; None if none is.
    """
    if product.m > MOST:
        return f"it must have at most {MOST} rows, got {product.m}"
    for name, x in {"a": product.a, "b's transpose": product.b.t()}.items():
        if reason := unfit(x):
            return f"{name} can't be described: {reason}"
    return None


def rows(product: Product) -> int:
    """Rows of a tile: the power of two from 16 on that covers all."""
    return max(16, triton.next_power_of_2(product.m))


def warps(product: Product, config: Config) -> int:
    """Warps that share a tile: twice as many where a thread has two tiles of sums.

    With eight, Triton 3.6 makes `wgmma` of a fast sum wait for each other (ptxas says
    so, C7515).
    """
    apart = product.blocks or not product.fast
    return config.block_n // 16 if apart else 4


def shared_bytes(product: Product, config: Config) -> int:
    """Count the shared memory of a program; barriers and the like in full."""
    chunk = (rows(product) + config.block_n) * config.block_k
    # The tile passes through it when it is turned, after the last block.
    turned = rows(product) * config.block_n * 4
    return max(config.num_stages * chunk, turned) + 1024


def room(product: Product, config: Config) -> Config | None:
    """Fit a configuration to this process's GPU and to a product.

    Args:
        product: the product.
        config: how it is launched.

    Returns:
        It, with as many parts as there are blocks of terms, at most, and as many stages
        as shared memory holds; None if these are fewer than two, or a block is longer
        than what is to be summed apart.
    """
    if config.block_k != BLOCK and (product.blocks or not product.fast):
        return None
    has = device.current().shared_memory_per_block or SHARED
    while config.num_stages > 1 and shared_bytes(product, config) > has:
        config = config._replace(num_stages=config.num_stages - 1)
    steps = -(-product.k // config.block_k)
    config = config._replace(parts=min(config.parts, steps))
    return config if config.num_stages > 1 else None


def configs(product: Product) -> list[Config]:
    """What to try on a card.

    Args:
        product: the product.

    Returns:
        Wide and narrow tiles, each with parts for one to three programs on a
        multiprocessor, of at least four blocks of terms.
    """
    sms = device.current().sms or 132
    found = []
    for block_n, block_k, stages in ((64, 256, 4), (64, 128, 6), (128, 128, 5)):
        tiles, steps = -(-product.n // block_n), -(-product.k // block_k)
        for each in (1, 2, 3):
            parts = max(1, min(each * sms // tiles, steps // 4))
            config = room(product, Config(block_n, block_k, parts, stages))
            found += [config] if config else []
    return list(dict.fromkeys(found))


def config_for(product: Product) -> Config:
    """Choose how to launch the kernels.

    Args:
        product: the product.

    Returns:
        The narrow tile, with parts for about two programs on a multiprocessor.
    """
    sms = device.current().sms or 132
    tiles, steps = -(-product.n // 64), -(-product.k // BLOCK)
    parts = max(1, min(2 * sms // tiles, steps // 4))
    return room(product, Config(64, BLOCK, parts, 6))


def launch(product: Product, config: Config | None = None) -> None:
    """Launch the kernels: one where there is one part, else two.

    Args:
        product: the product, one with terms that `refusal` doesn't refuse.
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: the product is refused, or has more tiles than a grid has programs.
    """
    if reason := refusal(product):
        raise ValueError(reason)
    config = config or config_for(product)
    m, n, k = product.m, product.n, product.k
    steps = -(-k // config.block_k)
    span = -(-steps // config.parts)
    # No part without a block of terms.
    parts = -(-steps // span)
    out, place = product.out, (0, *product.out.stride())
    if parts > 1:
        out = torch.empty(parts, m, n, dtype=torch.float32, device=out.device)
        place = out.stride()
    pdl = device.has("pdl") and product.wrap in (itself, compiled) and parts > 1
    early = {"launch_pdl": True} if pdl else {}
    tensors, strides, constants = scale_arguments(product)
    count = check_grid(-(-n // config.block_n) * parts, "parts of tiles", "the product")
    product.wrap(parts_kernel)[(count,)](
        TensorDescriptor.from_tensor(product.a, [rows(product), config.block_k]),
        TensorDescriptor.from_tensor(product.b.t(), [config.block_n, config.block_k]),
        out, *tensors, m, n, k, *place, *strides, span, **constants,
        FINISH=parts == 1, BLOCK_M=rows(product), BLOCK_N=config.block_n,
        BLOCK_K=config.block_k, DEPENDENT=pdl,
        num_warps=warps(product, config), num_stages=config.num_stages,
    )  # fmt: skip
    if parts == 1:
        return
    wide = min(128, triton.next_power_of_2(n))
    tall = min(SUM_ELEMENTS // wide, triton.next_power_of_2(m))
    scale_am, _, _, scale_bn, bias_n = strides
    del constants["FAST"]
    product.wrap(sum_kernel)[(-(-m // tall) * -(-n // wide),)](
        out, product.out, *tensors, m, n, parts, *product.out.stride(),
        scale_am, scale_bn, bias_n, **constants,
        BLOCK_M=tall, BLOCK_N=wide, UNROLL=UNROLL, DEPENDENT=pdl, num_warps=4, **early,
    )  # fmt: skip
