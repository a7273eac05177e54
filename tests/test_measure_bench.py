"""The protocol, on a device whose time is made up."""

import collections
import itertools

import pytest
import torch

from tilebook import measure
from tilebook.measure import (
    Bench,
    Budget,
    Provider,
    WrongResult,
    provider,
    registry,
    roofline,
    runner,
    verify,
)
from tilebook.measure.simulated import CEILINGS, Simulated, rehearse
from tilebook.measure.timing import Samples, Timing

N = 512
CALLS = collections.Counter()


def inputs() -> list[torch.Tensor]:
    return [torch.randn(N) for _ in range(2)]


def plain(x, y):
    return x + y


def into(x, y, out):
    torch.add(x, y, out=out)


def case(**changes):
    return {
        "shape": {"n": N},
        "dtype": torch.float32,
        "providers": {"ours": Provider(plain, ours=True), "peer": Provider(plain)},
        "make_inputs": inputs,
        "reference": torch.add,
        "bytes": 3 * N * 4,
    } | changes


def owner(call):
    """The provider's function behind a call that the bench made."""
    into_out = call.func.__name__ == "_into"
    return call.args[0] if into_out else call.func


def test_rows_of_a_comparison():
    timer = Simulated(lambda call: 2.0 if owner(call) is plain else 4.0)
    bench = Bench("add", timer=timer, budget=Budget(rounds=3))
    providers = {
        "ours": Provider(plain, ours=True),
        "peer": Provider(into, out=True),
    }
    rows = bench.compare(**case(providers=providers, flops=N, extra={"lanes": 4}))
    assert rows == bench.rows
    assert [(r["impl"], r["regime"]) for r in rows] == [
        ("ours", "cold"),
        ("peer", "cold"),
        ("ours", "steady"),
        ("peer", "steady"),
    ]
    first = rows[0]
    assert first["ours"] is True
    assert first["op"] == "add"
    assert first["shape"] == {"n": N}
    assert first["dtype"] == "float32"
    assert first["rounds"] == [2.0, 2.0, 2.0]
    assert first["gbps"] == pytest.approx(3 * N * 4 / 2e-3 / 1e9)
    assert first["tflops"] == pytest.approx(N / 2e-3 / 1e12)
    assert 0 <= first["relative_error"] <= first["error_bound"] < 1e-6
    assert first["extra"] == {"lanes": 4, "sets": 3}
    assert measure.ratio(rows[0], rows[1]) == (2.0, 2.0, 2.0)


def test_providers_take_turns_in_every_round():
    timer = Simulated()
    functions = [lambda x, y: x + y, lambda x, y: y + x, lambda x, y: x.add(y)]
    providers = {str(i): Provider(f) for i, f in enumerate(functions)}
    bench = Bench("add", timer=timer, budget=Budget(rounds=4))
    bench.compare(**case(providers=providers, regimes=["cold"]))
    timed = [functions.index(owner(call)) for _, call in timer.log]
    assert timed == [0, 1, 2] * 4


def test_median_and_spread_are_those_of_the_rounds():
    times = itertools.cycle([5.0, 1.0, 3.0, 2.0, 9.0])
    timer = Simulated(lambda call: next(times))
    providers = {"ours": Provider(plain)}
    row = Bench("add", timer=timer).compare(
        **case(providers=providers, regimes=["cold"])
    )[0]
    assert (row["ms"], row["ms_low"], row["ms_high"]) == (3.0, 1.0, 9.0)
    assert row["rounds"] == [5.0, 1.0, 3.0, 2.0, 9.0]


def test_ratio_is_taken_round_by_round():
    # Both slow down together: the ratio stays, though the ranges overlap.
    drift = [1.0, 1.5, 2.0]
    rows = [
        {"impl": k, "op": "add", "shape": {}, "dtype": "float32", "regime": "cold"}
        | {"rounds": [k_ms * d for d in drift]}
        for k, k_ms in (("a", 1.0), ("b", 1.1))
    ]
    assert measure.ratio(*rows) == pytest.approx((1.1, 1.1, 1.1))
    with pytest.raises(measure.RecordError, match="side by side"):
        measure.ratio(rows[0], rows[1] | {"regime": "steady"})


def off_by_a_little(x, y):
    return (x + y) * (1 + 1e-5)


def off_in_one_place(x, y):
    out = x + y
    out[-1] += 0.01
    return out


