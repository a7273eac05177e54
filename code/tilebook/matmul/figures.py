"""The chapter's pictures, each drawn from what real launches touched.

Numbers stand in the cells, so that no picture needs its colours to be told apart.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from tilebook import check, microscope
from tilebook.matmul import evidence, ordered, split, streamed
from tilebook.matmul.fitting import Config
from tilebook.matmul.operands import Task
from tilebook.matmul.shapes import Shape
from tilebook.measure.palette import style
from tilebook.parallel.figures import FILLS, IDLE, Picture
from tilebook.tiling._cells import blank, board, grid, idle

SIDE = 16
"""Of a tile in the pictures: the least that `tl.dot` takes."""


class Reads(NamedTuple):
    """What programs of a product read among them, each row and column once."""

    rows: int
    """Rows of `a`."""
    columns: int
    """Columns of `b`."""

    def elements(self, k: int) -> int:
        """Elements of both operands.

        Args:
            k: terms of a sum.
        """
        return (self.rows + self.columns) * k


def tile_of(
    programs: np.ndarray, tiles_m: int, tiles_n: int, group: int
) -> tuple[np.ndarray, np.ndarray]:
    """Say where programs work, as `tiling.grouped.grouped` has it.

    Args:
        programs: their numbers, any shape.
        tiles_m: rows of tiles.
        tiles_n: columns of them.
        group: rows of tiles in a strip; 1 for row by row.

    Returns:
        The row and the column of each program's tile.
    """
    strip, within = np.divmod(programs, group * tiles_n)
    rows = np.minimum(tiles_m - strip * group, group)
    return strip * group + within % rows, within // rows


def touched(
    shape: Shape,
    block_m: int,
    block_n: int,
    group: int = 1,
    *,
    programs: int,
    first: int = 0,
) -> Reads:
    """Count the rows and columns that programs with successive numbers read.

    Args:
        shape: of the product.
        block_m: rows of a tile.
        block_n: columns of it.
        group: rows of tiles in a strip; 1 for row by row.
        programs: how many, at most as many as there are tiles from `first` on.
        first: the number of the first of them.

    Returns:
        The counts; rows and columns past the edge don't count.

    Raises:
        TypeError: a number isn't an integer.
        ValueError: a number below 1, or more programs than tiles.
    """
    for name, value in (
        *(("block_m", block_m), ("block_n", block_n)),
        *(("group", group), ("programs", programs)),
    ):
        check.positive_int(value, name)
    tiles_m, tiles_n = -(-shape.m // block_m), -(-shape.n // block_n)
    if first < 0 or first + programs > tiles_m * tiles_n:
        raise ValueError(
            f"programs {first} to {first + programs - 1} were asked for, there are "
            f"{tiles_m * tiles_n} tiles"
        )
    numbers = np.arange(first, first + programs)
    at_m, at_n = (np.unique(at) for at in tile_of(numbers, tiles_m, tiles_n, group))
    rows = np.minimum((at_m + 1) * block_m, shape.m) - at_m * block_m
    columns = np.minimum((at_n + 1) * block_n, shape.n) - at_n * block_n
    return Reads(int(rows.sum()), int(columns.sum()))


def traffic(
    shape: Shape,
    block_m: int,
    block_n: int,
    group: int = 1,
    *,
    programs: int,
    itemsize: int = 2,
) -> int:
    """Count what a product reads if programs that run at a time share, and no others.

    Args:
        shape: of the product.
        block_m: rows of a tile.
        block_n: columns of it.
        group: rows of tiles in a strip; 1 for row by row.
        programs: that run at a time, wave after wave.
        itemsize: bytes of an element.

    Returns:
        Bytes of both operands, over all waves.
    """
    tiles = -(-shape.m // block_m) * -(-shape.n // block_n)
    return sum(
        touched(
            shape, block_m, block_n, group,
            programs=min(programs, tiles - first), first=first,
        ).elements(shape.k) * itemsize
        for first in range(0, tiles, programs)
    )  # fmt: skip


def _seen(
    rows: int, columns: int, group: int, programs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Launch programs of `ordered`, and see which tiles they read and write.

    Args:
        rows: of tiles of the product.
        columns: of them.
        group: rows of tiles in a strip.
        programs: how many are launched, in their order.

    Returns:
        How many programs read each row of tiles of `a` (rows, 1) and each column of
        tiles of `b` (1, columns), and which wrote each tile (rows, columns), -1 for
        none.
    """
    a, b = torch.zeros(rows * SIDE, SIDE), torch.zeros(SIDE, columns * SIDE)
    task = Task(a, b, torch.zeros(rows * SIDE, columns * SIDE))
    args, meta = ordered.constants(task, Config(SIDE, SIDE, SIDE, 4, 1, group))
    look = microscope.look(
        ordered.matmul_kernel, (programs,), *args, **meta, raise_error=True
    )
    counts = [look.counts(name)[::SIDE, ::SIDE] for name in ("a_ptr", "b_ptr")]
    return *counts, look.ownership("out_ptr")[::SIDE, ::SIDE]


