"""The chapter's exercises, from reading a layout to a program of our own language."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.compiler import solutions
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

NEIGHBOURS, THREADS, BLOCK, SIZE = 4, 128, 2048, 2

WIDTH = Exercise(
    name="compiler-width",
    statement=(
        "A layout of float16 has sizePerThread = [4], threadsPerWarp = [32] and "
        "warpsPerCTA = [4]. A program loads 2,048 neighbours with it, from a pointer "
        "that is a multiple of 16 bytes. Give two whole numbers: the bytes that a "
        "thread gets by each of its load instructions, and how many it issues."
    ),
    answer=lambda: solutions.width(NEIGHBOURS, THREADS, BLOCK, SIZE),
    rtol=0.0,
    hint="A load takes neighbours only. How many rounds does the tile need?",
)

ROW, COLUMN = 21, 9


def _explain_owner(got: Any) -> str | None:
    register, lane, warp = solutions.owner(ROW, COLUMN)
    if not isinstance(got, tuple | list) or len(got) != 3:
        return None
    if tuple(got) == (lane, warp, register):
        return "These are lane, warp and register: the register comes first."
    if tuple(got)[1:] == (lane, warp):
        return "Rows 16 and further down are in registers of their own."
    return None


OWNER = Exercise(
    name="compiler-owner",
    statement=(
        "A tile of 32 by 32 has sizePerThread = [1, 4], threadsPerWarp = [4, 8], "
        "warpsPerCTA = [4, 1] and order = [1, 0]. Where the layout has dealt out all "
        "of its bits and the tile has more, the next ones are registers again. Give "
        "three whole numbers: the register, the lane and the warp that hold the "
        f"element of row {ROW} and column {COLUMN}."
    ),
    answer=lambda: solutions.owner(ROW, COLUMN),
    explain=_explain_owner,
    rtol=0.0,
    hint="How many rows do four warps cover? What becomes of the rows beyond?",
)

# Bits of a number, numbers.
BITS = ((5, 40), (1, 1), (8, 300), (3, 17), (10, 64))


def _columns(rng: np.random.Generator, shape: Shape) -> Arrays:
    bits, count = shape
    return {
        "columns": rng.integers(0, 1 << 12, bits),
        "x": rng.integers(0, 1 << bits, count),
    }


def _applied(columns: np.ndarray, x: np.ndarray) -> np.ndarray:
    bits = x[:, None] >> np.arange(len(columns)) & 1
    return np.bitwise_xor.reduce(bits * columns, axis=1)


APPLY = Exercise(
    name="compiler-apply",
    statement=(
        "Write a function of `columns` and `x`, both int64, that applies a matrix over "
        "GF(2): for each number of x, the entries of columns at whose place the number "
        "has a bit, the lowest first, added without a carry."
    ),
    inputs=_columns,
    reference=_applied,
    shapes=BITS,
    hint="Adding without a carry is one of Python's operators.",
)

# Rows, columns, elements of a group, ways.
TILES = ((8, 64, 8, 8), (4, 16, 4, 4), (16, 32, 8, 4), (3, 8, 2, 1), (32, 64, 1, 8))


def _places(rng: np.random.Generator, shape: Shape) -> Arrays:
    rows, columns, vector, phases = shape
    row, column = np.indices((rows, columns))
    order = rng.permutation(rows * columns)
    return {
        "row": row.reshape(-1)[order],
        "column": column.reshape(-1)[order],
        "side": columns,
        "vector": vector,
        "phases": phases,
    }


def _swizzled(
    row: np.ndarray, column: np.ndarray, side: int, vector: int, phases: int
) -> np.ndarray:
    return row * side + (column ^ (row % phases * vector))


SWIZZLE = Exercise(
    name="compiler-swizzle",
    statement=(
        "Write a function of `row` and `column`, int64, and of three whole numbers, "
        "`side`, `vector` and `phases`, that returns where in shared memory, in "
        "elements, a swizzled layout with perPhase = 1 has an element: rows of `side` "
        "follow one another, and in row r the group of `vector` columns with number g "
        "lies where group g xor (r mod phases) would."
    ),
    inputs=_places,
    reference=_swizzled,
    shapes=TILES,
    extra_shape=None,
    hint="Split the column into the number of its group and what is left.",
)

CODE = """\
total = tile.zeros(BLOCK, tile.f32)
scale = 2.0
for i in range(n):
    x = tile.load(x_ptr + i * BLOCK + offs)
    y = x * scale
    total += y
    count = i
"""

CARRIED = Exercise(
    name="compiler-carried",
    statement=(
        "What does the loop carry from round to round in the program on the page? Give "
        "the names, in the order of the alphabet, joined by a comma and a space."
    ),
    answer=lambda: "total",
    explain=lambda got: (
        "What is set in the loop only has no value before it that it could start from."
        if isinstance(got, str) and ("count" in got or "x" in got.split(", "))
        else "What the loop doesn't set needs no carrying."
        if isinstance(got, str) and "scale" in got
        else None
    ),
    hint="Which names have a value before the loop and get another one in it?",
)

KIB = 1024
PIECES = (*((16 * KIB, 0, 10), (8 * KIB, 5, 12), (16 * KIB, 11, 20), (4 * KIB, 0, 20)),)

MEMORY = Exercise(
    name="compiler-memory",
    statement=(
        "Four buffers: 16 KiB, live at operations 0 to 9; 8 KiB, at 5 to 11; 16 KiB, "
        "at 11 to 19; 4 KiB, at 0 to 19. How many bytes of shared memory are enough?"
    ),
    answer=lambda: solutions.memory(PIECES),
    explain=lambda got: (
        "So much all four have together. Which two may lie in the same place?"
        if got == 44 * KIB
        else None
    ),
    rtol=0.0,
    hint="Draw the lives as bars below one another.",
)

STEPS = (
    *(("store", "a"), ("load", "a"), ("store", "a"), ("store", "b")),
    *(("load", "a"), ("load", "b"), ("store", "a")),
)

BARRIERS = Exercise(
    name="compiler-barriers",
    statement=(
        "All threads of a program do, one after another: store a, load a, store a, "
        "store b, load a, load b, store a. Each loads what others stored; a and b are "
        "disjoint. How many barriers are needed?"
    ),
    answer=lambda: solutions.barriers(STEPS),
    explain=lambda got: (
        "A barrier is for every buffer: which one has been waited for already?"
        if got == 5
        else None
    ),
    rtol=0.0,
    hint="Behind a barrier nothing is pending, in any buffer.",
)


def _rows(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


PROGRAM = Exercise(
    name="compiler-program",
    statement=(
        "Write a program of this chapter's language, and a function of a matrix x of "
        "float32 that lowers and evaluates it and returns the sum of squares of each "
        "row as a vector of float32. Rows may be longer than a tile. x is a tensor of "
        "PyTorch's, `evaluate` takes arrays of NumPy's."
    ),
    inputs=_rows,
    reference=lambda x: (x * x).sum(1),
    shapes=((4, 16), (1, 1), (3, 50), (5, 33), (2, 64)),
    length=64,
    required=("compiler.lower", "compiler.evaluate"),
    hint="Which row is the program's? What must lanes past the end of a row hold?",
)

EXERCISES = (WIDTH, OWNER, APPLY, SWIZZLE, CARRIED, MEMORY, BARRIERS, PROGRAM)
