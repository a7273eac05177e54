"""Nsight Compute's counters, collected by one call, read and drawn.

    frame = tools.counters(tilebook.tools.case.slow, 4096, 4096)
    nsight.draw(frame).figure

The function runs in a process of its own under `ncu`, once to compile what it launches
and once to be profiled. Clocks stay as they are (`--clock-control none`), so that times
compare with those of other tools; caches are flushed before each kernel.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tilebook.measure.palette import ACCENTS, GREY, Drawing, style
from tilebook.parallel.figures import Picture


class Counter(NamedTuple):
    """A counter, and why one reads it."""

    name: str
    """In our tables."""
    metric: str
    """What ncu calls it."""
    says: str
    """What it decides."""


_STALLED = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_SECTORS = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_{}.ratio"
COUNTERS = (
    Counter("time", "gpu__time_duration.sum", "how long, in ns, from cold caches"),
    Counter("read", "dram__bytes_read.sum", "bytes from memory: against those needed"),
    Counter("written", "dram__bytes_write.sum", "bytes to memory; what L2 keeps lacks"),
    Counter(
        "memory",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
        "near 90 %: memory is the limit",
    ),
    Counter(
        "L2",
        "lts__throughput.avg.pct_of_peak_sustained_elapsed",
        "high with memory low: the tile is too small",
    ),
    Counter(
        "arithmetic",
        "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "near 90 %: instructions are the limit",
    ),
    Counter(
        "tensor cores",
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
        "0 where there should be products: not used",
    ),
    Counter(
        "warps",
        "sm__warps_active.avg.pct_of_peak_sustained_active",
        "occupancy; low and waiting for memory: too few bytes in flight",
    ),
    Counter("hits in L2", "lts__t_sector_hit_rate.pct", "low: nothing is shared"),
    Counter(
        "sectors a load", _SECTORS.format("ld"), "4 bytes a lane: 4; 32 is scattered"
    ),
    Counter("sectors a store", _SECTORS.format("st"), "the same of stores"),
    Counter(
        "waits for memory",
        _STALLED.format("long_scoreboard"),
        "warps that wait for a load into registers",
    ),
    Counter(
        "waits at barriers",
        _STALLED.format("barrier"),
        "warps that wait for the program's others",
    ),
    Counter(
        "registers", "launch__registers_per_thread", "with the block, how many fit"
    ),
    Counter(
        "waves",
        "launch__waves_per_multiprocessor",
        "just above a whole number: a last turn that is nearly empty",
    ),
)
PERCENT = ("memory", "L2", "arithmetic", "tensor cores", "warps", "hits in L2")
"""Counters that are parts of a whole, for the picture."""
_NAMES = {counter.metric: counter.name for counter in COUNTERS}
_EMPTY = {"", "n/a", "nan", "N/A"}


def parse(text: str) -> pd.DataFrame:
    """Read what `ncu --csv` prints, in either of its forms.

    Args:
        text: a line for each kernel (`--page raw`) or one for each kernel and metric;
            what the profiled program printed may stand around it.

    Returns:
        A row for each launch, column "kernel" and one for each metric, by our name for
        it if it is among `COUNTERS`. NaN where the card has no such counter; what isn't
        a number stays a text. Of several tables the launches follow each other.

    Raises:
        ValueError: there is no table in it, or none with a launch.
    """
    launches: dict[tuple[int, str], dict[str, Any]] = {}
    tables, header = 0, []
    for line in text.removeprefix("\N{BYTE ORDER MARK}").splitlines():
        row = next(csv.reader([line]), []) if line.startswith('"') else []
        if row[:1] == ["ID"] and "Kernel Name" in row:
            tables, header = tables + 1, row
        elif header and len(row) == len(header):
            cells = dict(zip(header, row, strict=True))
            if not cells["ID"].isdecimal():
                continue  # the line of units, or one of the program's
            launch = launches.setdefault((tables, cells["ID"]), {})
            launch["kernel"] = cells["Kernel Name"]
            if "Metric Name" in cells:
                values = {cells["Metric Name"]: cells["Metric Value"]}
            else:
                values = {k: v for k, v in cells.items() if "__" in k}
            for metric, value in values.items():
                launch[_NAMES.get(metric, metric)] = _number(value)
    if not launches:
        what = "a table of no launch" if tables else "no table"
        said = [line for line in text.splitlines() if line.startswith("==")]
        raise ValueError(f"ncu printed {what}: " + (" ".join(said) or "nothing"))
    frame = pd.DataFrame(list(launches.values()))
    known = [c.name for c in COUNTERS if c.name in frame]
    others = [name for name in frame if name not in ("kernel", *known)]
    return frame[["kernel", *known, *others]]


def _number(text: str) -> float | str:
    # ncu marks what it doubts.
    bare = text.strip().removeprefix("(!)").strip()
    if bare in _EMPTY:
        return float("nan")
    try:
        return float(bare.replace(",", ""))
    except ValueError:
        return text


def command(
    fn: Callable[..., object],
    args: Sequence[Any],
    metrics: Sequence[str],
    log: str,
    kernels: Sequence[str] = (),
) -> list[str]:
    """Write the command that profiles a function.

    Args:
        fn: of a module that can be imported.
        args: what it is called with; numbers and texts.
        metrics: ncu's names.
        log: the file for its table.
        kernels: names of those to profile; all by default.

    Returns:
        Program and arguments.

    Raises:
        ValueError: `fn` can't be imported, or `args` can't be written down.
    """
    module, name = fn.__module__, fn.__qualname__
    if module == "__main__" or "<" in name:
        raise ValueError(
            f"fn must be a function of a module that can be imported, got {name} of "
            f"{module}"
        )
    try:
        given = json.dumps(list(args))
    except TypeError as error:
        raise ValueError(f"args must be numbers and texts: {error}") from error
    options = {
        "--clock-control": "none",
        "--profile-from-start": "off",
        "--target-processes": "all",
        "--page": "raw",
        "--print-units": "base",
        "--metrics": ",".join(metrics),
        "--log-file": log,
    }
    if kernels:
        options["--kernel-name"] = f"regex:^({'|'.join(kernels)})$"
    flat = [part for pair in options.items() for part in pair]
    child = [sys.executable, "-m", "tilebook.tools.profiled", module, name, given]
    return [_ncu(), "--csv", *flat, *child]


def counters(
    fn: Callable[..., object],
    *args: Any,
    metrics: Mapping[str, str] | None = None,
    kernels: Sequence[str] = (),
    timeout: float = 300,
) -> pd.DataFrame:
    """Collect the counters that decide, of every kernel that a function launches.

    Args:
        fn: of a module that can be imported; makes its own tensors.
        args: what it is called with; numbers and texts.
        metrics: ncu's names by ours; `COUNTERS` by default.
        kernels: names of those to profile; all by default, PyTorch's among them.
        timeout: seconds.

    Returns:
        As `parse`.

    Raises:
        FileNotFoundError: there is no `ncu`.
        RuntimeError: it failed, with what it said.
        ValueError: `fn` can't be imported, or `args` can't be written down.
    """
    asked = metrics or {counter.name: counter.metric for counter in COUNTERS}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        done = subprocess.run(
            command(fn, args, list(asked.values()), str(log), kernels),
            capture_output=True, text=True, timeout=timeout,
            # Under a profiler the kernels are compiled ones, and this package is found.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        said = log.read_text(encoding="utf-8") if log.exists() else ""
    try:
        done.check_returncode()
        frame = parse(said)
    except (subprocess.CalledProcessError, ValueError) as error:
        heard = f"{said}{done.stdout}{done.stderr}".strip()
        raise RuntimeError(f"ncu failed: {heard}") from error
    return frame.rename(columns={metric: name for name, metric in asked.items()})


def _ncu() -> str:
    found = shutil.which("ncu") or shutil.which("/usr/local/cuda/bin/ncu")
    if found is None:
        raise FileNotFoundError("ncu, Nsight Compute's command line, is not installed")
    return found


def draw(frame: pd.DataFrame) -> Picture:
    """Draw the counters that are parts of a whole, a group of bars for each.

    Args:
        frame: from `counters` or `parse`.

    Returns:
        Bars, a colour for each launch, and their text.
    """
    shown = [name for name in PERCENT if name in frame]
    with style():
        figure = Drawing(figsize=(7, 0.5 + 0.3 * len(shown) * (1 + len(frame))))
        axes = figure.add_subplot()
        height = 0.8 / max(1, len(frame))
        for i, (_, row) in enumerate(frame.iterrows()):
            at = [j + i * height for j in range(len(shown))]
            values = [0.0 if pd.isna(row[name]) else row[name] for name in shown]
            colour = ACCENTS[i % len(ACCENTS)]
            axes.barh(at, values, height, color=colour, label=row["kernel"])
            for y, value in zip(at, values, strict=True):
                axes.text(value + 1, y, f"{value:.0f}", va="center", color=GREY)
        axes.set_yticks([j + 0.4 - height / 2 for j in range(len(shown))], labels=shown)
        axes.invert_yaxis()
        axes.set_xlim(0, 105)
        axes.set_xlabel("% of the peak")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    said = "; ".join(
        f"{row['kernel']}: " + ", ".join(f"{name} {row[name]:.0f} %" for name in shown)
        for _, row in frame.iterrows()
    )
    return Picture(figure, f"Bars of counters in per cent of their peak. {said}.")
