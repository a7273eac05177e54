"""NVIDIA's compute-sanitizer around one function, and what it reports.

A checker sees allocations, and PyTorch keeps many tensors in one. So the function runs
with `PYTORCH_NO_CUDA_MEMORY_CACHING=1`, where each tensor is an allocation of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tilebook import check

TOOLS = {
    "memcheck": "accesses outside every allocation, or misaligned",
    "racecheck": "shared memory that threads touch with no barrier between",
    "initcheck": "reads of global memory that nobody wrote",
    "synccheck": "barriers that not all threads reach",
}
"""What each tool looks for."""


class Report(NamedTuple):
    """One thing that the checker has found."""

    what: str
    """In its words: "Invalid __global__ write of size 4 bytes"."""
    kernel: str
    where: str
    """File and line, if the kernel was compiled with them."""
    program: tuple[int, int, int] | None
    thread: tuple[int, int, int] | None


_START = re.compile(
    r"^========= (?:(?:Error|Warning|Hazard): )?"
    r"((?:Invalid|Uninitialized|Race reported|Barrier error|Potential|Address).*)$"
)
_AT = re.compile(
    r"\bat (?:0x[0-9a-f]+ in )?(?P<name>[\w$<>:, ]+?)(?:\(.*\))?(?:\+0x[0-9a-f]+)?"
    r"(?: in (?P<place>\S+:\d+))?$"
)
_BY = re.compile(r"by thread \((\d+),(\d+),(\d+)\) in block \((\d+),(\d+),(\d+)\)")


def parse(text: str) -> tuple[Report, ...]:
    """Read what compute-sanitizer printed.

    Args:
        text: its log; what the program printed may be in it.

    Returns:
        A report for each finding, in order.
    """
    found: list[Report] = []
    for line in text.splitlines():
        if start := _START.match(line):
            found.append(Report(start[1].strip(), "", "", None, None))
            continue
        if not found or not line.startswith("========="):
            continue
        inner = line.removeprefix("=========").strip()
        last = found[-1]
        if (at := _AT.search(inner)) and not last.kernel:
            name, place = at["name"].strip(), at["place"] or ""
            found[-1] = last._replace(kernel=name, where=place)
        elif (by := _BY.search(inner)) and last.thread is None:
            numbers = tuple(map(int, by.groups()))
            found[-1] = last._replace(thread=numbers[:3], program=numbers[3:])
    return tuple(found)


def command(
    fn: Callable[..., object], args: Sequence[Any], tool: str, log: str
) -> list[str]:
    """Write the command that checks a function.

    Args:
        fn: of a module that can be imported.
        args: what it is called with; numbers and texts.
        tool: one of `TOOLS`.
        log: the file for its report.

    Returns:
        Program and arguments.
    """
    check.one_of(tool, "tool", TOOLS)
    program = shutil.which("compute-sanitizer") or "compute-sanitizer"
    options = ["--tool", tool, "--log-file", log, "--target-processes", "all"]
    # PyTorch's own kernels, which fill and copy, are not what is looked at.
    options += ["--kernel-name-exclude", "kns=native", "--launch-timeout", "120"]
    child = (
        "import importlib, json, operator, sys, torch; "
        "fn = operator.attrgetter(sys.argv[2])(importlib.import_module(sys.argv[1])); "
        "fn(*json.loads(sys.argv[3])); torch.cuda.synchronize()"
    )
    given = [fn.__module__, fn.__qualname__, json.dumps(list(args))]
    return [program, *options, sys.executable, "-c", child, *given]


def sanitize(
    fn: Callable[..., object], *args: Any, tool: str = "memcheck", timeout: float = 300
) -> tuple[Report, ...]:
    """Run a function under compute-sanitizer.

    Args:
        fn: of a module that can be imported; makes its own tensors.
        args: what it is called with; numbers and texts.
        tool: one of `TOOLS`.
        timeout: seconds.

    Returns:
        What was found.

    Raises:
        RuntimeError: the checker itself failed, with what it said.
        ValueError: there is no such tool.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        path = os.pathsep.join(filter(None, sys.path))
        alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": path}
        done = subprocess.run(
            command(fn, args, tool, str(log)),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **alone},
        )
        said = log.read_text(encoding="utf-8") if log.exists() else ""
    if "SUMMARY" not in said:
        raise RuntimeError(f"compute-sanitizer failed: {said}{done.stderr}".strip())
    return parse(said)


def stray() -> None:
    """Launch the gallery's kernel without a mask: what a checker should find."""
    import torch

    from tilebook.parallel import bugs

    kernel = bugs.GALLERY["no-mask"].kernel
    x, out = (torch.zeros(1000, device="cuda") for _ in range(2))
    kernel[(4,)](x, out, 1000, BLOCK=256)
