"""The experiments run, small and on a simulated clock, and hold what was promised."""

import copy

import pytest
import torch

from tilebook import measure
from tilebook.hopper import (
    conclusions,
    experiments,
    figures,
    folded,
    made,
    results,
    timeline,
)
from tilebook.matmul import experiments as earlier
from tilebook.matmul.shapes import Shape
from tilebook.measure.simulated import rehearse, retimed

NAMES = (
    "hopper-descriptors",
    "hopper-k-sweep",
    "hopper-ladder",
    "hopper-matmul",
    "hopper-remainder",
    "hopper-timeline",
)
TINY = (Shape(8, 8, 8), Shape(16, 8, 16))


def stand_in(a, b):
    """For kernels that no interpreter runs."""
    return a @ b


def planned(name, task, config, log):
    """Write into a log what a schedule is meant to do."""
    for span in figures.planned(name, experiments.DRAWN.k, 4):
        turn = span.tile + (name == "folded" and span.what == "store")
        if turn >= log.shape[2]:
            continue
        first = 2 * (span.what == "store")
        at = log[0, timeline.WHO.index(span.who), turn]
        at[first], at[first + 1] = 1000 + int(span.begin), 1000 + int(span.end)


def shrink(patch):
    """Make every size small, and every kernel one that runs here."""
    cases = tuple((shape, "NT") for shape in TINY)
    for name in ("CASES", "CASES_BRIEF", "SEARCHED", "SEARCHED_BRIEF"):
        patch.setattr(earlier, name, cases)
    for name in ("LADDER", "LADDER_BRIEF", "SUMS", "SUMS_BRIEF", "OVER", "OVER_BRIEF"):
        patch.setattr(experiments, name, TINY)
    for name in ("RUNGS", "SCHEDULES", "CUTS"):
        patch.setattr(
            experiments, name, dict.fromkeys(getattr(experiments, name), stand_in)
        )
    patch.setattr(experiments, "DRAWN", Shape(1536, 2048, 1024))
    patch.setattr(experiments, "SMALL", Shape(16, 16, 16))
    patch.setattr(timeline, "launch", planned)
    for module in (folded, made):
        patch.setattr(module, "launch", lambda task, config=None: None)
    for name, value in (
        ("LARGE", 8),
        ("EVEN", 8),
        ("ROWS", 8),
        ("SHORT", 8),
        ("DRAWN", 8),
        ("LONG", 16),
        ("THOUSAND", 16),
    ):
        patch.setattr(conclusions, name, value)
    patch.setattr(conclusions, "OVER", tuple(TINY[0]))


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real calls and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: rehearse(name) for name in NAMES}


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


def test_all_are_declared():
    assert all(measure.claims(name) for name in NAMES)
    declared = [e.name for e in measure.experiments() if e.name.startswith("hopper")]
    assert declared == sorted(NAMES)


def test_each_rung_and_each_peer_is_measured(measured):
    shown = {row["impl"] for row in measured["hopper-ladder"].rows}
    assert shown == {*experiments.RUNGS, "matmul", "cuBLAS"}
    shown = {row["impl"] for row in measured["hopper-k-sweep"].rows}
    assert shown == {*experiments.SCHEDULES, "matmul", "cuBLAS"}
    shown = {row["impl"] for row in measured["hopper-matmul"].rows}
    assert shown == {"matmul", "cuBLAS", "torch.compile"}


def test_sums_reach_from_short_to_long():
    lengths = [shape.k for shape in experiments.SUMS]
    assert lengths[0] == 256
    assert lengths[-1] == conclusions.LONG == 16384
    assert conclusions.SHORT in lengths
    assert {shape[:2] for shape in experiments.SUMS} == {(8192, 8192)}
    assert set(experiments.SUMS_BRIEF) <= set(experiments.SUMS)
    brief = {shape.k for shape in experiments.SUMS_BRIEF}
    quoted = {conclusions.SHORT, conclusions.DRAWN, conclusions.LONG}
    assert brief >= quoted
    sides = {shape.n for shape in experiments.LADDER_BRIEF}
    assert sides >= {conclusions.LARGE, conclusions.EVEN}
    assert set(experiments.LADDER_BRIEF) <= set(experiments.LADDER)
    assert experiments.DRAWN.k == conclusions.DRAWN
    # What the targets are about is among what is measured.
    shapes = {shape for shape, _ in earlier.CASES}
    assert Shape(8192, 8192, 512) in shapes
    assert Shape(4096, 4096, 4096) in shapes & set(experiments.LADDER)


@pytest.mark.usefixtures("small")
def test_every_value_can_be_told(measured):
    for name, record in measured.items():
        assert measure.values(name)
        for value in measure.values(name):
            assert record.value(value) >= 0


@pytest.mark.usefixtures("small")
def test_each_claim_on_products_breaks_where_we_are_slower(measured):
    ahead, nowhere = measure.claims("hopper-matmul")
    odd = retimed(measured["hopper-matmul"], 1.2, impl="matmul", m=16)
    for factor, is_ahead, is_near in ((0.9, 1, 1), (1.05, 0, 1), (1.1, 0, 0)):
        record = retimed(odd, factor, impl="matmul", m=8)
        assert bool(ahead.broken(record)) != is_ahead
        assert bool(nowhere.broken(record)) != is_near
    # It also says what is behind, and would be wrong if that weren't.
    assert nowhere.broken(retimed(odd, 0.5, impl="matmul"))


