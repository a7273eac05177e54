"""Every kernel of the ladder compiles for every target, and what came out of it."""

import functools
import re

import pytest
import torch

from tilebook import compile_only
from tilebook.matmul import described, naive, operands, ordered, outer, persistent, tile
from tilebook.matmul.evidence import launches, matrix
from tilebook.matmul.operands import Task

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
TURNS = ("NN", "NT", "TN", "TT")
BF16, FP32, INT8 = torch.bfloat16, torch.float32, torch.int8
# Matrix instructions by target, of tiles as large as those here.
UNITS = {"sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05", "gfx942": "mfma"}


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


@functools.cache
def compiled(
    rung, turn="NN", dtype=BF16, target="sm_90", size=4096, precision="tf32", ends=""
):
    """A rung as it ships, for a square product; `ends` says what happens to it."""
    a, b = (matrix(size, size, dtype, turned=t == "T") for t in turn)
    columns = size // 2 if ends == "silu_and_mul" else size
    out = matrix(size, columns, operands.result_dtype(dtype))
    task = Task(a, b, out, precision)
    if ends:
        bias = torch.empty(size, dtype=dtype, device="meta")
        task = task._replace(activation=ends, bias=bias)
    if ends == "gelu":
        task = task._replace(residual=out, scale=0.5)
    (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap)))
    return compile_only.compile(found.kernel, *found.args, target=target, **found.meta)


def assert_clean(evidence):
    assert evidence.spill_store_bytes == evidence.stack_bytes == 0
    assert not evidence.warnings


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "rung", [naive, outer, tile, ordered, persistent, described], ids=name
)
def test_compiles_for_every_target(rung, target):
    evidence = compiled(rung, target=target).evidence
    # Pointers in place of descriptors, in tiles for the copy engine, spill.
    if target != "gfx942" and (rung, target) != (described, "sm_80"):
        assert_clean(evidence)
    units = set() if rung in (naive, outer) else {UNITS[target]}
    assert set(evidence.mma) == units


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("rung", [ordered, persistent, described], ids=name)
def test_nothing_spills_in_any_order_of_memory(rung, turn):
    for dtype in (BF16, INT8) if rung is not persistent else (BF16,):
        evidence = compiled(rung, turn, dtype).evidence
        assert_clean(evidence)
        assert set(evidence.mma) == {"wgmma"}


@pytest.mark.parametrize("precision", operands.PRECISIONS)
@pytest.mark.parametrize("turn", ["NN", "TT"])
@pytest.mark.parametrize("rung", [ordered, described], ids=name)
def test_nothing_spills_at_any_precision(rung, turn, precision):
    evidence = compiled(rung, turn, FP32, precision=precision).evidence
    assert_clean(evidence)
    assert set(evidence.mma) == (set() if precision == "ieee" else {"wgmma"})


@pytest.mark.parametrize("ends", ["gelu", "gelu_tanh", "silu_and_mul"])
@pytest.mark.parametrize("rung", [ordered, persistent, described], ids=name)
def test_nothing_spills_whatever_a_product_ends_in(rung, ends):
    assert_clean(compiled(rung, ends=ends).evidence)


@pytest.mark.parametrize(
    ("ends", "precision"), [("gelu", "tf32x3"), ("silu_and_mul", "ieee")]
)
def test_nothing_spills_in_float32_whatever_a_product_ends_in(ends, precision):
    assert_clean(
        compiled(described, "NT", FP32, precision=precision, ends=ends).evidence
    )


@pytest.mark.parametrize("rung", [ordered, persistent], ids=name)
@pytest.mark.parametrize("size", [4094, 4095])
def test_nothing_spills_whatever_divides_the_sides(rung, size):
    evidence = compiled(rung, size=size).evidence
    assert_clean(evidence)
    assert bool(evidence.async_copies) == (size % 2 == 0)


@pytest.mark.parametrize(
    ("turn", "size"), [*((turn, 4096) for turn in TURNS), ("NN", 1000), ("TT", 1000)]
)
def test_16_bytes_at_a_time_go_past_the_registers(turn, size):
    """Also where 8 divides a side and 16 doesn't."""
    for rung in (ordered, persistent):
        artefact = compiled(rung, turn, size=size)
        widths = re.findall(r"cp\.async\.c[ag]\.\S+ \[[^\]]+\], \[[^\]]+\], (\S+?)[,;]",
                            artefact.ptx)  # fmt: skip
        assert widths
        assert {int(width, 0) for width in widths} == {16}
        assert not artefact.evidence.global_loads
        assert set(artefact.evidence.global_stores) == {128}


@pytest.mark.parametrize("turn", TURNS)
def test_descriptors_bring_tiles_to_where_tensor_cores_read_them(turn):
    for dtype in (BF16, torch.float16) if turn == "NT" else (BF16,):
        artefact = compiled(described, turn, dtype)
        evidence = artefact.evidence
        assert evidence.tma_loads
        assert evidence.tma_stores
        assert not evidence.global_loads
        assert not evidence.global_stores
        # No operand comes back out of shared memory into registers.
        assert "ttg.local_load" not in artefact.ttgir


def test_terms_that_lie_apart_cost_other_types_a_way_through_registers():
    for dtype in (FP32, INT8):
        assert "ttg.local_load" not in compiled(described, "NT", dtype).ttgir
        assert "ttg.local_load" in compiled(described, "NN", dtype).ttgir


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
def test_without_a_copy_engine_descriptors_become_pointers(target):
    evidence = compiled(described, target=target).evidence
    assert not evidence.tma_loads
    assert evidence.global_loads or evidence.async_copies


def test_shared_memory_of_a_hopper_suffices():
    for rung in (ordered, persistent, described):
        for dtype in (BF16, INT8) if rung is not persistent else (BF16,):
            for turn in TURNS:
                shared = compiled(rung, turn, dtype).evidence.shared_bytes
                assert shared <= 227 * 1024
