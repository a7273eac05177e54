"""`argmax`: each lane remembers its best and where it met it; lanes meet at the end."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax import axes
from tilebook.softmax.exponentials import logsumexp
from tilebook.softmax.sums import FLOATS, INTEGERS
from tilebook.softmax.walking import begin, edges, fetched, least, ordered, walk

__all__ = ["argmax", "chosen", "logsumexp"]


@triton.jit
def better(x, best):
    """Where x is to take the place of the best so far: greater, or the first NaN."""
    return (best == best) & ~(x <= best)


@triton.jit
def chosen(key, index):
    """Choose along the last axis: the largest, and of equal ones the first.

    Args:
        key: integers in the order of the values, see `ordered`.
        index: int64.

    Returns:
        Its key and its index.
    """
    best = tl.max(key, axis=1)
    most: tl.constexpr = 0x7FFF_FFFF_FFFF_FFFF
    return best, tl.min(tl.where(key == best[:, None], index, most), axis=1)


@triton.jit
def argmax_kernel(
    x_ptr, out_ptr, key_ptr, outer, inner, terms, part_terms,
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
    low = least(x_ptr)
    best = tl.full((KEPT, TERMS), low, ACC)
    # In which tile a lane met that, as the number of the tile's first term.
    tile = tl.zeros((KEPT, TERMS), tl.int32)
    for start in range(0, full, TERMS):
        x = fetched(ptrs + start * step, mask, low, ACC)
        take = better(x, best)
        best, tile = tl.where(take, x, best), tl.where(take, start, tile)
    if full < count:
        rest = mask & (lanes < between - full)
        x = fetched(ptrs + full * step, rest, low, ACC)
        take = better(x, best)
        best, tile = tl.where(take, x, best), tl.where(take, full, tile)
    # A lane that met nothing better than the least there is stands for its first term.
    key, index = chosen(ordered(best), first + (ahead + tile + lanes))
    if EDGES:
        offs, inside = edges(rows, ahead, between, count)
        x = fetched(rows + offs, mask & inside, low, ACC)
        key_e, index_e = chosen(ordered(x), first + tl.where(inside, offs, count))
        key, index = chosen(tl.join(key, key_e), tl.join(index, index_e))
    if PARTS > 1:
        out += part * outer * (inner if ALONG else inner * DIV)
        tl.store(key_ptr + out, key, mask=mask_k)
    tl.store(out_ptr + out, index, mask=mask_k)


@triton.jit
def choose_kernel(
    index_ptr, key_ptr, out_ptr, outputs, parts,
    KEPT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    offs_p = tl.arange(0, PARTS)
    # Parts that don't exist repeat the last one that does.
    offs_p = tl.minimum(offs_p, parts - 1)
    mask = (offs < outputs)[:, None]
    ptrs = offs[:, None] + offs_p[None, :] * tl.cast(outputs, tl.int64)
    key = tl.load(key_ptr + ptrs, mask=mask, other=0)  # (KEPT, PARTS)
    index = tl.load(index_ptr + ptrs, mask=mask, other=0)  # (KEPT, PARTS)
    _, index = chosen(key, index)
    tl.store(out_ptr + offs, index, mask=offs < outputs)


@library.operator("tilebook::argmax")
def argmax_operator(x: torch.Tensor, dim: int | None, keepdim: bool) -> torch.Tensor:
    kernels = library.launchable(argmax_kernel), library.launchable(choose_kernel)
    return found_in(kernels, x, dim, keepdim)


@argmax_operator.register_fake
def _(x: torch.Tensor, dim: int | None, keepdim: bool) -> torch.Tensor:
    return _place(x, dim, keepdim)


def argmax(
    x: torch.Tensor, dim: int | None = None, *, keepdim: bool = False
) -> torch.Tensor:
    """Find the first of the largest elements along a dimension, or of all.

    Args:
        x: float16, bfloat16, float32, float64 or an integer type of at most 64 bits,
            any shape, any strides.
        dim: the dimension; None for all of them.
        keepdim: whether it stays, with one element.

    Returns:
        Indices along the dimension, int64; in the flattened tensor where that is None.
        Of equal elements the first, and -0 equals 0. NaN counts as larger than all
        numbers: where there is one, the index is that of the first.

    Raises:
        TypeError: `x` isn't a tensor or its dtype isn't supported, or `dim` is no int.
        ValueError: no such dimension, nothing to choose from, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Exact, and not differentiable. `torch.argmax` leaves open which of equal
        elements it names.
    """
    check.tensor(x, "x", dtype=(*FLOATS, *INTEGERS))
    check.runs_here(x, "x")
    dim = axes.reduced_dim(x, dim)
    if not (x.numel() if dim is None else x.shape[dim]):
        what = "elements" if dim is None else f"elements along dimension {dim}"
        raise ValueError(f"x must have {what}, got shape {tuple(x.shape)}")
    # What has no gradient needs none of what it is taken from.
    x = x.detach()
    if not library.eager(x):
        return argmax_operator(x, dim, keepdim)
    return found_in((argmax_kernel, choose_kernel), x, dim, keepdim)


def _place(x: torch.Tensor, dim: int | None, keepdim: bool) -> torch.Tensor:
    shape = axes.reduced_shape(x, dim, keepdim)
    return torch.empty(shape, dtype=torch.int64, device=x.device)


def found_in(
    kernels: tuple[Any, Any], x: torch.Tensor, dim: int | None, keepdim: bool
) -> torch.Tensor:
    out = _place(x, dim, keepdim)
    if not out.numel():
        return out
    seen = axes.view(x, dim)
    # A lane holds a value and 32 bits of where it was.
    plan = axes.plan(seen, 2 if x.itemsize <= 4 else 3)
    meta = plan.meta | {"ACC": axes.comparable(x.dtype), "PARTS": plan.parts}
    found, keys = out, out
    if plan.parts > 1:
        found = out.new_empty((plan.parts, out.numel()))
        dtype = torch.int64 if x.itemsize == 8 else torch.int32
        keys = found.new_empty(found.shape, dtype=dtype)
    with library.on(x):
        kernels[0][(plan.programs,)](seen.x, found, keys, *plan.args, **meta)
        if plan.parts > 1:
            kept, width = axes.merge_tile(out.numel(), plan.parts)
            kernels[1][(triton.cdiv(out.numel(), kept),)](
                found, keys, out, out.numel(), plan.parts, KEPT=kept, PARTS=width
            )
    return out
