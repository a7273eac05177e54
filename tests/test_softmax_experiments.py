"""The experiments run, on a simulated clock, and their conclusions can fail."""

import copy

import pytest
import torch

from tilebook import device, measure, testing
from tilebook.measure import runner
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import Untimed, eager, rehearse, retimed
from tilebook.measure.timing import here
from tilebook.softmax import (
    conclusions,
    experiments,
    further_conclusions,
    peers,
    resident,
    split,
)

NAMES = ("softmax-backward", "softmax-crossovers", "softmax-error", "softmax-forward")
# Stand-ins for the lengths that matter: short, uneven, long.
LENGTHS = (16, 33, 64)


def tiny(shape, dtype):
    """In place of a matrix of the experiments: a row of it."""
    return [torch.randn(1, shape[1], dtype=dtype, device=device.torch_device())]


def shrink(patch):
    """Make every size small, so that the interpreter is done in seconds."""
    patch.setattr(experiments, "LENGTHS", LENGTHS)
    patch.setattr(experiments, "ELEMENTS", 66)
    patch.setattr(experiments, "FEW", ((1, 96), (2, 80)))
    patch.setattr(experiments, "FEW_BRIEF", ((1, 96),))
    patch.setattr(experiments, "CROSSING", (16, 33))
    patch.setattr(experiments, "ERRORS", ((1, 40),))
    patch.setattr(experiments, "EXPONENTS", (0,))
    quoted = {16: ("naive", "fused", "several", "persistent"), 33: ("fused", "ragged")}
    patch.setattr(experiments, "QUOTED_BRIEF", quoted | {64: ("online",)})
    patch.setattr(experiments, "GRADIENTS_BRIEF", (16, 64))
    patch.setattr(experiments, "CROSSING_BRIEF", (33,))
    patch.setattr(experiments, "ERRORS_BRIEF", ((1, 40),))
    patch.setattr(experiments, "EXPONENTS_BRIEF", (0,))
    for name, value in {
        **{"FROM": 16, "TO": 16, "COPYING": 16, "SHORT": 16, "UNEVEN": 33},
        **{"LONG": 64, "ODD": 33, "SHARED": 64, "ROWS": 1},
        **{"ALONE": (1, 96), "SOME": (2, 80)},
    }.items():
        patch.setattr(conclusions, name, value)


