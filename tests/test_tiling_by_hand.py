"""A product by hand, and what its launch order reads."""

import pytest
import torch
import triton

from tilebook import compile_only, testing
from tilebook.tiling import by_hand
from tilebook.tiling.by_hand import matmul, reads


@pytest.mark.sanitize
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (6, 6, 6), (5, 7, 3), (17, 2, 9), (2, 0, 3), (0, 4, 4)],
    ids=str,
)
def test_any_shape(shape, group, device):
    m, k, n = shape
    a, b = (
        testing.guard(torch.randn(shape, device=device)).tensor
        for shape in ((m, k), (k, n))
    )
    for block in (2, 4):
        with testing.guarded():
            c = matmul(a, b, block=block, group=group)
        testing.assert_close(
            c,
            testing.reference(torch.matmul, a, b),
            length=max(1, k),
            scale=a.double().norm(dim=1)[:, None] * b.double().norm(dim=0),
        )


def test_six_by_six_with_a_pencil(device):
    """Integers small enough that nothing is rounded."""
    a = torch.arange(36.0, device=device).view(6, 6)
    b = torch.arange(36.0, 0, -1, device=device).view(6, 6)
    assert torch.equal(matmul(a, b, block=2), a @ b)


def test_unfit(device):
    x = torch.ones(4, 4, device=device)
    with pytest.raises(TypeError, match="b must be float32"):
        matmul(x, x.double())
    with pytest.raises(ValueError, match="as many rows as a has columns, 4, got 2"):
        matmul(x, x[:2])
    with pytest.raises(ValueError, match="a must be contiguous"):
        matmul(x[:, :2], x)
    with pytest.raises(ValueError, match="block must be 1, 2, 4 or 8, got 16"):
        matmul(x, x, block=16)
    with pytest.raises(ValueError, match="group must be at least 1"):
        matmul(x, x, group=0)


def test_nine_programs_read_90_blocks_row_by_row_and_54_in_strips_of_three():
    plain, grouped = reads(9, 1), reads(9, 3)
    assert (plain.blocks, grouped.blocks) == (90, 54)
    assert ((plain.a > 0).sum(), (plain.b > 0).sum()) == (9, 81)
    assert ((grouped.a > 0).sum(), (grouped.b > 0).sum()) == (27, 27)
    # Every program reads a row and a column of blocks, in either order.
    assert plain.a.sum() == grouped.a.sum() == 81
    assert plain.c[0].tolist() == list(range(9))
    assert grouped.c[:3, :3].T.flatten().tolist() == list(range(9))


@pytest.mark.parametrize("group", [1, 2, 3, 5])
def test_every_order_covers_every_tile(group):
    seen = reads(4, group, programs=16)
    assert sorted(seen.c.flatten()) == list(range(16))
    assert (seen.a == 4).all()
    assert (seen.b == 4).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("offs_m * k + offs_k", "offs_m * n + offs_k"),
        ("(offs_k < k)[:, None] & (offs_n < n)", "(offs_k <= k)[:, None]"),
        ("b[None, :, :], axis=1)", "b[None, :, :], axis=2)"),
        ("acc += tl.sum", "acc = tl.sum"),
        ("offs_m * n + offs_n, acc", "offs_n * n + offs_m, acc"),
    ],
)
def test_planted_mistakes_are_found(old, new, device):
    with (
        testing.mutated_module(by_hand, old, new),
        pytest.raises((AssertionError, IndexError)),
    ):
        test_any_shape((5, 7, 3), 1, device)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_compiles_everywhere(target):
    x = torch.empty((64, 64), device="meta")
    evidence = compile_only.compile(
        by_hand.matmul_kernel, x, x, x, 64, 64, 64, BLOCK=8, GROUP=1, target=target
    ).evidence
    assert evidence.spill_store_bytes == 0
    # Products and sums by hand: no matrix unit is asked.
    assert not evidence.mma


def test_from_16_on_the_compiler_sees_a_dot():
    """Which before Triton 3.9 rounds what it multiplies to TF32, unasked."""
    x = torch.empty((64, 64), device="meta")
    dots = {}
    for block in (8, 16):
        ttir = compile_only.compile(
            by_hand.matmul_kernel, x, x, x, 64, 64, 64, BLOCK=block, GROUP=1
        ).ttir
        dots[block] = [line for line in ttir.splitlines() if "tt.dot" in line]
    assert not dots[8]
    (line,) = dots[16]
    before = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8)
    assert ("tf32" in line) or not before
