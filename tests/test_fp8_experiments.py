"""What is measured of eight bits: errors, what sums keep, the experiments, small."""

import pytest
import torch

from tilebook import measure
from tilebook.fp8 import (
    accumulation,
    conclusions,
    errors,
    experiments,
    experiments_errors,
    experiments_quantizers,
    quantizing,
    results,
    scaling,
    shapes,
)
from tilebook.matmul.shapes import Shape
from tilebook.measure.simulated import rehearse, retimed

NAMES = (
    *("fp8-accumulate", "fp8-compiled", "fp8-error", "fp8-gemm", "fp8-ladder"),
    "fp8-quantize",
)


def stand_in(name, fast):
    """For the library's product: right, and somewhere else."""

    def call(a, b, scale_a, scale_b):
        if name == "block" and fast:
            raise RuntimeError("the library refuses this")
        tensors = (x.float() for x in (a, b, scale_a, scale_b))
        return shapes.exact(*tensors).bfloat16()

    return call


def shrink(patch):
    """Make every size small, and every peer one that runs here."""
    tiny = (Shape(16, 16, 256),)
    patch.setattr(conclusions, "MOST", 8)
    patch.setattr(experiments, "SEARCHED", tiny)
    for name in ("LARGE", "LARGE_BRIEF"):
        patch.setattr(shapes, name, tiny)
    for name in ("DECODING", "DECODING_BRIEF"):
        patch.setattr(shapes, name, (Shape(2, 16, 256),))
    for name in ("LADDER", "LADDER_BRIEF"):
        patch.setattr(experiments, name, (Shape(16, 16, 256),))
    for name in ("MATRICES", "MATRICES_BRIEF"):
        patch.setattr(experiments_quantizers, name, ((128, 128),))
    for name in ("TERMS", "TERMS_BRIEF"):
        patch.setattr(experiments_errors, name, (128, 256))
    patch.setattr(experiments_errors, "SIDES", Shape(32, 32, 256))
    kept = ("fast", "precise", "max_num_imprecise_acc=128", "modelled, fast")
    summed = {name: experiments_errors.SUMMED[name] for name in kept}
    patch.setattr(experiments_errors, "SUMMED", summed)
    patch.setattr(errors, "EVERY", 256)
    patch.setattr(accumulation, "ROWS", 32)
    patch.setattr(accumulation, "COLUMNS", 16)
    patch.setattr(shapes, "theirs", stand_in)
    runs = {
        scaling_: {key: shapes.ours("fast" in key) for key in rungs}
        for scaling_, rungs in experiments.RUNGS.items()
    }
    patch.setattr(experiments, "RUNGS", runs)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real calls and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: rehearse(name) for name in NAMES}


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("fp8")]
    assert declared == sorted(NAMES)
    assert all(measure.claims(name) for name in NAMES)


def test_what_is_measured_is_what_was_promised():
    assert {shape.n for shape in shapes.SQUARES} == {2048, 4096, 8192, 16384}
    assert {shape.m for shape in shapes.DECODING} == {1, 2, 4, 8, 16, 32, 64, 128}
    sides = {(shape.n, shape.k) for shape in shapes.DECODING}
    assert sides == {(4096, 4096), (8192, 28672), (28672, 8192)}
    assert set(shapes.DECODING_BRIEF) <= set(shapes.DECODING)
    assert set(shapes.LARGE_BRIEF) <= set(shapes.LARGE)
    assert set(experiments.LADDER_BRIEF) <= set(experiments.LADDER)
    assert len(experiments.LADDER) >= 8
    # What prose quotes is in a live build, too.
    assert {conclusions.ONE, conclusions.MANY} <= set(shapes.DECODING_BRIEF)
    assert conclusions.SQUARE in {shape.n for shape in experiments.LADDER_BRIEF}
    searched = set(experiments.SEARCHED)
    assert searched <= {*shapes.LARGE, *shapes.DECODING}
    assert searched & set(shapes.LARGE_BRIEF)
    assert experiments_errors.TERMS[0] == 128
    assert experiments_errors.TERMS[-1] == 65536


def impls(record):
    """Scalings and implementations, of all but the products of few rows."""
    return {
        (row["shape"]["scaling"], row["impl"])
        for row in record.rows
        if row["shape"]["m"] > 2
    }


