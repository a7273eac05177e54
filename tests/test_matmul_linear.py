"""`linear`: a layer in one launch, its gradients, the operator, and who multiplies."""

import pytest
import torch
import torch.nn.functional as F

from tilebook import device as here
from tilebook import testing
from tilebook.matmul import accuracy, choose, described, layers, ordered, split, vectors
from tilebook.matmul.layers import linear_operator
from tilebook.matmul.operands import ACTIVATIONS, Task

layer = layers.linear
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
NARROW = [torch.bfloat16, torch.float16]


def operands(m, n, k, activation="", dtype=torch.float32, device="cpu", grad=False):
    """x, weight, bias and residual of a layer."""
    width = n // 2 if activation == "silu_and_mul" else n
    shapes = ((m, k), (n, k), (n,), (m, width))
    made = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    return [x.requires_grad_(grad) for x in made]


def reference(x, weight, bias, residual, activation):
    out = layers.activated(F.linear(x, weight, bias), activation)
    return out if residual is None else out + residual


def assert_right(out, x, weight, bias, residual, activation):
    shape = (out.shape[:-1].numel(), out.shape[-1])
    rows, flat_out = x.reshape(shape[0], x.shape[-1]), out.reshape(shape)
    flat = None if residual is None else residual.reshape(shape)
    task = Task(
        rows, weight.t(), flat_out, bias=bias, activation=activation, residual=flat
    )
    scale, length = accuracy.bound(task)
    testing.assert_close(
        flat_out,
        accuracy.exact(task),
        dtype=x.dtype,
        length=length,
        factor=length,
        scale=scale,
    )


@each_activation
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_every_activation(activation, dtype, device):
    for shape in ((5, 18, 33), (17, 34, 40)):
        x, weight, bias, residual = operands(*shape, activation, dtype, device)
        with testing.guarded():
            out = layer(x, weight, bias, activation=activation, residual=residual)
        assert_right(out, x, weight, bias, residual, activation)
    assert_right(layer(x, weight), x, weight, None, None, "")


@pytest.mark.parametrize(
    "shape", [(4,), (1, 4), (2, 3, 4), (0, 4), (2, 0, 4), (2, 0), (1, 1, 1)], ids=str
)
def test_any_shape(shape, device):
    x = torch.randn(shape, device=device)
    weight = torch.randn(6, shape[-1], device=device)
    bias = torch.randn(6, device=device)
    residual = torch.randn(*shape[:-1], 6, device=device)
    out = layer(x, weight, bias, activation="gelu", residual=residual)
    assert out.shape == residual.shape
    assert out.is_contiguous()
    assert_right(out, x, weight, bias, residual, "gelu")
    nothing = layer(x, weight[:0])
    assert nothing.shape == (*shape[:-1], 0)


def test_any_strides(device):
    x, weight, bias, residual = operands(6, 8, 20, device=device)
    for view in (dict(testing.layouts(x)) | dict(testing.expanded(x))).values():
        out = layer(view, weight, bias, activation="silu", residual=residual)
        assert_right(out, view, weight, bias, residual, "silu")
    for view in (
        dict(testing.layouts(weight)) | dict(testing.expanded(weight))
    ).values():
        assert_right(layer(x, view, bias), x, view, bias, None, "")
    same = bias[:1].expand(8)
    spread = residual[:1].expand(6, 8)
    assert_right(layer(x, weight, same, residual=spread), x, weight, same, spread, "")
    deep = torch.randn(3, 20, 2, device=device).mT
    assert_right(layer(deep, weight, bias), deep, weight, bias, None, "")


def test_nan_and_infinities(device):
    x, weight, bias, _ = operands(5, 8, 20, device=device)
    x[0, 3], x[1, 19], weight[7, 2] = float("nan"), float("inf"), -float("inf")
    for activation in ("", "relu"):
        out = layer(x, weight, bias, activation=activation)
        assert_right(out, x, weight, bias, None, activation)


