"""The experiments run, on a simulated clock, and their conclusions can fail."""

import copy

import pytest
import torch

from tilebook import device, measure
from tilebook.measure import plots, runner
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import Untimed, rehearse, retimed
from tilebook.measure.timing import here
from tilebook.tiling import blur, conclusions, experiments

NAMES = ("tiling-order", "tiling-stencil", "tiling-transpose")
SMALL = ((5, 7),)


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    shapes = ((16, 8), *SMALL)
    patch.setattr(experiments, "CASES", [(torch.bfloat16, shape) for shape in shapes])
    patch.setattr(
        experiments, "STENCILS", [(k, side) for k in (3, 5) for side in (4, 1)]
    )
    patch.setattr(experiments, "ORDERED", (130, 2))
    patch.setattr(experiments, "GROUPS", (1, 2))
    patch.setattr(conclusions, "SQUARE", {"m": 16, "n": 8})
    patch.setattr(conclusions, "LARGE", 10)
    patch.setattr(conclusions, "LARGE_PICTURE", 4)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        # One type tells as much as three here, of the second stencil one picture, and
        # the interpreter takes its time.
        patch.setattr(experiments, "DTYPES", (torch.bfloat16,))
        patch.setattr(experiments, "STENCILS", [(3, 4), (3, 1), (5, 4)])
        return {name: rehearse(name, repeats=2) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("tiling")]
    assert declared == sorted(NAMES)


@pytest.mark.timed
def test_sizes_are_those_the_chapter_promises():
    promised = {
        *((8192, 8192), (4096, 16384), (1000, 1000), (4095, 4097)),
        *((64, 1048576), (1048576, 64), (17, 100003)),
    }
    assert promised <= set(experiments.SHAPES)
    assert len(experiments.SHAPES) >= 10
    assert {torch.float32, torch.bfloat16, torch.uint8} == set(experiments.DTYPES)
    assert len(experiments.PICTURES) >= 8
    assert conclusions.LARGE_PICTURE in experiments.PICTURES
    assert experiments.ORDERED in experiments.SHAPES
    assert 1 in experiments.GROUPS


def test_brief_cases_are_enough_for_every_value_and_claim():
    brief = (
        *(experiments.CASES_BRIEF, experiments.STENCILS_BRIEF),
        experiments.DTYPES_BRIEF,
    )
    everything = (experiments.CASES, experiments.STENCILS, experiments.DTYPES)
    for few, many in zip(brief, everything, strict=True):
        assert set(few) < set(many)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Bench", Untimed)
        for name in NAMES:
            record = rehearse(name, brief=True)
            for value in measure.values(name):
                # What only a GPU runs has no rows without one.
                gpu = value.startswith(("described", "explicit"))
                if not gpu or device.has("gpu"):
                    record.value(value)
            for claim in measure.claims(name):
                assert "cannot be told" not in (claim.broken(record) or "")


def test_every_rung_is_measured_wherever_it_runs(records):
    record = records["tiling-transpose"]
    rows = record.select(m=16, n=8, dtype="bfloat16", regime="cold")
    ladder = ["naive", "tiled", "grouped", "aligned"]
    assert [row["impl"] for row in rows] == [
        *ladder,
        "described",
        "described, wide",
        "transpose",
        *conclusions.PEERS,
    ]
    odd = record.select(m=5, n=7, dtype="bfloat16", regime="steady")
    assert [row["impl"] for row in odd] == [*ladder, "transpose", *conclusions.PEERS]
    assert all(row["bytes"] == 2 * 2 * 35 for row in odd)
    assert [row["ours"] for row in odd] == [True] * 5 + [False] * 3
    assert all(row["relative_error"] <= row["error_bound"] for row in record.rows)


