"""Gathering, scattering and summing along either dimension."""

import pytest
import torch

from tilebook import compile_only, microscope, testing
from tilebook.tiling import indexed, reduce
from tilebook.tiling.indexed import gather, scatter, scatter_add
from tilebook.tiling.reduce import total

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SHAPES = ((1, 1), (3, 0), (0, 3), (5, 300), (300, 5), (17, 31))


def operands(shape, dim, device, dtype=torch.float32, index=torch.int64):
    """A matrix, and an index and its values that are shorter and longer than it."""
    x = values_of(shape, dtype, device)
    length = 2 * shape[dim] + 1 if shape[dim] else 0
    wanted = (length, shape[1]) if dim == 0 else (shape[0], length)
    where = torch.randint(0, max(1, shape[dim]), wanted, device=device, dtype=index)
    return x, where, values_of(wanted, dtype, device)


def values_of(shape, dtype, device):
    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(0, 100, shape, device=device).to(dtype)


def in_order(x, index, src, dim, add):
    """One value after another, in float64 or whole numbers."""
    out = x.double() if x.is_floating_point() else x.clone()
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            at = (int(index[i, j]), j) if dim == 0 else (i, int(index[i, j]))
            out[at] = src[i, j] + (out[at] if add else 0)
    return out


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gather(shape, dim, device):
    x, index, _ = operands(shape, dim, device)
    guard = testing.guard(x)
    with testing.guarded():
        out = gather(guard.tensor, index, dim)
    guard.check()
    assert torch.equal(out, torch.gather(x, dim, index))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float8_e5m2, torch.bfloat16, torch.int32, torch.float64]
)
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_gather_any_dtype(dtype, kind, device):
    x, index, _ = operands((9, 20), 1, device, dtype, kind)
    out = gather(x, index, 1)
    expected = torch.gather(x.to(torch.float64), 1, index.long())
    assert out.dtype == dtype
    assert torch.equal(out.to(torch.float64), expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_any_strides(dim, device):
    x, index, src = operands((7, 12), dim, device)
    for (_, a), (_, b), (_, c) in zip(
        testing.layouts(x), testing.layouts(index), testing.layouts(src), strict=False
    ):
        for first, second, third in ((a, index, src), (x, b, src), (x, index, c)):
            with testing.guarded():
                assert torch.equal(
                    gather(first, second, dim), torch.gather(first, dim, second)
                )
                out = scatter_add(first, second, third, dim)
            expected = in_order(first, second, third, dim, True)
            testing.assert_close(out, expected, length=30, dtype=torch.float32)
    one = index[:1, :1].expand(index.shape)
    assert torch.equal(gather(x, one, dim), torch.gather(x, dim, one))


@pytest.mark.parametrize("dim", [0, 1])
def test_shorter_indices(dim, device):
    x, index, src = operands((9, 10), dim, device)
    part = index[:3, :4]
    assert torch.equal(gather(x, part, dim), torch.gather(x, dim, part))
    assert torch.equal(scatter(x, part, src, dim), in_order(x, part, src, dim, False))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_last_of_several_stays(shape, dim, device):
    x, index, src = operands(shape, dim, device)
    if index.numel() > 1000:
        index = index[:41, :41]
    with testing.guarded():
        out = scatter(x, index, src, dim)
    assert torch.equal(out.double(), in_order(x, index, src, dim, False))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", indexed.SUMMED, ids=str)
@pytest.mark.parametrize("ordered", [True, False])
def test_sums(dim, dtype, ordered, device):
    x, index, src = operands((6, 21), dim, device, dtype)
    # All of one sign, so that a sum is no smaller than its terms.
    x, src = x.abs(), src.abs()
    with testing.guarded():
        out = scatter_add(x, index, src, dim, ordered=ordered)
    assert out.dtype == dtype
    expected = in_order(x, index, src, dim, True)
    kind = str(dtype).removeprefix("torch.") if dtype.is_floating_point else "float32"
    testing.assert_close(out, expected, length=50, accumulate=kind)
    if not dtype.is_floating_point:
        assert torch.equal(out, torch.scatter_add(x, dim, index, src))


@pytest.mark.parametrize("dim", [0, 1])
def test_without_duplicates_order_says_nothing(dim, device):
    x = torch.randn(8, 8, device=device)
    index = torch.argsort(torch.rand(8, 8, device=device), dim)
    src = torch.randn(8, 8, device=device)
    out = scatter(x, index, src, dim, ordered=False)
    assert torch.equal(out, torch.scatter(x, dim, index, src))
    assert torch.equal(gather(out, index, dim), src)


def test_inputs_are_not_changed(device):
    x, index, src = operands((5, 6), 0, device)
    before = x.clone()
    scatter(x, index, src, 0)
    scatter_add(x, index, src, 0)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("bad", [-1, 12, 2**31 - 1])
@pytest.mark.parametrize("ordered", [True, False])
def test_an_index_outside_reaches_no_memory(dim, bad, ordered, device):
    x, index, src = operands((12, 12), dim, device)
    index[4, 5] = bad
    guard = testing.guard(x)
    fine = index.clone()
    fine[4, 5] = 0
    with testing.guarded():
        out = gather(guard.tensor, index, dim)
        added = scatter_add(guard.tensor, index, src, dim, ordered=ordered)
        scatter(guard.tensor, index, src, dim, ordered=ordered)
    expected = torch.gather(x, dim, fine)
    expected[4, 5] = 0
    assert torch.equal(out, expected)
    src[4, 5] = 0
    testing.assert_close(added, in_order(x, fine, src, dim, True), length=30)
    for call in (
        lambda: gather(x, index, dim, check=True),
        lambda: scatter(x, index, src, dim, check=True),
        lambda: scatter_add(x, index, src, dim, check=True),
    ):
        with pytest.raises(IndexError, match=rf"index\[4, 5\] is {bad}, outside 0 to"):
            call()


def test_a_check_lets_pass_what_is_inside(device):
    x, index, src = operands((5, 6), 1, device)
    assert torch.equal(gather(x, index, 1, check=True), torch.gather(x, 1, index))
    assert torch.equal(
        scatter(x, index[:0], src, 1, check=True), torch.scatter(x, 1, index[:0], src)
    )


@pytest.mark.parametrize("add", [True, False])
def test_only_unordered_programs_race(add, device):
    """Two tiles of rows that name the same row of the result."""
    out, src = torch.zeros(4, 8), torch.ones(8, 8)
    index = torch.zeros(8, 8, dtype=torch.int64)
    sizes = (4, 8, 8, 8, 1, 8, 1, 8, 1)
    seen = microscope.look(
        indexed.unordered_kernel, (2,), out, index, src, *sizes,
        ADD=add, BLOCK_M=4, BLOCK_N=8, raise_error=True,
    )  # fmt: skip
    assert bool(len(seen.races())) == (not add)
    seen = microscope.look(
        indexed.ordered_kernel, (2,), out, index, src, *sizes,
        ADD=add, BLOCK=4, raise_error=True,
    )  # fmt: skip
    assert not len(seen.races())


def test_ordered_repeats_are_equal(device):
    x, index, src = operands((5, 300), 0, device)
    times = 20 if x.is_cuda else 3
    testing.deterministic(lambda: scatter_add(x, index, src, 0), times)
    testing.deterministic(lambda: scatter(x, index, src, 0), times)
    testing.deterministic(lambda: gather(x, index, 0), times)


INDEX = torch.zeros(2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": 3}, TypeError, "x must be a torch.Tensor, got int"),
        ({"x": torch.ones(4)}, ValueError, "2 dimensions|ndim"),
        ({"index": INDEX.float()}, TypeError, "index must be int32 or int64"),
        ({"index": INDEX[0]}, ValueError, "index must have"),
        ({"dim": 2}, ValueError, "dim must be 0 or 1, got 2"),
        ({"index": torch.zeros(2, 9, dtype=torch.int64)}, ValueError, "longer than x"),
        ({"src": torch.ones(2, 2).double()}, TypeError, "src must be float32"),
        ({"src": torch.ones(1, 2)}, ValueError, "longer than src"),
        ({"x": torch.ones(4, 4, requires_grad=True)}, ValueError, "x takes part in a"),
    ],
)
def test_unfit(change, error, message, device):
    given = {"x": torch.ones(4, 4), "index": INDEX, "src": torch.ones(2, 2), "dim": 0}
    given = {
        name: t.to(device) if isinstance(t, torch.Tensor) and t.is_leaf else t
        for name, t in (given | change).items()
    }
    if "requires" not in message and isinstance(given["x"], torch.Tensor):
        given["x"] = given["x"].detach().requires_grad_(given["x"].requires_grad)
    x, index, src, dim = given.values()
    calls = [
        lambda: scatter(x, index, src, dim),
        lambda: scatter_add(x, index, src, dim),
    ]
    if "src" not in change:
        calls.append(lambda: gather(x, index, dim))
    for call in calls:
        with pytest.raises(error, match=message):
            call()


