"""Puzzles 1 to 6: where am I, what do I load, where does it go."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import Puzzle, Shape, block, blocks, cdiv
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

LAYOUTS = ("contiguous", "offset")
TILES = ((32, 64), (1, 1), (3, 50), (50, 3), (33, 65), (17, 40), (0, 5))
POWERS = ((32, 32), (1, 1), (16, 64), (64, 2), (4, 128))


def _vector(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _pair(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n = shape
    return {"x": rng.standard_normal(n), "y": rng.standard_normal(m)}


def _gradients(rng: np.random.Generator, shape: Shape) -> Arrays:
    # One in eight is exactly 0, where a relu has its corner.
    x = rng.standard_normal(shape) * (rng.random(shape) > 0.125)
    y = rng.standard_normal(shape[0])
    return {"x": x, "y": y, "dz": rng.standard_normal(shape)}


def _powers(rng: np.random.Generator) -> Shape:
    return tuple(1 << int(e) for e in rng.integers(0, 7, 2))


def _launch_one(kernel: Any, z: Any, x: Any) -> None:
    kernel[(1,)](x, z, BLOCK=x.shape[0])


def _launch_blocks(kernel: Any, z: Any, x: Any) -> None:
    n = x.shape[0]
    if n:
        kernel[(cdiv(n, block(n)),)](x, z, n, BLOCK=block(n))


def _launch_square(kernel: Any, z: Any, x: Any, y: Any) -> None:
    kernel[(1,)](x, y, z, M=y.shape[0], N=x.shape[0])


def _grid(m: int, n: int) -> tuple[int, int]:
    tile = blocks(m, n)
    return cdiv(m, tile["BLOCK_M"]), cdiv(n, tile["BLOCK_N"])


def _launch_tiles(kernel: Any, z: Any, x: Any, y: Any) -> None:
    m, n = z.shape
    if m and n:
        kernel[_grid(m, n)](x, y, z, m, n, **blocks(m, n))


def _launch_gradient(kernel: Any, dx: Any, x: Any, y: Any, dz: Any) -> None:
    m, n = x.shape
    if m and n:
        kernel[_grid(m, n)](x, y, dz, dx, m, n, **blocks(m, n))


TILE_PARAMETERS = ("x_ptr", "y_ptr", "z_ptr", "m", "n", "BLOCK_M", "BLOCK_N")
TILE_GRID = (
    "(cdiv(m, BLOCK_M), cdiv(n, BLOCK_N)): program (p, q) makes the tile of rows from "
    "`p * BLOCK_M` on and columns from `q * BLOCK_N` on."
)

ADD_TEN = Puzzle(
    title="Ten more",
    task=Exercise(
        name="puzzle-01",
        statement="Add 10 to each element of a vector that is exactly one block long.",
        inputs=_vector,
        reference=lambda x: x + 10.0,
        shapes=((32,), (1,), (16,), (128,), (512,)),
        extra_shape=lambda rng: (1 << int(rng.integers(1, 9)),),
        launch=_launch_one,
        parameters=("x_ptr", "z_ptr", "BLOCK"),
        layouts=LAYOUTS,
        hint="A block of addresses is a pointer plus a block of numbers.",
    ),
    formula=r"z_i = x_i + 10",
    data=("`x` (BLOCK,) float32", "`z` (BLOCK,) float32"),
    grid="(1,): one program has everything. Its BLOCK is as long as the vector.",
    hints=(
        "A block of addresses is a pointer plus a block of numbers.",
        "`tl.arange(0, BLOCK)` gives the numbers 0 to BLOCK - 1.",
        "Three calls: `tl.arange`, `tl.load`, `tl.store`.",
    ),
    kernels=("add_ten_kernel",),
    friendly=(32,),
    drawn=(16,),
    chapter="parallel",
)

ADD_TEN_BLOCKS = Puzzle(
    title="Ten more, for everybody",
    task=Exercise(
        name="puzzle-02",
        statement="Add 10 to a vector of any length, each program to one block of it.",
        inputs=_vector,
        reference=lambda x: x + 10.0,
        shapes=((96,), (1,), (50,), (200,), (257,), (0,)),
        launch=_launch_blocks,
        parameters=("x_ptr", "z_ptr", "n", "BLOCK"),
        layouts=LAYOUTS,
        hint="Which is the first element of program 3?",
    ),
    formula=r"z_i = x_i + 10, \qquad 0 \le i < n",
    data=("`x` (n,) float32", "`z` (n,) float32"),
    grid="(cdiv(n, BLOCK),): program p has the elements from `p * BLOCK` on.",
    hints=(
        "Which is the first element of program 3? `tl.program_id(0)` is the 3.",
        "The last block reaches past the end. A mask says which lanes exist.",
        "Load and store both need it, and the load a value for lanes that don't exist.",
    ),
    kernels=("add_ten_blocks_kernel",),
    friendly=(96,),
    drawn=(39,),
    shown=(1, 0, 0),
    chapter="parallel",
)

OUTER_SUM = Puzzle(
    title="Everyone with everyone",
    task=Exercise(
        name="puzzle-03",
        statement="Store the sums of all pairs of two vectors, as a matrix.",
        inputs=_pair,
        reference=lambda x, y: y[:, None] + x[None, :],
        shapes=POWERS,
        extra_shape=_powers,
        launch=_launch_square,
        parameters=("x_ptr", "y_ptr", "z_ptr", "M", "N"),
        layouts=LAYOUTS,
        hint="A column of numbers plus a row of numbers is a tile of numbers.",
    ),
    formula=r"z_{ji} = y_j + x_i",
    data=("`x` (N,) float32", "`y` (M,) float32", "`z` (M, N) float32, row by row"),
    grid="(1,): one program has everything. M and N are powers of two.",
    hints=(
        "`a[:, None] + b[None, :]` makes a tile of a column and a row.",
        "That works for values, and for the offsets of a tile just as well.",
        "Where does row j of z begin? N elements further than row j - 1.",
    ),
    kernels=("outer_sum_kernel",),
    friendly=(32, 32),
    drawn=(8, 16),
    chapter="tiling",
)

OUTER_SUM_TILES = Puzzle(
    title="Everyone with everyone, in tiles",
    task=Exercise(
        name="puzzle-04",
        statement=(
            "Store the sums of all pairs of two vectors of any lengths, each program "
            "one tile of them."
        ),
        inputs=_pair,
        reference=lambda x, y: y[:, None] + x[None, :],
        shapes=TILES,
        launch=_launch_tiles,
        parameters=TILE_PARAMETERS,
        layouts=LAYOUTS,
        hint="Puzzle 2 twice, then puzzle 3.",
    ),
    formula=r"z_{ji} = y_j + x_i, \quad j < m,\ i < n",
    data=("`x` (n,) float32", "`y` (m,) float32", "`z` (m, n) float32, row by row"),
    grid=TILE_GRID,
    hints=(
        "Puzzle 2 twice, then puzzle 3: rows by program_id(0), columns by 1.",
        "Rows of z are n apart, however wide a tile is.",
        "A lane of the tile exists if its row does and its column does: combine two "
        "masks with `&`, each with its axis.",
    ),
    kernels=("outer_sum_tiles_kernel",),
    friendly=(32, 64),
    drawn=(20, 40),
    shown=(1, 1, 0),
    chapter="tiling",
)

OUTER_RELU = Puzzle(
    title="A product and a corner",
    task=Exercise(
        name="puzzle-05",
        statement=(
            "Store the products of all pairs, negative ones as 0, in one kernel: the "
            "product is never in memory."
        ),
        inputs=_pair,
        reference=lambda x, y: np.maximum(y[:, None] * x[None, :], 0.0),
        shapes=TILES,
        launch=_launch_tiles,
        parameters=TILE_PARAMETERS,
        layouts=LAYOUTS,
        invariants={"no element is negative": lambda z, **_: bool((z >= 0).all())},
        hint="The sum of puzzle 4 becomes two operations; nothing else changes.",
    ),
    formula=r"z_{ji} = \max(0,\ y_j\, x_i)",
    data=("`x` (n,) float32", "`y` (m,) float32", "`z` (m, n) float32, row by row"),
    grid=TILE_GRID,
    hints=(
        "The sum of puzzle 4 becomes two operations; nothing else changes.",
        "`tl.maximum`, or `tl.where` with a comparison.",
    ),
    kernels=("outer_relu_kernel",),
    friendly=(32, 64),
    drawn=(18, 48),
    shown=(0, 1, 0),
)

RELU_GRADIENT = Puzzle(
    title="The way back",
    task=Exercise(
        name="puzzle-06",
        statement=(
            "A forward pass made z[j, i] = max(0, y[j] x[j, i]) of a matrix x and a "
            "vector y. You get dz, the gradient of a loss with respect to z; store "
            "dx, its gradient with respect to x. Where the product is 0, so is the "
            "gradient, as in PyTorch."
        ),
        inputs=_gradients,
        reference=lambda x, y, dz: np.where(x * y[:, None] > 0, dz * y[:, None], 0.0),
        shapes=TILES,
        launch=_launch_gradient,
        parameters=("x_ptr", "y_ptr", "dz_ptr", "dx_ptr", *TILE_PARAMETERS[3:]),
        layouts=LAYOUTS,
        hint="Nobody stored the product. What do you load to know its sign?",
    ),
    formula=(
        r"\mathrm{dx}_{ji} = \begin{cases} y_j\, \mathrm{dz}_{ji} & y_j x_{ji} > 0 \\ "
        r"0 & \text{else} \end{cases}"
    ),
    data=(
        "`x` (m, n) float32; one element in eight is exactly 0",
        "`y` (m,) float32",
        "`dz` (m, n) float32",
        "`dx` (m, n) float32",
    ),
    grid=TILE_GRID,
    hints=(
        "Nobody stored the product. Load x, y and dz, and multiply once more.",
        "x, dz and dx have the same offsets and the same mask. y has one element a "
        "row: load a column of them, with the mask of rows alone.",
        "`tl.where` with `x * y > 0`, not `>=`: one element in eight is at the corner.",
    ),
    kernels=("relu_gradient_kernel",),
    friendly=(32, 64),
    drawn=(18, 40),
    shown=(1, 0, 0),
)

PUZZLES = (
    ADD_TEN,
    ADD_TEN_BLOCKS,
    OUTER_SUM,
    OUTER_SUM_TILES,
    OUTER_RELU,
    RELU_GRADIENT,
)
