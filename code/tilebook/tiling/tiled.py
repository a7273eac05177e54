"""Rung 2, a tile per program: rows go in, columns come out, the compiler turns them."""

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.tiling.operands import bits, check_matrix

BLOCK_M = BLOCK_N = 64


@triton.jit
def transpose_kernel(
    x_ptr, out_ptr, m, n, stride_m, stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # One program id, unfolded into a row and a column of tiles.
    tiles_n = (n - 1) // BLOCK_N + 1  # cdiv would pass 2^31 if n comes near
    pid_m = (tl.program_id(0) // tiles_n).to(tl.int64)
    pid_n = (tl.program_id(0) % tiles_n).to(tl.int64)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(
        x_ptr + offs_m[:, None] * stride_m + offs_n[None, :] * stride_n,
        mask=mask,
        other=0,
    )  # (BLOCK_M, BLOCK_N)
    # Whichever thread holds an element now, another one has to store it.
    tl.store(
        out_ptr + offs_n[:, None] * m + offs_m[None, :],
        tl.trans(x),  # (BLOCK_N, BLOCK_M)
        mask=tl.trans(mask),
    )


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose a matrix tile by tile.

    Args:
        x: matrix (m, n), any strides, elements of 1, 2, 4 or 8 bytes.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        TypeError: `x` isn't a tensor, or its elements are larger.
        ValueError: not a matrix, one where this process's kernels can't reach it, or
            one that takes part in a gradient.
    """
    x = check_matrix(x)
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if out.numel():
        tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
        with library.on(x):
            transpose_kernel[(tiles,)](
                bits(x), bits(out), m, n, *x.stride(),
                BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N,
            )  # fmt: skip
    return out