@pytest.mark.usefixtures("small")
def test_the_claim_on_rungs_breaks_either_way(measured):
    (claim,) = measure.claims("hopper-ladder")
    good = retimed(measured["hopper-ladder"], 0.9, impl="folded")
    assert not claim.broken(good)
    assert claim.broken(retimed(good, 2.0, impl="folded"))
    assert claim.broken(retimed(good, 0.5, impl="pingpong"))


@pytest.mark.usefixtures("small")
def test_the_claim_on_sums_is_about_short_ones(measured):
    (claim,) = measure.claims("hopper-k-sweep")
    record = measured["hopper-k-sweep"]
    assert claim.broken(record)
    assert not claim.broken(retimed(record, 0.9, impl="folded", k=8))
    assert claim.broken(retimed(record, 0.9, impl="folded", k=16))


@pytest.mark.usefixtures("small")
def test_the_claim_on_what_is_left_over(measured):
    (claim,) = measure.claims("hopper-remainder")
    record = measured["hopper-remainder"]
    assert claim.broken(record)
    assert not claim.broken(retimed(record, 0.9, impl="remainder"))
    assert claim.broken(retimed(record, 0.99, impl="remainder"))
    table = results.cuts(record)
    assert list(table.index) == ["8 x 8 x 8", "16 x 8 x 16"]
    assert list(table.columns) == [*experiments.CUTS, "matmul"]
    assert (table == 1).all(axis=None)


def test_what_is_left_over_is_a_part_of_a_turn():
    for shape in experiments.OVER:
        count = -(-shape.m // 128) * -(-shape.n // 256)
        assert count > 132
        assert count % 132
    assert tuple(experiments.OVER[0]) == conclusions.OVER
    assert set(experiments.OVER) <= {shape for shape, _ in earlier.CASES}


@pytest.mark.usefixtures("small")
def test_the_claim_on_the_timeline_reads_the_clocks(measured):
    (claim,) = measure.claims("hopper-timeline")
    record = measured["hopper-timeline"]
    assert not claim.broken(record)
    late = copy.deepcopy(record)
    for row in late.select(impl="folded"):
        # A store that begins when the tile's own products are over.
        if row["op"].endswith(("storing", "stored")):
            row["extra"]["cycles"] += 10**6
    assert figures.hidden(figures.measured(late)["folded"]) == 0
    assert claim.broken(late)


@pytest.mark.usefixtures("small")
def test_the_claim_on_descriptors_says_who_pays(measured):
    (claim,) = measure.claims("hopper-descriptors")
    record = measured["hopper-descriptors"]
    assert claim.broken(record)
    paid = retimed(record, 2.0, impl="host descriptors", regime="host")
    paid = retimed(paid, 2.0, impl="the kernel's descriptors", regime="cold")
    assert not claim.broken(paid)
    assert paid.value("host_cost_us") > 0


def test_what_fits():
    def row(m, n, k):
        return {"shape": {"m": m, "n": n, "k": k}}

    for sides in ((4096, 4096, 4096), (512, 22016, 4096), (8192, 8192, 512)):
        assert conclusions.fits(row(*sides))
    for sides in ((128, 22016, 4096), (1000, 1000, 1000), (4095, 4097, 1023)):
        assert not conclusions.fits(row(*sides))


def test_tables_of_the_records(measured):
    table = results.ladder(measured["hopper-ladder"])
    assert list(table.columns) == [8]
    assert {"folded", "cuBLAS"} <= set(table.index)
    sums = results.sums(measured["hopper-k-sweep"])
    assert list(sums.index) == [8, 16]
    assert "cuBLAS" not in sums.columns
    assert (sums == 1).all(axis=None)
    costs = results.descriptors(measured["hopper-descriptors"])
    assert list(costs.columns) == ["host, µs", "GPU, µs"]
    assert len(costs) == 4
    assert (costs == 1000).all(axis=None)


def test_the_timeline_has_every_moment_of_its_turns(measured):
    record = measured["hopper-timeline"]
    for name in experiments.DRAWN_AS:
        rows = record.select(impl=name)
        assert {row["op"].partition(", ")[0] for row in rows} == set(timeline.WHO)
        turns = {row["shape"]["turn"] for row in rows}
        assert max(turns) < experiments.DRAWN_TURNS
        assert all(isinstance(row["extra"]["cycles"], int) for row in rows)


def test_moments_come_in_order_and_begin_with_nothing():
    log = torch.zeros(2, 3, 16, 4, dtype=torch.int64)
    log[1, 0, 0] = torch.tensor([70, 90, 95, 99])
    log[1, 2, 0, :2] = torch.tensor([50, 80])
    found = timeline.moments(log, program=1)
    assert [m.cycles for m in found] == [0, 20, 30, 40, 45, 49]
    assert found[0] == ("producer", 0, "begun", 0)
    assert timeline.moments(log) == []
