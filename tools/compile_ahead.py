"""Compile what experiments will launch, in several processes, before they measure.

    python tools/compile_ahead.py matmul-bf16 --workers 14

Each process takes a share of the cases, and calls each of the book's implementations
once. What they compile stays in Triton's cache, where the experiment finds it: a record
whose kernels are compiled one by one waits for ptxas longer than for the GPU. Where
kernels race, cases have most of them in common: with ``--racing`` each process takes a
share of the ways of every case first.
"""

import argparse
import contextlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch

from tilebook.matmul import searching, ways
from tilebook.measure import provider, registry
from tilebook.measure.bench import Bench
from tilebook.measure.provider import Provider
from tilebook.measure.registry import Experiment

ENTRANTS = ways.entrants


class Done(Exception):
    """An experiment measures in a way of its own: nothing is known to be compiled."""


class Elsewhere(Exception):
    """A case's other ways are other processes'."""


class Ahead(Bench):
    """Calls each implementation of a share of the cases once, and measures nothing.

    Args:
        op: as for a `Bench`.
        share: which of how many parts is this process's.
        racing: whether to compile a share of the ways of all cases before.
    """

    def __init__(self, op: str, share: tuple[int, int], racing: bool = False) -> None:
        super().__init__(op, timer=_NoClock())
        self._racing = racing
        self._part, self._parts = share
        self._cases = 0
        self.called: list[str] = []
        """Case by case, the implementations that came back."""
        self.later: list[Callable[[], None]] = []
        """The cases of this share, to be called when its ways are compiled."""

    def entrants(self, task: Any, field: str = "matmul") -> Iterator[ways.Way]:
        """Those of the ways that would race which are this process's; then no more."""
        for way in ENTRANTS(task, field):
            # The same in every process.
            if zlib.crc32(repr(way).encode()) % self._parts == self._part:
                yield way
        raise Elsewhere

    def compare(
        self,
        *,
        shape: dict[str, int],
        dtype: torch.dtype,
        providers: dict[str, Provider],
        make_inputs: Callable[[], Sequence[Any]],
        make_output: Callable[..., Any] = lambda x, *_: torch.empty_like(x),
        **_: Any,
    ) -> list:
        """Compile a case, if it is of this share."""
        mine = self._cases % self._parts == self._part
        self._cases += 1
        ours = {name: each for name, each in providers.items() if each.ours}
        if not ours:
            return []

        def call() -> None:
            inputs = tuple(make_inputs())
            out = make_output(*inputs)
            for name, each in ours.items():
                # What fails here fails where it counts, and says so there.
                with contextlib.suppress(Exception):
                    (call,) = provider.calls(each, [inputs], [out])
                    call()
                    self.called.append(f"{name} {shape} {dtype}")
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                # The other processes need room, too.
                torch.cuda.empty_cache()

        if self._racing:
            with mock.patch.object(ways, "entrants", self.entrants):
                call()
        if mine:
            self.later.append(call)
        return []

    def _not_for_this(self, *args: Any, **more: Any) -> Any:
        raise Done

    row = interleaved = time_cold = time_steady = time_host = _not_for_this


class _NoClock:
    l2_bytes = 0


def ahead(
    experiment: Experiment, share: tuple[int, int], racing: bool = False
) -> list[str]:
    """Compile a share of an experiment's cases.

    Args:
        experiment: any; of one that doesn't only compare, what comes before.
        share: which of how many parts.
        racing: whether its kernels race.

    Returns:
        What was called.
    """
    bench = Ahead(experiment.op, share, racing)
    with searching.compiling():
        with contextlib.suppress(Done):
            experiment.function(bench)
        for call in bench.later:
            call()
    return bench.called


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the process's own by default.

    Returns:
        0, or 1 if a process ended badly.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("prefix", help="of the experiments' names")
    parser.add_argument("--workers", type=int, default=4, metavar="N")
    parser.add_argument("--racing", action="store_true", help="its kernels race")
    parser.add_argument("--part", type=int, metavar="I", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.part is not None:
        for experiment in registry.experiments():
            if experiment.name.startswith(asked.prefix):
                ahead(experiment, (asked.part, asked.workers), asked.racing)
        return 0
    command = [sys.executable, __file__, asked.prefix, "--workers", str(asked.workers)]
    command += ["--racing"] * asked.racing
    running = [
        subprocess.Popen([*command, "--part", str(part)])
        for part in range(asked.workers)
    ]
    codes = [process.wait() for process in running]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
