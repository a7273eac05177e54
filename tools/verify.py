"""On a GPU: run the tests, watch small launches with compute-sanitizer, note both.

What they said goes into ``code/tilebook/records/GPU/verification.json``, which the
book's verification page shows. Where a command may not last that long, the steps can be
taken one by one, and the tests by halves:

    python tools/verify.py --steps tests --label softmax -- tests/test_softmax*.py
    python tools/verify.py --steps memcheck racecheck
    python tools/verify.py --steps note

All steps have to see the same code.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tilebook.testing import cards

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck")
STEPS = ("tests", *TOOLS, "note")
SEEN = ("code", "tests", "book/_ext", "tools")
"""What each step depends on."""
# PyTorch's own kernels are not what is looked at, and most of what is launched.
OPTIONS = ("--target-processes", "application-only", "--error-exitcode", "9")
# Many processes that import PyTorch at a time take longer than the 10 s it grants them.
OPTIONS += ("--launch-timeout", "120")
OPTIONS += ("--kernel-name-exclude", "kns=native")
# Each tensor an allocation of its own, so that leaving it is seen.
ALONE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
# 24 elements past the end of each vector.
PLANTED = """
import torch
from tilebook.parallel import grid
x, y, out = (torch.zeros(1000, device="cuda") for _ in range(3))
grid.add_kernel[(2,)](x, y, out, BLOCK=512)
torch.cuda.synchronize()
"""


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
    command += ["--dist", "loadgroup", "--ignore", "tests/site"]
    command += [f"--junitxml={junit}", *more]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def watched(where: str = "tests") -> list[str]:
    """The tests marked ``sanitize``, by pytest's names.

    Args:
        where: a file or a folder to look for them in.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "sanitize"]
    command += [where, "--ignore", "tests/site", "-p", "no:xdist"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return [line for line in done.stdout.splitlines() if "::" in line]


def sanitizer(tool: str, log: Path, names: list[str], parts: int) -> int:
    """Run tests under a tool of compute-sanitizer, a share of them in each process.

    Args:
        tool: one of `TOOLS`.
        log: where its reports go, one after the other.
        names: of the tests.
        parts: processes at a time.

    Returns:
        0 if every process ended and found nothing, and no test failed.
    """
    logs = [log.with_suffix(f".{i}.log") for i in range(min(parts, len(names)))]
    running = []
    for i, part in enumerate(logs):
        command = ["compute-sanitizer", "--tool", tool, "--log-file", str(part)]
        command += [*OPTIONS, sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]
        command += ["-p", "no:cacheprovider", "--timeout", "900"]
        command += names[i :: len(logs)]
        env = os.environ | ALONE | cards.share(i)
        running.append(subprocess.Popen(command, cwd=ROOT, env=env))
    statuses = [process.wait() for process in running]
    texts = [part.read_text(encoding="utf-8") for part in logs if part.exists()]
    ended = [" SUMMARY: " in text for text in texts]
    if all(ended) and len(ended) == len(logs):
        log.write_text("".join(texts), encoding="utf-8")
    else:
        print(f"{tool}: {ended.count(True)} of {len(logs)} ended", file=sys.stderr)
        log.unlink(missing_ok=True)
        statuses.append(1)
    return int(any(statuses))


def notices(log: Path) -> bool:
    """Whether the memory checker finds a planted access out of bounds.

    Args:
        log: where its report goes.

    Returns:
        Whether it does; else its silence on the tests would mean nothing.
    """
    command = ["compute-sanitizer", "--log-file", str(log), *OPTIONS]
    command += [sys.executable, "-c", PLANTED]
    subprocess.run(command, cwd=ROOT, env=os.environ | ALONE, check=False)
    return "Invalid __global__" in log.read_text(encoding="utf-8")


def code() -> str:
    """A digest of all the code that a step sees."""
    total = hashlib.sha256()
    for folder in SEEN:
        for path in sorted((ROOT / folder).rglob("*.py")):
            total.update(path.relative_to(ROOT).as_posix().encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def stamp(log: Path) -> None:
    """Note beside a log which code it is about."""
    log.with_suffix(".code").write_text(code(), encoding="utf-8")


def note(logs: Path) -> int:
    """Write down what the steps said.

    Args:
        logs: the folder that they left it in.

    Returns:
        0 if it was written, and all steps are there and saw this code.
    """
    junits = sorted(logs.glob("tests*.xml"))
    tools = {tool: logs / f"{tool}.log" for tool in TOOLS}
    missing = [path.name for path in tools.values() if not path.exists()]
    missing += [] if junits else ["tests.xml"]
    if missing:
        print(f"nothing is noted without {', '.join(missing)}", file=sys.stderr)
        return 1
    now = code()
    for log in (*junits, *tools.values()):
        if log.with_suffix(".code").read_text(encoding="utf-8") != now:
            print(f"{log.name} is about other code than this", file=sys.stderr)
            return 1
    command = [sys.executable, "book/_ext/bookext/runs.py"]
    command += [part for junit in junits for part in ("--junit", str(junit))]
    for tool, log in tools.items():
        command += ["--sanitizer", f"{tool}={log}"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Run what the command line asks for; return 0 if all of it passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logs", type=Path, default=ROOT / "_build" / "verify")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--parts", type=int, default=max(1, (os.cpu_count() or 2) // 3))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--label", default="", help="of a part of the tests")
    parser.add_argument("more", nargs="*", help="arguments for pytest, behind --")
    given = parser.parse_args()
    logs = given.logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    statuses = []
    if "tests" in given.steps:
        junit = logs / f"tests{given.label and '-'}{given.label}.xml"
        statuses.append(tests(junit, given.workers, given.more))
        stamp(junit)
    tools = [tool for tool in TOOLS if tool in given.steps]
    if tools and not notices(logs / "planted.log"):
        print("compute-sanitizer did not find the planted error", file=sys.stderr)
        return 1
    names = watched() if tools else []
    for tool in tools:
        log = logs / f"{tool}.log"
        statuses.append(sanitizer(tool, log, names, given.parts))
        if not log.exists():
            return 1
        stamp(log)
    if "note" in given.steps:
        statuses.append(note(logs))
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
