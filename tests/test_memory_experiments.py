"""The experiments run, on a simulated clock, and their conclusions can fail."""

import copy as copying
import functools

import pytest

from tilebook import measure
from tilebook.measure import plots, simulated
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import retimed
from tilebook.measure.timing import here
from tilebook.memory import (
    conclusions,
    curves,
    experiments,
    machine,
    machine_conclusions,
    sweep,
)

NAMES = (
    *("memory-copy", "memory-l2", "memory-latency", "memory-occupancy"),
    *("memory-roofline", "memory-stride"),
)
MOST = 2**10
# With torch.compile itself, which is soon done with a copy.
rehearse = functools.partial(
    simulated.rehearse, rounds=2, repeats=2, compiled=measure.compiled
)


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    patch.setattr(conclusions, "LARGE", MOST)
    patch.setattr(conclusions, "FULL", MOST)
    patch.setattr(experiments, "SIZES", (301, MOST))
    patch.setattr(experiments, "SIZES_BRIEF", (MOST,))
    patch.setattr(experiments, "PICKED", 64)
    for module in (experiments, machine):
        patch.setattr(module, "N", MOST)
    small = {
        "WORKING_SETS": (4000, 8000, 16_000),
        "TABLES": (2**12, 2**13),
        "HOPS": 8,
        "ADDERS": 2,
        "REPEATS": 2,
        "PLACES": (1, 32),
        "WORKING_SETS_BRIEF": (4000, 16_000),
        "TABLES_BRIEF": (2**13,),
        "CHAINS": (2**9, 2**10, 2**11, 2**12),
        "CHAINS_BRIEF": (2**9, 2**10, 2**11),
    }
    for name, value in small.items():
        patch.setattr(machine, name, value)
    patch.setattr(sweep, "BLOCK", 256)
    patch.setattr(machine_conclusions, "TABLE", 2**13)
    for name, nbytes in (("NEAR", 2**9), ("MIDDLE", 2**10), ("FAR", 2**11)):
        patch.setattr(machine_conclusions, name, nbytes)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: rehearse(name) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def changed(record, factor, **wanted):
    """The record with some rows' times multiplied, and what `extra` has of them."""
    record = retimed(record, factor, **wanted)
    for row in record.select(**wanted):
        if "swept_gbps" in row["extra"]:
            row["extra"]["swept_gbps"] /= factor
    return record


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("memory")]
    assert declared == sorted(NAMES)


def test_sizes_are_those_the_chapter_promises():
    assert len(experiments.SIZES) >= 8
    assert max(machine.WORKING_SETS) == 2**30
    assert max(machine.CHAINS) == 2**30
    assert any(n % 2 for n in experiments.SIZES)


def test_every_rung_is_measured(records):
    record = records["memory-copy"]
    rows = record.select(n=301, dtype="bfloat16", regime="cold")
    ours = [
        "narrow",
        "wide",
        "deep",
        "persistent",
        "hinted",
        "capped",
        "copy",
        "copy, new output",
    ]
    assert [row["impl"] for row in rows] == [
        *ours,
        "copy_",
        "torch.clone",
        "torch.compile",
    ]
    assert all(row["bytes"] == 2 * 2 * 301 for row in rows)


def test_curves_show_every_row(records):
    drawn = {"memory-latency": curves.latency, "memory-l2": curves.swept}
    for name, draw in drawn.items():
        (axes,) = draw(records[name]).axes
        (line, mark) = axes.lines
        assert len(line.get_xdata()) == {"memory-latency": 4, "memory-l2": 3}[name]
        assert mark.get_xdata()[0] == records[name].provenance["l2_bytes"]


def test_every_point_of_the_flight_is_drawn(records):
    record = records["memory-occupancy"]
    rows = machine_conclusions.flights(record)
    (axes,) = curves.flight(record).axes
    *points, law = axes.lines
    assert sum(len(line.get_xdata()) for line in points) == len(rows)
    assert max(law.get_ydata()) == max(row["gbps"] for row in rows)
    assert len(rows) >= 8


def test_other_pictures_show_what_was_measured(records):
    (axes,) = curves.kinds(records["memory-roofline"]).axes
    assert len(axes.patches) == 4
    (axes,) = curves.atomics(records["memory-latency"]).axes
    assert len(axes.lines[0].get_xdata()) == 2


