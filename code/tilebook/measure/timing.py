"""How one call is timed: cold, steady, or on the host, by a clock that can be replaced.

`Timer` is what the protocol needs of a device; `tilebook.measure.cuda` has the real one
and the tests have one whose time is made up.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from tilebook import device

from .lock import gpu_alone

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much measuring is enough.

    Attributes:
        rounds: times that all providers of a case are timed in turn.
        seconds: wall-clock time for one provider in one round and regime.
        brief: whether an experiment may leave out cases that no text or claim needs
            (see `Bench.choose`).
    """

    rounds: int = 5
    seconds: float = 0.03
    brief: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.seconds > 0:
            raise ValueError(f"rounds and seconds must be positive, got {self}")


LIVE = Budget(3, 0.006, brief=True)
"""That of a build, for which somebody waits."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Times of single calls.

    Attributes:
        ms: milliseconds, one per sample.
        host_bound: whether the device waited for the host inside the timed region, so
            that the times are the host's.
    """

    ms: Sequence[float]
    host_bound: bool = False

    @property
    def median(self) -> float:
        """The median, in milliseconds."""
        return statistics.median(self.ms)


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one call takes.

    Attributes:
        ms: the median, in milliseconds.
        low: the 20th percentile (over rounds: the lowest).
        high: the 80th percentile (over rounds: the highest).
        rounds: the single values behind a median over rounds, else the median alone.
        host_bound: see `Samples`.
    """

    ms: float
    low: float
    high: float
    rounds: tuple[float, ...]
    host_bound: bool = False

    @classmethod
    def of(cls, samples: Samples) -> "Timing":
        """Sum up the samples of one sitting."""
        ms, tenth = sorted(samples.ms), len(samples.ms) / 10
        low, high = ms[int(2 * tenth)], ms[min(len(ms) - 1, int(8 * tenth))]
        return cls(samples.median, low, high, (samples.median,), samples.host_bound)

    @classmethod
    def over(cls, rounds: Sequence[Samples]) -> "Timing":
        """Sum up several rounds: the median of their medians, and its range."""
        each = tuple(x.median for x in rounds)
        bound = any(x.host_bound for x in rounds)
        return cls(statistics.median(each), min(each), max(each), each, bound)


class Replay(Protocol):
    """Many calls, recorded once and launched as one."""

    def sample(self, seconds: float) -> Samples:
        """Replay for about so long.

        Args:
            seconds: wall-clock time.

        Returns:
            Milliseconds per call, one sample per replay.
        """


class Timer(Protocol):
    """A device, as far as the protocol knows it."""

    l2_bytes: int

    def free_bytes(self) -> int:
        """Memory that inputs and outputs may take."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def warm(self, calls: Sequence[Call]) -> None:
        """Let calls compile what they launch, several at a time; what fails is ignored.

        Args:
            calls: each is called at most once.
        """

    def cold(self, calls: Sequence[Call], seconds: float) -> Samples:
        """Time single calls, each after the caches were flushed.

        Args:
            calls: the same work on different inputs, taken in turn.
            seconds: wall-clock time to spend, flushing included.
        """

    def capture(
        self, group: Mapping[str, Sequence[Call]], ms: Mapping[str, float]
    ) -> dict[str, Replay]:
        """Record calls into graphs, whose outputs may share memory.

        Args:
            group: by name, the same work on different inputs, taken in turn.
            ms: about what one call takes, to decide how many a graph holds.

        Returns:
            A graph by name.

        Raises:
            TimingError: one of them can't be recorded; it is named.
        """

    def host(self, call: Call, seconds: float, wait: bool) -> Samples:
        """Time the host: how long a call takes to return, on an idle device.

        Args:
            call: what to time.
            seconds: wall-clock time to spend.
            wait: whether the device's work and the wait for it belong to the call.
        """

    def ceilings(self) -> dict[str, float]:
        """Measure this card's limits: the fields of `schema.CEILINGS`."""

    def sensors(self) -> dict[str, float | None]:
        """Read clocks (MHz), power limit (W) and temperature (°C) under load."""

    def provenance(self) -> dict[str, Any]:
        """Name the hardware and its driver: part of `schema.PROVENANCE`."""


@functools.cache
def here() -> Timer:
    """The timer of this process's GPU.

    Raises:
        HardwareError: there is no GPU, or this process interprets kernels.
    """
    device.require("gpu")
    from .cuda import Cuda

    return Cuda(torch.cuda)


def time_cold(
    call: Call | Sequence[Call], *, seconds: float = 0.05, timer: Timer | None = None
) -> Timing:
    """Time a call whose inputs are in memory and not in the cache.

    Args:
        call: what to time, or the same on different inputs, taken in turn.
        seconds: wall-clock time to spend.
        timer: this process's GPU by default.

    Returns:
        Median and spread.

    Raises:
        HardwareError: there is no GPU.

    Notes:
        What a call writes may still be in L2 when its clock stops, so a call that
        writes less than L2 holds can look faster than memory.
    """
    with gpu_alone():
        return Timing.of((timer or here()).cold(_several(call), seconds))


def time_steady(
    calls: Call | Sequence[Call], *, seconds: float = 0.05, timer: Timer | None = None
) -> Timing:
    """Time a call among many of its kind, launched as one CUDA graph.

    Args:
        calls: the same work on different inputs, taken in turn; with inputs that
            together don't exceed L2, the time is that of cached data.
        seconds: wall-clock time to spend.
        timer: this process's GPU by default.

    Returns:
        Median and spread, per call.

    Raises:
        HardwareError: there is no GPU.
        TimingError: the calls can't be recorded into a graph.
    """
    with gpu_alone():
        timer, calls = timer or here(), _several(calls)
        about = timer.cold(calls, seconds / 10).median
        graph = timer.capture({"": calls}, {"": about})[""]
        return Timing.of(graph.sample(seconds))


def time_host(
    call: Call,
    *,
    seconds: float = 0.05,
    wait: bool = False,
    timer: Timer | None = None,
) -> Timing:
    """Time what a call costs the host, on an idle stream.

    Args:
        call: what to time.
        seconds: wall-clock time to spend.
        wait: False times the launch alone, until the call returns; True times until
            the device has finished and the host knows.
        timer: this process's GPU by default.

    Returns:
        Median and spread.

    Raises:
        HardwareError: there is no GPU.
    """
    with gpu_alone():
        return Timing.of((timer or here()).host(call, seconds, wait))


def _several(calls: Call | Sequence[Call]) -> Sequence[Call]:
    several = (calls,) if callable(calls) else tuple(calls)
    if not several:
        raise ValueError("calls must hold at least one call, got none")
    return several
