"""The experiments run, on a simulated clock, and their conclusions can fail."""

import copy
from types import SimpleNamespace

import pytest
import torch
import triton.testing

from tilebook import measure
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import eager, rehearse, retimed
from tilebook.measure.timing import here
from tilebook.parallel import (
    conclusions,
    experiments,
    launch,
    occupancy,
    overhead,
    pitfalls,
    single,
    timing_conclusions,
)

NAMES = ("parallel-add", "parallel-launch", "parallel-pitfalls", "parallel-programs")
MOST = 2**10
OURS, PEERS = conclusions.RIVALS.keys(), conclusions.RIVALS.values()


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    patch.setattr(single, "LARGEST", MOST)
    patch.setattr(conclusions, "LARGE", MOST)
    patch.setattr(experiments, "SIZES", (301, MOST, MOST + 7))
    patch.setattr(occupancy, "N", MOST + 7)
    patch.setattr(overhead, "CHAINS", (100, 200))
    patch.setattr(pitfalls, "SOAK", 1)
    for name, n in (("SMALL", 8), ("LARGE", 16), ("RESIDENT", 1100), ("LONG", 1200)):
        patch.setattr(pitfalls, name, n)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setattr(overhead, "compiled", eager)
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        for name in ("do_bench", "do_bench_cudagraph"):
            patch.setattr(triton.testing, name, lambda call, return_mode: 1.0)
        graph = SimpleNamespace(replay=lambda: None)
        patch.setattr(launch, "capture", lambda fn: fn() or graph)
        return {name: rehearse(name, rounds=2, repeats=2) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("parallel")]
    assert declared == sorted(NAMES)


def test_sizes_are_those_the_chapter_promises():
    assert {2**12, 2**26, 2**28, 2**30, 98_432, 1_000_003, 2**26 + 7} <= set(
        experiments.SIZES
    )
    assert len(experiments.SIZES) >= 8


def test_every_rung_is_measured_wherever_it_runs(records):
    record = records["parallel-add"]
    rows = record.select(n=MOST, dtype="float32", regime="cold")
    ladder = ["single", "grid", "masked", "strided", "wide", "whole"]
    assert [row["impl"] for row in rows] == [*ladder, *OURS, *PEERS]
    assert [row["ours"] for row in rows] == [True] * 8 + [False] * 2
    ragged = record.select(n=301, dtype="bfloat16", regime="steady")
    assert [row["impl"] for row in ragged] == [*ladder[2:], *OURS, *PEERS]
    assert all(row["bytes"] == 3 * 2 * 301 for row in ragged)
    assert all(row["relative_error"] <= row["error_bound"] for row in record.rows)


def test_programs(records):
    record = records["parallel-programs"]
    grid = [(k, s) for k in occupancy.PER_SM for s in occupancy.STAGES]
    rows = record.select(impl="strided")
    assert [(r["shape"]["per_sm"], r["shape"]["stages"]) for r in rows] == grid
    whole = [row["shape"]["threads"] for row in record.select(impl="whole")]
    assert whole == [2048, 1536, 1280, 1152, 1024, 896, 768, 640, 512]
    assert len(record.select(impl="descriptors")) == 1
    assert len(rows) + len(whole) + 1 == len(record.rows)


def test_launches(records):
    record = records["parallel-launch"]
    impls = {row["impl"] for row in record.select(op="launch", regime="host")}
    assert {"no arguments", "16 arguments", "3 new descriptors", "add"} <= impls
    assert {"torch.add", "add as an operator", "replay of a graph"} <= impls
    for row in record.select(op="add_chain"):
        assert row["extra"]["us_per_link"] == pytest.approx(
            1e3 * row["ms"] / overhead.LINKS
        )


def test_pitfalls(records):
    record = records["parallel-pitfalls"]
    assert len(record.select(op="matmul", m=pitfalls.SMALL)) == 6
    assert {
        "first call",
        "later call",
        "same inputs",
        "other inputs",
        "synchronised",
    } <= {row["impl"] for row in record.select(op="add")}


