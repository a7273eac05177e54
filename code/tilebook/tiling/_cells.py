"""Cells with numbers in them, for the chapter's pictures."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tilebook.measure.palette import GREY, Drawing
from tilebook.parallel.figures import FILLS, IDLE, INK


def board(width: float, height: float, largest: float = 0.45) -> tuple[Drawing, Axes]:
    """Make a figure whose axes have square cells and no frame."""
    cell = min(largest, 8.5 / width)
    figure = Drawing(figsize=(cell * width, cell * height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.1, width + 0.1)
    axes.set_ylim(height + 0.1, -0.1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure, axes


def grid(
    axes: Axes,
    values: np.ndarray,
    left: float,
    top: float,
    title: str,
    text: Callable[[int], str] = str,
    fill: Callable[[int], str] | None = None,
    off: np.ndarray | None = None,
) -> None:
    """Draw a matrix of numbers: a cell for each, coloured by it, named above.

    Cells that are `off` are hatched.
    """
    rows, columns = values.shape
    size = 10 if max(rows, columns) <= 9 else 8
    for (i, j), value in np.ndenumerate(values):
        value = int(value)
        color = fill(value) if fill else FILLS[value % len(FILLS)]
        hatch = "///" if off is not None and off[i, j] else None
        place = (left + j, top + i)
        axes.add_patch(
            Rectangle(place, 1, 1, facecolor=color, edgecolor=GREY, hatch=hatch)
        )
        axes.text(
            left + j + 0.5, top + i + 0.5, text(value),
            ha="center", va="center", color=INK, fontsize=size,
        )  # fmt: skip
    axes.text(
        left + columns / 2, top - 0.4, title,
        ha="center", va="center", color=GREY, fontsize=10,
    )  # fmt: skip


def frame(axes: Axes, left: float, top: float, width: float, height: float) -> None:
    """Draw a frame that shows on any ground: black with a white edge on either side."""
    for color, thickness in (("#ffffff", 4.5), (INK, 2)):
        axes.add_patch(
            Rectangle(
                (left, top), width, height,
                fill=False, edgecolor=color, linewidth=thickness,
            )
        )  # fmt: skip


def blank(value: int) -> str:
    return "" if value < 0 else str(value)


def idle(value: int) -> str:
    return IDLE if value < 0 else FILLS[value % len(FILLS)]
