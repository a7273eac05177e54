"""What `gather` and `scatter` ask of their operands, and how they tile an index."""

from collections.abc import Iterable

import torch
import triton

from tilebook import check as checks
from tilebook.tiling.operands import check_matrix

TRAINED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The element types that have a gradient."""

# Rows and columns of a tile where the elements of a row are neighbours.
TILE = (4, 256)


def check(
    x: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Check a matrix, an index into it, and what is to go there.

    Args:
        x: the matrix.
        dim: the dimension that is indexed.
        index: the index.
        src: values for the elements it names.

    Returns:
        The matrix, and `src` if there is one, as they lie in memory.

    Raises:
        TypeError: not tensors, elements too large, different dtypes, an index of
            another type, or a gradient of a dtype that has none.
        ValueError: other shapes or devices, a tensor where this process's kernels
            can't reach it, or another `dim`.
    """
    x = check_matrix(x, gradient=True)
    checks.tensor(index, "index", dtype=(torch.int32, torch.int64), ndim=2)
    dim = dimension(dim)
    others = {"index": index}
    if src is not None:
        checks.tensor(src, "src", dtype=x.dtype)
        others["src"] = src = check_matrix(src, "src", gradient=True)
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
    found = (x,) if src is None else (x, src)
    for name, tensor in zip(("x", "src"), found, strict=False):
        if torch.is_grad_enabled() and tensor.requires_grad:
            checks.tensor(
                tensor, f"{name}, which takes part in a gradient,", dtype=TRAINED
            )
    return found


def dimension(dim: int) -> int:
    """Check a dimension of a matrix.

    Args:
        dim: 0 or 1, or counted from the end, -2 or -1.

    Returns:
        0 or 1.

    Raises:
        ValueError: another one.
    """
    checks.one_of(dim, "dim", (0, 1, -2, -1))
    return dim % 2


def check_values(index: torch.Tensor, size: int) -> None:
    """Check that every index lies inside.

    Args:
        index: matrix of integers.
        size: of the dimension that is indexed.

    Raises:
        IndexError: one lies outside; the message names the first.
    """
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


def turned(dim: int, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Turn matrices so that the dimension that is indexed comes first.

    Args:
        dim: that dimension.
        tensors: the matrices.

    Returns:
        Views of them.
    """
    return [x if dim == 0 else x.t() for x in tensors]


def tile_for(index: torch.Tensor) -> dict[str, int]:
    """Choose a tile of an index: long where elements are neighbours, no longer than it.

    Args:
        index: matrix (m, n), not empty.

    Returns:
        BLOCK_M and BLOCK_N.
    """
    m, n = map(int, index.shape)
    short, long = TILE
    if index.stride(1) <= index.stride(0):
        block_n = min(long, triton.next_power_of_2(n))
        block_m = min(short * long // block_n, triton.next_power_of_2(m))
    else:
        block_m = min(long, triton.next_power_of_2(m))
        block_n = min(short * long // block_m, triton.next_power_of_2(n))
    return {"BLOCK_M": block_m, "BLOCK_N": block_n}


def tiles(index: torch.Tensor, tile: dict[str, int]) -> int:
    """Count the tiles of an index.

    Args:
        index: matrix (m, n).
        tile: as `tile_for` gives it.

    Returns:
        How many cover it.
    """
    m, n = index.shape
    return triton.cdiv(m, tile["BLOCK_M"]) * triton.cdiv(n, tile["BLOCK_N"])
