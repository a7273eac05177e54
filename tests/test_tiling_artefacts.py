"""Every kernel of the chapter compiles for every target, and what came out of it."""

import re

import pytest
import torch
import triton.language as tl

from tilebook import compile_only
from tilebook.tiling import aligned, described, explicit, grouped, naive, tiled
from tilebook.tiling.evidence import compiled

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
NVIDIA = ("sm_80", "sm_90", "sm_100")
SIZES = (torch.uint8, torch.int16, torch.int32, torch.int64)
# Every size of element for one target, and every target for one size.
CASES = [(dtype, "sm_90") for dtype in SIZES]
CASES += [(torch.int16, target) for target in TARGETS if target != "sm_90"]
each_case = pytest.mark.parametrize(("dtype", "target"), CASES, ids=str)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def name(rung):
    return rung.__name__.rpartition(".")[2]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rung", [naive, tiled, grouped, aligned, described], ids=name)
def test_compiles_without_spills(rung, target):
    evidence = compiled(rung, target=target).evidence
    assert evidence.spill_store_bytes == evidence.stack_bytes == 0
    assert not evidence.warnings


@pytest.mark.parametrize("target", TARGETS)
def test_rows_that_are_stored_one_by_one(target):
    """Loads are wide, and every store is of one element."""
    evidence = compiled(naive, target=target).evidence
    assert min(evidence.global_loads) >= 64
    assert set(evidence.global_stores) == {16}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rung", [tiled, grouped], ids=name)
def test_a_tile_is_turned_in_shared_memory(rung, target):
    evidence = compiled(rung, target=target).evidence
    assert set(evidence.global_loads) == set(evidence.global_stores) == {128}
    assert evidence.shared_bytes == tiled.BLOCK_M * tiled.BLOCK_N * 2
    assert evidence.barriers == 1


def test_the_compiler_changes_the_layout_once():
    ttgir = compiled(tiled).ttgir
    assert ttgir.count("ttg.convert_layout") == 1
    assert ttgir.count("tt.trans") >= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16], ids=str)
def test_what_divides_a_stride_widens_its_loads(dtype):
    """1000 is no multiple of 16, but of 8."""
    bits = 8 * dtype.itemsize
    evidence = compiled(aligned, 1000, 1000, dtype).evidence
    widest = {min(128, 8 * bits)}
    assert set(evidence.global_loads) == set(evidence.global_stores) == widest
    assert evidence.spill_store_bytes == 0
    plain = compiled(grouped, 1000, 1000, dtype).evidence
    assert set(plain.global_loads) == {bits}


@each_case
def test_odd_sides_cost_width_and_no_spills(dtype, target):
    evidence = compiled(aligned, 4095, 4097, dtype, target).evidence
    assert evidence.spill_store_bytes == 0
    assert set(evidence.global_loads) == {8 * dtype.itemsize}


@each_case
def test_aligned_moves_16_bytes_at_a_time(dtype, target):
    shapes = [(8192, 8192)]
    if (dtype, target) == (torch.int16, "sm_90"):
        shapes += [(64, 2**20), (2**20, 64)]
    for m, n in shapes:
        evidence = compiled(aligned, m, n, dtype, target).evidence
        assert set(evidence.global_loads) == set(evidence.global_stores) == {128}
        assert evidence.spill_store_bytes == 0


def test_a_transposed_view_is_copied_without_shared_memory():
    """What lies as the result will lie needs no turning round."""
    x, out = meta(1, 8192, 8192).transpose(1, 2), meta(1, 8192, 8192)
    values, factors = aligned.arguments(x)
    evidence = compile_only.compile(
        aligned.transpose_kernel,
        *(x, out, *values),
        **factors,
        **{"BLOCK_M": 64, "BLOCK_N": 64, "GROUP": 8, "WITHIN": tl.int32},
        **{"LOAD": "", "STORE": ""},
    ).evidence
    assert set(evidence.global_loads) == set(evidence.global_stores) == {128}
    assert evidence.shared_bytes == 0


@each_case
def test_descriptors_are_the_tensor_memory_accelerators(dtype, target):
    for wide in (True, False):
        artefact = compiled(described, dtype=dtype, target=target, wide=wide)
        evidence = artefact.evidence
        tma = target in ("sm_90", "sm_100")
        assert (bool(evidence.tma_loads), bool(evidence.tma_stores)) == (tma, tma)
        assert bool(evidence.global_loads) == (not tma)


@pytest.mark.parametrize(
    ("dtype", "target"), [case for case in CASES if case[1] in NVIDIA], ids=str
)
def test_explicit_layouts_reach_shared_memory_16_bytes_at_a_time(dtype, target):
    artefact = compiled(explicit, dtype=dtype, target=target)
    evidence = artefact.evidence
    block, num_warps = explicit.SIDES[dtype.itemsize]
    vectors = block * block * dtype.itemsize // 16 // (32 * num_warps)
    assert evidence.global_loads == evidence.global_stores == {128: vectors}
    assert evidence.shared_bytes == block * block * dtype.itemsize
    assert evidence.barriers == 1
    assert evidence.spill_store_bytes == evidence.stack_bytes == 0
    shared = re.findall(r"\b(?:ld|st)\.shared\.(\S+)", artefact.ptx)
    assert set(shared) == {"v2.b64" if dtype.itemsize == 8 else "v4.b32"}
    assert len(shared) == 2 * vectors


@pytest.mark.parametrize("dtype", SIZES, ids=str)
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_explicit_layouts_spill_at_no_size(dtype, target):
    """16 divides neither a side nor a stride: all are computed at run time."""
    vector = 16 // dtype.itemsize
    evidence = compiled(explicit, 37 * vector, 53 * vector, dtype, target).evidence
    assert evidence.spill_store_bytes == evidence.stack_bytes == 0


def test_the_compiler_reaches_shared_memory_element_by_element():
    """But for 16 bits, where the hardware turns squares for it."""
    loads = {dtype: compiled(aligned, dtype=dtype).ptx for dtype in SIZES[:3]}
    assert "ld.shared.b8" in loads[torch.uint8]
    assert "ld.shared.b32" in loads[torch.int32]
    assert re.search(r"ldmatrix\S*\.trans", loads[torch.int16])


def test_explicit_layouts_take_fewer_instructions_than_the_compilers():
    """Counted over the warps of a tile, for as many elements."""
    for dtype in SIZES[:3]:
        size = dtype.itemsize
        side, warps = explicit.SIDES[size]
        ours = warps * compiled(explicit, dtype=dtype).evidence.instructions
        config = aligned.config_for(size, 4096, 4096, 16 // size)
        theirs = compiled(aligned, dtype=dtype).evidence.instructions
        theirs *= config.num_warps
        assert ours / side**2 < theirs / (config.block_m * config.block_n)
