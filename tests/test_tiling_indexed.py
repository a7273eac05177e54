"""Gathering and scattering along either dimension."""

from unittest import mock

import pytest
import torch

from tilebook import compile_only, microscope, testing
from tilebook.tiling import indexed, indices, scattering
from tilebook.tiling.indexed import gather, scatter, scatter_add

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
        out = gather(guard.tensor, dim, index)
    guard.check()
    assert torch.equal(out, torch.gather(x, dim, index))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float8_e5m2, torch.bfloat16, torch.int32, torch.float64]
)
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_gather_any_dtype(dtype, kind, device):
    x, index, _ = operands((9, 20), 1, device, dtype, kind)
    out = gather(x, 1, index)
    expected = torch.gather(x.to(torch.float64), 1, index.long())
    assert out.dtype == dtype
    assert torch.equal(out.to(torch.float64), expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_any_strides(dim, device):
    x, index, src = operands((3, 5), dim, device)
    for (_, a), (_, b), (_, c) in zip(
        testing.layouts(x), testing.layouts(index), testing.layouts(src), strict=False
    ):
        for first, second, third in ((a, index, src), (x, b, src), (x, index, c)):
            with testing.guarded():
                assert torch.equal(
                    gather(first, dim, second), torch.gather(first, dim, second)
                )
                out = scatter_add(first, dim, second, third)
            expected = in_order(first, second, third, dim, True)
            testing.assert_close(out, expected, length=20, dtype=torch.float32)
    one = index[:1, :1].expand(index.shape)
    assert torch.equal(gather(x, dim, one), torch.gather(x, dim, one))


@pytest.mark.parametrize("dim", [0, 1])
def test_shorter_indices(dim, device):
    x, index, src = operands((9, 10), dim, device)
    part = index[:3, :4].contiguous()
    assert torch.equal(gather(x, dim, part), torch.gather(x, dim, part))
    assert torch.equal(scatter(x, dim, part, src), in_order(x, part, src, dim, False))
    for ordered in (True, False):
        out = scatter_add(x, dim, part, src, ordered=ordered)
        testing.assert_close(out, in_order(x, part, src, dim, True), length=9)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_last_of_several_stays(shape, dim, device):
    x, index, src = operands(shape, dim, device)
    if index.numel() > 1000:
        index = index[:41, :41]
    with testing.guarded():
        out = scatter(x, dim, index, src)
    assert torch.equal(out.double(), in_order(x, index, src, dim, False))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", indexed.SUMMED, ids=str)
@pytest.mark.parametrize("ordered", [True, False])
def test_sums(dim, dtype, ordered, device):
    x, index, src = operands((6, 21), dim, device, dtype)
    # All of one sign, so that a sum is no smaller than its terms.
    x, src = x.abs(), src.abs()
    with testing.guarded():
        out = scatter_add(x, dim, index, src, ordered=ordered)
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
    out = scatter(x, dim, index, src, ordered=False)
    assert torch.equal(out, torch.scatter(x, dim, index, src))
    assert torch.equal(gather(out, dim, index), src)


def test_inputs_are_not_changed(device):
    x, index, src = operands((5, 6), 0, device)
    before = x.clone()
    scatter(x, 0, index, src)
    scatter_add(x, 0, index, src)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("bad", [-1, 6, 2**31 - 1])
@pytest.mark.parametrize("ordered", [True, False])
def test_an_index_outside_reaches_no_memory(dim, bad, ordered, device):
    x, index, src = operands((6, 6), dim, device)
    index[4, 5] = bad
    guard = testing.guard(x)
    fine = index.clone()
    fine[4, 5] = 0
    with testing.guarded():
        out = gather(guard.tensor, dim, index)
        added = scatter_add(guard.tensor, dim, index, src, ordered=ordered)
        scatter(guard.tensor, dim, index, src, ordered=ordered)
    expected = torch.gather(x, dim, fine)
    expected[4, 5] = 0
    assert torch.equal(out, expected)
    src[4, 5] = 0
    testing.assert_close(added, in_order(x, fine, src, dim, True), length=30)
    for call in (
        lambda: gather(x, dim, index, check=True),
        lambda: scatter(x, dim, index, src, check=True),
        lambda: scatter_add(x, dim, index, src, check=True),
    ):
        with pytest.raises(IndexError, match=rf"index\[4, 5\] is {bad}, outside 0 to"):
            call()


def test_a_check_lets_pass_what_is_inside(device):
    x, index, src = operands((5, 6), 1, device)
    assert torch.equal(gather(x, 1, index, check=True), torch.gather(x, 1, index))
    assert torch.equal(
        scatter(x, 1, index[:0], src, check=True), torch.scatter(x, 1, index[:0], src)
    )


@pytest.mark.parametrize("add", [True, False])
def test_only_unordered_programs_race(add, device):
    """Two tiles of rows that name the same row of the result."""
    out, src = torch.zeros(4, 8), torch.ones(8, 8)
    index = torch.zeros(8, 8, dtype=torch.int64)
    sizes = (4, 8, 8, 8, 1, 8, 1, 8, 1)
    seen = microscope.look(
        scattering.unordered_kernel, (2,), out, index, src, *sizes,
        ADD=add, BLOCK_M=4, BLOCK_N=8, raise_error=True,
    )  # fmt: skip
    assert bool(len(seen.races())) == (not add)
    seen = microscope.look(
        scattering.ordered_kernel, (2,), out, index, src, *sizes,
        ADD=add, BLOCK=4, raise_error=True,
    )  # fmt: skip
    assert not len(seen.races())


def test_ordered_repeats_are_equal(device):
    x, index, src = operands((5, 40), 0, device)
    times = 20 if x.is_cuda else 3
    testing.deterministic(lambda: scatter_add(x, 0, index, src), times)
    testing.deterministic(lambda: scatter(x, 0, index, src), times)
    testing.deterministic(lambda: gather(x, 0, index), times)


INDEX = torch.zeros(2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": 3}, TypeError, "x must be a torch.Tensor, got int"),
        ({"x": torch.ones(4)}, ValueError, "2 dimensions|ndim"),
        ({"index": INDEX.float()}, TypeError, "index must be int32 or int64"),
        ({"index": INDEX[0]}, ValueError, "index must have"),
        ({"dim": 2}, ValueError, "dim must be 0, 1, -2 or -1, got 2"),
        ({"index": torch.zeros(2, 9, dtype=torch.int64)}, ValueError, "longer than x"),
        ({"src": torch.ones(2, 2).double()}, TypeError, "src must be float32"),
        ({"src": torch.ones(1, 2)}, ValueError, "longer than src"),
        ({"dim": True}, ValueError, "dim must be .*, got True"),
    ],
)
def test_unfit(change, error, message, device):
    given = {"x": torch.ones(4, 4), "index": INDEX, "src": torch.ones(2, 2), "dim": 0}
    given = {
        name: t.to(device) if isinstance(t, torch.Tensor) else t
        for name, t in (given | change).items()
    }
    x, index, src, dim = given.values()
    calls = [
        lambda: scatter(x, dim, index, src),
        lambda: scatter_add(x, dim, index, src),
    ]
    if "src" not in change:
        calls.append(lambda: gather(x, dim, index))
    for call in calls:
        with pytest.raises(error, match=message):
            call()


