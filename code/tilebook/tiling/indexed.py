"""`gather` and `scatter`: rows and columns that another tensor names."""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from tilebook import check as checks
from tilebook import library
from tilebook.tiling import indices, scattering
from tilebook.tiling.operands import bits

SUMMED = (*indices.TRAINED, torch.int32, torch.int64)
"""The element types that `scatter_add` takes."""


@triton.jit
def gather_kernel(
    x_ptr, index_ptr, out_ptr, size, m, n,
    x_along, x_across, index_m, index_n, out_m, out_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles_n = (n - 1) // BLOCK_N + 1
    pid_m = (tl.program_id(0) // tiles_n).to(tl.int64)
    pid_n = (tl.program_id(0) % tiles_n).to(tl.int64)
    offs_m = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    offs_n = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = (offs_m < m) & (offs_n < n)  # (BLOCK_M, BLOCK_N)
    index = tl.load(
        index_ptr + offs_m * index_m + offs_n * index_n, mask=mask, other=-1
    ).to(tl.int64)
    # An index is an address that somebody else computed: it is masked as an
    # offset would be.
    inside = (index >= 0) & (index < size)
    x = tl.load(
        x_ptr + index * x_along + offs_n * x_across, mask=inside, other=0
    )  # (BLOCK_M, BLOCK_N)
    tl.store(out_ptr + offs_m * out_m + offs_n * out_n, x, mask=mask)


def gather(
    x: torch.Tensor, dim: int, index: torch.Tensor, *, check: bool = False
) -> torch.Tensor:
    """Pick elements of a matrix along a dimension, as `torch.gather` does.

    Args:
        x: matrix, any strides, elements of 1, 2, 4 or 8 bytes.
        dim: 0 or 1: `out[i, j]` is `x[index[i, j], j]` or `x[i, index[i, j]]`; -2 and
            -1 are the same two.
        index: matrix of int32 or int64, any strides, no longer than `x` in the other
            dimension.
        check: refuse indices outside `x`, which takes a pass over `index` and waits
            for it. Without it, what such an index names is 0; memory outside `x` is
            never read.

    Returns:
        Matrix of the shape of `index`, contiguous. Differentiable in `x` for types in
        `indices.TRAINED`.

    Raises:
        TypeError: not tensors, elements too large, an index of another type, or a
            gradient of another dtype.
        ValueError: other shapes or devices, a tensor where this process's kernels
            can't reach it, or another `dim`.
        IndexError: an index outside `x`, with `check`.

    Notes:
        The gradient of an element that is picked several times is a sum, whose terms
        are added atomically, in any order, unless
        `torch.use_deterministic_algorithms` is on.
    """
    (x,) = indices.check(x, dim, index)
    dim = indices.dimension(dim)
    if check:
        indices.check_values(index, x.shape[dim])
    if not library.eager(x, index):
        return gather_operator(x, dim, index)
    return _gathered(x, dim, index)


def scatter(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    *,
    check: bool = False,
    ordered: bool = True,
) -> torch.Tensor:
    """Replace elements of a matrix, as `torch.scatter` does, in a known order.

    Args:
        x: matrix, any strides, elements of 1, 2, 4 or 8 bytes; it is not changed.
        dim: 0 or 1: `src[i, j]` goes to `out[index[i, j], j]` or
            `out[i, index[i, j]]`; -2 and -1 are the same two.
        index: matrix of int32 or int64, any strides, no longer than `x` in the other
            dimension nor than `src` in any.
        src: matrix of the dtype of `x`, any strides.
        check: refuse indices outside `x`, which takes a pass over `index` and waits
            for it. Without it, what such an index names is dropped; memory outside
            the result is never written.
        ordered: of several values for one element the last along `dim` stays, which
            takes a program for each stretch of the other dimension and a loop. Without
            it, one of them stays, and which one may differ from run to run.

    Returns:
        Matrix of the shape of `x`, contiguous. Differentiable in `x` and `src` for
        types in `indices.TRAINED`.

    Raises:
        TypeError: not tensors, elements too large, different dtypes, an index of
            another type, or a gradient of another dtype.
        ValueError: other shapes or devices, a tensor where this process's kernels
            can't reach it, or another `dim`.
        IndexError: an index outside `x`, with `check`.

    Notes:
        A value that did not stay has no gradient. Which ones stayed is known only if
        they were `ordered`; otherwise the gradient is right where no two values have
        one place, as that of PyTorch.
    """
    return _scattered(x, dim, index, src, check, ordered, add=False)


def scatter_add(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    *,
    check: bool = False,
    ordered: bool = True,
) -> torch.Tensor:
    """Add to elements of a matrix, as `torch.scatter_add` does, in a known order.

    Args:
        x: matrix of a type in `SUMMED`, any strides; it is not changed.
        dim: see `scatter`.
        index: see `scatter`.
        src: see `scatter`.
        check: see `scatter`.
        ordered: several values for one element are added in their order along `dim`,
            so that the same call gives the same bits. Without it they are added
            atomically, and sums of floats may differ from run to run.

    Returns:
        Matrix of the shape of `x`, contiguous. Each addition is rounded to the dtype.
        Differentiable in `x` and `src`.

    Raises:
        TypeError: see `scatter`; or a dtype outside `SUMMED`.
        ValueError: see `scatter`.
        IndexError: see `scatter`.
    """
    checks.tensor(x, "x", dtype=SUMMED)
    return _scattered(x, dim, index, src, check, ordered, add=True)


def _scattered(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    check: bool,
    ordered: bool,
    *,
    add: bool,
) -> torch.Tensor:
    x, src = indices.check(x, dim, index, src)
    dim = indices.dimension(dim)
    if check:
        indices.check_values(index, x.shape[dim])
    if not library.eager(x, index, src):
        return scatter_operator(x, dim, index, src, add, ordered)
    return _placed(x, dim, index, src, add, ordered)


def _gathered(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    out = torch.empty(index.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        source, where, into = indices.turned(dim, (bits(x), index, bits(out)))
        tile = indices.tile_for(where)
        with library.on(x):
            gather_kernel[(indices.tiles(where, tile),)](
                source, where, into, source.shape[0], *where.shape,
                *source.stride(), *where.stride(), *into.stride(), **tile,
            )  # fmt: skip
    return out


def _placed(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    add: bool,
    ordered: bool,
) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)
    if index.numel() and out.numel():
        into, values = (out, src) if add else (bits(out), bits(src))
        scattering.launch(into, dim, index, values, add=add, ordered=ordered)
    return out


@library.operator("tilebook::gather", opaque=True)
def gather_operator(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    return _gathered(x, dim, index)


@gather_operator.register_fake
def _(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    return torch.empty(index.shape, dtype=x.dtype, device=x.device)


@library.operator("tilebook::scatter", opaque=True)
def scatter_operator(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    add: bool,
    ordered: bool,
) -> torch.Tensor:
    return _placed(x, dim, index, src, add, ordered)


@scatter_operator.register_fake
def _(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    add: bool,
    ordered: bool,
) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _keep_for_gather(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, ctx.dim, index = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(index)


def _gather_gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
    (index,) = ctx.saved_tensors
    ordered = torch.are_deterministic_algorithms_enabled()
    zeros = grad.new_zeros(ctx.shape)
    return scatter_add(zeros, ctx.dim, index, grad, ordered=ordered), None, None


def _keep_for_scatter(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, ctx.dim, index, src, ctx.add, ctx.ordered = inputs
    ctx.shape = src.shape
    ctx.save_for_backward(index)


def _scatter_gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    to_x = to_src = None
    if ctx.needs_input_grad[0]:
        # What was replaced has no part in the result.
        zeros = grad.new_zeros(1, 1).expand(index.shape)
        to_x = grad if ctx.add else scatter(grad, ctx.dim, index, zeros, ordered=False)
    if ctx.needs_input_grad[3]:
        to_src = gather(grad, ctx.dim, index)
        if ctx.ordered and not ctx.add:
            to_src = to_src.where(_stayed(grad.shape, ctx.dim, index), 0)
        rows, columns = (a - b for a, b in zip(ctx.shape, index.shape, strict=True))
        to_src = F.pad(to_src, (0, columns, 0, rows))
    return to_x, None, None, to_src, None, None


def _stayed(shape: torch.Size, dim: int, index: torch.Tensor) -> torch.Tensor:
    """Which values are the last of those that an index sends to one place."""
    places = torch.arange(index.shape[dim], device=index.device)
    places = (places[:, None] if dim == 0 else places[None, :]).expand(index.shape)
    last = scatter(places.new_full(shape, -1), dim, index, places)
    return gather(last, dim, index) == places


gather_operator.register_autograd(_gather_gradient, setup_context=_keep_for_gather)
scatter_operator.register_autograd(_scatter_gradient, setup_context=_keep_for_scatter)
