"""Rung 5, tensor descriptors: a copy engine knows the matrix, the kernel the tile."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import library
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import bits, check_matrix

# By bytes of an element. The copy engine takes at most 256 elements a side.
# By bytes of an element: rows and columns of a block. The first guess, as tall and wide
# as with pointers, and those that turned out faster.
WIDE_BLOCKS = {1: (128, 128), 2: (128, 64), 4: (64, 64), 8: (64, 32)}
BLOCKS = {1: (128, 32), 2: (64, 32), 4: (64, 32), 8: (32, 32)}
GROUP = 1
LARGEST = 2**31 - 256


@triton.jit
def transpose_kernel(
    x_desc, out_desc, m, n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    pid_m, pid_n = grouped(
        tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N), GROUP
    )
    # No strides, no mask: the descriptor has them, and reads 0 past an edge.
    x = x_desc.load([pid_m * BLOCK_M, pid_n * BLOCK_N])  # (BLOCK_M, BLOCK_N)
    out_desc.store([pid_n * BLOCK_N, pid_m * BLOCK_M], tl.trans(x))


def refusal(x: torch.Tensor) -> str | None:
    """Say why a matrix and its transpose can't both be described.

    Args:
        x: matrix (m, n).

    Returns:
        The first rule that is broken; None if none is.
    """
    m, n = x.shape
    row = x.stride(0) * x.itemsize
    if x.stride(1) != 1:
        return f"its last stride must be 1, got {x.stride(1)}"
    if x.data_ptr() % 16:
        return f"it must start at a multiple of 16 bytes, got {x.data_ptr() % 16} past"
    if row % 16 or row <= 0:
        return f"its rows must lie a multiple of 16 bytes apart, got {row}"
    if m * x.itemsize % 16:
        return f"rows of its transpose must be multiples of 16 bytes, got {m} elements"
    if max(m, n) > LARGEST:
        return f"a side must be at most {LARGEST}, got {max(m, n)}"
    return None


def transpose(x: torch.Tensor, *, wide: bool = False) -> torch.Tensor:
    """Transpose a matrix through tensor descriptors made for this one call.

    Args:
        x: matrix (m, n) that a descriptor can describe, and whose transpose one can:
            last stride 1, all else in multiples of 16 bytes.
        wide: take blocks of `WIDE_BLOCKS`.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        TypeError: `x` isn't a tensor, or its elements take more than 8 bytes.
        ValueError: not a matrix, one that can't be described, one where this process's
            kernels can't reach it, or one that takes part in a gradient.

    Notes:
        On GPUs without a tensor memory accelerator Triton turns the descriptors back
        into pointers and masks.
    """
    x = check_matrix(x)
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    if reason := refusal(x):
        raise ValueError(
            f"x can't be described: {reason}; tilebook.tiling.aligned takes it"
        )
    with library.on(x):
        launch(x, out, WIDE_BLOCKS if wide else BLOCKS)
    return out


def launch(
    x: torch.Tensor, out: torch.Tensor, blocks: Mapping[int, tuple[int, int]]
) -> None:
    """Describe two matrices and launch the kernel.

    Args:
        x: as for `transpose`, not empty.
        out: its transpose's place, contiguous.
        blocks: by bytes of an element, rows and columns of a block.
    """
    m, n = x.shape
    block_m, block_n = blocks[x.itemsize]
    grid = (triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)
    transpose_kernel[grid](
        TensorDescriptor.from_tensor(bits(x), [block_m, block_n]),
        TensorDescriptor.from_tensor(bits(out), [block_n, block_m]),
        m, n, BLOCK_M=block_m, BLOCK_N=block_n, GROUP=GROUP,
    )  # fmt: skip