def test_stencils_and_orders(records):
    rows = records["tiling-stencil"].select(h=4, size=3, regime="cold")
    ways = ["direct", "rows", "packed", "blur"]
    peers = (*conclusions.STENCIL_PEERS, "torch.compile, conv2d")
    assert [row["impl"] for row in rows] == [*ways, *peers]
    assert not records["tiling-stencil"].select(h=1, impl="packed")
    orders = records["tiling-order"].select(dtype="bfloat16", regime="cold")
    wanted = [f"strips of {group}" for group in experiments.GROUPS]
    assert [row["impl"] for row in orders] == wanted


def test_squares_are_picked_and_drawn(records):
    record = copy.deepcopy(records["tiling-transpose"])
    assert not conclusions.squares(record).rows
    for row in record.select(m=16):
        row["shape"] = {"m": 8, "n": 8}
    for row in record.select(m=5):
        row["shape"] = {"m": 16, "n": 16}
    part = conclusions.squares(record)
    assert {row["shape"]["m"] for row in part.rows} == {8, 16}
    assert plots.bandwidth(part, x="m", regime="cold").axes


@pytest.mark.parametrize("size", blur.WEIGHTS)
def test_peers_are_exact(size, device):
    image = torch.randint(0, 256, (13, 20), dtype=torch.uint8, device=device)
    ours = blur.blur(image, size=size, border="zero")
    assert torch.equal(experiments._blurred(image, size), ours)
    half = experiments.halved(size)
    assert torch.equal(experiments.shifted(image, half, size=size), ours)
    assert torch.equal(experiments.convolved(image, experiments.weighed(size)), ours)


def test_values_can_be_told(records):
    for record in records.values():
        # The sizes and types that the small experiment leaves out.
        record = copy.deepcopy(record)
        if record.name == "tiling-transpose":
            few = record.select(m=16, n=8, dtype="bfloat16")
            # The rung that isn't interpreted.
            few += [
                {**row, "impl": "explicit"} for row in few if row["impl"] == "aligned"
            ]
            record.rows.extend(row for row in few if row["impl"] == "explicit")
            record.rows.extend(
                {**row, "dtype": dtype} for dtype in ("float32", "uint8") for row in few
            )
            record.rows.extend(
                {**row, "shape": {"m": m, "n": n}}
                for m, n in ((1000, 1000), (4095, 4097), (4096, 4096))
                for row in few
            )
        values = record.values()
        assert values
        assert all(value > 0 for value in values.values())


# For each claim, which rows to speed up (or slow down) for it to hold and to fail.
SWAYED = [
    ("tiling-transpose", "beats_torch", {"impl": "transpose"}, 0.5, 1),
    ("tiling-transpose", "parity", {"impl": "transpose"}, 0.9, 1.2),
    ("tiling-transpose", "rows_are_slow", {"impl": "naive"}, 1e3, 1e-9),
    ("tiling-transpose", "bandwidth", {"impl": "transpose"}, 1e-9, 1e3),
    ("tiling-order", "order_is_free", {"impl": "strips of 2"}, 1.2, 0.9),
    ("tiling-stencil", "stencil_parity", {"impl": "blur"}, 0.9, 1.2),
]


@pytest.mark.parametrize(("name", "claim", "rows", "good", "bad"), SWAYED)
def test_claims_hold_and_fail(records, name, claim, rows, good, bad):
    (held,) = [c for c in measure.claims(name) if c.name == claim]
    assert held.text.endswith(".")
    assert held.broken(retimed(records[name], good, **rows)) is None
    assert held.broken(retimed(records[name], bad, **rows)) is not None


def test_every_claim_is_swayed():
    assert {(c[0], c[1]) for c in SWAYED} == {
        (name, claim.name) for name in NAMES for claim in measure.claims(name)
    }


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_measures_here(name, monkeypatch):
    monkeypatch.setattr(experiments, "SHAPES", ((256, 256), (1000, 1000), (33, 4097)))
    monkeypatch.setattr(experiments, "PICTURES", (255, 1024))
    monkeypatch.setattr(experiments, "ORDERED", (1024, 1024))
    # All cases take many minutes of compilation.
    budget = measure.Budget(2, 0.005, brief=True)
    record = run(measure.find(name), here(), budget, attempts=1)
    assert record.rows
    assert not record.problems()
