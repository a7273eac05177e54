"""The gradients of `softmax` and `log_softmax`: kernels, operators, twice and more."""

import pytest
import torch

from tilebook import softmax as chapter
from tilebook import testing
from tilebook.softmax import (
    accuracy,
    backward,
    backward_columns,
    backward_long,
    columns,
    derivative,
    log_softmax,
    operands,
    public,
    softmax,
)
from tilebook.softmax.derivative import gradient_operator
from tilebook.softmax.operands import Task
from tilebook.softmax.public import masked_operator, softmax_operator

# Each kernel along rows, in a way in which small matrices have several chunks, rows to
# a program and rows to a tile.
WAYS = {
    "tile": (backward, lambda n, size: backward.config_for(n, size, stages=0)),
    "chunks": (backward, lambda n, size: backward.Config(1, 32, 1, 0, 0)),
    "walk": (
        backward,
        lambda n, size: backward.config_for(n, size, stages=2)._replace(per_sm=1),
    ),
    "long": (backward_long, lambda n, size: backward_long.Config(32, 1)),
}
each_way = pytest.mark.parametrize("way", WAYS)
BOTH = pytest.mark.parametrize("log", [False, True], ids=["softmax", "log"])


def result(shape, log, dtype, device, dim=-1):
    x = torch.randn(shape, dtype=torch.float64, device=device)
    return (torch.log_softmax if log else torch.softmax)(x, dim).to(dtype)


def formula(y, grad, dim, log, temperature):
    if log:
        return (grad - y.exp() * grad.sum(dim, keepdim=True)) / temperature
    return y * (grad - (y * grad).sum(dim, keepdim=True)) / temperature


def assert_right(dx, y, grad, dim=-1, *, log=False, temperature=1.0, dtype=None):
    expected = testing.reference(formula, y, grad, dim, log, temperature)
    scale, length = accuracy.backward(y, grad, dim, log=log, temperature=temperature)
    assert dx.dtype == (dtype or y.dtype)
    testing.assert_close(dx, expected, length=length, factor=length, scale=scale)


def run(way, y, grad, task=operands.PLAIN, dtype=None):
    kernels, config = WAYS[way]
    with testing.guarded():
        dx = torch.empty(y.shape, dtype=dtype or y.dtype, device=y.device)
        kernels.launch_as(config(y.shape[1], y.itemsize), y, grad, dx, task)
    return dx


def test_a_walk_that_leaves_out_part_of_a_row_is_refused(device):
    y = torch.ones(3, 33, device=device)
    with pytest.raises(ValueError, match="config must cover 33 elements of a row"):
        backward.launch_as(backward.Config(1, 32, 1, 2, 1), y, y, y)


@each_way
@BOTH
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 1), marks=pytest.mark.sanitize),
        pytest.param((3, 33), marks=pytest.mark.sanitize),
        *((3, 64), (5, 7), (2, 127), (1, 300)),
    ],
    ids=str,
)
def test_any_shape(way, log, shape, device):
    y = testing.guard(result(shape, log, torch.float32, device))
    grad = testing.guard(torch.randn(shape, device=device))
    dx = run(way, y.tensor, grad.tensor, Task(0.5, log))
    y.check()
    grad.check()
    assert_right(dx, y.tensor, grad.tensor, log=log, temperature=2.0)


@each_way
def test_dtypes_and_strides(way, device):
    for dtype in (torch.bfloat16, torch.float64):
        for n in (40, 43):
            y = result((3, n), False, dtype, device)
            wide = torch.randn(3, 72, dtype=dtype, device=device)
            for grad in (wide[:, :n], wide[:, 16 : 16 + n], wide[:, 1 : n + 1]):
                assert_right(run(way, y, grad), y, grad)
            single = torch.randn(1, n, dtype=dtype, device=device).expand(3, n)
            assert_right(run(way, y, single), y, single)


@each_way
def test_to_a_narrower_operand(way, device):
    """What was widened on its way in is narrowed on its way back."""
    y = result((2, 40), False, torch.float32, device)
    grad = torch.randn(2, 40, device=device)
    dx = run(way, y, grad, dtype=torch.bfloat16)
    assert_right(dx, y, grad, dtype=torch.bfloat16)


