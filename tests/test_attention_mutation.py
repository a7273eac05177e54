"""Planted mistakes in `attention`: each must turn a comparison red."""

import itertools
from unittest import mock

import pytest
import torch

from tilebook import attention as chapter
from tilebook import testing
from tilebook.attention import (
    backward,
    backward_whole,
    biases,
    forward,
    gradients,
    operands,
    reference,
    scores,
    turned,
)
from tilebook.attention.choose import Config
from tilebook.attention.trials import Shape, agree, drawn
from tilebook.testing.mutation import caught

F32 = torch.float32


def causal():
    agree(drawn(Shape(1, 2, 2, 37, 41), F32), right=0)


def bottom():
    agree(drawn(Shape(1, 1, 1, 37, 50), F32), left=9, right=5, bottom=True)


def tall():
    """Tiles of more queries than keys."""
    with (
        mock.patch.multiple(forward, forward_config=lambda task: Config(32, 16, 4, 2)),
        mock.patch.multiple(backward, keys_config=lambda task: Config(16, 64, 4, 2)),
    ):
        causal()
        agree(drawn(Shape(1, 1, 1, 70, 70), F32), left=30)


def ragged():
    agree(drawn(Shape(1, 1, 1, 20, 41), F32), backward=False)


def grouped():
    agree(drawn(Shape(1, 4, 2, 20, 20), F32))


def capped():
    agree(drawn(Shape(1, 1, 1, 20, 20), F32), cap=0.5)


def sloped():
    slopes = torch.rand(2, requires_grad=True)
    agree(drawn(Shape(1, 2, 1, 20, 33), F32), slopes=slopes, bottom=True)


def dropped():
    told = {"dropout": 0.4, "seed": torch.tensor(7)}
    bias = torch.zeros(20, 20, requires_grad=True)
    agree(drawn(Shape(1, 2, 1, 20, 20), F32), bias=bias, **told)


def sunk():
    sinks = torch.randn(2, requires_grad=True)
    agree(drawn(Shape(1, 2, 1, 20, 20), F32), sinks=sinks)


def biased():
    bias = torch.randn(2, 1, 37, requires_grad=True)
    agree(drawn(Shape(2, 2, 1, 20, 37), F32), bias=bias)


def filled():
    bias = testing.guard(torch.randn(20, 37)).tensor
    agree(drawn(Shape(1, 1, 1, 20, 37), F32), bias=bias, backward=False)


def masked():
    mask = torch.rand(20, 37) < 0.5
    mask[:4], mask[5, :33] = False, False
    agree(drawn(Shape(1, 1, 1, 20, 37), F32), bias=mask)


def whole():
    given = drawn(Shape(1, 1, 1, 20, 37), torch.bfloat16)
    with testing.guarded():
        agree(given, right=3, deterministic=False)


def packed():
    q, k, v = (x[0].transpose(0, 1) for x in drawn(Shape(1, 1, 1, 60, 60), F32))
    cu = torch.tensor([0, 20, 37, 60])
    with testing.guarded():
        out = chapter.attention_varlen(q, k, v, cu, cu)
    wide = (x.detach().double().transpose(0, 1)[None] for x in (q, k, v))
    a, b, c = wide
    for i, j in itertools.pairwise(cu.tolist()):
        parts = (x[:, :, i:j] for x in (a, b, c))
        exact, _ = reference.attention(*parts, scale=0.25)
        testing.assert_close(out[i:j].transpose(0, 1)[None], exact, length=200)


