"""The chapter's exercises, from an offset to a stencil of one's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.testing import Exercise
from tilebook.tiling import solutions

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
    hint="Two tiles of one dimension; broadcasting makes the third.",
)

TRANSPOSE = Exercise(
    name="tiling-transpose",
    statement=(
        "Write a kernel that stores the transpose of a contiguous (m, n) matrix into a "
        "contiguous (n, m) one. Its grid has an axis for rows of tiles and one for "
        "columns."
    ),
    inputs=_matrix,
    reference=lambda x: x.T,
    shapes=SHAPES,
    launch=_launch,
    parameters=("x_ptr", "out_ptr", "m", "n", "BLOCK_M", "BLOCK_N"),
    required=USES_BLOCKS,
    hint="The mask is turned round as the tile is.",
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
        "make it move 16 bytes at a time, and measure what that is worth."
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

EXERCISES = (OFFSET, LINES, OUTER, TRANSPOSE, FLIP, SUMS, GROUPED, POOL)
