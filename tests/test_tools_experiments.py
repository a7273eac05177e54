"""The experiments run, small and on a simulated clock, and their claims can fail."""

import numpy as np
import pandas as pd
import pytest
import torch

from tilebook import compile_only, measure, testing
from tilebook.measure import Timing
from tilebook.measure.simulated import rehearse, retimed
from tilebook.tools import case, conclusions, evidence, experiments, nsight, sass

NAMES = ("tools-case-study", "tools-proton-vs-events-vs-ncu")
ROWS = (32, 64)


def fake_counters(fn, *args, kernels):
    fn(*args)
    assert case.wide_kernel.__name__ in kernels
    kernels = (
        [step.kernel.__name__ for step in case.STEPS.values()]
        if fn is case.run_all
        else [case.wide_kernel.__name__] * len(args)
    )
    frame = pd.DataFrame({"kernel": ["fill", *kernels]})
    return frame.assign(time=1e6, memory=50.0, waves=np.nan)


def shrink(patch):
    patch.setattr(experiments, "ROWS", ROWS)
    patch.setattr(experiments, "ROWS_BRIEF", ROWS[-1:])
    patch.setattr(experiments, "SIZES", ROWS)
    patch.setattr(case, "COLUMNS", 256)
    patch.setattr(conclusions, "LARGE", ROWS[-1])
    patch.setattr(conclusions, "SMALL", ROWS[0])


@pytest.fixture(scope="module")
def measured(interpreted):
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setattr(nsight, "counters", fake_counters)
        patch.setattr(experiments, "_profiled", lambda calls: Timing(0.5, 0.5, 0.5, ()))
        return {name: rehearse(name) for name in NAMES}


@pytest.fixture
def records(measured, monkeypatch):
    shrink(monkeypatch)
    return measured


def test_all_are_declared():
    declared = [e.name for e in measure.experiments() if e.name.startswith("tools-")]
    assert declared == sorted(NAMES)


def test_every_step_is_measured_and_its_counters_kept(records):
    record = records["tools-case-study"]
    for m in ROWS:
        rows = record.select(op="scale_groups", m=m, regime="cold")
        assert [row["impl"] for row in rows] == [*case.STEPS, "torch"]
    kept = record.select(op="counters")
    assert [row["impl"] for row in kept] == list(case.STEPS)
    assert kept[0]["extra"]["memory"] == 50
    assert "waves" not in kept[0]["extra"]


def test_four_ways_at_each_size(records):
    record = records["tools-proton-vs-events-vs-ncu"]
    for m in ROWS:
        assert {row["impl"] for row in record.select(m=m)} == {
            *("events, cold", "events, in a graph", "Proton", "ncu")
        }


def test_values_can_be_told(records):
    for name in NAMES:
        for tell in measure.values(name).values():
            assert np.isfinite(tell(records[name]))


def slowed(record, factors):
    """The record with times multiplied, by implementation."""
    for impl, factor in factors.items():
        record = retimed(record, factor, impl=impl)
    return record


def test_claims_hold_and_fail(records):
    def broken(name, factors):
        record = slowed(records[name], factors)
        return {c.name for c in measure.claims(name) if c.broken(record) is not None}

    study = dict(zip(case.STEPS, (10, 5, 3, 2, 1), strict=True))
    assert broken(NAMES[0], study) == set()
    assert broken(NAMES[0], study | {"as found": 4.9}) == {
        *("much_faster", "every_step_helps")
    }
    assert broken(NAMES[0], study | {"no division": 4}) == {"every_step_helps"}
    assert broken(NAMES[1], {"events, cold": 1.05, "Proton": 2}) == set()
    assert "long_ones_agree" in broken(NAMES[1], {"ncu": 2, "Proton": 2})
    assert "events_see_more" in broken(NAMES[1], {"Proton": 3})


def test_a_build_without_counters_goes_on(interpreted, monkeypatch):
    shrink(monkeypatch)
    monkeypatch.setattr(experiments, "ROWS_BRIEF", (1,))

    def refused(*_, kernels):
        raise RuntimeError("ncu failed: ERR_NVGPUCTRPERM")

    monkeypatch.setattr(nsight, "counters", refused)
    record = rehearse("tools-case-study", brief=True)
    assert not record.select(op="counters")


# The case itself.


@pytest.mark.parametrize("step", case.STEPS)
@pytest.mark.parametrize("shape", [(1, 128), (33, 256), (70, 384), (0, 128)])
def test_every_step_is_right(step, shape, device):
    m, n = shape
    x, scale, _ = case.operands(m, n, device)
    with testing.guarded():
        out = case.scaled(x, scale, step=step)
    assert torch.equal(out, case.reference(x, scale))


