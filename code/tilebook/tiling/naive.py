"""Rung 1, a piece of a row per program: loads side by side, stores far apart."""

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.tiling.operands import bits, check_grid, check_matrix

BLOCK = 1024


@triton.jit
def transpose_kernel(
    x_ptr, out_ptr, m, n, stride_m, stride_n, BLOCK: tl.constexpr
):  # fmt: skip
    # Consecutive programs take consecutive pieces of one row.
    pieces = (n - 1) // BLOCK + 1  # cdiv would pass 2^31 if n comes near
    row = (tl.program_id(0) // pieces).to(tl.int64)
    start = (tl.program_id(0) % pieces).to(tl.int64) * BLOCK
    offs_n = start + tl.arange(0, BLOCK)
    mask = offs_n < n
    x = tl.load(
        x_ptr + row * stride_m + offs_n * stride_n, mask=mask, other=0
    )  # (BLOCK,)
    # A row of x is a column of out: neighbours lie m elements apart.
    tl.store(out_ptr + offs_n * m + row, x, mask=mask)


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose a matrix row by row.

    Args:
        x: matrix (m, n), any strides, elements of 1, 2, 4 or 8 bytes.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        TypeError: `x` isn't a tensor, or its elements are larger.
        ValueError: not a matrix, one where this process's kernels can't reach it, one
            that takes part in a gradient, or of more pieces than a grid has programs.
    """
    x = check_matrix(x)
    m, n = x.shape
    programs = check_grid(m * triton.cdiv(n, BLOCK), "pieces of rows")
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if out.numel():
        with library.on(x):
            transpose_kernel[(programs,)](
                bits(x), bits(out), m, n, *x.stride(), BLOCK=BLOCK
            )
    return out
