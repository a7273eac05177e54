"""How a reduction sees its operand: what is kept, what is reduced, and in which tiles.

Whatever the shape, a kernel sees three dimensions: two that are kept, `outer` and
`inner`, and the `terms` that are reduced. A program takes a tile of `KEPT` of the inner
ones by `TERMS` terms, and walks along the terms. Rows and columns differ in the sides
of the tile only, which follow what lies side by side in memory.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

MOST_WARPS = 8
ROW_BYTES = 8192
"""Of a row for each warp, at least: what several find has to meet in shared memory."""
WARP_BYTES = 512
"""What a warp loads at a time, 16 bytes for each of its threads: wider tiles need more
registers, so that fewer programs run at a time."""
MOST_BYTES = 4096
"""The same where there are too few programs to have enough on its way."""
LANE_REGISTERS = 32
"""Registers of a thread that may hold what it has gathered so far."""
COLUMNS, SECTORS_BYTES = 32, 64
"""The width of a tile of columns where each row starts at a whole vector, and the least
that it may have in bytes: narrow, so that columns are split into few parts."""
LINE_BYTES = 512
"""Its width where rows start anywhere, so that few of the sectors that it touches are
shared with a neighbour; and the least that a warp is launched for."""
IN_FLIGHT_BYTES = 2**23
"""What all programs together should have on their way, or sequences are split: 64 KiB
for each of some 130 multiprocessors."""
LEAST_VECTORS = 16
"""Pieces of 16 bytes that a sequence has at least where its edges are taken apart."""
LEAST_STEPS = 4
"""Tiles that a program walks along at least where sequences are split."""
LONGEST = 2**30
"""Terms that a program walks along at most: their offsets fit into 32 bits."""


class View(NamedTuple):
    """A tensor as the kernels see it."""

    x: torch.Tensor
    """The tensor, or a contiguous copy where its strides can't be told in three."""
    outer: int
    inner: int
    terms: int
    strides: tuple[int, int, int]
    """Of the outer and inner dimension and of the terms."""
    out_strides: tuple[int, int]
    """Of the outer and inner dimension in the output."""


class Plan(NamedTuple):
    """How a kernel is launched on a view."""

    programs: int
    parts: int
    """Into how many parts each sequence of terms is split."""
    args: tuple[int, ...]
    """Sizes and strides, as `begin` takes them."""
    meta: dict[str, Any]
    """Constexprs and options."""


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """The type in which sums of a dtype are kept while they grow."""
    if not dtype.is_floating_point:
        return tl.int64
    return tl.float64 if dtype == torch.float64 else tl.float32


def comparable(dtype: torch.dtype) -> tl.dtype:
    """The type in which elements of a dtype are compared: signed, 32 bits at least."""
    if not dtype.is_floating_point:
        return tl.int64 if dtype == torch.int64 else tl.int32
    return tl.float64 if dtype == torch.float64 else tl.float32


def reduced_dim(x: torch.Tensor, dim: int | None) -> int | None:
    """Check the dimension to be reduced.

    Args:
        x: the tensor.
        dim: from -x.ndim to x.ndim - 1, or None for all elements.

    Returns:
        The dimension, counted from the front; None as it is, and for a tensor without
        dimensions.

    Raises:
        TypeError: `dim` is no int.
        ValueError: there is no such dimension.
    """
    if dim is None:
        return None
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim must be an int or None, got {type(dim).__name__}")
    least, most = (-x.ndim, x.ndim - 1) if x.ndim else (-1, 0)
    if not least <= dim <= most:
        raise ValueError(f"dim must be from {least} to {most}, got {dim}")
    return dim % x.ndim if x.ndim else None


def reduced_shape(x: torch.Tensor, dim: int | None, keepdim: bool) -> list[int]:
    """The shape of what a reduction returns.

    Args:
        x: the tensor.
        dim: as `reduced_dim` returns it.
        keepdim: whether a reduced dimension stays, with one element.

    Returns:
        The shape.
    """
    if dim is None:
        return [1] * x.ndim if keepdim else []
    rest = [1] if keepdim else []
    return [*x.shape[:dim], *rest, *x.shape[dim + 1 :]]


def view(x: torch.Tensor, dim: int | None, *, any_order: bool = False) -> View:
    """Describe a tensor to the kernels.

    Args:
        x: tensor, not empty.
        dim: what is reduced, from 0 on; None for all elements.
        any_order: whether the terms may come in any order where all are reduced.

    Returns:
        The view; of a copy if the kept dimensions don't lie in memory as two could, or
        the reduced ones not as one.
    """
    sizes = [*zip(map(int, x.shape), map(int, x.stride()), strict=True)]
    kept = [] if dim is None else sizes[:dim] + sizes[dim + 1 :]
    gone = sizes if dim is None else [sizes[dim]]
    if any_order:
        gone = sorted(gone, key=lambda size: -size[1])
    kept, gone = _merged(kept), _merged(gone)
    if len(kept) > 2 or len(gone) > 1:
        return view(x.contiguous(), dim)
    # A single term has no neighbours.
    (terms, stride_term), *_ = gone or [(1, 0)]
    kept = [*[(1, 0)] * (2 - len(kept)), *kept]
    out = [(*kept[0], kept[1][0]), (*kept[1], 1)]
    # A tile reaches along the dimension whose elements lie nearer each other.
    if out[0][0] > 1 and _step(out[0][1]) < _step(out[1][1]):
        out.reverse()
    (outer, stride_outer, out_outer), (inner, stride_inner, out_inner) = out
    strides = (stride_outer, stride_inner, stride_term)
    return View(x, outer, inner, terms, strides, (out_outer, out_inner))


