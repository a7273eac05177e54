"""A device whose time is made up: what an experiment does can be tested anywhere.

Calls really run (interpreted, on small inputs), so results are checked as they are on a
GPU; only the times come from a function. `log` tells in which order things were timed.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from tilebook import measure

from . import registry, runner, verify
from .bench import Bench
from .provider import Provider
from .record import Record
from .timing import Budget, Call, Samples, Timing

CEILINGS = {
    "copy_gbps": 1000.0,
    "read_gbps": 1050.0,
    "add_gbps": 1020.0,
    "matmul_tflops": 100.0,
}


@dataclasses.dataclass
class Simulated:
    """A timer (see `timing.Timer`) for tests.

    Attributes:
        cost: milliseconds that a call takes.
        l2_bytes: size of the made-up cache.
        memory: bytes that inputs may take.
        looks: what successive looks at the ceilings find, over and over.
        log: what was timed, in order: pairs of a regime and the call.
    """

    cost: Callable[[Call], float] = lambda call: 1.0
    l2_bytes: int = 2**10
    memory: int = 2**30
    looks: Sequence[Mapping[str, float]] = (CEILINGS,)
    log: list[tuple[str, Call]] = dataclasses.field(default_factory=list)
    _looked: int = 0

    def free_bytes(self) -> int:
        return self.memory

    def synchronize(self) -> None:
        pass

    def warm(self, calls: Sequence[Call]) -> None:
        # Interpreted kernels compile nothing, nor can they run several at a time.
        self.log += [("warm", call) for call in calls]

    def cold(self, calls: Sequence[Call], seconds: float) -> Samples:
        return self._take("cold", calls)

    def capture(
        self, group: Mapping[str, Sequence[Call]], ms: Mapping[str, float]
    ) -> dict[str, "Replayed"]:
        return {name: Replayed(self, calls) for name, calls in group.items()}

    def host(self, call: Call, seconds: float, wait: bool) -> Samples:
        return self._take("wait" if wait else "host", [call])

    def ceilings(self) -> dict[str, float]:
        self._looked += 1
        return dict(self.looks[(self._looked - 1) % len(self.looks)])

    def sensors(self) -> dict[str, float | None]:
        names = ("sm_mhz", "memory_mhz", "power_limit_w", "temperature_c")
        return dict.fromkeys(names)

    def provenance(self) -> dict[str, Any]:
        names = {"gpu": "Simulated", "slug": "simulated", "driver": None}
        return names | {"l2_bytes": self.l2_bytes}

    def _take(self, regime: str, calls: Sequence[Call]) -> Samples:
        # One of the rotating sets does: results are checked, and times made up.
        calls[0]()
        self.log.append((regime, calls[0]))
        return Samples([self.cost(calls[0])])


@dataclasses.dataclass
class Replayed:
    """What the simulated device recorded as a graph."""

    timer: Simulated
    calls: Sequence[Call]

    def sample(self, seconds: float) -> Samples:
        """Run the calls once; see `timing.Replay`."""
        return self.timer._take("steady", self.calls)


class Untimed(Bench):
    """A bench that runs nothing that is to be compared.

    It notes a row of a millisecond for each provider and regime: for tests of which
    cases an experiment has.
    """

    def compare(
        self, *, shape, dtype, providers, bytes, regimes=("cold", "steady"), **_
    ):
        """Note the rows of a comparison; see `Bench.compare`."""
        for regime, (name, each) in itertools.product(regimes, providers.items()):
            self.row(
                impl=name,
                ours=each.ours,
                shape=shape,
                dtype=dtype,
                regime=regime,
                timing=Timing(1.0, 1.0, 1.0, (1.0,)),
                bytes=bytes,
            )


def eager(fn: Callable[..., Any]) -> Provider:
    """In place of `measure.compiled`: the function as it is, not compiled.

    Args:
        fn: in PyTorch's own operations.

    Returns:
        A provider that is built when it comes up, as a compiled one is.
    """
    return Provider(build=lambda: fn)


def rehearse(
    name: str,
    *,
    rounds: int = 1,
    repeats: int = 1,
    brief: bool = False,
    compiled: Callable[..., Provider] = eager,
) -> Record:
    """Run an experiment on a simulated clock: real kernels and results, made-up times.

    Where kernels are interpreted, the caller makes its sizes small first.

    Args:
        name: the experiment's name.
        rounds: as those of a `Budget`.
        repeats: how often a result has to come out the same (see `verify.repeat`).
        brief: whether only the cases of a live build are run.
        compiled: in place of `measure.compiled`.

    Returns:
        A record. Its inputs are the same each time: tiny sums of fresh numbers may
        cancel, and have no relative error.

    Raises:
        UnknownExperiment: no chapter declares it.
        RecordError: the experiment gave no rows, or rows that aren't of the form.
        WrongResult: an implementation computes something wrong.
    """
    with (
        mock.patch.object(verify.repeat, "__defaults__", (repeats,)),
        mock.patch.object(measure, "compiled", compiled),
    ):
        return runner.measure(
            registry.find(name),
            # A few sets of inputs, however small, outlast such a cache.
            Simulated(l2_bytes=1),
            Budget(rounds, 0.001, brief),
            attempts=1,
            seed=1,
        )


def retimed(record: Record, factor: float, **wanted: Any) -> Record:
    """What a record would be if some of its rows had taken longer, or less long.

    Args:
        record: any.
        factor: multiplies their times.
        **wanted: which rows (see `Record.select`).

    Returns:
        A copy with their times and rates changed; what is in `extra` stays.

    Raises:
        LookupError: no row is like that.
    """
    record = copy.deepcopy(record)
    rows = record.select(**wanted)
    if not rows:
        raise LookupError(f"{record.name} has no row with {wanted}")
    for row in rows:
        for field in ("ms", "ms_low", "ms_high"):
            row[field] *= factor
        row["rounds"] = [ms * factor for ms in row["rounds"]]
        for rate in ("gbps", "tflops"):
            row[rate] = row[rate] and row[rate] / factor
    return record
