"""Reductions over any dimension: values, types, strides, infinities, gradients."""

import functools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import testing
from tilebook.softmax import (
    axes,
    exponentials,
    extremes,
    gradients,
    moments,
    reductions,
    sums,
    walking,
)

pytestmark = pytest.mark.filterwarnings("ignore:var.*degrees of freedom")

INF, NAN = math.inf, math.nan
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# A mean is a sum until its last line, and has tests of its own.
OPS = ("sum", "var", "argmax", "logsumexp")
SHAPES = (
    *((7,), (0,), (3, 0), (0, 3), (1, 1), (5, 33), (33, 5), (1, 130)),
    *((130, 3), (2, 3, 65)),
)


def every(x, dim):
    return tuple(range(x.ndim)) if dim is None else dim


def first_largest(x, dim):
    """The index of the first NaN, else of the first of the largest elements."""
    flat = x.reshape(-1) if dim is None else x.movedim(dim, -1)
    wide = flat if not flat.is_floating_point() else flat.double()
    best = wide.isnan()
    best = torch.where(
        best.any(-1, keepdim=True), best, wide == wide.amax(-1, keepdim=True)
    )
    numbers = torch.arange(flat.shape[-1], device=x.device)
    return torch.where(best, numbers, flat.shape[-1]).amin(-1)


def expected(op, x, dim):
    """The result in float64, and the magnitude that its error is relative to."""
    if op == "argmax":
        return first_largest(x, dim), None
    x = x.double() if x.is_floating_point() else x.long()
    dims, n = every(x, dim), x.numel() if dim is None else x.shape[dim]
    if op == "sum":
        return x.sum(dims), x.abs().sum(dims)
    if op == "mean":
        return x.mean(dims), x.abs().mean(dims)
    if op == "logsumexp":
        want = torch.logsumexp(x, dims)
        return want, 1 + (x.amax(dims).abs() if n else want.abs()).nan_to_num(0, 0, 0)
    want = x.var(dims, correction=1)
    if n < 2:
        return want, None
    # The shift to the first element leaves a mean that Welford's bound grows with.
    first = x.reshape(-1)[0] if dim is None else x.select(dim, 0)
    spread = x.var(dims, correction=0)
    return want, want * (1 + (x.mean(dims) - first) ** 2 / spread).sqrt()


def terms_of(x, dim):
    return x.numel() if dim is None else x.shape[dim]


def assert_right(op, x, dim, **kwargs):
    with testing.guarded():
        out = getattr(reductions, op)(x, dim, **kwargs)
    want, scale = expected(op, x, dim)
    if kwargs.get("keepdim"):
        shape = axes.reduced_shape(x, axes.reduced_dim(x, dim), True)
        assert list(out.shape) == shape
        out = out.reshape(want.shape)
    if op == "argmax":
        assert torch.equal(out, want)
        return
    floating = x.is_floating_point()
    # A few roundings beside those of the terms: a division, a logarithm.
    length = terms_of(x, dim) + 4
    testing.assert_close(
        out,
        want,
        dtype=x.dtype if floating else torch.int64,
        length=length,
        scale=scale if floating else None,
    )


def holds(test, *args):
    try:
        test(*args)
    except (AssertionError, IndexError, RuntimeError, ValueError):
        return False
    return True


def dims_of(x):
    return (None, *range(x.ndim))


@pytest.fixture
def small(monkeypatch):
    """Tiles so small that short rows take several, and are split."""
    monkeypatch.setattr(axes, "MOST_WARPS", 1)
    monkeypatch.setattr(axes, "WARP_BYTES", 256)
    monkeypatch.setattr(axes, "MOST_BYTES", 256)
    monkeypatch.setattr(axes, "LEAST_STEPS", 1)
    monkeypatch.setattr(axes, "LINE_BYTES", 32)
    monkeypatch.setattr(axes, "LEAST_VECTORS", 1)
    monkeypatch.setattr(axes, "IN_FLIGHT_BYTES", 4096)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(s, marks=pytest.mark.sanitize) if s[-1] in (33, 65) else s
        for s in SHAPES
    ],
    ids=str,
)
def test_any_shape_along_any_dimension(op, shape, device):
    x = torch.randn(shape, device=device)
    for dim in dims_of(x):
        if op == "argmax" and not terms_of(x, dim):
            continue
        assert_right(op, x, dim)


