"""`topk`: values, indices, ties, rows of any length, and the sorting beneath it."""

import math

import hypothesis.strategies as st
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given

from tilebook import device as here
from tilebook import testing
from tilebook.softmax import axes, groups, sorting, topk
from tilebook.softmax.topk import topk as ours
from tilebook.softmax.topk import topk_operator

INF, NAN = math.inf, math.nan


def expected(x, k):
    """A stable sort: NaN first, equal elements in their order."""
    wide = x.double() if x.is_floating_point() else x.long()
    return torch.sort(wide, dim=-1, descending=True, stable=True).indices[..., :k]


def assert_right(x, k):
    with testing.guarded():
        values, indices = ours(x, k)
    want = expected(x, k)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, want)
    assert values.dtype == x.dtype
    taken = x.gather(-1, want)
    assert torch.equal(
        values.contiguous().view(torch.uint8), taken.contiguous().view(torch.uint8)
    )


@pytest.fixture
def small(monkeypatch):
    """Programs that sort few keys, so that short rows take several."""
    monkeypatch.setattr(axes, "MOST_WARPS", 1)
    monkeypatch.setattr(axes, "WARP_BYTES", 256)
    monkeypatch.setattr(axes, "MOST_BYTES", 256)
    monkeypatch.setattr(axes, "LINE_BYTES", 32)
    monkeypatch.setattr(axes, "LEAST_VECTORS", 1)
    monkeypatch.setattr(axes, "IN_FLIGHT_BYTES", 4096)
    monkeypatch.setattr(groups, "WARP_KEYS", 64)


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        pytest.param((3, 33), 4, marks=pytest.mark.sanitize),
        *(((1,), 1), ((5,), 5), ((3, 100), 8), ((2, 3, 17), 3), ((4, 65), 1)),
        *(((2, 300), 100), ((1, 128), 128), ((0, 4), 2), ((2, 9), 0), ((3, 0), 0)),
    ],
    ids=str,
)
def test_any_shape(shape, k, device):
    assert_right(torch.randn(shape, device=device), k)


@pytest.mark.parametrize(("n", "k"), [(150, 3), (301, 8), (1000, 5)])
def test_rows_of_several_tiles_and_parts(n, k, small, device):
    assert_right(torch.randn(1, n, device=device), k)
    assert_right(torch.randn(2, n + 1, device=device)[:, 1:], k)


@pytest.mark.parametrize(
    "dtype", [d for d in topk.DTYPES if d != torch.float32], ids=str
)
def test_every_dtype(dtype, device):
    if dtype.is_floating_point:
        assert_right(torch.randn(2, 90, device=device).to(dtype), 8)
        return
    info = torch.iinfo(dtype)
    x = torch.randint(info.min, info.max, (2, 90), device=device, dtype=dtype)
    x[0, 17] = info.max
    x[1] = info.min
    assert_right(x, 8)


@pytest.mark.parametrize("n", [40, 200])
def test_of_equal_elements_the_first(n, small, device):
    assert_right(torch.randint(0, 3, (2, n), device=device).float(), 7)
    assert_right(torch.full((1, n), -INF, device=device), 5)
    assert_right(torch.zeros(1, n, device=device), 5)


def test_infinities_nan_and_signs_of_zero(small, device):
    x = torch.tensor([1.0, NAN, INF, 3.0, NAN, -0.0, 0.0, -INF], device=device)
    rows = torch.stack([x, x.flip(0), torch.full_like(x, NAN)])
    for k in (1, 3, 8):
        assert_right(rows, k)
    assert_right(torch.cat([torch.zeros(3, 90, device=device), rows], 1), 6)


@pytest.mark.parametrize(
    ("dtype", "n", "start"),
    [(torch.bfloat16, 128, 4), (torch.float32, 65, 2), (torch.int32, 64, 2)],
    ids=str,
)
def test_the_least_number_and_no_element_twice(dtype, n, start, device):
    """A row that starts anywhere, all wanted: its last elements are few to a vector."""
    low = -INF if dtype.is_floating_point else torch.iinfo(dtype).min
    x = torch.randn(n + 8, device=device).mul(10).to(dtype)[start : start + n]
    x[-3:] = x[5::7] = low
    x[120 if n == 128 else 62] = 5
    assert_right(x, n)


def test_any_strides(device):
    x = torch.randn(4, 37, device=device)
    for _, view in (*testing.layouts(x), *testing.expanded(x)):
        assert_right(view, 3)
    cube = torch.randn(5, 3, 40, device=device)
    for view in (cube.transpose(0, 1), cube[:, :, ::2], cube.permute(2, 0, 1)):
        assert_right(view, 2)


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=70),
    k=st.integers(1, 16),
)
def test_any_values(values, k):
    x = torch.tensor(values, dtype=torch.float32, device=here.torch_device())
    assert_right(x, min(k, len(values)))


def test_the_gradient_goes_where_the_values_came_from(device):
    x = torch.randn(3, 40, device=device, requires_grad=True)
    weights = torch.randn(3, 4, device=device)
    values, indices = ours(x, 4)
    assert not indices.requires_grad
    (values * weights).sum().backward()
    want = torch.zeros_like(x).scatter(-1, expected(x.detach(), 4), weights)
    assert torch.equal(x.grad, want)


