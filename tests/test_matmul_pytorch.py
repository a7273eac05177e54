"""What PyTorch may do to an operand, and to a call: everybody else's ways in."""

import pytest
import torch
from torch.autograd import forward_ad

from tilebook.matmul import (
    batched,
    described,
    linear,
    matmul,
    naive,
    operands,
    ordered,
    outer,
    persistent,
    precision,
    split,
    streamed,
    tile,
    vectors,
)

RUNGS = (naive, outer, tile, ordered, persistent, split, streamed, vectors)
FUNCTIONS = [
    *(pytest.param(rung.matmul, id=rung.__name__.rpartition(".")[2]) for rung in RUNGS),
    pytest.param(batched.matmul, id="batched"),
    pytest.param(precision.bf16x3, id="bf16x3"),
]


@pytest.fixture
def switch():
    """PyTorch's own switch of precision, put back afterwards."""
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    yield switch
    switch.fp32_precision = before


def test_either_switch_of_precision_is_heeded(switch, device):
    x = torch.randn(3, 4, device=device)
    for value, wanted in (("tf32", "tf32"), ("ieee", "ieee"), ("none", "ieee")):
        switch.fp32_precision = value
        assert operands.default_precision() == wanted
        for dtype in (torch.float32, torch.bfloat16):
            a = x.to(dtype)
            assert matmul(a, a.mT).shape == linear(a, a).shape == (3, 3)
        assert operands.precision_of(torch.bfloat16, None) == "ieee"
        assert operands.precision_of(torch.float32, "tf32x3") == "tf32x3"
    with pytest.raises(ValueError, match="precision must be"):
        operands.precision_of(torch.bfloat16, "exact")


@pytest.mark.parametrize("fn", [*FUNCTIONS, matmul])
def test_a_lazily_negated_operand_has_its_sign(fn, device):
    x = torch.view_as_complex(torch.randn(5, 16, 2, device=device)).conj().imag
    y = torch.randn(16, 7, device=device)
    assert x.is_neg()
    expected = x.double() @ y.double()
    assert (fn(x, y).double() - expected).abs().max() < 1e-3
    assert (fn(y.mT, x.mT).double() - expected.mT).abs().max() < 1e-3


@pytest.mark.parametrize("fn", [*FUNCTIONS, pytest.param(described.matmul, id="TMA")])
def test_what_has_no_gradient_refuses_to_lose_one(fn, device):
    a = torch.randn(8, 16, device=device)
    b = torch.randn(16, 8, device=device)
    with pytest.raises(ValueError, match="a takes part in a gradient"):
        fn(a.requires_grad_(), b)
    with pytest.raises(ValueError, match="b takes part in a gradient"):
        fn(b.mT, a.mT)
    with torch.no_grad():
        assert not fn(a, b).requires_grad
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(b, torch.ones_like(b))
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            fn(a.detach(), dual)


@pytest.mark.parametrize("fn", [lambda a, b: matmul(a, b.mT), linear])
def test_a_trace_multiplies(fn, device):
    a, b = torch.randn(3, 4, device=device), torch.randn(5, 4, device=device)
    traced = torch.jit.trace(fn, (a, b))
    other = torch.randn(3, 4, device=device)
    assert torch.equal(traced(other, b), fn(other, b))


def test_no_terms_in_batches_that_do_not_join(device):
    a = torch.zeros(2, 1, 2, 1, 3, 0, device=device)
    b = torch.zeros(1, 2, 1, 2, 0, 3, device=device)
    for fn in (matmul, batched.matmul):
        assert torch.equal(fn(a, b), torch.matmul(a, b))
    a = torch.randn(2, 1, 2, 1, 3, 4, device=device, requires_grad=True)
    b = torch.randn(1, 2, 1, 2, 4, 0, device=device)
    matmul(a, b).sum().backward()
    assert not a.grad.any()


def kept(fn):
    """Call and count the tensors that are kept for a gradient."""
    found = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: found.append(x) or x, lambda x: x
    ):
        out = fn()
    return out, len(found)


def test_only_what_a_gradient_needs_is_kept(device):
    x = torch.randn(3, 4, device=device)
    frozen = torch.randn(5, 4, device=device)
    for fn in (lambda h: matmul(h, frozen.mT), lambda h: linear(h, frozen)):
        h = (x.clone().requires_grad_()) * 1.0
        out, count = kept(lambda fn=fn, h=h: fn(h))
        assert count == 1
        # Nobody needs it any more, as with PyTorch's own.
        h.relu_()
        out.sum().backward()
    bias = torch.randn(5, device=device, requires_grad=True)
    assert kept(lambda: linear(x, frozen, bias))[1] == 0
    assert kept(lambda: linear(x, frozen, bias, activation="gelu"))[1] == 3
    rest = torch.randn(3, 5, device=device, requires_grad=True)
    assert kept(lambda: linear(x, frozen, residual=rest))[1] == 0


def test_an_export_keeps_its_free_dimension(device):
    class Layer(torch.nn.Module):
        def forward(self, x, weight):
            return linear(x, weight)

    x, weight = torch.randn(4, 3, 8, device=device), torch.randn(5, 8, device=device)
    free = {"x": {0: torch.export.Dim("rows")}, "weight": None}
    exported = torch.export.export(
        Layer(), (x, weight), dynamic_shapes=free, strict=False
    )
    more = torch.randn(7, 3, 8, device=device)
    assert torch.equal(exported.module()(more, weight), linear(more, weight))