def test_each_scaling_and_each_peer_is_measured(measured):
    names = ("scaled_matmul", "_scaled_mm")
    every = (*names, *(f"{name}, fast" for name in names))
    expected = {(code, name) for code in (0, 1) for name in every}
    further = {
        (code, name)
        for code in (0, 1)
        for name in ("torch.compile", "torch.compile, fast")
    }
    by_rows = {(code, name) for code, name in expected | further if code == 1}
    assert impls(measured["fp8-compiled"]) == by_rows
    found = impls(measured["fp8-gemm"])
    # What the library refuses is left out, and ours has one way.
    assert found == expected | {(2, "scaled_matmul"), (2, "_scaled_mm")}
    for row in measured["fp8-gemm"].rows:
        assert 0 < row["relative_error"] < experiments.BOUND


@pytest.mark.parametrize("name", [*experiments_errors.SUMMED][-2:])
def test_ways_to_sum_take_the_same_operands(name):
    a, b = accumulation.operands("signed", 128, torch.Generator().manual_seed(6))
    out = experiments_errors.SUMMED[name](a, b)
    assert errors.relative(out, a.double() @ b.double()) < 2.0**-10


def test_every_value_can_be_told(measured, monkeypatch):
    monkeypatch.setattr(conclusions, "MOST", 8)
    for name in ("ONE", "MANY"):
        monkeypatch.setattr(conclusions, name, Shape(2, 16, 256))
    monkeypatch.setattr(conclusions, "SQUARE", 16)
    for name, record in measured.items():
        assert measure.values(name)
        for value in measure.values(name):
            assert record.value(value) >= 0


def test_the_ladder_has_its_rungs(measured):
    record = measured["fp8-ladder"]
    shown = {row["impl"] for row in record.rows if row["ours"]}
    assert shown == {key for rungs in experiments.RUNGS.values() for key in rungs}
    (claim,) = measure.claims("fp8-ladder")
    ahead = retimed(record, 0.9, impl="carried")
    assert not claim.broken(ahead)
    assert claim.broken(retimed(ahead, 2.0, impl="carried"))


@pytest.mark.parametrize(
    ("claim", "impls", "scaling_", "thin"),
    [
        (0, ("scaled_matmul", "scaled_matmul, fast"), (0, 1), False),
        (1, ("scaled_matmul",), (2,), False),
        (2, ("scaled_matmul",), (1,), True),
    ],
)
def test_each_claim_on_products_is_about_its_own(
    measured, monkeypatch, claim, impls, scaling_, thin
):
    monkeypatch.setattr(conclusions, "MOST", 8)
    record = measured["fp8-gemm"]
    held = measure.claims("fp8-gemm")[claim]
    slow = record
    for impl in impls:
        slow = retimed(slow, 1.5, impl=impl)
    assert held.broken(slow)
    ours = slow
    for impl in impls:
        for code in scaling_:
            for m in (2,) if thin else (16,):
                ours = retimed(ours, 0.5, impl=impl, scaling=code, m=m)
    assert not held.broken(ours)
    # Each part of it has to hold.
    for impl in impls:
        slow = retimed(ours, 2.0, impl=impl, scaling=scaling_[-1])
        assert held.broken(slow)


def test_the_claim_on_a_search_is_about_the_librarys_call(measured):
    record = measured["fp8-compiled"]
    (held,) = measure.claims("fp8-compiled")
    for end in ("", ", fast"):
        record = retimed(record, 3.0, impl=f"torch.compile{end}")
    assert held.broken(record) is None
    for end in ("", ", fast"):
        record = retimed(record, 0.01, impl=f"torch.compile{end}")
    assert held.broken(record)
    # Ours is no part of it.
    ours = retimed(record, 0.001, impl="scaled_matmul")
    assert held.broken(ours) == held.broken(record)


def test_the_claim_on_quantisers_looks_at_the_slowest(measured):
    record = measured["fp8-quantize"]
    (held,) = measure.claims("fp8-quantize")
    rate = record.canary["open"]["copy_gbps"]
    for row in record.rows:
        row["gbps"] = 0.9 * rate
    assert not held.broken(record)
    slow = retimed(record, 1.1, op="quantize 128x128", impl="quantize", regime="cold")
    assert held.broken(slow)
    assert not held.broken(retimed(record, 1.1, op="quantize tensor"))


