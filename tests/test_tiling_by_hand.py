"""A product by hand, what its launch order reads, and the pictures of it all."""

import functools
import io
from unittest import mock

import matplotlib
import pytest
import torch
import triton

from tilebook import compile_only, testing
from tilebook.tiling import by_hand, figures
from tilebook.tiling.by_hand import matmul, reads


@pytest.mark.sanitize
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (4, 4, 4), (5, 7, 3), (9, 2, 5), (2, 0, 3), (0, 4, 4)],
    ids=str,
)
def test_any_shape(shape, group, device):
    m, k, n = shape
    a, b = torch.randn(m, k, device=device), torch.randn(k, n, device=device)
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


@pytest.mark.parametrize("group", [1, 2, 5])
def test_every_order_covers_every_tile(group):
    seen = reads(3, group, programs=9, block=1)
    assert sorted(seen.c.flatten()) == list(range(9))
    assert (seen.a == 3).all()
    assert (seen.b == 3).all()


MISTAKES = {
    "row of the other": ("offs_m * k + offs_k", "offs_m * n + offs_k"),
    "half a mask": ("(offs_k < k)[:, None] & (offs_n < n)", "(offs_k <= k)[:, None]"),
    "the other axis": ("b[None, :, :], axis=1)", "b[None, :, :], axis=2)"),
    "last step only": ("acc += tl.sum", "acc = tl.sum"),
    "turned round": ("offs_m * n + offs_n, acc", "offs_n * n + offs_m, acc"),
}


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(kernel, id=name)
        for name, kernel in testing.mutants(by_hand.matmul_kernel, MISTAKES)
    ],
)
def test_planted_mistakes_are_found(mutant, device):
    with (
        mock.patch.object(by_hand, "matmul_kernel", mutant),
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


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


# Small ones, each drawn once.
PICTURES = {
    "turned": functools.partial(figures.turned, m=2, n=4, block=2),
    "hand": functools.partial(figures.hand, size=4, block=2, program=1),
    "orders": functools.partial(figures.orders, tiles=4, group=2),
    "halo": functools.partial(figures.halo, height=6, width=10),
}


@functools.cache
def picture_of(name):
    return PICTURES[name]()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_drawn_twice_alike_and_speak(name):
    picture = picture_of(name)
    svg = drawn(picture)
    assert drawn(picture) == svg
    assert b"<svg" in svg
    assert len(picture.alt) > 60
    assert picture.alt.endswith(".")


def test_turned():
    shown = [t for t in texts(picture_of("turned")) if t.isdigit()]
    # The input row by row, then the output row by row.
    assert "".join(shown) == "00110011" + "00001111"
    assert "Program 1 reads 4 elements" in picture_of("turned").alt


def test_hand():
    shown = [t for t in texts(picture_of("hand")) if len(t) <= 1]
    a, b, c = ("".join(t or "." for t in shown[i : i + 16]) for i in (0, 16, 32))
    assert a == "00110011........"
    assert b == "..00..00..11..11"
    assert c == "..11..11........"
    assert "steps 0 to 1" in picture_of("hand").alt


def test_orders():
    shown, alt = texts(picture_of("orders")), picture_of("orders").alt
    assert {"A: 4 blocks", "B: 16 blocks", "C, strips of 2"} <= set(shown)
    assert [t for t in shown if t.endswith("blocks")].count("A: 8 blocks") == 1
    assert "read 20 blocks" in alt
    assert "and read 16." in alt


def test_halo():
    alt = picture_of("halo").alt
    assert "up to 9 times" in alt
    assert "up to 3 times" in alt
