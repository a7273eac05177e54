"""Few tiles and long sums: the terms of a tile shared out among programs.

A product of 64 rows has few tiles, and most multiprocessors nothing to do. Here the sum
over k is cut into parts, and each program sums one part of one tile. What they find
goes to a workspace in float32; a second kernel adds the parts in a fixed order and does
what is to be done to the product besides, once all of it is there. The order is fixed,
and so are the bits.

With `atomic` there is one buffer for all parts, to which they add as they come: less
memory, and another rounding in each run, for float32 addition isn't associative. (For
int8 it is int32's addition, which is.)
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from tilebook import device, library
from tilebook.matmul.epilogues import arguments, finish, offsets_of, put
from tilebook.matmul.operands import (
    Task,
    compiled,
    divided,
    factors,
    itself,
    narrow,
    task_of,
)
from tilebook.matmul.ordered import scaled
from tilebook.tiling.operands import check_grid


class Config(NamedTuple):
    """How the two kernels are launched."""

    block_m: int
    """Rows of a tile, a power of two from 16 on."""
    block_n: int
    """Columns of a tile."""
    block_k: int
    """Terms that are loaded at once."""
    parts: int
    """Programs that share a tile."""
    num_warps: int = 4
    num_stages: int = 5
    """Blocks of terms on their way or in use."""
    atomic: bool = False
    """Whether parts are added as they come: not deterministic."""


PER_SM = 2
"""Programs for each multiprocessor, if the sums are long enough."""
LEAST_STEPS = 4
"""Blocks of terms in a part: fewer, and the pipeline never fills."""
BLOCK_BYTES = 128
"""Of a row of a block of terms."""
PRETENDED = 132
"""Multiprocessors where there are none."""
SHARED = 227 * 1024
"""Bytes of shared memory where there is none: a program's, on Hopper."""
SUM_ELEMENTS = 1024
"""Of a tile of the second kernel."""
UNROLL = 8
"""Parts that the second kernel asks for at once."""


