"""The experiment on eight bits, small, and what it concludes."""

import pytest
import torch

from tilebook import measure
from tilebook.attention import cases, experiments_eight, peers, results_eight
from tilebook.attention.cases import Case
from tilebook.measure.simulated import rehearse, retimed

NAME = "attention-fp8"
TINY = tuple(Case(16, 32, causal) for causal in (False, True))


@pytest.fixture(scope="module")
def measured(interpreted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "TOKENS", 32)
        patch.setattr(cases, "FEATURES", 32)
        patch.setattr(experiments_eight, "CASES", TINY)
        patch.setattr(experiments_eight, "BRIEF", TINY[:1])
        patch.setattr(experiments_eight, "LENGTH", 256)
        patch.setattr(experiments_eight, "D", 64)
        plain = torch.nn.functional.scaled_dot_product_attention

        def sdpa(case, backend):
            return lambda q, k, v: plain(q, k, v, is_causal=case.causal)

        patch.setattr(peers, "sdpa", sdpa)
        return rehearse(NAME)


def test_what_is_measured_is_what_was_promised():
    assert {case.d for case in experiments_eight.CASES} == {64, 128, 256}
    assert {case.causal for case in experiments_eight.CASES} == {False, True}
    assert set(experiments_eight.BRIEF) <= set(experiments_eight.CASES)


def test_all_are_measured(measured):
    found = {(row["impl"], row["shape"].get("causal")) for row in measured.rows}
    three = ("eight bits", "attention", "SDPA, cuDNN")
    assert {(name, causal) for name in three for causal in (0, 1)} <= found
    assert ("quantising", 0) in found
    ways = {"tensor", "head", "block", "head, turned", "bfloat16"}
    for kind in experiments_eight.KINDS:
        assert {row["impl"] for row in measured.select(op=kind)} == ways


def test_operands_are_what_their_kind_says():
    q, _, v = experiments_eight.drawn("uneven")
    assert v[0, 0].std() / v[0, -1].std() == pytest.approx(2**16, rel=0.05)
    assert q.std() == pytest.approx(1, rel=0.01)
    rare = experiments_eight.drawn("outliers")[0]
    assert rare.std() == pytest.approx((1 + 100 * 1e-3) ** 0.5, rel=0.02)
    wide = experiments_eight.drawn("features")[1]
    assert wide[..., 64].std() / wide[..., 1].std() == pytest.approx(8, rel=0.1)


def sized(record):
    """As if it had been measured on heads of 128 features, at 4,096 positions."""
    record = retimed(record, 1.0, impl="attention")
    for row in record.rows:
        if row["shape"]["d"] == 16:
            row["shape"] |= {"d": 128, "s": 4096}
    return record


def test_values(measured):
    record = retimed(sized(measured), 0.5, impl="eight bits")
    assert record.value("eight_128") == pytest.approx(2)
    assert record.value("eight_over_cudnn") == pytest.approx(2)
    assert record.value("rounding_costs") == pytest.approx(2)
    assert record.value("eight_tflops") > 0
    other = {"eight_64", "eight_256"}
    for name in measure.values(NAME).keys() - other:
        assert record.value(name) > 0


def test_the_claim_on_rates(measured):
    claim, *_ = measure.claims(NAME)
    record = retimed(sized(measured), 0.5, impl="eight bits")
    assert claim.broken(record) is None
    for peer in ("attention", "SDPA, cuDNN"):
        slower = claim.broken(retimed(record, 0.4, impl=peer, causal=1))
        assert peer in slower
        assert "causal=1" in slower


def test_the_claims_on_errors_hold_and_can_break(measured):
    _, normal, turned, heads = measure.claims(NAME)
    assert turned.broken(measured) is None
    assert heads.broken(measured) is None

    def spoiled(factor, **which):
        record = retimed(measured, 1.0)
        for row in record.select(**which):
            row["relative_error"] *= factor
        return record

    # 256 keys and 64 features are few for averages; but not that few.
    assert normal.broken(measured) is None
    for way in ("tensor", "head", "block"):
        assert normal.broken(spoiled(1.3, op="normal", impl=way))
        assert normal.broken(spoiled(0.7, op="normal", impl=way))
    assert turned.broken(spoiled(0.5, op="features", impl="head"))
    assert heads.broken(spoiled(0.5, op="uneven", impl="tensor"))


def test_tables(measured):
    table = results_eight.rates(measured)
    assert list(table.index) == ["16, full, 32", "16, causal, 32"]
    assert "eight bits" in table.columns
    lost = results_eight.errors(measured)
    assert list(lost.index) == list(experiments_eight.KINDS)
    assert (lost["bfloat16"] < 0.2 * lost["head"]).all()
