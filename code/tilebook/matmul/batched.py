"""Many products of one shape in one launch, the batch dimensions decoded in the kernel.

A program finds out which matrices are its own from its number, and where they begin
from their strides. One that is the same for all has stride 0: broadcasting costs
nothing, and reads nothing twice that the caches still have.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.matmul.operands import (
    DTYPES,
    Task,
    alone,
    precision_of,
    result_dtype,
)
from tilebook.matmul.split import (
    BLOCK_BYTES,
    block_for,
    divided,
    dot_precision,
    factors,
    narrow,
    products,
    scaled,
    stages_for,
)
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import check_grid


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile."""
    block_n: int
    """Columns of a tile."""
    block_k: int
    """Terms that are loaded at once."""
    num_warps: int = 8
    num_stages: int = 4
    """Blocks of terms on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


MOST_BATCHES = 3
"""Batch dimensions that the kernel tells apart."""


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: one of the products.

    Returns:
        Tiles of 128 by 128, or as low or narrow as the product.
    """
    block_m = block_for(task.m, 128)
    block_n = block_for(task.n, 64 if narrow(task) else 128)
    warps = 8 if block_m * block_n >= 128 * (64 if narrow(task) else 128) else 4
    return Config(
        block_m,
        block_n,
        BLOCK_BYTES // task.a.itemsize,
        warps,
        stages_for(4, block_m, block_n),
    )


