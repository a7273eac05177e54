"""float32 as three products of bfloat16, and what sums in float16 lose."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.matmul import precision
from tilebook.matmul.operands import Task
from tilebook.matmul.precision import bf16x3, half_accumulated

SMALL = precision.Config(16, 16, 16, 4, 2, 2)
SHAPES = [(1, 1, 1), (17, 33, 70), (5, 3, 128), (33, 2, 31)]
INF = float("inf")


def operands(m, n, k, dtype, device):
    a = torch.randn(m, k, device=device).to(dtype)
    return a, torch.randn(k, n, device=device).to(dtype)


def worst(out, a, b):
    """The largest error as a multiple of the sum of the terms' magnitudes."""
    a, b = a.double(), b.double()
    return float(((out.double() - a @ b).abs() / (a.abs() @ b.abs())).max())


def run(a, b, config=SMALL):
    with testing.guarded():
        out = torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device=a.device)
        precision.launch(Task(a, b, out), config)
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_three_products_keep_their_bound(shape, device):
    a, b = operands(*shape, torch.float32, device)
    limit = precision.THREE_PRODUCTS + (shape[2] + 2) * 2.0**-24
    for out in (run(a, b), bf16x3(a, b)):
        assert worst(out, a, b) <= limit
    # One product alone is as bad as bfloat16.
    single = a.bfloat16().float() @ b.bfloat16().float()
    if shape[2] > 1:
        assert worst(bf16x3(a, b), a, b) * 20 < worst(single, a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_sums_keep_their_bound(shape, device):
    a, b = operands(*shape, torch.float16, device)
    limit = (shape[2] + 1) * 2.0**-11
    for out in (run(a, b), half_accumulated(a, b)):
        assert worst(out, a, b) <= limit


def test_what_half_sums_lose(device):
    """A sum that has reached 2,048 no longer notices a one."""
    a = torch.ones(16, 4096, dtype=torch.float16, device=device)
    a[:, :16] = 128
    b = torch.zeros(4096, 16, dtype=torch.float16, device=device)
    b[::16] = 1
    b[:16] = 1
    exact = 16 * 128 + 255
    assert (run(a, b) == 2048).all()
    assert exact == (a.double() @ b.double())[0, 0]
    # Beyond 65,504 there is nothing but infinity.
    full = torch.full((16, 32), 128.0, dtype=torch.float16, device=device)
    assert torch.isinf(half_accumulated(full, full.t().contiguous())).all()


@pytest.mark.parametrize("power", [-4, 4])
def test_magnitudes(power, device):
    a, b = operands(5, 18, 40, torch.float32, device)
    limit = precision.THREE_PRODUCTS + 42 * 2.0**-24
    assert worst(run(a * 10.0**power, b), a * 10.0**power, b) <= limit
    small = a * 10.0**power, b * 10.0**-power
    assert worst(run(*small), *small) <= limit


def test_nan_and_infinities(device):
    a, b = operands(6, 20, 40, torch.float32, device)
    a[0, 3], a[1, 39], a[2, 0], b[5, 19] = float("nan"), INF, -INF, INF
    b[3, 0], a[3, 5] = 0.0, 0.0
    out, expected = run(a, b), a.double() @ b.double()
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())
    infinite = expected.isinf()
    assert torch.equal(out[infinite] > 0, expected[infinite] > 0)
    half = run(a.half(), b.half())
    assert torch.equal(half.isnan(), (a.half().double() @ b.half().double()).isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_any_strides(dtype, device):
    fn = bf16x3 if dtype == torch.float32 else half_accumulated
    a, b = operands(5, 7, 20, dtype, device)
    limit = 21 * 2.0**-11 if dtype == torch.float16 else 2.0**-14
    for x in (dict(testing.layouts(a)) | dict(testing.expanded(a))).values():
        assert worst(fn(x, b), x, b) <= limit
    for x in (dict(testing.layouts(b)) | dict(testing.expanded(b))).values():
        assert worst(fn(a, x), a, x) <= limit


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)], ids=str)
def test_empty(shape, device):
    out = bf16x3(*operands(*shape, torch.float32, device))
    assert out.shape == shape[:2]
    assert not out.any()


def test_the_same_bits_each_time(device):
    a, b = operands(20, 20, 70, torch.float32, device)
    testing.deterministic(lambda: bf16x3(a, b), here.sizes(20, 2))
    a, b = a.half(), b.half()
    testing.deterministic(lambda: half_accumulated(a, b), here.sizes(20, 2))


def test_refusals(device):
    a = torch.ones(3, 4, device=device)
    with pytest.raises(TypeError, match="a must be float32, got float16"):
        bf16x3(a.half(), a.t().half())
    with pytest.raises(TypeError, match="a must be float16, got float32"):
        half_accumulated(a, a.t())
    with pytest.raises(TypeError, match="b must have the dtype of a"):
        bf16x3(a, a.t().half())
    with pytest.raises(ValueError, match="as many columns as b has rows"):
        bf16x3(a, a)
    with pytest.raises(ValueError, match="a must have 2 dimensions, got 1"):
        bf16x3(a[0], a)


MISTAKES = [
    ("small = tl.dot(a_high, b_rest)", "small = tl.dot(a_high, b_high) * 0.0"),
    ("small = tl.dot(a_rest, b_high, small)", "small = tl.dot(a_rest, b_rest, small)"),
    ('float("inf"), x - high, 0.0)', 'float("inf"), high - x, 0.0)'),
    ('tl.where(tl.abs(small) < float("inf"), small, 0.0)', "small"),
    ("tl.zeros((BLOCK_M, BLOCK_N), tl.float16 if HALF else tl.float32)",
     "tl.full((BLOCK_M, BLOCK_N), 1.0, tl.float16 if HALF else tl.float32)"),
    ("mask=(offs_k < k)[:, None] & in_n", "mask=(offs_k < k + 1)[:, None] & in_n"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    with testing.mutated_module(precision, old, new):
        try:
            test_three_products_keep_their_bound((17, 33, 70), device)
            test_nan_and_infinities(device)
        except (AssertionError, IndexError, RuntimeError):
            return
    raise AssertionError("not found")


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_machine_code(dtype, target):
    caught = []

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *args, **meta: caught.append((self.kernel, args, meta))

    x = torch.empty(4096, 4096, dtype=dtype, device="meta")
    precision.launch(Task(x, x, x, wrap=Recorder))
    ((kernel, args, meta),) = caught
    if target.startswith("gfx"):
        meta = {**meta, "num_stages": 2}
    found = compile_only.compile(kernel, *args, target=target, **meta).evidence
    assert not max(found.spill_store_bytes, found.spill_load_bytes)
    # For sums in float16 ptxas adds the wait before they are stored itself.
    allowed = {"C7517"} if (dtype, target) == (torch.float16, "sm_90") else set()
    assert {notice.code for notice in found.warnings} <= allowed
    # Eight instructions of half the terms, or two for each of three products.
    if target == "sm_90":
        assert found.mma["wgmma"] == (8 if dtype == torch.float16 else 6)


@pytest.mark.gpu
def test_sizes_of_the_experiments(device):
    for m, n, k in ((512, 512, 4096), (1000, 257, 515)):
        a, b = operands(m, n, k, torch.float32, device)
        limit = precision.THREE_PRODUCTS + k * 2.0**-24
        assert worst(testing.deterministic(lambda a=a, b=b: bf16x3(a, b)), a, b) < limit
        a, b = a.half(), b.half()
        narrow, wide = half_accumulated(a, b), a @ b
        assert worst(wide, a, b) < worst(narrow, a, b) <= k * 2.0**-11
