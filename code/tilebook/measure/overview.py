"""Many records in one figure: a dot for each case, ahead of its peers or behind."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .errors import RecordError
from .palette import ACCENTS, GREY, Drawing, style
from .record import Ratio, Record

KINDS = {
    "ahead": {"marker": "o", "color": ACCENTS[0], "markeredgewidth": 0},
    "level": {"marker": "o", "color": GREY, "markerfacecolor": "none"},
    "behind": {"marker": "D", "color": ACCENTS[1], "markeredgewidth": 0},
}
"""What a case can be, and how its dot looks."""

_DOT = {"linestyle": "none", "markersize": 3.2, "alpha": 0.85, "zorder": 3}
_COLUMN = 1 / 45
"""Width of a column of dots, in doublings: what lies in one is stacked."""
_HALF = 0.36
"""How far a stack may reach from the middle of its line."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the figure.

    Attributes:
        label: what was measured, in a word or two.
        ratios: how many times as fast as the fastest peer, case by case.
    """

    label: str
    ratios: tuple[Ratio, ...]

    def counts(self) -> dict[str, int]:
        """How many cases there are of each of `KINDS`."""
        found = Counter(map(kind, self.ratios))
        return {name: found[name] for name in KINDS}


def kind(ratio: Ratio) -> str:
    """Say whether one is ahead of a peer, behind it, or level within the spread.

    Args:
        ratio: ours over the peer's, with the lowest and the highest of the rounds.

    Returns:
        One of `KINDS`.
    """
    if ratio.low > 1:
        return "ahead"
    return "behind" if ratio.high < 1 else "level"


def line_of(record: Record, impl: str, label: str) -> Line:
    """Hold an implementation against the fastest of all peers that a record has.

    Args:
        record: what was measured.
        impl: the implementation of this book in question.
        label: what the line is called.

    Returns:
        The line: every shape, dtype and regime.

    Raises:
        RecordError: the record has no such implementation, or no peer on some case.
    """
    peers = dict.fromkeys(row["impl"] for row in record.rows if not row["ours"])
    ratios = tuple(ratio for _, ratio in record.against(impl, *peers))
    if not ratios:
        raise RecordError(f"{record.name}: no row has impl={impl}")
    return Line(label, ratios)


def draw(lines: Sequence[Line]) -> Drawing:
    """Draw a dot for each case of each line, and how many there are of each kind.

    Args:
        lines: from top to bottom.

    Returns:
        The figure: to the right of 1 ours is the faster one, to the left a peer.

    Raises:
        ValueError: there is no line.
    """
    if not lines:
        raise ValueError("no line to draw")
    found = [ratio.median for line in lines for ratio in line.ratios]
    with style():
        figure = Drawing(figsize=(4.9, 0.7 + 0.48 * len(lines)))
        axes = figure.subplots()
        axes.grid(False)
        axes.axvline(1, color=GREY, linewidth=1.0, zorder=1)
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(*found, 0.9) / 1.08, max(*found, 1.1) * 1.08)
        axes.set_ylim(len(lines) - 0.5, -0.75)
        for y, line in enumerate(lines):
            _dots(axes, y, line)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        ends = math.ceil(math.log2(min(found))), math.floor(math.log2(max(found)))
        ticks = [2.0**e for e in range(min(ends[0], 0), max(ends[1], 0) + 1)]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
        axes.set_xlabel("times as fast as the fastest library on record", fontsize=10)
        _words(axes, lines)
    return figure


def _dots(axes: Axes, y: int, line: Line) -> None:
    """Draw the dots of one line, those of one column on top of one another."""
    columns: dict[int, list[Ratio]] = {}
    for ratio in sorted(line.ratios, key=lambda x: x.median):
        at = round(math.log2(ratio.median) / _COLUMN)
        columns.setdefault(at, []).append(ratio)
    step = min(0.1, 2 * _HALF / max(map(len, columns.values())))
    dots: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    for stack in columns.values():
        for i, ratio in enumerate(stack):
            up = step * (i - (len(stack) - 1) / 2)
            dots[kind(ratio)].append((ratio.median, y + up))
    for name, look in KINDS.items():
        if dots[name]:
            axes.plot(*zip(*dots[name], strict=True), label=name, **_DOT, **look)


def _words(axes: Axes, lines: Sequence[Line]) -> None:
    """Name each line at its left end, and to its right count its kinds."""
    places = dict(zip(KINDS, (40, 78, 122), strict=True))

    def write(text: str, y: float, right: float, color: str, size: int) -> None:
        axes.annotate(
            text,
            (1 if right else 0, y),
            xycoords=("axes fraction", "data"),
            xytext=(right, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=size,
            color=color,
            annotation_clip=False,
        )

    for y, line in enumerate(lines):
        write(line.label, y - 0.34, 0, GREY, 10)
        for name, count in line.counts().items():
            write(f"{count}", y, places[name], KINDS[name]["color"], 10)
    for name, right in places.items():
        write(name, -0.6, right, KINDS[name]["color"], 9)