@triton.jit
def batched_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
    size_1, size_2,
    stride_a0, stride_a1, stride_a2, stride_b0, stride_b1, stride_b2, stride_o,
    stride_om, stride_on,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
    BY: tl.constexpr,
):  # fmt: skip
    m, n, k = scaled(m, BY[0]), scaled(n, BY[1]), scaled(k, BY[2])
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    batch = tl.program_id(0) // (tiles_m * tiles_n)
    tile = tl.program_id(0) % (tiles_m * tiles_n)
    at_2, rest = (batch % size_2).to(tl.int64), batch // size_2
    at_1, at_0 = (rest % size_1).to(tl.int64), (rest // size_1).to(tl.int64)
    a_ptr += at_0 * stride_a0 + at_1 * stride_a1 + at_2 * stride_a2
    b_ptr += at_0 * stride_b0 + at_1 * stride_b1 + at_2 * stride_b2
    out_ptr += batch.to(tl.int64) * stride_o
    pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    steps = tl.cdiv(k, BLOCK_K).to(tl.int32)
    acc = products(
        a_ptr, b_ptr, offs_m, offs_n, m, n, k,
        scaled(stride_am, BY[3]), scaled(stride_ak, BY[4]),
        scaled(stride_bk, BY[5]), scaled(stride_bn, BY[6]),
        steps * 0, steps, BLOCK_K, EVEN_K, PRECISION,
    )  # fmt: skip
    tl.store(
        out_ptr + offs_m[:, None] * stride_om + offs_n[None, :] * stride_on,
        acc.to(out_ptr.dtype.element_ty),
        mask=(offs_m < m)[:, None] & (offs_n < n)[None, :],
    )


def collapsed(
    a: torch.Tensor, b: torch.Tensor
) -> tuple[list[int], list[int], list[int]]:
    """Join batch dimensions that one stride describes in both operands.

    Args:
        a: (batch..., m, k), expanded to the common batch.
        b: (batch..., k, n), likewise.

    Returns:
        Sizes of as few dimensions as will do, and the strides of `a` and `b` along
        them; dimensions of one element are left out.
    """
    sizes: list[int] = []
    along_a: list[int] = []
    along_b: list[int] = []
    for size, step_a, step_b in zip(
        a.shape[:-2], a.stride()[:-2], b.stride()[:-2], strict=True
    ):
        if size == 1:
            continue
        if sizes and (along_a[-1], along_b[-1]) == (step_a * size, step_b * size):
            sizes[-1] *= size
            along_a[-1], along_b[-1] = step_a, step_b
        else:
            sizes.append(size)
            along_a.append(step_a)
            along_b.append(step_b)
    return sizes, along_a, along_b


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    *,
    precision: str = "ieee",
    config: Config | None = None,
    wrap: Callable[[Any], Any] | None = None,
) -> None:
    """Multiply, and write the result.

    Args:
        a: (batch..., m, k); its operands have been checked.
        b: (batch..., k, n), of a batch that broadcasts with that of `a`.
        out: (batch..., m, n), contiguous.
        precision: of float32, one of `operands.PRECISIONS`.
        config: how to launch; `config_for` chooses by default.
        wrap: makes of a kernel what is launched.

    Raises:
        ValueError: there are more tiles than a grid has programs.

    Notes:
        A batch that more than `MOST_BATCHES` strides describe is copied first.
    """
    if not out.numel():
        return
    if not a.shape[-1]:
        out.zero_()
        return
    batch = out.shape[:-2]
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    sizes, along_a, along_b = collapsed(a, b)
    if len(sizes) > MOST_BATCHES:
        a, b = a.contiguous(), b.contiguous()
        sizes, along_a, along_b = collapsed(a, b)
    missing = MOST_BATCHES - len(sizes)
    sizes = [1] * missing + sizes
    along_a, along_b = [0] * missing + along_a, [0] * missing + along_b
    (m, k), n = a.shape[-2:], b.shape[-1]
    one = tuple([0] * len(batch))
    task = Task(a[one], b[one], out[one], precision)
    config = config or config_for(task)
    count = -(-m // config.block_m) * -(-n // config.block_n)
    grid = (check_grid(count * math.prod(batch), "tiles", "the product"),)
    kernel = wrap(batched_kernel) if wrap else batched_kernel
    with library.on(a):
        kernel[grid](
            a, b, out, *divided(task), *sizes[1:], *along_a, *along_b, m * n,
            *task.out.stride(), BY=factors(task),
            BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
            GROUP=min(config.group, -(-m // config.block_m)),
            EVEN_K=k % config.block_k == 0, PRECISION=dot_precision(task),
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip


def common_batch(a: torch.Tensor, b: torch.Tensor) -> torch.Size:
    """The batch that two operands broadcast to.

    Args:
        a: (batch..., m, k).
        b: (batch..., k, n).

    Returns:
        Its sizes.

    Raises:
        ValueError: they don't broadcast.
    """
    try:
        return torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError:
        raise ValueError(
            "the batch dimensions of b must broadcast with those of a, "
            f"{tuple(a.shape[:-2])}, got {tuple(b.shape[:-2])}"
        ) from None


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply matrices, batch by batch.

    Args:
        a: (batch..., m, k) of a type in `operands.DTYPES`, any strides.
        b: (batch..., k, n), any strides, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.

    Returns:
        Their products (batch..., m, n), contiguous, of the same dtype, or int32 for
        int8; batch dimensions broadcast.

    Raises:
        TypeError: not tensors, a dtype outside `operands.DTYPES`, or two of them.
        ValueError: fewer than two dimensions, sides that don't meet, batches that don't
            broadcast, another precision, two devices, or a tensor where this process's
            kernels can't reach it.
    """
    check.tensor(a, "a", dtype=DTYPES)
    check.tensor(b, "b", dtype=DTYPES)
    check.same_dtype(a=a, b=b)
    check.same_device(a=a, b=b)
    for x, name in ((a, "a"), (b, "b")):
        if x.ndim < 2:
            raise ValueError(f"{name} must have at least 2 dimensions, got {x.ndim}")
        check.runs_here(x, name)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"a must have as many columns as b has rows, got {a.shape[-1]} and "
            f"{b.shape[-2]}"
        )
    a, b = alone(a, "a"), alone(b, "b")
    precision = precision_of(a.dtype, precision)
    shape = (*common_batch(a, b), a.shape[-2], b.shape[-1])
    out = torch.empty(shape, dtype=result_dtype(a.dtype), device=a.device)
    launch(a, b, out, precision=precision)
    return out
