"""The experiment on rungs of gradients, small, and what it concludes."""

import functools

import pytest
import torch

from tilebook import measure
from tilebook.attention import (
    adding,
    backward,
    cases,
    experiments_backward,
    reference,
    results_backward,
)
from tilebook.attention import conclusions_backward as conclusions
from tilebook.attention.cases import Case
from tilebook.measure.simulated import rehearse, retimed

NAME = "attention-backward-ladder"
TINY = tuple(Case(16, 32, causal) for causal in (False, True))


@pytest.fixture(scope="module")
def measured(interpreted):
    """The experiment, small, with what runs here in place of what doesn't."""
    real = adding.added
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "TOKENS", 32)
        patch.setattr(cases, "FEATURES", 32)
        patch.setattr(experiments_backward, "CASES", TINY)
        patch.setattr(experiments_backward, "BRIEF", TINY[:1])
        rungs = experiments_backward.RUNGS | {"backward_fused": backward}
        patch.setattr(experiments_backward, "RUNGS", rungs)
        for name, size in (("HEADS", 1), ("TILES", 2), ("ROWS", 128)):
            patch.setattr(experiments_backward, name, size)
        by_lines = functools.partial(real, way=adding.LINES)
        patch.setattr(adding, "added", lambda x, *, rows, way: by_lines(x, rows))
        return rehearse(NAME)


def test_what_is_measured_is_what_was_promised():
    sizes = {(case.d, case.s, case.causal) for case in experiments_backward.CASES}
    assert sizes == {(d, 4096, causal) for d in (64, 128) for causal in (False, True)}
    assert set(experiments_backward.BRIEF) <= set(experiments_backward.CASES)


@pytest.mark.parametrize("causal", [False, True])
def test_a_rung_gives_gradients(interpreted, causal):
    case = Case(16, 24, causal)
    q, k, v, grad = (torch.randn(1, 2, 24, 16) for _ in range(4))
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    out, _ = reference.attention(*leaves, scale=0.25, right=0 if causal else None)
    exact = torch.autograd.grad(out, leaves, grad.double())
    fn = experiments_backward.function_of(backward, case)
    for _ in range(2):
        for found, want in zip(fn(q, k, v, grad), exact, strict=True):
            torch.testing.assert_close(found.double(), want, atol=1e-4, rtol=1e-4)


def test_all_are_measured(measured):
    ops = {(row["op"], row["impl"]) for row in measured.rows}
    rungs = {("attention_backward", name) for name in experiments_backward.RUNGS}
    assert ops == rungs | {("add", way) for way in adding.WAYS}
    both = {row["shape"]["causal"] for row in measured.select(impl="backward")}
    assert both == {0, 1}
    assert all(row["relative_error"] == 0 for row in measured.select(op="add"))


def ahead(record):
    """As it should come out."""
    record = retimed(record, 1.2, impl="backward_whole")
    record = retimed(record, 0.8, impl="backward_fused")
    return retimed(record, 0.5, impl=adding.ENGINE)


def test_values(measured):
    record = ahead(measured)
    assert record.value("whole_over_two") == pytest.approx(1 / 1.2)
    assert record.value("fused_over_two") == pytest.approx(1 / 0.8)
    assert record.value("fused_over_whole") == pytest.approx(1.5)
    for name in ("engine_over_lines", "engine_over_left"):
        assert record.value(name) == pytest.approx(2)
    # Two tiles of keys to two of rows, 4 bytes a number, in half a millisecond.
    rates = [record.value(name) for name in ("engine_adds", "lines_add", "left_add")]
    added = 4 * 2 * 128 * 64 / 1e9
    assert rates == pytest.approx([added / 0.5, added, added])


def test_claims(measured):
    record = ahead(measured)
    threads, fused, engine = measure.claims(NAME)
    assert all(claim.broken(record) is None for claim in (threads, fused, engine))
    one = retimed(record, 0.6, impl="backward_whole", causal=1)
    assert "causal=1" in threads.broken(one)
    assert "causal=1" in fused.broken(one)
    assert engine.broken(one) is None
    assert fused.broken(retimed(record, 1.3, impl="backward_fused", causal=0))
    for way in (adding.LINES, adding.LEFT):
        assert engine.broken(retimed(record, 0.4, impl=way))
    assert conclusions.NAME == NAME


def test_tables(measured):
    table = results_backward.rungs(ahead(measured))
    assert list(table.columns) == list(experiments_backward.RUNGS)
    assert list(table.index) == ["16, full", "16, causal"]
    rates = results_backward.added(retimed(measured, 1e-3, impl=adding.ENGINE))
    assert list(rates.index) == list(adding.WAYS)
    assert rates.loc[adding.ENGINE, "TB/s added"] > 0
