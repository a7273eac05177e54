"""Every pass is known, and the important ones do what the page says."""

import dataclasses
import itertools

import pytest
import torch

from tilebook import compile_only
from tilebook.compiler import passes, pipeline, triggers, twins
from tilebook.compiler.demonstrations import DEMONSTRATIONS
from tilebook.compiler.pipeline import Step, operations

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
HALF = torch.empty(64, dtype=torch.float16, device="meta")
TILE = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}


def product(target):
    return pipeline.trace(
        twins.matmul_kernel, *(HALF,) * 3, *(4096,) * 6, target=target, **TILE
    )


@pytest.mark.parametrize("each", DEMONSTRATIONS, ids=lambda d: d.flag)
def test_a_pass_does_what_the_page_says(each):
    step = each.step()
    assert step.changed
    assert each.holds(step)
    assert not each.holds(dataclasses.replace(step, after=step.before))
    shown = each.difference()
    assert "\n+ " in f"\n{shown}" or "\n+#" in f"\n{shown}"
    assert max(map(len, shown.splitlines())) <= 110


@pytest.mark.parametrize("target", TARGETS)
def test_every_pass_is_known(target):
    steps = product(target)
    flags = {step.flag for step in steps}
    assert flags <= set(passes.DOES)
    assert {step.stage for step in steps} == {"ttir", "ttgir", "llir"}
    # What one pass leaves is what the next is given.
    for step, following in itertools.pairwise(steps):
        assert step.after == following.before
    assert steps[0].flag == "inline"
    assert "allocation.offset" in steps[-1].after


def test_the_table_lists_what_changed():
    steps = product("sm_90")
    short, long = passes.table(steps), passes.table(steps, everything=True)
    assert 15 < len(short) < len(long) == len(steps)
    assert 50 < len(steps) < 80
    assert set(short["pass"]) <= set(long["pass"])
    assert list(long.index) == list(range(1, len(long) + 1))
    row = short[short["pass"] == "tritongpu-accelerate-matmul"].iloc[0]
    assert row["may change bits"]
    assert row["towards"] == "ttgir"
    assert not short[short["pass"] == "tritongpu-pipeline"].iloc[0]["may change bits"]
    # Some note in an attribute that they have nothing to do.
    (step,) = (s for s in steps if s.flag == "triton-tensor-memory-allocation")
    assert step.changed
    assert operations(step.before) == operations(step.after)
    assert "ttg.tensor_memory_size = 0" in step.after


def test_the_last_module_is_what_is_compiled():
    args, meta = (*(HALF,) * 3, *(4096,) * 6), TILE
    steps = product("sm_90")
    found = compile_only.compile(twins.matmul_kernel, *args, **meta)
    (last,) = [
        step.after
        for step, following in itertools.pairwise(steps)
        if (step.stage, following.stage) == ("ttgir", "llir")
    ]
    assert pipeline.plain(found.ttgir) == last


def test_ttgir_goes_further_down_alike():
    args = (*(HALF,) * 3, *(4096,) * 6)
    found = compile_only.compile(twins.matmul_kernel, *args, **TILE)
    steps = pipeline.lowered(found.ttgir, "sm_90", num_warps=4)
    whole = [step for step in product("sm_90") if step.stage == "llir"]
    assert [step.flag for step in steps] == [step.flag for step in whole]
    assert operations(steps[5].after) == operations(whole[5].after)


def test_dumps_end_with_the_trace(capfd):
    product("sm_80")
    compile_only.compile(
        triggers.unroll_kernel, HALF.float(), HALF.float(), 7, BLOCK=128
    )
    assert "IR Dump" not in capfd.readouterr().err


def test_what_mlir_says_of_an_error_is_heard(capfd):
    found = compile_only.compile(
        triggers.unroll_kernel, HALF.float(), HALF.float(), 7, BLOCK=128
    )
    with pytest.raises(RuntimeError):
        pipeline.lowered(found.ttgir.replace("arith.addf", "arith.adds"), "sm_90")
    assert "arith.adds" in capfd.readouterr().err
    assert pipeline.lowered(found.ttgir, "sm_90", num_warps=4)


def test_operations_are_counted():
    text = """\
module {
    %a = tt.load %p : f32
    %b:2 = scf.for %i = %x to %y {
      %c = "tt.reduce"(%a) <{axis = 0 : i32}> ({
        tt.reduce.return %d : f32
    }
    tt.store %p, %a : f32
"""
    assert operations(text) == {
        "tt.load": 1, "scf.for": 1, "tt.reduce": 1, "tt.reduce.return": 1, "tt.store": 1
    }  # fmt: skip


def test_what_is_wrong_is_said():
    steps = (Step("ttir", "A", "a", "x", "x"), Step("ttir", "A", "a", "x", "y"))
    assert pipeline.named(steps, "a") is steps[1]
    assert pipeline.named(steps[:1], "a") is steps[0]
    with pytest.raises(ValueError, match="b didn't run"):
        pipeline.named(steps, "b")
    with pytest.raises(ValueError, match="target must be like"):
        pipeline.trace(triggers.unroll_kernel, HALF, HALF, 7, BLOCK=8, target="h100")
