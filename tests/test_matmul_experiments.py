"""The experiments run, small and on a simulated clock, and hold what was promised."""

import copy

import pytest
import torch

from tilebook import measure
from tilebook.matmul import (
    conclusions,
    conclusions_linear,
    experiments,
    experiments_linear,
    first_call,
    shapes,
)
from tilebook.matmul.shapes import Shape
from tilebook.measure.simulated import Simulated, Untimed, rehearse, retimed

NAMES = (
    "matmul-autotune-cost",
    "matmul-bf16",
    "matmul-epilogue",
    "matmul-fp16",
    "matmul-fp32",
    "matmul-int8",
    "matmul-ladder",
    "matmul-skinny",
    "matmul-turns",
)
TINY = (Shape(5, 8, 16), Shape(24, 8, 16))


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    cases = ((TINY[0], "NN"), (TINY[1], "NT"), (TINY[0], "TN"))
    for name in ("CASES", "CASES_BRIEF"):
        patch.setattr(experiments, name, cases)
    for name in ("SEARCHED", "SEARCHED_BRIEF"):
        patch.setattr(experiments, name, cases[:1])
    for name in ("THIN", "TURNS"):
        patch.setattr(experiments, name, TINY)
    for name in ("LADDER", "PRECISE"):
        patch.setattr(experiments, name, (*TINY, Shape(8, 8, 8)))
    patch.setattr(conclusions, "LARGE", 8)
    patch.setattr(conclusions, "THOUSAND", TINY[0])
    patch.setattr(conclusions, "ONE_ROW", TINY[0])
    patch.setattr(conclusions, "EVEN", TINY[1])
    patch.setattr(conclusions, "FITTING", TINY[0])
    patch.setattr(conclusions_linear, "TALL", TINY[0].m)
    for name in ("ENDED", "FRESH", "COMPARED"):
        patch.setattr(experiments_linear, name, TINY[:1])
    patch.setattr(first_call, "in_fresh_processes", pretended)


def pretended(shape, layout="NN", provider="matmul"):
    return dict.fromkeys([*first_call.CALLS, first_call.NEXT], 1.0)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: rehearse(name) for name in NAMES}


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("matmul")]
    assert declared == sorted(NAMES)


def test_each_has_ours_and_a_peer(measured):
    for name, record in measured.items():
        ours = {row["ours"] for row in record.rows}
        assert True in ours, name
        assert False in ours, name
    shown = {row["impl"] for row in measured["matmul-ladder"].rows}
    assert {*experiments.RUNGS, "matmul", "cuBLAS"} == shown
    shown = {row["impl"] for row in measured["matmul-skinny"].rows}
    assert {*experiments.THIN_RUNGS, "matmul", "cuBLAS"} == shown
    shown = {row["impl"] for row in measured["matmul-turns"].rows}
    assert {*experiments.TURN_RUNGS, "matmul", "cuBLAS"} == shown
    shown = {row["impl"] for row in measured["matmul-fp32"].rows}
    assert {"tf32", "tf32x3", "ieee", "bf16x3", "cuBLAS, ieee"} <= shown
    firsts = measured["matmul-autotune-cost"].select(impl="matmul")
    assert [row["op"] for row in firsts] == [*first_call.CALLS, first_call.NEXT]
    assert {row["op"] for row in measured["matmul-bf16"].rows} == {
        *("matmul", "matmul_nt", "matmul_tn")
    }
    ends = {row["op"] for row in measured["matmul-epilogue"].rows}
    assert len(ends) == len(experiments_linear.ENDS)


def test_rates_are_of_the_models_operations(measured):
    for row in measured["matmul-bf16"].rows:
        m, n, k = (row["shape"][side] for side in "mnk")
        assert row["flops"] == 2 * m * n * k
        assert row["bytes"] == 2 * (m * k + k * n + m * n)
    row = measured["matmul-int8"].rows[0]
    m, n, k = (row["shape"][side] for side in "mnk")
    assert row["bytes"] == m * k + k * n + 4 * m * n


def test_the_shapes_are_those_that_were_promised():
    seen = {shape for shape, _ in experiments.CASES}
    assert {Shape(n, n, n) for n in (512, 1024, 2048, 4096, 8192, 16384)} <= seen
    assert {Shape(8192, 8192, k) for k in (512, 1024, 2048)} <= seen
    assert {Shape(1000, 1000, 1000), Shape(4095, 4097, 1023)} <= seen
    for m in (1, 16, 64, 128, 512, 4096):
        # Gate and up projection of the smaller model, and the way back down.
        assert {Shape(m, 22016, 4096), Shape(m, 4096, 11008)} <= seen
        assert {Shape(m, 57344, 8192), Shape(m, 8192, 28672)} <= seen
    layouts = {layout for shape, layout in experiments.CASES if shape.m == 4096}
    assert layouts == {"NN", "NT", "TN"}
    assert {shape.m for shape in experiments.THIN} >= {1, 16, 64}
    assert len(experiments.LADDER) >= 8