def test_values_can_be_told(records):
    for record in records.values():
        values = record.values()
        assert values
        # Nothing is saved where all times are one.
        saved = ("hidden_share", "own_share")
        assert all(v > 0 for name, v in values.items() if name not in saved)


def test_claims_are_decided_by_the_record_alone(records):
    for name, record in records.items():
        for claim in measure.claims(name):
            assert claim.text.endswith(".")
            detail = claim.broken(record)
            assert detail is None or "cannot be told" not in detail


# For each claim, which rows to speed up (or slow down) for it to hold and to fail.
SWAYED = [
    ("parallel-add", "parity", {"impl": "add"}, 0.9, 1.2),
    (
        "parallel-add",
        "ragged_is_free",
        {"impl": "whole", "n": MOST + 7},
        1,
        1.1,
    ),
    ("parallel-add", "one_program_is_slow", {"impl": "single"}, 100, 2),
    (
        "parallel-add",
        "masks_narrow_loads",
        {"impl": "masked", "n": MOST + 7},
        3,
        1,
    ),
    ("parallel-programs", "one_is_too_few", {"per_sm": 1}, 1e6, 1e-6),
    ("parallel-programs", "pipelining_helps", {"per_sm": 2, "stages": 4}, 0.1, 10),
    ("parallel-programs", "fewer_are_faster", {"threads": 1024}, 0.5, 2),
    ("parallel-launch", "launch_costs", {"impl": "4 arguments"}, 2, 0.5),
    ("parallel-launch", "graph_is_cheaper", {"regime": "steady"}, 0.1, 0.5),
    ("parallel-pitfalls", "do_bench_misleads", {"impl": "do_bench"}, 3, 1),
    ("parallel-pitfalls", "zeros_are_faster", {"impl": "zeros"}, 0.8, 1),
    ("parallel-pitfalls", "cache_flatters", {"impl": "same inputs"}, 0.3, 0.9),
]


@pytest.mark.parametrize(("name", "claim", "rows", "good", "bad"), SWAYED)
def test_claims_hold_and_fail(records, name, claim, rows, good, bad):
    (held,) = [c for c in measure.claims(name) if c.name == claim]
    assert held.broken(retimed(records[name], good, **rows)) is None
    assert held.broken(retimed(records[name], bad, **rows)) is not None


def test_remaining_claims_hold_and_fail(records):
    record = copy.deepcopy(records["parallel-add"])
    case = {"impl": "add", "n": MOST, "dtype": "float32", "regime": "cold"}
    record.one(**case)["gbps"] = 0.95 * conclusions.copy_gbps(record)
    assert conclusions.bandwidth(record)[0]
    record.one(**case)["gbps"] = 0.85 * conclusions.copy_gbps(record)
    assert not conclusions.bandwidth(record)[0]

    record = copy.deepcopy(records["parallel-pitfalls"])
    row = record.one(op="add", impl="no synchronisation")
    for gbps, holds in ((20e3, True), (5e3, False)):
        row["extra"]["apparent_gbps"] = gbps
        assert timing_conclusions.unsynchronised_is_absurd(record)[0] == holds

    record = copy.deepcopy(records["parallel-launch"])
    chains = record.select(op="add_chain", impl="plain")
    assert not record.select(impl="dependent") or len(chains) == 2
    record.rows[:] = [row for row in record.rows if row["impl"] != "dependent"]
    assert not timing_conclusions.dependent_helps(record)[0]
    record.rows.extend({**row, "impl": "dependent"} for row in chains)
    assert timing_conclusions.dependent_helps(retimed(record, 0.8, impl="dependent"))[0]
    assert not timing_conclusions.dependent_helps(
        retimed(record, 1.0, impl="dependent")
    )[0]


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_measures_here(name, monkeypatch):
    monkeypatch.setattr(experiments, "SIZES", (2**12, 98_432, 2**20 + 7))
    monkeypatch.setattr(overhead, "CHAINS", (2**12, 2**16))
    monkeypatch.setattr(occupancy, "N", 2**24)
    record = run(measure.find(name), here(), measure.Budget(2, 0.005), attempts=1)
    assert record.rows
    assert not record.problems()