def test_bytes_are_not_summed(device):
    x = torch.zeros(2, 2, dtype=torch.uint8, device=device)
    with pytest.raises(TypeError, match="x must be float16"):
        scatter_add(x, INDEX.to(device), x, 0)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(
    "shape", [*SHAPES, (129, 17), (5, 513), (1025, 3), (3, 1025)], ids=str
)
def test_total(shape, dim, device):
    x = torch.randn(shape, device=device)
    with testing.guarded():
        out = total(x, dim)
    exact = testing.reference(torch.sum, x, dim)
    testing.assert_close(
        out, exact, length=max(1, shape[dim]), scale=x.double().norm(dim=dim)
    )


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", reduce.DTYPES, ids=str)
def test_total_of_every_dtype(dim, dtype, device):
    x = values_of((20, 33), dtype, device).abs()
    out = total(x, dim)
    assert out.dtype == torch.sum(x, dim).dtype
    testing.assert_close(out, testing.reference(torch.sum, x, dim), length=33)


@pytest.mark.parametrize("dim", [0, 1])
def test_total_of_any_strides(dim, device):
    x = torch.rand(19, 40, device=device)
    for _, view in (*testing.layouts(x), *testing.expanded(x)):
        with testing.guarded():
            out = total(view, dim)
        exact = testing.reference(torch.sum, view, dim)
        testing.assert_close(out, exact, length=40)


