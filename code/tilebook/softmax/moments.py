"""`var`: each lane follows Welford's recurrence, and lanes merge by Chan's formula."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax import axes, gradients
from tilebook.softmax.sums import FLOATS
from tilebook.softmax.walking import begin, edges, walk


@triton.jit
def merged(n, mean, m2):
    """Merge the moments of groups, which stand along the last axis.

    Args:
        n: elements of each group, as floats.
        mean: their means; 0 of none.
        m2: sums of the squares of their distances from these.

    Returns:
        The same of all elements together. A group's elements lie about the group's own
        mean; what the means are apart comes to the squares.
    """
    count = tl.sum(n, axis=1)
    centre = tl.sum(n * mean, axis=1) / tl.maximum(count, 1.0)
    apart = mean - centre[:, None]
    return count, centre, tl.sum(m2 + n * apart * apart, axis=1)


@triton.jit
def var_kernel(
    x_ptr, out_ptr, shift_ptr, divisor, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    DIV: tl.constexpr, ALONG: tl.constexpr, EDGES: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr,
    ACC: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    rows, step, count, part, first, out, mask_k = begin(
        x_ptr, outer, inner, terms, part_terms,
        stride_outer, stride_inner, stride_term, out_outer, out_inner,
        DIV, ALONG, KEPT,
    )  # fmt: skip
    ptrs, ahead, between, full = walk(rows, step, count, EDGES, TERMS)
    mask, lanes = mask_k[:, None], tl.arange(0, TERMS)[None, :]
    # Distances from a sequence's first element are small where its spread is, however
    # far from zero it lies, and there the subtraction is exact.
    pivot = tl.load(rows - first * step, mask=mask, other=0).to(ACC)  # (KEPT, 1)
    mean = tl.full((KEPT, TERMS), 0.0, ACC)
    m2 = tl.full((KEPT, TERMS), 0.0, ACC)
    for start in range(0, full, TERMS):
        x = tl.load(ptrs + start * step, mask=mask, other=0).to(ACC) - pivot
        # Every lane has as many elements: one division does for all.
        share = 1.0 / tl.cast(start // TERMS + 1, ACC)
        delta = x - mean
        mean += delta * share
        m2 += delta * (x - mean)
    inside = mask & (lanes < between - full)
    if full < count:
        x = tl.load(ptrs + full * step, mask=inside, other=0).to(ACC) - pivot
        share = 1.0 / tl.cast(full // TERMS + 1, ACC)
        delta = tl.where(inside, x - mean, 0.0)
        mean += delta * share
        m2 += tl.where(inside, delta * (x - mean), 0.0)
    n = (full // TERMS + inside.to(tl.int32)).to(ACC)
    number, centre, squares = merged(n, mean, m2)
    if EDGES:
        offs, inside = edges(rows, ahead, between, count)
        x = tl.load(rows + offs, mask=mask & inside, other=0).to(ACC) - pivot
        x = tl.where(inside, x, 0.0)  # (KEPT, two vectors), each a group of one
        n_e, c_e, s_e = merged(inside.to(ACC), x, x * 0.0)
        number, centre, squares = merged(
            tl.join(number, n_e), tl.join(centre, c_e), tl.join(squares, s_e)
        )
    if PARTS > 1:
        out += part * outer * (inner if ALONG else inner * DIV)
    else:
        squares /= tl.cast(divisor, ACC)
    tl.store(out_ptr + out, squares, mask=mask_k)
    tl.store(shift_ptr + out, centre, mask=mask_k)


@triton.jit
def merge_kernel(
    squares_ptr, shifts_ptr, out_ptr, shift_ptr,
    divisor, outputs, terms, part_terms, parts,
    KEPT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    offs_p = tl.arange(0, PARTS)
    mask = (offs < outputs)[:, None] & (offs_p < parts)[None, :]
    ptrs = offs[:, None] + offs_p[None, :] * tl.cast(outputs, tl.int64)
    squares = tl.load(squares_ptr + ptrs, mask=mask, other=0)  # (KEPT, PARTS)
    shifts = tl.load(shifts_ptr + ptrs, mask=mask, other=0)  # (KEPT, PARTS)
    # All parts but the last are whole, and beyond it there are none.
    left = tl.cast(terms, tl.int64) - offs_p * tl.cast(part_terms, tl.int64)
    n = tl.maximum(tl.minimum(left, part_terms), 0).to(squares.dtype)[None, :]
    _, centre, squares = merged(n, shifts, squares)
    squares /= tl.cast(divisor, squares.dtype)
    tl.store(out_ptr + offs, squares, mask=offs < outputs)
    tl.store(shift_ptr + offs, centre, mask=offs < outputs)


@library.operator("tilebook::var")
def var_operator(
    x: torch.Tensor, dim: int | None, correction: int, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = library.launchable(var_kernel), library.launchable(merge_kernel)
    return spread(kernels, x, dim, correction, keepdim)


@var_operator.register_fake
def _(
    x: torch.Tensor, dim: int | None, correction: int, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return _places(x, dim, keepdim)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, ctx.dim, correction, _ = inputs
    terms = x.numel() if ctx.dim is None else x.shape[ctx.dim]
    ctx.divisor = max(0, terms - correction)
    ctx.save_for_backward(x, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradient(
    ctx: Any, grad: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor, None, None, None]:
    x, shift = ctx.saved_tensors
    grad = gradients.centred_operator(x, shift, grad, ctx.dim, ctx.divisor)
    return grad, None, None, None


var_operator.register_autograd(_gradient, setup_context=_remember)


def var(
    x: torch.Tensor,
    dim: int | None = None,
    *,
    correction: int = 1,
    keepdim: bool = False,
) -> torch.Tensor:
    """Compute the variance of a dimension, or of all elements.

    Args:
        x: float16, bfloat16, float32 or float64, any shape, any strides.
        dim: the dimension; None for all of them.
        correction: what is taken off the number of elements that the sum of squares is
            divided by: 1 estimates the variance of what a sample is from.
        keepdim: whether the dimension stays, with one element.

    Returns:
        The variances, of the dtype of `x`. As from `torch.var`: NaN of nothing and of
        one element less `correction` 1, and of rows with NaN or infinities.
        Differentiable once.

    Raises:
        TypeError: `x` isn't a tensor or isn't floating-point, or `dim` or `correction`
            is no int.
        ValueError: no such dimension, a negative `correction`, or a tensor where this
            process's kernels can't reach it.

    Notes:
        One pass, in float32 (float64 for that): Welford's recurrence in every lane on
        distances from the sequence's first element, merged by Chan's formula. Without
        that shift its relative error grows as the mean over the standard deviation,
        times the roundoff; with it only if the first element itself lies far from all
        others. Differences of elements that overflow give NaN.
    """
    check.tensor(x, "x", dtype=FLOATS)
    check.runs_here(x, "x")
    check.natural_number(correction, "correction")
    dim = axes.reduced_dim(x, dim)
    if not library.eager(x):
        return var_operator(x, dim, correction, keepdim)[0]
    return spread((var_kernel, merge_kernel), x, dim, correction, keepdim)[0]


def _places(
    x: torch.Tensor, dim: int | None, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = axes.reduced_shape(x, dim, keepdim)
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty(shape, dtype=x.dtype, device=x.device),
        torch.empty(shape, dtype=sums, device=x.device),
    )


def spread(
    kernels: tuple[Any, Any],
    x: torch.Tensor,
    dim: int | None,
    correction: int,
    keepdim: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The variances, and the means' distances from the first elements."""
    out, shift = _places(x, dim, keepdim)
    if not out.numel():
        return out, shift
    if not x.numel():
        return out.fill_(float("nan")), shift.fill_(float("nan"))
    seen = axes.view(x, dim, any_order=True)
    divisor = max(0, seen.terms - correction)
    with library.on(x):
        launch(kernels, seen, out, shift, divisor)
    return out, shift


