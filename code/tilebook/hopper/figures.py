"""The chapter's pictures: who does what when, as planned and as measured."""

import itertools
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tilebook import check
from tilebook.hopper.timeline import WHO
from tilebook.measure import Record
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.parallel.figures import FILLS, INK, Picture

OPERATIONS = 4096
"""That an SM's tensor cores do in a clock, in bfloat16."""
END = 1500
"""Clocks that the chapter takes the end of a tile of 128 by 256 for."""
FIRST, SECOND, PRODUCER = WHO
LANES = (PRODUCER, FIRST, SECOND)
"""From above."""
FILL = {"multiply": FILLS[0], "store": FILLS[1], "ask": FILLS[3]}
TILE = (128, 256)
"""Rows and columns that two groups share; in ping-pong each has half of the columns."""
AHEAD = 4
"""Chunks of 64 terms that the producer is ahead, at most."""


class Span(NamedTuple):
    """What somebody does for a tile, from when to when."""

    who: str
    """One of `LANES`."""
    what: str
    """A key of `FILL`."""
    tile: int
    """Which of the program's tiles, from 0."""
    begin: float
    """In clocks."""
    end: float
    """In clocks."""


def planned(name: str, k: int = 512, tiles: int = 4, end: int = END) -> list[Span]:
    """Lay out a schedule if tensor cores never wait for memory.

    Args:
        name: "cooperative", "folded" or "pingpong".
        k: terms of a sum.
        tiles: of 128 by 256, or twice as many of 128 by 128.
        end: clocks of the end of a tile of 128 by 256.

    Returns:
        What each does, in no order.

    Raises:
        ValueError: another name, or a number below 1.
    """
    for number, what in ((k, "k"), (tiles, "tiles"), (end, "end")):
        check.positive_int(number, what)
    whole = 2 * TILE[0] * TILE[1] * k / OPERATIONS
    early = AHEAD * whole * 64 / k
    spans = []
    if name == "pingpong":
        for tile in range(2 * tiles):
            who, begin = WHO[tile % 2], early + tile * whole / 2
            done = begin + whole / 2
            spans.append(Span(who, "multiply", tile, begin, done))
            spans.append(Span(who, "store", tile, done, done + end / 2))
            spans.append(_asked(tile, begin, done, early))
        return spans
    if name not in ("cooperative", "folded"):
        raise ValueError(f"no schedule is called {name!r}")
    each = whole + (end if name == "cooperative" else 0)
    for tile in range(tiles):
        begin = early + tile * each
        done = begin + whole
        for who in (FIRST, SECOND):
            spans.append(Span(who, "multiply", tile, begin, done))
            spans.append(Span(who, "store", tile, done, done + end))
        spans.append(_asked(tile, begin, done, early))
    return spans


def _asked(tile: int, begin: float, done: float, early: float) -> Span:
    return Span(PRODUCER, "ask", tile, max(begin - early, 0), done - early)


def busy(spans: Iterable[Span]) -> float:
    """Say what share of the time from the first product to the last somebody
    multiplies.

    Args:
        spans: of a schedule.
    """
    found = sorted((s.begin, s.end) for s in spans if s.what == "multiply")
    covered, until = 0.0, found[0][0]
    for begin, end in found:
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered / (until - found[0][0])


def hidden(spans: Iterable[Span]) -> float:
    """Say in what share of the time that stores take some group multiplies.

    Args:
        spans: of a schedule; stores after the last product don't count.
    """
    spans = list(spans)
    products = sorted((s.begin, s.end) for s in spans if s.what == "multiply")
    last = max(end for _, end in products)
    stores = [s for s in spans if s.what == "store" and s.end <= last]
    covered = 0.0
    for store in stores:
        until = store.begin
        for begin, end in products:
            first, end = max(begin, until), min(end, store.end)
            covered += max(0.0, end - first)
            until = max(until, end)
    total = sum(s.end - s.begin for s in stores)
    return covered / total if total else 0.0


