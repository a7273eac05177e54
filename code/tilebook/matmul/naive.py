"""Rung 1, an element of the product per lane: each walks its row and its column alone.

Of two elements of a row of the product, both read the same row of `a`: all that is
shared is shared by the caches. A term costs two loads and one multiplication.
"""

import torch
import triton
import triton.language as tl

from tilebook.matmul.operands import Task, multiplied
from tilebook.tiling.operands import check_grid

BLOCK = 256


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """The type in which the terms of a sum are added up: int32 for int8, else float32.

    Args:
        dtype: of the operands.
    """
    return tl.int32 if dtype == torch.int8 else tl.float32


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, column = offs // n, offs % n
    inside = row < m
    a_at, b_at = a_ptr + row * a_m, b_ptr + column * b_n
    acc = tl.zeros((BLOCK,), ACC)
    for _ in range(k):
        a = tl.load(a_at, mask=inside, other=0)  # (BLOCK,)
        b = tl.load(b_at, mask=inside, other=0)  # (BLOCK,)
        acc += a.to(ACC) * b.to(ACC)
        a_at += a_k
        b_at += b_k
    out = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * out_m + column * out_n, out, mask=inside)


def launch(task: Task) -> None:
    """Launch the kernel.

    Args:
        task: a plain product with elements. Terms are float32 whatever the precision.

    Raises:
        ValueError: the product has more elements than a grid takes.
    """
    programs = check_grid(-(-task.m * task.n // BLOCK), "blocks", "the product")
    task.wrap(matmul_kernel)[(programs,)](
        task.a, task.b, task.out, task.m, task.n, task.k,
        *task.a.stride(), *task.b.stride(), *task.out.stride(),
        ACC=accumulator(task.a.dtype), BLOCK=BLOCK,
    )  # fmt: skip


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices, every element of the product by itself.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: one of `operands.PRECISIONS`; this rung multiplies float32 as it is
            whichever is asked for.

    Returns:
        The product (m, n), contiguous, of the same dtype; int32 for int8.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, another precision, or a tensor
            where this process's kernels can't reach it.
    """
    return multiplied(launch, a, b, precision)
