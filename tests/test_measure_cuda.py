"""The CUDA clock, on a simulated stream: host and device time run apart, as there."""

import threading
import types
import weakref

import pytest
import torch

from tilebook.measure import TimingError, cuda, timing


class Stream:
    """One in-order queue of a device, and the host that fills it, in virtual time.

    Times are milliseconds. Queueing costs the host `queue_ms`; work starts when the
    device is free and the host has queued it.
    """

    def __init__(self, queue_ms: float = 0.01) -> None:
        self.queue_ms = queue_ms
        self.host = 0.0
        self.free = 0.0
        self.flushed = 0
        self.capturing: list[float] | None = None
        self.waiting = "default"

    def clock(self) -> int:
        self.host += 1e-4
        return int(self.host * 1e6)

    def work(self, ms: float) -> None:
        self.host += self.queue_ms
        if self.capturing is not None:
            self.capturing.append(ms)
            return
        self.free = max(self.free, self.host) + ms

    def item(self) -> None:
        if self.waiting == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        self.synchronize()

    def synchronize(self) -> None:
        if self.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.host = max(self.host, self.free)


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def record(self) -> None:
        self.stream.host += 0.001
        self.at = max(self.stream.free, self.stream.host)

    def query(self) -> bool:
        return self.at <= self.stream.host

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


class Graph:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.launch_ms = 0.05

    def capture_begin(self, pool, capture_error_mode) -> None:
        self.stream.capturing = []

    def capture_end(self) -> None:
        self.kernels, self.stream.capturing = self.stream.capturing, None

    def replay(self) -> None:
        self.stream.host += self.launch_ms
        self.stream.work(sum(self.kernels))


class Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def wait_stream(self, other):
        return None


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def clock(stream, monkeypatch) -> cuda.Cuda:
    fake = types.SimpleNamespace(
        current_device=lambda: None,
        device=lambda where: Nothing(),
        get_device_properties=lambda where: types.SimpleNamespace(L2_cache_size=2**20),
        Stream=Nothing,
        Event=lambda enable_timing: Event(stream),
        CUDAGraph=lambda: Graph(stream),
        empty_cache=Nothing,
        graph_pool_handle=object,
        stream=lambda s: Nothing(),
        current_stream=Nothing,
        synchronize=stream.synchronize,
        _sleep=lambda cycles: stream.work(cycles / cuda._CYCLES_PER_MS),
        mem_get_info=lambda: (2**30, 2**31),
        memory_reserved=lambda: 2**20,
        get_sync_debug_mode=lambda: stream.waiting,
        set_sync_debug_mode=lambda mode: setattr(stream, "waiting", mode),
        memory_allocated=lambda: 2**19,
    )
    made = cuda.Cuda(fake, stream.clock, where="cpu")

    def flush(self):
        stream.flushed += 1
        stream.work(0.06)

    made._flush = types.SimpleNamespace(sum=lambda: flush(made))
    return made


def test_calls_compile_several_at_a_time_and_failures_wait_for_their_turn(
    clock, stream
):
    together = threading.Barrier(2, timeout=60)
    met = []

    def compiles():
        met.append(together.wait())
        stream.work(1.0)

    def fails():
        raise ValueError("not this one")

    clock.warm([compiles, fails, compiles])
    assert sorted(met) == [0, 1]
    assert stream.host >= stream.free > 0


def test_cold_times_the_device_and_not_the_host(clock, stream):
    found = clock.cold([lambda: stream.work(0.02)], 0.05)
    assert found.median == pytest.approx(0.02)
    assert max(found.ms) == pytest.approx(0.02)
    assert not found.host_bound


def test_every_cold_call_is_flushed(clock, stream):
    found = clock.cold([lambda: stream.work(0.02)], 0.01)
    assert stream.flushed >= len(found.ms) >= 5


def test_a_host_slower_than_the_device_is_not_what_is_timed(clock, stream):
    # 5 ms of Python before a kernel of 0.02 ms: the spin grows until it covers them.
    def slow():
        stream.host += 2.0
        stream.work(0.02)

    found = clock.cold([slow], 0.1)
    assert found.median == pytest.approx(0.02)
    assert not found.host_bound


def test_a_hiccup_of_the_host_is_thrown_away(clock, stream):
    calls = iter(range(10**6))

    def moody():
        stream.host += 3.0 if next(calls) % 7 == 6 else 0.0
        stream.work(0.02)

    found = clock.cold([moody], 0.2)
    assert max(found.ms) == pytest.approx(0.02)


def test_a_call_that_waits_for_the_device_is_said_to(clock, stream):
    def waits():
        stream.work(0.02)
        stream.synchronize()

    found = clock.cold([waits], 0.05)
    assert found.host_bound
    assert timing.Timing.of(found).host_bound


def test_calls_take_turns(clock, stream):
    seen = []
    calls = [lambda i=i: (seen.append(i), stream.work(0.01)) for i in range(3)]
    clock.cold(calls, 0.01)
    turns = seen[3:]
    assert turns == [i % 3 for i in range(len(turns))]


def test_the_budget_bounds_the_time(clock, stream):
    before = stream.host
    found = clock.cold([lambda: stream.work(1.0)], 0.05)
    assert 20 <= len(found.ms) <= 60
    assert stream.host - before < 100
    # Slow calls: five samples, however small the budget.
    assert len(clock.cold([lambda: stream.work(50.0)], 0.01).ms) == 5
    assert len(clock.cold([lambda: stream.work(0.001)], 10.0).ms) <= 110


