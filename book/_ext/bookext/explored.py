"""What each interactive figure is made of: data, a still picture, words and a table.

Data and pictures come from the package: the order of tiles from the function that its
kernels call, layouts by the rule that its tests hold against Triton, the recurrence
from its reference.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

DEPTHS = {(9, 9): 9, (6, 8): 4, (10, 7): 4, (16, 16): 8}
"""Rows and columns of tiles of C, and tiles along a row of A."""
PROGRAMS = {(9, 9): 9, (6, 8): 12, (10, 7): 10, (16, 16): 32}
"""How many run at a time, at first."""
GROUPS = (1, 2, 3, 4, 6, 8, 9, 16)
"""Rows in a strip, where there are as many."""
SHAPES = ((16, 16), (32, 32), (16, 64), (64, 64))
SIDES = (1, 2, 4, 8)
LANES = 32
WARPS = 8
ROW = (1.0, 3.0, 2.0, 0.0, 2.0, 1.0, 3.0, 2.0, 6.0, 5.0, 0.0, 1.0)
CHUNKS = (1, 2, 3, 4, 6, 12)

# What a picture looks like where the book's style sheet isn't, as in an EPUB.
PLAIN = {
    "cell": 'fill="#eceef0"',
    "need": 'fill="#1d5f8a"',
    "own": 'fill="#a84312"',
    "warp": 'fill="#f2d9cc"',
    "bar": 'fill="#a84312"',
    "now": 'fill="#eceef0"',
    "way": 'fill="none" stroke="#596168" stroke-width="0.07"',
    "way on": 'fill="none" stroke="#ffffff" stroke-width="0.09"',
    "thin": 'fill="none" stroke="#596168" stroke-width="0.06"',
    "thick": 'fill="none" stroke="#14171a" stroke-width="0.3"',
    "chosen": 'fill="none" stroke="#14171a" stroke-width="0.3"',
}
ANCHORS = {"name": "middle", "inside": "middle", "along": "start", "down": "end"}


class Explored(NamedTuple):
    """One interactive figure."""

    data: dict[str, Any]
    """What its script is given."""
    svg: str
    """The picture for who has no script."""
    words: str
    """What that shows."""
    rows: list[list[str]]
    """Numbers beside it; the first row is the head."""


def picture(width: float, height: float, parts: Iterable[str]) -> str:
    """Return a picture that says nothing itself: words stand beside it."""
    inside = "\n".join(parts)
    box = f'viewBox="0 0 {width:g} {height:g}" aria-hidden="true"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n{inside}\n</svg>'


def path(kind: str, d: str) -> str:
    """Return a path in one of the kinds of `PLAIN`."""
    return f'<path class="{kind}" {PLAIN[kind]} d="{d}"/>'


def text(kind: str, x: float, y: float, size: float, said: str) -> str:
    """Return a text; where it is anchored goes by its kind."""
    anchor = ANCHORS.get(kind, "start")
    at = f'x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
    ink = 'fill="#ffffff"' if kind == "inside" else 'fill="#14171a"'
    return f'<text class="{kind}" {ink} {at}>{said}</text>'


def squares(places: Iterable[tuple[float, float]], gap: float = 0.12) -> str:
    """Return squares at rows and columns, as one path."""
    side = f"{1 - gap:g}"
    return "".join(
        f"M{column + gap / 2:g} {row + gap / 2:g}h{side}v{side}h-{side}z"
        for row, column in places
    )


# The order of tiles


def panel(left: float, order: list[list[int]], depth: int, name: str) -> list[str]:
    """Draw A, B and C of a product of as many rows as columns, and its first wave."""
    side = max(row for row, _ in order) + 1
    now = order[:side]
    c, steps = depth + 1, range(depth)
    rows, columns = (sorted({place[axis] for place in now}) for axis in (0, 1))

    def at(x: float, y: float, places: Iterable[tuple[int, int]]) -> str:
        return squares((row + y, column + left + x) for row, column in places)

    def line(places: list[list[int]]) -> str:
        points = (f"{left + c + x + 0.5:g} {c + y + 0.5:g}" for y, x in places)
        return "M" + "L".join(points)

    top = 1.6
    parts = [
        path("cell", at(0, c, itertools.product(range(side), steps))),
        path("cell", at(c, 0, itertools.product(steps, range(side)))),
        path("cell", at(c, c, itertools.product(range(side), range(side)))),
        path("need", at(0, c, itertools.product(rows, steps))),
        path("need", at(c, 0, itertools.product(steps, columns))),
        path("own", at(c, c, ((row, column) for row, column in now))),
        path("way", line(order)),
        path("way on", line(now)),
        text("count", left, depth / 2, 2.2, str((len(rows) + len(columns)) * depth)),
        text("note", left, depth / 2 + 1.1, 0.85, "tiles read"),
        text("name", left + depth / 2, c + side + 1, 0.9, "A"),
        text("name", left + c + side / 2, c + side + 1, 0.9, "C"),
        text("name", left + depth + 0.4, 0.85, 0.9, "B"),
        text("note", left, -0.7, 1, name),
    ]
    return [f'<g transform="translate(0 {top})">', *parts, "</g>"]


def launch_orders(tiles: int = 9, group: int = 3) -> Explored:
    """Make the figure of launch orders.

    Args:
        tiles: rows and columns of C in the picture, one of `DEPTHS`.
        group: rows in a strip there.
    """
    from tilebook.tiling import orders

    grids = []
    for (rows, columns), depth in DEPTHS.items():
        groups = [group for group in GROUPS if group <= rows]
        numbered = [
            [int(row) * columns + int(column) for row, column in found]
            for found in (orders.order(rows, columns, group) for group in groups)
        ]
        grid = {"rows": rows, "columns": columns, "depth": depth, "groups": groups}
        grid |= {"programs": PROGRAMS[rows, columns], "orders": numbered}
        grids.append(grid)
    shape = (tiles, tiles)
    at, depth = list(DEPTHS).index(shape), DEPTHS[shape]
    programs = PROGRAMS[shape]

    parts, table = [], [["rows in a strip", "rows of A", "columns of B"]]
    table[0] += [f"tiles, first {programs} programs", "tiles, all waves added up"]
    for height in grids[at]["groups"]:
        waves = orders.waves(*shape, height, programs)
        total = sum(wave.tiles(depth) for wave in waves)
        counts = (height, *waves[0], waves[0].tiles(depth), total)
        table.append([f"{count:,}" for count in counts])
    for i, (height, name) in enumerate(
        ((1, "Row by row"), (group, f"Strips of {group}"))
    ):
        found = orders.order(*shape, height).tolist()
        parts += panel(i * (depth + tiles + 3), found, depth, name)
    plain, strips = (
        orders.waves(*shape, height, programs)[0].tiles(depth) for height in (1, group)
    )
    words = (
        f"Twice a product of {tiles} by {tiles} tiles, A at the left, B above, C "
        f"between them, with a line through C in the order of programs. The first "
        f"{programs} programs read {plain} different tiles of A and B row by row, and "
        f"{strips} in strips of {group} rows."
    )
    svg = picture(2 * (depth + tiles + 1) + 2, depth + tiles + 4, parts)
    return Explored({"grids": grids, "grid": at, "group": group}, svg, words, table)


# Layouts


def pairs(product: Callable[[int], bool]) -> list[list[int]]:
    """Return two powers of two whose product is as asked for, fewer rows first."""
    powers = [2**i for i in range(6)]
    return [[a, b] for a, b in itertools.product(powers, powers) if product(a * b)]


def choices() -> dict[str, list[list[int]]]:
    """Return what the figure offers for each list of a layout."""
    return {
        "size": [list(pair) for pair in itertools.product(SIDES, SIDES)],
        "lanes": pairs(lambda count: count == LANES),
        "warps": pairs(lambda count: count <= WARPS),
        "order": [[1, 0], [0, 1]],
    }


def runs(line: Any) -> Iterator[tuple[int, int]]:
    """Yield where each run of true values begins, and how long it is."""
    ends = np.flatnonzero(np.diff(np.pad(line.astype(int), 1)))
    for start, stop in ends.reshape(-1, 2).tolist():
        yield start, stop - start


def edges(owners: Any) -> str:
    """Return lines between neighbours that differ in a matrix, as a path."""
    below, beside = owners[1:] != owners[:-1], owners[:, 1:] != owners[:, :-1]
    along = (f"M{x} {y}h{n}" for y, line in enumerate(below, 1) for x, n in runs(line))
    down = (
        f"M{x} {y}v{n}" for x, line in enumerate(beside.T, 1) for y, n in runs(line)
    )
    return "".join([*along, *down])


def area(inside: Any) -> str:
    """Return the true elements of a matrix, as a path."""
    return "".join(
        f"M{x} {y}h{n}v1h-{n}z" for y, line in enumerate(inside) for x, n in runs(line)
    )


def layouts(element: tuple[int, int] = (5, 12)) -> Explored:
    """Make the figure of layouts.

    Args:
        element: the one that is shown first.
    """
    from tilebook.tiling import linear
    from tilebook.tiling.layouts import Blocked

    shape, layout = (64, 64), Blocked((1, 8), (4, 8), (4, 1), (1, 0))
    found = linear.bases(layout, shape)
    threads = layout.threads(shape)
    thread = int(threads[element])
    warp, lane = divmod(thread, LANES)
    held = [
        found.place(register, lane, warp)
        for register in range(2 ** len(found.register))
    ]
    data = {
        "shapes": SHAPES,
        "shape": shape,
        "choices": choices(),
        "layout": dict(zip(("size", "lanes", "warps", "order"), layout, strict=True)),
        "element": element,
    }
    rows, columns = shape
    row, column = element
    parts = [
        '<g transform="translate(5 4)">',
        path("cell", f"M0 0h{columns}v{rows}h-{columns}z"),
        path("warp", area(threads // LANES == warp)),
        path("own", area(threads == thread)),
        path("thin", edges(threads)),
        path("thick", f"{edges(threads // LANES)}M0 0h{columns}v{rows}h-{columns}z"),
        path("chosen", f"M{column} {row}h1v1h-1z"),
        *(text("along", at, -1, 2, str(at)) for at in range(0, columns, 16)),
        *(text("down", -1, at + 1.8, 2, str(at)) for at in range(0, rows, 16)),
        "</g>",
    ]
    lists = ", ".join(
        f"{name} = {list(value)}"
        for name, value in zip(
            ("sizePerThread", "threadsPerWarp", "warpsPerCTA", "order"),
            layout,
            strict=True,
        )
    )
    words = (
        f"A tile of {rows} by {columns} elements in the layout {lists}. Thin lines "
        f"part threads, thick ones warps. Element [{row}, {column}] is in register "
        f"{held.index(element)} of lane {lane} of warp {warp}, thread {thread}, whose "
        f"{len(held)} elements are filled."
    )
    most = max(map(len, found))
    table = [["number of", *(f"bit {bit}" for bit in range(most))]]
    for name, steps in found._asdict().items():
        told = [str(list(step)) for step in steps]
        table.append([name, *told, *[""] * (most - len(told))])
    return Explored(data, picture(columns + 6, rows + 5, parts), words, table)


# The online recurrence


def online_softmax(chunk: int = 4, high: float = 2.6) -> Explored:
    """Make the figure of the online recurrence.

    Args:
        chunk: numbers that are taken in at a time.
        high: of the largest term's bar in the picture.
    """
    from tilebook.softmax import recurrence

    lines = recurrence.trace(ROW, chunk).to_dict("records")
    parts = []
    for at, line in enumerate(lines):
        done = ROW[: (at + 1) * chunk]
        bars = ""
        for x, term in enumerate(done):
            size = high * math.exp(term - line["m"])
            bars += f"M{x + 0.14:g} {high:g}h.72v{-size:.3f}h-.72z"
        band = f"M{at * chunk} 0h{chunk}v{high + 1:g}h-{chunk}z"
        labels = (f"m = {line['m']:g}", f"d = {line['d']:.4g}")
        parts += [
            f'<g transform="translate(0 {at * (high + 1.5):g})">',
            path("now", band),
            path("bar", bars),
            path("thin", f"M0 {high:g}h{len(ROW)}"),
            *(
                text("name", x + 0.5, high + 0.75, 0.5, f"{n:g}")
                for x, n in enumerate(ROW)
            ),
            *(
                text("note", len(ROW) + 0.5, 0.8 + i, 0.6, x)
                for i, x in enumerate(labels)
            ),
            "</g>",
        ]
    last = max(i for i, line in enumerate(lines) if line["rescale"] < 1)
    words = (
        f"A row of {len(ROW)} numbers after each of {len(lines)} chunks, with a bar "
        f"e^(x - m) over each number taken in so far. Chunk {last + 1} brings a new "
        f"maximum, {lines[last]['m']:g}: the bars before it, and with them their sum, "
        f"are multiplied by {lines[last]['rescale']:.4f}."
    )
    table = [["chunk", "its largest", "rescale", "m", "d"]]
    for line in lines:
        told = (line["largest"], line["rescale"], line["m"])
        cells = [f"{line['chunk'] + 1:.0f}", *(f"{x:.4g}" for x in told)]
        table.append([*cells, f"{line['d']:.7g}"])
    whole = recurrence.trace(ROW, len(ROW)).iloc[0]
    table.append(["two passes", "", "", f"{whole['m']:g}", f"{whole['d']:.7g}"])
    data = {"row": ROW, "chunk": chunk, "chunks": CHUNKS, "most": 16}
    size = (len(ROW) + 4, len(lines) * (high + 1.5))
    return Explored(data, picture(*size, parts), words, table)


# The loop of specialised warps


def phases() -> Explored:
    """Make the figure of slots and barriers; see `phased.phases`."""
    from bookext import phased

    return phased.phases()


FIGURES: dict[str, Callable[[], Explored]] = {
    "launch-orders": functools.cache(launch_orders),
    "layouts": functools.cache(layouts),
    "online-softmax": functools.cache(online_softmax),
    "phases": functools.cache(phases),
}
