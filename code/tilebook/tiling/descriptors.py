"""The rules of descriptors, each broken once, and the way from block pointers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import check, compile_only, library
from tilebook.parallel.operands import DTYPES
from tilebook.tiling.described import LARGEST
from tilebook.tiling.operands import check_grid, check_matrix


@triton.jit
def copy_kernel(
    x_ptr, out_ptr, m, n, stride_x, stride_out,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Made on the device: base, shape, strides in elements, block.
    x_desc = tl.make_tensor_descriptor(x_ptr, [m, n], [stride_x, 1], [BLOCK_M, BLOCK_N])
    out_desc = tl.make_tensor_descriptor(
        out_ptr, [m, n], [stride_out, 1], [BLOCK_M, BLOCK_N]
    )
    # On one axis: a grid's second one ends at 65,535.
    tiles_n = tl.cdiv(n, BLOCK_N)
    start_m = tl.program_id(0) // tiles_n * BLOCK_M
    start_n = tl.program_id(0) % tiles_n * BLOCK_N
    # Where a block pointer was advanced, a descriptor is given other offsets.
    out_desc.store([start_m, start_n], x_desc.load([start_m, start_n]))


def copy(x: torch.Tensor, *, block: tuple[int, int] = (32, 64)) -> torch.Tensor:
    """Copy a matrix through descriptors that the kernel makes.

    Args:
        x: matrix (m, n); its start and row stride are multiples of 16 bytes, and so
            are `n` elements; the elements of a row are neighbours.
        block: rows and columns of a tile, powers of two up to 256; a row of at least
            16 bytes.

    Returns:
        A contiguous copy.

    Raises:
        TypeError: `x` isn't a tensor of a type in `operands.DTYPES` of `parallel`, or
            `block` isn't two integers.
        ValueError: no matrix of that kind, one where this process's kernels can't
            reach it or that takes part in a gradient, or another `block`.
    """
    check.tensor(x, "x", dtype=DTYPES)
    x = check_matrix(x)
    _check_block(block, x.itemsize)
    step = 16 // x.itemsize
    if x.numel() and (
        x.stride(1) != 1
        or x.data_ptr() % 16
        or x.stride(0) % step
        or x.shape[1] % step
        or x.stride(0) <= 0
        or max(x.shape) > LARGEST
    ):
        raise ValueError(
            "x must have neighbouring elements in rows of multiples of 16 bytes, and "
            f"sides up to {LARGEST}, got shape {tuple(x.shape)}, strides {x.stride()}"
        )
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        # A descriptor that a kernel makes lies in memory that torch provides.
        triton.set_allocator(allocate)
        m, n = x.shape
        tiles = check_grid(triton.cdiv(m, block[0]) * triton.cdiv(n, block[1]), "tiles")
        with library.on(x):
            copy_kernel[(tiles,)](
                x, out, m, n, x.stride(0), n, BLOCK_M=block[0], BLOCK_N=block[1]
            )
    return out


def _check_block(block: tuple[int, int], itemsize: int) -> None:
    if not isinstance(block, tuple) or len(block) != 2:
        raise TypeError(f"block must be a tuple of two integers, got {block!r}")
    for side in block:
        check.power_of_two(side, "block", 256)
    if block[1] * itemsize < 16:
        raise ValueError(f"block must have rows of at least 16 bytes, got {block}")


def allocate(size: int, alignment: int, stream: Any) -> torch.Tensor:
    """Provide the memory in which kernels make descriptors, for `set_allocator`."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


@triton.jit
def strided_kernel(x_ptr, n, LAST: tl.constexpr, BLOCK: tl.constexpr):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [n, LAST], [16, BLOCK])
    desc.store([0, 0], desc.load([0, 0]))


@triton.jit
def rank_kernel(x_ptr, n):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [1], [16, 16])
    desc.store([0, 0], desc.load([0, 0]))


@triton.jit
def offsets_kernel(x_ptr, n):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [n, 1], [16, 16])
    desc.store([0, 0], desc.load([0]))


@triton.jit
def shape_kernel(x_ptr, n):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [n, 1], [16, 32])
    desc.store([0, 0], tl.zeros((16, 16), tl.float32))


@triton.jit
def padding_kernel(x_ptr, n):
    desc = tl.make_tensor_descriptor(
        x_ptr, [n, n], [n, 1], [16, 16], padding_option="nan"
    )
    desc.store([0, 0], desc.load([0, 0]))


