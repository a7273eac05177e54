"""Measuring where there is a GPU; reading the record where there is none."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tilebook import _worker, device

from . import provenance, records, registry, roofline, schema
from .bench import Bench, Progress
from .errors import RecordError
from .lock import gpu_alone
from .record import Record, Row
from .registry import Experiment
from .timing import LIVE, Budget, Timer, here

# Where somebody waits, a look at the ceilings that old (in seconds) is new enough.
RECENT = 60.0


def run(
    name: str, *, budget: Budget | None = None, progress: Progress = lambda what: None
) -> Record:
    """Measure an experiment on this machine's GPU, or read its record without one.

    Args:
        name: the experiment's name.
        budget: how much measuring is enough; that of a live build by default.
        progress: told what is being measured.

    Returns:
        A live record where the GPU has what the experiment needs, else a committed
        one. A record that this build left under ``$TILEBOOK_LIVE`` is taken as it is
        if GPU, software, protocol and code are still the same.

    Raises:
        UnknownExperiment: no chapter declares it.
        RecordError: there is no GPU for it and no record of it.
        WrongResult: an implementation computes something wrong.
    """
    experiment = registry.find(name)
    gpu = device.launch_device_type() == "cuda"
    _prepare(*(("compiled", "interpreted") if gpu else ("compiled",)))
    if not gpu or not device.has(experiment.needs):
        return records.load(name, gpu=next(iter(records.gpus(name)), None))
    with gpu_alone():
        kept = records.live_path(name)
        timer = here()
        if kept and kept.is_file() and _current(kept, experiment, timer):
            return records.read(kept, name, live=True)
        record = measure(experiment, timer, budget or LIVE, progress, attempts=1)
        if kept:
            schema.write(kept, record.data())
        return record


@functools.cache
def _prepare(*modes: _worker.Mode) -> None:
    """In a build, start the processes that later cells ask while this one is busy."""
    if os.environ.get("TILEBOOK_BUILD"):
        for mode in modes:
            _worker.warm(mode)


def record(
    name: str,
    *,
    budget: Budget | None = None,
    progress: Progress = lambda what: None,
    folder: Path | None = None,
) -> tuple[Record, Path]:
    """Measure an experiment and write its committed record.

    Args:
        name: the experiment's name.
        budget: how much measuring is enough.
        progress: told what is being measured.
        folder: holds one folder per GPU; the package's records by default.

    Returns:
        The record, and the file it was written to.

    Raises:
        HardwareError: the GPU isn't what the experiment needs.
        RecordError: what was measured can't be true; nothing is written.
        WrongResult: an implementation computes something wrong.
    """
    experiment = registry.find(name)
    device.require(experiment.needs)
    with gpu_alone():
        made = measure(experiment, here(), budget or Budget(), progress)
    problems = made.problems()
    if problems:
        lines = "\n  ".join(problems)
        raise RecordError(f"{name}: not written, for it can't be:\n  {lines}")
    path = (folder or records.RECORDS) / made.slug / f"{name}.json"
    schema.write(path, made.data())
    return made, path


def measure(
    experiment: Experiment,
    timer: Timer,
    budget: Budget,
    progress: Progress = lambda what: None,
    attempts: int = 2,
    seed: int | None = None,
) -> Record:
    """Run an experiment between two looks at the card's ceilings.

    Args:
        experiment: what to measure.
        timer: the device.
        budget: how much measuring is enough.
        progress: told what is being measured.
        attempts: runs at most; a ceiling that drifts by more than `roofline.DRIFT`
            asks for another, and the last one is kept with its drift on record.
        seed: of the inputs; fresh by default.

    Returns:
        A live record.

    Raises:
        RecordError: the experiment gave no rows, or rows that aren't of the form.
        WrongResult: an implementation computes something wrong.
    """
    began = time.monotonic()
    repeats = 0
    with gpu_alone():
        sitting = _sit(experiment, timer, budget, progress, seed)
        while sitting.drift > roofline.DRIFT and repeats + 1 < attempts:
            repeats += 1
            sitting = _sit(experiment, timer, budget, progress, seed)
    before, after = sitting.sensors
    data = {
        "experiment": experiment.name,
        "question": experiment.question,
        "rows": sitting.rows,
        "canary": {
            "open": _digits(sitting.opening),
            "close": _digits(sitting.closing),
            "drift": round(sitting.drift, 5),
            "repeats": repeats,
        },
        "provenance": _provenance(experiment, timer, budget)
        | {
            "clocks": {
                f"{k}_{when}": x[k]
                for when, x in (("before", before), ("after", after))
                for k in ("sm_mhz", "memory_mhz")
            },
            "power_limit_w": after["power_limit_w"],
            "temperature_c": after["temperature_c"],
            "peers": provenance.peers(row["impl"] for row in sitting.rows),
            "seed": sitting.seed,
            "seconds": round(time.monotonic() - began, 1),
        },
    }
    if not sitting.rows:
        raise RecordError(f"{experiment.name}: the experiment gave no rows")
    schema.check(data, experiment.name)
    return Record.of(data, live=True)


@dataclasses.dataclass(frozen=True)
class _Sitting:
    """One run of an experiment and the looks at the ceilings around it."""

    rows: list[Row]
    seed: int
    opening: dict[str, float]
    closing: dict[str, float]
    sensors: tuple[dict[str, float | None], dict[str, float | None]]

    @property
    def drift(self) -> float:
        return roofline.drift(self.opening, self.closing, self.rows)


class _Look(NamedTuple):
    """A look at the ceilings: whose, when, and what was seen."""

    timer: Timer
    when: float
    sensors: dict[str, float | None]
    ceilings: dict[str, float]


_last: _Look | None = None
"""The last one of this process: what closes one experiment may open the next."""


def _sit(
    experiment: Experiment,
    timer: Timer,
    budget: Budget,
    progress: Progress,
    seed: int | None,
) -> _Sitting:
    global _last
    known = budget.brief and _last is not None and _last.timer is timer
    if known and time.monotonic() - _last.when < RECENT:
        before, opening = _last.sensors, _last.ceilings
    else:
        progress(f"{experiment.name}: ceilings")
        before, opening = timer.sensors(), timer.ceilings()
    bench = Bench(
        experiment.op, timer=timer, budget=budget, progress=progress, seed=seed
    )
    rows = _rows(experiment.function, bench)
    progress(f"{experiment.name}: ceilings again")
    closing, after = timer.ceilings(), timer.sensors()
    _last = _Look(timer, time.monotonic(), after, closing)
    return _Sitting(rows, bench.seed, opening, closing, (before, after))


def _rows(function: Callable[[Bench], Any], bench: Bench) -> list[Row]:
    """Everything the bench gathered, and what the experiment returned besides."""
    returned = list(function(bench) or ())
    parts = (part if isinstance(part, list) else [part] for part in returned)
    flat = [row for part in parts for row in part]
    known = {id(row) for row in bench.rows}
    return [*bench.rows, *(row for row in flat if id(row) not in known)]


def _provenance(experiment: Experiment, timer: Timer, budget: Budget) -> dict[str, Any]:
    commit, dirty = provenance.commit()
    return (
        timer.provenance()
        | provenance.versions()
        | {
            "date": provenance.today(),
            "commit": commit,
            "dirty": dirty,
            "digest": experiment.digest(),
            "rounds": budget.rounds,
            "budget_s": budget.seconds,
            "protocol": schema.PROTOCOL,
        }
    )


def _current(path: Path, experiment: Experiment, timer: Timer) -> bool:
    """Whether measuring again would measure the same thing on the same machine."""
    try:
        then = records.read(path, experiment.name).provenance
    except RecordError:
        return False
    now = _provenance(experiment, timer, LIVE)
    same = ("gpu", "slug", "driver", "cuda", "torch", "triton", "protocol", "digest")
    return all(then[k] == now[k] for k in same)


def _digits(ceilings: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.6g}") for k, v in ceilings.items()}
