"""`topk`: the k best of a row are among the k groups whose best are the best."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.softmax import axes, groups
from tilebook.softmax.extremes import better
from tilebook.softmax.sorting import index_of, packed, top
from tilebook.softmax.walking import begin, edges, fetched, least, ordered, walk

DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
)
"""The element types that `topk` takes: they fit into 64 bits with a place in a row."""

MOST = 128
"""The largest k."""


@triton.jit
def unpack(key, rows, step, value_ptr, index_ptr, out, k, lanes, mask):
    """Store what the first k keys of each row stand for.

    Args:
        key: sorted (KEPT, K).
        rows: pointers (KEPT, 1) to the rows' first elements.
        step: from one element to the next.
        value_ptr, index_ptr: outputs.
        out: rows' numbers there (KEPT, 1).
        k: how many are wanted.
        lanes: numbers of the keys (1, K).
        mask: which rows there are (KEPT, 1).
    """
    mask = mask & (lanes < k)
    index = index_of(key)
    # The element itself, whatever its key has made of -0 and of kinds of NaN.
    value = tl.load(rows + index * step, mask=mask, other=0)  # (KEPT, K)
    tl.store(value_ptr + out * k + lanes, value, mask=mask)
    tl.store(index_ptr + out * k + lanes, index, mask=mask)


@triton.jit
def looked_up(rows, step, first, offs, inside, low, ACC: tl.constexpr):
    """Make keys of elements, and the least of all where there are none.

    Args:
        rows: pointers (KEPT, 1).
        step: from one element to the next.
        first: number of the element that `rows` point to.
        offs: of the elements from there.
        inside: which exist.
        low: the least value.
        ACC: the type that elements are compared in.
    """
    x = fetched(rows + offs * step, inside, low, ACC)
    key = packed(ordered(x), first + offs)
    return tl.where(inside, key, -(2**63))


@triton.jit
def topk_kernel(
    x_ptr, key_ptr, value_ptr, index_ptr, k, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    DIV: tl.constexpr, ALONG: tl.constexpr, EDGES: tl.constexpr,
    KEPT: tl.constexpr, TERMS: tl.constexpr,
    ACC: tl.constexpr, PARTS: tl.constexpr,
    LOG_K: tl.constexpr, LOG_GROUPS: tl.constexpr, LOG_WIDTH: tl.constexpr,
    LOG_EDGES: tl.constexpr,
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
    # Neighbouring lanes, in all tiles, are a group: its key is that of its best.
    GROUPS: tl.constexpr = 2**LOG_GROUPS
    GROUP: tl.constexpr = TERMS // GROUPS
    K: tl.constexpr = 2**LOG_K
    key = packed(ordered(best), first + (ahead + tile + lanes))
    if LOG_WIDTH == 0:
        # Groups are elements, and these keys the last word: lanes past the last element
        # must not name one of the edge behind it.
        key = tl.where(tile + lanes < between, key, -(2**63))
    key = tl.max(tl.reshape(key, (KEPT, GROUPS, GROUP)), axis=2)
    key = top(key, KEPT, LOG_K, LOG_GROUPS)  # (KEPT, K)
    if LOG_WIDTH > 0:
        # All members of these groups, from the cache; then the best of them.
        group = (index_of(key) - first - ahead) % TERMS // GROUP
        member = tl.arange(0, 2**LOG_WIDTH)[None, None, :]
        offs = group[:, :, None] * GROUP + member // GROUP * TERMS + member % GROUP
        offs = tl.reshape(offs, (KEPT, K * 2**LOG_WIDTH))
        inside = mask & (offs < between)
        key = looked_up(rows, step, first, ahead + offs, inside, low, ACC)
        key = top(key, KEPT, LOG_K, LOG_K + LOG_WIDTH)
    if EDGES:
        offs, inside = edges(rows, ahead, between, count, K)
        key_e = looked_up(rows, step, first, offs, mask & inside, low, ACC)
        key_e = top(key_e, KEPT, LOG_K, LOG_EDGES)
        both = tl.reshape(tl.join(key, key_e), (KEPT, 2 * K))
        key = top(both, KEPT, LOG_K, LOG_K + 1)
    lanes = tl.arange(0, K)[None, :]
    if PARTS > 1:
        out = (out * PARTS + part)[:, None] * K + lanes
        tl.store(key_ptr + out, key, mask=mask)
    else:
        unpack(key, rows, step, value_ptr, index_ptr, out[:, None], k, lanes, mask)


@triton.jit
def pick_kernel(
    key_ptr, out_ptr, rows, width, pieces,
    KEPT: tl.constexpr, LOG_K: tl.constexpr, LOG_PIECE: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    offs_r = pid // pieces * KEPT + tl.arange(0, KEPT)[:, None]
    offs = pid % pieces * 2**LOG_PIECE + tl.arange(0, 2**LOG_PIECE)[None, :]
    mask = (offs_r < rows) & (offs < width)
    key = tl.load(key_ptr + offs_r * width + offs, mask=mask, other=-(2**63))
    key = top(key, KEPT, LOG_K, LOG_PIECE)  # (KEPT, K)
    K: tl.constexpr = 2**LOG_K
    out = (offs_r * pieces + pid % pieces) * K + tl.arange(0, K)[None, :]
    tl.store(out_ptr + out, key, mask=offs_r < rows)


@triton.jit
def unpack_kernel(
    x_ptr, key_ptr, value_ptr, index_ptr, outer, inner, k,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    KEPT: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)[:, None]
    at_outer, at_inner = offs // inner, offs % inner
    mask = offs < tl.cast(outer, tl.int64) * inner
    row = at_outer * out_outer + at_inner * out_inner
    lanes = tl.arange(0, K)[None, :]
    key = tl.load(key_ptr + row * K + lanes, mask=mask, other=0)  # (KEPT, K)
    rows = x_ptr + at_outer * stride_outer + at_inner * stride_inner
    unpack(key, rows, stride_term, value_ptr, index_ptr, row, k, lanes, mask)


@library.operator("tilebook::topk")
def topk_operator(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = (topk_kernel, pick_kernel, unpack_kernel)
    return selected(tuple(map(library.launchable, kernels)), x, k)


@topk_operator.register_fake
def _(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _places(x, k)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _gradient(
    ctx: Any, grad: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor, None]:
    (index,) = ctx.saved_tensors
    return grad.new_zeros(ctx.shape).scatter(-1, index, grad), None


topk_operator.register_autograd(_gradient, setup_context=_remember)


def topk(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k largest elements along the last dimension.

    Args:
        x: tensor (..., n) of a type in `DTYPES`, n below 2^32, any strides.
        k: from 0 to n, at most `MOST`.

    Returns:
        Their values (..., k), of the dtype of `x`, and their indices (..., k), int64:
        the largest first, of equal ones that of the smaller index. -0 equals 0, and NaN
        counts as larger than all numbers. The values are differentiable.

    Raises:
        TypeError: `x` isn't a tensor or its dtype isn't supported, or `k` is no int.
        ValueError: no dimension, another `k`, a longer row, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Exact. `torch.topk` leaves open which of equal elements it names. A row is cut
        into groups, and groups are compared by their best: the k best elements lie in
        at most k groups, whose own best are among them, so only k groups have to be
        looked at again. Sorting is bitonic, on keys of 64 bits, the value's above the
        index's.
    """
    check.tensor(x, "x", dtype=DTYPES)
    check.runs_here(x, "x")
    if not x.ndim:
        raise ValueError("x must have at least 1 dimension, got 0")
    check.natural_number(k, "k")
    n = x.shape[-1]
    if k > min(n, MOST):
        raise ValueError(f"k must be at most {min(n, MOST)} for rows of {n}, got {k}")
    if n >= 2**32 - 1:
        raise ValueError(f"x must have rows of fewer than 2^32 - 1 elements, got {n}")
    if not library.eager(x):
        return topk_operator(x, k)
    return selected((topk_kernel, pick_kernel, unpack_kernel), x, k)