def test_refusals(device):
    x, scale, out = case.operands(4, 256, device)
    with pytest.raises(TypeError, match="x must be float32"):
        case.scaled(x.half(), scale)
    with pytest.raises(ValueError, match="multiple of 128, not 200"):
        case.scaled(x[:, :200].contiguous(), scale)
    with pytest.raises(ValueError, match="scale must"):
        case.scaled(x, scale[:, :1].contiguous())
    with pytest.raises(ValueError, match="step must be"):
        case.scaled(x, scale, step="fast")
    with pytest.raises(ValueError, match="out must"):
        case.scaled(x, scale, out=out[:3])


@pytest.mark.parametrize("step", [step for step in case.STEPS if step != "as found"])
def test_steps_compile_for_every_target_and_spill_nowhere(step):
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        assert not codes(step, target)[0].evidence.spill_store_bytes


@pytest.fixture(scope="module")
def shown():
    return evidence.steps()


def test_what_each_step_shows(shown):
    found = shown
    assert list(found.index) == list(case.STEPS)
    spilled, instructions = found["spilled"], found["instructions"]
    assert spilled["as found"] > 10_000
    assert not spilled[1:].any()
    assert list(found["sectors"]) == [32, 32, 4, 4, 16]
    assert list(found["least"]) == [4, 4, 4, 4, 16]
    assert instructions["rows along lanes"] > 3 * instructions["no division"]
    assert instructions["no division"] > 1.5 * instructions["wide"]
    in_flight = found["KiB in flight"]
    assert in_flight["no division"] == 16
    assert in_flight["wide"] >= 3 * 16


# Machine code.


def codes(step, target="sm_90"):
    x = torch.empty(4096, 4096, device="meta")
    scale = torch.empty(4096, 32, device="meta")
    _, args, meta = case.STEPS[step].arguments(x, scale, x)
    made = compile_only.compile(case.STEPS[step].kernel, *args, target=target, **meta)
    return made, () if target.startswith("gfx") else sass.read(made)


@pytest.mark.parametrize(
    ("step", "target"),
    [("as found", "sm_90"), *(("wide", t) for t in ("sm_80", "sm_90", "sm_100"))],
)
def test_instructions_are_those_that_ptxas_wrote(step, target):
    made, code = codes(step, target)
    assert abs(len(code) - made.evidence.instructions) <= 8
    assert sass.widths(code) == made.evidence.global_loads
    assert sass.widths(code, "STG") == made.evidence.global_stores
    assert bool(sass.spilled(code)) == bool(made.evidence.spill_store_bytes)
    # What is loaded raises a barrier, and somebody waits for it.
    for number, one in enumerate(code):
        assert 0 <= one.stall <= 15
        if one.opcode.startswith("LDG"):
            assert one.result is not None
            later = [c for c in code[number + 1 :] if one.result in c.waits]
            assert later, one.text


def test_products_by_their_names():
    from tilebook.compiler import stages

    names = {t: list(sass.products(sass.read(stages.product(t)))) for t in TARGETS}
    assert names["sm_80"] == ["HMMA.16816.F32"]
    assert names["sm_90"] == ["HGMMA.64x128x16.F32"]
    assert names["sm_100"] == ["UTCHMMA"]
    assert not sass.products(codes("wide")[1])
    with pytest.raises(AttributeError, match="has no cubin"):
        sass.read(stages.product("gfx942"))


TARGETS = ("sm_80", "sm_90", "sm_100")


def test_bytes_on_their_way():
    line = "/*{:04x}*/ {} ; /* 0x0000000000000000 */ /* 0x{:016x} */"

    def code(*given):
        text = "\n".join(
            line.format(16 * i, op, (1 | sets << 5 | 7 << 8 | waits << 11) << 41)
            for i, (op, sets, waits) in enumerate(given)
        )
        return [sass._decoded(match) for match in sass._LINE.finditer(text)]

    first, second = ("LDG.E.128 R0, [R4]", 0, 0), ("@P0 LDG.E R8, [R4.64]", 1, 0)
    use = ("FADD R0, R0, R8", 7, 0b11)
    assert sass.in_flight(code(first, second, use)) == 20
    assert sass.in_flight(code(first, use, second, use)) == 16
    assert sass.in_flight(code(use)) == 0
    (one,) = code(second)
    assert (one.opcode, one.bits, one.stall) == ("LDG.E", 32, 1)
    assert (one.result, one.operands, one.waits) == (1, None, ())
    said = sass.annotated(code(first, use), "FADD")
    assert said == "0010  stall  1        waits 0,1    FADD R0, R0, R8"


def test_numbers_that_the_page_says(shown):
    found = shown
    instructions = found["instructions"]
    assert 80 < instructions["rows along lanes"] < 95
    assert 20 <= instructions["no division"] < 25
    assert 80 < found["spilled"]["as found"] / 256 < 100
    threads = 16384 * 4096 / 256
    assert threads * found["spilled"]["as found"] > 5e9
    # Half the floor's bytes are read, and scales besides.
    assert pytest.approx(538e6, rel=0.01) == 4 * 16384 * 4096 * (2 + 1 / 128)
