"""On a GPU: try the ways to launch a chapter's kernels, and say which are fastest.

    python tools/tune.py tilebook.tiling.tuning --only transpose

The module's `CONTESTS` names functions that take a `tilebook.measure.Bench` and call
its `compare`, as an experiment does, with one provider for each way. Each way is first
rehearsed (see `tools/rehearsal.py`), where it may fail, crash or hang; what is left is
timed once over, and the best of each case again.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rehearsal import case_of, failures, rehearse

from tilebook import measure
from tilebook.measure import timing
from tilebook.measure.bench import Bench
from tilebook.measure.lock import gpu_alone

SHIPPED = "shipped"
"""The provider that launches as the package does today, wherever there is one."""
HEAT = timing.Budget(3, 0.003)
FINAL = timing.Budget(5, 0.015)

Contests = Mapping[str, Callable[[Bench], object]]


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
    asked = parser.parse_args(argv)
    contests: Contests = importlib.import_module(asked.module).CONTESTS
    names = asked.only or list(contests)
    empty = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder, gpu_alone():
            ends = rehearse(
                asked.module, name, Path(folder),
                workers=asked.workers, patience=asked.patience,
            )  # fmt: skip
            passed = {way for way, end in ends.items() if end == "passed"}
            print(f"{name}: {len(passed)} of {len(ends)} ways passed", flush=True)
            for line in failures(ends):
                print(f"    {line}")
            bench = Contest(name, passed, finalists=asked.finalists)
            contests[name](bench)
        if bench.heats:
            print(losses(bench.heats).head(20).to_string(), flush=True)
        empty += not bench.rows
        if asked.out:
            data = {"heats": bench.heats, "rows": bench.rows, "ends": ends}
            chapter = ".".join(asked.module.split(".")[-2:-1]) or asked.module
            path = asked.out / f"tune-{chapter}-{name}.json"
            path.write_text(json.dumps(data))
    return int(empty > 0)


if __name__ == "__main__":
    sys.exit(main())