def test_a_graph_holds_milliseconds_of_work_in_whole_turns(clock, stream):
    calls = [lambda: stream.work(0.01)] * 3
    graph = clock.capture({"a": calls}, {"a": 0.01})["a"]
    assert graph.count == 201
    assert graph.sample(0.05).median == pytest.approx(0.01)
    long = clock.capture({"a": calls}, {"a": 5.0})["a"]
    assert long.count == 3
    tiny = clock.capture({"a": calls}, {"a": 1e-6})["a"]
    assert tiny.count == 1023


def test_launching_a_graph_is_not_timed(clock, stream):
    graph = clock.capture({"a": [lambda: stream.work(0.01)]}, {"a": 0.01})["a"]
    graph._graph.launch_ms = 2.0
    found = graph.sample(0.05)
    assert found.median == pytest.approx(0.01)
    assert not found.host_bound


def test_outputs_live_for_a_turn_so_that_they_do_not_share_memory(clock, stream):
    alive = weakref.WeakSet()
    counts = []

    def call():
        counts.append(len(alive))
        out = Nothing()
        alive.add(out)
        return out

    clock.capture({"a": [call] * 3}, {"a": 0.1})
    assert counts[:4] == [0, 0, 1, 2]
    assert set(counts[4:]) == {3}


@pytest.mark.parametrize(
    ("wait", "why"), [("item", "synchronizing"), ("synchronize", "capturing")]
)
def test_a_call_that_waits_cannot_be_recorded_and_is_named(clock, stream, wait, why):
    def waits():
        stream.work(0.01)
        getattr(stream, wait)()

    group = {"good": [lambda: stream.work(0.01)], "bad": [waits]}
    with pytest.raises(TimingError, match=rf"bad can't be recorded.*{why}"):
        clock.capture(group, {"good": 0.01, "bad": 0.01})
    assert stream.capturing is None
    assert stream.waiting == "default"


def test_host_time_leaves_the_device_out(clock, stream):
    found = clock.host(lambda: stream.work(0.5), 0.05, wait=False)
    assert found.median == pytest.approx(0.01, rel=0.01)
    waited = clock.host(lambda: stream.work(0.5), 0.05, wait=True)
    assert waited.median == pytest.approx(0.51, rel=0.01)


def test_memory_in_the_allocators_hands_counts_as_free(clock):
    assert clock.free_bytes() == 2**30 + 2**20 - 2**19


def test_a_timing_sums_up_its_samples():
    one = timing.Timing.of(timing.Samples([3.0, 1.0, 2.0, 9.0, 4.0]))
    assert (one.ms, one.low, one.high, one.rounds) == (3.0, 2.0, 9.0, (3.0,))
    rounds = [timing.Samples([1.0, 2.0, 3.0]), timing.Samples([7.0]), one_of(5.0)]
    over = timing.Timing.over(rounds)
    assert (over.ms, over.low, over.high) == (5.0, 2.0, 7.0)
    assert over.rounds == (2.0, 7.0, 5.0)


def one_of(ms):
    return timing.Samples([ms])


@pytest.mark.parametrize(("rounds", "seconds"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_budgets_are_positive(rounds, seconds):
    with pytest.raises(ValueError, match="positive"):
        timing.Budget(rounds, seconds)


@pytest.mark.gpu
def test_this_gpu_is_timed_within_its_ceilings():
    clock = timing.here()
    ceilings = clock.ceilings()
    n = 2**26
    sets = [[torch.randn(n, device="cuda") for _ in range(3)] for _ in range(3)]
    calls = [lambda s=s: torch.add(s[0], s[1], out=s[2]) for s in sets]
    floor = 12 * n / (1.1 * max(v for k, v in ceilings.items() if "gbps" in k) * 1e6)
    cold = timing.time_cold(calls)
    steady = timing.time_steady(calls)
    assert floor < steady.ms < 2 * floor
    assert floor * 0.8 < cold.ms < 2 * floor
    assert not cold.host_bound
    host = timing.time_host(calls[0])
    assert 1e-4 < host.ms < 0.2


@pytest.mark.gpu
def test_cached_data_are_faster_than_cold_ones_on_this_gpu():
    x, y, out = (torch.randn(2**20, device="cuda") for _ in range(3))

    def call():
        torch.add(x, y, out=out)

    assert timing.time_steady(call).ms < 0.8 * timing.time_cold(call).ms


@pytest.mark.gpu
def test_a_call_that_waits_is_found_out_on_this_gpu():
    x = torch.randn(2**20, device="cuda")
    assert timing.time_cold(lambda: x.sum().item()).host_bound
    with pytest.raises(TimingError):
        timing.time_steady(lambda: x.sum().item())
    # The stream is usable afterwards.
    assert timing.time_steady(x.sum).ms > 0


def test_spare_memory_is_given_back_before_a_graph_is_recorded(clock, stream):
    given = []
    clock._cuda.empty_cache = lambda: given.append("back")

    def call():
        assert given == ["back"]
        stream.work(0.5)

    clock.capture({"a": [call], "b": [call]}, {"a": 0.5, "b": 0.5})
    assert given == ["back"]
