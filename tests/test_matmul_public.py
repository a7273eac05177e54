"""`matmul` as it is used: vectors, matrices, batches, gradients, the operator."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tilebook import device as here
from tilebook import testing
from tilebook.matmul import operands, public
from tilebook.matmul.operands import DTYPES
from tilebook.matmul.public import matmul, matmul_operator

SHAPES = [
    *(((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4))),
    *(((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((5, 2, 3), (3, 4))),
    *(((2, 3), (5, 3, 4)), ((2, 1, 2, 3), (5, 3, 4)), ((1,), (1,))),
]
EMPTY = [
    *(((0,), (0,)), ((0, 3), (3, 2)), ((2, 0), (0, 2)), ((0, 2, 3), (3, 4))),
    *(((2, 2, 0), (0, 4)), ((3, 0), (2, 0, 4)), ((0,), (0, 4)), ((2, 3), (3, 0))),
]


def operand(shape, dtype=torch.float32, device="cpu"):
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=dtype, device=device)
    return torch.randn(shape, device=device).to(dtype)


def assert_right(out, a, b, dtype=None, operand=None):
    k = a.shape[-1] + 3
    expected = torch.matmul(a.double(), b.double())
    size = torch.matmul(a.double().abs(), b.double().abs())
    assert out.shape == expected.shape
    assert out.is_contiguous()
    testing.assert_close(
        out,
        expected,
        dtype=dtype or operands.result_dtype(a.dtype),
        length=k,
        factor=k,
        scale=size.nan_to_num(posinf=0),
        operand=operand,
    )


@pytest.mark.parametrize(("left", "right"), SHAPES + EMPTY, ids=str)
def test_shapes_are_pytorchs(left, right, device):
    a, b = operand(left, device=device), operand(right, device=device)
    with testing.guarded():
        out = matmul(a, b)
    assert_right(out, a, b)


@settings(max_examples=20)
@given(
    batch=st.lists(st.integers(1, 2), max_size=2),
    m=st.integers(1, 20),
    n=st.integers(1, 20),
    k=st.integers(1, 40),
    mask=st.integers(0, 3),
    turn=st.booleans(),
    step=st.integers(1, 2),
)
def test_views_of_any_kind(batch, m, n, k, mask, turn, step):
    device = here.torch_device()
    left = [1 if mask >> i & 1 else size for i, size in enumerate(batch)]
    a = torch.randn(*left, m * step, k * step, device=device)[..., ::step, ::step]
    b = torch.randn(*batch, n, k, device=device).mT
    if turn:
        a, b = b.mT, a.mT
    assert_right(matmul(a, b), a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, device):
    for left, right in (((5, 70), (70, 9)), ((2, 5, 70), (2, 70, 9))):
        a, b = operand(left, dtype, device), operand(right, dtype, device)
        assert_right(matmul(a, b), a, b)
        for out_dtype in public.RESULTS[dtype]:
            out = matmul(a, b, out_dtype=out_dtype)
            assert_right(out, a, b, out_dtype)
        if dtype == torch.int8:
            # GPUs have no product of int32; float64's is exact.
            exact = a.double() @ b.double()
            assert torch.equal(matmul(a, b), exact.to(torch.int32))


def test_float64_is_pytorchs(device):
    a, b = (
        torch.randn(s, dtype=torch.float64, device=device) for s in ((3, 4), (4, 5))
    )
    torch.testing.assert_close(matmul(a, b), a @ b)


def test_any_strides(device):
    a, b = operand((10, 20), device=device), operand((20, 9), device=device)
    for x in (dict(testing.layouts(a)) | dict(testing.expanded(a))).values():
        assert_right(matmul(x, b), x, b)
    for x in (dict(testing.layouts(b)) | dict(testing.expanded(b))).values():
        assert_right(matmul(a, x), a, x)
    z = torch.randn(5, 20, dtype=torch.complex64, device=device).conj().imag
    assert z.is_neg()
    assert_right(matmul(z, b), z.resolve_neg(), b)


def test_nan_infinities_and_magnitudes(device):
    a, b = operand((6, 40), device=device), operand((40, 10), device=device)
    for power in (-4, 4):
        assert_right(matmul(a * 10.0**power, b), a * 10.0**power, b)
    a[0, 1], b[3, 2], b[4, 4] = float("nan"), float("inf"), -float("inf")
    assert_right(matmul(a, b), a, b)
    assert_right(matmul(a[1], b), a[1], b)


def test_precision_is_what_pytorch_is_set_to(device):
    a, b = operand((20, 70), device=device), operand((70, 20), device=device)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert operands.default_precision() == "tf32"
        assert_right(matmul(a, b), a, b, operand="tf32")
        assert_right(matmul(a, b, precision="ieee"), a, b)
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_same_bits_each_time(device):
    a, b = operand((20, 70), device=device), operand((70, 20), device=device)
    testing.deterministic(lambda: matmul(a, b), here.sizes(20, 2))


class TestGradient:
    @pytest.mark.parametrize(("left", "right"), SHAPES + EMPTY[1:4], ids=str)
    def test_against_differences(self, left, right, device):
        made = [
            torch.randn(s, dtype=torch.float64, device=device, requires_grad=True)
            for s in (left, right)
        ]
        assert torch.autograd.gradcheck(matmul, made)
        assert torch.autograd.gradgradcheck(matmul, made)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize(
        ("left", "right"),
        [((6, 33), (33, 10)), ((3, 6, 33), (33, 10)), ((6, 33), (3, 33, 10))],
        ids=str,
    )
    def test_against_float64(self, left, right, dtype, device):
        a, b = (operand(s, dtype, device).requires_grad_() for s in (left, right))
        out = matmul(a, b, out_dtype=torch.float32)
        weights = torch.randn_like(out).to(dtype)
        found = torch.autograd.grad(out, (a, b), weights.float())
        wide = [x.detach().double().requires_grad_() for x in (a, b)]
        theirs = torch.autograd.grad(torch.matmul(*wide), wide, weights.double())
        sizes = [x.detach().double().abs().requires_grad_() for x in (a, b)]
        scales = torch.autograd.grad(
            torch.matmul(*sizes), sizes, weights.double().abs()
        )
        for mine, other, scale, own in zip(found, theirs, scales, (a, b), strict=True):
            # Rounded once, to the operand's type, after all sums in float32.
            testing.assert_close(
                mine, other, dtype=own.dtype, length=60, factor=60, scale=scale
            )

    def test_only_what_is_wanted(self, device):
        a, b = operand((3, 4), device=device), operand((4, 5), device=device)
        a.requires_grad_()
        matmul(a, b).sum().backward()
        torch.testing.assert_close(a.grad, b.sum(1).expand(3, 4))
        assert b.grad is None


class TestOperator:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("left", "right"), [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))], ids=str
    )
    def test_registration(self, left, right, device):
        a = operand(left, device=device).requires_grad_()
        b = operand(right, device=device).requires_grad_()
        testing.opcheck(matmul_operator, a, b, "ieee", torch.float32)

    def test_registration_of_strides_and_types(self, device):
        a, b = operand((4, 3), device=device).t(), operand((4, 6), device=device)
        testing.opcheck(matmul_operator, a, b[:, ::2], "ieee", torch.float32)
        a, b = operand((3, 4), torch.int8, device), operand((4, 5), torch.int8, device)
        testing.opcheck(matmul_operator, a, b, "ieee", torch.int32)

    def test_torch_compile(self, device):
        def ours(a, b):
            return matmul(matmul(a, b) * 2, b.mT) + matmul(a[0], b)[0, 0]

        def theirs(a, b):
            return (a @ b * 2) @ b.mT + (a[0] @ b)[0, 0]

        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        made = [operand(s, device=device).requires_grad_() for s in ((3, 4), (2, 4, 5))]
        mine, other = compiled(*made), theirs(*made)
        torch.testing.assert_close(mine, other)
        for left, right in zip(
            torch.autograd.grad(mine.square().sum(), made),
            torch.autograd.grad(other.square().sum(), made),
            strict=True,
        ):
            torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-4)

    def test_fake_tensors(self, device):
        shapes = (2, 1, 3, 4), (5, 4, 6)
        real = [operand(shape, torch.bfloat16, device) for shape in shapes]
        with torch._subclasses.FakeTensorMode() as mode:
            made = [mode.from_tensor(x) for x in real]
            out = matmul(*made, out_dtype=torch.float32)
        assert (out.shape, out.dtype) == ((2, 5, 3, 6), torch.float32)

    def test_forward_mode_is_refused(self, device):
        a = torch.randn(3, 3, device=device)
        with (
            torch.autograd.forward_ad.dual_level(),
            pytest.raises(NotImplementedError, match="no forward-mode derivative"),
        ):
            matmul(torch.autograd.forward_ad.make_dual(a, a), a)


class TestRefusals:
    def test_operands(self, device):
        a = torch.ones(3, 4, device=device)
        with pytest.raises(TypeError, match=r"a must be a torch.Tensor, got list"):
            matmul([1.0], a)
        with pytest.raises(TypeError, match=r"b must be .* got int64"):
            matmul(a, a.t().long())
        with pytest.raises(TypeError, match="b must have the dtype of a, float32"):
            matmul(a, a.t().half())
        with pytest.raises(ValueError, match="a must have at least 1 dimension, got 0"):
            matmul(a[0, 0], a)
        with pytest.raises(ValueError, match="columns as b has rows, got 4 and 3"):
            matmul(a, a)
        with pytest.raises(ValueError, match=r"broadcast with those of a, \(2,\)"):
            matmul(a.expand(2, 3, 4), torch.ones(3, 4, 5, device=device))

    def test_how(self, device):
        a = torch.ones(3, 4, device=device)
        with pytest.raises(ValueError, match="precision must be 'tf32', 'tf32x3'"):
            matmul(a, a.t(), precision="half")
        with pytest.raises(TypeError, match=r"out_dtype must be torch.float32 for"):
            matmul(a, a.t(), out_dtype=torch.bfloat16)
        with pytest.raises(TypeError, match=r"must be torch.int32 for .* torch.int8"):
            matmul(a.char(), a.t().char(), out_dtype=torch.float32)


MISTAKES = [
    ("_summed(grad, b.mT, ctx.precision,", "_summed(b.mT.mT, grad.mT, 'ieee',"),
    ("_summed(a.mT, grad, ctx.precision,", "_summed(-a.mT, grad, 'ieee',"),
    ("    wide = RESULTS[x.dtype][-1]\n", "    wide = x.dtype\n"),
    ("if right.ndim == 2 and left.ndim > 2:", "if left.ndim > 2:"),
    ("out.squeeze(-1 if b.ndim == 1 else -2)", "out.squeeze(-1)"),
    ("        left = a[None]\n", "        left = -a[None]\n"),
]  # fmt: skip


def suite(device):
    """What the tests above look at, on a few small cases."""
    for left, right in (
        ((6, 33), (40, 33, 10)),
        ((2, 3, 4), (2, 4, 1)),
        ((4,), (4, 3)),
    ):
        a = operand(left, torch.bfloat16, device).requires_grad_()
        b = operand(right, torch.bfloat16, device).requires_grad_()
        out = matmul(a, b)
        assert_right(out.detach(), a.detach(), b.detach())
        wide = [x.detach().double().requires_grad_() for x in (a, b)]
        theirs = torch.matmul(*wide)
        weights = torch.randn_like(out)
        found = torch.autograd.grad(out, (a, b), weights)
        expected = torch.autograd.grad(theirs, wide, weights.double())
        for mine, other in zip(found, expected, strict=True):
            size = other.abs().max() + 100
            testing.assert_close(mine, other, length=40, scale=size, factor=4)


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    assert testing.caught(public, old, new, suite, device)


def test_without_a_mistake_the_same_tests_pass(device):
    suite(device)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes_of_the_experiments(dtype, device):
    for left, right in (
        ((4096, 1024), (1024, 2048)),
        ((1, 4096), (4096, 4096)),
        ((16, 16384), (16384, 512)),
        ((8, 512, 65), (65, 100)),
        ((16, 500, 64), (16, 64, 500)),
    ):
        a, b = operand(left, dtype, device), operand(right, dtype, device)
        for right_way in (b, b.mT.contiguous().mT):
            out = testing.deterministic(
                lambda a=a, b=right_way: matmul(a, b, precision="ieee")
            )
            assert_right(out, a, right_way)


@pytest.mark.gpu
def test_inductor(device):
    compiled = torch.compile(lambda a, b: matmul(a * 2, b).relu(), fullgraph=True)
    a, b = operand((300, 129), device=device), operand((129, 65), device=device)
    torch.testing.assert_close(compiled(a, b), (a * 2 @ b).relu(), atol=1e-3, rtol=1e-3)