def forgets_the_tail(x, y, out):
    out[:-1] = x[:-1] + y[:-1]


def never_the_same(x, y):
    out = x + y
    out[0] = torch.nextafter(out[0], torch.tensor(torch.inf * next(SIGNS)))
    return out


def first_answer_again(x, y):
    ANSWERS.append(x + y)
    return ANSWERS[0]


ANSWERS = []
SIGNS = itertools.cycle([-1.0, 1.0])


@pytest.mark.parametrize(
    ("wrong", "out", "why"),
    [
        (off_by_a_little, False, "differs from its reference"),
        (off_in_one_place, False, "differs from its reference"),
        (forgets_the_tail, True, "never written|differs from its reference"),
        (first_answer_again, False, "differs from its reference"),
        (lambda x, y: None, False, "must return a tensor"),
        (lambda x, y: x[:-1] + y[:-1], False, "shape"),
        (lambda x, y: (x + y, x), False, "2 outputs"),
    ],
)
def test_a_wrong_provider_is_named_and_nothing_is_timed(wrong, out, why):
    timer = Simulated()
    bench = Bench("add", timer=timer)
    providers = {"ours": Provider(plain), "mistaken": Provider(wrong, out=out)}
    with pytest.raises(WrongResult, match=rf"mistaken on add n={N} float32.*{why}"):
        bench.compare(**case(providers=providers))
    assert timer.log == []
    assert bench.rows == []


def test_a_buffer_that_still_holds_the_last_answer_is_not_this_one():
    # The provider before it left the right result in the very same memory.
    providers = {
        "ours": Provider(into, out=True),
        "idle": Provider(lambda x, y, out: out, out=True),
    }
    with pytest.raises(WrongResult, match="idle on add"):
        Bench("add", timer=Simulated()).compare(**case(providers=providers))


def test_a_provider_may_declare_another_bound():
    loose = {"loose": Provider(off_by_a_little, bound=1e-4)}
    row = Bench("add", timer=Simulated()).compare(**case(providers=loose))[0]
    assert row["relative_error"] == pytest.approx(1e-5, rel=0.1)
    assert row["error_bound"] == 1e-4
    tight = {"tight": Provider(off_by_a_little, bound=1e-6)}
    with pytest.raises(WrongResult, match="relative error 1e-05, allowed 1e-06"):
        Bench("add", timer=Simulated()).compare(**case(providers=tight))


def test_results_too_small_for_a_format_are_allowed_their_rounding():
    def softmax(x):
        return torch.softmax(x, -1)

    case_ = case(
        dtype=torch.float16,
        providers={"torch": Provider(softmax)},
        make_inputs=lambda: [torch.randn(1, 2**17).half()],
        reference=softmax,
        length=2**17,
    )
    (row,) = Bench("softmax", timer=Simulated()).compare(**case_, regimes=("cold",))
    assert 2.0**-11 < row["relative_error"] <= row["error_bound"] < 2.0**-8


def test_a_provider_whose_repeats_differ_must_say_why():
    timer = Simulated()
    excused = Provider(never_the_same, nondeterministic="atomics", bound=1e-6)
    with pytest.raises(WrongResult, match="differs in repeat"):
        Bench("add", timer=timer).compare(
            **case(providers={"loose": Provider(never_the_same, bound=1e-6)})
        )
    assert timer.log == []
    assert Bench("add", timer=timer).compare(**case(providers={"loose": excused}))


def test_the_reference_may_be_cut_into_pieces(monkeypatch):
    monkeypatch.setattr(measure.bench.verify, "PIECE", 100)
    seen = []

    def reference(x, y):
        seen.append(len(x))
        assert x.dtype == torch.float64
        return x + y

    Bench("add", timer=Simulated()).compare(**case(reference=reference, along=0))
    assert seen == [100] * 5 + [12] + [100] * 5 + [12]
    providers = {"mistaken": Provider(off_in_one_place)}
    with pytest.raises(WrongResult):
        Bench("add", timer=Simulated()).compare(**case(along=0, providers=providers))


def test_inputs_rotate_until_they_outlast_the_cache():
    size = 3 * N * 4
    timer = Simulated(l2_bytes=10 * size)
    distinct = []

    def counted():
        distinct.append(inputs())
        return distinct[-1]

    rows = Bench("add", timer=timer).compare(**case(make_inputs=counted))
    assert len(distinct) == 8 * 10
    assert rows[0]["extra"] == {"sets": 80}
    tiny = Bench("add", timer=Simulated(l2_bytes=2**30)).compare(**case())
    assert tiny[0]["extra"] == {"sets": 1024, "cached": 1}