def test_registration(device):
    testing.opcheck(topk_operator, torch.randn(2, 9, device=device), 2)
    x = torch.randn(2, 9, device=device, requires_grad=True)
    compiled = torch.compile(
        lambda x: ours(2 * x, 3), fullgraph=True, backend="aot_eager"
    )
    values, indices = compiled(x)
    assert torch.equal(indices, expected(x.detach(), 3))
    values.sum().backward()
    assert float(x.grad.sum()) == 12.0


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: ours([1.0], 1), TypeError, "x must be a torch.Tensor, got list"),
        (lambda x: ours(x.double(), 1), TypeError, "x must be .*int32, got float64"),
        (lambda x: ours(x[0, 0], 1), ValueError, "x must have at least 1 dimension"),
        (lambda x: ours(x, 6), ValueError, "k must be at most 5 for rows of 5, got 6"),
        (lambda x: ours(x, -1), ValueError, "k must be at least 0"),
        (lambda x: ours(x, 1.0), TypeError, "k must be an int"),
        (lambda x: ours(x[:, :1].expand(3, 300), 129), ValueError, "at most 128"),
        (lambda x: ours(x.to("meta"), 1), ValueError, "x must be on"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, match, device):
    with pytest.raises(error, match=match):
        call(torch.ones(3, 5, device=device))


@triton.jit
def top_kernel(
    x_ptr, out_ptr, ROWS: tl.constexpr, LOG_K: tl.constexpr, LOG: tl.constexpr
):
    offs = tl.arange(0, ROWS)[:, None] * 2**LOG + tl.arange(0, 2**LOG)[None, :]
    key = sorting.top(tl.load(x_ptr + offs), ROWS, LOG_K, LOG)
    offs = tl.arange(0, ROWS)[:, None] * 2**LOG_K + tl.arange(0, 2**LOG_K)[None, :]
    tl.store(out_ptr + offs, key)


@pytest.mark.parametrize(
    ("rows", "log_k", "log"), [(1, 0, 3), (1, 3, 3), (2, 0, 0), (4, 2, 5), (2, 4, 5)]
)
def test_sorting_keys_of_64_bits(rows, log_k, log, device):
    """Of either sign and up to the ends, where sums of two wrap around."""
    info = torch.iinfo(torch.int64)
    key = torch.randint(info.min, info.max, (rows, 2**log), device=device)
    key[0, 0], key[-1, -1] = info.min, info.max
    out = key.new_empty((rows, 2**log_k))
    top_kernel[(1,)](key, out, ROWS=rows, LOG_K=log_k, LOG=log)
    assert torch.equal(out, torch.sort(key, descending=True).values[:, : 2**log_k])


@pytest.mark.parametrize("k", [1, 8, 128])
@pytest.mark.parametrize("n", [128, 1000, 4096, 131072, 2**24])
def test_programs_sort_what_they_can_hold(k, n):
    seen = axes.view(torch.empty((8, n), device="meta"), 1)
    plan = groups.plan_for(seen, k)
    found = groups.sides(plan.meta["TERMS"], plan.args[3], k, 4)
    most = groups.room_for(k)
    assert plan.meta["KEPT"] * plan.meta["TERMS"] <= most
    assert found["LOG_GROUPS"] >= found["LOG_K"]
    candidates = 1 << found["LOG_K"] + found["LOG_WIDTH"]
    assert plan.meta["KEPT"] * candidates <= most
    tiles = -(-plan.args[3] // plan.meta["TERMS"])
    members = 1 << found["LOG_GROUPS"] + found["LOG_WIDTH"]
    assert members >= plan.meta["TERMS"] * tiles
    assert plan.parts * plan.args[3] >= n > (plan.parts - 1) * plan.args[3]


def test_repeats_are_equal(small, device):
    x = torch.randn(2, 200, device=device).bfloat16()
    testing.deterministic(lambda: ours(x, 5), 3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", topk.DTYPES, ids=str)
@pytest.mark.parametrize("n", [1000, 4097, 50257, 131072])
def test_on_a_gpu(n, dtype, device):
    x = torch.randn(37, n, device=device)
    x = (x * 30).to(dtype) if not dtype.is_floating_point else x.to(dtype)
    for k in (1, 8, 50, 128):
        assert_right(x, k)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("shape", [(1, 2**31 + 100), (2**21 + 1, 1024)], ids=str)
def test_more_than_2_to_the_31_elements(shape, device):
    x = torch.zeros(shape, dtype=torch.bfloat16, device=device)
    x[-1, -3], x[-1, -5], x[-1, 7] = 3.0, 2.0, 1.0
    values, indices = ours(x, 4)
    assert values[-1].tolist() == [3.0, 2.0, 1.0, 0.0]
    assert indices[-1].tolist() == [shape[1] - 3, shape[1] - 5, 7, 0]


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1000, 131072])
def test_20_repeats_on_a_gpu(n, device):
    x = torch.randn(64, n, device=device).bfloat16()
    testing.deterministic(lambda: ours(x, 8))
