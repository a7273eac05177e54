"""The chapter's pictures, drawn from matrices of bits and from what passes left."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.patches import Rectangle

from tilebook.compiler import kinds, sharing, spelled
from tilebook.compiler.layouts import Linear
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.parallel.figures import FILLS, INK, Picture
from tilebook.tiling._cells import board, frame, grid

BLOCKED = kinds.blocked((1, 2), (4, 8), (2, 2), (1, 0), (16, 32))
"""A blocked layout that fits a page."""


def owners(layout: Linear, title: str = "") -> Picture:
    """Draw which thread of which warp holds each element of a tile.

    Args:
        layout: of a tile with two sides, by registers, lanes and warps.
        title: above the tile.

    Returns:
        The tile, a lane's number in each cell and a colour for each warp. What is
        framed is one thread's: lane 0 of warp 0.
    """
    lane, warp = layout.owners("lane"), layout.owners("warp")
    mine = (lane == 0) & (warp == 0)
    with style():
        rows, columns = lane.shape
        figure, axes = board(columns, rows + 1)
        pairs = lane + 64 * warp
        grid(
            axes, pairs, 0, 1, title,
            text=lambda pair: str(pair % 64),
            fill=lambda pair: FILLS[pair // 64 % len(FILLS)],
        )  # fmt: skip
        for row, column in zip(*np.nonzero(mine), strict=True):
            frame(axes, column, 1 + row, 1, 1)
    alt = (
        f"{rows} by {columns} cells with lanes' numbers, coloured by warps, of which "
        f"there are {warp.max() + 1}. Lane 0 of warp 0 holds {int(mine.sum())} cells, "
        f"the first row begins with lanes {', '.join(map(str, lane[0, :4]))}."
    )
    return Picture(figure, alt)


def read(text: str, shape: tuple[int, int]) -> Picture:
    """Draw a layout as TTGIR spells it.

    Args:
        text: what stands behind the equals sign.
        shape: of the tile.

    Returns:
        As `owners`, or for a layout of shared memory the offsets.
    """
    layout = spelled.read(text, shape)
    return offsets(layout) if layout.inputs[0][0] == "offset" else owners(layout)


def offsets(layout: Linear, title: str = "", vector: int = 8) -> Picture:
    """Draw where each element of a tile lies in shared memory.

    Args:
        layout: of a tile with two sides, by offsets.
        title: above the tile.
        vector: elements of a group.

    Returns:
        The tile, with the offset in each cell; groups that lie one behind another in
        memory have colours in turn.
    """
    found = layout.owners("offset")
    with style():
        rows, columns = found.shape
        figure, axes = board(columns, rows + 1)
        grid(
            axes, found, 0, 1, title,
            fill=lambda offset: FILLS[offset // vector % len(FILLS)],
        )  # fmt: skip
    alt = (
        f"{rows} by {columns} cells with offsets in shared memory. The second row "
        f"begins with {', '.join(map(str, found[1, :3]))}."
    )
    return Picture(figure, alt)


def matrix(layout: Linear, title: str = "") -> Picture:
    """Draw a layout's matrix of bits.

    Args:
        layout: any.
        title: above it.

    Returns:
        A square for each bit, filled where it is 1; columns are bits of the inputs,
        each input's in a colour, rows are bits of the outputs.
    """
    bits = layout.matrix
    colours = [
        FILLS[number % len(FILLS)]
        for number, (_, count) in enumerate(layout.inputs)
        for _ in range(count)
    ]
    names = [f"{name[0]}{bit}" for name, n in layout.inputs for bit in range(n)]
    rows = [f"{name[0]}{name[-1]}:{bit}" for name, n in layout.outputs
            for bit in range(n)]  # fmt: skip
    with style():
        height, width = bits.shape
        figure, axes = board(width + 3, height + 2)
        for column in range(width):
            one = bits[:, column : column + 1]
            grid(
                axes, one, 2 + column, 1, names[column],
                text=lambda bit: "1" if bit else "",
                fill=lambda bit, colour=colours[column]: colour if bit else "#ffffff",
            )  # fmt: skip
        for row, name in enumerate(rows):
            axes.text(1.8, 1.5 + row, name, ha="right", va="center", color=GREY)
        axes.text(
            2 + width / 2, height + 1.5, title, ha="center", va="center", color=GREY
        )
    parts = ", ".join(f"{n} bits of {name}" for name, n in layout.inputs)
    alt = f"A matrix of {height} by {width} bits, {int(bits.sum())} of them 1: {parts}."
    return Picture(figure, alt)


def lives(module: str) -> Picture:
    """Draw when each buffer is live, and where it lies.

    Args:
        module: at allocate-shared-memory-nv.

    Returns:
        A rectangle for each buffer: operations from left to right, bytes upwards.
    """
    places = sharing.allocate(sharing.buffers(module))
    end, total = max(piece.end for piece in places), sharing.total(places)
    with style():
        figure = Drawing(figsize=(8, 3), layout="none")
        axes = figure.add_axes((0.08, 0.17, 0.91, 0.8))
        for number, (piece, at) in enumerate(places.items()):
            width = max(piece.end - piece.start, end / 200)
            axes.add_patch(
                Rectangle(
                    (piece.start, at / 1024), width, piece.size / 1024,
                    facecolor=FILLS[number % len(FILLS)], edgecolor=INK,
                )
            )  # fmt: skip
            # What is too low for its name has it above.
            low = piece.size < total / 30
            axes.text(
                piece.start + width / 2,
                (at + piece.size / (1 if low else 2) + low * total / 100) / 1024,
                _tile(module, piece.name), ha="center",
                va="bottom" if low else "center", color=INK,
            )  # fmt: skip
        axes.set_xlim(0, 1.03 * end)
        axes.set_ylim(0, total * 1.1 / 1024)
        axes.set_xlabel("operation")
        axes.set_ylabel("KiB")
    said = "; ".join(
        f"{piece.name} from {at} on, {piece.size} bytes, operations {piece.start} to "
        f"{piece.end - 1}"
        for piece, at in places.items()
    )
    return Picture(figure, f"Rectangles of buffers over time: {said}.")


def _tile(module: str, name: str) -> str:
    """Name a buffer by what it holds, such as "%a: 4 x 128 x 64 bf16"."""
    pattern = (
        rf"{re.escape(name)} = ttg\.local_alloc .*-> !ttg\.memdesc<([\dx]+)x(\w+),"
    )
    if found := re.search(pattern, module):
        sides, kind = found[1].replace("x", " x "), found[2]
        shown = f"{name}: " if name[1:].isalpha() else ""
        return f"{shown}{sides} {kind}"
    return name.split()[0]
