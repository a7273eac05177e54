"""What the copy engine brings and takes: which matrices, and a tile's end in pieces."""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.matmul import epilogues
from tilebook.matmul.operands import Task
from tilebook.matmul.ordered import scaled
from tilebook.softmax.operands import starts_aligned
from tilebook.tiling.described import LARGEST


def unfit(x: torch.Tensor) -> str | None:
    """Say why a matrix can't be described as it is.

    Args:
        x: matrix, any strides.

    Returns:
        The first rule that is broken; None if none is.
    """
    row = x.stride(0) * x.itemsize
    if not x.numel():
        return f"it must have elements, got shape {tuple(x.shape)}"
    if x.stride(1) != 1:
        return f"its last stride must be 1, got {x.stride(1)}"
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    if row % 16 or row <= 0:
        return f"its rows must lie a multiple of 16 bytes apart, got {row}"
    if x.shape[0] > 1 and x.stride(0) < x.shape[1]:
        return "its rows must not overlap"
    if max(x.shape) > LARGEST:
        return f"a side must be at most {LARGEST}, got {max(x.shape)}"
    return None


def turned(x: torch.Tensor) -> bool:
    """Whether a matrix is to be described as its transpose.

    Args:
        x: matrix, any strides.
    """
    return unfit(x) is not None and unfit(x.t()) is None


def operand(
    x: torch.Tensor, name: str, block: tuple[int, int]
) -> tuple[TensorDescriptor, bool]:
    """Describe an operand, as it is or as its transpose.

    Args:
        x: the matrix.
        name: what the kernel calls it.
        block: rows and columns of a tile of it.

    Returns:
        The descriptor, and whether it is the transpose's.

    Raises:
        ValueError: neither can be described.
    """
    if unfit(x) is None:
        return TensorDescriptor.from_tensor(x, [*block]), False
    if unfit(x.t()) is None:
        return TensorDescriptor.from_tensor(x.t(), [*block[::-1]]), True
    raise ValueError(f"{name} can't be described: {unfit(x)}")


def ends(task: Task, rows: int, *widths: int) -> tuple[list, list]:
    """Describe where pieces of the result go, and where those of a residual are.

    Args:
        task: the product.
        rows: of a piece.
        *widths: columns of the product that are stored at a time.

    Returns:
        A descriptor of the result for each width, and one of the residual. None for all
        of them if there is no residual, or one of the two can't be described.
    """
    half = 2 if task.activation == "silu_and_mul" else 1
    found: list[list] = []
    for x in (task.out, task.residual):
        if x is None or unfit_place(x):
            found.append([None for _ in widths])
        else:
            blocks = [[rows, width // half] for width in widths]
            found.append([TensorDescriptor.from_tensor(x, each) for each in blocks])
    places, residuals = found
    if task.residual is not None and None in (places[0], residuals[0]):
        # Threads add a residual where they store.
        return [None for _ in widths], [None for _ in widths]
    return places, residuals


@triton.jit
def part(desc, row, column, TURNED: tl.constexpr):
    """Load a tile of a matrix, described as it is or as its transpose."""
    return desc.load([column, row]).T if TURNED else desc.load([row, column])


@triton.jit
def store(
    acc, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n,
    scale, bias_ptr, bias_n, residual_desc, residual_ptr, residual_m, residual_n,
    OUT_DIV: tl.constexpr, ACTIVATION: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Finish a tile and store it, piece by piece: what a piece needs for a moment is a
    part of what the tile would, in registers and in shared memory."""
    BLOCK_M: tl.constexpr = acc.shape[0]
    COLUMNS: tl.constexpr = acc.shape[1]
    if PIECES > 1:
        halves = tl.reshape(acc, (BLOCK_M, 2, COLUMNS // 2))
        left, right = tl.split(tl.permute(halves, (0, 2, 1)))
        store(
            left, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n, scale,
            bias_ptr, bias_n, residual_desc, residual_ptr, residual_m, residual_n,
            OUT_DIV, ACTIVATION, PIECES // 2,
        )  # fmt: skip
        store(
            right, start_m, start_n + COLUMNS // 2, m, n, out_desc, out_ptr, out_m,
            out_n, scale, bias_ptr, bias_n, residual_desc, residual_ptr, residual_m,
            residual_n, OUT_DIV, ACTIVATION, PIECES // 2,
        )  # fmt: skip
    else:
        offs_n = start_n.to(tl.int64) + tl.arange(0, COLUMNS)
        acc = epilogues.finish(acc, offs_n, n, scale, bias_ptr, bias_n, ACTIVATION)
        if ACTIVATION == "silu_and_mul":
            start_n, n = start_n // 2, n // 2
        if residual_desc is not None:
            acc += residual_desc.load([start_m, start_n]).to(acc.dtype)
        if out_desc is None:
            offs_m = start_m.to(tl.int64) + tl.arange(0, BLOCK_M)
            offs_n = start_n.to(tl.int64) + tl.arange(0, acc.shape[1])
            epilogues.put(
                acc, out_ptr, offs_m, offs_n, m, n, scaled(out_m, OUT_DIV), out_n,
                residual_ptr, residual_m, residual_n,
            )  # fmt: skip
        else:
            out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


def unfit_place(x: torch.Tensor) -> str | None:
    """Say why the copy engine can't store into a matrix.

    It writes no part of 16 bytes: past a row's end, too, if the end lies within them.

    Args:
        x: matrix, any strides.

    Returns:
        The first rule that is broken; None if none is.
    """
    row = x.shape[1] * x.itemsize
    if not (reason := unfit(x)) and row % 16:
        return f"its rows must be a multiple of 16 bytes long, got {row}"
    return reason
