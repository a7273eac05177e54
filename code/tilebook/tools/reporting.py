"""A trace in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilebook.tools.tracer import Trace


def report(trace: Trace) -> str:
    """Say what a launch touched, and what is wrong with it.

    Args:
        trace: of the launch.

    Returns:
        The text of `Trace.report`.
    """
    parts = (_launch(trace), _lines(trace), _bytes(trace), _verdict(trace))
    return "\n".join(line for part in parts for line in part)


def _launch(trace: Trace) -> Iterator[str]:
    count = 1
    for side in trace.look.grid:
        count *= side
    programs = {access.program for access in trace.accesses}
    yield (
        f"{trace.look.kernel}: {counted(count, 'program')} of "
        f"{counted(trace.num_warps, 'warp')}, {len(programs):,} touched memory"
    )


def _lines(trace: Trace) -> Iterator[str]:
    own = {file for file, _ in trace.source}
    for row in trace.by_file.itertuples():
        code = trace.source.get((row.file, row.line), "in a helper")
        elsewhere = "" if row.file in own else f" of {row.file}"
        yield f"line {row.line}{elsewhere}: {code}"
        yield (
            f"    {row.op} of {row.argument}: {counted(row.requests, 'request')}, "
            f"{counted(row.vector, 'element')} a lane, {row.sectors:.1f} sectors each "
            f"where {row.least:.1f} would do"
        )


def _bytes(trace: Trace) -> Iterator[str]:
    for name, traffic in trace.traffic.items():
        yield (
            f"{name}: {traffic.moved:,} bytes moved, {traffic.needed:,} needed, "
            f"each {traffic.reuse:.2f} times"
        )


def _verdict(trace: Trace) -> Iterator[str]:
    problems = trace.problems()
    yield from problems
    for name, missed in trace.unwritten.items():
        yield (
            f"{name}: {counted(missed.size, 'element')} that nobody wrote, the first "
            f"is {missed[0]}"
        )
    if not problems:
        yield "no access out of bounds, no race"


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
