"""`total`: sums along either dimension by one kernel, and which of them coalesces."""

import torch
import triton
import triton.language as tl

from tilebook import check, library

DTYPES = {
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.uint8: torch.int64,
    torch.int8: torch.int64,
    torch.int16: torch.int64,
    torch.int32: torch.int64,
    torch.int64: torch.int64,
}
"""The element types that `total` takes, and those of their sums."""

# Sums that stay apart, and terms of each, in a tile: wide where neighbours lie.
ALONG = (4, 512)
ACROSS = (128, 16)


@triton.jit
def total_kernel(
    x_ptr, out_ptr, kept, summed, stride_kept, stride_summed,
    ACC: tl.constexpr, KEPT: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    offs_k = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    acc = tl.zeros((KEPT, SUMMED), ACC)
    for start in range(0, summed, SUMMED):
        offs_s = tl.cast(start, tl.int64) + tl.arange(0, SUMMED)
        x = tl.load(
            x_ptr + offs_k[:, None] * stride_kept + offs_s[None, :] * stride_summed,
            mask=(offs_k < kept)[:, None] & (offs_s < summed)[None, :],
            other=0,
        )  # (KEPT, SUMMED)
        # Each lane has a sum of its own; lanes meet once, at the end.
        acc += x.to(ACC)
    tl.store(out_ptr + offs_k, tl.sum(acc, axis=1), mask=offs_k < kept)


def total(
    x: torch.Tensor, dim: int, *, tile: tuple[int, int] | None = None
) -> torch.Tensor:
    """Sum a matrix along a dimension, as `torch.sum` does.

    Args:
        x: matrix of a type in `DTYPES`, any strides.
        dim: 0 for the sums of columns, 1 for those of rows.
        tile: how many sums a program makes and how many terms of each it takes at a
            time, powers of two; by default wide in the dimension whose elements lie
            nearest each other.

    Returns:
        Vector of the sums: of the dtype of `x` if it is floating-point, which are
        added in float32 (in float64 for that), else int64.

    Raises:
        TypeError: `x` isn't a tensor, or its dtype isn't supported.
        ValueError: not a matrix, one where this process's kernels can't reach it,
            another `dim`, or a gradient, which there is none of.
    """
    check.tensor(x, "x", dtype=DTYPES, ndim=2)
    check.runs_here(x, "x")
    check.one_of(dim, "dim", (0, 1))
    if torch.is_grad_enabled() and x.requires_grad:
        raise ValueError("x takes part in a gradient, which there is none of")
    out = torch.empty(x.shape[1 - dim], dtype=DTYPES[x.dtype], device=x.device)
    if not out.numel():
        return out
    view = x.t() if dim == 0 else x  # (kept, summed)
    kept, summed = tile or tile_for(view)
    with library.on(x):
        total_kernel[(triton.cdiv(view.shape[0], kept),)](
            view, out, *view.shape, *view.stride(),
            ACC=accumulator(x.dtype), KEPT=kept, SUMMED=summed,
        )  # fmt: skip
    return out


def tile_for(view: torch.Tensor) -> tuple[int, int]:
    """Choose the tile for a matrix whose rows are summed.

    Args:
        view: matrix (kept, summed).

    Returns:
        Sums in a tile, and terms of each.
    """
    return ALONG if abs(view.stride(1)) <= abs(view.stride(0)) else ACROSS


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """The type in which sums of a dtype are kept while they grow."""
    if not dtype.is_floating_point:
        return tl.int64
    return tl.float64 if dtype == torch.float64 else tl.float32
