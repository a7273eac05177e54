"""What the tests said on a GPU: the small file beside that GPU's records.

``code/tilebook/records/GPU/verification.json`` is written on the GPU machine from what
pytest and compute-sanitizer left, and committed:

    python book/_ext/bookext/runs.py --junit tests.xml \\
        --sanitizer memcheck=memcheck.log --sanitizer racecheck=racecheck.log

It needs Python and the package, not Sphinx.
"""

import argparse
import hashlib
import itertools
import json
import platform
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "code" / "tilebook"
NAME = "verification.json"
SCHEMA = 1
OUTCOMES = ("passed", "failed", "skipped")

# Field -> the type of its value; the same for each kind of object in the file.
TOP = {
    "schema": int,
    "gpu": str,
    "slug": str,
    "driver": str,
    "torch": str,
    "triton": str,
    "python": str,
    "date": str,
    "commit": str,
    "dirty": bool,
    "digest": str,
    "tests": dict,
    "sanitizer": list,
}
TEST = dict.fromkeys(OUTCOMES, int)
SANITIZER = {"tool": str, "version": str, "errors": int}


def check(data: Any, source: str) -> dict[str, Any]:
    """Refuse what is not a verification file.

    Args:
        data: what was read from JSON, or is about to be written.
        source: the file, for the message.

    Returns:
        The data.

    Raises:
        ValueError: naming the file and the first field that is wrong.
    """

    def fields(value: Any, wanted: dict[str, type], where: str) -> None:
        if not isinstance(value, dict) or value.keys() != wanted.keys():
            got = sorted(value) if isinstance(value, dict) else value
            raise ValueError(f"{source}: {where} wants {sorted(wanted)}, got {got!r}")
        for name, kind in wanted.items():
            if type(value[name]) is not kind:
                raise ValueError(
                    f"{source}: {where}.{name} wants {kind.__name__}, "
                    f"got {value[name]!r}"
                )

    fields(data, TOP, "the file")
    if data["schema"] != SCHEMA:
        raise ValueError(f"{source}: schema {data['schema']} is not {SCHEMA}")
    for name, counts in data["tests"].items():
        fields(counts, TEST, f"tests[{name}]")
    for index, tool in enumerate(data["sanitizer"]):
        fields(tool, SANITIZER, f"sanitizer[{index}]")
    return data


def read(path: Path) -> dict[str, Any]:
    """Read one GPU's verification file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        ValueError: it is damaged; the message names it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON: {error}") from error
    return check(data, str(path))


def code_digest(package: Path = PACKAGE) -> str:
    """Return twelve hexadecimal digits for all of the package's code.

    Comments, docstrings and blank lines don't count, as for records.
    """
    from tilebook.measure import digest

    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode())
        total.update(digest.of_source(path.read_text(encoding="utf-8")).encode())
    return total.hexdigest()[:12]


def test_counts(*junits: Path) -> dict[str, dict[str, int]]:
    """Count pytest runs' outcomes by test file.

    Args:
        *junits: what ``pytest --junitxml`` wrote, of each run.

    Returns:
        Counts of passed, failed (or in error) and skipped tests, by file.
    """
    counts: dict[str, Counter[str]] = {}
    cases = (ElementTree.parse(junit).iter("testcase") for junit in junits)
    for case in itertools.chain.from_iterable(cases):
        module = case.get("classname", "").split(".")
        depth = next((i for i, x in enumerate(module) if x.startswith("test_")), 0)
        name = "/".join(module[: depth + 1]) + ".py"
        inside = {child.tag for child in case}
        bad = inside & {"failure", "error"}
        outcome = "failed" if bad else "skipped" if "skipped" in inside else "passed"
        counts.setdefault(name, Counter())[outcome] += 1
    return {name: {k: counts[name][k] for k in OUTCOMES} for name in sorted(counts)}


def sanitizer_errors(text: str) -> int:
    """Read compute-sanitizer's verdict.

    Args:
        text: its log.

    Returns:
        The errors or hazards that it counted.

    Raises:
        ValueError: the log has no summary, so the run did not end.
    """
    found = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", text)
    if not found:
        raise ValueError("the sanitizer's log has no summary: the run did not end")
    return sum(map(int, found))


def said_by(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


def sanitizer_version() -> str:
    """Return compute-sanitizer's version."""
    found = re.search(r"[Vv]ersion ([\d.]+)", said_by("compute-sanitizer", "--version"))
    return found[1] if found else "unknown"


def gather(junits: list[Path], sanitizers: list[str]) -> dict[str, Any]:
    """Put together what the file says, on the GPU that ran the tests."""
    import torch
    import triton

    from tilebook import device
    from tilebook.measure import provenance

    here = device.current()
    logs = [entry.partition("=") for entry in sanitizers]
    commit, changed = provenance.commit(ROOT)
    return {
        "schema": SCHEMA,
        "gpu": here.name,
        "slug": here.slug,
        "driver": str(here.driver),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "commit": str(commit)[:12],
        "dirty": bool(changed),
        "digest": code_digest(),
        "tests": test_counts(*junits),
        "sanitizer": [
            {
                "tool": tool,
                "version": sanitizer_version(),
                "errors": sanitizer_errors(Path(log).read_text(encoding="utf-8")),
            }
            for tool, _, log in logs
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the file for the GPU here; return the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--junit", type=Path, required=True, action="append")
    parser.add_argument("--sanitizer", action="append", default=[], metavar="TOOL=LOG")
    given = parser.parse_args(arguments)
    data = gather(given.junit, given.sanitizer)
    path = PACKAGE / "records" / data["slug"] / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(check(data, str(path)), indent=1) + "\n")
    print(path)
    return 0


if __name__ == "__main__":
    # Python looks first in a script's folder, where modules of ours would pass for
    # packages of the same name.
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    sys.exit(main())
