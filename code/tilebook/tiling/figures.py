"""The chapter's pictures, each drawn from what a real launch touched.

Numbers stand in the cells, so that no picture needs its colours to be told apart.
"""

import numpy as np
import torch

from tilebook import check, device, microscope
from tilebook.measure.palette import style
from tilebook.parallel.figures import FILLS, IDLE, Picture
from tilebook.tiling import blur, by_hand, grouped, indexed, layouts, stencil, tiled
from tilebook.tiling._cells import blank, board, frame, grid, idle
from tilebook.tiling.evidence import compiled


def ragged(m: int = 5, n: int = 6, stride: int = 8, block: int = 4) -> Picture:
    """Draw the offsets and the mask of the last tile of a slice.

    Args:
        m: rows of the slice.
        n: columns of it.
        stride: columns of the matrix that it is a slice of.
        block: side of a tile, a power of two.

    Returns:
        The matrix with the offset of each element and the tile's frame, and the tile
        with what each of its places loads.
    """
    whole = torch.arange(m * stride).view(m, stride)
    tiles = -(-m // block), -(-n // block)
    look = microscope.look(
        tiled.transpose_kernel,
        (tiles[0] * tiles[1],),
        *(whole[:, :n], torch.empty(n, m, dtype=torch.int64), m, n, stride, 1),
        **{"BLOCK_M": block, "BLOCK_N": block},
        raise_error=True,
    )
    load = next(
        a for a in reversed(look.accesses) if a.argument == "x_ptr" and a.op == "load"
    )
    top, left = (tiles[0] - 1) * block, (tiles[1] - 1) * block

    def inside(value: int) -> str:
        return FILLS[0] if value % stride < n else IDLE

    with style():
        figure, axes = board(stride + block + 2, m + block)
        grid(axes, whole.numpy(), 0, 1, "offsets in memory", fill=inside)
        frame(axes, left, 1 + top, block, block)
        grid(
            axes, load.elements, stride + 2, 1, "the last tile's offsets",
            fill=lambda _: FILLS[0], off=~load.mask,
        )  # fmt: skip
    loaded, below = int(load.mask.sum()), int((load.elements < m * stride).sum())
    alt = (
        f"A matrix of {m} by {stride} numbered elements; its first {n} columns are x. "
        f"A frame of {block} by {block} hangs over the lower right corner. Beside it "
        f"stand its offsets: {loaded} of {load.mask.size} are in x, the others are "
        f"hatched, though {below} are less than {m * stride}."
    )
    return Picture(figure, alt)


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
    tiles = (-(-m // block) * -(-n // block),)
    look = microscope.look(
        tiled.transpose_kernel, tiles, x, out, m, n, n, 1,
        BLOCK_M=block, BLOCK_N=block, raise_error=True,
    )  # fmt: skip
    written, read = look.ownership("out_ptr"), _readers(look, "x_ptr")
    with style():
        figure, axes = board(m + n + 2, max(m, n) + 1)
        grid(axes, read, 0, 1, f"x ({m}, {n}), read by program")
        grid(axes, written, n + 2, 1, f"out ({n}, {m}), written by program")
    alt = (
        f"Two matrices of cells, {m} by {n} and {n} by {m}, in tiles of {block} by "
        f"{block}. Program 1 reads {int((read == 1).sum())} elements in the upper row "
        f"of tiles of the first, and writes the mirrored tile of the second."
    )
    return Picture(figure, alt)


def _readers(look: microscope.Look, name: str) -> np.ndarray:
    """Which program loaded each element of a contiguous tensor last."""
    read = np.full(look.counts(name).shape, -1)
    for access in look.accesses:
        if access.argument == name and access.op == "load":
            read.reshape(-1)[access.touched()] = look.program(access.program)
    return read


def corner(size: int = 8) -> Picture:
    """Draw which thread holds what of `tiled`, from the compiler's own layouts.

    Args:
        size: rows and columns of the tile's corner that are drawn.

    Returns:
        Three squares with the thread's number in each cell: after the load, after
        `tl.trans`, and as the store wants it.
    """
    ttgir = compiled(tiled).ttgir
    (loaded,) = layouts.moved(ttgir, "tt.load", "i16")
    before, after = layouts.moved(ttgir, "ttg.convert_layout", "i16")
    shape = (tiled.BLOCK_M, tiled.BLOCK_N)
    shown = {
        "x, after the load": loaded.threads(shape),
        "after tl.trans": before.threads(shape[::-1]),
        "as it is stored": after.threads(shape[::-1]),
    }
    parts = [threads[:size, :size] for threads in shown.values()]
    known = np.unique(np.stack(parts)).tolist()

    def fill(thread: int) -> str:
        return FILLS[known.index(thread) % len(FILLS)]

    with style():
        figure, axes = board(3 * size + 2, size + 1, 0.36)
        for at, (title, part) in enumerate(zip(shown, parts, strict=True)):
            grid(axes, part, at * (size + 1), 1, title, fill=fill)
    alt = (
        f"Three squares of {size} by {size} cells, each with the number of a thread. "
        f"After the load every row is one thread's. Transposed, every column is. What "
        f"is stored is held by rows again: thread {parts[2][1, 0]} has the second."
    )
    return Picture(figure, alt)


def launch_orders(rows: int = 3, columns: int = 4, group: int = 2) -> Picture:
    """Draw which tile each program takes, row by row and in strips.

    Args:
        rows: of tiles.
        columns: of tiles.
        group: rows in a strip of the second order.

    Returns:
        Two boards of tiles, the program's number in each, the first half of the
        programs in another colour than the second.
    """
    found = {}
    for name, strip in (("row by row", 1), (f"strips of {group} rows", group)):
        x = torch.zeros(2 * rows, 2 * columns)
        look = microscope.look(
            grouped.transpose_kernel,
            (rows * columns,),
            *(x, torch.zeros_like(x).t().contiguous(), *x.shape, *x.stride()),
            **{"BLOCK_M": 2, "BLOCK_N": 2, "GROUP": strip},
            raise_error=True,
        )
        found[name] = _readers(look, "x_ptr")[::2, ::2]

    def fill(program: int) -> str:
        return FILLS[0] if program < rows * columns // 2 else FILLS[3]

    with style():
        figure, axes = board(2 * columns + 2, rows + 1, 0.6)
        for at, (name, order) in enumerate(found.items()):
            grid(axes, order, at * (columns + 2), 1, name, fill=fill)
    alt = (
        f"Two boards of {rows} by {columns} tiles with the numbers of programs. Row by "
        f"row, numbers run along each row. In strips of {group} they run down {group} "
        f"rows, then to the next column; the strip at the end has "
        f"{rows % group or group}."
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
    with style():
        figure, axes = board(3 * size + 2, size + 1)
        grid(axes, steps["a_ptr"], 0, 1, "A, read in step", blank, idle)
        grid(axes, steps["b_ptr"], size + 1, 1, "B, read in step", blank, idle)
        grid(axes, own, 2 * size + 2, 1, "C, written by program", blank, idle)
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

    with style():
        figure, axes = board(3 * tiles + 2, 2 * (tiles + 1.5))
        for at, (name, seen) in enumerate(
            zip(("row by row", f"strips of {group}"), found, strict=True)
        ):
            top = 1 + at * (tiles + 1.5)
            for side, (letter, counts) in enumerate((("A", seen.a), ("B", seen.b))):
                title = f"{letter}: {int((counts > 0).sum())} different blocks"
                grid(axes, counts, side * (tiles + 1), top, title, count, shade)
            grid(axes, seen.c, 2 * tiles + 2, top, f"C, {name}", blank, owner)
    alt = (
        f"The first {tiles} programs of a product of {tiles} by {tiles} blocks. Row by "
        f"row they own a row of C and read {found[0].blocks} different blocks of A and "
        f"B; in strips of {group} rows they own a square and read {found[1].blocks}."
    )
    return Picture(figure, alt)


def halo(tile: int = 4, size: int = 3) -> Picture:
    """Draw how often one program of each stencil reads each pixel.

    Args:
        tile: side of what a program blurs, a power of two.
        size: of the stencil, 3 or 5.

    Returns:
        Two pictures of counts, all neighbours loaded and rows kept, for the program
        in the middle of nine; its own pixels are framed.
    """
    side = 3 * tile
    image = torch.zeros(side, side, dtype=torch.uint8)
    taps = {"RADIUS": size // 2, "WEIGHTS": blur.WEIGHTS[size], "BORDER": "zero"}
    found = {}
    for name, kernel, blocks in (
        ("all neighbours loaded", stencil.direct_kernel, ("BLOCK_H", "BLOCK_W")),
        ("rows kept", stencil.rows_kernel, ("ROWS", "BLOCK_W")),
    ):
        look = microscope.look(
            kernel, (9,), image, torch.zeros_like(image), side, side, side, 1,
            blur.half(size),
            **taps, **dict.fromkeys(blocks, tile), raise_error=True,
        )  # fmt: skip
        counts = np.zeros(side * side, dtype=np.int64)
        for access in look.accesses:
            if access.argument == "x_ptr" and look.program(access.program) == 4:
                np.add.at(counts, access.touched(), 1)
        found[name] = counts.reshape(side, side)[
            tile - 2 : -tile + 2, tile - 2 : -tile + 2
        ]
    known = np.unique(np.stack(list(found.values()))).tolist()[1:]

    def fill(value: int) -> str:
        return FILLS[known.index(value)] if value else IDLE

    with style():
        figure, axes = board(2 * tile + 10, tile + 5)
        for at, (name, counts) in enumerate(found.items()):
            left = at * (tile + 6)
            grid(axes, counts, left, 1, name, fill=fill)
            frame(axes, left + 2, 3, tile, tile)
    direct, rows = found.values()
    alt = (
        f"Two pictures of pixels in whose middle one program blurs {tile} by {tile}, "
        f"framed. Loading every neighbour reads a pixel up to {int(direct.max())} "
        f"times, {int(direct.sum())} loads in all; keeping rows reads it up to "
        f"{int(rows.max())} times, {int(rows.sum())} loads. Both read {size // 2} "
        f"row or column more on each side of the frame."
    )
    return Picture(figure, alt)


def collision() -> Picture:
    """Draw a scatter in which several values are sent to one place.

    Returns:
        The rows of the source, coloured, the index, and the result, in which each
        value has its source row's colour and places that several wanted are hatched.
    """
    index = torch.tensor([[0, 1, 3, 1], [2, 1, 3, 0], [0, 3, 2, 1]])
    rows, columns = index.shape
    src = 10 * torch.arange(1, rows + 1)[:, None] + torch.arange(columns)
    empty = torch.full((4, columns), -1)
    there = (t.to(device.torch_device()) for t in (empty, index, src))
    empty, place, values = there
    out = indexed.scatter(empty, index=place, src=values, dim=0).cpu()
    wanted = np.zeros(out.shape, dtype=np.int64)
    np.add.at(wanted, (index.numpy(), np.arange(columns)[None, :]), 1)

    def fill(value: int) -> str:
        return IDLE if value < 0 else FILLS[value // 10 - 1]

    with style():
        figure, axes = board(3 * columns + 4, len(out) + 1)
        grid(axes, src.numpy(), 0, 1, "src", fill=fill)
        grid(axes, index.numpy(), columns + 2, 1, "row to go to", fill=lambda _: IDLE)
        grid(axes, out.numpy(), 2 * columns + 4, 1, "out", blank, fill, off=wanted > 1)
    alt = (
        f"{rows} rows of {columns} values, the row to which each is sent, and the "
        f"result of {len(out)} rows. {int((wanted > 1).sum())} places, hatched, were "
        f"wanted by several values of their column, and hold the lowest one's; "
        f"{int((wanted == 0).sum())} places stay empty."
    )
    return Picture(figure, alt)
