"""The chapter's curves, drawn from records."""

from tilebook import device
from tilebook.measure import Record, Roof
from tilebook.measure.palette import ACCENTS, GREY, Drawing, style
from tilebook.measure.panels import log_axis
from tilebook.memory import machine_conclusions


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


def flight(record: Record) -> Drawing:
    """Draw bandwidth against what is on its way, and what Little's law allows.

    Args:
        record: of `memory-occupancy`.

    Returns:
        A point for each way of launching, by loads of a thread, the law as a line: it
        rises with the bytes at the latency that the poorest point shows, up to the
        best bandwidth.
    """
    rows = machine_conclusions.flights(record)
    best = max(row["gbps"] for row in rows)
    ns = machine_conclusions.starved_ns(record)
    markers = dict(
        zip(sorted({r["shape"]["loads"] for r in rows}), "osD^v", strict=False)
    )
    with style():
        figure = Drawing(figsize=(7.2, 4.0))
        axes = figure.subplots()
        for loads, marker in markers.items():
            points = [
                (row["extra"]["kib"], row["gbps"])
                for row in rows
                if row["shape"]["loads"] == loads
            ]
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker=marker,
                color=ACCENTS[0],
                fillstyle="full" if loads == 1 else "none",
                label=f"{loads} load{'s' * (loads > 1)} a thread",
            )
        kib = [row["extra"]["kib"] for row in rows]
        sms = rows[0]["extra"]["sms"]
        # Half of what a copy moves is on its way in, the rest leaves at once.
        knee = best / 2 * ns / sms / 1024
        law = sorted({min(kib), min(knee, max(kib)), max(kib)})
        axes.plot(
            law,
            [min(best, best * each / knee) for each in law],
            color=GREY,
            linewidth=1.0,
            zorder=0,
        )
        axes.annotate(
            f"the law at {ns:,.0f} ns",
            (knee, best),
            xytext=(4, 5),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
        )
        log_axis(axes, kib)
        # On two logarithmic axes what is proportional is straight.
        axes.set_yscale("log")
        axes.set_ylim(0.8 * min(row["gbps"] for row in rows), 1.4 * best)
        ticks = [t for t in (100, 200, 500, 1000, 2000, 5000) if t < 1.4 * best]
        axes.set_yticks(ticks, [f"{t:,}" for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel("KiB of loads on their way to an SM")
        axes.set_ylabel("GB/s")
        axes.legend(loc="lower right", fontsize=9)
    return figure


def kinds(record: Record) -> Drawing:
    """Draw the bandwidth of each mix of reading and writing.

    Args:
        record: of `memory-roofline`.

    Returns:
        A bar for each, the datasheet's bandwidth as a line where it is known.
    """
    found = {
        "read alone": machine_conclusions.read_gbps(record),
        "two reads for a write": machine_conclusions.triad_gbps(record),
        "one read for a write": max(r["gbps"] for r in record.select(op="work")),
        "write alone": machine_conclusions.write_gbps(record),
    }
    with style():
        figure = Drawing(figsize=(7.2, 2.4))
        axes = figure.subplots()
        names = list(found)[::-1]
        bars = axes.barh(names, [found[name] for name in names], color=ACCENTS[0])
        axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=GREY, fontsize=9)
        sheet = device.DATASHEET.get(record.slug)
        most = max(found.values())
        if sheet:
            axes.axvline(
                sheet.hbm_gbps, color=GREY, linewidth=1.0, linestyle=(0, (4, 3))
            )
            most = sheet.hbm_gbps
        axes.set_xlim(0, 1.12 * most)
        axes.set_xlabel("GB/s")
    return figure


def atomics(record: Record) -> Drawing:
    """Draw how many additions a nanosecond brings, by the places they go to.

    Args:
        record: of `memory-latency`.

    Returns:
        A curve over the number of places.
    """
    rows = sorted(record.select(op="count"), key=lambda row: row["shape"]["places"])
    points = [(row["shape"]["places"], row["extra"]["adds_per_ns"]) for row in rows]
    with style():
        figure = Drawing(figsize=(7.2, 3.2))
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), color=ACCENTS[0], marker="o")
        log_axis(axes, [x for x, _ in points])
        axes.set_yscale("log")
        axes.set_xlabel("places")
        axes.set_ylabel("additions a nanosecond")
    return figure


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
