"""Measure how fast the site loads, what it weighs, and how long builds take.

    python tools/site_speed.py                  # the built site, in headless Chromium
    python tools/site_speed.py --build          # and builds, in a copy of the tree
    python tools/site_speed.py --build --live   # and a live build, on a GPU
    python tools/site_speed.py --check          # exit 1 if a target is missed

A page is loaded from a server on this machine with an empty cache. Like most hosts, the
server compresses text; what a page weighs is what came over the wire, and what that is
unpacked stands beside it. Times are medians; nothing else should run meanwhile, so the
load of the machine is noted before and after.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from page_loads import KINDS, Visit, chromium, pages, served, visit
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
# What a copy of the tree doesn't take along: what was built, and environments.
LEFT = shutil.ignore_patterns(
    "_build", ".git", ".venv", ".whl", "*.egg-info", "__pycache__", ".*_cache"
)


@dataclass(frozen=True)
class Target:
    """A limit that a measurement should stay under, in its unit."""

    name: str
    limit: float
    unit: str


TARGETS = {
    target.name: target
    for target in (
        Target("front page, loaded", 1.5, "s"),
        Target("front page, weight", 1.5, "MB"),
        Target("largest chapter, loaded", 1.5, "s"),
        Target("largest chapter, weight", 1.5, "MB"),
        Target("cold build", 360, "s"),
        Target("unchanged build", 8, "s"),
        Target("build of one chapter", 40, "s"),
        Target("live build", 540, "s"),
    )
}


def builds(live: bool, run: Callable[[Path, bool], float]) -> dict[str, float]:
    """Time builds in a copy of the tree that no build has seen.

    Args:
        live: time a live build as well.
        run: builds the book of a folder, live or not, and says in how many seconds.

    Returns:
        Target's name -> seconds.
    """
    with tempfile.TemporaryDirectory(prefix="site-speed-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=LEFT)
        taken = {"cold build": run(tree, False), "unchanged build": run(tree, False)}
        largest = max(tree.glob("chapters/*.md"), key=lambda path: path.stat().st_size)
        with largest.open("a", encoding="utf-8") as page:
            page.write("\nA sentence more, to be timed.\n")
        taken["build of one chapter"] = run(tree, False)
        if live:
            taken["live build"] = run(tree, True)
    return taken


def timed_build(tree: Path, live: bool) -> float:
    """Build the book of a folder in this environment, with caches of its own.

    Raises:
        subprocess.CalledProcessError: it did not build.
    """
    places = {"PYTHONPATH": f"{tree / 'code'}:{os.environ.get('PYTHONPATH', '')}"}
    places |= {"TRITON_CACHE_DIR": f"{tree.parent / 'triton'}"}
    places |= {"TORCHINDUCTOR_CACHE_DIR": f"{tree.parent / 'inductor'}"}
    command = [
        sys.executable,
        "tools/build_book.py",
        "--jobs",
        "1" if gpus() else "auto",
    ]
    began = time.monotonic()
    subprocess.run(
        [*command, *(["--live"] if live else [])],
        cwd=tree,
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


def gpus() -> str:
    """Return the names of this machine's NVIDIA cards; empty for none."""
    ask = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def values(found: dict[str, Visit], taken: dict[str, float]) -> dict[str, float]:
    """Return what was measured by the targets' names, in their units."""
    result = {}
    names = ("front page", "largest chapter")
    for name, one in zip(names, found.values(), strict=False):
        result[f"{name}, loaded"] = one.ready
        result[f"{name}, weight"] = one.weight / 1e6
    return result | taken


def missed(measured: dict[str, float]) -> list[str]:
    """Return the names of the targets that don't hold; what wasn't measured holds."""
    return [name for name, x in measured.items() if x >= TARGETS[name].limit]


def tables(found: dict[str, Visit], measured: dict[str, float]) -> list[Table]:
    """Return a table of the targets, and one of what the pages are made of."""
    first = Table("", "measured", "target", "", title="Against the targets")
    for name, value in measured.items():
        target = TARGETS[name]
        verdict = "MISSED" if name in missed({name: value}) else "holds"
        unit = target.unit
        first.add_row(
            name, f"{value:.2f} {unit}", f"< {target.limit:g} {unit}", verdict
        )
    second = Table("kB sent (unpacked)", *found, title="What the pages are made of")
    for kind in (*KINDS, "Other"):
        cells = [
            f"{x.sent[kind] / 1e3:.0f} ({x.unpacked[kind] / 1e3:.0f})"
            for x in found.values()
        ]
        second.add_row(kind, *cells)
    sums = [
        f"{x.weight / 1e3:.0f} ({sum(x.unpacked.values()) / 1e3:.0f})"
        for x in found.values()
    ]
    second.add_row("all", *sums)
    second.add_row("requests", *(f"{x.requests}" for x in found.values()))
    second.add_row("load event", *(f"{x.loaded:.2f} s" for x in found.values()))
    formulas = [x.typeset for x in found.values()]
    second.add_row(
        "last formula", *("none" if x is None else f"{x:.2f} s" for x in formulas)
    )
    return [first, second]


def machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the site."""
    names = ("sphinx", "myst-nb", "sphinx-book-theme", "playwright", "triton", "torch")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--site", type=Path, default=ROOT / "_build" / "html", help="the built site")
    add("--times", type=int, default=5, help="loads of each page (5)")
    add("--build", action="store_true", help="time builds, in a copy of the tree")
    add("--live", action="store_true", help="with --build and a GPU: a live build, too")
    add("--check", action="store_true", help="exit 1 if a target is missed")
    add("--out", type=Path, default=ROOT / "_build" / "site_speed.json")
    options = parser.parse_args()
    if options.live and not (options.build and gpus()):
        parser.error("--live wants --build and a GPU")
    return options


def main() -> int:
    """Measure what the command line asks for.

    Returns:
        0; 1 if ``--check`` is given and a target is missed; 2 if nothing could be
        measured.
    """
    options = parsed()
    report: dict[str, Any] = {**machine(), "load_before": os.getloadavg()}
    try:
        with served(options.site) as address, chromium() as browser:
            report["chromium"] = browser.version
            found = pages(
                options.site, options.times, lambda name: visit(browser, address + name)
            )
        taken = builds(options.live, timed_build) if options.build else {}
    except (OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    measured = values(found, taken)
    report["load_after"] = os.getloadavg()
    report["pages"] = {name: asdict(one) for name, one in found.items()}
    report |= {"measured": measured, "missed": missed(measured)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 100)
    for table in tables(found, measured):
        console.print(table)
    console.print(f"Written to {options.out}.", soft_wrap=True)
    return 1 if options.check and report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