MISTAKES = (
    (scores, "high = tl.minimum(sk, tl.maximum(last + shift + right + 1, 0))",
     "high = tl.minimum(sk, tl.maximum(m0 + shift + right + 1, 0))", tall),
    (scores, "full_high = tl.minimum(sk, tl.maximum(m0 + shift",
     "full_high = tl.minimum(sk, tl.maximum(last + shift", causal),
    (scores, "full_low = tl.maximum(last + shift - left", "full_low = tl.maximum(m0 + "
     "shift - left", tall),
    (scores, "low = tl.maximum(m0 + shift - left", "low = tl.maximum(last + "
     "shift - left",
     bottom),
    (scores, "low = tl.maximum(n0 - shift - right", "low = tl.maximum(n0 - right",
     bottom),
    (scores, "full_low = tl.maximum(last - shift - right",
     "full_low = tl.maximum(n0 - shift - right", causal),
    (scores, "full_high = tl.minimum(sq, tl.maximum(n0 - shift + left",
     "full_high = tl.minimum(sq, tl.maximum(last - shift + left", tall),
    (scores, "seen = offs_n < sk", "seen = offs_n <= sk", ragged),
    (scores, "seen & (offs_n <= offs_m", "seen & (offs_n < offs_m", causal),
    (scores, "        s *= LOG2E", "        s *= LN2", capped),
    (scores, "steep = 1 - t * t", "steep = 1 - t", capped),
    (scores, "tl.abs(offs_m + shift - offs_n)", "tl.abs(offs_m - offs_n)", sloped),
    (scores, ">= threshold", "< threshold", dropped),
    (scores, "there = (offs_m < sq) & (offs_n < sk)", "there = offs_n < sk", filled),
    (scores, "tl.where(ends <= slot", "tl.where(ends < slot", packed),
    (forward, "total = total * shrink +", "total = total +", ragged),
    (forward, "acc * shrink[:, None]", "acc", ragged),
    (forward, "tl.where(highest == -float(\"inf\"), 0.0, highest)", "highest", masked),
    (forward, "tl.load(sinks_ptr + h) * LOG2E", "tl.load(sinks_ptr + h)", sunk),
    (forward, "(top + tl.log2(total)) * LN2", "(top + tl.log2(total)) * LOG2E", ragged),
    (forward, "acc * (revive / total)[:, None]", "acc * (1 / total)[:, None]", dropped),
    (forward, "hk = h // group", "hk = h % group", grouped),
    (turned, "ds = p * (dp - delta[None, :])", "ds = p * dp", causal),
    (turned, "dp = tl.where(keep, dp * revive, 0.0)", "dp = dp * revive", dropped),
    (turned, "tl.atomic_add(at, dq * scale, mask=mask", "tl.atomic_add(at, dq * scale",
     whole),
    (turned, "at = dq_base + start + (", "at = dq_base + (", whole),
    (backward, "h = hk * group + g", "h = hk + g", grouped),
    (backward, "dk * scale", "dk", causal),
    (backward, "dq * scale", "dq", causal),
    (backward, "dv * revive", "dv", dropped),
    (backward, "steps -= tl.sum", "steps += tl.sum", sloped),
    (backward, "            ds *= steep", "            ds *= 1.0", capped),
    (gradients, "delta -= tl.load", "delta += tl.load", causal),
    (gradients, "float(\"inf\"), lse * LOG2E)", "lse, lse * LOG2E)", masked),
    (gradients, "copy_(-(weight", "copy_((weight", sunk),
    (biases, "turn % sum_h).to", "turn % sum_b).to", biased),
    (biases, "dp = tl.where(keep, dp * revive, 0.0)", "dp = dp * revive", dropped),
    (biases, "acc = tl.sum(acc, axis=0", "acc = tl.max(acc, axis=0", biased),
    (operands, "(lengths + block - 1) // block", "lengths // block", packed),
)  # fmt: skip


@pytest.fixture(autouse=True)
def several(monkeypatch, interpreted):
    """Few rows to a tile, so that there are several."""
    for module, name in (
        (forward, "forward_config"),
        (backward, "keys_config"),
        (backward, "queries_config"),
        (backward_whole, "whole_config"),
        (biases, "bias_config"),
    ):
        monkeypatch.setattr(module, name, lambda task: Config(16, 32, 4, 2))


def test_without_one_all_is_well():
    for suite in {each[3] for each in MISTAKES}:
        suite()


@pytest.mark.parametrize(
    ("module", "old", "new", "suite"),
    [
        pytest.param(*each, id=f"{each[0].__name__.rpartition('.')[2]}-{i}")
        for i, each in enumerate(MISTAKES)
    ],
)
def test_each_is_noticed(module, old, new, suite):
    assert caught(module, old, new, suite), f"{old!r} -> {new!r}"
