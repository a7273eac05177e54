"""Records as tables for a terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from . import records
from .record import Record, Row
from .registry import Experiment


def listing(found: Iterable[Experiment]) -> Table:
    """What can be measured, and where it has been.

    Args:
        found: experiments.

    Returns:
        A table, one line each.
    """
    table = Table("experiment", "question", "recorded on", box=None)
    for experiment in found:
        on = []
        for slug in records.gpus(experiment.name):
            moved = records.load(experiment.name, slug).stale()
            on.append(f"{slug} (older code)" if moved else slug)
        table.add_row(experiment.name, experiment.question, ", ".join(on) or "-")
    return table


def beside(record: Record, other: Record | None = None) -> RenderableType:
    """A record's rows, and another GPU's rows for the same cases beside them.

    Args:
        record: the one in question.
        other: a record of the same experiment.

    Returns:
        A table between the question and what measured it.
    """
    table = Table(box=None, caption_justify="left", header_style="bold")
    for name in ("op", "shape", "dtype", "regime", "implementation"):
        table.add_column(name, no_wrap=True)
    for shown in filter(None, (record, other)):
        for name in (shown.slug, "spread", "rate"):
            table.add_column(name, justify="right", no_wrap=True)
    if other:
        table.add_column("ratio", justify="right", no_wrap=True)
    theirs = {_case(row): row for row in other.rows} if other else {}
    for row in record.rows:
        size = " ".join(f"{k}={v}" for k, v in row["shape"].items())
        name = f"{row['impl']} *" if row["ours"] else row["impl"]
        cells = [row["op"], size, row["dtype"], row["regime"], name, *_figures(row)]
        if other:
            match = theirs.get(_case(row))
            cells += _figures(match) if match else ["-"] * 3
            cells.append(f"{match['ms'] / row['ms']:.2f}x" if match else "-")
        table.add_row(*cells)
    lines: list[RenderableType] = [f"{record.name}: {record.question}", table]
    lines.append("* this book's. Medians of rounds; spread is half their range.")
    lines += [ceilings(x) for x in filter(None, (record, other))]
    lines += [f"cannot be: {problem}" for problem in record.problems()]
    return Group(*lines)


def ceilings(record: Record) -> str:
    """What measured a record, and the ceilings around it.

    Args:
        record: any.

    Returns:
        Two lines.
    """
    ends = record.canary["open"], record.canary["close"]
    copy, read, rate = (
        " → ".join(f"{end[k]:,.0f}" for end in ends)
        for k in ("copy_gbps", "read_gbps", "matmul_tflops")
    )
    return (
        f"{record.stamp()}\n  ceilings there, before → after: copy {copy} GB/s, "
        f"read {read} GB/s, cuBLAS 8192³ {rate} TFLOP/s"
    )


def claims(record: Record, made: Iterable[Any]) -> Table:
    """What a chapter says of an experiment, and whether it holds for a record.

    Args:
        record: the record.
        made: the experiment's claims.

    Returns:
        A table, one line each.
    """
    broken = {claim.name: detail for claim, detail in record.broken_claims()}
    table = Table(f"on {record.slug}", "claim", "detail", box=None)
    for claim in made:
        holds = "holds" if claim.name not in broken else "DOES NOT HOLD"
        table.add_row(holds, claim.text, broken.get(claim.name, ""))
    return table


def _case(row: Row) -> tuple[Any, ...]:
    shape = tuple(sorted(row["shape"].items()))
    return row["op"], shape, row["dtype"], row["regime"], row["impl"]


def _figures(row: Row) -> list[str]:
    half = (row["ms_high"] - row["ms_low"]) / 2 / row["ms"]
    rate = "-"
    if row["tflops"] is not None and _by_arithmetic(row):
        rate = f"{row['tflops']:,.4g} TFLOP/s"
    elif row["gbps"] is not None:
        rate = f"{row['gbps']:,.4g} GB/s"
    return [duration(row["ms"]), f"±{half:.1%}", rate]


def _by_arithmetic(row: Row) -> bool:
    """Whether arithmetic says more of a row than traffic: over 50 FLOP a byte."""
    return row["bytes"] is None or row["flops"] > 50 * row["bytes"]


def duration(ms: float) -> str:
    """A time with a unit that suits it.

    Args:
        ms: milliseconds.

    Returns:
        Such as "12.3 µs".
    """
    if ms < 1:
        return f"{ms * 1e3:.3g} µs"
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1e3:.3g} s"
