"""Every option of `attention` with every other, forward and backward, and any sizes."""

import itertools
import random

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tilebook import attention as chapter
from tilebook.attention import (
    backward,
    backward_whole,
    biases,
    forward,
    operands,
    trials,
)
from tilebook.attention.choose import Config
from tilebook.attention.trials import Shape, agree, drawn

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
FACTORS = {
    "shape": (
        Shape(1, 2, 1, 40, 40, 16, 16),
        Shape(2, 4, 2, 33, 50, 24, 16),
        Shape(1, 3, 3, 50, 33, 16, 40),
    ),
    "dtype": (F32, BF16, F16),
    "window": ({}, {"right": 0}, {"left": 9, "right": 4}, {"left": 17, "right": 0}),
    "bottom": (False, True),
    "cap": (0.0, 1.5),
    "slopes": ("", "head", "batch"),
    "bias": ("", "mask", "full", "key"),
    "sinks": (False, True),
    "dropout": (0.0, 0.25),
    "deterministic": (True, False),
}


def pairwise(factors, seed=0):
    """Choices in which each value meets each of every other factor; greedily found."""
    names, source = list(factors), random.Random(seed)
    sizes = {name: range(len(factors[name])) for name in names}
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i, j in itertools.product(sizes[a], sizes[b])
    }
    found = []
    while missing:
        best, most = None, -1
        for _ in range(300):
            row = {name: source.choice(sizes[name]) for name in names}
            new = sum(
                pair in missing for pair in itertools.combinations(row.items(), 2)
            )
            if new > most:
                best, most = row, new
        missing -= set(itertools.combinations(best.items(), 2))
        found.append({name: factors[name][i] for name, i in best.items()})
    return found


ROWS = pairwise(FACTORS)


def small(task):
    """Tiles of few rows, so that there are several."""
    return Config(16, 32, 4, 2)


@pytest.fixture(autouse=True)
def several(monkeypatch, device):
    if device.type == "cpu":
        monkeypatch.setattr(forward, "forward_config", small)
        monkeypatch.setattr(backward, "keys_config", small)
        monkeypatch.setattr(backward, "queries_config", small)
        monkeypatch.setattr(backward_whole, "whole_config", small)
        monkeypatch.setattr(biases, "bias_config", small)


def options_of(row, device):
    """Draw what a row of choices asks for."""
    shape = row["shape"]
    batch, heads, _, rows, columns, *_ = shape
    made = {"device": device, "requires_grad": True}
    options = dict(row["window"])
    if row["bottom"]:
        options["bottom"] = True
    if row["cap"]:
        options["cap"] = row["cap"]
    if row["slopes"]:
        size = (heads,) if row["slopes"] == "head" else (batch, heads)
        options["slopes"] = torch.rand(size, **made)
    if row["bias"] == "mask":
        options["bias"] = torch.rand(heads, rows, columns, device=device) < 0.8
    elif row["bias"]:
        size = (
            (batch, 1, rows, columns) if row["bias"] == "full" else (heads, 1, columns)
        )
        options["bias"] = torch.randn(size, dtype=row["dtype"], **made)
    if row["sinks"]:
        options["sinks"] = torch.randn(heads, **made)
    if row["dropout"]:
        options |= {"dropout": row["dropout"], "seed": torch.tensor(-9, device=device)}
    return options


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_options_meet(number, device):
    row = ROWS[number]
    agree(
        drawn(row["shape"], row["dtype"], device),
        deterministic=row["deterministic"],
        **options_of(row, device),
    )


def test_each_pair_is_there():
    assert len(ROWS) < 40
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            assert any(row[a] == x and row[b] == y for row in ROWS)


@settings(max_examples=12)
@given(
    rows=st.integers(0, 50),
    columns=st.integers(0, 50),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    heads=st.sampled_from([(1, 1), (2, 2), (3, 1)]),
    left=st.none() | st.integers(0, 60),
    right=st.none() | st.integers(0, 60),
    bottom=st.booleans(),
)
def test_any_sizes_and_windows(rows, columns, sizes, heads, left, right, bottom):
    shape = Shape(1, heads[0], heads[1], rows, columns, *sizes)
    if not rows or not columns:
        q, k, v = drawn(shape, F32)
        out, lse = chapter.attention(q, k, v, return_lse=True)
        assert not out.any()
        assert (lse == -torch.inf).all()
        (out.sum() + lse.sum()).backward()
        assert not any(x.grad is not None and x.grad.any() for x in (q, k, v))
        return
    agree(drawn(shape, F32), left=left, right=right, bottom=bottom)


