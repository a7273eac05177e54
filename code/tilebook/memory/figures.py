"""The chapter's pictures: places to scale, sectors and banks from real addresses.

The copy engine's ring is drawn from the kernel's own lines, run by a made-up clock.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tilebook import microscope
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.memory import banks, strides
from tilebook.memory.rehearsal import Step, rehearse

# Okabe and Ito's colours, light enough for black digits.
WANTED, CARRIED, IDLE = "#e69f00", "#f7dca6", "#d0d0d0"
INK = "#000000"
WORDS = strides.SECTOR // 4


def sectors(steps: tuple[int, ...] = (1, 2, 3, 8), lanes: int = 8) -> Drawing:
    """Draw which sectors are handed out for a few lanes of `pick_kernel`.

    Args:
        steps: strides, a row of the picture for each.
        lanes: how many elements are taken.

    Returns:
        One row of cells for each stride, a cell for each word of memory, sectors
        framed: what is wanted, what is carried along, and what stays.
    """
    reach = lanes * max(steps)
    x = torch.arange(reach, dtype=torch.float32)
    width = -(-reach // WORDS) * WORDS
    with style():
        figure = Drawing(figsize=(9, 0.75 * len(steps) + 0.3), layout="none")
        axes = figure.add_axes((0.09, 0.02, 0.9, 0.96))
        for row, step in enumerate(steps):
            look = microscope.look(
                strides.pick_kernel,
                (1,),
                *(x, torch.empty(lanes), lanes, step, 0),
                BLOCK=lanes,
                raise_error=True,
            )
            wanted = np.flatnonzero(look.counts("x_ptr"))
            carried = {int(word) // WORDS for word in wanted}
            for word in range(width):
                kind = WANTED if word in wanted else IDLE
                if kind == IDLE and word // WORDS in carried:
                    kind = CARRIED
                axes.add_patch(_cell(word, 1.5 * row, kind))
            for sector in range(width // WORDS):
                axes.add_patch(_frame(WORDS * sector, 1.5 * row))
            axes.text(
                -1,
                1.5 * row + 0.5,
                f"stride {step}",
                ha="right",
                va="center",
                color=GREY,
            )
        axes.set_xlim(0, width)
        axes.set_ylim(1.5 * len(steps), -0.3)
        axes.set_axis_off()
    return figure


def bank_of(size: int = 8) -> Drawing:
    """Draw in which bank each element of a tile's corner lies, for each layout.

    Args:
        size: rows and columns that are drawn.

    Returns:
        A grid for each of `banks.LAYOUTS`, the bank's number in each cell, the first
        column marked.
    """
    with style():
        figure = Drawing(figsize=(9, 3.4), layout="none")
        panels = figure.subplots(1, len(banks.LAYOUTS))
        for axes, (name, layout) in zip(panels, banks.LAYOUTS.items(), strict=True):
            for i in range(size):
                for j in range(size):
                    axes.add_patch(_cell(j, i, CARRIED if j else WANTED))
                    axes.text(
                        *(j + 0.5, i + 0.5, layout(i, j) % banks.BANKS),
                        ha="center",
                        va="center",
                        color=INK,
                        fontsize=7,
                    )
            row, column = banks.cycles(layout)
            axes.set_title(f"{name}: a row {row}, a column {column}", fontsize=9)
            axes.set_xlim(-0.1, size + 0.1)
            axes.set_ylim(size + 0.1, -0.1)
            axes.set_aspect("equal")
            axes.set_axis_off()
    return figure


KINDS = {"ask": CARRIED, "come": CARRIED, "send": WANTED, "leave": WANTED}


def ring(tiles: int = 6, stages: int = 4) -> Drawing:
    """Draw what a program of the copy engine's kernel does, and what the engine does.

    Args:
        tiles: that the program copies.
        stages: places in its ring.

    Returns:
        A row for the program's warp and one for each place, from left to right by the
        clock of `rehearsal`: the tile's number in each bar, and the four moments of
        the first tile numbered.
    """
    steps = rehearse(tiles, stages)
    first = {step.what: step for step in steps if step.tile == 0}
    until = max(step.end for step in steps)
    bottom = _PLACE + stages * _PITCH
    with style():
        figure = Drawing(figsize=(5.6, 0.23 * (bottom + 2.6)), layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        _say(axes, -0.6, 0.5, "one warp", fontweight="bold")
        _say(axes, -0.6, _PLACE - 0.8, "engine", fontweight="bold")
        for place in range(stages):
            _say(axes, -0.6, _PLACE + place * _PITCH + 0.5, f"place {place}")
        came = {step.tile: step for step in steps if step.what == "come"}
        for step in steps:
            top = 0.0
            if step.what in ("come", "leave"):
                top = _PLACE + step.place * _PITCH
            if step.what == "leave":
                here = came[step.tile].end
                axes.add_patch(_bar(here, top, step.start - here, IDLE))
            fill = KINDS.get(step.what, "none")
            axes.add_patch(_bar(step.start, top, step.end - step.start, fill))
            if fill != "none":
                middle = (step.start + step.end) / 2
                _say(axes, middle, top + 0.5, str(step.tile), ha="center", color=INK)
        _moments(axes, first["come"], first["leave"])
        _key(axes, bottom + 0.6)
        axes.set_xlim(-5.2, until + 0.2)
        axes.set_ylim(bottom + 2.0, -0.6)
        axes.set_axis_off()
    return figure


PLACES = {
    "registers": 132 * 256 * 2**10,
    "shared memory and L1": 132 * 256 * 2**10,
    "L2": 50 * 2**20,
    "memory": 80 * 10**9,
}
"""Bytes of each place on an H100, by {cite}`nvidia2022h100`."""


def scale() -> Drawing:
    """Draw the places of an H100's data, areas to scale.

    Returns:
        Squares side by side, and a part of the frame that the memory would need.
    """
    near = {name: size for name, size in PLACES.items() if name != "memory"}
    sides = {name: size**0.5 for name, size in near.items()}
    unit = max(sides.values())
    far = PLACES["memory"] ** 0.5 / unit
    with style():
        figure = Drawing(figsize=(9, 3.0), layout="none")
        axes = figure.add_axes((0.01, 0.02, 0.98, 0.96))
        left = 0.0
        for name, side in sides.items():
            side /= unit
            axes.add_patch(_box(left, 0, side, WANTED))
            axes.text(
                *(left + side / 2, -0.08),
                f"{name}\n{near[name] / 2**20:.0f} MiB",
                ha="center",
                va="top",
                color=GREY,
                fontsize=9,
            )
            left += side + 0.35
        # The corner of a square that would fill a wall.
        axes.plot([left, left, 8], [1.5, 0, 0], color=GREY, linewidth=1.6)
        axes.text(
            *(left + 0.15, 0.75),
            f"memory, 80 GB: a square\n{far:.0f} times as wide as that of L2",
            va="center",
            color=GREY,
            fontsize=9,
        )
        axes.set_xlim(-0.1, 8)
        axes.set_ylim(-0.65, 1.5)
        axes.set_aspect("equal")
        axes.set_axis_off()
    return figure


def _box(x: float, y: float, side: float, fill: str) -> Rectangle:
    return Rectangle((x, y), side, side, facecolor=fill, edgecolor=GREY, linewidth=0.6)


_PLACE, _PITCH = 2.8, 1.3
"""Where the first place of the ring is drawn, and how far down the next."""


def _bar(x: float, y: float, width: float, fill: str) -> Rectangle:
    return Rectangle((x, y), width, 1, facecolor=fill, edgecolor=GREY, linewidth=0.8)


def _say(axes: Axes, x: float, y: float, text: str, **kind: object) -> None:
    kind = {"ha": "right", "va": "center", "color": GREY, "fontsize": 9} | kind
    axes.text(x, y, text, **kind)


def _moments(axes: Axes, came: Step, left: Step) -> None:
    """Number when the warp asks for a tile, has it, sends it on, and is rid of it."""
    warp, place = 1.0, _PLACE + came.place * _PITCH
    for number, (at, tail, head, side) in enumerate(
        (
            (came.start, warp, place, 0.5),
            (came.end, place, warp, -0.5),
            (left.start, warp, place, 0.5),
            (left.end, place, warp, 0.5),
        ),
        start=1,
    ):
        arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 1.4}
        arrow |= {"shrinkA": 1, "shrinkB": 1}
        axes.annotate("", (at, head), (at, tail), arrowprops=arrow)
        _say(axes, at + side, 1.8, str(number), ha="center")


def _key(axes: Axes, y: float) -> None:
    """Say what the bars' colours mean, side by side."""
    left = -4.0
    for fill, text, room in (
        (CARRIED, "asked for, comes", 9.8),
        (IDLE, "there", 5.0),
        (WANTED, "sent on, leaves", 9.2),
        ("none", "waits", 0.0),
    ):
        axes.add_patch(_bar(left, y, 1, fill))
        _say(axes, left + 1.4, y + 0.5, text, ha="left")
        left += room


def _cell(x: float, y: float, fill: str) -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=GREY, linewidth=0.4)


def _frame(x: float, y: float) -> Rectangle:
    return Rectangle((x, y), WORDS, 1, fill=False, edgecolor=GREY, linewidth=1.6)
