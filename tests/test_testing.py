"""Bounds, references, layouts: each accepts honest results and catches its mistake."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tilebook import testing
from tilebook.testing import cards, closeness, poison
from tilebook.testing.compare import judged
from tilebook.testing.precision import FORMATS, round_to, ulp

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float8_e5m2"])
def test_round_to_agrees_with_torch(name):
    exponents = np.random.uniform(-60, 60, 20_000)
    values = (np.random.standard_normal(20_000) * 2.0**exponents).astype(np.float32)
    expected = torch.from_numpy(values).to(getattr(torch, name)).double().numpy()
    assert np.array_equal(round_to(values, name), expected)


@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_ulp_is_numpys_spacing(value):
    expected = float(np.spacing(np.float32(abs(value))))
    assert float(ulp(np.array(value, np.float64), FORMATS["float32"])) == expected


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_bound_of_one_rounding_is_the_unit_roundoff(dtype):
    wide = dtype in HALVES
    expected = torch.finfo(dtype).eps / 2 + wide * 2.0**-24
    assert testing.bound(dtype) == expected


def test_bound_grows_linearly_and_then_with_the_root():
    u = 2.0**-24
    assert testing.bound(torch.float32, 3) == pytest.approx(3 * u)
    assert testing.bound(torch.float32, 10_001) == pytest.approx(201 * u)
    half = testing.bound(torch.float16, 10_000, accumulate=torch.float16)
    assert half == pytest.approx(2.0**-11 * (1 + 2 * math.sqrt(9_999)))
    tf32 = testing.bound(torch.float32, 16, operand="tf32")
    assert tf32 == pytest.approx(2 * 2.0**-11, rel=1e-2)


def test_bound_of_exact_and_of_unknown_types():
    assert testing.bound(torch.int32, 1000) == 0.0
    assert testing.bound(torch.bool) == 0.0
    with pytest.raises(ValueError, match="complex64"):
        testing.bound(torch.complex64)
    with pytest.raises(ValueError, match="length"):
        testing.bound(torch.float32, -1)


@pytest.mark.parametrize("signed", [True, False], ids=["random signs", "one sign"])
@pytest.mark.parametrize("n", [2, 100, 20_000])
def test_bound_holds_for_the_longest_chain_of_additions(n, signed):
    # cumsum adds one after another: the worst order there is.
    terms = torch.randn(64, n) if signed else torch.rand(64, n)
    total = terms.numpy().cumsum(axis=1, dtype=np.float32)[:, -1]
    exact = terms.double().sum(dim=1)
    testing.assert_close(torch.from_numpy(total), exact, length=n)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_sum_kept_in_half_precision_is_caught(dtype):
    terms = torch.rand(64, 3000).to(dtype)
    exact = testing.reference(torch.sum, terms, 1)
    testing.assert_close(terms.sum(1), exact, length=3000)
    total = torch.zeros(64, dtype=dtype)
    for column in terms.unbind(1):
        total = total + column
    with pytest.raises(AssertionError, match="3000"):
        testing.assert_close(total, exact, length=3000)


def test_tf32_operands_need_saying_so():
    a, b = torch.randn(32, 512), torch.randn(512, 32)
    rough = [round_to(x.numpy(), "tf32").astype(np.float32) for x in (a, b)]
    out = torch.from_numpy(rough[0] @ rough[1])
    exact = testing.reference(torch.matmul, a, b)
    testing.assert_close(out, exact, length=512, operand="tf32")
    with pytest.raises(AssertionError, match="out"):
        testing.assert_close(out, exact, length=512)


def test_reference_computes_in_float64_on_copies():
    x = torch.randn(5, requires_grad=True)
    index = torch.arange(5)

    def fn(items, *, options):
        assert items[0].dtype == torch.float64
        assert items[1].dtype == torch.int64
        assert options["x"].requires_grad
        items[1].zero_()
        return (items[0] * 3).sum() + options["x"].sum()

    total = testing.reference(fn, [x, index], options={"x": x})
    assert total.dtype == torch.float64
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert x.dtype == torch.float32


def test_error_is_relative_and_minds_what_is_not_finite():
    ref = torch.tensor([3.0, 4.0, math.inf, math.nan], dtype=torch.float64)
    out = torch.tensor([3.0, 4.5, math.inf, math.nan])
    assert testing.error(out, ref) == pytest.approx(0.1)
    for at, value in ((2, -math.inf), (2, 1.0), (3, 1.0), (0, math.nan)):
        changed = out.clone()
        changed[at] = value
        assert testing.error(changed, ref) == math.inf
    zeros = torch.zeros(3, dtype=torch.float64)
    assert testing.error(torch.zeros(3), zeros) == 0.0
    assert testing.error(torch.ones(3), zeros) == math.inf
    assert testing.error(torch.empty(0), torch.empty(0)) == 0.0
    with pytest.raises(ValueError, match=r"\(2,\)"):
        testing.error(torch.ones(2), zeros)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_ulp_is_too_much_where_rounding_is_exact(dtype):
    exact = torch.randn(500, dtype=torch.float64)
    out = exact.clone().to(dtype)
    testing.assert_close(out, exact, dtype=dtype)
    if dtype == torch.float64:
        out[77] = torch.nextafter(out[77], torch.tensor(9.0, dtype=dtype))
    else:
        out[77] *= 1 + 1.01 * torch.finfo(dtype).eps
    with pytest.raises(AssertionError, match=r"out\[77\]"):
        testing.assert_close(out, exact)


def test_truncation_instead_of_rounding_is_caught_and_named():
    exact = torch.randn(1000).double() * torch.randn(1000).double()
    rounded = exact.float()
    towards = torch.nextafter(rounded, torch.zeros(()))
    truncated = torch.where(rounded.double().abs() > exact.abs(), towards, rounded)
    with pytest.raises(AssertionError, match="truncated"):
        testing.assert_close(truncated, exact)


def test_accumulated_roundings_are_allowed_relative_to_what_was_summed():
    exact = torch.tensor([1e-9, 1.0], dtype=torch.float64)
    out = torch.tensor([2e-9, 1.0])
    testing.assert_close(out, exact, length=3)
    with pytest.raises(AssertionError, match=r"out\[0\]"):
        testing.assert_close(out, exact, length=3, scale=exact)


def test_a_sum_that_cancels_is_judged_by_its_terms():
    x = torch.randn(1000)
    x -= x.mean()
    exact = testing.reference(torch.sum, x)
    out = x.flip(0).sum() + 20 * 2.0**-24
    with pytest.raises(AssertionError, match="out ="):
        testing.assert_close(out, exact, length=1000)
    scale = testing.sensitivity(torch.sum, x)
    assert 20 < float(scale) < 50
    testing.assert_close(out, exact, length=1000, scale=scale)
    with pytest.raises(AssertionError, match="out ="):
        testing.assert_close(out + 1e-3, exact, length=1000, scale=scale)


def test_sensitivity_ignores_integers_and_what_is_not_finite():
    def pick(x, index):
        return x[index] / x[1:]

    x = torch.tensor([math.inf, 0.0, 2.0])
    found = testing.sensitivity(pick, x, torch.tensor([0, 2]))
    assert found.isfinite().all()


def test_assert_close_message_has_index_values_bound_and_count():
    exact = torch.randn(4, 64, dtype=torch.float64)
    out = exact.float()
    out[2, 60:] = 0.0
    with pytest.raises(AssertionError) as caught:
        testing.assert_close(out, exact)
    message = str(caught.value)
    assert "float32 (4, 64)" in message
    assert "out[2, 60] = 0, expected" in message
    assert "4 of 256 elements: rows 2, columns 60 to 63" in message
    assert "off by at most" in message


def test_assert_close_minds_dtype_shape_and_norm():
    x = torch.randn(10)
    with pytest.raises(
        AssertionError, match=r"torch\.float32, expected torch\.float16"
    ):
        testing.assert_close(x, x.double(), dtype=torch.float16)
    with pytest.raises(ValueError, match="shape"):
        testing.assert_close(x, x.double()[:9])
    # Each element is within its own limit, all together are systematically off.
    exact = torch.ones(10_000, dtype=torch.float64)
    out = torch.full((10_000,), 1 + 300 * 2.0**-23)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(out, exact, length=40_000)


def test_infinities_nan_and_overflow():
    exact = torch.tensor([math.inf, -math.inf, math.nan, 1e39, 7e4])
    exact = exact.double()
    exact[3] = 1e39
    testing.assert_close(exact.float(), exact)
    testing.assert_close(exact.half(), exact)
    for at, value in (
        (0, 3e38),
        (1, math.inf),
        (2, 0.0),
        (3, -math.inf),
        (4, math.inf),
    ):
        out = exact.float()
        out[at] = value
        with pytest.raises(AssertionError, match=rf"out\[{at}\]"):
            testing.assert_close(out, exact)


def test_subnormals_are_exact_unless_something_was_accumulated():
    exact = torch.tensor([2.0**-140, 3 * 2.0**-149], dtype=torch.float64)
    testing.assert_close(exact.float(), exact)
    flushed = torch.zeros(2)
    with pytest.raises(AssertionError, match="out"):
        testing.assert_close(flushed, exact)
    testing.assert_close(flushed, exact, length=4)


def test_rounding_to_subnormals_is_half_of_their_distance_in_the_norm_too():
    """Softmax of a long row in float16: rounded correctly, 1 % off in the norm."""
    exact = torch.softmax(torch.randn(1, 2**20, dtype=torch.float64), 1)
    out = exact.half()
    assert testing.error(out, exact) > 10 * testing.bound(out.dtype, 100)
    testing.assert_close(out, exact, length=100)
    cut = ((exact * 2**24).floor() / 2**24).half()
    with pytest.raises(AssertionError, match="of 1048576 elements"):
        testing.assert_close(cut, exact, length=100)
    # What is no subnormal number gets nothing of it, whatever lies beside it.
    normal = torch.ones(10_000, dtype=torch.float64)
    both = torch.cat([normal, torch.tensor([2.0**-16 + 2.0**-30]).double()])
    off = both.half()
    off[:10_000] += 2.0**-10
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(off, both, length=5_000_000)


def test_integers_are_exact():
    x = torch.randint(0, 255, (100,), dtype=torch.uint8)
    testing.assert_close(x, x.long())
    out = x.clone()
    out[5] += 1
    with pytest.raises(AssertionError, match="must be exact"):
        testing.assert_close(out, x)
    testing.assert_close(out, x, atol=1)
    big = torch.tensor([2**62, -(2**62)])
    with pytest.raises(AssertionError, match="exact"):
        testing.assert_close(big, -big)


def test_large_integers_are_compared_by_value_and_exactly():
    top = 2**64 - 1
    huge = torch.tensor([2**63, top, 5], dtype=torch.uint64)
    testing.assert_close(huge, huge.clone(), dtype=torch.uint64)
    assert testing.error(huge, huge) == 0.0
    near = torch.tensor([2**63, top - 1, 5], dtype=torch.uint64)
    with pytest.raises(AssertionError, match=rf"= {top}, expected {top - 1}"):
        testing.assert_close(huge, near)
    testing.assert_close(huge, near, atol=1)
    assert 0 < testing.error(huge, near) < 1e-19
    signed = torch.tensor([-1, 2**62], dtype=torch.int64)
    bits = torch.tensor([top, 2**62], dtype=torch.uint64)
    for out, ref in ((signed, bits), (bits, signed)):
        with pytest.raises(AssertionError, match="1 of 2 elements: 0"):
            testing.assert_close(out, ref)
        assert testing.error(out, ref) >= 0.5
    testing.assert_close(signed[1:], bits[1:])
    below = torch.tensor([2**63 - 1])
    with pytest.raises(AssertionError, match="must be exact"):
        testing.assert_close(below, huge[:1])
    testing.assert_close(below, huge[:1], atol=1)
    large = torch.tensor([2**60])
    testing.assert_close(large, large + 7, atol=7)
    with pytest.raises(AssertionError, match="off by at most 7"):
        testing.assert_close(large, large + 8, atol=7)
    assert testing.error(large + 8, large) == 8 / 2**60


def test_integers_and_floating_point_are_compared_where_that_is_exact():
    exact = torch.tensor([2.0**53 - 1, -3.0], dtype=torch.float64)
    testing.assert_close(exact.long(), exact)
    testing.assert_close(exact, exact.long())
    with pytest.raises(AssertionError, match=f"= {2**53 - 2}, expected {2**53 - 1}"):
        testing.assert_close(exact.long() - torch.tensor([1, 0]), exact)
    # A large number beside a small one, or an infinity, is plainly wrong.
    with pytest.raises(AssertionError, match=f"= {2**62}, expected -3"):
        testing.assert_close(torch.tensor([2**53 - 1, 2**62]), exact)
    with pytest.raises(AssertionError, match="expected inf"):
        testing.assert_close(torch.tensor([2**62]), torch.tensor([math.inf]))
    with pytest.raises(AssertionError, match=r"= 0, expected 0\.5"):
        testing.assert_close(torch.tensor([0]), torch.tensor([0.5]))
    # Every element off by a factor: no guess that only suits floating point.
    with pytest.raises(AssertionError, match="2 of 2"):
        testing.assert_close(torch.tensor([2, 4]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("integers", [torch.int64, torch.uint64], ids=str)
def test_large_integers_beside_floating_point_are_refused(integers):
    large = torch.tensor([1, 2**53 + 1], dtype=integers)
    for out, ref in ((large, large.double()), (large.double(), large)):
        for compare in (testing.assert_close, testing.error):
            with pytest.raises(ValueError, match=r"reach 2\*\*53.*give a"):
                compare(out, ref)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_unwritten_elements_are_refused_even_where_nan_is_right(dtype):
    out = torch.full((100,), math.nan, dtype=dtype)
    exact = torch.full((100,), math.nan, dtype=torch.float64)
    testing.assert_close(out, exact)
    poison.fill(out[90:])
    with pytest.raises(AssertionError, match="last 10 elements were never written"):
        testing.assert_close(out, exact)


def test_an_integer_that_only_looks_like_poison_is_not_called_unwritten():
    expected = np.arange(100)
    never = expected == 40
    nothing = np.zeros(100)
    bad, unwritten = judged(expected, expected, nothing, never, "uint8")
    assert not bad.any()
    assert not unwritten.any()
    bad, unwritten = judged(expected + 1, expected, nothing, never, "uint8")
    assert bad.all()
    assert not unwritten.any()
    marked = np.where(expected < 60, expected, 91)
    bad, unwritten = judged(marked, expected, nothing, marked == 91, "uint8")
    assert unwritten.sum() == bad.sum() == 39


def test_large_outputs_are_compared_piecewise(monkeypatch):
    monkeypatch.setattr(closeness, "_PIECE", 64)
    exact = torch.randn(10, 100, dtype=torch.float64)
    out = exact.float()
    testing.assert_close(out, exact)
    testing.assert_close(out.t(), exact.t(), scale=exact.t().abs())
    assert testing.error(out, exact) < 2.0**-24
    out[7, 5] = out[8, 5] = 9.0
    with pytest.raises(AssertionError, match=r"out\[705\](.|\n)*2 of 1000"):
        testing.assert_close(out, exact)


def test_lengths_and_shapes_hold_the_awkward_ones():
    lengths = testing.lengths()
    assert {0, 1, 997, 1023, 1024, 1025, 4097} <= set(lengths)
    assert list(lengths) == sorted(lengths)
    assert max(lengths) <= 4100
    for ndim in (0, 1, 2, 3, 4):
        shapes = testing.shapes(ndim)
        assert all(len(shape) == ndim for shape in shapes)
        assert all(math.prod(shape) <= 4100 for shape in shapes)
    for ndim in (1, 2, 3):
        shapes = testing.shapes(ndim)
        assert (1,) * ndim in shapes
        assert all(any(s[d] == 0 for s in shapes) for d in range(ndim))
    assert any(a != b for a, b in testing.shapes(2))


@pytest.mark.parametrize(
    "dtype", [*FLOATS, torch.int8, torch.int64, torch.bool], ids=str
)
def test_layouts_hold_the_same_values(dtype, device):
    x = (torch.randn(5, 7) * 40).to(dtype).to(device)
    found = dict(testing.layouts(x))
    assert set(found) >= {"contiguous", "offset", "strided", "sliced", "transposed"}
    for laid in found.values():
        assert laid.dtype == dtype
        assert laid.device == x.device
        assert torch.equal(laid, x)
    assert found["offset"].storage_offset() == 1
    assert found["strided"].stride() == (15, 2)
    assert found["sliced"].stride() == (12, 1)
    assert found["transposed"].stride() == (1, 5)


def test_what_lies_around_a_layout_is_nan():
    x = torch.zeros(4, 6)
    for name, laid in testing.layouts(x):
        whole = torch.empty(0).set_(laid.untyped_storage())
        inside = x.numel() if name != "expanded" else whole.numel()
        assert int(whole.isnan().sum()) == whole.numel() - inside


def test_layouts_of_odd_shapes_and_expanded_ones():
    for shape in ((), (0,), (1,), (3, 0), (1, 1)):
        x = torch.ones(shape)
        for _, laid in testing.layouts(x):
            assert torch.equal(laid, x)
    steady = torch.arange(3.0)[:, None].expand(3, 4)
    assert [t.stride() for n, t in testing.layouts(steady) if n == "expanded"] == [
        (1, 0)
    ]
    assert "expanded" not in dict(testing.layouts(torch.randn(3, 4)))
    wide = dict(testing.expanded(torch.randn(3, 4)))
    assert {name: t.stride() for name, t in wide.items()} == {
        "expanded 0": (0, 1),
        "expanded 1": (1, 0),
    }


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e4m3fn], ids=str)
def test_extremes_reach_the_edges(dtype):
    values = testing.extremes(dtype).double()
    info = torch.finfo(dtype)
    assert values.isnan().any()
    assert {info.max, info.min, info.tiny, 1.0, 0.0} <= set(values.tolist())
    assert (values.abs() < info.tiny).sum() > 2
    assert values.isinf().any() == (dtype != torch.float8_e4m3fn)


def test_extremes_of_integers():
    assert testing.extremes(torch.int8).tolist() == [-128, -127, -1, 0, 1, 2, 126, 127]
    assert testing.extremes(torch.uint8).tolist() == [0, 1, 2, 254, 255]
    assert testing.extremes(torch.bool).tolist() == [False, True]


def test_deterministic_finds_the_call_that_differs():
    calls = []

    def unsteady():
        calls.append(1)
        out = torch.zeros(3, 5)
        out[1, 2] = len(calls) == 4
        return {"a": torch.ones(2), "b": (out,)}

    with pytest.raises(
        AssertionError, match=r"call 4 of 20 .*output 1, first at \(1, 2\)"
    ):
        testing.deterministic(unsteady)
    assert torch.equal(testing.deterministic(lambda: torch.ones(2)), torch.ones(2))


def test_deterministic_compares_bits_and_shapes():
    signs = iter([0.0, -0.0])
    with pytest.raises(AssertionError, match="call 2"):
        testing.deterministic(lambda: torch.tensor(next(signs)), repeats=2)
    sizes = iter([2, 3])
    with pytest.raises(AssertionError, match="other shapes"):
        testing.deterministic(lambda: torch.ones(next(sizes)), repeats=2)
    nan = torch.tensor([math.nan])
    testing.deterministic(lambda: nan, repeats=3)
    with pytest.raises(TypeError, match="no tensor"):
        testing.deterministic(lambda: 3)


def test_opcheck_accepts_an_operator_and_refuses_a_wrong_fake():
    with torch.library._scoped_library("tilebook_test", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: 2 * x, "CompositeExplicitAutograd")
        op = torch.ops.tilebook_test.double
        torch.library.register_fake(
            "tilebook_test::double", torch.empty_like, lib=library
        )
        testing.opcheck(op, torch.randn(3))
    with torch.library._scoped_library("tilebook_test", "FRAGMENT") as library:
        library.define("triple(Tensor x) -> Tensor")
        library.impl("triple", lambda x: 3 * x, "CompositeExplicitAutograd")
        torch.library.register_fake(
            "tilebook_test::triple", lambda x: x.new_empty(x.numel() + 1), lib=library
        )
        with pytest.raises(AssertionError, match="opcheck failed"):
            testing.opcheck(torch.ops.tilebook_test.triple, torch.randn(3))


def test_the_package_names_what_it_exports():
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="nothing"):
        _ = testing.nothing


@pytest.mark.parametrize(
    ("turn", "count", "expected"),
    [(0, 1, None), (0, 4, "0,1,2,3"), (3, 4, "3,0,1,2"), (5, 2, "1,0"), (7, 0, None)],
)
def test_processes_begin_with_different_gpus(turn, count, expected):
    assert cards.order(turn, [str(i) for i in range(count)]) == expected


def test_who_has_chosen_gpus_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "NODES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("0000:19:00.0", "0000:3b:00.0"):
        (tmp_path / name).mkdir()
    assert cards.share(1) == {"CUDA_VISIBLE_DEVICES": "1,0"}
    monkeypatch.setattr(cards, "NODES", tmp_path / "none")
    assert cards.share(1) == {}
    monkeypatch.setattr(cards, "NODES", tmp_path)
    for names, expected in (("3", {}), ("", {}), ("2,5", "5,2")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
        expected = expected and {"CUDA_VISIBLE_DEVICES": expected}
        assert cards.share(1) == expected
