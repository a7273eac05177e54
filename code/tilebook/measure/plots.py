"""Figures of records, all in one style.

Ours in accent colours, peers in grey with markers and dashes of their own, limits as
thin dashed lines; lines are named where they end. Every function returns a matplotlib
figure that a notebook shows as it stands at the end of a cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.ticker import StrMethodFormatter

from . import roofline as roofs
from .errors import RecordError
from .palette import ACCENTS, GREY, Drawing, limit, limits_across, looks, style
from .panels import draw_lines, limits_of, log_axis, name_ends, spread_of
from .record import Record, Row, ratio, same_case
from .report import duration
from .roofline import Roof

UNITS = {"gbps": "GB/s", "tflops": "TFLOP/s", "ms": "µs"}
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def bandwidth(
    record: Record,
    *,
    x: str = "n",
    by: str = "gbps",
    limits: str = "left",
    like: Record | None = None,
    **wanted: Any,
) -> Drawing:
    """Draw a rate against a dimension, one panel per dtype, with the card's limits.

    Args:
        record: what was measured.
        x: the dimension along the logarithmic axis.
        by: "gbps" or "tflops".
        limits: the end at which the card's limits are named, "left" or "right".
        like: the record whose implementations share out colours and markers, so that
            figures of its parts look alike; by default what is drawn.
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
    seen = looks(_impls(like.rows if like else rows))
    with style():
        figure = Drawing(figsize=(7.2 if len(dtypes) == 1 else 9.6, 4.2))
        panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)
        top = max(row[by] for row in rows)
        for axes, dtype in zip(panels[0], dtypes, strict=True):
            mine = [row for row in rows if row["dtype"] == dtype]
            top = max(top, *(at for at, _ in limits_of(record, by, dtype)), 0)
            draw_lines(axes, mine, x, by, seen)
            for at, text in limits_of(record, by, dtype):
                limit(axes, at, text, limits)
            axes.set_title(DTYPES.get(dtype, dtype))
            axes.set_xlabel(x)
        panels[0][0].set_ylabel(UNITS[by])
        panels[0][0].set_ylim(0, top * 1.1)
        panels[0][0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
        name_ends(figure, panels[0], rows, x, by, dtypes, seen)
    return figure


def ladder(record: Record, *, by: str = "gbps", **wanted: Any) -> Drawing:
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
    with style(), rc_context({"axes.grid.axis": "x"}):
        figure = Drawing(figsize=(7.2, 0.9 + 0.42 * len(rows)))
        axes = figure.subplots()
        for i, row in enumerate(rows):
            middle, low, high = spread_of(row, by)
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
        limits = [] if by == "ms" else limits_of(record, by, rows[0]["dtype"])
        limits_across(axes, limits)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        highest = [spread_of(row, by)[2] for row in rows] + [at for at, _ in limits]
        axes.set_xlim(0, max(highest) * 1.02)
        axes.set_xlabel(UNITS[by])
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    return figure


def ratios(
    record: Record, ours: str, *, x: str = "n", peers: Sequence[str] = (), **wanted: Any
) -> Drawing:
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
        if row["impl"] == ours and peer["impl"] == name and same_case(row, peer)
    ]
    if not pairs:
        raise RecordError(f"{record.name}: no rows to compare {ours!r} with {names}")
    dtypes = list(dict.fromkeys(row["dtype"] for _, row, _ in pairs))
    markers = looks([(name, False) for name in names])
    with style():
        figure = Drawing(figsize=(7.2 if len(dtypes) == 1 else 9.6, 3.8))
        panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)
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
            log_axis(axes, sorted({row["shape"][x] for _, row, _ in pairs}))
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


def roofline(
    record: Record,
    *,
    dtype: str = "bfloat16",
    limits: Mapping[str, Roof] | None = None,
    **wanted: Any,
) -> Drawing:
    """Draw rows under the roofs: what the card was measured at, and its datasheet.

    Args:
        record: what was measured; rows without bytes or FLOP are left out.
        dtype: of the rows, and of the datasheet's rate.
        limits: roofs by name, "measured" the solid one; by default a copy's bandwidth
            with cuBLAS's rate, and the datasheet's for the matrix cores.
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
    if limits is None:
        limits = {"measured": roofs.measured(record.canary)}
        sheet = roofs.datasheet(record.slug, str(dtype).removeprefix("torch."))
        if sheet:
            limits["datasheet"] = sheet
    reach = [min(at) / 4, max(*at, *(4 * roof.ridge for roof in limits.values()))]
    with style(), rc_context({"axes.grid": True, "axes.grid.axis": "both"}):
        figure = Drawing()
        axes = figure.subplots()
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
