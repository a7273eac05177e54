"""Panels of lines over a dimension: what `plots` draws its larger figures from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tilebook import device

from . import roofline as roofs
from .palette import Drawing, Look, end_labels
from .record import Record, Row


def spread_of(row: Row, by: str) -> tuple[float, float, float]:
    """What is drawn of a row: median, low and high.

    Args:
        row: any.
        by: "gbps", "tflops", or "ms", which comes back in microseconds.

    Returns:
        The median, the lowest, the highest.
    """
    times = row["ms"], row["ms_low"], row["ms_high"]
    if by == "ms":
        return tuple(ms * 1e3 for ms in times)
    amount = row[by] * row["ms"]
    return row[by], amount / row["ms_high"], amount / row["ms_low"]


def limits_of(record: Record, by: str, dtype: str) -> list[tuple[float, str]]:
    """The limits of the card that a record was made on.

    Args:
        record: any.
        by: "gbps" or "tflops".
        dtype: of the operands, for the datasheet's rate.

    Returns:
        Value and name of each that is known.
    """
    best = roofs.measured(record.canary)
    sheet = device.DATASHEET.get(record.slug)
    if by == "gbps":
        peak = sheet.hbm_gbps if sheet else None
        found = [(best.gbps, f"a copy, {best.gbps:,.0f}")]
    else:
        peak = roofs.datasheet(record.slug, dtype)
        peak = peak.tflops if peak else None
        found = [(best.tflops, f"cuBLAS 8192³, {best.tflops:,.0f}")]
    return found + ([(peak, f"datasheet, {peak:,.0f}")] if peak else [])


def draw_lines(
    axes: Axes, rows: Sequence[Row], x: str, by: str, seen: dict[str, Look]
) -> None:
    """Draw a line per implementation, its spread as a band.

    Args:
        axes: where.
        rows: of one dtype.
        x: the dimension along the axis.
        by: "gbps", "tflops" or "ms".
        seen: look by implementation.
    """
    for name, look in seen.items():
        line = sorted(
            (row["shape"][x], *spread_of(row, by))
            for row in rows
            if row["impl"] == name
        )
        if not line:
            continue
        xs, ys, lows, highs = zip(*line, strict=True)
        axes.plot(
            xs,
            ys,
            color=look.color,
            marker=look.marker,
            linestyle=look.dash,
            zorder=look.order,
        )
        axes.fill_between(xs, lows, highs, color=look.color, alpha=0.15, linewidth=0)
    log_axis(axes, sorted({row["shape"][x] for row in rows}))


def name_ends(
    figure: Drawing,
    panels: Sequence[Axes],
    rows: Sequence[Row],
    x: str,
    by: str,
    dtypes: Sequence[str],
    seen: dict[str, Look],
) -> None:
    """Name the lines of the last panel where they end.

    Args:
        figure: what holds the panels.
        panels: one per dtype.
        rows: of all dtypes.
        x: the dimension along the axis.
        by: "gbps" or "tflops".
        dtypes: those of the panels.
        seen: look by implementation.
    """
    last = [row for row in rows if row["dtype"] == dtypes[-1]]
    ends = []
    for name, look in seen.items():
        line = [row for row in last if row["impl"] == name]
        if line:
            end = max(line, key=lambda row: row["shape"][x])
            ends.append((end["shape"][x], end[by], name, look.color))
    # Heights are known once the figure is laid out; the names then take their room.
    figure.draw_without_rendering()
    end_labels(panels[-1], ends)


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make an axis logarithmic, its ticks sizes that people say: 4 Ki, 64 Mi.

    Args:
        axes: where.
        values: what is drawn along it, in rising order.
    """
    low, high = (math.log2(v) for v in (values[0], values[-1]))
    step = max(1, math.ceil((high - low) / 4))
    ticks = [2**e for e in range(math.ceil(low - 0.01), math.floor(high) + 1, step)]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_binary()))


def _binary() -> Callable[[float, Any], str]:
    def text(value: float, _: Any = None) -> str:
        for power, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
            if value >= 2**power:
                return f"{value / 2**power:g} {unit}"
        return f"{value:g}"

    return text