def _places(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*x.shape[:-1], k)
    return (
        torch.empty(shape, dtype=x.dtype, device=x.device),
        torch.empty(shape, dtype=torch.int64, device=x.device),
    )


def selected(
    kernels: tuple[Any, Any, Any], x: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernels; see `topk`.

    Args:
        kernels: those of this module, or what `torch.library.wrap_triton` makes of
            them.
        x: tensor (..., n).
        k: how many are wanted.

    Returns:
        Values and indices.
    """
    values, indices = _places(x, k)
    if not values.numel():
        return values, indices
    seen = axes.view(x, x.ndim - 1)
    rows, width = seen.outer * seen.inner, triton.next_power_of_2(k)
    plan = groups.plan_for(seen, width)
    meta = groups.sides(plan.meta["TERMS"], plan.args[3], width, 16 // x.itemsize)
    meta |= plan.meta | {"ACC": axes.comparable(x.dtype), "PARTS": plan.parts}
    keys = indices
    if plan.parts > 1:
        keys = indices.new_empty((rows, plan.parts * width))
    with library.on(x):
        kernels[0][(plan.programs,)](
            seen.x, keys, values, indices, k, *plan.args, **meta
        )
        if plan.parts == 1:
            return values, indices
        while keys.shape[1] > width:
            keys = _picked(kernels[1], keys, meta["LOG_K"])
        kept = max(1, 1024 // width)
        kernels[2][(-(-rows // kept),)](
            seen.x, keys, values, indices, seen.outer, seen.inner, k,
            *seen.strides, *seen.out_strides, KEPT=kept, K=width,
        )  # fmt: skip
    return values, indices


def _picked(kernel: Any, keys: torch.Tensor, log_k: int) -> torch.Tensor:
    """Of each piece of each row of keys the largest."""
    rows, width = keys.shape
    num_warps, room = groups.warps_for(1 << log_k), groups.room_for(1 << log_k)
    piece = min(room, triton.next_power_of_2(width))
    pieces = -(-width // piece)
    kept = min(room // piece, triton.next_power_of_2(rows))
    best = keys.new_empty((rows, pieces << log_k))
    kernel[(-(-rows // kept) * pieces,)](
        keys, best, rows, width, pieces,
        KEPT=kept, LOG_K=log_k, LOG_PIECE=piece.bit_length() - 1, num_warps=num_warps,
    )  # fmt: skip
    return best