@pytest.mark.parametrize("config", [None, columns.Config(16, 4, 1)], ids=str)
@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 5, 3), (2, 40, 6)], ids=str)
def test_columns(config, log, shape, device):
    y = result(shape, log, torch.float32, device, 1)
    grad = torch.randn(shape, device=device)
    config = config or backward_columns.config_for(*shape[1:], 4)
    with testing.guarded():
        dx = torch.empty_like(y)
        backward_columns.launch_as(config, y, grad, dx, Task(1.0, log))
    assert_right(dx, y, grad, 1, log=log)


def test_more_columns_than_a_launch_takes(device, monkeypatch):
    monkeypatch.setattr(columns, "MOST_PROGRAMS", 3)
    y, grad = result((5, 4, 20), False, torch.float32, device, 1), None
    grad = torch.randn_like(y)
    dx = torch.empty_like(y)
    backward_columns.launch_as(columns.Config(4, 16, 1), y, grad, dx)
    assert_right(dx, y, grad, 1)


class TestAutograd:
    @BOTH
    @pytest.mark.parametrize("shape", [(3, 5), (2, 1, 4), (), (0, 3)], ids=str)
    def test_pytorchs_gradient(self, log, shape, device):
        ours, theirs = (
            (log_softmax, torch.log_softmax) if log else (softmax, torch.softmax)
        )
        for dim in range(max(len(shape), 1)):
            x = torch.randn(shape, device=device, requires_grad=True)
            weights = torch.randn(shape, device=device)
            (mine,) = torch.autograd.grad((ours(x, dim) * weights).sum(), x)
            (other,) = torch.autograd.grad((theirs(x, dim) * weights).sum(), x)
            torch.testing.assert_close(mine, other)

    @BOTH
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_against_differences(self, log, temperature, device):
        x = torch.randn(2, 2, dtype=torch.float64, device=device, requires_grad=True)
        fn = log_softmax if log else softmax
        for dim in (0, 1):

            def call(x, dim=dim):
                return fn(x, dim, temperature=temperature)

            assert torch.autograd.gradcheck(call, (x,))
            assert torch.autograd.gradgradcheck(call, (x,))

    @BOTH
    def test_masked_against_differences(self, log, device):
        x = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
        mask = torch.rand(2, 3, device=device) > 0.3
        mask[:, 0] = True

        def call(x):
            y = (log_softmax if log else softmax)(x, mask=mask, causal=True)
            return y.masked_fill(~mask.tril(), 0)

        assert torch.autograd.gradcheck(call, (x,))
        if not log:
            assert torch.autograd.gradgradcheck(call, (x,))

    def test_what_is_left_out_gets_no_gradient(self, device):
        x = torch.randn(3, 4, device=device, requires_grad=True)
        mask = torch.ones(3, 4, dtype=torch.bool, device=device)
        mask[1], mask[2, 0] = False, False
        softmax(x, mask=mask).nan_to_num().square().sum().backward()
        assert not x.grad[~mask].any()
        assert x.grad[mask].any()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_narrow_dtypes(self, dtype, device):
        """Within what rounding the result once allows, besides the kernel's own."""
        x = torch.randn(2, 50, device=device).to(dtype).requires_grad_()
        weights = torch.randn(2, 50, device=device).to(dtype)
        softmax(x).backward(weights)
        y = x.detach().double().softmax(1)
        expected = formula(y, weights.double(), 1, False, 1.0)
        size = y * (
            weights.double().abs() + (y * weights.double().abs()).sum(1, keepdim=True)
        )
        testing.assert_close(
            x.grad, expected, length=4, accumulate=dtype, scale=size, factor=4
        )

    def test_a_widened_operand(self, device):
        x = torch.randn(2, 9, device=device).bfloat16().requires_grad_()
        softmax(x, dtype=torch.float32)[:, 0].sum().backward()
        assert x.grad.dtype == torch.bfloat16
        other = x.detach().clone().requires_grad_()
        torch.softmax(other, 1, dtype=torch.float32)[:, 0].sum().backward()
        torch.testing.assert_close(x.grad, other.grad)

    def test_an_expanded_gradient(self, device):
        x = torch.randn(4, 6, device=device, requires_grad=True)
        log_softmax(x).sum().backward()
        other = x.detach().clone().requires_grad_()
        torch.log_softmax(other, 1).sum().backward()
        torch.testing.assert_close(x.grad, other.grad)