def test_total_of_special_values(device):
    x = torch.ones(3, 5, device=device)
    x[0, 1], x[1, 2], x[2, 3] = float("inf"), float("nan"), float("-inf")
    for dim in (0, 1):
        out, expected = total(x, dim), torch.sum(x, dim)
        torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def test_total_unfit(device):
    with pytest.raises(TypeError, match=r"x must be .*got bool"):
        total(torch.zeros(2, 2, device=device).bool(), 0)
    with pytest.raises(ValueError, match="x must have"):
        total(torch.zeros(2, device=device), 0)
    with pytest.raises(ValueError, match="dim must be 0 or 1, got -1"):
        total(torch.zeros(2, 2, device=device), -1)
    with pytest.raises(ValueError, match="x takes part in a gradient"):
        total(torch.zeros(2, 2, device=device, requires_grad=True), 0)


def test_total_repeats_are_equal(device):
    x = torch.randn(40, 70, device=device)
    for dim in (0, 1):
        testing.deterministic(lambda dim=dim: total(x, dim), 20 if x.is_cuda else 3)


MISTAKES = [
    (indexed, "tl.store(out_ptr + offs_m * out_m + offs_n * out_n, x, mask=mask)",
     "tl.store(out_ptr + offs_m * out_m + offs_n * out_n, x, mask=inside)"),
    (indexed, "index * x_along + offs_n * x_across", "index * x_across + offs_n"),
    (indexed, "if ADD:\n            src += tl", "if False:\n            src += tl"),
    (indexed, "return x if dim == 0 else x.t()", "return x if dim == 1 else x.t()"),
    (indexed, "ptrs = out_ptr + index * out_along + offs * out_across",
     "ptrs = out_ptr + index * out_along + offs"),
    (indexed, "low >= 0 and high < size", "low >= 0 and high <= size"),
    (reduce, "mask=(offs_k < kept)[:, None] & (offs_s < summed)[None, :]",
     "mask=(offs_k < kept)[:, None] & (offs_s < summed + 1)[None, :]"),
    (reduce, "acc += x.to(ACC)", "acc = x.to(ACC)"),
    (reduce, "view = x.t() if dim == 0 else x", "view = x.t() if dim == 1 else x"),
    (reduce, "offs_s[None, :] * stride_summed", "offs_s[None, :]"),
    (reduce, "tl.zeros((KEPT, SUMMED), ACC)", "tl.zeros((KEPT, SUMMED), ACC) + 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "old", "new"), MISTAKES, ids=lambda x: getattr(x, "__name__", x)
)
def test_planted_mistakes_are_found(where, old, new, device):
    def passes():
        if where is reduce:
            for dim in (0, 1):
                test_total((17, 531), dim, device)
                test_total_of_any_strides(dim, device)
            return
        for dim in (0, 1):
            test_shorter_indices(dim, device)
            test_an_index_outside_reaches_no_memory(dim, 12, True, device)
            test_any_strides(dim, device)

    with testing.mutated_module(where, old, new):
        try:
            passes()
        except (AssertionError, IndexError, pytest.fail.Exception):
            return
    pytest.fail("not found")


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_everywhere(target):
    x, index = meta(1024, 1024), meta(1024, 1024, dtype=torch.int64)
    sizes = (1024, 1024, 1024, 1024, 1, 1024, 1, 1024, 1)
    tile = {"BLOCK_M": indexed.BLOCK_M, "BLOCK_N": indexed.BLOCK_N}
    picked = compile_only.compile(
        indexed.gather_kernel, x, index, x, *sizes, **tile, target=target
    ).evidence
    # The index is read in a row, what it names one by one.
    assert {32, 128} <= set(picked.global_loads)
    ordered = compile_only.compile(
        indexed.ordered_kernel, x, index, x, *sizes,
        ADD=True, BLOCK=indexed.BLOCK, target=target,
    ).evidence  # fmt: skip
    assert not ordered.atomics
    # At least the one that was asked for: rows of a program don't overtake.
    assert ordered.barriers >= 1
    free = compile_only.compile(
        indexed.unordered_kernel, x, index, x, *sizes, **tile, ADD=True, target=target
    ).evidence
    assert free.atomics or target == "gfx942"
    assert not picked.spill_store_bytes
    assert not ordered.spill_store_bytes
    assert not free.spill_store_bytes


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_loads_are_wide_where_neighbours_lie(target):
    """The same kernel; the tile follows the strides, whichever dimension is summed."""
    x = meta(4096, 4096)
    for view in (x, x.t()):
        for tile in (reduce.ALONG, reduce.ACROSS):
            evidence = compile_only.compile(
                reduce.total_kernel, view, meta(4096), 4096, 4096, *view.stride(),
                ACC=torch_float(), KEPT=tile[0], SUMMED=tile[1], target=target,
            ).evidence  # fmt: skip
            assert set(evidence.global_loads) == {128}
            assert evidence.spill_store_bytes == 0
            # Sums of one column are in one thread or few; those of a row cross warps.
        assert reduce.tile_for(view) == (
            reduce.ALONG if view.stride(1) == 1 else reduce.ACROSS
        )


def torch_float():
    return reduce.accumulator(torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [0, 1])
def test_more_than_2_to_the_31_elements(dim, device):
    x = torch.empty((2**16, 2**15 + 4), dtype=torch.uint8, device=device)
    x.random_(0, 256)
    assert torch.equal(total(x, dim), torch.sum(x, dim))
    rows = torch.tensor([[0, 1], [2**16 - 1, 5]], device=device)
    index = rows if dim == 0 else rows.clamp(max=2**15 + 3)
    assert torch.equal(gather(x, index, dim), torch.gather(x, dim, index))