def test_gelu_far_below_zero(device):
    """Where 1 + erf cancels: relative to a result that is nearly nothing."""
    x = torch.linspace(-9, 9, 4001, device=device)[:, None]
    out = layer(x, torch.ones(1, 1, device=device), activation="gelu").double()
    wide = x.double()
    expected = 0.5 * wide * torch.special.erfc(-wide * 0.5**0.5)
    assert ((out - expected).abs() <= 1e-5 * expected.abs()).all()
    extremes = torch.tensor([[-torch.inf], [torch.inf], [torch.nan], [-1e4]])
    got = layer(extremes.to(device), torch.ones(1, 1, device=device), activation="gelu")
    # PyTorch's own has NaN for infinity on some processors and infinity on others.
    expected = torch.tensor([[torch.nan], [torch.inf], [torch.nan], [-0.0]])
    torch.testing.assert_close(got.cpu(), expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("power", [-4, 4])
def test_magnitudes(power, device):
    x, weight, bias, _ = operands(5, 8, 40, device=device)
    x *= 10.0**power
    for activation in ("", "silu", "gelu_tanh"):
        out = layer(x, weight, bias, activation=activation)
        assert_right(out, x, weight, bias, None, activation)


def test_a_half_of_the_gates(device):
    """Pairs are neighbours: column 2j is the gate of column 2j + 1."""
    x, weight, *_ = operands(3, 4, 5, device=device)
    z = x.double() @ weight.double().t()
    out = layer(x, weight, activation="silu_and_mul")
    scale, length = accuracy.bound(Task(x, weight.t(), out, activation="silu_and_mul"))
    testing.assert_close(
        out[:, 1],
        F.silu(z[:, 2]) * z[:, 3],
        length=length,
        factor=length,
        scale=scale[:, 1],
    )


class TestGradient:
    @each_activation
    def test_against_differences(self, activation, device):
        given = operands(2, 4, 3, activation, torch.float64, device, grad=True)

        def call(x, weight, bias, residual):
            return layer(x, weight, bias, activation=activation, residual=residual)

        assert torch.autograd.gradcheck(call, given)
        assert torch.autograd.gradgradcheck(call, given)
        assert torch.autograd.gradcheck(
            lambda x, weight: layer(x[None], weight, activation=activation), given[:2]
        )

    @each_activation
    @pytest.mark.parametrize("dtype", [torch.float32, *NARROW], ids=str)
    def test_against_float64(self, activation, dtype, device):
        given = operands(7, 10, 33, activation, dtype, device, grad=True)
        out = layer(*given[:3], activation=activation, residual=given[3])
        weights = torch.randn_like(out)
        found = torch.autograd.grad(out, given, weights)
        wide = [x.detach().double().requires_grad_() for x in given]
        theirs = reference(*wide, activation)
        expected = torch.autograd.grad(theirs, wide, weights.double())
        # What arrives at the sums is rounded to the operands' type before it is
        # multiplied: an error of that type's unit roundoff in each term.
        for mine, other, own in zip(found, expected, given, strict=True):
            assert mine.dtype == own.dtype
            size = other.abs().max() + 1
            testing.assert_close(
                mine, other, length=40, accumulate=dtype, scale=size, factor=4
            )

    def test_only_what_is_wanted(self, device):
        x, weight, bias, residual = operands(3, 4, 5, device=device)
        weight.requires_grad_()
        layer(x, weight, bias, activation="relu", residual=residual).sum().backward()
        assert weight.grad is not None
        assert x.grad is None
        bias.requires_grad_()
        layer(x, weight.detach(), bias).sum().backward()
        torch.testing.assert_close(bias.grad, torch.full_like(bias, 3.0))


class TestOperator:
    @pytest.mark.slow
    @each_activation
    def test_registration(self, activation, device):
        given = operands(3, 4, 5, activation, device=device, grad=True)
        testing.opcheck(linear_operator, *given, activation, "ieee", False)

    def test_registration_without_what_may_be_left_out(self, device):
        x, weight, *_ = operands(3, 4, 5, dtype=torch.bfloat16, device=device)
        testing.opcheck(linear_operator, x, weight, None, None, "", "ieee", True)

    def test_torch_compile(self, device):
        def ours(x, weight, bias):
            gate = layer(x, weight, bias, activation="silu")
            return layer(gate, weight, residual=x * 2)

        def theirs(x, weight, bias):
            return F.linear(F.silu(F.linear(x, weight, bias)), weight) + x * 2

        given = operands(3, 5, 5, device=device, grad=True)[:3]
        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        mine, other = compiled(*given), theirs(*given)
        torch.testing.assert_close(mine, other)
        for left, right in zip(
            torch.autograd.grad(mine.square().sum(), given),
            torch.autograd.grad(other.square().sum(), given),
            strict=True,
        ):
            torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)

    def test_fake_tensors(self, device):
        x, weight, bias, _ = operands(3, 4, 5, dtype=torch.bfloat16, device=device)
        with torch._subclasses.FakeTensorMode() as mode:
            made = [mode.from_tensor(t) for t in (x, weight, bias)]
            out = layer(*made, activation="silu_and_mul")
        assert (out.shape, out.dtype) == ((3, 2), torch.bfloat16)

    def test_the_same_bits_each_time(self, device):
        given = operands(17, 34, 70, device=device)
        testing.deterministic(
            lambda: layer(*given[:3], residual=given[3]), here.sizes(20, 2)
        )


