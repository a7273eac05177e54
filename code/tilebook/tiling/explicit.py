"""Rung 6, Gluon: who holds what, and how shared memory is laid out, written down."""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from tilebook import device, library
from tilebook.tiling.operands import bits, check_matrix

# By bytes of an element: a tile's side, and the warps.
SIDES = {1: (256, 8), 2: (128, 4), 4: (64, 8), 8: (64, 8)}
GROUP = 1


@gluon.jit
def transpose_kernel(
    x_ptr, out_ptr, m, n, stride_m,
    BLOCK: gl.constexpr, V: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    WARPS: gl.constexpr = gl.num_warps()
    LINE: gl.constexpr = BLOCK // V  # threads side by side that cover a row
    # In: V rows of V elements a thread, so that it can turn a V x V square
    # within its own registers. A warp covers whole rows of the tile.
    coming: gl.constexpr = gl.BlockedLayout(
        [V, V], [32 // LINE, LINE], [WARPS, 1], [1, 0]
    )
    # Out: V elements a thread, whole rows of the transpose.
    going: gl.constexpr = gl.BlockedLayout(
        [1, V], [32 // LINE, LINE], [WARPS, 1], [1, 0]
    )
    # Rows of shared memory are rows of the transpose. Their groups of V
    # elements change places every V rows, or column-wise writes, whose rows
    # lie V apart, would meet in the same banks.
    turned: gl.constexpr = gl.SwizzledSharedLayout(V, V, 8, [1, 0])

    m, n = m * V, n * V
    tiles_m, tiles_n = (m - 1) // BLOCK + 1, (n - 1) // BLOCK + 1
    pid = gl.program_id(0)
    first = pid // (GROUP * tiles_n) * GROUP
    rows = gl.minimum(tiles_m - first, GROUP)
    within = pid % (GROUP * tiles_n)
    start_m = (first + within % rows).to(gl.int64) * BLOCK
    start_n = (within // rows).to(gl.int64) * BLOCK

    offs_m = start_m + gl.arange(0, BLOCK, gl.SliceLayout(1, coming))
    offs_n = start_n + gl.arange(0, BLOCK, gl.SliceLayout(0, coming))
    x = gl.load(
        x_ptr + offs_m[:, None] * stride_m * V + offs_n[None, :],
        mask=(offs_m < m)[:, None] & (offs_n < n)[None, :],
        other=0,
    )  # (BLOCK, BLOCK), rows m
    shared = gl.allocate_shared_memory(x.dtype, [BLOCK, BLOCK], turned)
    # Turning a layout round moves nothing: the same threads hold the same.
    shared.store(gl.permute(x, (1, 0)))
    y = shared.load(going)  # (BLOCK, BLOCK), rows n

    offs_n = start_n + gl.arange(0, BLOCK, gl.SliceLayout(1, going))
    offs_m = start_m + gl.arange(0, BLOCK, gl.SliceLayout(0, going))
    gl.store(
        out_ptr + offs_n[:, None] * m + offs_m[None, :],
        y,
        mask=(offs_n < n)[:, None] & (offs_m < m)[None, :],
    )


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose a matrix through shared memory laid out by hand.

    Args:
        x: matrix (m, n) of rows whose elements are neighbours; its start, its sides
            and the distance of its rows are multiples of 16 bytes.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        HardwareError: no NVIDIA GPU of compute capability 8.0 or later, or interpreted.
        TypeError: `x` isn't a tensor, or its elements take more than 8 bytes.
        ValueError: not a matrix, one where this process's kernels can't reach it, one
            that takes part in a gradient, or that isn't aligned.
    """
    x = check_matrix(x)
    if reason := refusal(x):
        raise ValueError(f"x isn't aligned: {reason}; tilebook.tiling.aligned takes it")
    device.require("sm80")
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if out.numel():
        with library.on(x):
            launch(x, out)
    return out


def refusal(x: torch.Tensor) -> str | None:
    """Say why 16 bytes at a time are impossible for a matrix.

    Args:
        x: matrix (m, n).

    Returns:
        The first reason; None if there is none.
    """
    m, n = x.shape
    vector = 16 // x.itemsize
    if x.stride(1) != 1:
        return f"its last stride must be 1, got {x.stride(1)}"
    if x.data_ptr() % 16:
        return f"it must start at a multiple of 16 bytes, got {x.data_ptr() % 16} past"
    if m % vector or n % vector or x.stride(0) % vector:
        return (
            f"sides and row stride must be multiples of {vector} elements, got "
            f"{m}, {n} and {x.stride(0)}"
        )
    if max(m, n) >= 2**31:
        return f"a side must be below 2^31, got {max(m, n)}"
    return None


def launch(x: torch.Tensor, out: torch.Tensor) -> None:
    """Launch the kernel.

    Args:
        x: as for `transpose`, not empty.
        out: its transpose's place, contiguous.
    """
    m, n = x.shape
    vector = 16 // x.itemsize
    block, num_warps = SIDES[x.itemsize]
    tiles = triton.cdiv(m, block) * triton.cdiv(n, block)
    transpose_kernel[(tiles,)](
        bits(x), bits(out), m // vector, n // vector, x.stride(0) // vector,
        BLOCK=block, V=vector, GROUP=GROUP, num_warps=num_warps,
    )  # fmt: skip