def test_a_row_that_sees_nothing_is_zero_and_has_no_gradient(device):
    q, k, v = drawn(Shape(1, 1, 1, 40, 40), F32, device)
    mask = torch.ones(40, 40, dtype=torch.bool, device=device)
    mask[5:30] = False
    added = torch.zeros(40, 40, device=device).masked_fill(~mask, -torch.inf)
    for bias in (mask, added):
        q.grad = None
        out, lse = chapter.attention(q, k, v, bias=bias, return_lse=True)
        assert not out[0, 0, 5:30].any()
        assert (lse[0, 0, 5:30] == -torch.inf).all()
        out.sum().backward()
        assert not q.grad[0, 0, 5:30].any()
        assert q.grad[0, 0, :5].isfinite().all()
    agree(drawn(Shape(1, 1, 1, 40, 40), F32, device), bias=mask)


def test_a_window_as_wide_as_there_is_changes_nothing(device):
    q, k, v = drawn(Shape(), F32, device)
    wide = chapter.attention(q, k, v, window=(2**40, 2**40))
    assert wide.equal(chapter.attention(q, k, v, window=(39, 39)))


def test_a_bias_whose_rows_lie_far_apart(device):
    """Offsets of 32 bits wouldn't reach over a tile: it is copied."""
    room = torch.zeros(operands.FARTHEST + 40, device=device)
    bias = room.as_strided((2, 40), (operands.FARTHEST, 1)).normal_()
    assert operands.near(bias[None, None]).is_contiguous()
    assert operands.near(bias[None, None, :1]).stride(2) == operands.FARTHEST
    given = drawn(Shape(rows=2), F32, device)
    agree(given, bias=bias, backward=False)


def test_dropping_all_leaves_nothing(device):
    q, k, v = drawn(Shape(), F32, device)
    out, lse = chapter.attention(q, k, v, dropout=1.0, return_lse=True)
    assert not out.any()
    assert lse.equal(chapter.attention(q, k, v, return_lse=True)[1])
    out.sum().backward()
    assert not q.grad.any()


def test_seeds_draw_what_they_drew(device):
    q, k, v = (x.detach() for x in drawn(Shape(), F32, device))
    first = chapter.attention(q, k, v, dropout=0.5, seed=2**63 - 1)
    assert first.equal(chapter.attention(q, k, v, dropout=0.5, seed=2**63 - 1))
    assert not first.equal(chapter.attention(q, k, v, dropout=0.5, seed=1))
    torch.manual_seed(1)
    drawn_once = chapter.attention(q, k, v, dropout=0.5)
    assert not drawn_once.equal(chapter.attention(q, k, v, dropout=0.5))
    torch.manual_seed(1)
    assert drawn_once.equal(chapter.attention(q, k, v, dropout=0.5))


@pytest.mark.gpu
@pytest.mark.parametrize("number", range(len(ROWS)))
def test_options_meet_in_many_tiles(number, device):
    row = ROWS[number]
    shape = row["shape"]._replace(rows=700, columns=900, d=64, e=64)
    row = row | {"shape": shape}
    agree(
        drawn(shape, row["dtype"], device),
        deterministic=row["deterministic"],
        **options_of(row, device),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1024, 4097])
def test_window_of_1024_compiled(length, device):
    given = drawn(Shape(1, 4, 2, length, length, 128, 128), BF16, device)
    trials.agree(given, left=1024, right=0)


@pytest.mark.parametrize("cap", [1e4, 1e8, 1e30])
def test_a_large_cap_leaves_logits_as_they_are(cap, device):
    q, k, v = torch.randn(3, 1, 2, 32, 32, device=device)
    plain, capped = (chapter.attention(q, k, v, **x) for x in ({}, {"softcap": cap}))
    assert (plain - capped).abs().max() < 1e-5