# Rows, columns, both sides of a dimension in the middle, and everything.
WALKED = (((2, 150), 1), ((150, 3), 0), ((2, 70, 3), 1), ((300,), None))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("shape", "dim"), WALKED, ids=str)
def test_several_tiles_and_parts(op, shape, dim, small, device):
    assert_right(op, torch.randn(shape, device=device), dim)


def test_small_tiles_are_small(small):
    rows, columns = (
        axes.plan(axes.view(torch.empty(shape, device="meta"), dim))
        for shape, dim in WALKED[:2]
    )
    assert rows.parts == 2
    assert rows.args[3] == 2 * rows.meta["TERMS"] == 128
    assert rows.meta["EDGES"]
    assert columns.parts > 1
    assert not columns.meta["ALONG"]


@pytest.mark.parametrize("op", OPS)
def test_any_strides(op, device):
    x = torch.randn(6, 35, device=device)
    laid = [*testing.layouts(x), *testing.expanded(x)]
    laid += [("sliced rows", torch.randn(14, 60, device=device)[1::2, 8:50])]
    for _, view in laid:
        for dim in dims_of(view):
            assert_right(op, view, dim)


@pytest.mark.parametrize("op", OPS)
def test_dimensions_that_are_no_two(op, device):
    x = torch.randn(3, 4, 2, 5, 4, device=device)[:, ::2, :, 1:, ::2]
    for view in (x, x.permute(4, 1, 0, 3, 2), x.transpose(0, 1)):
        for dim in (None, 0, 2, 4):
            assert_right(op, view, dim)


@given(
    op=st.sampled_from(OPS),
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    strides=st.tuples(*[st.integers(0, 20)] * 3),
    start=st.integers(0, 9),
    dim=st.sampled_from([None, 0, 1, 2]),
    which=st.integers(0, 3),
)
def test_views_of_any_kind(op, sizes, strides, start, dim, which):
    base = torch.randn(600).to(FLOATS[which]).to(here.torch_device())
    assert_right(op, base.as_strided(sizes, strides, start), dim)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_floating_dtype(op, dtype, device):
    x = torch.randn(9, 70, device=device).to(dtype)
    for dim in dims_of(x):
        assert_right(op, x, dim)
    assert_right(op, x[:, 1:], 1)


