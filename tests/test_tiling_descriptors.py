"""Every rule of descriptors is enforced, and their tables say so."""

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only, testing
from tilebook.tiling import descriptors
from tilebook.tiling.descriptors import RULES, copy, migration, rules

VERSION = tuple(map(int, triton.__version__.split(".")[:2]))


@pytest.mark.parametrize(
    "shape", [(1, 4), (3, 0), (32, 64), (33, 68), (7, 200), (100, 4)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_copy(shape, dtype, device):
    x = testing.guard(torch.randint(-99, 99, shape, device=device).to(dtype))
    with testing.guarded():
        out = copy(x.tensor)
    x.check()
    assert torch.equal(out, x.tensor)


def test_copy_of_a_part(device):
    x = torch.randn(40, 128, device=device)
    assert torch.equal(copy(x[3:, 8:100]), x[3:, 8:100])


@pytest.mark.parametrize(
    "make", [lambda x: x.t(), lambda x: x[:, 1:5], lambda x: x[:, :7]]
)
def test_what_can_not_be_described_is_refused(make, device):
    with pytest.raises(ValueError, match="x must have neighbouring elements"):
        copy(make(torch.zeros(8, 16, device=device)))


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (5, TypeError, "block must be a tuple of two integers, got 5"),
        ((32,), TypeError, "block must be a tuple of two integers"),
        ((32, 64.0), TypeError, "block must be an int, got float"),
        ((3, 64), ValueError, "block must be a power of two up to 256, got 3"),
        ((512, 64), ValueError, "block must be a power of two up to 256, got 512"),
        ((32, 2), ValueError, "block must have rows of at least 16 bytes"),
    ],
)
def test_unfit_blocks(block, error, message, device):
    with pytest.raises(error, match=message):
        copy(torch.zeros(8, 16, device=device), block=block)


def test_the_grid_has_one_axis(device, monkeypatch):
    """Of its second and third a grid on NVIDIA's has 65,535 programs at most."""
    grids = []
    kernel = descriptors.copy_kernel

    class Spy:
        def __getitem__(self, grid):
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(descriptors, "copy_kernel", Spy())
    x = torch.randn(20, 40, device=device)
    for block in ((8, 16), (32, 4), (1, 64)):
        assert torch.equal(copy(x, block=block), x)
    assert grids == [(9,), (10,), (20,)]


MENTIONED = {
    "starts at a multiple of 16 bytes": "base must be 16-byte aligned",
    "strides are multiples of 16 bytes": "strides must be 16-byte aligned",
    "the last stride is 1": "Last dimension must be contiguous",
    "shape, strides and block have one rank": "rank mismatch",
    "at most five dimensions": "rank cannot be more than 5",
    "no dimension is empty": "shape must be positive",
    "a block's sides are powers of two": "must be a power of 2",
    "padding is zero or nan": "Illegal value for padding",
    "only floats are padded with nan": "nan",
    "the last stride is 1, and is known to be": "last dim must be 1 but got 2",
    "a block's row has at least 16 bytes": "at least 16 bytes in the last dimension",
    "as many strides as dimensions": "Expected 2 strides but got 1",
    "as many offsets as dimensions": "expected 2 offsets, but got 1",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.side}: {r.rule}")
def test_each_rule_is_enforced(rule):
    said = rule.error()
    if rule.rule in MENTIONED:
        assert MENTIONED[rule.rule] in said
    else:
        # Before Triton 3.9 nothing is said at all.
        assert ("value shape" in said) == (VERSION >= (3, 9)), said


def test_a_rule_that_holds_is_found_out():
    kept = RULES[0]._replace(broken=lambda: None)
    with pytest.raises(LookupError, match="not refused: starts at"):
        kept.error()


def test_the_tables():
    table = rules()
    assert len(table) == len(RULES)
    assert not table.isna().any(axis=None)
    assert (table["what Triton says"].str.len() > 0).all()
    assert len(migration()) >= 6


@triton.jit
def block_pointer_kernel(x_ptr, n):
    here = tl.make_block_ptr(x_ptr, (n, n), (n, 1), (0, 0), (16, 16), (1, 0))
    tl.store(here, tl.load(here, boundary_check=(0, 1)), boundary_check=(0, 1))


def test_block_pointers_are_gone_since_3_9():
    x = torch.zeros(64, 64)
    if VERSION < (3, 9):
        compile_only.compile(block_pointer_kernel, x, 64)
        return
    with pytest.raises(triton.CompilationError, match="Block pointers have been"):
        compile_only.compile(block_pointer_kernel, x, 64)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_compiles_everywhere(target):
    x = torch.empty((256, 256), dtype=torch.bfloat16, device="meta")
    evidence = compile_only.compile(
        descriptors.copy_kernel, x, x, 256, 256, 256, 256,
        BLOCK_M=32, BLOCK_N=64, target=target,
    ).evidence  # fmt: skip
    tma = target in ("sm_90", "sm_100")
    assert (bool(evidence.tma_loads), bool(evidence.tma_stores)) == (tma, tma)
    assert evidence.spill_store_bytes == 0
