"""Measure this machine's GPU, or read what others measured.

python -m tilebook.measure --list
python -m tilebook.measure parallel-add
python -m tilebook.measure --record --only parallel
"""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tilebook import device

from . import records, registry, report, runner
from .bench import Progress as Tell
from .confirm import confirm
from .errors import RecordError, TimingError, UnknownExperiment, WrongResult
from .record import Record
from .timing import Budget

# What a reader may cause or meet; anything else is a fault and shows its traceback.
EXPECTED = (RecordError, TimingError, UnknownExperiment, WrongResult)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; the process's own by default.

    Returns:
        0 if all went well; 1 if an experiment failed, is unknown or has no record, or
        if, with ``--claims``, a claim doesn't hold; 2 if the arguments make no sense.
    """
    asked = _parser().parse_args(argv)
    # A table cut to the width of a pipe would lose columns.
    width = max(shutil.get_terminal_size().columns, 160)
    out = Console(width=width, markup=False, highlight=False)
    err = Console(stderr=True, markup=False, highlight=False)
    if asked.list:
        out.print(report.listing(registry.experiments()))
        return 0
    try:
        names = _names(asked.names, asked.only)
    except UnknownExperiment as error:
        err.print(f"error: {error}")
        return 1
    for what in ("record", "confirm"):
        if getattr(asked, what) and not device.has("gpu"):
            err.print(f"error: --{what} measures, and there is no GPU here")
            return 2
    failed = 0
    with _bar(err) as bar:
        task = bar.add_task("", total=len(names))

        def tell(what: str) -> None:
            bar.update(task, description=escape(what))

        for name in names:
            try:
                failed += _one(name, asked, out, tell)
            except EXPECTED as error:
                err.print(f"error: {error}")
                failed += 1
            bar.advance(task)
    return int(failed > 0)


def _one(name: str, asked: argparse.Namespace, out: Console, tell: Tell) -> int:
    budget = Budget()
    changes = {"rounds": asked.rounds, "seconds": asked.budget}
    budget = dataclasses.replace(
        budget, **{k: v for k, v in changes.items() if v is not None}
    )
    if asked.record:
        shown, path = runner.record(name, budget=budget, progress=tell)
        out.print(f"wrote {path}")
    elif asked.confirm:
        shown, path = confirm(name, budget=budget, progress=tell)
        out.print(f"wrote {path}\n{shown.stamp()}")
        return 0
    else:
        shown = runner.run(name, budget=budget, progress=tell)
    other = _other(shown) if shown.live else None
    if not shown.live:
        out.print("No GPU here that this needs: these are the recorded figures.")
    out.print(report.beside(shown, other))
    if not asked.claims:
        return 0
    out.print(report.claims(shown, registry.claims(name)))
    return len(shown.broken_claims())


def _other(record: Record) -> Record | None:
    """The committed record to compare a live one with: this kind of GPU's at best."""
    recorded = records.gpus(record.name)
    slugs = [record.slug] if record.slug in recorded else recorded
    return records.load(record.name, slugs[0]) if slugs else None


def _names(names: Sequence[str], only: str | None) -> list[str]:
    if names:
        return [registry.find(name).name for name in names]
    found = [e.name for e in registry.experiments() if e.name.startswith(only or "")]
    if not found:
        raise UnknownExperiment(f"no experiment's name begins with {only!r}")
    return found


def _bar(console: Console) -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.completed}/{task.total}")
    what = TextColumn("{task.description}")
    return Progress(
        *columns, TimeElapsedColumn(), what, console=console, transient=True
    )


def _positive(text: str) -> int:
    """Read a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tilebook.measure",
        description="Measure the book's experiments on this machine's GPU and print "
        "them beside the recorded ones; without a GPU, print the recorded ones.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--only", metavar="PREFIX", help="those that begin so")
    write = parser.add_mutually_exclusive_group()
    write.add_argument("--record", action="store_true", help="write committed records")
    write.add_argument(
        "--confirm",
        action="store_true",
        help="after a change that isn't meant to change a time, measure a sample of "
        "them again and note that it agrees",
    )
    parser.add_argument("--claims", action="store_true", help="judge the book's claims")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds per case")
    parser.add_argument(
        "--budget", type=float, metavar="S", help="seconds per timing in a round"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
