"""A sample measured again, where code changed and no time was meant to.

A record takes minutes of a GPU, and holds for the code that was measured. A change that
isn't meant to change a time, such as a refusal that is new, needs no new record if what
a live build measures, the experiment's brief cases, comes out as it did. The record
keeps its numbers and its date, and says what was confirmed, when, and by how many rows.
"""

import dataclasses
import statistics
from pathlib import Path

from tilebook import device

from . import records, registry, runner, schema
from .bench import Progress
from .errors import RecordError
from .lock import gpu_alone
from .record import Record, Row, same_case
from .timing import Budget, here

BESIDE = 0.03
"""How far a time may move against those of the same case, besides what rounds vary."""
AT_MOST = 0.1
"""How far any may move, at most: in all, and against those of the same case."""
ERRORS = 1.2
"""How many times its recorded error a result of ours may have."""
SYSTEM = ("gpu", "slug", "torch", "triton", "cuda", "protocol")
"""What has to be the same, of where a record comes from."""
OF_TIMING = {"sets", "cached", "host_bound"}
"""What rows say in `extra` of how they were timed; all else there has to be equal."""


def confirm(
    name: str,
    *,
    budget: Budget | None = None,
    progress: Progress = lambda what: None,
    folder: Path | None = None,
) -> tuple[Record, Path]:
    """Measure an experiment's brief cases, and note in its record that they agree.

    Args:
        name: the experiment's name.
        budget: how much measuring is enough; that of a record by default.
        progress: told what is being measured.
        folder: holds one folder per GPU; the package's records by default.

    Returns:
        The record, and the file it was written to.

    Raises:
        HardwareError: the GPU isn't what the experiment needs.
        RecordError: this GPU has no record of it, or one of other software, or a row
            moved. Nothing is written.
        WrongResult: an implementation computes something wrong.
    """
    experiment = registry.find(name)
    device.require(experiment.needs)
    with gpu_alone():
        timer = here()
        slug = timer.provenance()["slug"]
        path = (folder or records.RECORDS) / slug / f"{name}.json"
        kept = records.read(path, name, slug=slug)
        asked = dataclasses.replace(budget or Budget(), brief=True)
        made = runner.measure(experiment, timer, asked, progress)
    moved, problems = compare(kept, made)
    if problems:
        lines = "\n  ".join(problems)
        raise RecordError(f"{name}: not confirmed; record it again:\n  {lines}")
    now = made.provenance
    confirmed = {
        "date": now["date"],
        "commit": now["commit"],
        "driver": now["driver"],
        "digest": now["digest"],
        "rows": len(made.rows),
        "moved": round(moved, 4),
    }
    found = dataclasses.replace(kept, confirmed=confirmed)
    schema.write(path, found.data())
    return found, path


def compare(kept: Record, made: Record) -> tuple[float, list[str]]:
    """Hold a sample that was measured again against the record.

    Args:
        kept: the record.
        made: the same experiment, as it was measured now; some of the rows.

    Returns:
        How far the time moved of the row that moved most against others of its case,
        and what speaks against confirming the record.
    """
    problems = [
        f"{what} was {kept.provenance[what]}, is {made.provenance[what]}"
        for what in SYSTEM
        if kept.provenance[what] != made.provenance[what]
    ]
    pairs = []
    for row in made.rows:
        then = [r for r in kept.rows if r["impl"] == row["impl"] and same_case(r, row)]
        if len(then) != 1:
            problems.append(f"{_named(row)}: {len(then)} rows on record, not one")
        else:
            pairs.append((then[0], row))
    worst = 0.0
    for pair in pairs:
        then, now = pair
        alone = _moved(pair) / _common(pair, pairs)
        may = min(BESIDE + _spread(then) + _spread(now), AT_MOST)
        worst = max(worst, abs(alone - 1))
        if abs(alone - 1) > may:
            told = f"by {alone - 1:+.1%} against those beside it, may by {may:.1%}"
            problems.append(f"{_named(now)} moved {told}")
        if abs(_moved(pair) - 1) > AT_MOST:
            problems.append(f"{_named(now)} moved by {_moved(pair) - 1:+.1%} in all")
        was, is_ = (
            {k: v for k, v in row["extra"].items() if k not in OF_TIMING}
            for row in pair
        )
        if was != is_:
            problems.append(f"{_named(now)} had {was}, has {is_}")
        if now["ours"] and (then["relative_error"] or 0) * ERRORS < (
            now["relative_error"] or 0
        ):
            found = f"{then['relative_error']:.3g}, is {now['relative_error']:.3g}"
            problems.append(f"{_named(now)}: its error was {found}")
    return worst, problems


Pair = tuple[Row, Row]


def _moved(pair: Pair) -> float:
    then, now = pair
    return now["ms"] / then["ms"]


def _common(pair: Pair, pairs: list[Pair]) -> float:
    """How far the others of a case moved, as clocks do; if it has none, the others of
    the same regime."""
    others = [each for each in pairs if each is not pair]
    beside = [each for each in others if same_case(each[1], pair[1])]
    alike = [each for each in others if each[1]["regime"] == pair[1]["regime"]]
    found = [_moved(each) for each in beside or alike]
    return statistics.median(found) if found else 1.0


def _spread(row: Row) -> float:
    return (row["ms_high"] - row["ms_low"]) / 2 / row["ms"]


def _named(row: Row) -> str:
    sides = ", ".join(f"{k}={v}" for k, v in row["shape"].items())
    return f"{row['impl']} on {row['op']} {sides} {row['dtype']}, {row['regime']},"
