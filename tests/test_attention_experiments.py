"""The chapter's experiments, small: what they measure, and what they conclude of it."""

import pytest
import torch

from tilebook import measure
from tilebook.attention import (
    cases,
    conclusions,
    experiments,
    experiments_errors,
    experiments_variants,
    peers,
    results,
)
from tilebook.attention.cases import Case
from tilebook.measure.simulated import rehearse, retimed

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")

NAMES = ("attention-backward", "attention-error", "attention-forward")
NAMES += ("attention-ladder", "attention-variants")
TINY = Case(16, 32, True)
FULL = Case(16, 32, False)


def stand_in(case, backend):
    """PyTorch's function, without back ends that there aren't here."""

    def call(q, k, v):
        if case.shared > 1 and backend is not None:
            raise RuntimeError("No available kernel.\nAborting.")
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=case.causal, enable_gqa=case.shared > 1
        )

    return call


def shrink(patch):
    """Make every size small, and every peer one that runs here."""
    patch.setattr(torch, "compile", lambda fn, **_: fn)
    patch.setattr(peers, "sdpa", stand_in)
    for name, size in (("TOKENS", 32), ("FEATURES", 32)):
        patch.setattr(cases, name, size)
    sets = {
        "FORWARD": (TINY, FULL, Case(16, 9, True, 2), Case(16, 32, True, window=3)),
        "BACKWARD": (TINY,),
        "QUOTED": (TINY,),
        "LADDER": (TINY, FULL),
        "SEARCHED": (TINY, Case(16, 32, True, window=3)),
        "SEARCHED_BACKWARD": (),
    }
    for name, few in sets.items():
        patch.setattr(cases, name, few)
    patch.setattr(experiments_variants, "BASE", TINY)
    patch.setattr(experiments_variants, "WINDOW", TINY._replace(window=3))
    patch.setattr(experiments_variants, "GROUPED", TINY._replace(shared=2))
    patch.setattr(experiments_variants, "ODD", TINY._replace(d=12))
    patch.setattr(experiments_variants, "LENGTHS", (20, 1, 11))
    for name in ("LENGTHS", "LENGTHS_BRIEF"):
        patch.setattr(experiments_errors, name, (16, 64))
    patch.setattr(experiments_errors, "TIMES", (1, 64))
    patch.setattr(experiments_errors, "LENGTH", 32)
    patch.setattr(experiments_errors, "D", 16)
    patch.setattr(conclusions, "LONG", 16)
    patch.setattr(conclusions, "SIZES", (16,))
    patch.setattr(conclusions, "SPOKEN", {"d": 16, "s": 32})

    def rungs(case):
        kept = real(case)
        assert set(kept) <= set(experiments.RUNGS)
        # Each is tested elsewhere; most can't run here.
        return dict.fromkeys(kept, stand_in(case, None))

    real = experiments.rungs
    patch.setattr(experiments, "rungs", rungs)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real calls and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: rehearse(name) for name in NAMES}


def test_all_are_declared():
    found = [e.name for e in measure.experiments() if e.name.startswith("attention")]
    # The others have tests of their own.
    assert set(found) >= set(NAMES)
    assert all(measure.claims(name) for name in found)


def test_what_is_measured_is_what_was_promised():
    plain = {(c.d, c.s, c.causal) for c in cases.PLAIN}
    sizes = (512, 1024, 2048, 4096, 8192, 16384)
    assert plain == {(d, s, c) for d in (64, 128) for s in sizes for c in (0, 1)}
    assert {c.d for c in cases.FORWARD} == {64, 128, 256}
    assert {c.s for c in cases.ODD} == {1000, 4097}
    assert {c.window for c in cases.NARROW} == {1024}
    assert {c.shared for c in cases.GROUPED} == {8}
    for case in cases.FORWARD:
        assert abs(case.batch * case.s / 16384 - 1) < 0.03
        assert case.heads * case.d == 2048
    assert set(cases.BACKWARD) | set(cases.LADDER) <= set(cases.FORWARD)
    assert len(cases.LADDER) >= 8
    # What prose quotes is in a live build, too.
    assert {*cases.SEARCHED, *cases.QUOTED} <= set(cases.FORWARD)
    assert set(cases.SEARCHED_BACKWARD) <= set(cases.BACKWARD)
    assert sum(experiments_variants.LENGTHS) == cases.TOKENS