@pytest.fixture(scope="module")
def measured(interpreted):
    """Every experiment, small: real kernels and results, made-up times."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        # One type tells as much as three here, and the interpreter takes its time.
        patch.setattr(experiments, "DTYPES", (torch.bfloat16,))
        return {name: rehearse(name) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def test_all_are_declared():
    declared = {e.name for e in measure.experiments() if e.name.startswith("softmax")}
    assert set(NAMES) <= declared


def test_sizes_are_those_the_chapter_promises():
    promised = {
        *(256, 512, 1000, 1024, 2048, 4096, 4097, 8192, 16384, 32768, 50257, 65536),
        *(131072, 262144),
    }
    assert promised == set(experiments.LENGTHS)
    assert {torch.float32, torch.bfloat16, torch.float16} == set(experiments.DTYPES)
    for m, n in experiments.shapes():
        assert m * n <= 2**26
        assert m >= conclusions.ROWS or (m, n) in experiments.FEW
    assert {-4, 0, 4} <= set(experiments.EXPONENTS)
    names = ("SHORT", "UNEVEN", "LONG", "ODD", "SHARED", "COPYING", "TO")
    assert {getattr(conclusions, name) for name in names} < promised
    assert {conclusions.ALONE, conclusions.SOME} < set(experiments.FEW)


def test_brief_cases_are_among_all():
    known = vars(experiments)
    of = {
        "PEERS": peers.NAMES,
        "QUOTED_FEW": known["RUNGS"],
        "COMPARED": known["DTYPES"],
    }
    of |= dict.fromkeys(("GRADIENTS", "QUOTED", "SEARCHED"), known["LENGTHS"])
    for name, brief in known.items():
        if name.endswith("_BRIEF"):
            stem = name.removesuffix("_BRIEF")
            assert set(brief) < set(of.get(stem) or known[stem])
    for n, names in experiments.QUOTED_BRIEF.items():
        shape = (experiments.ELEMENTS // n, n)
        found = experiments.ladder(shape, experiments.DTYPES_BRIEF[0])
        assert set(names) < found.keys()


@pytest.mark.timed
@pytest.mark.parametrize("name", NAMES)
def test_brief_cases_are_enough_for_every_value_and_claim(name, monkeypatch):
    """With the sizes of a build, on which nothing is run."""
    monkeypatch.setattr(runner, "Bench", Untimed)
    monkeypatch.setattr(experiments, "matrix", tiny)
    record = rehearse(name, brief=True)
    # Somebody waits for them: of hundreds a few dozen.
    assert len(record.rows) <= 50
    for value in measure.values(name):
        assert record.value(value) > 0
    for claim in measure.claims(name):
        assert "cannot be told" not in (claim.broken(record) or "")


def test_every_rung_is_measured_wherever_it_runs(records):
    record = records["softmax-forward"]
    rows = record.select(n=16, dtype="bfloat16", regime="cold")
    rungs = ["naive", "fused", "several", "persistent", "ragged", "online"]
    assert [row["impl"] for row in rows] == [
        *rungs,
        "softmax",
        "torch",
        "torch.compile",
    ]
    assert all(row["bytes"] == 2 * 2 * 64 for row in rows)
    few = record.select(m=1, n=96, dtype="bfloat16", regime="steady")
    assert "split" in [row["impl"] for row in few]
    assert all(row["relative_error"] <= row["error_bound"] for row in record.rows)


def test_gradients_and_errors(records):
    rows = records["softmax-backward"].select(n=33, dtype="bfloat16", regime="cold")
    ours = ["long", "tile", "walk", "gradient"]
    assert [row["impl"] for row in rows] == [*ours, "torch", "torch.compile"]
    rows = records["softmax-error"].select(exponent=0, dtype="bfloat16")
    assert all(0 < row["extra"]["worst"] <= 2**24 * 2**-5 for row in rows)


def test_what_takes_what(monkeypatch):
    bf16 = torch.bfloat16
    monkeypatch.setattr(device, "has", lambda feature: False)
    assert not experiments.takes(resident, (512, 131072), bf16)
    monkeypatch.setattr(device, "has", lambda feature: True)
    assert experiments.takes(resident, (512, 131072), bf16)
    assert not experiments.takes(resident, (512, 50257), bf16)
    assert experiments.takes(split, (16, 131072), bf16)
    assert not experiments.takes(split, (512, 131072), bf16)


def test_the_fastest_rung_by_length(records):
    record = retimed(records["softmax-crossovers"], 0.5, impl="ragged", n=33)
    record = retimed(record, 0.5, impl="several", n=16)
    assert further_conclusions.best_rungs(record) == {16: "several", 33: "ragged"}


def test_peers_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(peers, "_liger", lambda: None)
    monkeypatch.setattr(peers, "_gems", lambda: None)
    assert list(peers.forward(64, torch.float32)) == ["torch", "torch.compile"]
    assert list(peers.backward(64, torch.float32)) == ["torch", "torch.compile"]


def test_peers_that_are_installed_are_asked_as_they_want(monkeypatch):
    class Liger:
        class LigerSoftmaxFunction:
            @staticmethod
            def apply(x):
                return torch.softmax(x, -1)

        @staticmethod
        def _softmax_backward(grad, y, block, warps, several):
            return torch._softmax_backward_data(grad, y, -1, y.dtype)

    class Gems:
        softmax = staticmethod(lambda x, dim, half_to_float=False: x.softmax(dim))
        softmax_backward = staticmethod(
            lambda grad, y, dim: torch._softmax_backward_data(grad, y, dim, y.dtype)
        )

    monkeypatch.setattr(peers, "_liger", lambda: Liger)
    monkeypatch.setattr(peers, "_gems", lambda: Gems)
    x = torch.randn(3, 64)
    monkeypatch.setattr(measure, "compiled", eager, raising=False)
    monkeypatch.setattr(peers, "_liger_settings", lambda n: (64, 4))
    for provider in peers.forward(64, torch.float32).values():
        fn = provider.fn or (lambda x: x.softmax(-1))
        out = fn(x, out=torch.empty_like(x)) if provider.out else fn(x)
        assert torch.allclose(out, x.softmax(-1))
    y, grad = x.softmax(-1), torch.randn(3, 64)
    found = peers.backward(64, torch.float32)
    assert list(found) == list(peers.NAMES)
    for name in ("torch", "liger", "flag_gems"):
        expected = experiments.gradient_formula(y, grad)
        torch.testing.assert_close(found[name].fn(y, grad), expected)
    assert "liger" not in peers.forward(2**17, torch.bfloat16)


def test_what_parts_and_sharing_are_worth(records):
    """By which rows' times, and which way round."""
    record = records["softmax-forward"]
    for value, shape in (("split_alone", (1, 96)), ("split_some", (2, 80))):
        where = dict(zip("mn", shape, strict=True))
        before = record.value(value)
        faster = retimed(record, 0.5, impl="split", **where)
        assert faster.value(value) == pytest.approx(2 * before)
        slower = retimed(record, 3.0, impl="online", **where)
        assert slower.value(value) == pytest.approx(3 * before)
    before = record.value("shared_over_online"), record.value("shared_over_peers")
    faster = retimed(record, 0.5, impl="softmax", n=64)
    after = faster.value("shared_over_online"), faster.value("shared_over_peers")
    assert after == pytest.approx([2 * ratio for ratio in before])
    assert faster.value("shared_gbps") == pytest.approx(2 * record.value("shared_gbps"))
    gradients = records["softmax-backward"]
    faster = retimed(gradients, 0.5, impl="long", n=64)
    assert faster.value("gradient_twice_gbps") == pytest.approx(
        2 * gradients.value("gradient_twice_gbps")
    )


