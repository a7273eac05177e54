"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import torch
import triton
import triton.language as tl

from tilebook.tiling.layouts import Blocked

__all__ = [
    "flip_kernel",
    "grouped",
    "holds",
    "lines",
    "offset",
    "outer_kernel",
    "pool",
    "pool_wide",
    "stack_kernel",
    "sums_kernel",
]  # fmt: skip


def offset(row: int, column: int, columns: int) -> int:
    """Where element (row, column) of `x[1::2, 5:]` lies in a contiguous x.

    Args:
        row: of the view.
        column: of the view.
        columns: of x.

    Returns:
        The offset from the first element of x.
    """
    return (1 + 2 * row) * columns + 5 + column


def lines(elements: int, element_bytes: int, row_bytes: int) -> tuple[int, int]:
    """Lines of 128 bytes that a piece of a row touches, as a row and as a column.

    Args:
        elements: in the piece, aligned.
        element_bytes: size of one.
        row_bytes: of a row of the output, at least 128.

    Returns:
        Lines read, lines written.
    """
    return -(-elements * element_bytes // 128), elements


def grouped(tiles: int, group: int) -> tuple[int, int]:
    """Blocks of A and B that the first programs of a product read.

    Args:
        tiles: blocks in a row and in a column; as many programs are counted.
        group: rows of blocks in a strip; it divides `tiles`.

    Returns:
        Blocks read when C is made row by row, and in strips.
    """
    columns = tiles // group
    return tiles + tiles * tiles, group * tiles + columns * tiles


def holds(layout: Blocked, row: int, column: int, size: int) -> tuple[int, ...]:
    """Who loads an element of a square tile, and who stores it once it is turned.

    Args:
        layout: of the tile as it is loaded and, turned, as it is stored.
        row: the element's.
        column: the element's.
        size: rows and columns of the tile.

    Returns:
        Warp and lane that load it, warp and lane that store it.
    """
    threads = layout.threads((size, size))
    return *divmod(int(threads[row, column]), 32), *divmod(
        int(threads[column, row]), 32
    )


@triton.jit
def outer_kernel(
    x_ptr, y_ptr, out_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(x_ptr + offs_m, mask=offs_m < m, other=0.0)  # (BLOCK_M,)
    y = tl.load(y_ptr + offs_n, mask=offs_n < n, other=0.0)  # (BLOCK_N,)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    out = x[:, None] + y[None, :]  # (BLOCK_M, BLOCK_N)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], out, mask=mask)


@triton.jit
def flip_kernel(
    x_ptr, out_ptr, m, n, stride_m, stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    # Turned round where it is read: a negative step is only another offset.
    from_n = n - 1 - offs_n
    x = tl.load(
        x_ptr + offs_m[:, None] * stride_m + from_n[None, :] * stride_n,
        mask=mask,
        other=0.0,
    )  # (BLOCK_M, BLOCK_N)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], x, mask=mask)


@triton.jit
def stack_kernel(x_desc, out_desc, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    b = tl.program_id(0)
    start_m, start_n = tl.program_id(1) * BLOCK_M, tl.program_id(2) * BLOCK_N
    x = x_desc.load([b, start_m, start_n])  # (1, BLOCK_M, BLOCK_N)
    # Only the last two dimensions change places.
    out_desc.store([b, start_n, start_m], tl.trans(x, 0, 2, 1))


@triton.jit
def sums_kernel(
    x_ptr, out_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    offs_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, m, BLOCK_M):
        offs_m = start + tl.arange(0, BLOCK_M).to(tl.int64)
        mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
        x = tl.load(
            x_ptr + offs_m[:, None] * n + offs_n[None, :], mask=mask, other=0.0
        )  # (BLOCK_M, BLOCK_N)
        acc += tl.sum(x, axis=0)
    tl.store(out_ptr + offs_n, acc, mask=offs_n < n)


@triton.jit
def pool_kernel(
    x_ptr, out_ptr, h, w, stride_h, stride_w,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    offs_h = (tl.program_id(0).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    offs_w = (tl.program_id(1).to(tl.int64) * BLOCK_W + tl.arange(0, BLOCK_W))[None, :]
    mask = (offs_h < h) & (offs_w < w)  # of the output
    ptrs = x_ptr + 2 * offs_h * stride_h + 2 * offs_w * stride_w
    a = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK_H, BLOCK_W)
    b = tl.load(ptrs + stride_w, mask=mask, other=0.0)
    c = tl.load(ptrs + stride_h, mask=mask, other=0.0)
    d = tl.load(ptrs + stride_h + stride_w, mask=mask, other=0.0)
    tl.store(out_ptr + offs_h * w + offs_w, (a + b + c + d) * 0.25, mask=mask)


def pool(x: torch.Tensor) -> torch.Tensor:
    """Average squares of two by two; an odd row or column at the end is left out.

    Args:
        x: matrix (h, w), float32, any strides.

    Returns:
        Matrix (h // 2, w // 2).
    """
    h, w = x.shape[0] // 2, x.shape[1] // 2
    out = torch.empty((h, w), dtype=x.dtype, device=x.device)
    if out.numel():
        grid = (triton.cdiv(h, 8), triton.cdiv(w, 32))
        pool_kernel[grid](x, out, h, w, *x.stride(), BLOCK_H=8, BLOCK_W=32)
    return out


@triton.jit
def pool_wide_kernel(
    x_ptr, out_ptr, h, w, stride_h, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr
):  # fmt: skip
    offs_h = (tl.program_id(0).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    start = tl.program_id(1).to(tl.int64) * BLOCK_W
    offs_x = (2 * start + tl.arange(0, 2 * BLOCK_W))[None, :]
    mask = (offs_h < h) & (offs_x < 2 * w)
    ptrs = x_ptr + 2 * offs_h * stride_h + offs_x
    rows = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK_H, 2 * BLOCK_W)
    rows += tl.load(ptrs + stride_h, mask=mask, other=0.0)
    # Neighbours along a row become a dimension of two, and part.
    left, right = tl.split(tl.reshape(rows, (BLOCK_H, BLOCK_W, 2)))
    offs_w = (start + tl.arange(0, BLOCK_W))[None, :]
    mask = (offs_h < h) & (offs_w < w)
    tl.store(out_ptr + offs_h * w + offs_w, (left + right) * 0.25, mask=mask)


def pool_wide(x: torch.Tensor) -> torch.Tensor:
    """The same from whole rows, where the elements of a row are neighbours.

    Args:
        x: as for `pool`.

    Returns:
        As `pool` does.
    """
    if x.stride(1) != 1:
        return pool(x)
    h, w = x.shape[0] // 2, x.shape[1] // 2
    out = torch.empty((h, w), dtype=x.dtype, device=x.device)
    if out.numel():
        grid = (triton.cdiv(h, 8), triton.cdiv(w, 32))
        pool_wide_kernel[grid](x, out, h, w, x.stride(0), BLOCK_H=8, BLOCK_W=32)
    return out
