"""The clock of a CUDA (or ROCm) device.

Cold. Each timed call is preceded by a *read* of four times L2. Reading evicts the
call's operands, and it also writes back what earlier calls left dirty, so the timed
region starts with clean lines only. Clearing a buffer instead, the usual way, fills L2
with dirty lines, and writing those back is charged to the call. Calls rotate over
different inputs besides, since a line that a kernel asked to keep may outlive the read.

Events. The clock starts when the device passes the start event. If the host hasn't
queued the call by then, the host's time is measured. So the device first spins for
longer than queueing takes, and a sample whose start event has already passed when the
call is queued is thrown away and the spin doubled.

Steady. A CUDA graph takes its calls in order with no host between them. It holds at
least a few milliseconds of work, so that launching it doesn't count. Outputs that the
calls allocate are kept for one turn over the inputs, or all calls would write into one
buffer that never leaves L2.
"""

import collections
import contextlib
import gc
import itertools
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import torch

from tilebook import device

from . import provenance
from .errors import TimingError
from .timing import Call, Samples

GRAPH_MS = 2.0
GRAPH_CALLS = 1024
MAX_SAMPLES = 100
BATCH = 10

_SPIN_MS = 0.05
_MAX_SPIN_MS = 10.0
# Spinning is counted in cycles; 2 GHz is about the highest clock of today's cards, and
# on a slower one the spin lasts longer, which does no harm.
_CYCLES_PER_MS = 2_000_000


