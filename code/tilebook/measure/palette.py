"""What figures are drawn with: colours, markers, and labels that keep clear."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("tilebook.mplstyle")

GREY = "#797979"
# Four that stay apart for every common colour-blindness, each at least 3.9:1 against
# white and against #121212. The first is for the implementation that matters most.
ACCENTS = ("#d4580c", "#2180c4", "#0d8a63", "#a462a8")
OUR_MARKERS = "oDP*hp8"
PEER_MARKERS = "s^vX<>"
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (2, 1.2)),
    (0, (7, 1.5, 1, 1.5)),
)


class Drawing(Figure):
    """A figure that a notebook shows once, as SVG in the book's style.

    One made by pyplot would be shown again when its cell ends, and other figures only
    where a notebook has set matplotlib up.
    """

    def _repr_svg_(self) -> str:
        with style(), io.StringIO() as file:
            self.savefig(file, format="svg", metadata={"Date": None})
            return file.getvalue()


class Look(NamedTuple):
    """How one implementation is drawn."""

    color: str
    marker: str
    dash: Any
    order: int


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the book's style inside this block."""
    with plt.style.context(STYLE):
        yield


def looks(impls: Sequence[tuple[str, bool]]) -> dict[str, Look]:
    """Give each implementation a look of its own.

    Args:
        impls: names in the order of the ladder, and whether they are this book's. The
            book's last one gets the accent colour, peers are grey.

    Returns:
        Look by name.
    """
    ours = [name for name, mine in impls if mine][::-1]
    peers = [name for name, mine in impls if not mine]
    found = {}
    for i, name in enumerate(peers):
        marker = PEER_MARKERS[i % len(PEER_MARKERS)]
        found[name] = Look(GREY, marker, DASHES[i % len(DASHES)], 2)
    for i, name in enumerate(ours):
        marker = OUR_MARKERS[i % len(OUR_MARKERS)]
        dash = DASHES[i // len(ACCENTS) % len(DASHES)]
        color = ACCENTS[i % len(ACCENTS)]
        found[name] = Look(color, marker, dash, 4 if i == 0 else 3)
    return found


_LIMIT = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}


def limit(axes: Axes, at: float, text: str, side: str = "left") -> None:
    """Draw a limit: a dashed line across the axes, named above one of its ends.

    Args:
        axes: where.
        at: the value, in data coordinates.
        text: what it is.
        side: "left" or "right", whichever end the curves leave free.
    """
    axes.axhline(at, **_LIMIT)
    left = side == "left"
    axes.annotate(
        text,
        (0 if left else 1, at),
        xycoords=("axes fraction", "data"),
        xytext=(4 if left else -4, 2),
        textcoords="offset points",
        ha=side,
        va="bottom",
        color=GREY,
        fontsize=9,
    )


def limits_across(axes: Axes, limits: Sequence[tuple[float, str]]) -> None:
    """Draw limits of horizontal bars: dashed lines named above their tops.

    Args:
        axes: where.
        limits: value and name of each. The highest is named to its right, the others
            to their left, so that two close ones keep clear.
    """
    highest = max((at for at, _ in limits), default=0)
    for at, text in limits:
        axes.axvline(at, **_LIMIT)
        right = at == highest and len(limits) > 1
        axes.annotate(
            text,
            (at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, 4),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom",
            color=GREY,
            fontsize=9,
        )


def end_labels(
    axes: Axes, ends: Iterable[tuple[float, float, str, str]], gap: float = 13
) -> None:
    """Name lines at their right ends, moved up or down to keep clear of one another.

    Args:
        axes: where; its limits must be final.
        ends: x and y of each line's last point, its name, its colour.
        gap: least distance between two names, in points.
    """
    scale = 72 / axes.figure.dpi
    spots = []
    for x, y, text, color in ends:
        height = axes.transData.transform((x, y))[1] * scale
        spots.append([height, height, x, y, text, color])
    spots.sort(key=lambda spot: spot[0])
    _spread(spots, gap)
    for placed, height, x, y, text, color in spots:
        moved = placed - height
        arrow = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkB": 4}
        arrow["relpos"] = (0, 0.5)
        axes.annotate(
            text,
            (x, y),
            xytext=(30, moved),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=10,
            fontweight="bold" if color != GREY else "normal",
            arrowprops=arrow,
            annotation_clip=False,
        )


def _spread(spots: list[list[Any]], gap: float) -> None:
    """Move sorted heights (item 0) apart by merging clusters, as little as can be."""
    clusters: list[tuple[float, int]] = []
    for spot in spots:
        middle, count = spot[0], 1
        while clusters:
            before, others = clusters[-1]
            if middle - before >= gap * (count + others) / 2:
                break
            clusters.pop()
            middle = (before * others + middle * count) / (others + count)
            count += others
        clusters.append((middle, count))
    heights = [
        middle + gap * (i - (count - 1) / 2)
        for middle, count in clusters
        for i in range(count)
    ]
    for spot, height in zip(spots, heights, strict=True):
        spot[0] = height