def clocks(spans: Iterable[Span]) -> tuple[float, float]:
    """Say how long a group multiplies, and how long it doesn't between two tiles.

    Args:
        spans: of a schedule with at least two tiles to a group.

    Returns:
        Medians over tiles and groups but for a group's first: clocks from the first of
        a tile's products to the last, and from there to the next tile's first.
    """
    spans = [span for span in spans if span.what == "multiply"]
    products, ends = [], []
    for who in (FIRST, SECOND):
        mine = sorted((s.begin, s.end) for s in spans if s.who == who)
        products += [end - begin for begin, end in mine[1:]]
        ends += [after - end for (_, end), (after, _) in itertools.pairwise(mine)]
    return statistics.median(products), statistics.median(ends)


def measured(record: Record) -> dict[str, list[Span]]:
    """Read who did what when out of a record.

    Args:
        record: "hopper-timeline".

    Returns:
        Spans in clocks, by schedule. What `folded` notes as a store beside a tile is
        that of the tile before.
    """
    found: dict[str, list[Span]] = {}
    marks: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in record.rows:
        who, _, event = row["op"].partition(", ")
        key = (row["impl"], who, row["shape"]["turn"])
        marks.setdefault(key, {})[event] = row["extra"]["cycles"]
    for (name, who, turn), at in marks.items():
        spans = found.setdefault(name, [])
        if {"begun", "summed"} <= at.keys():
            what = "ask" if who == PRODUCER else "multiply"
            spans.append(Span(who, what, turn, at["begun"], at["summed"]))
        if {"storing", "stored"} <= at.keys():
            tile = turn - (name == "folded")
            if tile >= 0:
                spans.append(Span(who, "store", tile, at["storing"], at["stored"]))
    return found


def _lanes(axes: Axes, spans: Iterable[Span], until: float) -> None:
    """Draw a schedule: a lane for each, stores in the lower half of theirs."""
    for span in spans:
        if span.begin >= until:
            continue
        end = min(span.end, until)
        lane = LANES.index(span.who)
        top, height = lane + 0.12, 0.76
        if span.what != "ask":
            height = 0.38
            top += 0.38 * (span.what == "store")
        axes.add_patch(
            Rectangle(
                (span.begin, top), end - span.begin, height,
                facecolor=FILL[span.what], edgecolor=GREY, linewidth=0.6,
            )
        )  # fmt: skip
        if end - span.begin > until / 40:
            axes.text(
                (span.begin + end) / 2, top + height / 2, str(span.tile),
                ha="center", va="center", color=INK, fontsize=8,
            )  # fmt: skip
    axes.set_xlim(0, until)
    axes.set_ylim(len(LANES), 0)
    axes.set_yticks([lane + 0.5 for lane in range(len(LANES))], LANES)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def drawn(schedules: Mapping[str, list[Span]], until: float | None = None) -> Picture:
    """Draw schedules above one another, along one axis of clocks.

    Args:
        schedules: spans by name.
        until: clocks that are drawn; by default until all are done.
    """
    last = until or max(s.end for spans in schedules.values() for s in spans)
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 1.7 * len(schedules) + 0.5))
        panels = figure.subplots(len(schedules), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, spans) in zip(panels, schedules.items(), strict=True):
            _lanes(axes, spans, last)
            share, covered = busy(spans), hidden(spans)
            axes.set_title(f"{name}: products under way {share:.2f}", fontsize=10)
            told.append(
                f"{name}: somebody multiplies {share:.2f} of the time, and "
                f"{covered:.2f} of the time that stores take"
            )
        panels[-1].set_xlabel("clocks; upper bars multiply, lower bars store")
    alt = (
        "Lanes of the producer and two groups, with a bar for each thing that they do "
        "and its tile's number. " + "; ".join(told) + "."
    )
    return Picture(figure, alt)


def plans(k: int = 512, tiles: int = 4) -> Picture:
    """Draw the three schedules as they are meant to be.

    Args:
        k: terms of a sum.
        tiles: of 128 by 256.
    """
    names = ("cooperative", "folded", "pingpong")
    return drawn({name: planned(name, k, tiles) for name in names})


def timeline(record: Record) -> Picture:
    """Draw the three schedules as they were measured.

    Args:
        record: "hopper-timeline".
    """
    return drawn(measured(record))
