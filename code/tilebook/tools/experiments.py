"""What the chapter measures: a case from symptom to fix, and three ways to time it."""

import functools
import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row, Timing
from tilebook.tools import case, conclusions, nsight, proton

__all__ = ["conclusions", "tools_case_study", "tools_proton_vs_events_vs_ncu"]

ROWS = (1024, 4096, 16384)
ROWS_BRIEF = (16384,)
SIZES = (256, 1024, 4096, 16384)
CALLS = 20
"""Launches that Proton averages over."""


def _inputs(m: int) -> list[torch.Tensor]:
    return list(case.operands(m, case.COLUMNS, device.torch_device())[:2])


def _bytes(m: int) -> int:
    numbers = m * case.COLUMNS
    return 4 * (2 * numbers + numbers // case.GROUP)


def _counted(fn: Callable[..., object], *args: int) -> pd.DataFrame | None:
    """Counters of what a function launches; None where nobody may read them."""
    kernels = sorted({step.kernel.__name__ for step in case.STEPS.values()})
    try:
        frame = nsight.counters(fn, *args, kernels=kernels)
    except (FileNotFoundError, RuntimeError):
        return None
    return frame[frame["kernel"].isin(kernels)].reset_index(drop=True)


def _once(ns: float) -> Timing:
    ms = ns / 1e6
    return Timing(ms, ms, ms, (ms,))


@measure.experiment(
    "tools-case-study",
    question="What does each step from symptom to fix bring?",
    op="scale_groups",
    modules=("tools.case",),
)
def tools_case_study(bench: Bench) -> list[Row]:
    providers = {
        name: Provider(functools.partial(case.scaled, step=name), ours=True, out=True)
        for name in case.STEPS
    }
    providers["torch"] = Provider(case.reference)
    rows = bench.choose(ROWS, ROWS_BRIEF)
    for m in rows:
        bench.compare(
            shape={"m": m, "n": case.COLUMNS},
            dtype=torch.float32,
            providers=providers,
            make_inputs=functools.partial(_inputs, m),
            reference=case.reference,
            regimes=("cold",),
            bytes=_bytes(m),
        )
    frame = _counted(case.run_all, rows[-1], case.COLUMNS)
    if frame is not None:
        for name, (_, row) in zip(case.STEPS, frame.iterrows(), strict=True):
            told = {
                c.name: float(row[c.name]) for c in nsight.COUNTERS if c.name in row
            }
            bench.row(
                op="counters",
                impl=name,
                ours=True,
                shape={"m": rows[-1], "n": case.COLUMNS},
                dtype=torch.float32,
                timing=_once(told["time"]),
                extra={k: v for k, v in told.items() if math.isfinite(v)},
            )
    return bench.rows


def _profiled(calls: Sequence[Callable[[], object]]) -> Timing:
    """Let Proton time launches of the case's last step."""
    for call in calls:
        call()
    with proton.profiling() as session:
        for _ in range(CALLS):
            for call in calls:
                call()
    kernel = session.tree().root.find(case.wide_kernel.__name__)
    ms = kernel.ms / kernel.calls
    return Timing(ms, ms, ms, (ms,))


@measure.experiment(
    "tools-proton-vs-events-vs-ncu",
    question="How far do events, Proton and ncu agree on one kernel's time?",
    op="scale_groups",
    modules=("tools.case",),
)
def tools_proton_vs_events_vs_ncu(bench: Bench) -> list[Row]:
    # Enough operands that none is in the cache when its turn comes again.
    sets = {
        m: [
            case.operands(m, case.COLUMNS, device.torch_device())
            for _ in range(max(2, 2 * SIZES[-1] // (4 * m)))
        ]
        for m in SIZES
    }
    calls = {
        m: [functools.partial(case.scaled, x, s, out=out) for x, s, out in several]
        for m, several in sets.items()
    }
    # Whatever a profiler leaves in the process must not touch the events.
    timings = {
        (m, name): timing
        for m in SIZES
        for name, timing in bench.interleaved(
            {
                "events, cold": functools.partial(bench.time_cold, calls[m]),
                "events, in a graph": functools.partial(bench.time_steady, calls[m]),
            }
        ).items()
    }
    timings |= {(m, "Proton"): _profiled(calls[m]) for m in SIZES}
    frame = _counted(case.run_sizes, *SIZES)
    if frame is not None:
        timings |= {
            (m, "ncu"): _once(ns) for m, ns in zip(SIZES, frame["time"], strict=True)
        }
    for (m, name), timing in timings.items():
        bench.row(
            impl=name,
            ours=True,
            shape={"m": m, "n": case.COLUMNS},
            dtype=torch.float32,
            regime="cold" if name == "events, cold" else "other",
            timing=timing,
            bytes=_bytes(m),
        )
    return bench.rows
