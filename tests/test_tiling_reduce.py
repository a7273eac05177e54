"""Summing along either dimension, by as many programs as there is work for."""

import pytest
import torch

from tilebook import compile_only, microscope, testing
from tilebook import device as here
from tilebook.tiling import reduce
from tilebook.tiling.reduce import plan, total

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SHAPES = (
    *((1, 1), (3, 0), (0, 3), (5, 300), (300, 5), (17, 31)),
    *((129, 17), (5, 513), (1025, 3)),
)
# Of more parts than one, in both dimensions or in one, and with a ragged last one.
SHARED = ((130, 140), (9000, 2), (2, 9000), (515, 70))


def values_of(shape, dtype, device):
    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(0, 100, shape, device=device).to(dtype)


def assert_total(x, dim):
    with testing.guarded():
        out = total(x, dim)
    testing.assert_close(
        out,
        testing.reference(torch.sum, x, dim),
        length=max(1, x.shape[dim]),
        scale=x.double().norm(dim=dim),
        dtype=reduce.DTYPES[x.dtype],
    )


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [*SHAPES, *SHARED], ids=str)
def test_any_shape(shape, dim, device):
    x = testing.guard(torch.randn(shape, device=device))
    assert_total(x.tensor, dim)
    x.check()


def test_dimensions_counted_from_the_end(device):
    x = torch.randn(3, 4, device=device)
    assert torch.equal(total(x, -2), total(x, 0))
    assert torch.equal(total(x, -1), total(x, 1))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", reduce.DTYPES, ids=str)
def test_every_dtype(dim, dtype, device):
    x = values_of((20, 33), dtype, device).abs() if dtype != torch.bool else None
    x = torch.rand(20, 33, device=device) < 0.5 if x is None else x
    out = total(x, dim)
    assert out.dtype == torch.sum(x, dim).dtype
    testing.assert_close(out, testing.reference(torch.sum, x, dim), length=33)


@pytest.mark.parametrize("dim", [0, 1])
def test_any_strides(dim, device):
    x = torch.rand(19, 40, device=device)
    for _, view in (*testing.layouts(x), *testing.expanded(x)):
        assert_total(view, dim)
    many = torch.rand(700, 6, device=device)
    for view in (many[::2, 1:4], many.t(), many[:, :1].expand(700, 3)):
        assert_total(view, dim)


def test_a_lazily_negated_view(device):
    z = torch.randn(5, 9, dtype=torch.complex64, device=device)
    negated = z.conj().imag
    assert negated.is_neg()
    assert torch.equal(total(negated, 1), total(-z.imag, 1))


def test_special_values(device):
    x = torch.ones(3, 5, device=device)
    x[0, 1], x[1, 2], x[2, 3] = float("inf"), float("nan"), float("-inf")
    for dim in (0, 1):
        out, expected = total(x, dim), torch.sum(x, dim)
        torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def test_parts_are_added_up_before_anything_is_rounded(device):
    """In float16 a sum of 4,096 ones would stop at 2,048, or overflow on the way."""
    ones = torch.ones(8192, 2, dtype=torch.float16, device=device)
    assert plan(ones.t()).parts > 1
    assert total(ones, 0).tolist() == [8192, 8192]
    ones[:4096], ones[4096:] = 30000, -30000
    assert total(ones, 0).tolist() == [0, 0]
    many = torch.full((8192, 2), 2**31 - 1, dtype=torch.int32, device=device)
    assert total(many, 0).tolist() == [8192 * (2**31 - 1)] * 2


def test_unfit(device):
    x = torch.zeros(2, 2, device=device)
    with pytest.raises(TypeError, match=r"x must be .*got complex64"):
        total(x.to(torch.complex64), 0)
    with pytest.raises(ValueError, match="x must have"):
        total(x[0], 0)
    with pytest.raises(ValueError, match="dim must be 0, 1, -2 or -1, got 2"):
        total(x, 2)


@pytest.mark.parametrize(
    ("tile", "error", "message"),
    [
        (5, TypeError, "tile must be a tuple of two integers, got 5"),
        ((4, 4, 4), TypeError, "tile must be a tuple of two integers"),
        ((4.0, 4), TypeError, "tile must be an int, got float"),
        ((3, 4), ValueError, "tile must be a power of two up to 32768, got 3"),
        ((0, 4), ValueError, "tile must be at least 1"),
        ((1024, 1024), ValueError, "tile must have at most 32768 elements"),
    ],
)
def test_unfit_tiles(tile, error, message, device):
    with pytest.raises(error, match=message):
        total(torch.zeros(2, 2, device=device), 0, tile=tile)


@pytest.mark.parametrize("tile", [(1, 1), (2, 16), (64, 1)])
def test_tiles_of_ones_own(tile, device):
    x = torch.randint(0, 99, (7, 9), device=device)
    for dim in (0, 1):
        assert torch.equal(total(x, dim, tile=tile), x.sum(dim))


def test_repeats_are_equal(device):
    for shape in ((40, 70), (130, 140)):
        x = torch.randn(shape, device=device)
        times = 20 if x.is_cuda else 3
        for dim in (0, 1):
            testing.deterministic(lambda dim=dim, x=x: total(x, dim), times)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