def test_bytes_are_not_summed(device):
    x = torch.zeros(2, 2, dtype=torch.uint8, device=device)
    with pytest.raises(TypeError, match="x must be float16"):
        scatter_add(x, 0, INDEX.to(device), x)


def shapes_and_strides(device):
    for dim in (0, 1):
        test_shorter_indices(dim, device)
        test_gather((5, 20), dim, device)
        test_the_last_of_several_stays((3, 40), dim, device)
    test_gather((5, 300), 1, device)
    test_sums(1, torch.int32, True, device)
    test_sums(0, torch.int32, False, device)


def indices_outside(device):
    test_an_index_outside_reaches_no_memory(0, 6, True, device)


MISTAKES = [
    (indexed, "gather_kernel", "offs_n * out_n, x, mask=mask", "offs_n, x, mask=mask"),
    (indexed, "gather_kernel", "offs_n * x_across", "offs_n"),
    (indexed, "gather_kernel", "(offs_m < m) & (offs_n < n)", "(offs_m < m)"),
    (indexed, "gather_kernel", "x, mask=mask)", "x, mask=inside)"),
    (indexed, "_gathered", "*source.stride(), *where", "*where.stride(), *where"),
    (indexed, "_placed", "device=x.device).copy_(x)", "device=x.device).zero_()"),
    (indices, "turned", "return [x if dim == 0", "return [x if dim == 1"),
    (indices, "tiles", "return triton.cdiv(m, ", "return max(1, m // "),
    (indices, "check_values", "high < size", "high <= size"),
    (scattering, "ordered_kernel", "src += tl.load", "src -= tl.load"),
    (scattering, "ordered_kernel", "if ADD:", "if not ADD:"),
    (scattering, "ordered_kernel", "offs * out_across", "offs"),
    (scattering, "ordered_kernel", "tl.cast(i,", "tl.cast(m - 1 - i,"),
    (scattering, "unordered_kernel", "tl.atomic_add", "tl.atomic_max"),
    (scattering, "unordered_kernel", "offs_m * src_m", "offs_m * index_m"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "name", "old", "new"), MISTAKES, ids=lambda x: getattr(x, "__name__", x)
)
def test_planted_mistakes_are_found(where, name, old, new, device):
    ((_, mutant),) = testing.mutants(getattr(where, name), {"planted": (old, new)})
    outside = name == "check_values" or "inside" in new
    with (
        mock.patch.object(where, name, mutant),
        pytest.raises((AssertionError, IndexError, pytest.fail.Exception)),
    ):
        (indices_outside if outside else shapes_and_strides)(device)


