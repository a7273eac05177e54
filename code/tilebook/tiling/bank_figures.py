"""The picture of a swizzle: in which banks the groups of a tile's rows lie."""

import numpy as np
import torch
from matplotlib.axes import Axes

from tilebook.measure.palette import GREY, style
from tilebook.memory import banks
from tilebook.parallel.figures import FILLS, Picture
from tilebook.tiling import counts, explicit, layouts
from tilebook.tiling._cells import board, frame, grid
from tilebook.tiling.evidence import compiled

VECTOR = 16
"""Bytes of a group, which one lane writes at a time."""
GROUPS = 4 * banks.BANKS // VECTOR
"""Groups that lie side by side in all banks, and lanes that are served at a time."""
# A colour for each place among the banks.
SHADES = (*FILLS, "#e6e6e6", "#8f9fe8")


def written(dtype: torch.dtype = torch.int16) -> np.ndarray:
    """Say which rows of shared memory `explicit` writes at one time.

    Args:
        dtype: one of `counts.ELEMENTS`.

    Returns:
        The first row of each lane that is served together, from the layout of the
        compiled kernel.
    """
    block, _ = explicit.SIDES[dtype.itemsize]
    (element,) = (name for name, known in counts.ELEMENTS.items() if known == dtype)
    ttgir = compiled(explicit, dtype=dtype).ttgir
    lanes = layouts.moved(ttgir, "tt.trans", element)[-1].threads((block, block))
    return np.array([np.argwhere(lanes == lane)[0, 0] for lane in range(GROUPS)])


def words(lies: layouts.Shared, rows: np.ndarray) -> np.ndarray:
    """Say where the first groups of some rows lie in shared memory.

    Args:
        lies: the layout there, with groups of 16 bytes.
        rows: their numbers.

    Returns:
        The first 4-byte word of each, counted from the tile's start: a row for each of
        `rows`, `GROUPS` columns.
    """
    first = lies.vector * np.arange(GROUPS)
    offsets = lies.offset(rows[:, None], first[None, :], int(rows.max()) + 1)
    return offsets // lies.vector * (VECTOR // 4)


def cycles(starts: np.ndarray) -> int:
    """Count the cycles in which lanes write a group of 16 bytes each.

    Args:
        starts: the first word of each group.

    Returns:
        Cycles: 1 where nobody waits.
    """
    return banks.conflicts((starts[:, None] + np.arange(VECTOR // 4)).ravel())


def swizzles(dtype: torch.dtype = torch.int16) -> Picture:
    """Draw the banks of a tile's groups as predicted, and as lanes write them.

    Args:
        dtype: as for `written`.

    Returns:
        Four grids of rows by groups, the banks' number in each cell, a column framed
        and its cycles above. In the upper two rows are neighbours, as they come and
        shifted by the row; in the lower two they are those that `explicit` writes
        together, shifted by the row and every V rows.
    """
    (block, _), vector = explicit.SIDES[dtype.itemsize], VECTOR // dtype.itemsize
    near, together = np.arange(GROUPS), written(dtype)
    plain = ("as they come", layouts.Shared(vector, 1, 1, block))
    by_row = (f"g ^ (r % {GROUPS})", layouts.Shared(vector, 1, GROUPS, block))
    by_squares = (
        f"g ^ (r // {vector}) % {GROUPS}",
        layouts.Shared(vector, vector, GROUPS, block),
    )
    boards = (
        ("neighbouring rows", near, (plain, by_row)),
        (f"rows that {GROUPS} lanes write at one time", together, (by_row, by_squares)),
    )
    counted = []
    with style():
        figure, axes = board(2 * GROUPS + 3.5, 2 * GROUPS + 4.6, 0.29)
        for down, (heading, rows, panels) in enumerate(boards):
            top = 2 + down * (GROUPS + 2.6)
            axes.text(
                0, top - 1.5, heading,
                va="center", color=GREY, fontsize=10, fontweight="bold",
            )  # fmt: skip
            for across, (name, lies) in enumerate(panels):
                left = 1.3 + across * (GROUPS + 2.2)
                starts = words(lies, rows)
                counted.append(cycles(starts[:, 0]))
                title = f"{name}: {counted[-1]} cycle{'s' * (counted[-1] > 1)}"
                values = starts % banks.BANKS // (VECTOR // 4)
                grid(axes, values, left, top, title, fill=SHADES.__getitem__)
                frame(axes, left, top, 1, GROUPS)
                _number(axes, rows, left, top)
    alt = (
        f"Four grids of {GROUPS} rows by {GROUPS} groups, each cell with the number of "
        f"its banks. The first column of rows 0 to {near[-1]} takes {counted[0]} "
        f"cycles as rows come and {counted[1]} shifted by the row. That of rows "
        f"{', '.join(map(str, together))} takes {counted[2]} shifted by the row and "
        f"{counted[3]} shifted every {vector} rows."
    )
    return Picture(figure, alt)


def _number(axes: Axes, rows: np.ndarray, left: float, top: float) -> None:
    """Write the rows' numbers beside a grid."""
    places = [("r", top - 0.4)] + [
        (str(row), top + i + 0.5) for i, row in enumerate(rows)
    ]
    for text, height in places:
        axes.text(
            left - 0.3, height, text,
            ha="right", va="center", color=GREY, fontsize=9,
        )  # fmt: skip