@pytest.mark.parametrize("op", ["sum", "argmax"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_dtype(op, dtype, small, device):
    info = torch.iinfo(dtype)
    x = torch.randint(info.min, info.max, (4, 90), device=device, dtype=dtype)
    x[0, 7] = x[1, 50] = info.max
    x[2] = info.min
    for dim in dims_of(x):
        assert_right(op, x, dim)


def test_bools_are_counted_and_integers_wrap_around(device):
    x = torch.rand(5, 40, device=device) > 0.5
    assert reductions.sum(x).dtype == torch.int64
    for whole in (x, torch.full((3, 4), 2**62, dtype=torch.int64, device=device)):
        assert torch.equal(reductions.sum(whole, 1), whole.sum(1))


SPECIAL = (
    (1.0, NAN, 2.0, 3.0),
    (NAN, INF, NAN, -INF),
    (1.0, INF, 2.0, INF),
    (INF, -INF, 1.0, 2.0),
    (-INF, -INF, -INF, -INF),
    (-INF, 1.0, -INF, -2.0),
    (-0.0, 0.0, -1.0, 0.0),
    (NAN, NAN, NAN, NAN),
    (2.0, 2.0, 2.0, 2.0),
    (INF, INF, INF, INF),
    (-3.0, -1.0, -2.0, -7.0),
)


def special(device, where="alone"):
    """Rows of infinities and NaN of both signs, alone or with zeros at one side."""
    x = torch.tensor(SPECIAL, device=device)
    x[0, 1] = -x[0, 1]
    x[1, 2] = -x[1, 2]
    zeros = torch.zeros(len(x), 66, device=device)
    sides = {"alone": [x], "first": [x, zeros], "last": [zeros, x]}
    return torch.cat(sides[where], 1)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("where", ["alone", "first", "last"])
def test_infinities_and_nan_as_in_pytorch(op, where, small, device):
    """Within a tile, and with what is special at the start of a row or at its end."""
    x = special(device, where)
    assert_right(op, x, 1)
    assert_right(op, x.t().contiguous(), 0)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_magnitudes(scale, small, device):
    x = torch.randn(2, 90, device=device) * scale
    for op in OPS:
        assert_right(op, x, 1)
        assert_right(op, x + 3 * scale, 0)


def test_means(small, device):
    x = torch.randn(3, 150, device=device)
    for view in (x, x.t(), x[:, 1:], x[:1].expand(3, 150), x.double(), x.bfloat16()):
        for dim in dims_of(view):
            assert_right("mean", view, dim)


@pytest.mark.parametrize("op", [*OPS, "mean"])
def test_a_dimension_may_stay(op, device):
    x = torch.randn(5, 33, device=device)
    for dim in (None, 0, -1):
        assert_right(op, x, dim, keepdim=True)


def test_halves_are_added_in_float32(device):
    x = torch.full((2, 3000), 0.1, dtype=torch.bfloat16, device=device)
    for op in ("sum", "mean", "logsumexp"):
        assert_right(op, x, 1)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_a_variance_far_from_zero_keeps_its_digits(ratio, small, device):
    x = torch.randn(3, 300, device=device) + ratio
    assert_right("var", x, 1)
    want = x.double().var(1)
    error = testing.error(reductions.var_naive(x), want)
    assert error > 1e3 * testing.error(reductions.var(x, 1), want)


def test_other_formulas_of_the_variance_are_right_near_zero(device):
    x = torch.randn(4, 1500, device=device)[:, 1:]
    for fn in (reductions.var_naive, reductions.var_two_pass, reductions.var_welford):
        for correction in (0, 1):
            want = x.double().var(1, correction=correction)
            testing.assert_close(fn(x, correction=correction), want, length=1500)
        assert bool(fn(x[:, :0]).isnan().all())
        with pytest.raises(TypeError, match="x must be float32"):
            fn(x.double())


@pytest.mark.parametrize("correction", [0, 1, 2, 40])
def test_corrections(correction, device):
    x = torch.randn(3, 33, device=device)
    out = reductions.var(x, 1, correction=correction)
    # PyTorch warns where it divides by zero; here that is what is asked for.
    squares = ((x.double() - x.double().mean(1, keepdim=True)) ** 2).sum(1)
    testing.assert_close(out, squares / max(0, 33 - correction), length=40)


@pytest.mark.parametrize("op", ["sum", "mean", "var", "logsumexp"])
class TestGradient:
    def test_against_differences(self, op, device):
        fn = getattr(reductions, op)
        for shape, dim in (((2, 3), 1), ((3, 2), 0), ((2, 2), None)):
            x = torch.randn(shape, dtype=torch.float64, device=device)
            for view in (x, x.transpose(0, -1)):
                view = view.detach().requires_grad_()
                run = functools.partial(fn, dim=dim)
                assert torch.autograd.gradcheck(run, (view,))

    @pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
    def test_against_float64(self, op, dtype, small, device):
        plain = torch.randn(3, 90, device=device).to(dtype)
        for x, dim in ((plain, 1), (plain, 0), (plain.t(), 0), (plain[:, 1:], None)):
            x = x.detach().requires_grad_()
            wide = x.detach().double().requires_grad_()
            out = getattr(reductions, op)(x, dim, keepdim=True)
            weights = torch.randn(out.shape, device=device).to(dtype)
            (out * weights).sum().backward()
            want = getattr(torch, op)(wide, every(wide, dim), keepdim=True)
            (want * weights.double()).sum().backward()
            testing.assert_close(x.grad, wide.grad, dtype=dtype, length=100)

    def test_registration(self, op, device):
        x = torch.randn(3, 8, device=device, requires_grad=True)
        rest = {
            "sum": (sums.sum_operator, 1, False, False),
            "mean": (sums.sum_operator, None, True, True),
            "var": (moments.var_operator, 0, 1, False),
            "logsumexp": (exponentials.logsumexp_operator, 1, False),
        }
        operator, *args = rest[op]
        testing.opcheck(operator, x, *args)

    def test_torch_compile(self, op, device):
        fn = getattr(reductions, op)
        x = torch.randn(3, 9, device=device, requires_grad=True)
        compiled = torch.compile(
            lambda x: fn(2 * x, 1), fullgraph=True, backend="aot_eager"
        )
        out = compiled(x)
        testing.assert_close(out, expected(op, 2 * x.detach(), 1)[0], length=20)
        out.sum().backward()
        assert x.grad.shape == x.shape


def test_a_gradient_of_halves_comes_from_the_unrounded_result(device):
    """Rounded to bfloat16, the result would be off by 2 %, and so the softmax."""
    x = torch.full((1, 1000), 100.3, device=device).bfloat16().requires_grad_()
    reductions.logsumexp(x, 1).sum().backward()
    assert float(x.grad.sum()) == pytest.approx(1.0, rel=5e-3)


def test_gradients_of_special_rows_as_in_pytorch(device):
    x = special(device)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    reductions.logsumexp(ours, 1).sum().backward()
    torch.logsumexp(theirs, 1).sum().backward()
    testing.assert_close(ours.grad, theirs.grad.double(), length=8)


def test_argmax_needs_no_gradient(device):
    x = torch.randn(3, 5, device=device, requires_grad=True)
    assert not reductions.argmax(x, 1).requires_grad
    compiled = torch.compile(lambda x: reductions.argmax(x, 0), backend="aot_eager")
    assert torch.equal(compiled(x), first_largest(x, 0))


def test_nothing_to_reduce(device):
    x = torch.empty(3, 0, device=device)
    assert reductions.sum(x, 1).tolist() == [0.0] * 3
    assert reductions.logsumexp(x, 1).tolist() == [-INF] * 3
    assert bool(reductions.mean(x, 1).isnan().all())
    assert bool(reductions.var(x, 1).isnan().all())
    single = torch.tensor(3.0, device=device)
    for dim in (None, 0, -1):
        assert float(reductions.sum(single, dim)) == 3.0
        assert int(reductions.argmax(single, dim)) == 0


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: reductions.sum([1.0]), TypeError, "x must be a torch.Tensor"),
        (lambda x: reductions.sum(x + 0j), TypeError, "x must be float16, .*complex64"),
        (lambda x: reductions.mean(x.int(), 1), TypeError, "x must be .*float64, got"),
        (lambda x: reductions.var(x.int()), TypeError, "x must be .*got int32"),
        (lambda x: reductions.logsumexp(x.int()), TypeError, "x must be .*got int32"),
        (lambda x: reductions.argmax(x > 0), TypeError, "x must be .*got bool"),
        (lambda x: reductions.sum(x, 2), ValueError, "dim must be from -2 to 1, got 2"),
        (lambda x: reductions.var(x, -3), ValueError, "dim must be from -2 to 1"),
        (lambda x: reductions.sum(x, 1.0), TypeError, "dim must be an int or None"),
        (lambda x: reductions.mean(x, True), TypeError, "dim must be .*got bool"),
        (lambda x: reductions.var(x, correction=-1), ValueError, "correction must be"),
        (lambda x: reductions.var(x, correction=0.5), TypeError, "correction must be"),
        (lambda x: reductions.argmax(x[:, :0], 1), ValueError, "along dimension 1"),
        (lambda x: reductions.argmax(x[:0]), ValueError, "x must have elements, got"),
        (lambda x: reductions.sum(x.to("meta")), ValueError, "x must be on"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, match, device):
    with pytest.raises(error, match=match):
        call(torch.ones(3, 5, device=device))


@pytest.mark.parametrize("op", OPS)
def test_repeats_are_equal(op, small, device):
    x = torch.randn(3, 300, device=device).bfloat16()
    testing.deterministic(lambda: getattr(reductions, op)(x, 1), 3)


def test_the_package_exports_what_it_says():
    public = [name for name in reductions.__all__ if not name.startswith("var_")]
    assert all(f"`{name}`" in reductions.__doc__ for name in public)


REST = "rest = mask & (lanes < between - full)"
MISTAKES = [
    (sums, "acc += x.to(ACC)\n    if full", "acc = x.to(ACC)\n    if full"),
    (sums, REST, "rest = mask"),
    (sums, "if full < count:", "if full > count:"),
    (
        sums,
        "total += tl.sum(x.to(ACC), axis=1)",
        "total += 0 * tl.sum(x.to(ACC), axis=1)",
    ),
    (sums, "out += part * outer", "out += 0 * part * outer"),
    (moments, "start // TERMS + 1, ACC", "start // TERMS + 2, ACC"),
    (moments, "m2 += delta * (x - mean)\n    inside", "m2 += delta\n    inside"),
    (moments, "tl.sum(m2 + n * apart * apart, axis=1)", "tl.sum(m2, axis=1)"),
    (moments, "tl.where(inside, x - mean, 0.0)", "x - mean"),
    (moments, "tl.int64) - offs_p * tl", "tl.int64) + offs_p * tl"),
    (moments, "rows - first * step, mask", "rows, mask"),
    (extremes, "(best == best) & ~(x <= best)", "~(x <= best)"),
    (extremes, "(best == best) & ~(x <= best)", "x > best"),
    (extremes, "~(x <= best)", "~(x < best)"),
    (extremes, "first + (ahead + tile + lanes)", "first * 0 + (tile + lanes)"),
    (extremes, "first + (ahead + tile + lanes)", "first + (tile + lanes)"),
    (extremes, "index, most), axis=1)", "index, 0), axis=1)"),
    (exponentials, "d * tl.exp(m - base)", "d * tl.exp(base - m)"),
    (exponentials, "d * tl.exp(m - base) +", "d +"),
    (exponentials, 'tl.where(tl.abs(m) == float("inf"), 0.0, m)', "m"),
    (exponentials, "tl.sum(d * weight, axis=1)", "tl.sum(d, axis=1)"),
    (
        exponentials,
        "(m.shape[0], GROUP, m.shape[1])",
        "(m.shape[0], m.shape[1], GROUP)",
    ),
    (walking, "bits = tl.where(x != x, most, bits)", "bits = bits"),
    (walking, "bits < 0, bits ^ most, bits", "bits < 0, bits, bits"),
    (walking, "ahead + between + lanes - vector", "ahead + between + lanes"),
    (walking, "(offs < count)", "(offs <= count)"),
    (walking, "tl.minimum(terms - first, part_terms)", "part_terms"),
    (walking, "stride_outer, tl.int64) * DIV", "stride_outer, tl.int64)"),
    (axes, "found[-1][1] == size * stride", "found[-1][1] >= size * stride"),
    (axes, "(*kept[0], kept[1][0])", "(*kept[0], 1)"),
]
TOUCHED = {
    sums: ("sum",),
    moments: ("var",),
    extremes: ("argmax",),
    exponentials: ("logsumexp",),
    walking: ("argmax", "sum"),
    axes: ("sum",),
}


def watched(device):
    """Cases on which each of them shows: ragged, split, strided, special."""
    cube = torch.randn(2, 6, 8, device=device)
    ragged = torch.randn(2, 151, device=device)
    ragged[:, -9] = 9.0
    few = [0, 1, 5, 10]
    # Additions of an NVIDIA GPU keep the sign of a NaN in float64 alone.
    wide = special(device)[few].double()
    wide.view(torch.int64)[wide.isnan()] = -(2**51)
    return (
        (ragged[:, 1:], 1),
        (special(device)[few], 1),
        (wide, 1),
        (cube[:, :5], 2),
        (cube.permute(2, 0, 1)[:, :, :5], 1),
        (torch.randn(150, 3, device=device) + 9, 0),
        (special(device, "first")[few], 1),
    )


@pytest.mark.parametrize("op", OPS)
def test_what_is_watched_is_right(op, small, device):
    for x, dim in watched(device):
        assert_right(op, x, dim)


@pytest.mark.parametrize(
    ("module", "old", "new"), MISTAKES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_planted_mistakes_are_found(module, old, new, small, device):
    with testing.mutated_module(module, old, new):
        assert not all(
            holds(assert_right, op, x, dim)
            for op in TOUCHED[module]
            for x, dim in watched(device)
        )


def test_planted_mistakes_in_gradients_are_found(small, device):
    for op, old, new in (
        ("var", "((x - pivot) - shift)", "(x - shift)"),
        ("var", "2.0 / tl.cast(divisor, ACC)", "1.0 / tl.cast(divisor, ACC)"),
        ("logsumexp", "tl.exp(x - result)", "tl.exp(result - x)"),
        ("logsumexp", "outs + lanes * out_step, grad * tl.exp", "outs + lanes, tl.exp"),
    ):
        x = torch.randn(40, 3, dtype=torch.float64, device=device, requires_grad=True)

        def right(op=op, x=x):
            (made,) = torch.autograd.grad(getattr(reductions, op)(x, 0).sum(), x)
            (want,) = torch.autograd.grad(getattr(torch, op)(x, 0).sum(), x)
            testing.assert_close(made, want, length=60)

        assert holds(right)
        with testing.mutated_module(gradients, old, new):
            assert not holds(right)


@pytest.mark.gpu
@pytest.mark.parametrize("op", [*OPS, "mean"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_on_a_gpu(op, dtype, device):
    for shape in ((37, 1000), (129, 4097), (3, 131072), (4096, 77), (1, 2**22 + 3)):
        x = torch.randn(shape, device=device).to(dtype)
        for dim in dims_of(x):
            assert_right(op, x, dim)
        assert_right(op, x[:, 1:], 1)
        assert_right(op, x.t(), 0)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(2**31 + 64, 1), (2**16, 2**15 + 16)], ids=str)
def test_more_than_2_to_the_31_elements(op, shape, device):
    x = torch.ones(shape, dtype=torch.bfloat16, device=device)
    x[-1, -1] = 3.0
    run = getattr(reductions, op)
    for dim in (None, 0):
        out, n = run(x, dim).reshape(-1)[-1], terms_of(x, dim)
        want = {
            "sum": n + 2,
            "var": 4 * (n - 1) / n / (n - 1),
            "argmax": n - 1,
            "logsumexp": math.log((n - 1) * math.e + math.e**3),
        }[op]
        assert float(out) == pytest.approx(want, rel=2**-7)


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_20_repeats_on_a_gpu(op, device):
    x = torch.randn(64, 131072, device=device).bfloat16()
    for dim in dims_of(x):
        testing.deterministic(lambda dim=dim: getattr(reductions, op)(x, dim))


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_inductor(op, device):
    fn = getattr(reductions, op)
    compiled = torch.compile(lambda x: fn(x * 2, 1) * 2, fullgraph=True)
    x = torch.randn(33, 4097, device=device)
    assert torch.equal(compiled(x), fn(x * 2, 1) * 2)
