"""The chapter's pictures, each drawn from what a real launch touched."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tilebook import check, microscope
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.parallel.figures import FILLS, IDLE, INK, Picture
from tilebook.tiling import blur, by_hand, stencil, tiled


def _board(width: float, height: float) -> tuple[Drawing, Axes]:
    """Make a figure whose axes have square cells and no frame."""
    cell = min(0.45, 8.5 / width)
    figure = Drawing(figsize=(cell * width, cell * height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.1, width + 0.1)
    axes.set_ylim(height + 0.1, -0.1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure, axes


def _grid(
    axes: Axes,
    values: np.ndarray,
    left: float,
    top: float,
    title: str,
    text: Callable[[int], str] = str,
    fill: Callable[[int], str] | None = None,
) -> None:
    """Draw a matrix of numbers: a cell for each, coloured by it, named above."""
    rows, columns = values.shape
    size = 8 if max(rows, columns) <= 9 else 6
    for (i, j), value in np.ndenumerate(values):
        value = int(value)
        color = fill(value) if fill else FILLS[value % len(FILLS)]
        place = (left + j, top + i)
        axes.add_patch(Rectangle(place, 1, 1, facecolor=color, edgecolor=GREY))
        axes.text(
            left + j + 0.5, top + i + 0.5, text(value),
            ha="center", va="center", color=INK, fontsize=size,
        )  # fmt: skip
    axes.text(
        left + columns / 2, top - 0.4, title,
        ha="center", va="center", color=GREY, fontsize=8,
    )  # fmt: skip


def turned(m: int = 6, n: int = 8, block: int = 4) -> Picture:
    """Draw which program of `tiled` reads and which writes each element.

    Args:
        m: rows of the input.
        n: columns of the input.
        block: side of a tile, a power of two.

    Returns:
        Input and output side by side, the program's number in each cell.
    """
    check.positive_int(m, "m")
    x, out = torch.arange(m * n).view(m, n), torch.zeros(n, m, dtype=torch.int64)
    grid = (-(-m // block) * -(-n // block),)
    look = microscope.look(
        tiled.transpose_kernel, grid, x, out, m, n, n, 1,
        BLOCK_M=block, BLOCK_N=block, raise_error=True,
    )  # fmt: skip
    written = look.ownership("out_ptr")
    read = np.full((m, n), -1)
    for access in look.accesses:
        if access.argument == "x_ptr":
            read.reshape(-1)[access.touched()] = look.program(access.program)
    with style():
        figure, axes = _board(m + n + 2, max(m, n) + 1)
        _grid(axes, read, 0, 1, f"x ({m}, {n}), read by program")
        _grid(axes, written, n + 2, 1, f"out ({n}, {m}), written by program")
    alt = (
        f"Two matrices of cells, {m} by {n} and {n} by {m}, in tiles of {block} by "
        f"{block}. Program 1 reads {int((read == 1).sum())} elements in the upper row "
        f"of tiles of the first, and writes the mirrored tile of the second."
    )
    return Picture(figure, alt)


def hand(size: int = 6, block: int = 2, program: int = 5) -> Picture:
    """Draw what one program of a matrix product reads in each step.

    Args:
        size: side of the three matrices.
        block: side of a tile, a power of two.
        program: the one that is shown.

    Returns:
        A, B and C side by side; in A and B the step in which a block is read.
    """
    a, b, c = (torch.ones(size, size) for _ in range(3))
    tiles = -(-size // block)
    look = microscope.look(
        by_hand.matmul_kernel, (tiles * tiles,), a, b, c, size, size, size,
        BLOCK=block, GROUP=1, raise_error=True,
    )  # fmt: skip
    steps = {name: np.full((size, size), -1) for name in ("a_ptr", "b_ptr")}
    seen = dict.fromkeys(steps, 0)
    for access in look.accesses:
        if look.program(access.program) == program and access.argument in steps:
            steps[access.argument].reshape(-1)[access.touched()] = seen[access.argument]
            seen[access.argument] += 1
    own = np.where(look.ownership("c_ptr") == program, program, -1)

    def text(value: int) -> str:
        return "" if value < 0 else str(value)

    def fill(value: int) -> str:
        return IDLE if value < 0 else FILLS[value % len(FILLS)]

    with style():
        figure, axes = _board(3 * size + 2, size + 1)
        _grid(axes, steps["a_ptr"], 0, 1, "A, read in step", text, fill)
        _grid(axes, steps["b_ptr"], size + 1, 1, "B, read in step", text, fill)
        _grid(axes, own, 2 * size + 2, 1, "C, written by program", text, fill)
    row, column = divmod(program, tiles)
    alt = (
        f"Three matrices of {size} by {size} cells. Program {program} owns tile row "
        f"{row}, tile column {column} of C. In steps 0 to {seen['a_ptr'] - 1} it walks "
        f"along that row of A and down that column of B, a block of each per step."
    )
    return Picture(figure, alt)


def orders(tiles: int = 9, group: int = 3) -> Picture:
    """Draw two launch orders of a product, and what the first programs read.

    Args:
        tiles: blocks in a row and in a column of each matrix.
        group: rows of tiles in a strip of the second order.

    Returns:
        Two rows, row by row and in strips: A, B and C in blocks, with the number of
        programs that read each block and the program that writes it.
    """
    found = [by_hand.reads(tiles, g) for g in (1, group)]

    def shade(value: int) -> str:
        return IDLE if value <= 0 else FILLS[0]

    def owner(value: int) -> str:
        return IDLE if value < 0 else FILLS[1]

    def count(value: int) -> str:
        return "" if value <= 0 else str(value)

    def number(value: int) -> str:
        return "" if value < 0 else str(value)

    with style():
        figure, axes = _board(3 * tiles + 2, 2 * (tiles + 1.5))
        for at, (name, seen) in enumerate(
            zip(("row by row", f"strips of {group}"), found, strict=True)
        ):
            top = 1 + at * (tiles + 1.5)
            _grid(axes, seen.a, 0, top, f"A: {int((seen.a > 0).sum())} blocks",
                  count, shade)  # fmt: skip
            _grid(axes, seen.b, tiles + 1, top,
                  f"B: {int((seen.b > 0).sum())} blocks", count, shade)  # fmt: skip
            _grid(axes, seen.c, 2 * tiles + 2, top, f"C, {name}",
                  number, owner)  # fmt: skip
    alt = (
        f"The first {tiles} programs of a product of {tiles} by {tiles} blocks. Row by "
        f"row they own a row of C and read {found[0].blocks} blocks of A and B; in "
        f"strips of {group} rows they own a square and read {found[1].blocks}."
    )
    return Picture(figure, alt)


def halo(height: int = 8, width: int = 12, size: int = 3) -> Picture:
    """Draw how often one program of each stencil reads each pixel.

    Args:
        height: rows of the picture.
        width: columns of it.
        size: of the stencil, 3 or 5.

    Returns:
        Two pictures of counts: all neighbours loaded, and rows kept.
    """
    image = torch.zeros(height, width, dtype=torch.uint8)
    taps = {"RADIUS": size // 2, "WEIGHTS": blur.WEIGHTS[size], "BORDER": "zero"}
    found = []
    for kernel, tile in (
        (stencil.direct_kernel, {"BLOCK_H": 4, "BLOCK_W": 8}),
        (stencil.rows_kernel, {"ROWS": 4, "BLOCK_W": 8}),
    ):
        look = microscope.look(
            kernel, (1,), image, torch.zeros_like(image), height, width, width, 1,
            **taps, **tile, raise_error=True,
        )  # fmt: skip
        found.append(look.counts("x_ptr"))

    def fill(value: int) -> str:
        return IDLE if not value else FILLS[min(value, 5)]

    with style():
        figure, axes = _board(2 * width + 1, height + 1)
        _grid(axes, found[0], 0, 1, "direct: loads of each pixel", str, fill)
        _grid(axes, found[1], width + 1, 1, "rows: loads of each pixel", str, fill)
    alt = (
        f"Two pictures of {height} by {width} pixels, of which one program blurs 4 by "
        f"8. Loading every neighbour reads pixels up to {int(found[0].max())} times, "
        f"{int(found[0].sum())} loads in all; keeping rows reads them up to "
        f"{int(found[1].max())} times, {int(found[1].sum())} loads."
    )
    return Picture(figure, alt)