class TestRefusals:
    def test_what_is_given(self, device):
        x, weight, bias, residual = operands(3, 4, 5, device=device)
        with pytest.raises(TypeError, match=r"x must be .* got int64"):
            layer(x.long(), weight)
        with pytest.raises(TypeError, match=r"weight must be a torch.Tensor, got None"):
            layer(x, None)
        with pytest.raises(TypeError, match="weight must have the dtype of x, float32"):
            layer(x, weight.half())
        with pytest.raises(TypeError, match="bias must have the dtype of x"):
            layer(x, weight, bias.half())
        with pytest.raises(ValueError, match=r"weight must have shape \(\*, 5\)"):
            layer(x, weight.t())
        with pytest.raises(
            ValueError, match=r"bias must have shape \(4,\), got \(3,\)"
        ):
            layer(x, weight, bias[:3])
        with pytest.raises(ValueError, match=r"residual must have shape \(3, 4\)"):
            layer(x, weight, residual=residual[0])
        with pytest.raises(ValueError, match="activation must be '', 'relu'"):
            layer(x, weight, activation="tanh")
        with pytest.raises(ValueError, match=r"even number of rows .* got 3"):
            layer(x, weight[:3], activation="silu_and_mul")
        with pytest.raises(ValueError, match="x must have at least 1 dimension, got 0"):
            layer(x[0, 0], weight)


class TestChoice:
    def choice(self, m, n, k):
        a = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
        b = torch.empty((k, n), dtype=torch.bfloat16, device="meta")
        out = torch.empty((m, n), dtype=torch.bfloat16, device="meta")
        return choose.choose(Task(a, b, out))

    def test_by_sizes(self):
        assert self.choice(1, 4096, 4096) is vectors
        assert self.choice(4096, 2, 64) is vectors
        assert self.choice(16, 4096, 16384) is split
        assert self.choice(64, 64, 0) is split
        assert self.choice(4096, 4096, 4096) in (ordered, described)
        assert self.choice(16, 4096, 64) in (ordered, described)

    def test_descriptors_where_there_are_any(self, monkeypatch):
        monkeypatch.setattr(choose.device, "has", lambda feature: feature == "tma")
        assert self.choice(4096, 4096, 4096) is described
        assert self.choice(4096, 4096, 4095) is ordered

    def test_each_of_them_multiplies(self, device):
        for m, n, k in ((2, 40, 70), (16, 30, 2048), (20, 30, 0), (20, 30, 40)):
            a, b = torch.randn(m, k, device=device), torch.randn(k, n, device=device)
            task = Task(a, b, torch.empty(m, n, device=device))
            with testing.guarded():
                choose.product(task)
            torch.testing.assert_close(task.out, a @ b, atol=1e-3, rtol=1e-3)


MISTAKES = [
    ("F.silu(z[:, 0::2]) * z[:, 1::2]", "F.silu(z[:, 1::2]) * z[:, 0::2]"),
    ("aten.threshold_backward(grad, z, 0)", "grad.clone()"),
    ("_silu_gradient(grad * up, gate)", "_silu_gradient(grad, gate)"),
    ("grad * F.silu(gate))", "grad * gate)"),
    ("matmul_operator(narrow, weight, ctx", "matmul_operator(grad, weight, ctx"),
    ("matmul_operator(narrow.mT, x, ctx", "matmul_operator(grad.mT, x, ctx"),
    ("dz.sum(0, dtype=sums)", "grad.sum(0, dtype=sums)"),
    ('linear_operator(x, weight, bias, None, "",',
     'linear_operator(x, weight, None, None, "",'),
    ("task._replace(residual=residual)", "task"),
    ("precision, bias=bias, activation=activation)", "precision, bias=bias)"),
]  # fmt: skip


def suite(device):
    """What the tests above look at, on a few small cases."""
    for activation in ("relu", "silu", "silu_and_mul"):
        given = operands(6, 8, 8, activation, torch.float32, device, grad=True)
        out = layer(*given[:3], activation=activation, residual=given[3])
        z = F.linear(*given[:3])
        if activation == "silu_and_mul":
            theirs = z[:, 0::2].sigmoid() * z[:, 0::2] * z[:, 1::2] + given[3]
        else:
            theirs = getattr(F, activation)(z) + given[3]
        torch.testing.assert_close(out, theirs, atol=1e-4, rtol=1e-4)
        weights = torch.randn_like(out)
        for mine, other in zip(
            torch.autograd.grad(out, given, weights),
            torch.autograd.grad(theirs, given, weights),
            strict=True,
        ):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    wide = operands(2, 4, 3, "silu_and_mul", torch.float64, device)
    out = layer(*wide[:3], activation="silu_and_mul")
    z = F.linear(*wide[:3])
    torch.testing.assert_close(out, z[:, 0::2].sigmoid() * z[:, 0::2] * z[:, 1::2])


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    assert testing.caught(layers, old, new, suite, device)


def test_without_a_mistake_the_same_tests_pass(device):
    suite(device)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@each_activation
def test_sizes_of_the_experiments(activation, dtype, device):
    for m, n, k in ((512, 2048, 1024), (1, 4096, 4096), (16, 512, 8192), (100, 66, 77)):
        given = operands(m, n, k, activation, dtype, device, grad=True)
        given[1].data *= k**-0.5
        out = testing.deterministic(
            lambda g=given: layer(*g[:3], activation=activation, residual=g[3])
        )
        assert_right(out.detach(), *[x.detach() for x in given], activation)
        out.sum().backward()
