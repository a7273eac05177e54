"""`sum` and `mean`: a sum for each lane of a tile, and lanes meet once, at the end."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax import axes
from tilebook.softmax.walking import begin, edges, walk

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@triton.jit
def sum_kernel(
    x_ptr, out_ptr, divisor, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    DIV: tl.constexpr, ALONG: tl.constexpr, EDGES: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr,
    ACC: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    rows, step, count, part, _, out, mask_k = begin(
        x_ptr, outer, inner, terms, part_terms,
        stride_outer, stride_inner, stride_term, out_outer, out_inner,
        DIV, ALONG, KEPT,
    )  # fmt: skip
    ptrs, ahead, between, full = walk(rows, step, count, EDGES, TERMS)
    mask, lanes = mask_k[:, None], tl.arange(0, TERMS)[None, :]
    acc = tl.full((KEPT, TERMS), 0, ACC)
    for start in range(0, full, TERMS):
        # Nothing is masked along the terms, so nothing keeps loads from being wide.
        x = tl.load(ptrs + start * step, mask=mask, other=0)  # (KEPT, TERMS)
        acc += x.to(ACC)
    if full < count:
        rest = mask & (lanes < between - full)
        x = tl.load(ptrs + full * step, mask=rest, other=0)  # (KEPT, TERMS)
        acc += x.to(ACC)
    total = tl.sum(acc, axis=1)
    if EDGES:
        offs, inside = edges(rows, ahead, between, count)
        x = tl.load(rows + offs, mask=mask & inside, other=0)
        total += tl.sum(x.to(ACC), axis=1)
    if MEAN:
        total /= tl.cast(divisor, total.dtype)
    out += part * outer * (inner if ALONG else inner * DIV)
    tl.store(out_ptr + out, total, mask=mask_k)


@library.operator("tilebook::sum")
def sum_operator(
    x: torch.Tensor, dim: int | None, keepdim: bool, average: bool
) -> torch.Tensor:
    return added(library.launchable(sum_kernel), x, dim, keepdim, average)


@sum_operator.register_fake
def _(x: torch.Tensor, dim: int | None, keepdim: bool, average: bool) -> torch.Tensor:
    return _place(x, dim, keepdim)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, ctx.dim, ctx.keepdim, average = inputs
    ctx.shape = x.shape
    ctx.terms = (x.numel() if ctx.dim is None else x.shape[ctx.dim]) if average else 1


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
    if ctx.dim is not None and not ctx.keepdim:
        grad = grad.unsqueeze(ctx.dim)
    return (grad / ctx.terms).expand(ctx.shape), None, None, None


sum_operator.register_autograd(_gradient, setup_context=_remember)


def sum(
    x: torch.Tensor, dim: int | None = None, *, keepdim: bool = False
) -> torch.Tensor:
    """Add up a dimension, or all elements.

    Args:
        x: float16, bfloat16, float32, float64, bool or an integer type of at most 64
            bits, any shape, any strides.
        dim: the dimension; None for all of them.
        keepdim: whether it stays, with one element.

    Returns:
        The sums: of the dtype of `x` if it is floating-point, else int64, which wraps
        around. 0 where there is nothing to add. Differentiable.

    Raises:
        TypeError: `x` isn't a tensor or its dtype isn't supported, or `dim` is no int.
        ValueError: no such dimension, or a tensor where this process's kernels can't
            reach it.

    Notes:
        Added in float32, or in float64 for that, in an order that follows from shape,
        strides and dtype: repeats are equal bit for bit. Error: `testing.bound` with
        as many roundings as terms, relative to the sum of magnitudes; in fact far
        fewer, since each lane of a tile has a sum of its own.
    """
    dim = _checked(x, dim, (*FLOATS, *INTEGERS, torch.bool))
    return _call(x, dim, keepdim, False)


def mean(
    x: torch.Tensor, dim: int | None = None, *, keepdim: bool = False
) -> torch.Tensor:
    """Average a dimension, or all elements.

    Args:
        x: float16, bfloat16, float32 or float64, any shape, any strides.
        dim: the dimension; None for all of them.
        keepdim: whether it stays, with one element.

    Returns:
        The averages, of the dtype of `x`; NaN where there is nothing to average.
        Differentiable.

    Raises:
        TypeError: `x` isn't a tensor or isn't floating-point, or `dim` is no int.
        ValueError: no such dimension, or a tensor where this process's kernels can't
            reach it.

    Notes:
        The sum in float32 (float64 for that) is divided there, and rounded once.
    """
    return _call(x, _checked(x, dim, FLOATS), keepdim, True)


def _checked(
    x: torch.Tensor, dim: int | None, dtypes: tuple[torch.dtype, ...]
) -> int | None:
    check.tensor(x, "x", dtype=dtypes)
    check.runs_here(x, "x")
    return axes.reduced_dim(x, dim)


def _call(
    x: torch.Tensor, dim: int | None, keepdim: bool, average: bool
) -> torch.Tensor:
    if not library.eager(x):
        return sum_operator(x, dim, keepdim, average)
    return added(sum_kernel, x, dim, keepdim, average)


def _place(x: torch.Tensor, dim: int | None, keepdim: bool) -> torch.Tensor:
    dtype = x.dtype if x.dtype.is_floating_point else torch.int64
    shape = axes.reduced_shape(x, dim, keepdim)
    return torch.empty(shape, dtype=dtype, device=x.device)


def added(
    kernel: Any, x: torch.Tensor, dim: int | None, keepdim: bool, average: bool
) -> torch.Tensor:
    out = _place(x, dim, keepdim)
    if not out.numel():
        return out
    if not x.numel():
        return out.fill_(float("nan") if average else 0)
    if x.dtype == torch.bool:
        x = x.view(torch.uint8)
    seen = axes.view(x, dim, any_order=True)
    with library.on(x):
        launch(kernel, seen, out, seen.terms if average else 0)
    return out


def launch(
    kernel: Any,
    seen: axes.View,
    out: torch.Tensor,
    divisor: int = 0,
    *,
    split: bool = True,
) -> None:
    """Launch the kernel, and once more on its sums if it splits the terms.

    Args:
        kernel: `sum_kernel`, or what `torch.library.wrap_triton` makes of it.
        seen: the operand.
        out: receives the sums; contiguous.
        divisor: what they are divided by; 0 for nothing.
        split: whether the terms may be split.
    """
    plan = axes.plan(seen, 2 if out.dtype.itemsize == 8 else 1, split=split)
    meta = plan.meta | {"ACC": axes.accumulator(seen.x.dtype)}
    if plan.parts == 1:
        kernel[(plan.programs,)](
            seen.x, out, divisor, *plan.args, **meta, MEAN=divisor > 0
        )
        return
    dtype = torch.float32 if out.dtype.itemsize < 8 else out.dtype
    parts = torch.empty((plan.parts, out.numel()), dtype=dtype, device=out.device)
    kernel[(plan.programs,)](seen.x, parts, divisor, *plan.args, **meta, MEAN=False)
    launch(kernel, axes.view(parts, 0), out, divisor, split=False)