def test_the_claims_on_errors_hold_on_any_machine(measured):
    record = measured["fp8-error"]
    forgive, extremes = measure.claims("fp8-error")
    assert forgive.broken(record) is None
    assert extremes.broken(record) is None
    worse = retimed(record, 1.0, op="outliers")
    for row in worse.select(op="outliers", impl="tensor", larger=2**10):
        row["extra"]["small"] *= 1.5
    assert forgive.broken(worse)
    for row in worse.select(op="outliers", impl="1x128", larger=2**18):
        row["extra"]["small"] = 1.0
    assert extremes.broken(worse)


def test_the_claim_on_sums_reads_the_longest(measured):
    record = measured["fp8-accumulate"]
    model, mends = measure.claims("fp8-accumulate")
    # Here all sums are exact to float32.
    assert model.broken(record)
    assert mends.broken(record)
    for row in record.select(impl="fast", op="positive", k=256):
        row["relative_error"] = 0.5
    assert not mends.broken(record)
    for row in record.rows:
        if "alike" in row["extra"]:
            row["extra"]["alike"] = 1.0
    assert not model.broken(record)
    row["extra"]["alike"] = 0.99
    assert model.broken(record)
    # In the interpreter nothing is lost; in the model what it says.
    assert record.value("bits_kept") == accumulation.MOST
    (row,) = record.select(op="bits beside", impl="modelled, fast")
    assert row["extra"]["kept"] == conclusions.MODEL_BITS


class TestTables:
    """What the page makes of records."""

    def test_few_rows(self, measured, monkeypatch):
        monkeypatch.setattr(results, "SIDE", 16)
        record = measured["fp8-gemm"].part(lambda row: row["shape"]["m"] == 2)
        for row in record.rows:
            row["shape"]["k"] = 16
            row["bytes"], row["ms"] = 4e6, 0.016 if row["ours"] else 0.02
        table = results.decoding(record)
        # At the simulated copy's 1,000 GB/s.
        assert table.loc[2].to_dict() == {
            "floor, µs": 4.0,
            "scaled_matmul, µs": 16.0,
            "share of the floor": "25%",
            "_scaled_mm, µs": 20.0,
        }
        assert results.shares(record).loc[2, "16 x 16"] == "25%"

    def test_the_article_in_microseconds(self):
        times = [results.article_us(m) for m in results.ARTICLE]
        assert max(times) < 13.5
        assert min(times) > 11.9

    def test_large(self, measured, monkeypatch):
        monkeypatch.setattr(shapes, "FEW_ROWS", (8,))
        faster = retimed(measured["fp8-gemm"], 0.5, impl="scaled_matmul", scaling=1)
        table = results.large(faster)
        assert list(table.index) == ["16 x 16 x 256"]
        assert table.loc["16 x 16 x 256", "row"] == 2 * table["tensor"].item()
        assert "block, fast" not in table

    def test_ladder(self, measured):
        table = results.ladder(measured["fp8-ladder"], "block")
        kernels = {"tiled", "described", "promoted", "paired", "carried"}
        assert {*kernels, "_scaled_mm"} == set(table.index)
        assert list(table.columns) == [16]

    def test_quantizers(self, measured):
        record = measured["fp8-quantize"]
        for row in record.rows:
            row["gbps"] = 500.0
        table = results.quantizers(record)
        assert (table == "0.50").all().all()
        assert ("row", "torch.compile") in table.index
        assert ("norm 1x128", "quantize") in table.index

    def test_errors(self, measured):
        table = results.lost(measured["fp8-error"])
        assert list(table.columns) == list(scaling.GRANULARITIES)
        kinds = ["gaussian", "student"]
        larger = [f"outliers, {int(x):,} times" for x in errors.LARGER]
        assert list(table.index) == [*kinds, *larger]

    def test_sums(self, measured):
        record = measured["fp8-accumulate"]
        bits = results.kept(record)
        assert list(bits.columns) == list(accumulation.PLACES)
        assert bits.loc["modelled, fast", "beside"] == conclusions.MODEL_BITS
        assert bits.loc["fast", "beside"] == accumulation.MOST
        assert list(results.sums(record, "positive").columns) == [128, 256]


