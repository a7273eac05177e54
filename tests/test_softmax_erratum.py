"""The published answer to Puzzle 8: its figures, and which test tells it is wrong."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook.softmax import erratum

BROKEN = [name for name in erratum.VARIANTS if name != "right"]


@pytest.fixture(scope="module")
def table():
    return erratum.acceptance()


def test_the_figures_of_the_puzzles_own_input():
    found = erratum.published()
    assert found["sum"].round(3).tolist() == [0.883, 0.893, 0.89, 0.874]
    assert found["relative"].max() == pytest.approx(0.126, abs=5e-4)
    # Accepted by a hair: the tolerance is 1e-3.
    assert found["absolute"].max() == pytest.approx(9.986e-4, abs=5e-7)
    assert bool(found["accepted"].all())


def test_our_test_refuses_it_there(device):
    x = erratum.puzzle_input()
    assert x.device.type == device.type
    assert not bool(erratum.strong(erratum.softmax, x))
    with pytest.raises(AssertionError, match="of 800 elements"):
        testing.assert_close(
            erratum.softmax(x), torch.softmax(x.double(), dim=-1), length=200
        )


def test_the_weak_test_takes_each_bug_and_half_of_both(table):
    assert list(table.index) == list(erratum.VARIANTS)
    assert table["weak"][["right", "padding", "rescale"]].tolist() == [1.0] * 3
    assert 0.4 < table["weak"]["both"] < 0.7


def test_larger_inputs_would_have_told(table):
    larger = table["weak, times 4"]
    assert larger["right"] == 1.0
    assert larger["padding"] == larger["both"] == 0.0
    assert larger["rescale"] < 0.2


def test_the_strong_test_takes_the_right_one_alone(table):
    assert table["strong"]["right"] == 1.0
    assert table["strong"][BROKEN].tolist() == [0.0] * len(BROKEN)


def test_it_is_the_same_every_time():
    pair = [erratum.acceptance(inputs=10, seed=3) for _ in range(2)]
    assert pair[0].equals(pair[1])
    assert not pair[0].equals(erratum.acceptance(inputs=10, seed=4))


@pytest.mark.parametrize("variant", erratum.VARIANTS)
@pytest.mark.parametrize("n", [1, 32, 33, 100])
def test_the_kernel_and_its_shadow_agree(variant, n, device):
    x = torch.randn(2, n, device=device)
    with testing.guarded():
        out = erratum.softmax(x, variant)
    # Both add up n terms in float32, each in an order of its own.
    want = erratum.followed(x.double(), variant)
    testing.assert_close(out, want, length=n + 4)


def test_the_right_one_is_right(device):
    x = torch.randn(3, 77, device=device)
    x[1] -= 200.0
    out = erratum.softmax(x, "right")
    testing.assert_close(out, torch.softmax(x.double(), dim=-1), length=77)


def test_each_bug_shows_where_it_should(device):
    whole = torch.rand(2, 64, device=device)
    # No lane is padded in rows of whole chunks, and nothing is rescaled where the first
    # chunk has the maximum.
    falling = whole.sort(dim=-1, descending=True).values
    for variant, x in (("padding", whole), ("rescale", falling)):
        want = torch.softmax(x.double(), dim=-1)
        testing.assert_close(erratum.softmax(x, variant), want, length=64)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: erratum.softmax(x.double()), TypeError, "x must be float32"),
        (lambda x: erratum.softmax(x[0]), ValueError, "x must have 2 dimensions"),
        (lambda x: erratum.softmax(x.t()), ValueError, "x must be contiguous"),
        (lambda x: erratum.softmax(x, "none"), ValueError, "variant must be 'right'"),
        (lambda x: erratum.softmax(x[:, :0]), ValueError, "columns of x must be"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, match, device):
    with pytest.raises(error, match=match):
        call(torch.ones(3, 5, device=device))


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_compiles_everywhere(target):
    x = torch.empty((4, 200), device="meta")
    meta = {"PADDED": True, "TURNED": True, "BLOCK": erratum.BLOCK}
    evidence = compile_only.compile(
        erratum.softmax_kernel, x, x, 200, target=target, **meta
    ).evidence
    assert evidence.spill_store_bytes == 0