TALL = (
    *((2**20, 64), (2**22, 1), (10**6, 17), (2**16, 500), (8192, 8192)),
    *((4096, 4096), (2**24, 3), (10**5, 10**3)),
)


@pytest.mark.parametrize("shape", TALL, ids=str)
def test_whatever_its_shape_a_large_matrix_keeps_132_processors_busy(shape):
    for view in (meta(*shape).t(), meta(*reversed(shape)), meta(*shape)):
        shared = plan(view)
        kept, terms = view.shape
        programs = -(-kept // shared.kept) * shared.parts
        assert programs >= 2 * 132
        # Parts cover the terms, each begins where a step does, and none is empty.
        assert shared.part * shared.parts >= terms > shared.part * (shared.parts - 1)
        assert shared.part % shared.summed == 0
        # A grid's second axis ends at 65,535.
        assert shared.parts <= reduce.PROGRAMS
        # No lane idles because the matrix is thin.
        assert shared.kept < 2 * kept
        assert shared.kept * shared.summed <= reduce.ALONG[0] * reduce.ALONG[1]


def test_small_matrices_are_summed_by_one_launch():
    for shape in ((1, 1), (100, 100), (40, 1000), (64, 63)):
        assert plan(meta(*shape)).parts == plan(meta(*shape).t()).parts == 1


def test_programs_share_the_terms_and_no_two_write_one_sum():
    x, sums = torch.ones(100, 3), torch.zeros(4, 3)
    seen = microscope.look(
        reduce.total_kernel, (1, 4), x.t(), sums, 3, 100, 32, 1, 3,
        ACC=reduce.accumulator(x.dtype), KEPT=4, SUMMED=16, raise_error=True,
    )  # fmt: skip
    assert (seen.counts("x_ptr") == 1).all()
    assert seen.races() == ()
    assert sums.tolist() == [[32] * 3] * 3 + [[4] * 3]


def shapes_and_strides(device):
    for shape in ((17, 531), (130, 140), (0, 3)):
        for dim in (0, 1):
            test_any_shape(shape, dim, device)
    x = torch.rand(700, 6, device=device)
    for dim in (0, 1):
        assert_total(x[::2, 1:4], dim)


def views_and_roundings(device):
    test_a_lazily_negated_view(device)
    test_parts_are_added_up_before_anything_is_rounded(device)


MISTAKES = [
    ("total_kernel", "& (offs_s < summed)[None, :]", "& (offs_s <= summed)[None, :]"),
    ("total_kernel", "(offs_k < kept)[:, None] &", "(offs_s >= 0)[None, :] &"),
    ("total_kernel", "acc += x.to(ACC)", "acc = x.to(ACC)"),
    ("total_kernel", "offs_s[None, :] * stride_summed", "offs_s[None, :]"),
    ("total_kernel", "acc = tl.zeros(", "acc = 1 + tl.zeros("),
    ("total_kernel", "tl.minimum(first + part, summed)", "summed"),
    ("total_kernel", "out_ptr + pid_s * kept", "out_ptr + pid_s * part"),
    ("plan", "part, triton.cdiv(terms, part))", "part, max(1, terms // part))"),
    ("_summed", "view = x.t() if dim == 0 else x", "view = x.t() if dim == 1 else x"),
    ("_summed", "prepared, parts, out", "prepared, parts[:, :-1], out"),
    ("_summed", "return out.zero_()", "return out"),
    ("_summed", "dtype=WIDE[acc]", "dtype=out.dtype"),
    ("total", "if not library.eager(x)", "if False"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(name, old, new, device):
    if "kept)" in old and not here.interpreting():
        pytest.skip(
            "what is read past the last row is never stored: no bounds, no sign"
        )
    edited = {"planted": (old, new)}
    ((_, mutant),) = testing.mutants(getattr(reduce, name), edited)
    late = "WIDE" in old or name == "total"
    check = views_and_roundings if late else shapes_and_strides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, name, mutant)
        patch.setitem(globals(), name, mutant)
        with pytest.raises((AssertionError, IndexError)):
            check(device)


def test_without_a_mistake_the_same_tests_pass(device):
    shapes_and_strides(device)
    views_and_roundings(device)


@pytest.mark.parametrize("target", TARGETS)
def test_loads_are_wide_where_neighbours_lie(target):
    """The same kernel; the tile follows the strides, whichever dimension is summed."""
    views = [meta(4096, 4096), meta(4096, 4096).t()]
    if target == "sm_90":
        views += [meta(2**20, 64).t(), meta(4096, 4096, dtype=torch.bfloat16).t()]
    for view in views:
        shared = plan(view)
        evidence = compile_only.compile(
            reduce.total_kernel, view, meta(view.shape[0]),
            *view.shape, shared.part, *view.stride(),
            ACC=reduce.accumulator(view.dtype), KEPT=shared.kept, SUMMED=shared.summed,
            target=target,
        ).evidence  # fmt: skip
        assert set(evidence.global_loads) == {128}
        assert evidence.spill_store_bytes == 0


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("dim", [0, 1])
def test_more_than_2_to_the_31_elements(dim, device):
    for shape in ((2**16, 2**15 + 4), (2**31 + 5, 1), (2, 2**30 + 3)):
        x = torch.empty(shape, dtype=torch.uint8, device=device).random_(0, 256)
        assert torch.equal(total(x, dim), torch.sum(x, dim))
