"""Gradients of `attention`: of whatever is asked for, in both ways, and their bits."""

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
)
from tilebook.attention.choose import Config
from tilebook.attention.trials import Shape, agree, drawn

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture(autouse=True)
def several(monkeypatch, device):
    """Few rows to a tile where kernels are interpreted; other tiles than forward."""
    if device.type == "cpu":
        for module, name in (
            (forward, "forward_config"),
            (backward, "keys_config"),
            (backward, "queries_config"),
            (backward_whole, "whole_config"),
            (biases, "bias_config"),
        ):
            wide = name in ("keys_config", "bias_config")
            config = Config(32, 16, 4, 2) if wide else Config(16, 32, 4, 2)
            monkeypatch.setattr(module, name, lambda task, config=config: config)


BOTH = pytest.mark.parametrize("deterministic", [True, False], ids=["two", "one"])


@BOTH
@pytest.mark.parametrize("dtype", operands.DTYPES, ids=str)
def test_gradients_of_a_group(deterministic, dtype, device):
    given = drawn(Shape(2, 6, 3, 37, 50, 24, 40), dtype, device)
    agree(given, deterministic=deterministic, right=0)


@BOTH
def test_logarithms_alone(deterministic, device):
    """Only the logarithms are used: nothing arrives for the result."""
    q, k, v = drawn(Shape(rows=20, columns=30), F32, device)
    _, lse = chapter.attention(q, k, v, return_lse=True, deterministic=deterministic)
    lse.sum().backward()
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    reference.attention(*wide, scale=0.25)[1].sum().backward()
    for ours, theirs in zip((q, k), wide, strict=False):
        testing.assert_close(ours.grad, theirs.grad, length=200)
    assert not v.grad.any()


@pytest.mark.parametrize("wanted", ["q", "k", "v"])
def test_one_gradient_alone(wanted, device):
    q, k, v = (x.detach() for x in drawn(Shape(), F32, device))
    x = {"q": q, "k": k, "v": v}[wanted].requires_grad_()
    (found,) = torch.autograd.grad(chapter.attention(q, k, v).sum(), x)
    wide = {n: t.detach().double() for n, t in (("q", q), ("k", k), ("v", v))}
    wide[wanted].requires_grad_()
    out, _ = reference.attention(**wide, scale=0.25)
    (exact,) = torch.autograd.grad(out.sum(), wide[wanted])
    testing.assert_close(found, exact, length=400, scale=torch.ones(()).double())


@BOTH
def test_any_strides(deterministic, device):
    """Of operands, and of what arrives."""
    q, k, v = drawn(Shape(2, 2, 1, 20, 24, 16, 16), BF16, device)
    out = chapter.attention(q, k, v, causal=True)
    grad = torch.randn_like(out)
    exact = torch.autograd.grad(out, (q, k, v), grad)
    turned = [
        x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        for x in (q, k, v)
    ]
    with testing.guarded():
        out = chapter.attention(*turned, causal=True, deterministic=deterministic)
        for arrives in (grad, grad.transpose(1, 3).contiguous().transpose(1, 3)):
            found = torch.autograd.grad(out, turned, arrives, retain_graph=True)
            for ours, theirs in zip(found, exact, strict=True):
                testing.assert_close(ours, theirs.double(), length=40)
    q, k, v = (x.detach().contiguous().requires_grad_() for x in (q, k, v))
    chapter.attention(q, k, v).sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 33, 40), (1, 2, 1, 40), (33, 1), (2, 1, 33, 40), (), (1, 1, 1, 40), (40,)],
    ids=str,
)
def test_gradient_of_a_bias_that_broadcasts(shape, device):
    bias = torch.randn(shape, device=device, requires_grad=True)
    agree(drawn(Shape(2, 2, 1, 33, 40), F32, device), bias=bias, right=4)


def test_gradient_of_a_bias_in_float32_of_tensors_in_half(device):
    bias = torch.randn(2, 40, 40, device=device, requires_grad=True)
    agree(drawn(Shape(), F16, device), bias=bias, cap=3.0)


def test_gradients_of_slopes_and_sinks_in_other_types(device):
    made = {"device": device, "requires_grad": True}
    slopes = torch.rand(2, dtype=F32, **made)
    sinks = torch.randn(2, dtype=F32, **made)
    agree(drawn(Shape(), BF16, device), slopes=slopes, sinks=sinks, bottom=True)
    q, k, v = (x.detach() for x in drawn(Shape(), BF16, device))
    narrow = torch.rand(2, dtype=BF16, **made)
    chapter.attention(q, k, v, slopes=narrow, sinks=narrow).sum().backward()
    assert narrow.grad.dtype == BF16


@BOTH
def test_no_elements(deterministic, device):
    for shape in (Shape(0), Shape(rows=0), Shape(columns=0), Shape(1, 0, 1)):
        given = drawn(shape, F32, device)
        bias = torch.zeros((1, 1), device=device, requires_grad=True)
        heads = torch.zeros(shape.heads, device=device, requires_grad=True)
        out = chapter.attention(
            *given, bias=bias, slopes=heads, sinks=heads, deterministic=deterministic
        )
        out.sum().backward()
        for x in (*given, bias, heads):
            assert x.grad.shape == x.shape
            assert not x.grad.any()