def config_for(
    task: Task, *, block_bytes: int = BLOCK_BYTES, per_sm: int = PER_SM, stages: int = 5
) -> Config:
    """Choose how to launch the kernels.

    Args:
        task: the product.
        block_bytes: of a row of a block of terms.
        per_sm: programs for each multiprocessor, if the sums are long enough.
        stages: blocks of terms on their way or in use, if shared memory holds them.

    Returns:
        Tiles as low as the product, and as many parts as give each multiprocessor
        `per_sm` programs, but none of fewer than `LEAST_STEPS` blocks of terms.
    """
    block_m = block_for(task.m, 64)
    wide = block_m < 64 and task.n >= 128 and not narrow(task)
    block_n = 128 if wide else 64
    # float32 as it is is multiplied from registers, which hold half as many terms.
    exact = task.a.dtype == torch.float32 and task.precision == "ieee"
    block_k = block_bytes // task.a.itemsize // (2 if exact else 1)
    count = -(-task.m // block_m) * -(-task.n // block_n)
    wanted = per_sm * (device.current().sms or PRETENDED) // max(count, 1)
    steps = -(-task.k // block_k)
    parts = max(min(wanted, steps // LEAST_STEPS), 1)
    stages = stages_for(stages, block_m, block_n, block_bytes)
    return Config(block_m, block_n, block_k, parts, 4, stages)


def configs(task: Task) -> list[Config]:
    """What to try on a card.

    Args:
        task: the product.

    Returns:
        Of two bytes an element long blocks of terms, with a program or two for each
        multiprocessor, of others short ones; those of more than one part.
    """
    if task.a.itemsize == 2:
        # Low tiles have little to wait for, high ones a long way to load.
        deep = 5 if block_for(task.m, 64) > 32 else 3
        tried = [
            config_for(task, block_bytes=2 * BLOCK_BYTES, per_sm=per_sm, stages=stages)
            for per_sm, stages in ((1, deep), (2, 3))
        ]
    else:
        tried = [config_for(task)]
    return [config for config in dict.fromkeys(tried) if config.parts > 1]


def block_for(size: int, most: int) -> int:
    """The power of two from 16 to `most` that covers a side, or else `most`."""
    return max(16, min(most, triton.next_power_of_2(max(size, 1))))


def stages_for(
    wanted: int, block_m: int, block_n: int, block_bytes: int = BLOCK_BYTES
) -> int:
    """Stages of a pipeline: as many as are wanted, or as shared memory holds."""
    has = device.current().shared_memory_per_block or SHARED
    if device.current().backend == "hip":
        wanted = 2
    return max(min(wanted, has // ((block_m + block_n) * block_bytes)), 1)


def sum_dtype(task: Task) -> torch.dtype:
    """What products are summed in."""
    return torch.int32 if task.a.dtype == torch.int8 else torch.float32


def dot_precision(task: Task) -> str:
    """A task's precision, for `tl.dot`; one for all that isn't float32."""
    return task.precision if task.a.dtype == torch.float32 else "ieee"


def dependent(task: Task) -> bool:
    """Whether a second kernel is launched while the first still runs, and waits there.

    Args:
        task: the product.

    Returns:
        True on GPUs that can (programmatic dependent launch), unless the launch belongs
        to somebody else.
    """
    return device.has("pdl") and task.wrap in (itself, compiled)


@triton.jit
def products(
    a_ptr, b_ptr, offs_m, offs_n, m, n, k, stride_am, stride_ak, stride_bk, stride_bn,
    first, last,
    BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the blocks of terms from `first` to before `last` for one tile; strides have
    64 bits."""
    INTEGER: tl.constexpr = a_ptr.dtype.element_ty == tl.int8
    offs_k = first.to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    a_ptrs = a_ptr + offs_m[:, None] * stride_am + offs_k[None, :] * stride_ak
    b_ptrs = b_ptr + offs_k[:, None] * stride_bk + offs_n[None, :] * stride_bn
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros(
        (offs_m.shape[0], offs_n.shape[0]), tl.int32 if INTEGER else tl.float32
    )
    for step in range(first, last):
        if EVEN_K:
            a = tl.load(a_ptrs, mask=in_m, other=0)  # (BLOCK_M, BLOCK_K)
            b = tl.load(b_ptrs, mask=in_n, other=0)  # (BLOCK_K, BLOCK_N)
        else:
            left = tl.minimum(k - tl.cast(step, tl.int64) * BLOCK_K, BLOCK_K)
            inside = tl.arange(0, BLOCK_K) < left.to(tl.int32)
            a = tl.load(a_ptrs, mask=in_m & inside[None, :], other=0)
            b = tl.load(b_ptrs, mask=inside[:, None] & in_n, other=0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
        a_ptrs += stride_ak * BLOCK_K
        b_ptrs += stride_bk * BLOCK_K
    return acc


@triton.jit(do_not_specialize=["span"])
def parts_kernel(
    a_ptr, b_ptr, parts_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, span,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr, PRECISION: tl.constexpr, ATOMIC: tl.constexpr,
    BY: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        # The second kernel may be brought here, and wait here, once all of this runs.
        gdc_launch_dependents()
    m, n, k = scaled(m, BY[0]), scaled(n, BY[1]), scaled(k, BY[2])
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    pid = tl.program_id(0)
    part, tile = pid // (tiles_m * tiles_n), pid % (tiles_m * tiles_n)
    # Tiles below one another read the same columns of b.
    pid_m, pid_n = tile % tiles_m, tile // tiles_m
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = part * span
    last = tl.minimum(first + span, tl.cdiv(k, BLOCK_K).to(tl.int32))
    acc = products(
        a_ptr, b_ptr, offs_m, offs_n, m, n, k,
        scaled(stride_am, BY[3]), scaled(stride_ak, BY[4]),
        scaled(stride_bk, BY[5]), scaled(stride_bn, BY[6]),
        first, last, BLOCK_K, EVEN_K, PRECISION,
    )  # fmt: skip
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    at = offs_m[:, None] * n + offs_n[None, :]
    if ATOMIC:
        tl.atomic_add(parts_ptr + at, acc, mask=mask, sem="relaxed")
    else:
        tl.store(parts_ptr + part * (m * n) + at, acc, mask=mask)


@triton.jit(do_not_specialize=["parts"])
def sum_kernel(
    parts_ptr, out_ptr, m, n, parts, stride_p, stride_pm, stride_pn,
    stride_om, stride_on,
    scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    UNROLL: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        # Until the first kernel has ended and its parts can be seen.
        gdc_wait()
    tiles_n = tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    at = parts_ptr + offs_m[:, None] * stride_pm + offs_n[None, :] * stride_pn
    acc = tl.zeros((BLOCK_M, BLOCK_N), parts_ptr.dtype.element_ty)
    # The loads of a turn don't wait for one another; the sums keep their order.
    for start in range(0, parts, UNROLL):
        for j in tl.static_range(UNROLL):
            part = start + j
            acc += tl.load(
                at + tl.cast(part, tl.int64) * stride_p,
                mask=mask & (part < parts),
                other=0,
            )  # (BLOCK_M, BLOCK_N)
    acc = finish(acc, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION)
    out_n, width = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
    put(
        acc, out_ptr, offs_m, out_n, m, width, stride_om, stride_on,
        residual_ptr, residual_m, residual_n,
    )  # fmt: skip


def add_parts(task: Task, parts: torch.Tensor) -> None:
    """Add the parts of a product in order, and finish it.

    Args:
        task: the product, with the result to write.
        parts: (parts, m, n) in float32 or int32, any strides.
    """
    along_n = parts.stride(2) <= parts.stride(1)
    size, other = (task.n, task.m) if along_n else (task.m, task.n)
    # Of the pairs of an activation both halves belong to one tile.
    wide = max(min(triton.next_power_of_2(size), 128), 2)
    narrow = min(SUM_ELEMENTS // wide, max(triton.next_power_of_2(other), 2))
    block_m, block_n = (narrow, wide) if along_n else (wide, narrow)
    given, constants = arguments(task)
    count = -(-task.m // block_m) * -(-task.n // block_n)
    grid = (check_grid(count, "tiles", "the product"),)
    early = dependent(task)
    task.wrap(sum_kernel)[grid](
        parts, task.out, task.m, task.n, parts.shape[0],
        *parts.stride(), *task.out.stride(), *given, **constants,
        BLOCK_M=block_m, BLOCK_N=block_n, UNROLL=UNROLL, num_warps=4,
        DEPENDENT=early, **({"launch_pdl": True} if early else {}),
    )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Multiply, and write the result that a task names.

    Args:
        task: the product; its operands have been checked.
        config: how to launch; `config_for` chooses by default.

    Raises:
        ValueError: there are more tiles than a grid has programs.

    Notes:
        Takes 4 bytes of memory for each part of each element.
    """
    if not task.out.numel():
        return
    config = config or config_for(task)
    steps = -(-task.k // config.block_k)
    span = max(-(-steps // config.parts), 1)
    # No part without a block, but one where there is none at all.
    parts = max(-(-steps // span), 1)
    count = -(-task.m // config.block_m) * -(-task.n // config.block_n)
    grid = (check_grid(count * parts, "parts of tiles", "the product"),)
    make = torch.zeros if config.atomic else torch.empty
    shape = (1 if config.atomic else parts, task.m, task.n)
    found = make(shape, dtype=sum_dtype(task), device=task.a.device)
    with library.on(task.a):
        task.wrap(parts_kernel)[grid](
            task.a, task.b, found, *divided(task), span,
            BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
            EVEN_K=task.k % config.block_k == 0, PRECISION=dot_precision(task),
            ATOMIC=config.atomic, BY=factors(task), DEPENDENT=dependent(task),
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
        add_parts(task, found)


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    precision: str | None = None,
    atomic: bool = False,
) -> torch.Tensor:
    """Multiply two matrices, the terms of each tile shared out among programs.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.
        atomic: whether parts are added as they come. Not deterministic.

    Returns:
        Their product (m, n), contiguous, of the same dtype, or int32 for int8.

    Raises:
        TypeError: as `operands.check_pair`.
        ValueError: as `operands.task_of`.
    """
    task, wanted = task_of(a, b, precision=precision)
    if wanted:
        launch(task, config_for(task)._replace(atomic=atomic))
    return task.out
