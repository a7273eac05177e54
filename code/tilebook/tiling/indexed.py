"""`gather` and `scatter`: rows and columns that another tensor names."""

import torch
import triton
import triton.language as tl

from tilebook import check as checks
from tilebook import library
from tilebook.tiling.operands import bits, check_matrix

BLOCK_M, BLOCK_N = 4, 256
BLOCK = 256

SUMMED = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int32,
    torch.int64,
)
"""The element types that `scatter_add` takes."""


@triton.jit
def gather_kernel(
    x_ptr, index_ptr, out_ptr, size, m, n,
    x_along, x_across, index_m, index_n, out_m, out_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
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


@triton.jit
def ordered_kernel(
    out_ptr, index_ptr, src_ptr, size, m, n,
    out_along, out_across, index_m, index_n, src_m, src_n,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # Nothing leaves its column, so who owns the columns owns what is written
    # there, and goes through the rows in order.
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    for i in range(0, m):
        row = tl.cast(i, tl.int64)
        index = tl.load(
            index_ptr + row * index_m + offs * index_n, mask=mask, other=-1
        ).to(tl.int64)
        src = tl.load(src_ptr + row * src_m + offs * src_n, mask=mask, other=0)
        inside = (index >= 0) & (index < size)
        ptrs = out_ptr + index * out_along + offs * out_across
        if ADD:
            src += tl.load(ptrs, mask=inside, other=0)
        tl.store(ptrs, src, mask=inside)
        # The next row may come back to an element that another thread of this
        # program has just written.
        tl.debug_barrier()


@triton.jit
def unordered_kernel(
    out_ptr, index_ptr, src_ptr, size, m, n,
    out_along, out_across, index_m, index_n, src_m, src_n,
    ADD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    pid_m = (tl.program_id(0) // tiles_n).to(tl.int64)
    pid_n = (tl.program_id(0) % tiles_n).to(tl.int64)
    offs_m = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    offs_n = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = (offs_m < m) & (offs_n < n)  # (BLOCK_M, BLOCK_N)
    index = tl.load(
        index_ptr + offs_m * index_m + offs_n * index_n, mask=mask, other=-1
    ).to(tl.int64)
    src = tl.load(src_ptr + offs_m * src_m + offs_n * src_n, mask=mask, other=0)
    inside = (index >= 0) & (index < size)
    ptrs = out_ptr + index * out_along + offs_n * out_across
    if ADD:
        tl.atomic_add(ptrs, src, mask=inside, sem="relaxed")
    else:
        tl.store(ptrs, src, mask=inside)


def gather(
    x: torch.Tensor, index: torch.Tensor, dim: int, *, check: bool = False
) -> torch.Tensor:
    """Pick elements of a matrix along a dimension, as `torch.gather` does.

    Args:
        x: matrix, any strides, elements of 1, 2, 4 or 8 bytes.
        index: matrix of int32 or int64, any strides, no longer than `x` in the other
            dimension.
        dim: 0 or 1: `out[i, j]` is `x[index[i, j], j]` or `x[i, index[i, j]]`.
        check: refuse indices outside `x`, which takes a pass over `index` and waits
            for it. Without it, what such an index names is 0; memory outside `x` is
            never read.

    Returns:
        Matrix of the shape of `index`, contiguous.

    Raises:
        TypeError: not tensors, elements too large, or an index of another type.
        ValueError: other shapes or devices, a tensor where this process's kernels
            can't reach it, another `dim`, or a gradient, which there is none of.
        IndexError: an index outside `x`, with `check`.
    """
    _check(x, index, dim)
    _no_gradient(x=x)
    if check:
        _check_indices(index, x.shape[dim])
    out = torch.empty(index.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        source, where, into = (_turned(t, dim) for t in (bits(x), index, bits(out)))
        m, n = where.shape
        tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
        with library.on(x):
            gather_kernel[(tiles,)](
                source, where, into, source.shape[0], m, n,
                *source.stride(), *where.stride(), *into.stride(),
                BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N,
            )  # fmt: skip
    return out


def scatter(
    x: torch.Tensor,
    index: torch.Tensor,
    src: torch.Tensor,
    dim: int,
    *,
    check: bool = False,
    ordered: bool = True,
) -> torch.Tensor:
    """Replace elements of a matrix, as `torch.scatter` does, in a known order.

    Args:
        x: matrix, any strides, elements of 1, 2, 4 or 8 bytes; it is not changed.
        index: matrix of int32 or int64, any strides, no longer than `x` in the other
            dimension nor than `src` in any.
        src: matrix of the dtype of `x`, any strides.
        dim: 0 or 1: `src[i, j]` goes to `out[index[i, j], j]` or
            `out[i, index[i, j]]`.
        check: refuse indices outside `x`, which takes a pass over `index` and waits
            for it. Without it, what such an index names is dropped; memory outside
            the result is never written.
        ordered: of several values for one element the last along `dim` stays, which
            takes a program for each stretch of the other dimension and a loop. Without
            it, one of them stays, and which one may differ from run to run.

    Returns:
        Matrix of the shape of `x`, contiguous.

    Raises:
        TypeError: not tensors, elements too large, different dtypes, or an index of
            another type.
        ValueError: other shapes or devices, a tensor where this process's kernels
            can't reach it, another `dim`, or a gradient, which there is none of.
        IndexError: an index outside `x`, with `check`.
    """
    _check(x, index, dim, src)
    return _scattered(x, index, src, dim, check, ordered, add=False)


def scatter_add(
    x: torch.Tensor,
    index: torch.Tensor,
    src: torch.Tensor,
    dim: int,
    *,
    check: bool = False,
    ordered: bool = True,
) -> torch.Tensor:
    """Add to elements of a matrix, as `torch.scatter_add` does, in a known order.

    Args:
        x: matrix of a type in `SUMMED`, any strides; it is not changed.
        index: see `scatter`.
        src: see `scatter`.
        dim: see `scatter`.
        check: see `scatter`.
        ordered: several values for one element are added in their order along `dim`,
            so that the same call gives the same bits. Without it they are added
            atomically, and sums of floats may differ from run to run.

    Returns:
        Matrix of the shape of `x`, contiguous. Each addition is rounded to the dtype.

    Raises:
        TypeError: see `scatter`; or a dtype outside `SUMMED`.
        ValueError: see `scatter`.
        IndexError: see `scatter`.
    """
    checks.tensor(x, "x", dtype=SUMMED)
    _check(x, index, dim, src)
    return _scattered(x, index, src, dim, check, ordered, add=True)


def _scattered(
    x: torch.Tensor,
    index: torch.Tensor,
    src: torch.Tensor,
    dim: int,
    check: bool,
    ordered: bool,
    *,
    add: bool,
) -> torch.Tensor:
    _no_gradient(x=x, src=src)
    if check:
        _check_indices(index, x.shape[dim])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)
    if not index.numel() or not out.numel():
        return out
    plain = (out, src) if add else (bits(out), bits(src))
    into, where, values = (_turned(t, dim) for t in (plain[0], index, plain[1]))
    m, n = where.shape
    arguments = (into, where, values, into.shape[0], m, n)
    strides = (*into.stride(), *where.stride(), *values.stride())
    with library.on(x):
        if ordered:
            ordered_kernel[(triton.cdiv(n, BLOCK),)](
                *arguments, *strides, ADD=add, BLOCK=BLOCK
            )
        else:
            tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
            unordered_kernel[(tiles,)](
                *arguments, *strides, ADD=add, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N
            )
    return out


def _turned(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The matrix with the dimension that is indexed in front."""
    return x if dim == 0 else x.t()


def _check(
    x: torch.Tensor, index: torch.Tensor, dim: int, src: torch.Tensor | None = None
) -> None:
    check_matrix(x)
    checks.tensor(index, "index", dtype=(torch.int32, torch.int64), ndim=2)
    checks.one_of(dim, "dim", (0, 1))
    others = {"index": index}
    if src is not None:
        checks.tensor(src, "src", dtype=x.dtype, ndim=2)
        others["src"] = src
    checks.same_device(x=x, **others)
    if index.shape[1 - dim] > x.shape[1 - dim]:
        raise ValueError(
            f"index must not be longer than x in dimension {1 - dim}, got "
            f"{tuple(index.shape)} for {tuple(x.shape)}"
        )
    if src is not None and (
        index.shape[0] > src.shape[0] or index.shape[1] > src.shape[1]
    ):
        raise ValueError(
            "index must not be longer than src, got "
            f"{tuple(index.shape)} for {tuple(src.shape)}"
        )


def _no_gradient(**tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ValueError(f"{name} takes part in a gradient, which there is none of")


def _check_indices(index: torch.Tensor, size: int) -> None:
    if not index.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low >= 0 and high < size:
        return
    outside = (index < 0) | (index >= size)
    i, j = (int(at) for at in outside.nonzero()[0])
    raise IndexError(
        f"index[{i}, {j}] is {int(index[i, j])}, outside 0 to {size - 1}; "
        f"{int(outside.sum())} of {index.numel()} are outside"
    )
