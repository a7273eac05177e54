"""Build the book: whole, or not at all.

Sphinx writes into a fresh folder that takes the place of ``_build/html`` only after a
build without a warning. So a page whose chapter is gone does not linger, and a build
that was killed leaves the last good site behind it and nothing for the next one to trip
over.
"""

import argparse
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def alone(build: Path) -> Iterator[bool]:
    """Keep other builds out of a folder for as long as this one runs.

    Args:
        build: The folder, made where it is missing.

    Yields:
        Whether the last build in it was killed before it ended.
    """
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another build to end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        running = build / ".running"
        killed = running.exists()
        running.touch()
        yield killed
        running.unlink()


def drop_torn(cache: Path) -> list[Path]:
    """Remove the notebooks that a killed build left half written in the cache.

    jupyter-cache makes a notebook's folder, then writes the file in it; it runs a
    chapter again when the folder is gone, but fails on an empty or a torn one.

    Args:
        cache: The folder of jupyter-cache.

    Returns:
        The folders removed.
    """
    torn = []
    for folder in sorted((cache / "executed").glob("*")):
        try:
            json.loads((folder / "base.ipynb").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder)
            torn.append(folder)
    return torn


def replace(new: Path, old: Path) -> None:
    """Put a folder in the place of another, which may be missing.

    Args:
        new: The folder to move.
        old: Where it goes; what stands there is removed.
    """
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def sphinx(source: Path, html: Path, doctrees: Path, jobs: str) -> int:
    """Run Sphinx over every page, with each warning an error.

    Args:
        source: The folder with conf.py.
        html: Where the pages go.
        doctrees: Where Sphinx keeps what it read.
        jobs: A number of processes, or "auto".

    Returns:
        Sphinx's exit status.
    """
    from sphinx.cmd.build import main

    strict = ["-E", "-n", "-W", "--keep-going"]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    return main(
        [*strict, *quiet, "-j", jobs, "-d", str(doctrees), str(source), str(html)]
    )


def build(source: Path, jobs: str = "auto", *, live: bool = False) -> int:
    """Build the book of a folder into its ``_build/html``.

    Args:
        source: The folder with conf.py.
        jobs: A number of processes, or "auto".
        live: Forget what earlier builds executed and measured.

    Returns:
        0, or Sphinx's exit status with the last good site left as it was.
    """
    folder = source / "_build"
    html, new = folder / "html", folder / "html.new"
    cache, doctrees = folder / ".jupyter_cache", folder / "doctrees"
    with alone(folder) as killed:
        if live:
            shutil.rmtree(cache, ignore_errors=True)
        elif killed:
            drop_torn(cache)
        for stale in (new, doctrees, folder / "jupyter_execute"):
            shutil.rmtree(stale, ignore_errors=True)
        status = sphinx(source, new, doctrees, jobs)
        if status == 0:
            replace(new, html)
    if status:
        print(f"The book did not build; what there is of it: {new}", file=sys.stderr)
    else:
        print(f"The book is built. Open {(html / 'index.html').as_uri()}")
    return status


def main() -> int:
    """Build a book as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=ROOT)
    parser.add_argument(
        "--jobs", default="auto", help="processes (default: one a core)"
    )
    parser.add_argument(
        "--live", action="store_true", help="execute and measure everything again"
    )
    options = parser.parse_args()
    return build(options.source.resolve(), options.jobs, live=options.live)


if __name__ == "__main__":
    sys.exit(main())
