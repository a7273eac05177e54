"""`matmul` for use: vectors, matrices and batches of them, with gradients."""

import math
from typing import Any

import torch

from tilebook import check, library
from tilebook.matmul import batched
from tilebook.matmul.choose import product
from tilebook.matmul.operands import DTYPES, Task, precision_of

RESULTS = {
    torch.bfloat16: (torch.bfloat16, torch.float32),
    torch.float16: (torch.float16, torch.float32),
    torch.float32: (torch.float32,),
    torch.int8: (torch.int32,),
    torch.float64: (torch.float64,),
}
"""By the operands' type what the result's may be; by default the first."""


# Its launches depend on addresses: descriptors want starts that 16 bytes divide.
@library.operator("tilebook::matmul", opaque=True)
def matmul_operator(
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str,
    out_dtype: torch.dtype,
    field: str = "matmul",
) -> torch.Tensor:
    return _multiplied(a, b, precision, out_dtype, field)


@matmul_operator.register_fake
def _(
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str,
    out_dtype: torch.dtype,
    field: str = "matmul",
) -> torch.Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    return torch.empty(shape, dtype=out_dtype, device=a.device)


def _keep(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    a, b, ctx.precision, _, ctx.field = inputs
    ctx.shapes, ctx.dtype = (a.shape, b.shape), a.dtype
    for_a, for_b, *_ = ctx.needs_input_grad
    ctx.save_for_backward(a if for_b else None, b if for_a else None)


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    a, b = ctx.saved_tensors
    grad = grad.to(ctx.dtype)
    da = db = None
    if ctx.needs_input_grad[0]:
        da = _summed(grad, b.mT, ctx.precision, ctx.shapes[0], ctx.field)
    if ctx.needs_input_grad[1]:
        db = _summed(a.mT, grad, ctx.precision, ctx.shapes[1], ctx.field)
    return da, db, None, None, None


matmul_operator.register_autograd(_gradient, setup_context=_keep)


def _summed(
    x: torch.Tensor, y: torch.Tensor, precision: str, shape: torch.Size, field: str
) -> torch.Tensor:
    """A product, added up over the batches that a shape was broadcast to."""
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if batch == shape[:-2]:
        return matmul_operator(x, y, precision, x.dtype, field)
    # What is added up is rounded once, afterwards.
    wide = RESULTS[x.dtype][-1]
    return matmul_operator(x, y, precision, wide, field).sum_to_size(shape).to(x.dtype)


def _multiplied(
    a: torch.Tensor, b: torch.Tensor, precision: str, out_dtype: torch.dtype, field: str
) -> torch.Tensor:
    if a.dtype == torch.float64:
        return torch.matmul(a, b)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    out = torch.empty(shape, dtype=out_dtype, device=a.device)
    if batch:
        batched.launch(a, b, out, precision=precision)
    else:
        product(Task(a, b, out, precision), field)
    return out


def multiplied(
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str,
    out_dtype: torch.dtype,
    field: str = "matmul",
) -> torch.Tensor:
    """Multiply checked operands, by the operator where something has to see it.

    Args:
        a: (batch..., m, k).
        b: (batch..., k, n), of a batch that broadcasts.
        precision: of float32, one of `operands.PRECISIONS`.
        out_dtype: of the result.
        field: whose kernels may race; one of `ways.FIELDS`.

    Returns:
        The product (batch..., m, n), contiguous.
    """
    if library.eager(a, b):
        return _multiplied(a, b, precision, out_dtype, field)
    return matmul_operator(a, b, precision, out_dtype, field)


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    precision: str | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Multiply two tensors as `torch.matmul` does.

    Args:
        a: (k,), (m, k) or (batch..., m, k) of a type in `operands.DTYPES`, or float64;
            any strides and sizes.
        b: (k,), (k, n) or (batch..., k, n), of the same dtype; batch dimensions
            broadcast.
        precision: of float32, one of `operands.PRECISIONS`; by default "tf32" if
            `torch.backends.cuda.matmul.fp32_precision` is, else "ieee".
        out_dtype: the result's, that of the operands by default, and int32 for int8;
            float32 is allowed for bfloat16 and float16.

    Returns:
        (batch..., m, n), contiguous, without m where `a` is a vector and n where `b`
        is. Differentiable, twice and more.

    Raises:
        TypeError: an argument of another type, or a dtype that isn't allowed.
        ValueError: no dimensions, sides that don't meet, batches that don't broadcast,
            another precision, two devices, or a tensor where this process's kernels
            can't reach it.

    Notes:
        `choose` picks the kernel. Summed in float32 and rounded once, or in int32,
        where sums that it doesn't hold wrap; float64 is left to PyTorch. A gradient
        that arrives in float32, because `out_dtype` is, is rounded to the operands'
        type first. Autocasting is not heeded: operands are taken as they come. Repeats
        are equal to the bit as long as the way that a search chose is remembered;
        another search may choose another order of sums.
    """
    return among(a, b, precision, out_dtype, "matmul")


def among(
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str | None,
    out_dtype: torch.dtype | None,
    field: str,
) -> torch.Tensor:
    """Multiply as `matmul` does, by kernels that may be others.

    Args:
        a: as for `matmul`, whose errors these are, too.
        b: likewise.
        precision: likewise.
        out_dtype: likewise.
        field: whose kernels may race; one of `ways.FIELDS`.

    Returns:
        As `matmul`.
    """
    precision, out_dtype = _checked(a, b, precision, out_dtype)
    left, right = a, b
    if a.ndim == 1:
        left = a[None]
    if b.ndim == 1:
        right = b[:, None]
    batched.common_batch(left, right)
    if right.ndim == 2 and left.ndim > 2:
        # One matrix for all batches: their rows are rows of one product.
        rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])
        out = multiplied(rows, right, precision, out_dtype, field)
        out = out.view(*left.shape[:-1], right.shape[-1])
    else:
        out = multiplied(left, right, precision, out_dtype, field)
    if b.ndim == 1:
        out = out.squeeze(-1)
    return out.squeeze(-1 if b.ndim == 1 else -2) if a.ndim == 1 else out


def _checked(
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str | None,
    out_dtype: torch.dtype | None,
) -> tuple[str, torch.dtype]:
    for x, name in ((a, "a"), (b, "b")):
        check.tensor(x, name, dtype=(*DTYPES, torch.float64))
        if not x.ndim:
            raise ValueError(f"{name} must have at least 1 dimension, got 0")
        check.runs_here(x, name)
    check.same_dtype(a=a, b=b)
    check.same_device(a=a, b=b)
    rows = b.shape[0] if b.ndim == 1 else b.shape[-2]
    if a.shape[-1] != rows:
        raise ValueError(
            f"a must have as many columns as b has rows, got {a.shape[-1]} and {rows}"
        )
    precision = precision_of(a.dtype, precision)
    allowed = RESULTS[a.dtype]
    out_dtype = allowed[0] if out_dtype is None else out_dtype
    if out_dtype not in allowed:
        names = " or ".join(str(dtype) for dtype in allowed)
        raise TypeError(
            f"out_dtype must be {names} for operands of {a.dtype}, got {out_dtype}"
        )
    return precision, out_dtype
