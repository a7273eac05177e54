"""`total`: sums along either dimension by one kernel, and which of them coalesces."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.tiling.indices import dimension

DTYPES = {
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bool: torch.int64,
    torch.uint8: torch.int64,
    torch.int8: torch.int64,
    torch.int16: torch.int64,
    torch.int32: torch.int64,
    torch.int64: torch.int64,
}
"""The element types that `total` takes, and those of their sums."""

# Sums that stay apart, and terms of each, in a tile: wide where neighbours lie.
ALONG = (1, 2048)
ACROSS = (64, 16)
# The same where parts of sums are added up: few, and near one another in a cache.
TOGETHER = (8, 256)
# Programs that keep a large GPU busy, and the least of steps worth a program.
PROGRAMS = 1024
STEPS = 4
LARGEST = 2**15
"""The most elements of a tile."""

WIDE = {
    tl.float32: torch.float32,
    tl.float64: torch.float64,
    tl.int64: torch.int64,
}


@triton.jit
def total_kernel(
    x_ptr, out_ptr, kept, summed, part, stride_kept, stride_summed,
    ACC: tl.constexpr, KEPT: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    offs_k = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    # Axis 1 shares out the terms of a sum, in parts that are whole steps.
    pid_s = tl.program_id(1).to(tl.int64)
    first = pid_s * part
    acc = tl.zeros((KEPT, SUMMED), ACC)
    for start in range(first, tl.minimum(first + part, summed), SUMMED):
        offs_s = start + tl.arange(0, SUMMED)
        x = tl.load(
            x_ptr + offs_k[:, None] * stride_kept + offs_s[None, :] * stride_summed,
            mask=(offs_k < kept)[:, None] & (offs_s < summed)[None, :],
            other=0,
        )  # (KEPT, SUMMED)
        # Each lane has a sum of its own; lanes meet once, at the end.
        acc += x.to(ACC)
    tl.store(out_ptr + pid_s * kept + offs_k, tl.sum(acc, axis=1), mask=offs_k < kept)


class Plan(NamedTuple):
    """How the sums of a matrix are shared out."""

    kept: int
    """Sums that a program makes, a power of two."""
    summed: int
    """Terms of each that it takes at a time, a power of two."""
    part: int
    """Terms of each that it takes in all."""
    parts: int
    """Programs that share a sum."""


def plan(view: torch.Tensor, tile: tuple[int, int] | None = None) -> Plan:
    """Share out the sums of a matrix whose rows are summed.

    Args:
        view: matrix (kept, summed), not empty.
        tile: sums in a tile and terms of each; chosen by the strides unless given.

    Returns:
        A plan. Several programs share each sum where there would be fewer than
        `PROGRAMS` of them, as long as each has `STEPS` tiles to add.
    """
    kept, summed = tile or tile_for(view)
    rows, terms = map(int, view.shape)
    programs = triton.cdiv(rows, kept)
    wanted = max(1, min(PROGRAMS // programs, terms // (STEPS * summed)))
    part = triton.cdiv(triton.cdiv(terms, wanted), summed) * summed
    return Plan(kept, summed, part, triton.cdiv(terms, part))


def tile_for(view: torch.Tensor) -> tuple[int, int]:
    """Choose the tile for a matrix whose rows are summed.

    Args:
        view: matrix (kept, summed), not empty.

    Returns:
        Sums in a tile, and terms of each: wide in the dimension whose elements lie
        nearest each other.
    """
    along = abs(view.stride(1)) <= abs(view.stride(0))
    return _fitted(ALONG if along else ACROSS, view)


def _fitted(tile: tuple[int, int], view: torch.Tensor) -> tuple[int, int]:
    """Give what a tile has more than the matrix in one dimension to the other."""
    area = tile[0] * tile[1]
    rows, terms = (triton.next_power_of_2(int(size)) for size in view.shape)
    summed = min(tile[1], terms)
    kept = min(area // summed, rows)
    return kept, min(area // kept, terms)


def total(
    x: torch.Tensor, dim: int, *, tile: tuple[int, int] | None = None
) -> torch.Tensor:
    """Sum a matrix along a dimension, as `torch.sum` does.

    Args:
        x: matrix of a type in `DTYPES`, any strides.
        dim: 0 for the sums of columns, 1 for those of rows; -2 and -1 are the same two.
        tile: how many sums a program makes and how many terms of each it takes at a
            time, powers of two whose product is at most `LARGEST`; by default as
            `tile_for` has it.

    Returns:
        Vector of the sums: of the dtype of `x` if it is floating-point, which are
        added in float32 (in float64 for that), else int64. Differentiable.

    Raises:
        TypeError: `x` isn't a tensor, its dtype isn't supported, or `tile` isn't two
            integers.
        ValueError: not a matrix, one where this process's kernels can't reach it,
            another `dim`, or `tile` isn't two powers of two, or too large.

    Notes:
        The same call gives the same bits. Where a matrix has few sums, several programs
        share each of them, and a second launch adds up what they come to.
    """
    check.tensor(x, "x", dtype=DTYPES, ndim=2)
    check.runs_here(x, "x")
    dim = dimension(dim)
    tile = _check_tile(tile)
    if not library.eager(x):
        return total_operator(x, dim, *tile)
    return _summed(_as_it_is, x, dim, *tile)


def _check_tile(tile: tuple[int, int] | None) -> tuple[int, int]:
    if tile is None:
        return 0, 0
    if not isinstance(tile, tuple) or len(tile) != 2:
        raise TypeError(f"tile must be a tuple of two integers, got {tile!r}")
    kept, summed = (check.power_of_two(side, "tile", LARGEST) for side in tile)
    if kept * summed > LARGEST:
        raise ValueError(f"tile must have at most {LARGEST} elements, got {tile}")
    return kept, summed


def _as_it_is(kernel: Any) -> Any:
    return kernel


def _summed(
    prepared: Callable[[Any], Any], x: torch.Tensor, dim: int, kept: int, summed: int
) -> torch.Tensor:
    dtype, acc = DTYPES[x.dtype], accumulator(x.dtype)
    out = torch.empty(x.shape[1 - dim], dtype=dtype, device=x.device)
    if not x.numel():
        return out.zero_()
    if x.dtype == torch.bool:
        x = x.view(torch.uint8)
    view = x.t() if dim == 0 else x  # (kept, summed)
    shared = plan(view, (kept, summed) if kept else None)
    with library.on(x):
        if shared.parts == 1:
            _launch(prepared, view, out, shared, acc)
            return out
        # In the accumulator's type: nothing is rounded before the last sum.
        sums = torch.empty(
            (shared.parts, view.shape[0]), dtype=WIDE[acc], device=x.device
        )
        _launch(prepared, view, sums, shared, acc)
        parts = sums.t()  # (kept, parts), which one program a sum takes together
        together = Plan(*_fitted(TOGETHER, parts), part=shared.parts, parts=1)
        _launch(prepared, parts, out, together, acc)
    return out


def _launch(
    prepared: Callable[[Any], Any],
    view: torch.Tensor,
    out: torch.Tensor,
    shared: Plan,
    acc: tl.dtype,
) -> None:
    grid = (triton.cdiv(view.shape[0], shared.kept), shared.parts)
    prepared(total_kernel)[grid](
        view, out, *view.shape, shared.part, *view.stride(),
        ACC=acc, KEPT=shared.kept, SUMMED=shared.summed,
    )  # fmt: skip


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """The type in which sums of a dtype are kept while they grow."""
    if not dtype.is_floating_point:
        return tl.int64
    return tl.float64 if dtype == torch.float64 else tl.float32


@library.operator("tilebook::total")
def total_operator(x: torch.Tensor, dim: int, kept: int, summed: int) -> torch.Tensor:
    return _summed(library.launchable, x, dim, kept, summed)


@total_operator.register_fake
def _(x: torch.Tensor, dim: int, kept: int, summed: int) -> torch.Tensor:
    return torch.empty(x.shape[1 - dim], dtype=DTYPES[x.dtype], device=x.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, ctx.dim, _, _ = inputs
    ctx.shape = x.shape


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
    return grad.unsqueeze(ctx.dim).expand(ctx.shape), None, None, None


total_operator.register_autograd(_gradient, setup_context=_keep)