def launch(
    kernels: tuple[Any, Any],
    seen: axes.View,
    out: torch.Tensor,
    shift: torch.Tensor,
    divisor: int,
) -> None:
    """Launch `var_kernel`, and `merge_kernel` on its results if terms are split.

    Args:
        kernels: these two, or what `torch.library.wrap_triton` makes of them.
        seen: the operand.
        out: receives the variances; contiguous.
        shift: receives the means, less the sequences' first elements; contiguous.
        divisor: of the sums of squares.
    """
    plan = axes.plan(seen, shift.itemsize // 2)
    meta = plan.meta | {"ACC": axes.accumulator(out.dtype), "PARTS": plan.parts}
    outs = (out, shift)
    if plan.parts > 1:
        shape = (plan.parts, out.numel())
        outs = tuple(shift.new_empty(shape) for _ in range(2))
    kernels[0][(plan.programs,)](seen.x, *outs, divisor, *plan.args, **meta)
    if plan.parts > 1:
        kept, width = axes.merge_tile(out.numel(), plan.parts)
        kernels[1][(triton.cdiv(out.numel(), kept),)](
            *outs, out, shift, divisor, out.numel(), seen.terms, plan.args[3],
            plan.parts, KEPT=kept, PARTS=width,
        )  # fmt: skip