def _merged(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes and strides with neighbours made one wherever one stride serves both."""
    found: list[tuple[int, int]] = []
    for size, stride in sizes:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return found


def _step(stride: int) -> float:
    # Elements that are all one and the same are no neighbours.
    return stride or math.inf


def plan(
    seen: View,
    registers: int = 1,
    *,
    num_warps: int | None = None,
    warp_bytes: int | None = None,
    split: bool = True,
) -> Plan:
    """Choose the tiles, and the parts that terms are split into.

    Args:
        seen: the view.
        registers: that hold what one lane of a tile gathers.
        num_warps: of a program; by default as many as a row is long enough for, since a
            row that one warp holds needs no barrier.
        warp_bytes: what a warp loads at a time; by default few where there are programs
            enough.
        split: whether the terms may be split at all.

    Returns:
        The launch. It follows from shape, strides, dtype and place in memory alone, not
        from the card, so terms are combined in the same order everywhere.
    """
    size, along = seen.x.itemsize, runs_along(seen)
    if num_warps is None:
        num_warps = MOST_WARPS
        if along:
            row = triton.next_power_of_2(seen.terms * size)
            num_warps = max(1, min(num_warps, row // ROW_BYTES))
    lanes = 32 * num_warps * LANE_REGISTERS // triton.next_power_of_2(registers)
    tile = min(num_warps * (warp_bytes or WARP_BYTES) // size, lanes)
    width = triton.next_power_of_2(seen.terms)
    if along:
        terms = min(tile, width)
        kept = min(tile // terms, triton.next_power_of_2(seen.inner))
    else:
        columns = max(COLUMNS, SECTORS_BYTES // size)
        if _starts(seen)[1]:
            columns = LINE_BYTES // size
        columns = max(columns, tile // width)
        kept = min(tile, columns, triton.next_power_of_2(seen.inner))
        terms = min(tile // kept, width)

    def in_flight(kept: int, terms: int) -> int:
        return seen.outer * -(-seen.inner // kept) * kept * terms * size

    least = num_warps * LINE_BYTES // (terms * size)
    while along and kept > max(1, least) and in_flight(kept, terms) < IN_FLIGHT_BYTES:
        kept //= 2
    # One launch is better than two: only columns of much are split before all else.
    if along or in_flight(kept, seen.terms) <= IN_FLIGHT_BYTES:
        room = min(num_warps * MOST_BYTES // size, lanes) // kept
        while (
            2 * terms <= min(room, width) and in_flight(kept, terms) < IN_FLIGHT_BYTES
        ):
            terms *= 2
    parts = -(-seen.terms // LONGEST)
    if split and in_flight(kept, terms) < IN_FLIGHT_BYTES:
        wanted = IN_FLIGHT_BYTES // in_flight(kept, terms)
        parts = max(parts, min(wanted, seen.terms // (LEAST_STEPS * terms)))
    part_terms = -(-seen.terms // (parts * terms)) * terms
    return launch_of(seen, kept, terms, part_terms, num_warps)


def runs_along(seen: View) -> bool:
    """Whether a view's terms lie nearer each other than what is kept."""
    _, stride_inner, stride_term = seen.strides
    return seen.inner == 1 or _step(stride_term) <= _step(stride_inner)


def _starts(seen: View) -> tuple[int, bool]:
    """What divides all distances between neighbourhoods and their length, a whole
    vector at most; and whether some start elsewhere than at a whole vector."""
    along, strides, vector = runs_along(seen), seen.strides, 16 // seen.x.itemsize
    apart = [strides[0] if seen.outer > 1 else 0]
    if not along or seen.inner > 1:
        apart.append(strides[1] if along else strides[2])
    div = math.gcd(*apart, seen.terms if along else seen.inner, vector)
    return div, div < vector or seen.x.storage_offset() % vector != 0


def launch_of(
    seen: View, kept: int, terms: int, part_terms: int, num_warps: int
) -> Plan:
    """Put a launch together.

    Args:
        seen: the view.
        kept: sequences in a tile.
        terms: terms of each in a tile.
        part_terms: terms of a part, all but the last.
        num_warps: of a program.

    Returns:
        The launch.
    """
    along, parts = runs_along(seen), -(-seen.terms // part_terms)
    outer, inner, all_terms, strides = seen.outer, seen.inner, seen.terms, seen.strides
    vector = 16 // seen.x.itemsize
    div, odd = _starts(seen)
    worth = along and strides[2] == 1 and all_terms >= LEAST_VECTORS * vector
    if along:
        strides = (strides[0] // div, strides[1] // div, strides[2])
        all_terms //= div
    else:
        strides = (strides[0] // div, strides[1], strides[2] // div)
        inner //= div
    meta = {"DIV": div, "ALONG": along, "EDGES": worth and odd}
    meta |= {"KEPT": kept, "TERMS": terms, "num_warps": num_warps}
    programs = outer * -(-seen.inner // kept) * parts
    args = (outer, inner, all_terms, part_terms, *strides, *seen.out_strides)
    return Plan(programs, parts, args, meta)


def merge_tile(outputs: int, parts: int) -> tuple[int, int]:
    """Choose the tile of a kernel that merges what parts have gathered.

    Args:
        outputs: sequences.
        parts: of each.

    Returns:
        Sequences that a program merges, and the power of two that holds all parts.
    """
    width = triton.next_power_of_2(parts)
    return max(1, min(1024 // width, triton.next_power_of_2(outputs))), width