@pytest.mark.parametrize("layout", shapes.LAYOUTS)
def test_layouts_are_what_they_say(layout):
    a, b = shapes.operands(Shape(3, 4, 5), layout, torch.float32)
    assert (a.shape, b.shape) == ((3, 5), (5, 4))
    assert (a.stride(1) == 1) == (layout[0] == "N")
    assert (b.stride(1) == 1) == (layout[1] == "N")


def test_brief_cases_are_among_all():
    pairs = [
        (experiments.CASES_BRIEF, experiments.CASES),
        (experiments.SEARCHED, experiments.CASES),
        (experiments.SEARCHED_BRIEF, experiments.CASES_BRIEF),
        (experiments.LADDER_BRIEF, experiments.LADDER),
        (experiments.THIN_BRIEF, experiments.THIN),
        (experiments.TURNS_BRIEF, experiments.TURNS),
        (experiments.PRECISE_BRIEF, experiments.PRECISE),
        (experiments_linear.ENDED_BRIEF, experiments_linear.ENDED),
        (experiments_linear.FRESH_BRIEF, experiments_linear.FRESH),
    ]
    for few, many in pairs:
        assert few
        assert set(few) <= set(many)


def test_slow_rungs_are_left_out_where_they_take_seconds():
    bench = Untimed("matmul", timer=Simulated())
    experiments.matmul_ladder(bench)
    large = {row["impl"] for row in bench.rows if row["shape"]["m"] > 4096}
    assert large
    assert not large & set(experiments.SLOW)


def test_every_value_can_be_told(measured, monkeypatch):
    shrink(monkeypatch)
    for name, record in measured.items():
        for value in measure.values(name):
            assert record.value(value) >= 0


@pytest.mark.parametrize(
    ("name", "slower"),
    [
        ("matmul-bf16", {"impl": "matmul"}),
        ("matmul-fp16", {"impl": "matmul"}),
        ("matmul-skinny", {"impl": "matmul"}),
        ("matmul-turns", {"impl": "matmul"}),
        ("matmul-int8", {"impl": "matmul"}),
        ("matmul-epilogue", {"impl": "linear"}),
        ("matmul-ladder", {"impl": "ordered"}),
        ("matmul-autotune-cost", {"op": first_call.CALLS[0]}),
        ("matmul-autotune-cost", {"op": first_call.NEXT}),
    ],
)
def test_each_claim_breaks_where_we_are_slower(measured, monkeypatch, name, slower):
    shrink(monkeypatch)
    claims = measure.claims(name)
    if name == "matmul-autotune-cost":
        claims = [claims[slower["op"] == first_call.NEXT]]
    faster = slower | {"ours": True}
    good = retimed(measured[name], 1e-3, **faster)
    if name == "matmul-ladder":
        for impl, factor in (("naive", 4), ("outer", 3), ("tile", 2)):
            good = retimed(good, factor, impl=impl)
    bad = retimed(good, 1e7, **faster)
    for claim in claims:
        assert not claim.broken(good)
        assert claim.broken(bad)


def test_three_products_must_be_worth_it(measured):
    (claim,) = measure.claims("matmul-fp32")
    record = copy.deepcopy(measured["matmul-fp32"])
    for row in record.rows:
        row["relative_error"] = 1e-3 if row["impl"] == "tf32" else 1e-7
    assert not claim.broken(record)
    for row in record.select(impl="tf32x3"):
        row["relative_error"] = 1e-4
    assert claim.broken(record)


def test_a_first_call_is_timed_in_processes_of_its_own(tmp_path, monkeypatch):
    # What this process keeps must neither help nor be touched.
    for name in first_call.FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    found = first_call.in_fresh_processes(TINY[0], "NT")
    assert [*found] == [*first_call.CALLS, first_call.NEXT]
    assert all(0 < seconds < first_call.TIMEOUT for seconds in found.values())
    assert not [*tmp_path.iterdir()]
    # A module that takes no such arguments says so, and ends.
    monkeypatch.setattr(first_call, "MODULE", "json.tool")
    with pytest.raises(RuntimeError, match=r"usage: .*json\.tool"):
        first_call.in_fresh_processes(TINY[0])


def test_a_peer_is_compiled_for_its_first_call(monkeypatch):
    compiled = []

    def compile(fn, **options):
        return lambda *args: compiled.append(fn) or fn(*args)

    monkeypatch.setattr(torch, "compile", compile)
    found = first_call.here(TINY[0], "NN", "torch.compile")
    assert [*found] == [*first_call.CALLS]
    assert len(compiled) == len(first_call.CALLS)