class TestOperators:
    @pytest.mark.slow
    @pytest.mark.parametrize("dim", [0, 1])
    @BOTH
    def test_registration(self, dim, log, device):
        x = torch.randn(3, 8, device=device, requires_grad=True)
        testing.opcheck(softmax_operator, x, dim, 0.5, log, torch.float32)
        y = result((3, 8), log, torch.float32, device, dim).requires_grad_()
        testing.opcheck(gradient_operator, x, y, dim, 0.5, log, torch.float32)

    @pytest.mark.slow
    def test_registration_of_masks(self, device):
        x = torch.randn(2, 3, 8, device=device, requires_grad=True)
        mask = torch.rand(3, 8, device=device) > 0.3
        rest = (0.5, False, torch.float32)
        testing.opcheck(masked_operator, x, mask.expand(2, 3, 8), False, *rest)
        testing.opcheck(masked_operator, x, None, True, *rest)

    def test_registration_of_strides(self, device):
        x = torch.randn(4, 6, device=device)
        for view in (x.t(), x[:, ::2], x[::2]):
            testing.opcheck(softmax_operator, view, 1, 1.0, False, torch.float32)

    def test_torch_compile(self, device):
        mask = torch.rand(3, 6, device=device) > 0.3

        def mixed(x):
            rows = softmax(x * 2, temperature=3.0)
            return rows + log_softmax(x, 0) + softmax(x, mask=mask)

        def eager(x):
            rows = torch.softmax(x * 2 / 3, -1) + torch.log_softmax(x, 0)
            return rows + torch.softmax(x.masked_fill(~mask, -torch.inf), -1)

        mask[:, 0] = True
        compiled = torch.compile(mixed, fullgraph=True, backend="aot_eager")
        x = torch.randn(3, 6, device=device, requires_grad=True)
        y = torch.randn(3, 6, device=device).requires_grad_()
        y.data.copy_(x.data)
        out, theirs = compiled(x), eager(y)
        torch.testing.assert_close(out, theirs)
        out.square().sum().backward()
        theirs.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)

    @pytest.mark.gpu
    @pytest.mark.parametrize("n", [300, 4096, 50257, 65536])
    def test_inductor(self, n, device):
        compiled = torch.compile(lambda x: softmax(x) * 2, fullgraph=True)
        x = torch.randn(40, n, device=device, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        torch.testing.assert_close(compiled(x), torch.softmax(y, 1) * 2)
        weights = torch.randn_like(y)
        (compiled(x) * weights).sum().backward()
        (torch.softmax(y, 1) * 2 * weights).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)

    def test_fake_tensors(self, device):
        x = torch.randn(2, 4, 9, device=device)
        with torch._subclasses.FakeTensorMode() as mode:
            fake = mode.from_tensor(x).transpose(1, 2)
            out = softmax(fake, 1, dtype=torch.float64)
        assert (out.shape, out.dtype) == ((2, 9, 4), torch.float64)
        assert out.is_contiguous()

    def test_forward_mode_is_refused(self, device):
        x = torch.randn(3, device=device)
        with (
            torch.autograd.forward_ad.dual_level(),
            pytest.raises(NotImplementedError, match="no forward-mode derivative"),
        ):
            softmax(torch.autograd.forward_ad.make_dual(x, x))

    def test_a_mode_sees_the_operator(self, device):
        seen = []

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(str(func))
                return func(*args, **(kwargs or {}))

        with Watch():
            softmax(torch.randn(3, device=device))
        assert "tilebook.softmax.default" in seen


