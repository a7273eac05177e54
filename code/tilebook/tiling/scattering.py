"""Two ways to scatter: in order, column by column, or all at once."""

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.tiling import indices

# Columns of a program that keeps the order, and its warps: one column a lane, so that
# the lane that reads an element is the one that wrote it.
BLOCK, WARPS = 32, 1


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
        # The next row may come back to an element that was just written, and
        # who stores it need not be who loads it.
        tl.debug_barrier()


@triton.jit
def unordered_kernel(
    out_ptr, index_ptr, src_ptr, size, m, n,
    out_along, out_across, index_m, index_n, src_m, src_n,
    ADD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    src = tl.load(src_ptr + offs_m * src_m + offs_n * src_n, mask=mask, other=0)
    inside = (index >= 0) & (index < size)
    ptrs = out_ptr + index * out_along + offs_n * out_across
    if ADD:
        tl.atomic_add(ptrs, src, mask=inside, sem="relaxed")
    else:
        tl.store(ptrs, src, mask=inside)


def launch(
    out: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    *,
    add: bool,
    ordered: bool,
) -> None:
    """Write into a matrix where an index says.

    Args:
        out: the matrix, not empty; receives the values.
        dim: 0 or 1, the dimension that is indexed.
        index: matrix of int32 or int64, not empty.
        src: matrix of the dtype of `out`, at least as long as `index`.
        add: add to what is there.
        ordered: see `indexed.scatter`.
    """
    into, where, values = indices.turned(dim, (out, index, src))
    m, n = where.shape
    arguments = (into, where, values, into.shape[0], m, n)
    strides = (*into.stride(), *where.stride(), *values.stride())
    with library.on(out):
        if ordered:
            ordered_kernel[(triton.cdiv(n, BLOCK),)](
                *arguments, *strides, ADD=add, BLOCK=BLOCK, num_warps=WARPS
            )
        else:
            tile = indices.tile_for(where)
            unordered_kernel[(indices.tiles(where, tile),)](
                *arguments, *strides, ADD=add, **tile
            )
