"""On a GPU: run the tests, watch small launches with compute-sanitizer, note both.

What they said goes into ``code/tilebook/records/GPU/verification.json``, which the
book's verification page shows.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck")


def tests(junit: Path, workers: str, more: list[str]) -> int:
    """Run the tests, all but those of the built pages.

    Args:
        junit: where pytest's report goes.
        workers: how many processes.
        more: arguments for pytest.

    Returns:
        pytest's exit status.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--timeout", "300"]
    command += ["--ignore", "tests/site", f"--junitxml={junit}", *more]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def sanitizer(tool: str, log: Path) -> int:
    """Run the tests marked ``sanitize`` under a tool of compute-sanitizer.

    Args:
        tool: one of `TOOLS`.
        log: where its report goes.

    Returns:
        Its exit status, not 0 where it found anything or a test failed.
    """
    command = ["compute-sanitizer", "--tool", tool, "--log-file", str(log)]
    command += ["--error-exitcode", "9", "--target-processes", "application-only"]
    command += [sys.executable, "-m", "pytest", "-q", "-m", "sanitize"]
    command += ["tests", "--ignore", "tests/site", "-p", "no:xdist", "--timeout", "900"]
    # Each tensor is an allocation of its own, so that leaving it is seen.
    alone = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.run(command, cwd=ROOT, env=alone, check=False).returncode


def main() -> int:
    """Run what the command line asks for; return 0 if all of it passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logs", type=Path, default=ROOT / "_build" / "verify")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("more", nargs="*", help="arguments for pytest, behind --")
    given = parser.parse_args()
    logs = given.logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    statuses = [tests(logs / "tests.xml", given.workers, given.more)]
    statuses += [sanitizer(tool, logs / f"{tool}.log") for tool in TOOLS]
    note = [sys.executable, "book/_ext/bookext/runs.py"]
    note += ["--junit", str(logs / "tests.xml")]
    for tool in TOOLS:
        note += ["--sanitizer", f"{tool}={logs / f'{tool}.log'}"]
    statuses.append(subprocess.run(note, cwd=ROOT, check=False).returncode)
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
