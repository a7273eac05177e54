"""The chapter's exercises, from an offset to a pooling of one's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.testing import Exercise
from tilebook.tiling import solutions
from tilebook.tiling.layouts import Blocked

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

# Each way ragged against the tiles, thin each way, one element, none.
SHAPES = ((16, 32), (1, 1), (0, 5), (3, 50), (50, 3), (33, 65), (17, 100))
USES_BLOCKS = ("BLOCK_M", "BLOCK_N")


def blocks(m: int, n: int) -> dict[str, int]:
    """Sides of a tile at a shape: never the same two, other ones beside them."""
    return {"BLOCK_M": 8 << m % 2, "BLOCK_N": 32 >> n % 2 << 2 * (m % 2)}


def _grid(m: int, n: int) -> tuple[int, int]:
    tile = blocks(m, n)
    return max(1, -(-m // tile["BLOCK_M"])), max(1, -(-n // tile["BLOCK_N"]))


def _matrix(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _vectors(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n = shape
    # All of one sign: cancelling would magnify a rounding.
    return {"x": np.abs(rng.standard_normal(m)), "y": np.abs(rng.standard_normal(n))}


def _launch(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    kernel[_grid(m, n)](x, out, m, n, **blocks(m, n))


def _launch_stack(kernel: Any, out: Any, x: Any) -> None:
    b, m, n = x.shape
    # A descriptor wants rows of 16 bytes and more, in a block too.
    tile = {"BLOCK_M": 16, "BLOCK_N": 32} if m % 8 else {"BLOCK_M": 8, "BLOCK_N": 4}
    grid = (b, -(-m // tile["BLOCK_M"]), -(-n // tile["BLOCK_N"]))
    x_desc = TensorDescriptor.from_tensor(x, [1, tile["BLOCK_M"], tile["BLOCK_N"]])
    out_desc = TensorDescriptor.from_tensor(out, [1, tile["BLOCK_N"], tile["BLOCK_M"]])
    kernel[grid](x_desc, out_desc, **tile)


def _launch_outer(kernel: Any, out: Any, x: Any, y: Any) -> None:
    m, n = out.shape
    kernel[_grid(m, n)](x, y, out, m, n, **blocks(m, n))


def _launch_strided(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    kernel[_grid(m, n)](x, out, m, n, *x.stride(), **blocks(m, n))


def _launch_sums(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    kernel[(_grid(m, n)[1],)](x, out, m, n, **blocks(m, n))


ROW, COLUMN, COLUMNS = 37, 91, 128

OFFSET = Exercise(
    name="tiling-offset",
    statement=(
        f"x is a contiguous matrix of {COLUMNS} columns. How many elements behind the "
        f"first one of x does element [{ROW}, {COLUMN - 60}] of x[1::2, 5:] lie?"
    ),
    answer=lambda: solutions.offset(ROW, COLUMN - 60, COLUMNS),
    hint="Which are the strides of the view, and where does it begin?",
)

PIECE, ROW_BYTES = 1024, 4 * 8192

LINES = Exercise(
    name="tiling-lines",
    statement=(
        f"A program of naive takes {PIECE:,} float32 elements of a row of an 8192 by "
        "8192 matrix. Give two whole numbers: how many lines of 128 bytes it reads, "
        "and how many it writes a part of."
    ),
    answer=lambda: solutions.lines(PIECE, 4, ROW_BYTES),
    hint="How far apart are two neighbours of a row once they are stored?",
)

LAYOUT, HELD, SIZE = Blocked((1, 8), (4, 8), (4, 1), (1, 0)), (21, 50), 64

HOLDS = Exercise(
    name="tiling-holds",
    statement=(
        f"A tile of {SIZE} by {SIZE} is loaded in the layout sizePerThread = [1, 8], "
        "threadsPerWarp = [4, 8], warpsPerCTA = [4, 1], order = [1, 0], and its "
        f"transpose is stored in the same layout. Which warp and which lane load "
        f"element [{HELD[0]}, {HELD[1]}], and which store it? Give four whole numbers: "
        "warp and lane, warp and lane."
    ),
    answer=lambda: solutions.holds(LAYOUT, *HELD, SIZE),
    hint=(
        "How many rows and columns does one warp cover? How many do all four, before "
        "the layout begins anew?"
    ),
)

OUTER = Exercise(
    name="tiling-outer",
    statement=(
        "Write a kernel that stores out[i, j] = x[i] + y[j] into a contiguous (m, n) "
        "matrix. Its grid has an axis for rows of tiles and one for columns."
    ),
    inputs=_vectors,
    reference=lambda x, y: x[:, None] + y[None, :],
    shapes=SHAPES,
    launch=_launch_outer,
    parameters=("x_ptr", "y_ptr", "out_ptr", "m", "n", "BLOCK_M", "BLOCK_N"),
    required=USES_BLOCKS,
    hint="Two tiles of one dimension; broadcasting makes the third. Of its mask too.",
)

FLIP = Exercise(
    name="tiling-flip",
    statement=(
        "Write a kernel that mirrors a matrix left to right: out[i, j] = "
        "x[i, n - 1 - j]. x has any strides; nothing is copied beforehand."
    ),
    inputs=_matrix,
    reference=lambda x: x[:, ::-1],
    shapes=SHAPES,
    launch=_launch_strided,
    parameters=(
        *("x_ptr", "out_ptr", "m", "n", "stride_m", "stride_n"),
        *("BLOCK_M", "BLOCK_N"),
    ),
    required=USES_BLOCKS,
    layouts=("contiguous", "sliced", "strided", "transposed"),
    hint="Store as ever; load from elsewhere.",
)

SUMS = Exercise(
    name="tiling-sums",
    statement=(
        "Write a kernel that sums the columns of a contiguous (m, n) matrix. It gets "
        "one program for every BLOCK_N columns."
    ),
    inputs=lambda rng, shape: {"x": np.abs(rng.standard_normal(shape))},
    reference=lambda x: x.sum(axis=0),
    shapes=SHAPES,
    launch=_launch_sums,
    parameters=("x_ptr", "out_ptr", "m", "n", "BLOCK_M", "BLOCK_N"),
    required=USES_BLOCKS,
    length=lambda shape: max(1, shape[0]),
    hint="What must the lanes below the last row hold?",
)

STACK = Exercise(
    name="tiling-stack",
    statement=(
        "Write a kernel that transposes every matrix of a stack through descriptors: "
        "x_desc is one of x (b, m, n) in blocks of (1, BLOCK_M, BLOCK_N), out_desc one "
        "of the result (b, n, m) in blocks of (1, BLOCK_N, BLOCK_M). The three axes of "
        "its grid count matrices, rows of tiles and columns of tiles."
    ),
    inputs=_matrix,
    reference=lambda x: x.transpose(0, 2, 1),
    shapes=((2, 16, 32), (1, 4, 4), (3, 20, 36), (5, 8, 68), (2, 52, 12)),
    extra_shape=lambda rng: (int(rng.integers(1, 5)), *(4 * rng.integers(1, 17, 2))),
    launch=_launch_stack,
    parameters=("x_desc", "out_desc", "BLOCK_M", "BLOCK_N"),
    required=USES_BLOCKS,
    hint="tl.trans takes the order of the dimensions; without one it turns all round.",
)

TILES, GROUP = 16, 4

GROUPED = Exercise(
    name="tiling-grouped",
    statement=(
        f"C is made of {TILES} by {TILES} tiles, and so are A and B. Give two whole "
        f"numbers: how many different blocks of A and B the first {TILES} programs "
        f"read if they take the tiles of C row by row, and if they take them in "
        f"strips of {GROUP} rows."
    ),
    answer=lambda: solutions.grouped(TILES, GROUP),
    hint="Count rows of A and columns of B, then multiply by the blocks in each.",
)

POOL = Exercise(
    name="tiling-pool",
    statement=(
        "Write a function that averages a float32 matrix over squares of two by two, "
        "as torch.nn.functional.avg_pool2d(x, 2) does: an odd row or column at the end "
        "is left out. x has any strides. Use Triton for all that is computed. Then "
        "make it load 16 bytes at a time where the elements of a row are neighbours: "
        "the evidence line says whether it does."
    ),
    inputs=lambda rng, shape: {"x": np.abs(rng.standard_normal(shape))},
    reference=lambda x: (
        x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2]
        .reshape(len(x) // 2, 2, x.shape[1] // 2, 2)
        .mean(axis=(1, 3))
    ),
    shapes=((16, 64), (2, 2), (5, 70), (34, 9), (1, 8), (18, 130)),
    layouts=("contiguous", "sliced", "transposed"),
    length=4,
    only_triton=True,
    hint="Where is the upper left element of a square, in steps of which stride?",
)

EXERCISES = (OFFSET, LINES, HOLDS, OUTER, FLIP, SUMS, STACK, GROUPED, POOL)
