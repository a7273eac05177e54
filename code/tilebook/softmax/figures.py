"""The chapter's picture, from real addresses, and the rows that its curves show."""

from typing import Any

import numpy as np
import torch
from matplotlib.patches import Rectangle

from tilebook import microscope
from tilebook.measure import Record
from tilebook.measure.palette import Drawing, style
from tilebook.softmax import conclusions, fused, persistent, several, split

__all__ = ["M", "N", "aligned", "many", "owners", "ownership", "ragged_lengths"]

M, N = 6, 16
"""Rows and columns of the matrix in the picture."""
# Okabe and Ito's colours, light enough for black digits.
FILLS = ("#e69f00", "#56b4e9", "#d0d0d0", "#f0e442", "#cc79a7", "#7fd1b9")
INK = "#000000"


def _whole(kernel: Any, grid: int, *sizes: int, **meta: Any) -> np.ndarray:
    x = torch.zeros(M, N)
    args = (x, torch.empty_like(x), *sizes, N, N, 1.0)
    meta |= {"DIV": 1, "BLOCK": N, "LOG": False, "POLICY": ""}
    look = microscope.look(kernel, (grid,), *args, **meta, raise_error=True)
    return look.ownership("out_ptr")


def owners() -> dict[str, np.ndarray]:
    """Launch four of the designs, and see who stores what.

    Returns:
        By the design's name, the number of the program that wrote each element (M, N).
    """
    halves = 2
    x, partial = torch.zeros(M, N), torch.zeros(M, halves, 2)
    cut = microscope.look(
        split.finish_kernel,
        (M * halves,),
        *(x, torch.empty_like(x), partial, N, N, halves, 1, 1.0),
        DIV=1, W=1, BLOCK=N // halves, LANES=halves, DROP=False, LOG=False,
        raise_error=True,
    )  # fmt: skip
    return {
        "a row": _whole(fused.softmax_kernel, M),
        "several rows": _whole(several.softmax_kernel, M // 2, M, ROWS=2),
        "taking turns": _whole(persistent.softmax_kernel, 2, M),
        "parts of a row": cut.ownership("out_ptr"),
    }


def ownership() -> Drawing:
    """Draw which program writes which element, for four of the designs.

    Returns:
        A grid for each, a row of cells for each row, with the program's number where
        its cells begin.
    """
    with style():
        figure = Drawing(figsize=(9, 2.6), layout="none")
        panels = figure.subplots(1, 4)
        for axes, (name, numbers) in zip(panels, owners().items(), strict=True):
            for i, row in enumerate(numbers):
                for j, number in enumerate(row):
                    fill = FILLS[number % len(FILLS)]
                    axes.add_patch(Rectangle((j, 1.3 * i), 1, 1, facecolor=fill))
                    if j == 0 or row[j - 1] != number:
                        axes.text(
                            j + 0.4, 1.3 * i + 0.5, str(number), color=INK, fontsize=8,
                            va="center",
                        )  # fmt: skip
            axes.set_xlim(0, N)
            axes.set_ylim(1.3 * M, -0.3)
            axes.set_axis_off()
            axes.set_title(name)
    return figure


def many(record: Record) -> Record:
    """Leave out the matrices of few rows, whose lengths others have, too.

    Args:
        record: of one of the chapter's experiments.

    Returns:
        The record with the rows about as many rows as keep every multiprocessor busy.
    """
    return record.part(lambda row: row["shape"]["m"] >= conclusions.ROWS)


def aligned(record: Record) -> Record:
    """Keep the matrices each of whose rows starts at a multiple of 16 bytes.

    Args:
        record: of one of the chapter's experiments.

    Returns:
        The record with the rows about lengths that 8 divides.
    """
    return record.part(lambda row: conclusions.length(row) % 8 == 0)


def ragged_lengths(record: Record) -> Record:
    """Keep what `aligned` leaves out.

    Args:
        record: of one of the chapter's experiments.

    Returns:
        The record with the rows about lengths that 8 doesn't divide.
    """
    return record.part(lambda row: conclusions.length(row) % 8 > 0)
