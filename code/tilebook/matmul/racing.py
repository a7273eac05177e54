"""The fastest of several ways, found in a bounded time."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, Protocol, TypeVar

from tilebook.measure.timing import Call, Samples

Name = TypeVar("Name", bound=Hashable)

COMPILING = 2.0
"""Seconds after which ways that are still being compiled are left out."""
TIMING = 0.6
"""Seconds for all timings together."""
NEAR = 1.15
"""How much slower than the fastest a way may look at first sight to be timed again."""
ROUNDS = 3


class Clock(Protocol):
    """What times a call; `tilebook.measure.timing.Timer` is one."""

    def cold(self, calls: list[Call], seconds: float) -> Samples:
        """Time single calls, for about so long."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""


class Outcome(NamedTuple, Generic[Name]):
    """How a race ended."""

    ms: dict[Name, float]
    """Milliseconds by name, the fastest first; of ways that were far behind at first
    sight, what they took then. Empty if all of them failed."""
    late: list[Name]
    """Ways that weren't compiled in time, and may be faster."""


def race(
    ways: Mapping[Name, Call],
    clock: Clock,
    *,
    prepare: Mapping[Name, Call] | None = None,
    compiling: float = COMPILING,
    timing: float = TIMING,
    here: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    now: Callable[[], float] = time.monotonic,
) -> Outcome[Name]:
    """Compile ways together, time them, and those in front again.

    Args:
        ways: by name, what is to be timed, the most promising first; a way that raises
            is left out.
        clock: the device's.
        prepare: by the same names, what compiles a way without launching anything;
            by default its call. It may still be running when the race is over.
        compiling: seconds until the rest of the compilations is given up, as long as
            there is one way to go.
        timing: seconds for all timings.
        here: makes the context that a call needs in another thread, such as a stream.
        now: seconds, from anywhere on.

    Returns:
        What each took, and who came late.
    """
    names, late = _compiled(prepare or ways, compiling, here)
    names = [name for name in ways if name in names and _goes(ways[name])]
    clock.synchronize()
    if len(names) < 2:
        return Outcome(dict.fromkeys(names, math.nan), late)
    began = now()
    each = timing / 2 / len(names)
    first = {name: clock.cold([ways[name]], each).median for name in names}
    near = [name for name in names if first[name] <= NEAR * min(first.values())]
    each = (timing - (now() - began)) / ROUNDS / len(near)
    seen: dict[Name, list[float]] = {name: [] for name in near}
    if len(near) > 1 and each > 0:
        for _ in range(ROUNDS):
            for name in near:
                seen[name].append(clock.cold([ways[name]], each).median)
    found = first | {name: sorted(ms)[ROUNDS // 2] for name, ms in seen.items() if ms}
    return Outcome(dict(sorted(found.items(), key=lambda pair: pair[1])), late)


def _goes(call: Call) -> bool:
    """Call a way for the first time; whether it came back."""
    try:
        call()
    except Exception:
        # Whatever it is: there are other ways, and a rule if there are none.
        return False
    return True


def _compiled(
    ways: Mapping[Name, Call],
    seconds: float,
    here: Callable[[], contextlib.AbstractContextManager],
) -> tuple[list[Name], list[Name]]:
    """Call each way once, several at a time: the names of those that came back, and of
    those that didn't in time."""

    def attempt(call: Call) -> None:
        with here():
            call()

    pool = ThreadPoolExecutor(max(2, min(len(ways), os.cpu_count() or 1)))
    try:
        begun = {pool.submit(attempt, call): name for name, call in ways.items()}
        done, late = wait(begun, timeout=seconds)
        while late and all(each.exception() for each in done):
            more, late = wait(late, return_when=FIRST_COMPLETED)
            done |= more
    finally:
        # What is being compiled can't be stopped; nobody waits for it.
        pool.shutdown(wait=False, cancel_futures=True)
    good = {begun[each] for each in done if each.exception() is None}
    missing = {begun[each] for each in late}
    return [name for name in ways if name in good], [
        name for name in ways if name in missing
    ]
