"""The chapter's pictures: formats, who shares a scale, what is lost."""

import torch
from matplotlib.colors import ListedColormap

from tilebook.fp8 import formats, scaling
from tilebook.measure import Record
from tilebook.measure.palette import Drawing, looks, style
from tilebook.parallel.figures import FILLS, Picture

SHAPE = (256, 512)
"""Of the matrix whose groups are drawn."""
ADDED = ("fast", "precise", "_scaled_mm, fast", "_scaled_mm", "modelled, fast")
"""Ways to sum that are drawn, if they were measured."""


def numbers() -> Picture:
    """Draw every positive number of the formats with a sign."""
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 2.2))
        axes = figure.subplots()
        for at, format in enumerate(reversed(formats.FORMATS.values())):
            values = formats.table(format)[: format.largest_code + 1]
            values = values[values > 0].tolist()
            axes.plot(values, [at] * len(values), "|", color=FILLS[at], markersize=14)
            told.append(
                f"{format.name}: {len(values)} numbers from {min(values):g} to "
                f"{max(values):g}"
            )
        axes.set_xscale("log", base=2)
        axes.set_yticks(range(len(told)), [each.split(":")[0] for each in told])
        axes.set_ylim(-0.6, len(told) - 0.4)
    return Picture(figure, "Marks on a logarithmic axis. " + "; ".join(told) + ".")


def groups_of(granularity: str) -> torch.Tensor:
    """Number the groups that the elements of a matrix belong to.

    Args:
        granularity: one of `scaling.GRANULARITIES`.

    Returns:
        `SHAPE`, whole numbers as float32.
    """
    down, across = scaling.scale_shape(*SHAPE, granularity)
    scale = torch.arange(float(down * across)).view(down, across)
    # Two along a side get two colours, whatever their number.
    scale = scale // across + scale % across
    rows, columns, _ = scaling.GRANULARITIES[granularity]
    scale = scale.repeat_interleave(rows or SHAPE[0], 0)
    return scale.repeat_interleave(columns or SHAPE[1], 1)


def granularities() -> Picture:
    """Draw which elements of a matrix share a scale."""
    names = [*scaling.GRANULARITIES]
    with style():
        figure = Drawing(figsize=(7.2, 1.6))
        panels = figure.subplots(1, len(names))
        for axes, name in zip(panels, names, strict=True):
            # A corner is enough of groups as low as a row.
            corner = groups_of(name)[:16] if "128x" not in name else groups_of(name)
            colours = ListedColormap(FILLS[:2])
            axes.imshow(
                (corner % 2).numpy(), cmap=colours, aspect="auto", vmin=0, vmax=1
            )
            axes.set(xticks=[], yticks=[])
            down, across = scaling.scale_shape(*SHAPE, name)
            axes.set_title(f"{name}\n{down * across}", fontsize=9)
    counts = ", ".join(
        f"{name} {torch.tensor(scaling.scale_shape(*SHAPE, name)).prod()}"
        for name in names
    )
    alt = (
        "Five rectangles with stripes and squares of two colours, one for each group "
        f"of a matrix of {SHAPE[0]} by {SHAPE[1]}; of groups in a row the first 16 "
        f"rows. Scales: {counts}."
    )
    return Picture(figure, alt)


def outliers(record: Record) -> Picture:
    """Draw what the other columns lose where some are larger.

    Args:
        record: "fp8-error".
    """
    rows = record.select(op="outliers")
    names = list(dict.fromkeys(row["impl"] for row in rows))
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 3.2))
        axes = figure.subplots()
        ends = []
        for name, look in looks([(name, True) for name in names]).items():
            mine = [row for row in rows if row["impl"] == name]
            x = [row["shape"]["larger"] for row in mine]
            y = [row["extra"]["small"] for row in mine]
            axes.plot(x, y, color=look.color, marker=look.marker)
            ends.append((name, x[-1], y[-1], look.color))
            told.append(f"{name} {y[0]:.3f} to {y[-1]:.3f}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("how much larger one column in 512 is")
        axes.set_ylabel("relative error of the others")
        for name, x, y, colour in ends:
            axes.annotate(
                name, (x, y), (4, 0), textcoords="offset points", color=colour,
                va="center",
            )  # fmt: skip
        axes.margins(x=0.15)
    return Picture(figure, "Lines that rise to the right. " + "; ".join(told) + ".")


def growth(record: Record) -> Picture:
    """Draw how the error of a sum of positive terms grows with their number.

    Args:
        record: "fp8-accumulate".
    """
    rows = record.select(op="positive")
    names = [x for x in ADDED if any(row["impl"] == x for row in rows)]
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 3.2))
        axes = figure.subplots()
        shown = looks([(name, not name.startswith("_")) for name in names])
        for name, look in shown.items():
            mine = [row for row in rows if row["impl"] == name]
            x = [row["shape"]["k"] for row in mine]
            # Where nothing at all is lost there is no logarithm.
            y = [max(row["relative_error"], 2.0**-30) for row in mine]
            axes.plot(x, y, color=look.color, marker=look.marker, label=name)
            told.append(f"{name} {y[0]:.1e} to {y[-1]:.1e}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(xlabel="terms", ylabel="relative error")
        axes.legend(frameon=False, labelcolor="linecolor")
    return Picture(figure, "Lines over the terms of a sum. " + "; ".join(told) + ".")