def test_values_can_be_told(records):
    for record in records.values():
        # The type that the small experiment leaves out.
        record = copy.deepcopy(record)
        if record.name == "softmax-error":
            record.rows.extend({**row, "dtype": "float32"} for row in record.select())
        values = record.values()
        assert values
        assert all(value > 0 for value in values.values())


# For each claim, which rows to speed up (or slow down) for it to hold and to fail.
SWAYED = [
    ("softmax-forward", "ahead", {"impl": "softmax"}, 0.9, 1.2),
    ("softmax-forward", "near_a_copy", {"impl": "softmax"}, 1e-9, 1e3),
    ("softmax-forward", "long_rows", {"impl": "softmax"}, 0.7, 1.0),
    ("softmax-forward", "nowhere_behind", {"impl": "softmax"}, 1.0, 1.2),
    ("softmax-backward", "gradient_nowhere_behind", {"impl": "gradient"}, 0.9, 1.2),
    ("softmax-backward", "gradient_ahead", {"impl": "gradient"}, 0.8, 1.0),
    ("softmax-crossovers", "choice_is_good", {"impl": "softmax"}, 1.0, 1.2),
]


@pytest.mark.parametrize(("name", "claim", "rows", "good", "bad"), SWAYED)
def test_claims_hold_and_fail(records, name, claim, rows, good, bad):
    (held,) = [c for c in measure.claims(name) if c.name == claim]
    assert held.text.endswith(".")
    assert held.broken(retimed(records[name], good, **rows)) is None
    assert held.broken(retimed(records[name], bad, **rows)) is not None


def test_the_claim_on_errors_holds_and_fails(records):
    (held,) = measure.claims("softmax-error")
    record = copy.deepcopy(records["softmax-error"])
    assert held.broken(record) is None
    for row in record.select(impl="softmax"):
        row["relative_error"] = 0.01
    assert "bfloat16" in held.broken(record)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_once_costs_no_more_than_that(dtype):
    """Of many small elements, the last step below a format's normal numbers, too."""
    for n, factor in ((1000, 1.0), (50257, 1.0), (50257, 1e-4)):
        x = torch.randn(4, n, dtype=torch.float64) * factor
        exact = torch.softmax(x, -1)
        off = testing.error(exact.to(dtype), exact)
        assert off <= experiments.rounding(exact, dtype) < 8 * torch.finfo(dtype).eps
    # Here the roundoff of the format alone is no bound.
    assert dtype == torch.bfloat16 or off > 2.0**-11


def test_every_claim_is_swayed():
    swayed = {(c[0], c[1]) for c in SWAYED} | {("softmax-error", "rounded_once")}
    assert swayed == {
        (name, claim.name) for name in NAMES for claim in measure.claims(name)
    }


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_measures_here(name, monkeypatch):
    monkeypatch.setattr(experiments, "LENGTHS", (256, 4097, 32768, 131072))
    monkeypatch.setattr(experiments, "CROSSING", (256, 8193))
    monkeypatch.setattr(experiments, "ELEMENTS", 2**24)
    monkeypatch.setattr(experiments, "EXPONENTS", (0, 4))
    # All cases take many minutes of compilation.
    budget = measure.Budget(2, 0.005, brief=True)
    record = run(measure.find(name), here(), budget, attempts=1)
    assert record.rows
    assert not record.problems()
