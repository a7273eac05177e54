"""Backward passes of reductions: an element from itself and its sequence's results."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.softmax import axes
from tilebook.softmax.walking import begin


@triton.jit
def centred_kernel(
    x_ptr, out_ptr, shift_ptr, grad_ptr, divisor, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, stat_outer, stat_inner,
    out_inner_size, out_terms, out_outer, out_inner, out_term,
    DIV: tl.constexpr, DIV_OUT: tl.constexpr, ALONG: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    rows, step, count, _, first, stats, mask_k = begin(
        x_ptr, outer, inner, terms, part_terms,
        stride_outer, stride_inner, stride_term, stat_outer, stat_inner,
        DIV, ALONG, KEPT,
    )  # fmt: skip
    outs, out_step, _, _, _, _, _ = begin(
        out_ptr, outer, out_inner_size, out_terms, part_terms,
        out_outer, out_inner, out_term, stat_outer, stat_inner,
        DIV_OUT, ALONG, KEPT,
    )  # fmt: skip
    lanes = tl.arange(0, TERMS)[None, :]
    mask = mask_k[:, None] & (lanes < count)
    x = tl.load(rows + lanes * step, mask=mask, other=0).to(ACC)  # (KEPT, TERMS)
    pivot = tl.load(rows - first * step, mask=mask_k[:, None], other=0).to(ACC)
    shift = tl.load(shift_ptr + stats, mask=mask_k, other=0)[:, None]  # (KEPT, 1)
    grad = tl.load(grad_ptr + stats, mask=mask_k, other=0).to(ACC)[:, None]  # (KEPT, 1)
    grad *= 2.0 / tl.cast(divisor, ACC)
    tl.store(outs + lanes * out_step, grad * ((x - pivot) - shift), mask=mask)


@triton.jit
def share_kernel(
    x_ptr, out_ptr, result_ptr, grad_ptr, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, stat_outer, stat_inner,
    out_inner_size, out_terms, out_outer, out_inner, out_term,
    DIV: tl.constexpr, DIV_OUT: tl.constexpr, ALONG: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    rows, step, count, _, _, stats, mask_k = begin(
        x_ptr, outer, inner, terms, part_terms,
        stride_outer, stride_inner, stride_term, stat_outer, stat_inner,
        DIV, ALONG, KEPT,
    )  # fmt: skip
    outs, out_step, _, _, _, _, _ = begin(
        out_ptr, outer, out_inner_size, out_terms, part_terms,
        out_outer, out_inner, out_term, stat_outer, stat_inner,
        DIV_OUT, ALONG, KEPT,
    )  # fmt: skip
    lanes = tl.arange(0, TERMS)[None, :]
    mask = mask_k[:, None] & (lanes < count)
    x = tl.load(rows + lanes * step, mask=mask, other=0).to(ACC)  # (KEPT, TERMS)
    result = tl.load(result_ptr + stats, mask=mask_k, other=0)[:, None]
    grad = tl.load(grad_ptr + stats, mask=mask_k, other=0).to(ACC)[:, None]  # (KEPT, 1)
    # Element i's share of the sum of exponentials: the softmax.
    tl.store(outs + lanes * out_step, grad * tl.exp(x - result), mask=mask)


@library.operator("tilebook::centred")
def centred_operator(
    x: torch.Tensor,
    shift: torch.Tensor,
    grad: torch.Tensor,
    dim: int | None,
    divisor: int,
) -> torch.Tensor:
    kernel = library.launchable(centred_kernel)
    return for_each(kernel, x, dim, (shift, grad), divisor)


@centred_operator.register_fake
def _(
    x: torch.Tensor,
    shift: torch.Tensor,
    grad: torch.Tensor,
    dim: int | None,
    divisor: int,
) -> torch.Tensor:
    return torch.empty_like(x)


@library.operator("tilebook::share")
def share_operator(
    x: torch.Tensor, result: torch.Tensor, grad: torch.Tensor, dim: int | None
) -> torch.Tensor:
    return for_each(library.launchable(share_kernel), x, dim, (result, grad))


@share_operator.register_fake
def _(
    x: torch.Tensor, result: torch.Tensor, grad: torch.Tensor, dim: int | None
) -> torch.Tensor:
    return torch.empty_like(x)


def for_each(
    kernel: Any,
    x: torch.Tensor,
    dim: int | None,
    stats: tuple[torch.Tensor, ...],
    *numbers: int,
) -> torch.Tensor:
    """Launch one program for each tile of a tensor and of what is made from it."""
    out = torch.empty_like(x)
    if not x.numel():
        return out
    seen, made = axes.view(x, dim), axes.view(out, dim)
    if made.x is not out or _form(seen) != _form(made):
        # Their dimensions don't go together: by way of what is contiguous.
        return out.copy_(for_each(kernel, x.contiguous(), dim, stats, *numbers))
    meta = axes.plan(seen, warp_bytes=axes.MOST_BYTES, split=False).meta
    side = [meta[name] for name in ("KEPT", "TERMS", "TERMS", "num_warps")]
    here, there = (axes.launch_of(v, *side) for v in (seen, made))
    # The other's inner size and terms, in units of its own divisor, and its strides.
    beside = (there.args[1], there.args[2], *there.args[4:7])
    meta = here.meta | {"DIV_OUT": there.meta["DIV"]}
    meta["ACC"] = axes.accumulator(x.dtype)
    del meta["EDGES"]
    with library.on(x):
        kernel[(here.programs,)](
            seen.x, made.x, *(s.contiguous() for s in stats), *numbers,
            *here.args, *beside, **meta,
        )  # fmt: skip
    return out


def _form(seen: axes.View) -> tuple[Any, ...]:
    return seen[1:4], seen.out_strides, axes.runs_along(seen)
