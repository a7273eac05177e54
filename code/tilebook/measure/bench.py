"""The protocol: check first, then time all providers in turn, round after round."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from . import verify
from .errors import TimingError, WrongResult
from .provider import Provider
from .provider import calls as provided
from .record import Row
from .timing import Budget, Call, Samples, Timer, Timing, here

# Inputs rotate until this many times L2 has gone by before one is seen again.
ROTATE_L2 = 8
MAX_SETS = 1024

Progress = Callable[[str], None]
Case = TypeVar("Case")


class Bench:
    """What an experiment measures with; it gathers the rows.

    Args:
        op: the default operator of its rows.
        timer: this process's GPU by default.
        budget: how much measuring is enough.
        seed: of the inputs; fresh by default.
        progress: told what is being measured.
    """

    def __init__(
        self,
        op: str,
        *,
        timer: Timer | None = None,
        budget: Budget | None = None,
        seed: int | None = None,
        progress: Progress = lambda what: None,
    ) -> None:
        self.op = op
        self.timer = timer or here()
        self.budget = budget or Budget()
        self.seed = int.from_bytes(os.urandom(4)) if seed is None else seed
        self.rows: list[Row] = []
        self._progress = progress
        torch.manual_seed(self.seed)

    def choose(self, cases: Sequence[Case], brief: Sequence[Case]) -> Sequence[Case]:
        """Pick the cases to measure.

        Args:
            cases: all, for a record.
            brief: those among them that the chapter's figures, values and claims need.

        Returns:
            One of the two, by the budget.
        """
        return brief if self.budget.brief else cases

    def compare(
        self,
        *,
        shape: Mapping[str, int],
        dtype: torch.dtype,
        providers: Mapping[str, Provider],
        make_inputs: Callable[[], Sequence[Any]],
        reference: Callable[..., Any],
        make_output: Callable[..., torch.Tensor] = lambda x, *_: torch.empty_like(x),
        op: str | None = None,
        bytes: float | None = None,
        flops: float | None = None,
        regimes: Sequence[str] = ("cold", "steady"),
        length: int = 1,
        along: int | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> list[Row]:
        """Check several implementations on one case, then time them in turn.

        Args:
            shape: the case's dimensions by name, such as ``{"m": 1, "n": 4096}``.
            dtype: of the operands; for the row, and for the random inputs' maker.
            providers: by name, as the page calls them.
            make_inputs: makes one set of inputs, random normal; called once per
                rotating set.
            reference: the same in PyTorch, called with float64 inputs.
            make_output: makes the buffer of a provider that takes ``out=``, from the
                inputs; by default like the first of them.
            op: the operator, if not the experiment's.
            bytes: compulsory traffic: each input read once, each output written once.
            flops: the model's arithmetic.
            regimes: "cold", "steady" or both.
            length: terms summed for each output element, for the error bound.
            along: dimension along which the reference may be cut into independent
                pieces; give it wherever tensors may have gigabytes.
            extra: numbers of your own for each row; beside them stands ``sets``, how
                many sets of inputs rotated, and ``cached`` where they fit into L2.

        Returns:
            One row per provider and regime; they are also in `rows`.

        Raises:
            WrongResult: a provider is wrong or its repeats differ. Nothing was timed.
            TimingError: a call can't be recorded into a graph.
        """
        unknown = set(regimes) - {"cold", "steady"}
        if unknown or not providers or not regimes:
            raise ValueError(
                "compare needs providers, and regimes among 'cold' and 'steady'; got "
                f"{sorted(providers)} and {list(regimes)}"
            )
        dtype_name = str(dtype).removeprefix("torch.")
        case = ", ".join(f"{k}={v}" for k, v in shape.items())
        case = f"{op or self.op} {case} {dtype_name}"
        # Code compiled for earlier shapes would count against a limit on recompiling.
        torch.compiler.reset()
        sets, outputs, cached = self._sets(make_inputs, make_output)
        own = {**(extra or {}), "sets": len(sets)} | ({"cached": 1} if cached else {})
        if self.budget.brief:
            ours = [each for each in providers.values() if each.ours and each.fn]
            self.timer.warm([provided(each, sets, outputs)[0] for each in ours])
        calls, checked = {}, {}
        for name, provider in providers.items():
            self._progress(f"{case}: checking {name}")
            calls[name] = provided(provider, sets, outputs)
            try:
                checked[name] = self._check(
                    provider, calls[name], sets, outputs, reference, along, length
                )
            except WrongResult as error:
                raise WrongResult(f"{name} on {case}: {error}") from error
        rows = []
        for regime in regimes:
            self._progress(f"{case}: timing, {regime}")
            timings = self._rounds(regime, calls)
            for name, provider in providers.items():
                error, bound = checked[name]
                rows.append(
                    self.row(
                        impl=name,
                        ours=provider.ours,
                        op=op,
                        shape=shape,
                        dtype=dtype,
                        regime=regime,
                        timing=timings[name],
                        bytes=bytes,
                        flops=flops,
                        relative_error=error,
                        error_bound=bound,
                        extra=own,
                    )
                )
        return rows

    def row(
        self,
        *,
        impl: str,
        shape: Mapping[str, int],
        dtype: torch.dtype | str,
        timing: Timing,
        regime: str = "other",
        ours: bool = False,
        op: str | None = None,
        bytes: float | None = None,
        flops: float | None = None,
        relative_error: float | None = None,
        error_bound: float | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> Row:
        """Add a row that an experiment measured in its own way.

        Args:
            impl: the implementation's name.
            shape: the case's dimensions by name.
            dtype: of the operands.
            timing: from `interleaved`, `time_cold`, `time_steady` or `time_host`.
            regime: "cold", "steady", "host" or "other".
            ours: whether it is this book's.
            op: the operator, if not the experiment's.
            bytes: compulsory traffic; gives GB/s.
            flops: the model's arithmetic; gives TFLOP/s.
            relative_error: against a float64 reference.
            error_bound: what is allowed.
            extra: numbers of your own.

        Returns:
            The row, which is also in `rows`.
        """
        own = dict(extra or {}) | ({"host_bound": 1} if timing.host_bound else {})
        row = {
            "impl": impl,
            "ours": ours,
            "op": op or self.op,
            "shape": dict(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "regime": regime,
            "ms": _short(timing.ms),
            "ms_low": _short(timing.low),
            "ms_high": _short(timing.high),
            "rounds": [_short(ms) for ms in timing.rounds],
            "bytes": bytes,
            "flops": flops,
            "gbps": None if bytes is None else _short(bytes / timing.ms / 1e6),
            "tflops": None if flops is None else _short(flops / timing.ms / 1e9),
            "relative_error": _short(relative_error),
            "error_bound": _short(error_bound),
            "extra": {k: _short(v) for k, v in own.items()},
        }
        self.rows.append(row)
        return row

    def interleaved(
        self, timers: Mapping[str, Callable[[], Timing]]
    ) -> dict[str, Timing]:
        """Time several things in turn, round after round.

        Args:
            timers: by name, what takes one timing, such as
                ``lambda: bench.time_host(launch)``.

        Returns:
            By name, the median over the rounds and its range.
        """
        seen: dict[str, list[Samples]] = {name: [] for name in timers}
        for n in range(self.budget.rounds):
            self._progress(f"{self.op}: round {n + 1} of {self.budget.rounds}")
            for name, take in timers.items():
                timing = take()
                seen[name].append(Samples([timing.ms], timing.host_bound))
        return {name: Timing.over(samples) for name, samples in seen.items()}

    def time_cold(self, call: Call | Sequence[Call]) -> Timing:
        """`timing.time_cold` with this bench's device and budget."""
        several = (call,) if callable(call) else tuple(call)
        return Timing.of(self.timer.cold(several, self.budget.seconds))

    def time_steady(
        self, calls: Call | Sequence[Call], *, before: Call | None = None
    ) -> Timing:
        """`timing.time_steady` with this bench's device and budget.

        Args:
            calls: what is timed, in turn.
            before: called once before the samples, to fill an L2 that is empty then.
        """
        several = (calls,) if callable(calls) else tuple(calls)
        about = self.timer.cold(several, self.budget.seconds / 10).median
        graph = self.timer.capture({"call": several}, {"call": about})["call"]
        if before is not None:
            before()
        return Timing.of(graph.sample(self.budget.seconds))

    def time_host(self, call: Call, *, wait: bool = False) -> Timing:
        """`timing.time_host` with this bench's device and budget."""
        return Timing.of(self.timer.host(call, self.budget.seconds, wait))

    def _sets(
        self,
        make_inputs: Callable[[], Sequence[Any]],
        make_output: Callable[..., torch.Tensor],
    ) -> tuple[list[tuple[Any, ...]], list[torch.Tensor], bool]:
        """Make rotating inputs and outputs: enough to outlast L2, or what fits.

        Tiny ones can't outlast it: whether what comes back is cached is said last.
        """
        sets, outputs = [], []
        room = self.timer.free_bytes() // 3
        wanted = 1
        while len(sets) < wanted:
            sets.append(tuple(make_inputs()))
            outputs.append(make_output(*sets[-1]))
            if len(sets) == 1:
                held = [x for x in sets[0] if isinstance(x, torch.Tensor)]
                size = sum(x.nbytes for x in (*held, outputs[0])) or 1
                enough = math.ceil(ROTATE_L2 * self.timer.l2_bytes / size)
                wanted = min(max(3, enough), MAX_SETS)
                if wanted * size > room:
                    wanted = max(1, room // size)
                    if wanted * size < 3 * self.timer.l2_bytes:
                        raise TimingError(
                            f"no memory for inputs that outlast L2: {room} bytes free"
                        )
        return sets, outputs, wanted * size < 3 * self.timer.l2_bytes

    def _check(
        self,
        provider: Provider,
        calls: Sequence[Call],
        sets: Sequence[tuple[Any, ...]],
        outputs: Sequence[torch.Tensor],
        reference: Callable[..., Any],
        along: int | None,
        length: int,
    ) -> tuple[float, float]:
        """Check a provider for right results and equal repeats.

        The last set tells whoever gives the first answer again; with gigabytes, a
        second check would take longer than the timing.
        """
        found = []
        asked = {"along": along, "length": length, "bound": provider.bound}
        large = outputs[0].numel() > verify.PIECE
        for i in [0] if large else sorted({0, len(sets) - 1}):
            out = outputs[i] if provider.out else None
            seen = verify.verify(calls[i], sets[i], reference, out=out, **asked)
            found.append(seen)
        if not provider.nondeterministic:
            verify.repeat(calls[0])
        self.timer.synchronize()
        return max(error for error, _ in found), found[0][1]

    def _rounds(
        self, regime: str, calls: Mapping[str, Sequence[Call]]
    ) -> dict[str, Timing]:
        seconds = self.budget.seconds
        if regime == "cold":
            take = {
                name: functools.partial(self.timer.cold, each, seconds)
                for name, each in calls.items()
            }
        else:
            about = {
                name: self.timer.cold(each, seconds / 10).median
                for name, each in calls.items()
            }
            graphs = self.timer.capture(calls, about)
            take = {
                name: functools.partial(graph.sample, seconds)
                for name, graph in graphs.items()
            }
        seen: dict[str, list[Samples]] = {name: [] for name in take}
        for _ in range(self.budget.rounds):
            for name, sample in take.items():
                seen[name].append(sample())
        return {name: Timing.over(samples) for name, samples in seen.items()}


def _short(value: float | None) -> float | None:
    """Six digits: more than a clock can tell."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}")