class TestErrors:
    def test_kinds(self):
        generator = torch.Generator().manual_seed(1)
        drawn = {
            kind: errors.drawn(kind, 256, 2048, generator, larger=64.0).double()
            for kind in errors.KINDS
        }
        most = {kind: float(x.abs().max()) for kind, x in drawn.items()}
        assert abs(float(drawn["gaussian"].std()) - 1) < 0.01
        assert most["gaussian"] < 6 < 20 < most["student"] < 2000
        quiet = drawn["outliers"][:, 1 : errors.EVERY]
        assert abs(float(quiet.std()) - 1) < 0.01
        loud = drawn["outliers"][:, :: errors.EVERY]
        assert abs(float(loud.std()) / 64 - 1) < 0.1
        with pytest.raises(ValueError, match="kind must be one of gaussian, student"):
            errors.drawn("normal", 1, 1, generator)

    def test_rounding_loses_what_was_derived(self):
        """Of sizes spread evenly over octaves, far from both ends."""
        x = torch.exp2(torch.rand(64, 1024) * 6) * (
            torch.randint(2, (64, 1024)) * 2 - 1
        )
        found = errors.lost(quantizing.quantize(x, "row"), x, "row")
        assert abs(found / errors.expected() - 1) < 0.06

    def test_one_scale_drowns_small_columns(self):
        found = {}
        for larger in errors.LARGER:
            generator = torch.Generator().manual_seed(2)
            x = errors.drawn("outliers", 64, 1024, generator, larger=larger)
            for granularity in ("tensor", "1x128", "mx"):
                found[granularity, larger] = errors.small_lost(
                    scaling.reference(x, granularity), x, granularity
                )
        first, *_, last = errors.LARGER
        assert found["tensor", first] < 0.03
        assert found["tensor", last] > 0.9
        assert found["1x128", last] < 0.4
        assert found["mx", last] < found["1x128", last]


class TestAccumulation:
    @pytest.mark.parametrize("place", accumulation.PLACES)
    def test_a_probe_is_exact(self, place):
        a, b = accumulation.probe(place)
        exact = a.double() @ b.double()
        n = torch.arange(1, accumulation.MOST + 1)
        assert (exact[n] == (1 + 2.0 ** -n.double())[:, None]).all()
        assert accumulation.kept(exact.float()) == accumulation.MOST

    @pytest.mark.parametrize("place", accumulation.PLACES)
    @pytest.mark.parametrize("bits", [10, 13])
    def test_it_tells_what_a_model_keeps(self, place, bits):
        operands = accumulation.probe(place)
        assert accumulation.kept(accumulation.modelled(*operands, bits)) == bits
        apart = accumulation.kept(accumulation.modelled(*operands, bits, 128))
        # The next block is added by float32: but 1 + 2^-14 and on are exact in that.
        assert apart == (accumulation.MOST if place == "next block" else bits)

    def test_what_cannot_be(self):
        out = torch.ones(accumulation.ROWS, 2)
        out[3, 1] = 1.125
        with pytest.raises(ValueError, match="columns differ"):
            accumulation.kept(out)
        out[3, 0] = out[3, 1] = 1.25
        with pytest.raises(ValueError, match="neither 1 nor 1 \\+ 2\\^-n"):
            accumulation.kept(out)

    def test_a_model_that_keeps_much_is_exact(self):
        generator = torch.Generator().manual_seed(3)
        a, b = accumulation.operands("signed", 160, generator)
        exact = a.double() @ b.double()
        assert errors.relative(accumulation.modelled(a, b, 45), exact) < 2.0**-23
        few = errors.relative(accumulation.modelled(a, b, 13), exact)
        fewer = errors.relative(accumulation.modelled(a, b, 10), exact)
        assert 2.0**-15 < few < fewer / 4

    def test_losses_go_one_way(self):
        generator = torch.Generator().manual_seed(4)
        a, b = accumulation.operands("positive", 1024, generator)
        exact = a.double() @ b.double()
        fast = accumulation.modelled(a, b, 13).double()
        assert (fast < exact).all()
        precise = accumulation.modelled(a, b, 13, 128)
        assert errors.relative(fast, exact) > 10 * errors.relative(precise, exact)

    @pytest.mark.parametrize("limit", accumulation.LIMITS)
    def test_kernel(self, limit, device):
        generator = torch.Generator(device=device).manual_seed(5)
        a, b = accumulation.operands("signed", 256, generator)
        out = accumulation.summed(a, b, limit)
        assert errors.relative(out, a.double() @ b.double()) < 2.0**-10

    def test_refusals(self, device):
        a = torch.zeros(64, 128, device=device).to(torch.float8_e4m3fn)
        with pytest.raises(ValueError, match="a and b's transpose must be contiguous"):
            accumulation.summed(a, a.t().contiguous())
        with pytest.raises(ValueError, match="sides must be multiples of 64, 64 and 1"):
            accumulation.summed(a[:32], a.t())
