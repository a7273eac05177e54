"""Rung 3, another order of the same tiles: a strip of rows, column by column."""

import torch
import triton
import triton.language as tl

from tilebook import check, library
from tilebook.tiling.operands import bits, check_matrix

BLOCK_M = BLOCK_N = 64
GROUP = 8


@triton.jit
def grouped(pid, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Where program `pid` works if strips of GROUP rows are walked one by one."""
    strip = pid // (GROUP * tiles_n)
    within = pid % (GROUP * tiles_n)
    first = strip * GROUP
    # The last strip may have fewer rows.
    rows = tl.minimum(tiles_m - first, GROUP)
    return first + within % rows, within // rows


@triton.jit
def transpose_kernel(
    x_ptr, out_ptr, m, n, stride_m, stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    # GROUP tiles below one another store GROUP * BLOCK_M neighbours of out.
    tiles_m, tiles_n = (m - 1) // BLOCK_M + 1, (n - 1) // BLOCK_N + 1
    pid_m, pid_n = grouped(tl.program_id(0), tiles_m, tiles_n, GROUP)
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(
        x_ptr + offs_m[:, None] * stride_m + offs_n[None, :] * stride_n,
        mask=mask,
        other=0,
    )  # (BLOCK_M, BLOCK_N)
    tl.store(
        out_ptr + offs_n[:, None] * m + offs_m[None, :],
        tl.trans(x),  # (BLOCK_N, BLOCK_M)
        mask=tl.trans(mask),
    )


def transpose(x: torch.Tensor, *, group: int = GROUP) -> torch.Tensor:
    """Transpose a matrix tile by tile, in strips of tiles.

    Args:
        x: matrix (m, n), any strides, elements of 1, 2, 4 or 8 bytes.
        group: rows of tiles in a strip; with 1 the order is that of `tiled`.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        TypeError: `x` isn't a tensor, its elements are larger, or `group` isn't an
            integer.
        ValueError: not a matrix, one where this process's kernels can't reach it, one
            that takes part in a gradient, or `group` < 1.
    """
    x = check_matrix(x)
    check.positive_int(group, "group")
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if out.numel():
        tiles_m, tiles_n = triton.cdiv(m, BLOCK_M), triton.cdiv(n, BLOCK_N)
        # A strip as high as the matrix is all there is, and fits 32 bits.
        group = min(group, tiles_m)
        with library.on(x):
            transpose_kernel[(tiles_m * tiles_n,)](
                bits(x), bits(out), m, n, *x.stride(),
                BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, GROUP=group,
            )  # fmt: skip
    return out
