"""On a GPU: try the ways to launch a chapter's kernels, and say which are fastest.

    python tools/tune.py tilebook.tiling.tuning --only transpose

The module's `CONTESTS` names functions that take a `tilebook.measure.Bench` and call
its `compare`, as an experiment does, with one provider for each way. Each way is first
compiled and checked in a process of its own kind, several at a time, where it may fail,
crash or hang; what is left is timed once over, and the best of each case again.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from tilebook import measure
from tilebook.measure import provider, timing, verify
from tilebook.measure.bench import Bench
from tilebook.measure.lock import gpu_alone

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "shipped"
"""The provider that launches as the package does today, wherever there is one."""
HEAT = timing.Budget(3, 0.003)
FINAL = timing.Budget(5, 0.015)

Contests = Mapping[str, Callable[[Bench], object]]


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
        inputs = tuple(make_inputs()) if mine else ()
        out = make_output(*inputs) if mine else None
        for name, each in mine.items():
            self._say(f"{case}: {name}", "begun")
            try:
                (call,) = provider.calls(each, [inputs], [out])
                verify.verify(
                    call, inputs, reference, along=along, length=length,
                    bound=each.bound, out=out if each.out else None,
                )  # fmt: skip
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
        if torch.cuda.is_available():
            # The other workers need room too.
            torch.cuda.empty_cache()
        return []

    def _say(self, way: str, outcome: str) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps([way, outcome]) + "\n")


class _NoClock:
    """A rehearsal takes no times."""

    l2_bytes = 0


class Contest(Bench):
    """Times what passed the rehearsal: all ways once over, the best of them again.

    Args:
        contest: its name.
        passed: the ways that may take part, as the rehearsal calls them.
        finalists: ways of a case that are timed again.
        timer: the device.
        heat: budget of the first time.
        final: that of the second.
    """

    def __init__(
        self,
        contest: str,
        passed: set[str],
        *,
        finalists: int = 8,
        timer: timing.Timer | None = None,
        heat: timing.Budget = HEAT,
        final: timing.Budget = FINAL,
    ) -> None:
        super().__init__(contest, timer=timer)
        self._passed = passed
        self._finalists = finalists
        self._budgets = heat, final
        self.heats: list[measure.Row] = []

    def compare(self, *, shape, dtype, providers, regimes=("cold", "steady"), **more):
        case = case_of(self.op, shape, dtype)
        left = {k: v for k, v in providers.items() if f"{case}: {k}" in self._passed}
        if not left:
            return []
        common = {"shape": shape, "dtype": dtype} | more
        heat, final = self._budgets
        self.budget, kept = heat, len(self.rows)
        rows = super().compare(providers=left, regimes=["cold"], **common)
        del self.rows[kept:]
        self.heats += rows
        rows.sort(key=lambda row: row["ms"])
        names = [row["impl"] for row in rows[: self._finalists]]
        names += [SHIPPED] if SHIPPED in left and SHIPPED not in names else []
        self.budget = final
        best = {name: left[name] for name in names}
        found = super().compare(providers=best, regimes=regimes, **common)
        print(standing(found).to_string(index=False), flush=True)
        return found

    def _check(self, *_) -> tuple[float, float]:
        # The rehearsal did.
        return 0.0, 0.0


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
        patience: seconds that one way may take.

    Returns:
        How each ended; a way that never did "hung" or "crashed".
    """
    logs = [folder / f"{contest}-{i}.log" for i in range(workers)]
    running = {
        i: _Process(module, contest, i, workers, logs[i]) for i in range(workers)
    }
    try:
        while running:
            time.sleep(0.2)
            for i, process in list(running.items()):
                if process.ended(patience):
                    del running[i]
    finally:
        for process in running.values():
            process.kill()
    return {way: end for log in logs for way, end in outcomes(log).items()}


class _Process:
    """A share of the rehearsal, started again after whatever kills it."""

    def __init__(
        self, module: str, contest: str, part: int, parts: int, log: Path
    ) -> None:
        self._command = [sys.executable, __file__, module, "--only", contest]
        self._command += ["--rehearse", str(part), str(parts), str(log)]
        self._log = log
        self._start()

    def _start(self) -> None:
        self._log.touch()
        os.utime(self._log)
        self._process = subprocess.Popen(self._command)
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
            if time.time() - self._log.stat().st_mtime < patience:
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


def standing(rows: Sequence[measure.Row]) -> pd.DataFrame:
    """Rank the ways of each case.

    Args:
        rows: of one contest or several.

    Returns:
        A line for each row, fastest first within a case; `lead` says how many times
        as fast it is as what the package ships.
    """
    table = pd.DataFrame(
        [
            {
                "case": case_of(row["op"], row["shape"], row["dtype"]),
                "regime": row["regime"],
                "way": row["impl"],
                "us": round(1e3 * row["ms"], 3),
                "gbps": row["gbps"] and round(row["gbps"], 1),
                "tflops": row["tflops"] and round(row["tflops"], 1),
            }
            for row in rows
        ]
    )
    table = table.sort_values(["case", "regime", "us"], kind="stable")
    shipped = table[table.way == SHIPPED].set_index(["case", "regime"]).us
    keys = pd.MultiIndex.from_frame(table[["case", "regime"]])
    table["lead"] = (shipped.reindex(keys).to_numpy() / table.us.to_numpy()).round(4)
    return table.dropna(axis="columns", how="all")


def losses(rows: Sequence[measure.Row]) -> pd.Series:
    """How far each way is behind the best, over all cases that it took part in.

    Args:
        rows: of one contest's first heats.

    Returns:
        By way, the geometric mean of its time over the case's best, least first.
    """
    table = standing(rows)
    behind = table.us / table.groupby(["case", "regime"]).us.transform("min")
    means = behind.groupby(table.way).agg(statistics.geometric_mean)
    return means.sort_values().round(4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if anything could be timed in every contest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("module", help="where CONTESTS are: tilebook.tiling.tuning")
    parser.add_argument("--only", action="append", help="this contest; may be repeated")
    # Each holds inputs and a reference of its own in the GPU's memory.
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers)
    parser.add_argument("--patience", type=float, default=60, help="seconds for a way")
    parser.add_argument("--finalists", type=int, default=8)
    parser.add_argument("--out", type=Path, help="a folder for what was measured")
    parser.add_argument("--rehearse", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    contests: Contests = importlib.import_module(asked.module).CONTESTS
    names = asked.only or list(contests)
    if asked.rehearse:
        part, parts, log = asked.rehearse
        for name in names:
            contests[name](Rehearsal(name, (int(part), int(parts)), Path(log)))
        return 0
    empty = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder, gpu_alone():
            ends = rehearse(
                asked.module, name, Path(folder),
                workers=asked.workers, patience=asked.patience,
            )  # fmt: skip
            passed = {way for way, end in ends.items() if end == "passed"}
            print(f"{name}: {len(passed)} of {len(ends)} ways passed", flush=True)
            for way, end in ends.items():
                if end != "passed":
                    print(f"    {way}: {end}")
            bench = Contest(name, passed, finalists=asked.finalists)
            contests[name](bench)
        if bench.heats:
            print(losses(bench.heats).head(20).to_string(), flush=True)
        empty += not bench.rows
        if asked.out:
            data = {"heats": bench.heats, "rows": bench.rows, "ends": ends}
            path = asked.out / f"tune-{asked.module.split('.')[-2]}-{name}.json"
            path.write_text(json.dumps(data))
    return int(empty > 0)


if __name__ == "__main__":
    sys.exit(main())