class Cuda:
    """Times calls on the current GPU.

    Args:
        cuda: ``torch.cuda``, or something that behaves like it.
        clock: host time in nanoseconds.
        where: the type of its device.
    """

    def __init__(
        self,
        cuda: ModuleType,
        clock: Callable[[], int] = time.perf_counter_ns,
        where: str = "cuda",
    ) -> None:
        self._cuda = cuda
        self._clock = clock
        self._device = torch.device(where, cuda.current_device())
        properties = cuda.get_device_properties(self._device)
        self.l2_bytes: int = properties.L2_cache_size
        self._flush: torch.Tensor | None = None
        self._stream = cuda.Stream()

    def free_bytes(self) -> int:
        free, _ = self._cuda.mem_get_info()
        spare = self._cuda.memory_reserved() - self._cuda.memory_allocated()
        return free + spare

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def warm(self, calls: Sequence[Call]) -> None:
        def attempt(call: Call) -> None:
            # Whoever fails does so again when it is checked, and is named there.
            with self._cuda.device(self._device), contextlib.suppress(Exception):
                call()

        # Triton's passes and ptxas run beside Python, and take most of the time.
        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1))) as threads:
            list(threads.map(attempt, calls))
        self._cuda.synchronize()

    def cold(self, calls: Sequence[Call], seconds: float) -> Samples:
        if self._flush is None:
            words = max(self.l2_bytes, 2**20)
            self._flush = torch.zeros(words, dtype=torch.float32, device=self._device)
        for call in calls[:3]:
            call()
        turn = itertools.cycle(calls)
        return self._events(lambda: next(turn)(), seconds, before=self._flush.sum)

    def capture(
        self, group: Mapping[str, Sequence[Call]], ms: Mapping[str, float]
    ) -> dict[str, "Graph"]:
        # What the allocator keeps for later it can't give to a graph, nor give back
        # while one is recorded.
        self._cuda.empty_cache()
        # A pool can't be used again once its graphs are gone: a new one for each group.
        pool = self._cuda.graph_pool_handle()
        found = {}
        for name, calls in group.items():
            try:
                found[name] = self._record(calls, ms[name], pool)
            except RuntimeError as error:
                raise TimingError(
                    f"{name} can't be recorded into a CUDA graph: {error}"
                ) from error
        return found

    def _record(self, calls: Sequence[Call], ms: float, pool: Any) -> "Graph":
        turns = math.ceil(GRAPH_MS / max(ms, 1e-4) / len(calls))
        count = max(1, min(turns, GRAPH_CALLS // len(calls))) * len(calls)
        graph = self._cuda.CUDAGraph()
        outputs: collections.deque[object] = collections.deque(maxlen=len(calls))
        self._stream.wait_stream(self._cuda.current_stream())
        collecting = gc.isenabled()
        # A collection could free device memory, which capturing forbids.
        gc.disable()
        try:
            with self._cuda.stream(self._stream):
                self._refuse_waiting(calls[0])
                self._cuda.synchronize()
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    for call in itertools.islice(itertools.cycle(calls), count):
                        outputs.append(call())
                finally:
                    graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        self._cuda.current_stream().wait_stream(self._stream)
        return Graph(self, graph, count, calls)

    def _refuse_waiting(self, call: Call) -> None:
        """Call once; an error if that waits for the device.

        To wait while a graph is recorded breaks the recording off, and leaves the
        memory allocator in the middle of it.
        """
        before = self._cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            # That this mode is a prototype.
            warnings.simplefilter("ignore")
            self._cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            self._cuda.set_sync_debug_mode(before)

    def host(self, call: Call, seconds: float, wait: bool) -> Samples:
        for _ in range(10):
            call()
        batch = 1 if wait else 50
        ms: list[float] = []
        self._cuda.synchronize()
        began = self._clock()
        collecting = gc.isenabled()
        gc.disable()
        try:
            while len(ms) < 10 or (
                len(ms) < 1000 and self._clock() - began < seconds * 1e9
            ):
                start = self._clock()
                for _ in range(batch):
                    call()
                if wait:
                    self._cuda.synchronize()
                ms.append((self._clock() - start) / batch / 1e6)
                self._cuda.synchronize()
        finally:
            if collecting:
                gc.enable()
        return Samples(ms)

    def ceilings(self) -> dict[str, float]:
        return self._bandwidths() | {"matmul_tflops": self._matmul_rate()}

    def _bandwidths(self) -> dict[str, float]:
        words = min(2**28, self.free_bytes() // 32)
        a, b, c = (torch.randn(words, device=self._device) for _ in range(3))
        moved: dict[str, tuple[int, Call]] = {
            "copy_gbps": (2, lambda: b.copy_(a)),
            "read_gbps": (1, a.sum),
            "add_gbps": (3, lambda: torch.add(a, b, out=c)),
        }
        return {
            name: times * a.nbytes / self._events(call, 0.05).median / 1e6
            for name, (times, call) in moved.items()
        }

    def _matmul_rate(self, n: int = 8192) -> float:
        half = torch.bfloat16 if device.has("sm80") else torch.float16
        x, y, out = (
            torch.randn(n, n, device=self._device, dtype=half) for _ in range(3)
        )

        def call() -> object:
            return torch.mm(x, y, out=out)

        # Power limits take effect within a tenth of a second: the second run counts.
        self._events(call, 0.2)
        return 2 * n**3 / self._events(call, 0.2).median / 1e9

    def sensors(self) -> dict[str, float | None]:
        x = torch.randn(4096, 4096, device=self._device)
        x.mm(x)
        self._cuda.synchronize()
        began = self._clock()
        x.mm(x)
        self._cuda.synchronize()
        each = self._clock() - began
        # Queued, not waited for: the card works while it is asked how it does.
        for _ in range(min(500, int(0.4e9 / each) + 1)):
            x.mm(x)
        found = provenance.sensors(self._identity())
        self._cuda.synchronize()
        return found

    def provenance(self) -> dict[str, Any]:
        here = device.current()
        driver = provenance.driver(self._identity()) or here.driver
        names = {"gpu": here.name, "slug": here.slug, "l2_bytes": self.l2_bytes}
        return names | {"driver": driver}

    def _identity(self) -> str:
        """What nvidia-smi knows this card by, whatever CUDA_VISIBLE_DEVICES says."""
        uuid = getattr(self._cuda.get_device_properties(self._device), "uuid", None)
        return f"GPU-{uuid}" if uuid else "0"

    def _events(
        self,
        call: Call,
        seconds: float,
        before: Call | None = None,
        queueing: float | None = None,
    ) -> Samples:
        """Time single calls with events for about so long; a few calls at least.

        How long the host takes to queue one is found out first, unless it is known.
        """
        self._cuda.synchronize()
        ms: list[float] = []
        tainted: list[float] = []
        if queueing is None:
            queueing = self._queueing_ms(call)
        spin = max(_SPIN_MS, 2 * queueing)
        began = self._clock()
        each = 0.0
        while len(ms) < 5 or (
            len(ms) < MAX_SAMPLES and self._clock() - began < seconds * 1e9
        ):
            left = seconds - (self._clock() - began) / 1e9
            batch = min(BATCH, max(1, int(left / each))) if each else 3
            at = self._clock()
            marks = [self._mark(call, spin, before) for _ in range(batch)]
            self._cuda.synchronize()
            each = (self._clock() - at) / batch / 1e9
            for start, end, late in marks:
                (tainted if late else ms).append(start.elapsed_time(end))
            if any(late for _, _, late in marks):
                if spin > _MAX_SPIN_MS and len(ms) < 5:
                    return Samples(ms + tainted, host_bound=True)
                spin = min(2 * spin, 2 * _MAX_SPIN_MS)
        return Samples(ms)

    def _mark(
        self, call: Call, spin: float, before: Call | None
    ) -> tuple[Any, Any, bool]:
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._cuda._sleep(int(spin * _CYCLES_PER_MS))
        if before:
            before()
        start.record()
        call()
        end.record()
        return start, end, start.query()

    def _queueing_ms(self, call: Call) -> float:
        """About how long the host takes to queue a call, at the second attempt."""
        taken = []
        for _ in range(3):
            start = self._clock()
            call()
            taken.append((self._clock() - start) / 1e6)
            self._cuda.synchronize()
        return statistics.median(taken)


class Graph:
    """A CUDA graph of many calls, and what keeps their inputs alive."""

    def __init__(
        self, timer: Cuda, graph: Any, count: int, calls: Sequence[Call]
    ) -> None:
        self._timer = timer
        self._graph = graph
        self._calls = calls
        self.count = count
        self._queueing: float | None = None

    def sample(self, seconds: float) -> Samples:
        """Replay for about so long; see `timing.Replay`."""
        replay = self._graph.replay
        if self._queueing is None:
            self._queueing = self._timer._queueing_ms(replay)
        found = self._timer._events(replay, seconds, queueing=self._queueing)
        each = [ms / self.count for ms in found.ms]
        return Samples(each, found.host_bound)