def orders(
    rows: int = 6, columns: int = 8, group: int = 3, programs: int = 12
) -> Picture:
    """Draw what programs that run at a time read, row by row and in strips.

    Args:
        rows: of tiles of the product.
        columns: of them.
        group: rows of tiles in a strip of the second order.
        programs: that run at a time.

    Returns:
        Two pictures, one below the other: tiles of the product with the numbers of the
        programs that compute them, beside them rows of `a` and above them columns of
        `b` with the number of programs that read each.
    """

    def count(value: int) -> str:
        return str(value) if value else ""

    def shade(value: int) -> str:
        return FILLS[0] if value else IDLE

    def owner(value: int) -> str:
        return IDLE if value < 0 else FILLS[1]

    told = []
    with style():
        figure, axes = board(columns + 3.5, 2 * rows + 7)
        for at, strip in enumerate((1, group)):
            a, b, out = _seen(rows, columns, strip, programs)
            top = at * (rows + 4) + 1
            read = int((a > 0).sum()), int((b > 0).sum())
            grid(axes, b, 3, top, f"b: {read[1]} columns of tiles", count, shade)
            grid(axes, a, 0.5, top + 2, f"a: {read[0]} rows", count, shade)
            name = "row by row" if strip == 1 else f"strips of {strip} rows"
            grid(axes, out, 3, top + 2, f"the product, {name}", blank, owner)
            told.append(f"{name} {read[0]} rows of tiles of a and {read[1]} columns")
    alt = (
        f"The first {programs} programs of a product of {rows} by {columns} tiles. "
        f"They read {told[0]} of tiles of b, {told[1]}."
    )
    return Picture(figure, alt)


def _steps(
    kernel: Any, launch: Any, tiles: int, steps: int, task: Task
) -> tuple[np.ndarray, int]:
    """See which program takes which steps of which tile.

    Args:
        kernel: that multiplies.
        launch: launches it, among others.
        tiles: of the product, side by side.
        steps: along k of each.
        task: the product.

    Returns:
        The program's number by tile and step, and how many programs there are.
    """
    seen = np.full((tiles, steps), -1)
    programs = 0
    for each in evidence.launches(lambda wrap: launch(task._replace(wrap=wrap))):
        if each.kernel is not kernel:
            continue
        grid_of = each.grid
        programs = grid_of[0]
        look = microscope.look(
            kernel, grid_of, *each.args, **each.meta, raise_error=True
        )
        for access in look.accesses:
            if access.argument == "b_ptr" and access.op == "load":
                row, column = np.divmod(access.touched(), tiles * SIDE)
                seen[column // SIDE, row // SIDE] = look.program(access.program)
    return seen, programs


def shares(tiles: int = 5, steps: int = 8, programs: int = 4) -> Picture:
    """Draw who takes which steps of which tile, in three ways.

    Args:
        tiles: of the product, side by side.
        steps: along k for each.
        programs: that run at a time, and share all steps in Stream-K.

    Returns:
        Three boards, one below the other, a row for each tile and a cell for each of
        its steps, with the program's number: a program for each tile, two for each
        tile (split-K), and all steps shared out evenly (Stream-K).
    """
    k = steps * SIDE
    task = Task(
        torch.zeros(SIDE, k), torch.zeros(k, tiles * SIDE),
        torch.zeros(SIDE, tiles * SIDE),
    )  # fmt: skip

    def cut(parts: int) -> tuple[np.ndarray, int]:
        config = split.Config(SIDE, SIDE, SIDE, parts)
        return _steps(
            split.parts_kernel, lambda t: split.launch(t, config), tiles, steps, task
        )

    # All of it shared out, and by pointers: their addresses tell who reads what.
    even = streamed.Config(SIDE, SIDE, SIDE, programs, longer=True, engine=False)
    ways = {
        "a program a tile": cut(1),
        "split-K, two parts": cut(2),
        "Stream-K": _steps(
            streamed.shares_kernel,
            lambda t: streamed.launch(t, even), tiles, steps, task,
        ),
    }  # fmt: skip
    told = []
    with style():
        figure, axes = board(steps, len(ways) * (tiles + 1.2))
        for at, (name, (seen, count)) in enumerate(ways.items()):
            taken = np.bincount(seen.ravel(), minlength=count)
            most = int(taken.max())
            turns = -(-count // programs) * most
            title = f"{name}: {count} programs, {turns} steps of time"
            grid(axes, seen, 0, 1 + at * (tiles + 1.2), title, blank, idle)
            told.append(f"{name}: {count} programs of at most {most} steps")
    alt = (
        f"{tiles} tiles of {steps} steps each, a row of cells for a tile, with the "
        f"program that takes each step; {programs} programs run at a time. "
        + "; ".join(told)
        + "."
    )
    return Picture(figure, alt)
