"""Figures of records, all in one style.

Ours in accent colours, peers in grey with markers and dashes of their own, limits as
thin dashed lines; lines are named where they end. Every function returns a matplotlib
figure that isn't shown anywhere yet.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    NullLocator,
    StrMethodFormatter,
)

from tilebook import device

from . import roofline as roofs
from .errors import RecordError
from .palette import ACCENTS, GREY, Look, end_labels, limit, limits_across, looks, style
from .record import Record, Row, ratio
from .report import duration

UNITS = {"gbps": "GB/s", "tflops": "TFLOP/s", "ms": "µs"}
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def bandwidth(
    record: Record, *, x: str = "n", by: str = "gbps", **wanted: Any
) -> Figure:
    """Draw a rate against a dimension, one panel per dtype, with the card's limits.

    Args:
        record: what was measured.
        x: the dimension along the logarithmic axis.
        by: "gbps" or "tflops".
        **wanted: which rows (see `Record.select`); ``regime="steady"`` by default, and
            ``impls`` for some of the implementations in an order of your own.

    Returns:
        The figure.

    Raises:
        RecordError: no row is left.
    """
    impls = wanted.pop("impls", None)
    rows = _rows(record, impls, {"regime": "steady"} | wanted)
    rows = [row for row in rows if row[by] is not None]
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    seen = looks(_impls(rows))
    with style():
        figure, panels = plt.subplots(
            1,
            len(dtypes),
            sharey=True,
            squeeze=False,
            figsize=(7.2 if len(dtypes) == 1 else 9.6, 4.2),
        )
        top = max(row[by] for row in rows)
        for axes, dtype in zip(panels[0], dtypes, strict=True):
            mine = [row for row in rows if row["dtype"] == dtype]
            top = max(top, *(at for at, _ in _limits(record, by, dtype)), 0)
            _lines(axes, mine, x, by, seen)
            for at, text in _limits(record, by, dtype):
                limit(axes, at, text)
            axes.set_title(DTYPES.get(dtype, dtype))
            axes.set_xlabel(x)
        panels[0][0].set_ylabel(UNITS[by])
        panels[0][0].set_ylim(0, top * 1.1)
        panels[0][0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
        _name_ends(figure, panels[0], rows, x, by, dtypes, seen)
    return figure


def ladder(record: Record, *, by: str = "gbps", **wanted: Any) -> Figure:
    """Draw implementations of one case as bars, in the order of the record.

    Args:
        record: what was measured.
        by: "gbps", "tflops", or "ms" (drawn in µs).
        **wanted: which rows (see `Record.select`); one per implementation must be
            left. ``impls`` for some of them in an order of your own.

    Returns:
        The figure.

    Raises:
        RecordError: no row is left, or several of one implementation.
    """
    rows = _rows(record, wanted.pop("impls", None), wanted)
    names = [row["impl"] for row in rows]
    if len(set(names)) != len(names):
        raise RecordError(f"{record.name}: a ladder needs one row per implementation")
    ours = [row["impl"] for row in rows if row["ours"]]
    with style(), plt.rc_context({"axes.grid.axis": "x"}):
        figure, axes = plt.subplots(figsize=(7.2, 0.9 + 0.42 * len(rows)))
        for i, row in enumerate(rows):
            middle, low, high = _of(row, by)
            best = row["impl"] in ours[-1:]
            color = ACCENTS[0] if row["ours"] else GREY
            axes.barh(i, middle, height=0.62, color=color, alpha=1 if best else 0.7)
            axes.plot([low, high], [i, i], color=GREY, linewidth=1.2, zorder=3)
            axes.annotate(
                duration(row["ms"]) if by == "ms" else f"{middle:,.4g}",
                (1, i),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                fontweight="bold" if best else "normal",
                color=color,
                annotation_clip=False,
            )
        limits = [] if by == "ms" else _limits(record, by, rows[0]["dtype"])
        limits_across(axes, limits)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        highest = [_of(row, by)[2] for row in rows] + [at for at, _ in limits]
        axes.set_xlim(0, max(highest) * 1.02)
        axes.set_xlabel(UNITS[by])
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    return figure


def ratios(
    record: Record, ours: str, *, x: str = "n", peers: Sequence[str] = (), **wanted: Any
) -> Figure:
    """Draw how many times as fast as its peers an implementation is, with the spread.

    Args:
        record: what was measured.
        ours: the implementation in question.
        x: the dimension along the logarithmic axis.
        peers: whom to compare with; every peer by default.
        **wanted: which rows (see `Record.select`); ``regime="steady"`` by default.

    Returns:
        The figure: above 1 the implementation is faster. Whiskers span the rounds.

    Raises:
        RecordError: no row is left.
    """
    rows = _rows(record, None, {"regime": "steady"} | wanted)
    names = list(peers) or [name for name, mine in _impls(rows) if not mine]
    pairs = [
        (name, row, peer)
        for name in names
        for row in rows
        for peer in rows
        if row["impl"] == ours and peer["impl"] == name and _same_case(row, peer)
    ]
    if not pairs:
        raise RecordError(f"{record.name}: no rows to compare {ours!r} with {names}")
    dtypes = list(dict.fromkeys(row["dtype"] for _, row, _ in pairs))
    markers = looks([(name, False) for name in names])
    with style():
        figure, panels = plt.subplots(
            1,
            len(dtypes),
            sharey=True,
            squeeze=False,
            figsize=(7.2 if len(dtypes) == 1 else 9.6, 3.8),
        )
        for axes, dtype in zip(panels[0], dtypes, strict=True):
            axes.axhline(1, color=ACCENTS[0], linewidth=1.6, zorder=1)
            for i, name in enumerate(names):
                # Side by side, or the whiskers of two peers would cover each other.
                shift = 2 ** (0.22 * (i - (len(names) - 1) / 2))
                here = [p for p in pairs if p[0] == name and p[1]["dtype"] == dtype]
                found = [(row["shape"][x] * shift, ratio(row, p)) for _, row, p in here]
                axes.errorbar(
                    [at for at, _ in found],
                    [r.median for _, r in found],
                    yerr=[
                        [r.median - r.low for _, r in found],
                        [r.high - r.median for _, r in found],
                    ],
                    fmt=markers[name].marker,
                    color=GREY,
                    elinewidth=1.1,
                    label=name,
                )
            _log_axis(axes, sorted({row["shape"][x] for _, row, _ in pairs}))
            axes.set_title(DTYPES.get(dtype, dtype))
            axes.set_xlabel(x)
        low, high = panels[0][0].get_ylim()
        panels[0][0].set_ylim(min(low, 0.95), max(high, 1.05))
        panels[0][0].set_ylabel(f"{ours}: times as fast as its peers")
        figure.legend(
            *panels[0][0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(names),
            frameon=False,
            labelcolor=GREY,
        )
    return figure


def roofline(record: Record, *, dtype: str = "bfloat16", **wanted: Any) -> Figure:
    """Draw rows under the roofs: what the card was measured at, and its datasheet.

    Args:
        record: what was measured; rows without bytes or FLOP are left out.
        dtype: of the rows, and of the datasheet's rate.
        **wanted: which rows besides (see `Record.select`).

    Returns:
        The figure, both axes logarithmic.

    Raises:
        RecordError: no row is left.
    """
    rows = _rows(record, None, {"dtype": dtype} | wanted)
    rows = [row for row in rows if row["bytes"] and row["flops"]]
    if not rows:
        raise RecordError(f"{record.name}: no row has both bytes and FLOP")
    seen = looks(_impls(rows))
    at = [row["flops"] / row["bytes"] for row in rows]
    limits = {"measured": roofs.measured(record.canary)}
    sheet = roofs.datasheet(record.slug, str(dtype).removeprefix("torch."))
    if sheet:
        limits["datasheet"] = sheet
    reach = [min(at) / 4, max(*at, *(4 * roof.ridge for roof in limits.values()))]
    with style(), plt.rc_context({"axes.grid": True, "axes.grid.axis": "both"}):
        figure, axes = plt.subplots()
        for name, roof in limits.items():
            xs = [reach[0], roof.ridge, reach[1]]
            dash = "-" if name == "measured" else (0, (4, 3))
            ys = [roof.attainable(value) for value in xs]
            axes.plot(xs, ys, color=GREY, linewidth=1.3, linestyle=dash)
            axes.annotate(
                name,
                (reach[1], roof.tflops),
                xytext=(-2, 3 if name == "datasheet" else -4),
                textcoords="offset points",
                ha="right",
                va="bottom" if name == "datasheet" else "top",
                fontsize=9,
                color=GREY,
            )
        for name, look in seen.items():
            mine = [i for i, row in enumerate(rows) if row["impl"] == name]
            axes.plot(
                [at[i] for i in mine],
                [rows[i]["tflops"] for i in mine],
                linestyle="none",
                marker=look.marker,
                color=look.color,
                zorder=look.order,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("FLOP per byte of compulsory traffic")
        axes.set_ylabel(UNITS["tflops"])
        figure.legend(loc="outside right upper", frameon=False, labelcolor=GREY)
    return figure


def _rows(
    record: Record, impls: Sequence[str] | None, wanted: dict[str, Any]
) -> list[Row]:
    rows = record.select(**wanted)
    if impls is not None:
        rows = [row for name in impls for row in rows if row["impl"] == name]
    if not rows:
        raise RecordError(f"{record.name}: no row to draw among {wanted}")
    return rows


def _impls(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    return list(dict.fromkeys((row["impl"], row["ours"]) for row in rows))


def _same_case(a: Row, b: Row) -> bool:
    return all(a[k] == b[k] for k in ("op", "shape", "dtype", "regime"))


def _of(row: Row, by: str) -> tuple[float, float, float]:
    """A row's median, low and high in what is drawn."""
    times = row["ms"], row["ms_low"], row["ms_high"]
    if by == "ms":
        return tuple(ms * 1e3 for ms in times)
    amount = row[by] * row["ms"]
    return row[by], amount / row["ms_high"], amount / row["ms_low"]


def _limits(record: Record, by: str, dtype: str) -> list[tuple[float, str]]:
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


def _lines(
    axes: Axes, rows: Sequence[Row], x: str, by: str, seen: dict[str, Look]
) -> None:
    for name, look in seen.items():
        line = sorted(
            (row["shape"][x], *_of(row, by)) for row in rows if row["impl"] == name
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
    _log_axis(axes, sorted({row["shape"][x] for row in rows}))


def _name_ends(
    figure: Figure,
    panels: Sequence[Axes],
    rows: Sequence[Row],
    x: str,
    by: str,
    dtypes: Sequence[str],
    seen: dict[str, Look],
) -> None:
    """Name the lines of the last panel where they end."""
    last = [row for row in rows if row["dtype"] == dtypes[-1]]
    ends = []
    for name, look in seen.items():
        line = [row for row in last if row["impl"] == name]
        if line:
            end = max(line, key=lambda row: row["shape"][x])
            ends.append((end["shape"][x], end[by], name, look.color))
    # Heights are known once the figure is laid out; the names then take their room.
    figure.canvas.draw()
    end_labels(panels[-1], ends)


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis whose ticks are sizes that people say: 4 Ki, 64 Mi."""
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