def test_the_law_says_how_long_a_load_took(records):
    record = copying.deepcopy(records["memory-occupancy"])
    for row in record.rows:
        row["gbps"], row["extra"]["sms"] = 2000.0, 100
        if "kib" in row["extra"]:
            row["extra"]["kib"] = 20.0
    poorest = machine_conclusions.flights(record)[-1]
    poorest["gbps"], poorest["extra"]["kib"] = 1000.0, 5.0
    # 5 KiB on each of 100 SMs, replaced at 500 bytes a nanosecond.
    assert record.value("starved_ns") == pytest.approx(5 * 1024 * 100 / 500)
    assert record.value("starved_share") == 0.5
    assert record.value("enough_kib") == 20.0


def test_the_cores_roof_is_what_was_measured(records):
    record = records["memory-roofline"]
    limits = curves.cores(record)
    assert limits["measured"].tflops == max(
        row["tflops"] for row in record.select(op="work")
    )
    (axes,) = plots.roofline(record, dtype="float32", op="work", limits=limits).axes
    assert max(axes.lines[0].get_ydata()) == limits["measured"].tflops


def test_the_brief_cases_are_among_all():
    for module in (experiments, machine):
        for name, brief in vars(module).items():
            if name.endswith("_BRIEF"):
                assert set(brief) < set(getattr(module, name.removesuffix("_BRIEF")))
                assert len(brief) >= 2


@pytest.mark.timed
@pytest.mark.parametrize("name", NAMES)
def test_brief_cases_are_enough_for_every_value_and_claim(records, name):
    record = rehearse(name, brief=True)
    assert len(record.rows) < len(records[name].rows)
    for value in measure.values(name):
        if value != "engine_over_wide":
            record.value(value)
    for claim in measure.claims(name):
        assert "cannot be told" not in (claim.broken(record) or "")


def test_values_can_be_told(records):
    for name, record in records.items():
        for value in measure.values(name):
            if value != "engine_over_wide":
                assert isinstance(record.value(value), float | int)


def test_claims_are_decided_by_the_record_alone(records):
    for name, record in records.items():
        for claim in measure.claims(name):
            detail = claim.broken(record)
            assert detail is None or "cannot be told" not in detail


SWAYED = [
    ("memory-copy", "parity", {"impl": "copy"}, 0.9, 1.2),
    ("memory-copy", "narrow_is_slower", {"impl": "narrow"}, 2, 0.5),
    ("memory-stride", "strides_cost", {"stride": 8}, 5, 1),
    ("memory-l2", "cached_is_faster", {"nbytes": 4000}, 0.1, 10),
    ("memory-roofline", "work_is_free", {"steps": 8}, 0.5, 2),
]


@pytest.mark.parametrize(("name", "claim", "rows", "good", "bad"), SWAYED)
def test_claims_hold_and_fail(records, name, claim, rows, good, bad):
    (held,) = [c for c in measure.claims(name) if c.name == claim]
    plain = changed(records[name], 1)
    for row in plain.rows:
        # One time for all, so that the change alone decides.
        row["ms"] = row["ms_low"] = row["ms_high"] = 1.0
        row["rounds"] = [1.0] * len(row["rounds"])
        for rate, amount in (("gbps", "bytes"), ("tflops", "flops")):
            row[rate] = row[amount] and row[amount] / 1e6
        if "swept_gbps" in row["extra"]:
            row["extra"]["swept_gbps"] = 1.0
    assert held.broken(changed(plain, good, **rows)) is None
    assert held.broken(changed(plain, bad, **rows)) is not None


def test_remaining_claims_hold_and_fail(records):
    record = copying.deepcopy(records["memory-latency"])
    (claim,) = measure.claims("memory-latency")
    chases = record.select(op="chase")[:3]
    for order, holds in (((1, 2, 3), True), ((1, 3, 2), False)):
        for row, ns in zip(chases, order, strict=True):
            row["extra"]["ns_per_hop"] = ns
        assert (claim.broken(record) is None) == holds
    record = copying.deepcopy(records["memory-occupancy"])
    (claim,) = measure.claims("memory-occupancy")
    for row in record.rows:
        row["ms"], row["gbps"] = 1.0, 100.0
    assert claim.broken(record) is not None
    machine_conclusions.flights(record)[0]["gbps"] = 80.0
    assert claim.broken(record) is None


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_measures_here(name, monkeypatch):
    monkeypatch.setattr(experiments, "SIZES", (2**14, 98_432, 2**20))
    monkeypatch.setattr(experiments, "PICKED", 2**20)
    for module in (experiments, machine):
        monkeypatch.setattr(module, "N", 2**22)
    monkeypatch.setattr(machine, "WORKING_SETS", (2**21, 2**24, 2**27))
    monkeypatch.setattr(machine, "CHAINS", (2**15, 2**23))
    record = run(measure.find(name), here(), measure.Budget(2, 0.005), attempts=1)
    assert record.rows
    assert not record.problems()
