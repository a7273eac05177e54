"""The gallery completed: what is noticed, which tool is asked, and what it says.

Every finding is the tool's own, made when the table is. Bugs are those of earlier
chapters' galleries and of `bugs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch

from tilebook import compile_only, microscope
from tilebook.hopper import bugs as waiting
from tilebook.parallel import bugs as sharing
from tilebook.tools import bugs, case
from tilebook.tools.tracer import Trace, trace


@dataclass(frozen=True)
class Finding:
    """One kind of bug, met by its symptom.

    Args:
        kind: what it is.
        symptom: what is noticed.
        tool: which tool is asked first.
        find: asks it, of the wrong kernel; its own words.
        gpu: what to ask on a GPU, as a command.
    """

    kind: str
    symptom: str
    tool: str
    find: Callable[[], str] = field(repr=False)
    gpu: str


def traced(name: str) -> Trace:
    """Trace a bug of the gallery in *Programs, not threads*.

    Args:
        name: of the bug.

    Returns:
        The trace of the wrong kernel.
    """
    bug = sharing.GALLERY[name]
    plan = bug.wrong.launch(*bug.inputs())
    return trace(bug.wrong.kernel)[plan.grid](*plan.args, **plan.meta)


def _problem(name: str) -> str:
    return traced(name).problems()[0]


def _unwritten() -> str:
    ((argument, missed),) = traced("floor-grid").unwritten.items()
    return f"{argument}: {missed.size} elements that nobody wrote, from {missed[0]} on"


def _asserted() -> str:
    index, table = torch.tensor([0, 3, 9, -1]), torch.arange(8.0)
    seen = microscope.look(
        bugs.looked_up_kernel, (1,), index, table, torch.zeros(4), 4, 8, BLOCK=4
    )
    return seen.error or ""


def _scattered() -> str:
    x, scale, out = case.operands(64, 2 * case.GROUP, torch.device("cpu"))
    grid, args, meta = case.SMALLER.arguments(x, scale, out)
    seen = trace(case.SMALLER.kernel)[grid](*args, **meta).compiled().warps
    row = seen[seen["argument"] == "x_ptr"].iloc[0]
    return (
        f"line {row['line']}: {row['sectors']:.0f} sectors a request where "
        f"{row['least']:.0f} would do"
    )


def _spills() -> str:
    x = torch.empty(4096, 4096, device="meta")
    scale = torch.empty(4096, 4096 // case.GROUP, device="meta")
    _, args, meta = case.AS_FOUND.arguments(x, scale, x)
    made = compile_only.compile(case.AS_FOUND.kernel, *args, **meta)
    return f"{made.evidence.spill_store_bytes:,} bytes spilled by each thread"


MEMCHECK = "compute-sanitizer --tool memcheck"
RACECHECK = "compute-sanitizer --tool racecheck"
FINDINGS = (
    Finding(
        "out of bounds",
        "Right, on ragged sizes too. Now and then another tensor changes.",
        "tools.trace",
        lambda: _problem("no-mask"),
        MEMCHECK,
    ),
    Finding(
        "int32 overflow",
        "Right up to 2^31 elements; then an illegal access.",
        "tools.trace",
        lambda: _problem("int32-offset"),
        MEMCHECK,
    ),
    Finding(
        "one element too many",
        "A zero at the front of the next tensor.",
        "guard bands",
        lambda: sharing.GALLERY["off-by-one"].detect().splitlines()[0],
        "testing.guarded()",
    ),
    Finding(
        "index from data",
        "An illegal access, with some inputs.",
        "tl.device_assert",
        _asserted,
        "TRITON_DEBUG=1",
    ),
    Finding(
        "race between programs",
        "Sums too small, another one each time; right in the interpreter.",
        "tools.trace",
        lambda: _problem("lost-update"),
        "testing.deterministic()",
    ),
    Finding(
        "race without harm so far",
        "Nothing, yet.",
        "tools.trace",
        lambda: _problem("thread-index"),
        "",
    ),
    Finding(
        "tail not written",
        "Garbage at the end, or the right answer of an earlier call.",
        "tools.trace",
        _unwritten,
        "testing.guarded()",
    ),
    Finding(
        "missing wait",
        "Right almost always, as the copy is nearly always fast enough.",
        "schedules.run",
        bugs.unwaited,
        RACECHECK,
    ),
    Finding(
        "missing fence",
        "Some rows are those of before, on some runs.",
        "schedules.run",
        bugs.unfenced,
        "",
    ),
    Finding(
        "slot freed early",
        "A wrong tile after hours.",
        "schedules.run, other seeds",
        lambda: waiting.HASTY.detect().splitlines()[0],
        "",
    ),
    Finding(
        "hang",
        "The launch doesn't return, for some sizes.",
        "schedules.run",
        lambda: waiting.RESTARTED.detect().splitlines()[0],
        "cuda-gdb -p PID, info cuda kernels",
    ),
    Finding(
        "misaligned descriptor",
        "A matrix of another width is refused.",
        "the message",
        bugs.misaligned,
        "",
    ),
    Finding(
        "scattered requests",
        "An eighth of the bandwidth, with nothing else to do.",
        "tools.trace, compiled()",
        _scattered,
        "tools.counters",
    ),
    Finding(
        "spills",
        "Slower with a larger tile.",
        "the evidence line",
        _spills,
        "tools.counters",
    ),
)


def table() -> pd.DataFrame:
    """Ask every tool, and put down what it says.

    Returns:
        A row for each kind of bug: symptom, tool, finding, and what to ask on a GPU.
    """
    rows = [
        (one.kind, one.symptom, one.tool, _short(one.find()), one.gpu)
        for one in FINDINGS
    ]
    columns = ["kind", "symptom", "tool", "finding", "on a GPU"]
    return pd.DataFrame(rows, columns=columns).set_index("kind")


def _short(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
