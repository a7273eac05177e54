"""The experiments run, on a simulated clock, and their conclusions can fail."""

import copy

import pytest
import torch

from tilebook import measure
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import rehearse, retimed
from tilebook.measure.timing import here
from tilebook.softmax import conclusions_reductions as conclusions
from tilebook.softmax import experiments_reductions as experiments
from tilebook.softmax.experiments_reductions import REDUCTIONS

NAMES = ("softmax-reductions", "softmax-variance")
SMALL = {"m": 4, "n": 32, "dim": 1}
RAGGED = {"m": 3, "n": 33, "dim": 1}


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    patch.setattr(experiments, "ELEMENTS", 128)
    patch.setattr(experiments, "ROWS", (32, 33))
    patch.setattr(experiments, "COLUMNS", (16,))
    patch.setattr(experiments, "AWKWARD", ())
    patch.setattr(experiments, "RATIOS", (1, 10**4, 10**6))
    patch.setattr(experiments, "RATIOS_BRIEF", (1, 10**4, 10**6))
    patch.setattr(experiments, "VARIANCES", (4, 256))
    patch.setattr(conclusions, "SHAPE", SMALL)
    patch.setattr(conclusions, "RAGGED", RAGGED)
    patch.setattr(conclusions, "LARGE", 100)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setattr(experiments, "DTYPES", (torch.bfloat16,))
        return {name: rehearse(name) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def test_both_are_declared():
    names = {e.name for e in measure.experiments()}
    assert set(NAMES) <= names


def test_sizes_are_those_the_chapter_promises():
    assert {1024, 4096, 4097, 32768, 131072} <= set(experiments.ROWS)
    assert {torch.float32, torch.bfloat16} == set(experiments.DTYPES)
    found = experiments.cases()
    assert {direction for *_, direction in found} == {0, 1, experiments.ALL}
    assert sum(m * n >= conclusions.LARGE for m, n, _ in found) >= 8
    for shape in (conclusions.SHAPE, conclusions.RAGGED):
        assert tuple(shape.values()) in found
    assert set(REDUCTIONS) == set(conclusions.OPS)
    assert experiments.RATIOS[0] == 1
    assert experiments.RATIOS[-1] == conclusions.FARTHEST == 10**6
    assert conclusions.LOST in experiments.RATIOS


def test_brief_cases_are_among_all():
    assert set(experiments.quoted()) < set(experiments.sequences())
    known = vars(experiments) | {"SEARCHED": REDUCTIONS}
    for name, brief in vars(experiments).items():
        if name.endswith("_BRIEF"):
            assert set(brief) < set(known[name.removesuffix("_BRIEF")])
    assert {conclusions.LOST, conclusions.FARTHEST} < set(experiments.RATIOS_BRIEF)


@pytest.mark.timed
@pytest.mark.parametrize("name", NAMES)
def test_brief_cases_are_enough_for_every_value_and_claim(name, records):
    record = rehearse(name, brief=True)
    if name == "softmax-reductions":
        assert 3 * len(record.rows) < len(records[name].rows)
    assert len(record.rows) <= 40
    for value in measure.values(name):
        assert record.value(value) > 0
    for claim in measure.claims(name):
        assert "cannot be told" not in (claim.broken(record) or "")


def test_every_reduction_is_measured_beside_its_peers(records):
    record = records["softmax-reductions"]
    for op in REDUCTIONS:
        rows = record.select(op=op, regime="cold", **SMALL)
        assert [row["impl"] for row in rows] == ["tilebook", *conclusions.PEERS]
        assert [row["ours"] for row in rows] == [True, False, False]
    directions = {row["shape"]["dim"] for row in record.select(op="var")}
    assert directions == {0, 1, experiments.ALL}
    # Values and indices of the largest of rows, and nothing else of topk.
    assert {row["shape"]["dim"] for row in record.select(op="topk")} == {1}
    assert all(row["relative_error"] <= row["error_bound"] for row in record.rows)


def test_bytes_are_compulsory(records):
    record = records["softmax-reductions"]
    out = {"sum": 4 * 2, "argmax": 4 * 8, "topk": 4 * 8 * (2 + 8), "logsumexp": 4 * 2}
    for op, size in out.items():
        row = record.one(op=op, impl="tilebook", regime="cold", **SMALL)
        assert row["bytes"] == 128 * 2 + size
    everything = record.one(
        op="sum", impl="torch", regime="steady", m=1, n=128, dim=experiments.ALL
    )
    assert everything["bytes"] == 128 * 2 + 2


def test_a_variance_far_away_is_kept_by_the_shift_alone(records):
    record = records["softmax-variance"]
    impls = [row["impl"] for row in record.select(ratio=1)]
    assert impls == [
        "tilebook", "welford", "two passes", "difference of squares", "torch",
    ]  # fmt: skip
    errors = {
        impl: record.one(impl=impl, ratio=10**6)["relative_error"] for impl in impls
    }
    assert errors["tilebook"] < 1e-6 < errors["welford"] < 0.1
    assert errors["difference of squares"] > 1
    assert not record.broken_claims()
    assert record.value("lost_from") <= 10**4


def test_bounds_grow_as_their_formulas_say():
    near, far = experiments.bounds(4096, 0), experiments.bounds(4096, 1e4)
    assert len({near[name] for name in ("tilebook", "welford", "torch")}) == 1
    assert far["tilebook"] == near["tilebook"]
    assert far["welford"] == pytest.approx(1e4 * near["welford"], rel=1e-6)
    assert far["difference of squares"] == pytest.approx(1e8 * near["tilebook"])


def test_values_can_be_told(records):
    for record in records.values():
        values = record.values()
        assert values
        assert all(value > 0 for value in values.values())
    assert records["softmax-reductions"].value("ragged_share") > 0


# For each claim, which rows to speed up (or slow down) for it to hold and to fail.
SWAYED = [
    ("as_fast_as_reading", {"op": "sum"}, 1e-9, 1e3),
    ("ragged_rows_are_no_slower", {"op": "sum", **RAGGED}, 1e-3, 1e3),
    *((f"{op}_ahead", {"op": op}, 0.9, 1.2) for op in conclusions.OPS),
]


@pytest.mark.parametrize(("claim", "rows", "good", "bad"), SWAYED)
def test_claims_hold_and_fail(records, claim, rows, good, bad):
    record = records["softmax-reductions"]
    (held,) = [c for c in measure.claims(record.name) if c.name == claim]
    assert held.text.endswith(".")
    for factor, broken in ((good, False), (bad, True)):
        swayed = retimed(record, factor, impl="tilebook", **rows)
        assert (held.broken(swayed) is not None) == broken


ERRORS = {
    "shifted_stays": ("tilebook", 10**6),
    "welford_stays": ("welford", 10**4),
    "difference_is_lost": ("difference of squares", 10**4),
    "shift_pays": ("welford", 10**6),
}


@pytest.mark.parametrize("claim", ERRORS)
def test_claims_about_errors_can_fail(records, claim):
    record = copy.deepcopy(records["softmax-variance"])
    (held,) = [c for c in measure.claims(record.name) if c.name == claim]
    assert held.broken(record) is None
    impl, ratio = ERRORS[claim]
    stays = claim.endswith("stays")
    record.one(impl=impl, ratio=ratio)["relative_error"] = 1e6 if stays else 1e-9
    assert held.broken(record) is not None


def test_every_claim_is_swayed():
    claims = {name: {c.name for c in measure.claims(name)} for name in NAMES}
    assert {c[0] for c in SWAYED} == claims["softmax-reductions"]
    assert set(ERRORS) == claims["softmax-variance"]


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_measures_here(name, monkeypatch):
    monkeypatch.setattr(experiments, "ELEMENTS", 2**20)
    # All cases take many minutes of compilation.
    budget = measure.Budget(2, 0.005, brief=True)
    record = run(measure.find(name), here(), budget, attempts=1)
    assert record.rows
    assert not record.problems()