def test_operations_are_counted_as_everybody_does():
    case = Case(128, 4096, False)
    assert case.flops == 4 * 4 * 16 * 4096**2 * 128
    assert case._replace(causal=True).flops == case.flops / 2
    seen = (torch.arange(50)[:, None] - torch.arange(50)).unflatten(0, (50, 1))
    for width in (0, 3, 49, 80):
        exact = ((seen >= 0) & (seen <= width)).sum()
        assert Case(64, 50, True, window=width).pairs == exact
    assert case._replace(shared=8).moved == case.moved * 18 / 32


@pytest.mark.parametrize("shared", [1, 2])
def test_the_reference_is_the_definition_cut_into_heads(monkeypatch, shared):
    monkeypatch.setattr(cases, "AT_ONCE", 200)
    q, g = (torch.randn(2, 4, 9, 8, dtype=torch.float64) for _ in range(2))
    k, v = (torch.randn(2, 4 // shared, 9, 8, dtype=torch.float64) for _ in range(2))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    want = torch.nn.functional.scaled_dot_product_attention(
        *leaves, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(cases.exact(q, k, v, right=0), want)
    theirs = torch.autograd.grad(want, leaves, g)
    torch.testing.assert_close(cases.exact_gradients(q, k, v, g, right=0), theirs)
    case = Case(8, 9, True, shared)
    found = experiments_variants.exact(q, k, v, case)
    torch.testing.assert_close(found, want)


def test_a_reference_is_computed_once_for_the_same_numbers():
    calls = []

    def double(x):
        calls.append(x)
        return 2 * x

    fn = cases.remembered(double)
    xs = [torch.randn(3) for _ in range(3)]
    for x in (*xs[:2], *xs[:2], xs[2], xs[0]):
        assert torch.equal(fn(x.clone()), 2 * x)
    # The third pushed out the first.
    assert len(calls) == 4


def impls(record, **wanted):
    return {row["impl"] for row in record.select(**wanted)}


def test_each_peer_is_measured_where_it_serves(measured):
    record = measured["attention-forward"]
    every = {"attention", *peers.BACKENDS}
    assert impls(record, causal=0) == every
    assert impls(record, s=9) == {"attention", "SDPA"}
    assert impls(record, window=3) == {"attention", "flex_attention"}
    assert {row["regime"] for row in record.rows} == {"cold", "steady"}
    found = impls(measured["attention-backward"])
    assert found == every - {"SDPA"} | {experiments.SAME_BITS}
    for name in ("attention-forward", "attention-backward"):
        assert all(row["relative_error"] > 0 for row in measured[name].rows)


def test_a_peer_that_refuses_is_left_out_with_its_reason(caplog):
    case = Case(16, 9, True, 2)
    tried = {"other": stand_in(case, None), "forced": stand_in(case, 1)}
    kept = peers.working(tried, cases.operands(case)[:3])
    assert [*kept] == ["other"]
    assert caplog.messages == ["forced is left out: No available kernel."]


def test_gradients_are_all_that_is_timed():
    calls = []

    def attend(q, k, v):
        calls.append(q)
        return q * k + v

    fn = peers.gradients(attend)
    sets = [tuple(torch.randn(2, 3) for _ in range(4)) for _ in range(2)]
    for _ in range(3):
        for q, k, v, g in sets:
            for found, want in zip(fn(q, k, v, g), (g * k, g * q, g), strict=True):
                assert torch.equal(found, want)
    assert len(calls) == 2


def test_every_option_is_measured(measured):
    record = measured["attention-variants"]
    named = {row["op"] for row in record.rows}
    options = {"softcap", "slopes", "bias", "sinks", "dropout"}
    assert named == options | {"plain", "window", "grouped", "packed", "96 features"}
    both = {row["op"] for row in record.select(impl="flex_attention")}
    assert both == named - {"sinks", "dropout", "96 features"}


def test_every_value_can_be_told(measured, monkeypatch):
    monkeypatch.setattr(conclusions, "LONG", 16)
    monkeypatch.setattr(conclusions, "SIZES", (16,))
    monkeypatch.setattr(conclusions, "SPOKEN", {"d": 16, "s": 32})
    # What is of sizes that only the card has.
    large = {"odd_over_cudnn", "wide_over_cudnn", "window_over_plain"}
    for name, record in measured.items():
        for value in measure.values(name).keys() - large:
            assert record.value(value) > 0, value


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(conclusions, "LONG", 16)
    monkeypatch.setattr(conclusions, "SIZES", (16,))


def test_the_claims_on_results(measured, small):
    record = measured["attention-forward"]
    mean, worst, default = measure.claims("attention-forward")
    assert mean.broken(record)
    assert worst.broken(record) is None
    assert default.broken(record)
    ahead = retimed(record, 0.6, impl="attention")
    assert all(claim.broken(ahead) is None for claim in (mean, worst, default))
    one = retimed(ahead, 2.0, impl="attention", causal=0, regime="cold", d=16)
    assert "causal=0" in worst.broken(one)
    assert default.broken(one)
    # Heads that are shared and windows are no part of it.
    aside = retimed(ahead, 9.0, impl="attention", s=9)
    assert worst.broken(retimed(aside, 9.0, impl="attention", window=3)) is None


def test_the_claim_on_gradients_is_about_those_whose_bits_may_differ(measured, small):
    record = measured["attention-backward"]
    (claim,) = measure.claims("attention-backward")
    ahead = retimed(record, 0.5, impl="attention")
    assert claim.broken(ahead) is None
    assert claim.broken(retimed(ahead, 3.0, impl="attention"))
    assert claim.broken(retimed(ahead, 9.0, impl=experiments.SAME_BITS)) is None


def test_the_claim_on_the_ladder(measured):
    record = measured["attention-ladder"]
    (claim,) = measure.claims("attention-ladder")
    assert set(impls(record)) > set(experiments.RUNGS)
    assert claim.broken(record)
    for turn, rung in enumerate(conclusions.LAST):
        record = retimed(record, 0.9**turn, impl=rung)
    assert claim.broken(record) is None
    assert claim.broken(retimed(record, 1.2, impl="overlapped"))


def test_the_claim_on_options(measured):
    record = measured["attention-variants"]
    (claim,) = measure.claims("attention-variants")
    assert claim.broken(record) is None
    assert "softcap" in claim.broken(
        retimed(record, 1.1, impl="attention", op="softcap")
    )
    assert claim.broken(retimed(record, 9.0, impl="attention", op="sinks")) is None


def test_the_claims_on_errors(measured):
    record = measured["attention-error"]
    peer, length = measure.claims("attention-error")
    assert length.broken(record) is None
    worse = retimed(record, 1.0, impl="attention")
    for row in worse.select(impl="attention", dtype="bfloat16", s=64):
        row["relative_error"] = 0.1
    assert length.broken(worse)
    assert "s=64" in peer.broken(worse)
    kinds = {(row["op"], row["dtype"]) for row in record.rows}
    types = ("bfloat16", "float16", "float32")
    assert kinds == {(op, dtype) for op in ("length", "logits") for dtype in types}


class TestTables:
    """What the page makes of records."""

    def test_over_cudnn(self, measured):
        faster = retimed(measured["attention-forward"], 0.5, impl="attention", causal=0)
        table = results.over_cudnn(faster)
        assert table.to_dict() == {32: {"16, causal": 1.0, "16, full": 2.0}}
        slower = retimed(faster, 4.0, impl="attention", causal=0, regime="cold")
        assert results.over_cudnn(slower).loc["16, full", 32] == 0.5

    def test_lengths(self, measured):
        part = results.lengths(measured["attention-forward"], 16)
        assert {(r["shape"]["s"], r["shape"]["causal"]) for r in part.rows} == {(32, 1)}
        assert not any("window" in row["shape"] for row in part.rows)

    def test_others(self, measured):
        table = results.others(measured["attention-forward"])
        assert [each.rpartition(", ")[2] for each in table.index] == ["2:1", "window"]
        assert {"attention", "SDPA", "flex_attention"} <= set(table.columns)

    def test_ladder(self, measured):
        table = results.ladder(measured["attention-ladder"], 16)
        assert {"causal", "folded", "SDPA, cuDNN"} <= set(table.index)
        assert list(table.columns) == [32]

    def test_variants(self, measured):
        record = retimed(measured["attention-variants"], 2.0, op="softcap", ours=True)
        table = results.variants(record)
        assert table.loc["softcap", "over plain"] == 2.0
        assert table.loc["softcap", "flex_attention over it"] == 0.5
        assert table["flex_attention over it"].isna().sum() == 3

    def test_errors(self, measured):
        for op, columns in (("length", [16, 64]), ("logits", [1, 64])):
            table = results.errors(measured["attention-error"], op)
            assert list(table.columns) == columns
            assert ("bfloat16", "attention") in table.index
            assert (table.loc["float32"].max() < table.loc["float16"].min()).all()