def test_keys_of_no_queries_have_no_gradient(device):
    q = torch.zeros(2, 0, 3, 16, device=device, requires_grad=True)
    k = torch.zeros(2, 1, 3, 16, device=device, requires_grad=True)
    chapter.attention(q, k, k).sum().backward()
    assert k.grad.shape == k.shape
    assert not k.grad.any()


@BOTH
def test_keys_that_nobody_sees_have_no_gradient(deterministic, device):
    q, k, v = drawn(Shape(1, 1, 1, 20, 70), F32, device)
    out = chapter.attention(q, k, v, causal=True, deterministic=deterministic)
    with testing.guarded():
        out.sum().backward()
    assert not k.grad[:, :, 20:].any()
    assert not v.grad[:, :, 20:].any()
    assert k.grad[:, :, :20].any()


def test_descriptors_bring_the_same(device):
    q, k, v = (x.detach() for x in drawn(Shape(2, 4, 2, 50, 70, 24, 40), BF16, device))
    task = operands.plain(q, k, v)._replace(right=3)
    forward.launch(task)
    do = torch.randn_like(task.out)
    for rung in (backward, backward_whole):
        found = []
        for described in (False, True):
            asked = gradients.wanted(task._replace(described=described), do)
            rung.launch(asked)
            found.append(asked)
        assert found[0].dk.equal(found[1].dk)
        assert found[0].dv.equal(found[1].dv)
        if rung is backward or device.type == "cpu":
            assert found[0].dq.equal(found[1].dq)


def test_one_kernel_has_no_slopes_and_not_all_sizes():
    q, k, v = (x.detach() for x in drawn(Shape(), F32))
    task = operands.plain(q, k, v)
    asked = gradients.wanted(task, task.out, slopes=True)
    with pytest.raises(ValueError, match="must not ask for slopes"):
        backward_whole.launch(asked)
    long = torch.empty(1, 1, 1 << 24, 128, device="meta")
    task = task._replace(q=long)
    assert "2**31" in backward_whole.refusal(task)
    with pytest.raises(ValueError, match=r"fewer than 2\*\*31"):
        backward_whole.launch(asked._replace(task=task, steps=None))


@pytest.mark.gpu
@pytest.mark.parametrize("d", [16, 40, 64, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("dtype", operands.DTYPES, ids=str)
def test_all_sizes_of_heads_compiled(d, deterministic, dtype, device):
    given = drawn(Shape(1, 4, 2, 400, 300, d, d), dtype, device)
    agree(given, right=0, deterministic=deterministic)


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000, 2048])
@pytest.mark.parametrize("dtype", operands.DTYPES, ids=str)
def test_lengths_compiled(length, dtype, device):
    given = drawn(Shape(1, 2, 1, length, length, 64, 64), dtype, device)
    agree(given, left=1024)


@pytest.mark.gpu
def test_the_same_bits_each_time(device):
    q, k, v = drawn(Shape(2, 8, 4, 1000, 1000, 128, 128), BF16, device)
    bias = torch.randn(8, 1, 1000, dtype=BF16, device=device, requires_grad=True)

    def all_of_them():
        out = chapter.attention(q, k, v, causal=True, bias=bias)
        return torch.autograd.grad(out.square().sum(), (q, k, v, bias))

    testing.deterministic(all_of_them)


@pytest.mark.gpu
def test_as_near_as_pytorch(device):
    """In bfloat16 no further from float64 than twice what PyTorch is."""
    q, k, v = drawn(Shape(2, 8, 8, 1000, 1000, 128, 128), BF16, device)
    grad = torch.randn_like(q)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    fn = torch.nn.functional.scaled_dot_product_attention
    exact = fn(*wide, is_causal=True)
    exact = (exact, *torch.autograd.grad(exact, wide, grad.double()))
    errors = []
    for attend in (chapter.scaled_dot_product_attention, fn):
        out = attend(q, k, v, is_causal=True)
        found = (out, *torch.autograd.grad(out, (q, k, v), grad))
        errors.append(
            [testing.error(a.double(), b) for a, b in zip(found, exact, strict=True)]
        )
    for ours, theirs in zip(*errors, strict=True):
        assert ours < 2 * theirs


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_31_elements(device):
    batch, heads, length, d = 2, 68, 32768 * 4, 128
    x = torch.randn(1, 1, length, d, dtype=BF16, device=device)
    wide = torch.empty(batch, heads, length, d, dtype=BF16, device=device)
    assert wide.numel() > 2**31
    wide.copy_(x.expand_as(wide))
    k = torch.randn(1, 1, 64, d, dtype=BF16, device=device)
    keys = k.expand(batch, heads, 64, d).contiguous().requires_grad_()
    wide.requires_grad_()
    out = chapter.attention(wide, keys, keys)
    dq, dk = torch.autograd.grad(out, (wide, keys), wide.detach())
    del out
    x.requires_grad_()
    k.requires_grad_()
    alone = torch.autograd.grad(chapter.attention(x, k, k), (x, k), x.detach())
    assert dq[-1, -1].equal(alone[0][0, 0])
    assert dk[-1, -1].equal(alone[1][0, 0])
