"""Planted mistakes in the quantisers of `fp8`: each must turn a comparison red."""

import math

import pytest
import torch

from tilebook import testing
from tilebook.fp8 import (
    arithmetic,
    both,
    formats,
    groups,
    quantizing,
    rows,
    scaling,
    whole,
)
from tilebook.fp8.operands import Job
from tilebook.interpreter import OutOfBounds

MISTAKES = (
    (arithmetic, " & 0x7FFFFFFF", ""),
    (arithmetic, "magnitude(tl.full((), FLOOR, tl.float32))", "0"),
    (arithmetic, "((ratio & 0x7FFFFF) > 0)", "((ratio & 0x7FFFFF) > 1)"),
    (arithmetic, "(ratio > (1 << 22))", "(ratio > (1 << 23))"),
    (arithmetic, "254 - code) << 23", "253 - code) << 23"),
    (arithmetic, "0x7FC00000, ", "0x3F800000, "),
    (arithmetic, "-LARGEST, LARGEST, propagate", "-LARGEST, LARGEST / 2, propagate"),
    (groups, "amax = tl.max(amax, axis=0)", "amax = tl.min(amax, axis=0)"),
    (groups, "* scale_m + offs_g", "* scale_k + offs_g"),
    (groups, "mask=(offs_down < m)[:, None] & ", "mask="),
    (rows, "amax = tl.maximum(amax, tl.max(magnitude(y), axis=1))",
     "amax = tl.max(magnitude(y), axis=1)"),
    (rows, "squares += tl.sum", "squares = tl.sum"),
    (rows, "bitcast=True) * factor)", "bitcast=True))"),
    (rows, "y * factor[:, None, None] *", "y *"),
    (rows, "y * factor[:, None] *", "y *"),
    (rows, "tl.cast(start, tl.int64) // WIDTH", "tl.cast(start, tl.int64)"),
    (whole, "tl.store(scale_ptr, scale)", "tl.store(scale_ptr, inverse)"),
    (whole, "amax = tl.maximum(amax, magnitude(x))\n    tl.",
     "amax = magnitude(x)\n    tl."),
    (both, "offs_k * turned_k + pid_m * turned_m",
     "offs_k * turned_m + pid_m * turned_k"),
    (both, "tl.trans(gathered(y)), mask=mask)", "tl.trans(gathered(y)))"),
    (both, "tl.trans(gathered(y))", "tl.trans(y)"),
    (groups, "x = tl.trans(gathered(tl.trans(x)))", "x = x + 0"),
    (both, "x * inverse[None, :]", "x * inverse[:, None]"),
)  # fmt: skip


def drawn(m, k):
    """Magnitudes that grow along both sides."""
    size = torch.logspace(-3, 2, m)[:, None] * torch.logspace(-2, 2, k)
    return torch.randn(m, k) * size


def alike(found, expected):
    """Codes and scales to the bit; one NaN is as good as another."""
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.float(), theirs.float()
        assert ours.nan_to_num(7e7).equal(theirs.nan_to_num(7e7))


def compare(x, granularity, rounding=None):
    with testing.guarded():
        found = quantizing.quantize(x, granularity, rounding=rounding)
    told = {"rounding": rounding or "down"}
    alike(found, scaling.reference(x, granularity, **told))


def edges():
    """Zeros, infinity, and largest magnitudes about a power of two."""
    x = drawn(7, 160)
    x[0], x[1, 5], x[2, :32], x[4, :32] = 0, math.inf, 2.0**-118 * 1.4, 0
    x[3, :32], x[4, 0], x[5, 0] = -5.0, 448.00006103515625, 3.4e38
    x[6, :32] = 1.5 * 448 * 2.0**-127
    compare(x, "1x128")
    for rounding in formats.ROUNDINGS:
        compare(x, "mx", rounding)


def squares():
    compare(drawn(150, 20), "128x128")


def all_of_it():
    compare(drawn(60, 20), "tensor")
    compare(drawn(60, 20).flip(0), "tensor")


def turned():
    tall = drawn(150, 20)
    with testing.guarded():
        _, found = quantizing.quantize_both(tall)
    alike(found, scaling.reference(tall.t(), "1x128"))


def columns():
    """Neighbours along columns: a transpose, read along them."""
    for granularity in ("1x128", "mx"):
        compare(drawn(200, 70).t(), granularity)


def walks():
    """Rows in two parts, larger in the first: what counts isn't what came last."""
    for granularity in ("1x128", "row"):
        x = drawn(3, 160).flip(1)
        found = scaling.place(3, 160, granularity, torch.float8_e4m3fn, "cpu")
        job, config = Job(x, *found, granularity), rows.Config(1, 128, 4)
        with testing.guarded():
            rows.launch(job, config, rows.Norm(torch.ones(160), 0.0))
        exact = x.double() / x.double().square().mean(1, keepdim=True).sqrt()
        back = scaling.dequantize(*found, granularity, dtype=torch.float64)
        scale = scaling.spread(found.scale, granularity, 3, 160).double()
        step = torch.maximum(exact.abs() * 2.0**-4, scale * 2.0**-10)
        assert ((back - exact).abs() <= step * (1 + 2.0**-15)).all()


CHECKS = {
    arithmetic: (edges,),
    groups: (edges, squares, columns),
    rows: (walks,),
    whole: (all_of_it,),
    both: (turned,),
}


def run(module):
    for check in CHECKS[module]:
        check()


@pytest.fixture(autouse=True)
def several(monkeypatch, interpreted):
    """Few elements to a tile, so that a program walks over several."""
    monkeypatch.setattr(whole, "config_for", lambda *_: whole.Config(8, 16, 4, 1))


def test_without_one_all_is_well():
    for module in CHECKS:
        run(module)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        pytest.param(*each, id=f"{each[0].__name__.rpartition('.')[2]}-{i}")
        for i, each in enumerate(MISTAKES)
    ],
)
def test_each_is_noticed(module, old, new):
    with (
        testing.mutated_module(module, old, new),
        pytest.raises((AssertionError, OutOfBounds)),
    ):
        run(module)
