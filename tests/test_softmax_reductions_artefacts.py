"""The reductions' kernels compile for every target, and what came out of it."""

import re

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only
from tilebook.softmax.compiled import compiled, launches

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
NAMES = ("sum", "var", "argmax", "logsumexp", "topk")
RAGGED = ((8192, 4097), 1)
BFLOAT16 = torch.bfloat16


def evidence_of(name, shape, dim, dtype=torch.float32, target="sm_90"):
    return [a.evidence for a in compiled(name, shape, dim, dtype, target)]


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_any_length_are_loaded_16_bytes_at_a_time(name):
    """4097 is odd: beside vectors there are the few loads of both edges."""
    (evidence,) = evidence_of(name, *RAGGED)
    assert evidence.global_loads[128] >= 2
    assert evidence.global_loads[32] <= 16
    assert evidence.spill_store_bytes == evidence.stack_bytes == 0
    assert not evidence.warnings


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "sm_90"])
@pytest.mark.parametrize("name", ["logsumexp", "topk"])
def test_compiles_everywhere_without_spills(name, target):
    for evidence in evidence_of(name, *RAGGED, target=target):
        assert evidence.spill_store_bytes == evidence.stack_bytes == 0
        assert not evidence.warnings


def test_columns_are_loaded_16_bytes_at_a_time():
    both = evidence_of("sum", (8192, 8192), 0, BFLOAT16)
    assert [set(e.global_loads) for e in both] == [{128}, {128}]
    assert all(e.spill_store_bytes == 0 for e in both)


def test_a_row_that_one_warp_holds_needs_no_barrier():
    (short,) = evidence_of("logsumexp", (8192, 1024), 1)
    assert short.barriers == short.shared_bytes == 0
    (long,) = evidence_of("logsumexp", *RAGGED)
    assert long.barriers > 0


@pytest.mark.parametrize("name", ["var backward", "logsumexp backward"])
def test_gradients_move_16_bytes_at_a_time(name):
    (evidence,) = evidence_of(name, (8192, 4096), 1)
    assert set(evidence.global_stores) == {128}
    assert evidence.global_loads[128] == 8
    assert evidence.spill_store_bytes == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_launch_unless_sequences_are_split(name):
    many = torch.empty((8192, 4096), device="meta")
    few = torch.empty((2, 2**22), device="meta")
    assert len(launches(name, many, 1)) == 1
    assert len(launches(name, few, 1)) > 1


def test_what_is_launched_is_known_without_a_launch():
    x = torch.empty((8, 100), device="meta")
    ((kernel, args, meta),) = launches("mean", x, 0)
    assert kernel.fn.__name__ == "sum_kernel"
    assert args[0] is x
    assert meta["MEAN"]


# The low lane of a register has -128 or -32768; the others have -1.
HALF_FILLED = re.compile(r"mov\.u(16|32|64)\s+%\w+, 0xf+(80|8000);")


@triton.jit
def masked_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=-128)
    tl.store(out_ptr + offs, x)


@pytest.mark.skipif(
    not triton.__version__.startswith(("3.6.", "3.7.")), reason="said of these alone"
)
def test_triton_fills_narrow_lanes_with_a_negative_number_wrongly():
    """Why `fetched` selects."""
    x = torch.empty(4096, dtype=torch.int8, device="meta")
    ptx = compile_only.compile(masked_kernel, x, x, 4096, BLOCK=4096).ptx
    assert re.search(r"mov\.u32\s+%\w+, 0xf+80;", ptx)


@pytest.mark.parametrize("name", ["argmax", "topk"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16], ids=str)
@pytest.mark.parametrize("n", [4096, 4097])
def test_narrow_lanes_that_are_masked_are_the_least(name, dtype, n):
    for artefact in compiled(name, (8192, n), 1, dtype):
        assert not HALF_FILLED.search(artefact.ptx)