def test_without_a_mistake_the_same_tests_pass(device):
    shapes_and_strides(device)
    indices_outside(device)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_everywhere(target):
    x, index = meta(1024, 1024), meta(1024, 1024, dtype=torch.int64)
    sizes = (1024, 1024, 1024, 1024, 1, 1024, 1, 1024, 1)
    tile = indices.tile_for(index)
    picked = compile_only.compile(
        indexed.gather_kernel, x, index, x, *sizes, **tile, target=target
    ).evidence
    # The index is read in a row, what it names one by one.
    assert {32, 128} <= set(picked.global_loads)
    free = compile_only.compile(
        scattering.unordered_kernel,
        *(x, index, x, *sizes),
        **tile,
        ADD=True,
        target=target,
    ).evidence
    assert free.atomics or target == "gfx942"
    assert picked.spill_store_bytes == free.spill_store_bytes == 0


@pytest.mark.parametrize("target", TARGETS)
def test_who_reads_an_element_in_order_has_written_it(target):
    """Nothing passes from thread to thread, whatever a barrier is worth there."""
    x, index = meta(1024, 1024), meta(1024, 1024, dtype=torch.int64)
    for strides in ((1024, 1), (1, 1024)):
        ordered = compile_only.compile(
            scattering.ordered_kernel,
            *(x, index, x, 1024, 1024, 1024, *strides * 3),
            ADD=True,
            BLOCK=scattering.BLOCK,
            num_warps=scattering.WARPS,
            target=target,
        ).evidence
        assert not ordered.shared_bytes
        assert not ordered.atomics
        # A wave of AMD's needs none.
        assert ordered.barriers == (target != "gfx942")
        assert ordered.spill_store_bytes == 0


def test_a_tile_lies_along_the_neighbours_and_within_the_index():
    for m, n in ((1024, 1024), (3, 5000), (5000, 3), (1, 1), (1, 10**6), (600, 1)):
        wide = indices.tile_for(meta(m, n))
        tall = indices.tile_for(meta(n, m).t())
        for tile in (wide, tall):
            assert tile["BLOCK_M"] < 2 * m
            assert tile["BLOCK_N"] < 2 * n
            assert tile["BLOCK_M"] * tile["BLOCK_N"] <= 1024
        if n >= 256:
            assert wide["BLOCK_N"] >= 256
        if m >= 256:
            assert tall["BLOCK_M"] >= 256


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("dim", [0, 1])
def test_more_than_2_to_the_31_elements(dim, device):
    x = torch.empty((2**16, 2**15 + 4), dtype=torch.uint8, device=device)
    x.random_(0, 256)
    rows = torch.tensor([[0, 1], [2**16 - 1, 5]], device=device)
    index = rows if dim == 0 else rows.clamp(max=2**15 + 3)
    assert torch.equal(gather(x, dim, index), torch.gather(x, dim, index))
