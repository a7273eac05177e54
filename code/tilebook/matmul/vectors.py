"""Thin products: up to eight rows, or columns, and no tensor core.

A token's 4,096 numbers times a matrix of 4,096 by 4,096 is two operations for each
element of the matrix, and what a tile of 16 rows would do more is thrown away. Memory
is the limit: the matrix goes by once, 16 bytes a thread and load, and all rows are
multiplied with what a thread has in registers. The sums stay there, one for each row
and place in a load, until a program is through with its terms.

A thin `b` is the same problem turned round: b.T times a.T gives the result's transpose.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from tilebook import device, library
from tilebook.matmul.epilogues import arguments, finish, offsets_of, put
from tilebook.matmul.operands import Task, divided, factors, task_of
from tilebook.matmul.split import (
    PRETENDED,
    add_parts,
    dependent,
    scaled,
    sum_dtype,
)
from tilebook.tiling.operands import check_grid

THIN = 8
"""Rows, or columns, that are few enough."""


class Config(NamedTuple):
    """How the kernel is launched."""

    block_n: int
    """Columns that a program takes."""
    block_k: int
    """Terms of each that a load covers."""
    parts: int
    """Programs that share a column."""
    num_warps: int = 4
    num_stages: int = 1
    """Steps of the loop whose loads are on their way or in use."""


WARPS = 4
SUMS = 64
"""That a thread has in registers."""
MOST_ELEMENTS = 32
"""Of b that a thread loads at once."""
COLUMN_BYTES = 128
"""Of each row of b, where its columns are neighbours."""
ROW_BYTES = 512
"""Of each column of b, where its terms are."""
PER_SM = 8
"""Programs for each multiprocessor, if the sums are long enough."""
LEAST_STEPS = 2
"""Steps of a part."""


def turned(task: Task) -> Task:
    """The same product of the transposes, the thin operand first, nothing besides."""
    return Task(
        task.b.mT, task.a.mT, task.out.mT, precision=task.precision, wrap=task.wrap
    )


def fits(task: Task) -> bool:
    """Whether a product is thin enough: up to `THIN` rows or columns."""
    return min(task.m, task.n) <= THIN


def config_for(task: Task, row_bytes: int = ROW_BYTES) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: the product, its rows the thin side.
        row_bytes: of each column of b that a load covers, where its terms lie together.

    Returns:
        Loads along whichever dimension of `b` has neighbours, at most `SUMS` sums a
        thread, and as many parts as give each multiprocessor `PER_SM` programs.
    """
    itemsize = task.b.itemsize
    rows = triton.next_power_of_2(max(task.m, 1))
    elements = WARPS * 32 * min(SUMS // rows, MOST_ELEMENTS)
    if task.k > 1 and (task.n == 1 or task.b.stride(0) < task.b.stride(1)):
        block_k = row_bytes // itemsize
        block_n = max(elements // block_k, 1)
    else:
        block_n = COLUMN_BYTES // itemsize
        block_k = elements // block_n
    count = -(-task.n // block_n)
    wanted = PER_SM * (device.current().sms or PRETENDED) // max(count, 1)
    parts = max(min(wanted, -(-task.k // (block_k * LEAST_STEPS))), 1)
    # Where a thread loads little at a time, more steps have to be on their way.
    return Config(block_n, block_k, parts, WARPS, 1 if rows <= 2 else 4)


def configs(task: Task) -> list[Config]:
    """What to try on a card, of a product whose rows are the thin side."""
    found = [config_for(task, row_bytes) for row_bytes in (4 * ROW_BYTES, ROW_BYTES)]
    # Of the pairs of an activation both halves belong to one program.
    return [config for config in dict.fromkeys(found) if config.block_n > 1]


@triton.jit(do_not_specialize=["span"])
def vectors_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, span,
    stride_p, stride_om, stride_on,
    scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n,
    ACTIVATION: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr,
    BY: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        gdc_launch_dependents()
    m, n, k = scaled(m, BY[0]), scaled(n, BY[1]), scaled(k, BY[2])
    stride_am, stride_ak = scaled(stride_am, BY[3]), scaled(stride_ak, BY[4])
    stride_bk, stride_bn = scaled(stride_bk, BY[5]), scaled(stride_bn, BY[6])
    SUM: tl.constexpr = tl.int32 if a_ptr.dtype.element_ty == tl.int8 else tl.float32
    pid_n, part = tl.program_id(0), tl.program_id(1)
    rows = tl.arange(0, ROWS)
    offs_m = rows.to(tl.int64)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((ROWS, BLOCK_K, BLOCK_N), SUM)
    first = part * span
    last = tl.minimum(first + span, tl.cdiv(k, BLOCK_K).to(tl.int32))
    for step in tl.range(first, last, num_stages=STAGES):
        offs_k = tl.cast(step, tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
        b = tl.load(
            b_ptr + offs_k[:, None] * stride_bk + offs_n[None, :] * stride_bn,
            mask=(offs_k < k)[:, None] & (offs_n < n)[None, :],
            other=0,
        )  # (BLOCK_K, BLOCK_N)
        a = tl.load(
            a_ptr + offs_m[:, None] * stride_am + offs_k[None, :] * stride_ak,
            mask=(offs_m < m)[:, None] & (offs_k < k)[None, :],
            other=0,
        )  # (ROWS, BLOCK_K)
        acc += a.to(SUM)[:, :, None] * b.to(SUM)[None, :, :]
    found = tl.sum(acc, axis=1)  # (ROWS, BLOCK_N)
    if PARTS:
        out_ptr += part.to(tl.int64) * stride_p
        put(found, out_ptr, offs_m, offs_n, m, n, stride_om, stride_on, None, 0, 0)
    else:
        found = finish(found, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION)
        out_n, width = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
        put(
            found, out_ptr, offs_m, out_n, m, width, stride_om, stride_on,
            residual_ptr, residual_m, residual_n,
        )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Multiply, and write the result that a task names.

    Args:
        task: the product; its operands have been checked.
        config: how to launch; `config_for` chooses by default.

    Raises:
        ValueError: neither side is thin, or there are more programs than in a grid.

    Notes:
        Several parts take 4 bytes of memory for each of each element.
    """
    if not fits(task):
        raise ValueError(
            f"a or b must be thin, at most {THIN} rows of a or columns of b, got "
            f"{task.m} and {task.n}; tilebook.matmul.split takes them"
        )
    if not task.out.numel():
        return
    aside = task.m > THIN or (task.n < task.m and task.n <= THIN)
    thin = turned(task) if aside else task
    config = config or config_for(thin)
    steps = -(-thin.k // config.block_k)
    span = max(-(-steps // config.parts), 1)
    parts = max(-(-steps // span), 1)
    blocks = -(-thin.n // config.block_n)
    check_grid(blocks * parts, "parts of columns", "the product")
    # What is done to rows of the result is not done to those of its transpose.
    whole = parts == 1 and (task.plain or not aside)
    place = thin.out[None]
    if not whole:
        shape = (parts, thin.m, thin.n)
        place = torch.empty(shape, dtype=sum_dtype(task), device=task.a.device)
    given, constants = arguments(thin if whole else turned(task))
    with library.on(task.a):
        task.wrap(vectors_kernel)[(blocks, parts)](
            thin.a, thin.b, place, *divided(thin), span, *place.stride(),
            *given, **constants,
            ROWS=triton.next_power_of_2(thin.m), BLOCK_N=config.block_n,
            BLOCK_K=config.block_k, STAGES=config.num_stages, PARTS=not whole,
            BY=factors(thin), DEPENDENT=not whole and dependent(task),
            num_warps=config.num_warps,
        )  # fmt: skip
        if not whole:
            add_parts(task, place.mT if aside else place)


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices, one of them thin, without tensor cores.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype; m or n is at most `THIN`.
        precision: checked, but float32 is multiplied as it is in any case.

    Returns:
        Their product (m, n), contiguous, of the same dtype, or int32 for int8.

    Raises:
        TypeError: as `operands.check_pair`.
        ValueError: as `operands.task_of`, or neither is thin.
    """
    task, wanted = task_of(a, b, precision=precision)
    if wanted:
        launch(task)
    return task.out