class Rule(NamedTuple):
    """One thing that a descriptor asks."""

    side: str
    """Where it is made: "host" or "kernel"."""
    rule: str
    """What has to hold."""
    broken: Callable[[], Any]
    """Breaks it."""

    def error(self) -> str:
        """Break the rule and return what is said, without the listing around it."""
        try:
            self.broken()
        except Exception as error:
            root = error.__cause__ or error
            lines = str(error).strip().splitlines()
            said = lines[-1].strip() if lines else ""
            if type(root).__name__ != "RemoteTraceback":
                return said or f"{type(root).__name__} without a message"
            # The compiler quotes the line, then says what is wrong; or nothing.
            return "no message" if set(said) <= {"^", "~"} else said
        raise LookupError(f"not refused: {self.rule}")


def _host(
    shape: list[int],
    strides: list[int],
    block: list[int],
    *,
    dtype: torch.dtype = torch.float32,
    start: int = 0,
    **options: Any,
) -> Callable[[], Any]:
    def broken() -> TensorDescriptor:
        x = torch.zeros(64 * 64, dtype=dtype)[start:]
        return TensorDescriptor(x, shape, strides, block, **options)

    return broken


def _kernel(
    kernel: Any, dtype: torch.dtype = torch.float32, **constants: int
) -> Callable[[], Any]:
    def broken() -> Any:
        x = torch.zeros(64, 64, dtype=dtype)
        return compile_only.compile(kernel, x, 64, **constants)

    return broken


RULES = (
    Rule("host", "starts at a multiple of 16 bytes",
         _host([32, 64], [64, 1], [16, 16], start=1)),
    Rule("host", "strides are multiples of 16 bytes",
         _host([32, 62], [62, 1], [16, 16])),
    Rule("host", "the last stride is 1", _host([32, 32], [64, 2], [16, 16])),
    Rule("host", "shape, strides and block have one rank",
         _host([32, 64], [64, 1], [16])),
    Rule("host", "at most five dimensions", _host([1] * 6, [4] * 5 + [1], [1] * 6)),
    Rule("host", "no dimension is empty", _host([0, 64], [64, 1], [16, 16])),
    Rule("host", "a block's sides are powers of two",
         _host([64, 64], [64, 1], [16, 24])),
    Rule("host", "padding is zero or nan",
         _host([64, 64], [64, 1], [16, 16], padding="inf")),
    Rule("host", "only floats are padded with nan",
         _host([64, 64], [64, 1], [16, 16], dtype=torch.int32, padding="nan")),
    Rule("kernel", "the last stride is 1, and is known to be",
         _kernel(strided_kernel, LAST=2, BLOCK=16)),
    Rule("kernel", "a block's row has at least 16 bytes",
         _kernel(strided_kernel, LAST=1, BLOCK=2)),
    Rule("kernel", "a block's sides are powers of two",
         _kernel(strided_kernel, LAST=1, BLOCK=24)),
    Rule("kernel", "as many strides as dimensions", _kernel(rank_kernel)),
    Rule("kernel", "as many offsets as dimensions", _kernel(offsets_kernel)),
    Rule("kernel", "what is stored has the block's shape", _kernel(shape_kernel)),
    Rule("kernel", "only floats are padded with nan",
         _kernel(padding_kernel, torch.int32)),
)  # fmt: skip
"""What descriptors ask, each with an attempt that breaks it and nothing else."""


def rules() -> pd.DataFrame:
    """Break every rule and tabulate what this Triton says.

    Returns:
        One row per rule: where the descriptor is made, the rule, the error's text.
    """
    rows = [(r.side, r.rule, r.error()) for r in RULES]
    return pd.DataFrame(rows, columns=["made in", "rule", "what Triton says"])


MIGRATION = (
    ("tl.make_block_ptr(base, shape, strides, offsets, block, order)",
     "tl.make_tensor_descriptor(base, shape, strides, block), offsets in a variable"),
    ("p = tl.advance(p, (0, BLOCK_K))", "k += BLOCK_K"),
    ("tl.load(p, boundary_check=(0, 1))", "desc.load([m, k]): always checked"),
    ('tl.load(p, ..., padding_option="zero")',
     'padding_option="zero" where the descriptor is made'),
    ("tl.store(p, x, boundary_check=(0, 1))", "desc.store([m, k], x)"),
    ("strides swapped, order=(0, 1), for a transpose",
     "a descriptor of the matrix as it lies, tl.trans of the tile"),
    ("strides that are no multiples of 16 bytes", "pointers and a mask"),
    ("a shape of more than 2^31", "pointers and a mask"),
)  # fmt: skip
"""What was written with block pointers, and what is written now."""


def migration() -> pd.DataFrame:
    """Tabulate the way from block pointers, which Triton 3.9 no longer has.

    Returns:
        One row per idiom.
    """
    return pd.DataFrame(MIGRATION, columns=["with a block pointer", "now"])