MISTAKES = [
    (backward, "return y * (grad - s) * inverse_t", "return y * (grad - s)"),
    (backward, "(grad - power(y, 1.0) * s) * inverse_t", "(grad - y * s) * inverse_t"),
    (backward, "        return y * grad\n", "        return grad\n"),
    (backward, "grad_ptr + rows * stride + offs", "grad_ptr + rows * n + offs"),
    (backward, "axis=1)[:, None]  # (ROWS, 1)", "axis=0)[None, :]"),
    (backward, "sums += contribution", "sums = contribution"),
    (backward, "if CHUNKS > 1:", "if CHUNKS > 3:"),
    (backward, "grad_ptr + row * stride + offs", "grad_ptr + row * n + offs"),
    (backward_long, "at = last - i", "at = i + BLOCK"),
    (backward_long, "sums += contribution", "sums = contribution"),
    (backward_long, "s += tl.sum(contribution", "s = tl.sum(contribution"),
    (backward_columns, "i = last - j", "i = last - j // 2"),
    (public, "dx = dx.masked_fill(~mask, 0)", "dx = dx.masked_fill(mask, 0)"),
    (public, "        dx = dx.tril()\n", "        dx = dx.triu()\n"),
    (public, "grad, y, ctx.dim, ctx.inverse_t, ctx.log",
     "grad, y, ctx.dim, 1.0, ctx.log"),
]  # fmt: skip


def suite(module, device):
    """What the tests above look at, on a few small cases for one module."""
    for way, (kernels, _) in WAYS.items():
        if kernels is module or (module is backward and way != "long"):
            for log in (False, True):
                y = result((3, 75), log, torch.float32, device)
                grad = torch.randn(3, 83, device=device)[:, :75]
                dx = run(way, y, grad, Task(0.5, log))
                assert_right(dx, y, grad, log=log, temperature=2.0)
    if module is backward_columns:
        y = result((1, 40, 6), False, torch.float32, device, 1)
        grad = torch.randn_like(y)
        with testing.guarded():
            dx = torch.empty_like(y)
            backward_columns.launch_as(columns.Config(16, 4, 1), y, grad, dx)
        assert_right(dx, y, grad, 1)
    if module is public:
        x = torch.randn(4, 4, device=device, requires_grad=True)
        mask = torch.eye(4, device=device).flip(0) == 0
        y = softmax(x, mask=mask, causal=True, temperature=2.0).nan_to_num()
        kept = x.masked_fill(~mask.tril(), -torch.inf)
        theirs = torch.softmax(kept / 2, -1).nan_to_num()
        weights = torch.randn(4, 4, device=device)
        y, theirs = y + softmax(x, 0, temperature=3.0), theirs + (x / 3).softmax(0)
        (mine,) = torch.autograd.grad((y * weights).sum(), x)
        (other,) = torch.autograd.grad((theirs * weights).sum(), x)
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(module, old, new, device):
    assert testing.caught(module, old, new, suite, module, device)


@pytest.mark.parametrize("module", [backward, backward_long, backward_columns, public])
def test_without_a_mistake_the_same_tests_pass(module, device):
    suite(module, device)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", operands.DTYPES, ids=str)
@pytest.mark.parametrize(
    ("m", "n"),
    [
        *((4096, 256), (4096, 1000), (2048, 2049), (1024, 4096), (1024, 4097)),
        *((512, 8192), (256, 16384), (256, 50257), (192, 131072), (16, 2**20)),
    ],
)
def test_lengths_of_the_experiments(dtype, m, n, device):
    for log in (False, True):
        y = result((m, n), log, dtype, device)
        grad = torch.randn(m, n, dtype=dtype, device=device)
        task = Task(0.5, log)
        with testing.guarded():
            dx = testing.deterministic(
                lambda y=y, g=grad, t=task: derivative.gradient(t, g, y, 1, dtype)
            )
        assert_right(dx, y, grad, log=log, temperature=2.0)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("shape", [(2**21, 1025), (3, 2**30), (2**19, 4104)], ids=str)
def test_more_than_2_to_the_31_elements(shape, device):
    y = torch.rand(shape, dtype=torch.bfloat16, device=device)
    y /= shape[1]
    grad = torch.randn(shape, dtype=torch.bfloat16, device=device)
    dx = derivative.gradient(operands.PLAIN, grad, y, 1, y.dtype)
    for at in (0, shape[0] // 2, shape[0] - 1):
        assert_right(dx[at][None], y[at][None], grad[at][None])


def test_the_package_names_its_gradients():
    assert {"backward", "backward_long", "backward_columns"} <= set(chapter.__all__)
