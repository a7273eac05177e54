"""`logsumexp` by the online recurrence: in lanes, then of lanes, then of parts."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax import axes, gradients
from tilebook.softmax.sums import FLOATS
from tilebook.softmax.walking import begin, edges, walk


@triton.jit
def base_of(m):
    """What is subtracted before exponentials are taken: the maximum, if finite."""
    # Infinity less itself is NaN, and there is no need: e to the -inf is 0, and one
    # term that is infinite makes the sum so.
    return tl.where(tl.abs(m) == float("inf"), 0.0, m)


@triton.jit
def joined(m, d):
    """Merge states along the last axis.

    Args:
        m: the largest term of each; -inf of none.
        d: sums of exponentials of its terms less `base_of` that.

    Returns:
        The same of all terms together.
    """
    top = tl.max(m, axis=1)
    # The maximum itself, so that a state without terms weighs nothing.
    weight = tl.exp(m - base_of(top)[:, None])
    return top, tl.sum(d * weight, axis=1)


@triton.jit
def absorbed(x, m, d, GROUP: tl.constexpr):
    """One step of the recurrence: each lane's state takes in a group of terms.

    Args:
        x: terms (KEPT, TERMS); -inf where there is none.
        m, d: states (KEPT, TERMS // GROUP), see `joined`.
        GROUP: terms that a state takes in at a time. They share the exponential by
            which the sum so far is rescaled.

    Returns:
        The states.
    """
    x = tl.reshape(x, (m.shape[0], GROUP, m.shape[1]))
    top = tl.maximum(m, tl.max(x, axis=1))
    base = base_of(top)
    d = d * tl.exp(m - base) + tl.sum(tl.exp(x - base[:, None, :]), axis=1)
    return top, d


@triton.jit
def logsumexp_kernel(
    x_ptr, out_ptr, m_ptr, d_ptr, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    DIV: tl.constexpr, ALONG: tl.constexpr, EDGES: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr,
    ACC: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    rows, step, count, part, _, out, mask_k = begin(
        x_ptr, outer, inner, terms, part_terms,
        stride_outer, stride_inner, stride_term, out_outer, out_inner,
        DIV, ALONG, KEPT,
    )  # fmt: skip
    ptrs, ahead, between, full = walk(rows, step, count, EDGES, TERMS)
    mask, lanes = mask_k[:, None], tl.arange(0, TERMS)[None, :]
    none: tl.constexpr = float("-inf")
    m = tl.full((KEPT, TERMS // GROUP), none, ACC)
    d = tl.full((KEPT, TERMS // GROUP), 0.0, ACC)
    for start in range(0, full, TERMS):
        x = tl.load(ptrs + start * step, mask=mask, other=none).to(ACC)
        m, d = absorbed(x, m, d, GROUP)
    if full < count:
        rest = mask & (lanes < between - full)
        x = tl.load(ptrs + full * step, mask=rest, other=none).to(ACC)
        m, d = absorbed(x, m, d, GROUP)
    top, total = joined(m, d)
    if EDGES:
        offs, inside = edges(rows, ahead, between, count)
        x = tl.load(rows + offs, mask=mask & inside, other=none).to(ACC)
        # Each is a state of its own: the sum of one exponential.
        top_e, total_e = joined(x, tl.exp(x - base_of(x)))
        top, total = joined(tl.join(top, top_e), tl.join(total, total_e))
    if PARTS > 1:
        out += part * outer * (inner if ALONG else inner * DIV)
        tl.store(m_ptr + out, top, mask=mask_k)
        tl.store(d_ptr + out, total, mask=mask_k)
    else:
        result = base_of(top) + tl.log(total)
        tl.store(out_ptr + out, result, mask=mask_k)
        tl.store(m_ptr + out, result, mask=mask_k)


@triton.jit
def join_kernel(
    m_ptr, d_ptr, out_ptr, exact_ptr, outputs, parts,
    KEPT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    offs_p = tl.arange(0, PARTS)
    mask = (offs < outputs)[:, None] & (offs_p < parts)[None, :]
    ptrs = offs[:, None] + offs_p[None, :] * tl.cast(outputs, tl.int64)
    m = tl.load(m_ptr + ptrs, mask=mask, other=float("-inf"))  # (KEPT, PARTS)
    d = tl.load(d_ptr + ptrs, mask=mask, other=0.0)  # (KEPT, PARTS)
    top, total = joined(m, d)
    result = base_of(top) + tl.log(total)
    tl.store(out_ptr + offs, result, mask=offs < outputs)
    tl.store(exact_ptr + offs, result, mask=offs < outputs)


@library.operator("tilebook::logsumexp")
def logsumexp_operator(
    x: torch.Tensor, dim: int | None, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = library.launchable(logsumexp_kernel), library.launchable(join_kernel)
    return summed(kernels, x, dim, keepdim)


@logsumexp_operator.register_fake
def _(
    x: torch.Tensor, dim: int | None, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return _places(x, dim, keepdim)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, ctx.dim, _ = inputs
    ctx.save_for_backward(x, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradient(
    ctx: Any, grad: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor, None, None]:
    x, exact = ctx.saved_tensors
    return gradients.share_operator(x, exact, grad, ctx.dim), None, None


logsumexp_operator.register_autograd(_gradient, setup_context=_remember)


def logsumexp(
    x: torch.Tensor, dim: int | None = None, *, keepdim: bool = False
) -> torch.Tensor:
    """Compute the logarithm of the sum of exponentials along a dimension, or of all.

    Args:
        x: float16, bfloat16, float32 or float64, any shape, any strides.
        dim: the dimension; None for all of them.
        keepdim: whether it stays, with one element.

    Returns:
        The logarithms, of the dtype of `x`. As from `torch.logsumexp`: -inf of nothing
        and where all elements are -inf, inf where one is inf, NaN where one is NaN.
        Differentiable once.

    Raises:
        TypeError: `x` isn't a tensor or isn't floating-point, or `dim` is no int.
        ValueError: no such dimension, or a tensor where this process's kernels can't
            reach it.

    Notes:
        One pass, in float32 (float64 for that): see `tilebook.softmax.recurrence` for
        the recurrence and why its states may be merged in any order. No exponential is
        of a positive number, so none overflows. The gradient is made from the
        logarithm before it is rounded to the dtype of `x`.
    """
    check.tensor(x, "x", dtype=FLOATS)
    check.runs_here(x, "x")
    dim = axes.reduced_dim(x, dim)
    if not library.eager(x):
        return logsumexp_operator(x, dim, keepdim)[0]
    return summed((logsumexp_kernel, join_kernel), x, dim, keepdim)[0]


def _places(
    x: torch.Tensor, dim: int | None, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """For the result, and for the same before it is rounded."""
    shape = axes.reduced_shape(x, dim, keepdim)
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty(shape, dtype=x.dtype, device=x.device),
        torch.empty(shape, dtype=sums, device=x.device),
    )


def summed(
    kernels: tuple[Any, Any], x: torch.Tensor, dim: int | None, keepdim: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    out, exact = _places(x, dim, keepdim)
    if not out.numel():
        return out, exact
    if not x.numel():
        return out.fill_(float("-inf")), exact.fill_(float("-inf"))
    seen = axes.view(x, dim, any_order=True)
    plan = axes.plan(seen, exact.itemsize // 4)
    meta = plan.meta | {"ACC": axes.accumulator(x.dtype), "PARTS": plan.parts}
    meta["GROUP"] = group_of(seen, plan)
    m = d = exact
    if plan.parts > 1:
        shape = (plan.parts, out.numel())
        m, d = exact.new_empty(shape), exact.new_empty(shape)
    with library.on(x):
        kernels[0][(plan.programs,)](seen.x, out, m, d, *plan.args, **meta)
        if plan.parts > 1:
            kept, width = axes.merge_tile(out.numel(), plan.parts)
            kernels[1][(triton.cdiv(out.numel(), kept),)](
                *(m, d, out, exact, out.numel(), plan.parts), KEPT=kept, PARTS=width
            )
    return out, exact


def group_of(seen: axes.View, plan: axes.Plan) -> int:
    """Choose how many terms a state takes in at a time.

    Args:
        seen: the operand.
        plan: its launch.

    Returns:
        All of a tile's where one step takes them all, for then one maximum does. Else
        as many as one thread has of a tile that lie a tile's width apart.
    """
    kept, terms = plan.meta["KEPT"], plan.meta["TERMS"]
    if seen.terms <= terms:
        return terms
    width = 32 * plan.meta["num_warps"] * (16 // seen.x.itemsize)
    return min(terms, max(1, kept * terms // width))