def test_memory_is_not_overrun():
    size = 3 * N * 4
    timer = Simulated(l2_bytes=size // 4, memory=3 * size * 2)
    rows = Bench("add", timer=timer).compare(**case())
    assert rows[0]["extra"]["sets"] == 2
    timer = Simulated(l2_bytes=size, memory=3 * size * 2)
    with pytest.raises(measure.TimingError, match="no memory"):
        Bench("add", timer=timer).compare(**case())


def test_inputs_differ_from_bench_to_bench_unless_seeded():
    benches = [Bench("add", timer=Simulated()) for _ in range(2)]
    assert benches[0].seed != benches[1].seed
    drawn = []
    for _ in range(2):
        Bench("add", timer=Simulated(), seed=7)
        drawn.append(torch.randn(3).tolist())
    assert drawn[0] == drawn[1]


def test_built_providers_are_built_once_per_case():
    built = []

    def build():
        built.append(1)
        return plain

    Bench("add", timer=Simulated()).compare(
        **case(providers={"lazy": Provider(build=build)})
    )
    assert built == [1]
    with pytest.raises(ValueError, match="fn or build"):
        Provider()
    with pytest.raises(ValueError, match="fn or build"):
        Provider(plain, build=build)


def test_where_somebody_waits_our_kernels_compile_together_first():
    def build():
        return plain

    providers = {
        "ours": Provider(plain, ours=True),
        "into": Provider(into, ours=True, out=True),
        "built": Provider(build=build, ours=True),
        "peer": Provider(torch.add),
    }
    for brief in (True, False):
        timer = Simulated()
        bench = Bench("add", timer=timer, budget=Budget(1, 0.001, brief))
        bench.compare(**case(providers=providers))
        warmed = [owner(call) for regime, call in timer.log if regime == "warm"]
        assert warmed == ([plain, into] if brief else [])
        assert [regime for regime, _ in timer.log].index("cold") == len(warmed)


@pytest.mark.parametrize("regimes", [(), ("warm",)])
def test_regimes_are_checked(regimes):
    with pytest.raises(ValueError, match="regimes"):
        Bench("add", timer=Simulated()).compare(**case(regimes=regimes))


def test_free_rows_and_interleaved_timings():
    times = {"a": iter([1.0, 2.0, 3.0]), "b": iter([4.0, 4.0, 7.0])}
    order = []

    def take(name):
        order.append(name)
        return Timing.of(Samples([next(times[name])], host_bound=name == "b"))

    bench = Bench("launch", timer=Simulated(), budget=Budget(rounds=3))
    found = bench.interleaved({"a": lambda: take("a"), "b": lambda: take("b")})
    assert order == ["a", "b"] * 3
    assert found["a"] == Timing(2.0, 1.0, 3.0, (1.0, 2.0, 3.0))
    row = bench.row(impl="b", shape={}, dtype="float32", timing=found["b"])
    assert row["extra"] == {"host_bound": 1}
    assert row["gbps"] is None
    assert bench.rows == [row]


def a_sitting(bench):
    bench.compare(**case())


def some_returned(bench):
    rows = bench.compare(**case(regimes=["cold"]))
    yield rows
    yield rows[0]
    yield dict(rows[0], impl="by hand")


def nothing(bench):
    return None


def experiment(function):
    return measure.Experiment("sample-add", "Why?", "add", ("check",), "gpu", function)


def looks(*copies):
    return [CEILINGS | {"copy_gbps": x} for x in copies]


@pytest.mark.parametrize(
    ("copies", "repeats", "drift"),
    [
        ((1000.0, 1020.0), 0, 0.02),
        ((1000.0, 900.0, 1000.0, 1010.0), 1, 0.01),
        ((1000.0, 900.0, 1000.0, 1100.0), 1, 0.1),
    ],
)
def test_a_drifting_ceiling_repeats_the_experiment_once(copies, repeats, drift):
    timer = Simulated(looks=looks(*copies))
    record = runner.measure(experiment(a_sitting), timer, Budget(2))
    assert record.canary["repeats"] == repeats
    assert record.canary["drift"] == pytest.approx(drift)
    assert record.canary["close"]["copy_gbps"] == copies[-1]
    # Rows of the run that was thrown away are thrown away with it.
    assert len(record.rows) == 4
    assert timer._looked == len(copies)


def test_where_somebody_waits_one_look_closes_and_opens(monkeypatch):
    timer, brief = Simulated(looks=looks(1000.0, 1010.0, 1020.0)), Budget(2, brief=True)
    first = runner.measure(experiment(a_sitting), timer, brief)
    second = runner.measure(experiment(a_sitting), timer, brief)
    assert second.canary["open"] == first.canary["close"]
    assert second.canary["close"]["copy_gbps"] == 1020.0
    assert timer._looked == 3
    # Not one of another device's, nor an old one, nor for a record that is kept.
    other = Simulated(looks=looks(900.0, 910.0))
    runner.measure(experiment(a_sitting), other, brief)
    assert other._looked == 2
    runner.measure(experiment(a_sitting), other, Budget(2))
    assert other._looked == 4
    monkeypatch.setattr(runner, "RECENT", 0.0)
    runner.measure(experiment(a_sitting), other, brief)
    assert other._looked == 6


def test_what_an_experiment_returns_counts_once():
    record = runner.measure(experiment(some_returned), Simulated(), Budget(1))
    assert [r["impl"] for r in record.rows] == ["ours", "peer", "by hand"]
    with pytest.raises(measure.RecordError, match="no rows"):
        runner.measure(experiment(nothing), Simulated(), Budget(1))


def test_provenance_says_what_was_measured(monkeypatch):
    record = runner.measure(experiment(a_sitting), Simulated(), Budget(2, 0.5))
    made = record.provenance
    assert record.live
    monkeypatch.setitem(registry._experiments, "sample-add", experiment(a_sitting))
    assert (record.gpu, record.slug) == ("Simulated", "simulated")
    assert made["torch"] == torch.__version__
    assert (made["rounds"], made["budget_s"]) == (2, 0.5)
    assert set(made["digest"]) == {"experiment", "check"}
    assert record.stamp().startswith("Measured in this build on Simulated")
    assert f", torch {torch.__version__}, " in record.stamp()


def counted(x, y):
    CALLS.update("+")
    return x + y


def with_a_peer(bench):
    for _ in bench.choose((1, 2), brief=(1,)):
        bench.compare(**case(providers={"peer": measure.compiled(counted)}))


def test_a_rehearsal_is_the_same_each_time_and_leaves_no_trace(monkeypatch):
    monkeypatch.setitem(registry._experiments, "sample-add", experiment(with_a_peer))
    defaults = verify.repeat.__defaults__
    CALLS.clear()
    first = rehearse("sample-add")
    once = CALLS.total()
    assert len(first.rows) == 4
    assert first.rows == rehearse("sample-add").rows
    rehearse("sample-add", repeats=4)
    # In each of the two cases, the three beyond one.
    assert CALLS.total() == 3 * once + 2 * 3
    assert len(rehearse("sample-add", brief=True).rows) == 2
    assert len(rehearse("sample-add", rounds=3).rows[0]["rounds"]) == 3
    assert verify.repeat.__defaults__ == defaults
    assert measure.compiled is provider.compiled


def test_impossible_rows_are_found():
    record = runner.measure(experiment(a_sitting), Simulated(), Budget(1))
    assert record.problems() == []
    made, row = record.provenance, record.rows[0]

    def judged(**changes):
        return roofline.impossible([row | changes], record.canary, made)

    # 1,050 GB/s is the best of the ceilings: 1,071 is allowed, past the cache.
    size = 10**9
    fits = {"ms": (size - made["l2_bytes"]) / 1060e6, "bytes": size}
    assert judged(**fits) == []
    too_fast = fits | {"ms": fits["ms"] * 1060 / 1080}
    assert "1080 GB/s past the cache; the card reaches 1050" in judged(**too_fast)[0]
    assert judged(bytes=made["l2_bytes"], ms=1e-9) == []
    wrong = judged(relative_error=1e-3, error_bound=1e-4)
    assert "relative error 0.001 above 0.0001" in wrong[0]
    h100 = made | {"slug": "h100-sxm"}
    fast = row | {"flops": 10**15, "dtype": "bfloat16", "ms": 980.0}
    assert "peak is 990" in roofline.impossible([fast], record.canary, h100)[0]
    slower = fast | {"ms": 1000.0}
    assert roofline.impossible([slower], record.canary, h100) == []
