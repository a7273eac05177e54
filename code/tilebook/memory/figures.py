"""The chapter's pictures: sectors and banks from real addresses, curves of records."""

import numpy as np
import torch
from matplotlib.patches import Rectangle

from tilebook import device, microscope
from tilebook.measure import Record, Roof
from tilebook.measure.palette import ACCENTS, GREY, Drawing, style
from tilebook.measure.panels import log_axis
from tilebook.memory import banks, machine_conclusions, strides

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
            axes.set_title(f"{name}: row {row}, column {column}", fontsize=9)
            axes.set_xlim(-0.1, size + 0.1)
            axes.set_ylim(size + 0.1, -0.1)
            axes.set_aspect("equal")
            axes.set_axis_off()
    return figure


def latency(record: Record) -> Drawing:
    """Draw how long a hop takes against the memory that the chain visits.

    Args:
        record: of `memory-latency`.

    Returns:
        A curve over the chain's bytes.
    """
    rows = record.select(op="chase")
    points = [(r["shape"]["nbytes"], r["extra"]["ns_per_hop"]) for r in rows]
    return _curve(points, "ns for each hop", "bytes visited", record)


def swept(record: Record) -> Drawing:
    """Draw the bandwidth of reading a working set again and again against its size.

    Args:
        record: of `memory-l2`.

    Returns:
        A curve over the working set's bytes, the driver's size of L2 marked.
    """
    rows = record.select(impl="sweep")
    points = [(r["shape"]["nbytes"], r["extra"]["swept_gbps"]) for r in rows]
    return _curve(points, "GB/s", "bytes read again and again", record)


def cores(record: Record) -> dict[str, Roof]:
    """The roofs of the ordinary cores: as measured, and the datasheet's.

    Args:
        record: of `memory-roofline`.

    Returns:
        Roofs by name, for `measure.plots.roofline`.
    """
    best = max(row["gbps"] for row in record.select(op="work"))
    found = {"measured": Roof(best, machine_conclusions.peak_tflops(record))}
    sheet = device.DATASHEET.get(record.slug)
    if sheet:
        found["datasheet"] = Roof(sheet.hbm_gbps, sheet.fp32)
    return found


def _curve(
    points: list[tuple[int, float]], unit: str, along: str, record: Record
) -> Drawing:
    points = sorted(points)
    with style():
        figure = Drawing(figsize=(7.2, 3.6))
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), color=ACCENTS[0], marker="o")
        log_axis(axes, [x for x, _ in points])
        l2 = record.provenance["l2_bytes"]
        axes.axvline(l2, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate(
            f"L2, {l2 / 2**20:.0f} MiB",
            (l2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            color=GREY,
            fontsize=9,
        )
        axes.set_ylim(0)
        axes.set_xlabel(along)
        axes.set_ylabel(unit)
    return figure


def _cell(x: float, y: float, fill: str) -> Rectangle:
    return Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=GREY, linewidth=0.4)


def _frame(x: float, y: float) -> Rectangle:
    return Rectangle((x, y), WORDS, 1, fill=False, edgecolor=GREY, linewidth=1.6)
