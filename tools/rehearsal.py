"""Compile and check a contest's ways before `tools/tune.py` times them.

Several processes share the ways out. One that fails is noted; one that crashes or hangs
is noted by whoever waits for the process, which begins again with the next way. Ways
for which there was no room beside other workers are rehearsed once more by one alone.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tilebook.matmul import remembered
from tilebook.measure import provider, verify
from tilebook.measure.bench import Bench

SHORT = ("OutOfMemoryError", "out of memory", "ALLOC_FAILED")
"""What errors say where there was no room: other workers may have had it."""
LONGEST = 160
"""Characters of an error that are printed."""
START = 60
"""Seconds that a process may take until its first way has begun: it imports PyTorch,
maybe beside others."""


def case_of(contest: str, shape: Mapping[str, int], dtype: torch.dtype) -> str:
    """Name a case, for logs and tables."""
    sizes = " ".join(f"{k}={v}" for k, v in shape.items())
    return f"{contest} {sizes} {str(dtype).removeprefix('torch.')}"


class Rehearsal(Bench):
    """Compiles and checks a share of the ways, and writes down how each ended.

    Args:
        contest: its name.
        share: which of how many parts is this process's.
        log: JSON lines; a way that has begun there is not begun again.
    """

    def __init__(self, contest: str, share: tuple[int, int], log: Path) -> None:
        super().__init__(contest, timer=_NoClock())
        self._share = share
        self._log = log
        self._begun = set(outcomes(log))

    def compare(
        self, *, shape, dtype, providers, make_inputs, reference,
        make_output=lambda x, *_: torch.empty_like(x), along=None, length=1, **_,
    ) -> list:  # fmt: skip
        case = case_of(self.op, shape, dtype)
        part, parts = self._share
        mine = {
            name: each
            for i, (name, each) in enumerate(providers.items())
            if i % parts == part and f"{case}: {name}" not in self._begun
        }

        def check(call, inputs, each, out):
            verify.verify(
                call, inputs, reference, along=along, length=length,
                bound=each.bound, out=out if each.out else None,
            )  # fmt: skip

        self._try(case, mine, make_inputs, make_output, check)
        if torch.cuda.is_available():
            # The other workers need room too.
            torch.cuda.empty_cache()
        return []

    def _try(self, case, ways, make_inputs, make_output, check) -> None:
        inputs = out = None
        for name, each in ways.items():
            self._say(f"{case}: {name}", "begun")
            try:
                if inputs is None:
                    made = tuple(make_inputs())
                    inputs, out = made, make_output(*made)
                (call,) = provider.calls(each, [inputs], [out])
                check(call, inputs, each, out)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            except Exception as error:
                why = " ".join(str(error).split())[:200]
                self._say(f"{case}: {name}", f"{type(error).__name__}: {why}")
                if "CUDA error" in why:
                    # Nothing that this process launches works any more.
                    sys.exit(1)
            else:
                self._say(f"{case}: {name}", "passed")

    def _say(self, way: str, outcome: str) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps([way, outcome]) + "\n")


class _NoClock:
    """A rehearsal takes no times."""

    l2_bytes = 0


def outcomes(log: Path) -> dict[str, str]:
    """Read how each way ended that a rehearsal began.

    Args:
        log: what it wrote.

    Returns:
        "passed", "begun" or an error's text, by way.
    """
    if not log.exists():
        return {}
    return dict(json.loads(line) for line in log.read_text().splitlines())


def rehearse(
    module: str, contest: str, folder: Path, *, workers: int, patience: float
) -> dict[str, str]:
    """Compile and check every way, in several processes.

    Args:
        module: where the contests are.
        contest: one of them.
        folder: for the logs.
        workers: processes at a time.
        patience: seconds that one way may take; the first, of a process that is
            started, at least `START`.

    Returns:
        How each ended; a way that never did "hung" or "crashed".
    """
    logs = [folder / f"{contest}-{i}.log" for i in range(workers)]
    _run(
        [_Process(module, contest, i, workers, logs[i]) for i in range(workers)],
        patience,
    )
    ends = {way: end for log in logs for way, end in outcomes(log).items()}
    if any(map(short, ends.values())):
        alone = folder / f"{contest}-alone.log"
        known = (json.dumps([w, end]) for w, end in ends.items() if not short(end))
        alone.write_text("".join(f"{line}\n" for line in known))
        _run([_Process(module, contest, 0, 1, alone)], patience)
        ends |= outcomes(alone)
    return ends


def short(end: str) -> bool:
    """Whether a way ended for want of memory, which need not be its own fault."""
    return any(words in end for words in SHORT)


def _run(processes: Sequence["_Process"], patience: float) -> None:
    running = list(processes)
    try:
        while running:
            time.sleep(0.2)
            running = [each for each in running if not each.ended(patience)]
    finally:
        for process in running:
            process.kill()


def failures(ends: Mapping[str, str]) -> list[str]:
    """Say which kinds of failure there were in each case.

    Args:
        ends: how each way ended.

    Returns:
        A line for each case and kind, with the number of ways and the first of them.
    """
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for way, end in ends.items():
        case, _, name = way.partition(": ")
        if end != "passed":
            found.setdefault((case, end.partition(":")[0]), []).append((name, end))
    lines = []
    for (case, _), ways in found.items():
        first, end = ways[0]
        count = f"{len(ways)} way{'s' * (len(ways) > 1)}"
        lines.append(f"{case}: {count}, {first} first: {end[:LONGEST]}")
    return lines


class _Process:
    """A share of the rehearsal, started again after whatever kills it.

    What the package chooses in it is not remembered: beside other workers times mean
    nothing.
    """

    def __init__(
        self, module: str, contest: str, part: int, parts: int, log: Path
    ) -> None:
        self._command = [sys.executable, __file__, module, contest]
        self._command += [str(part), str(parts), str(log)]
        self._log = log
        self._environment = os.environ | {remembered.FOLDER: ""}
        self._start()

    def _start(self) -> None:
        self._log.touch()
        os.utime(self._log)
        self._process = subprocess.Popen(self._command, env=self._environment)
        self._known = len(outcomes(self._log))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ended(self, patience: float) -> bool:
        """Whether all is done; if it got stuck, says so in the log and goes on."""
        code = self._process.poll()
        if code == 0:
            return True
        if code is None:
            begun = len(outcomes(self._log)) > self._known
            most = patience if begun else max(patience, START)
            if time.time() - self._log.stat().st_mtime < most:
                return False
            self.kill()
        found = outcomes(self._log)
        if len(found) == self._known:
            raise RuntimeError(f"{' '.join(self._command)}: no progress, status {code}")
        with self._log.open("a") as file:
            for way, end in found.items():
                if end == "begun":
                    stuck = "hung" if code is None else "crashed"
                    file.write(json.dumps([way, stuck]) + "\n")
        self._start()
        return False


def main(arguments: Sequence[str]) -> None:
    """Rehearse a share.

    Args:
        arguments: the module, the contest, which part of how many, and the log.
    """
    module, contest, part, parts, log = arguments
    contests = importlib.import_module(module).CONTESTS
    contests[contest](Rehearsal(contest, (int(part), int(parts)), Path(log)))


if __name__ == "__main__":
    main(sys.argv[1:])
