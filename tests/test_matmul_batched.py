"""Batches of products in one launch: broadcasting, strides, many batch dimensions."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.matmul import batched
from tilebook.matmul.operands import DTYPES, result_dtype

SMALL = batched.Config(16, 16, 32, 4, 2, 2)


def operand(shape, dtype=torch.float32, device="cpu"):
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=dtype, device=device)
    return torch.randn(shape, device=device).to(dtype)


def assert_right(out, a, b, operand=None):
    k = a.shape[-1] + 2
    size = a.double().abs() @ b.double().abs()
    assert out.dtype == result_dtype(a.dtype)
    testing.assert_close(
        out,
        a.double() @ b.double(),
        length=k,
        factor=k,
        scale=size.nan_to_num(posinf=0),
        operand=operand,
    )


def run(a, b, config=SMALL):
    with testing.guarded():
        shape = (a.double() @ b.double()).shape
        out = torch.empty(shape, dtype=result_dtype(a.dtype), device=a.device)
        batched.launch(a, b, out, config=config)
    assert_right(out, a, b)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param((2, 17, 33), (2, 33, 19), marks=pytest.mark.sanitize),
        *(((2, 3, 5, 7), (3, 7, 4)), ((5, 7), (3, 7, 4)), ((3, 5, 7), (7, 4))),
        *(((1, 1, 1), (1, 1, 1)), ((2, 1, 20, 65), (1, 3, 65, 18))),
        *(((5, 7), (7, 4)), ((2, 1, 2, 1, 3, 4), (1, 3, 1, 2, 4, 5))),
        *(((2, 3, 0), (2, 0, 4)), ((0, 3, 4), (4, 5)), ((2, 0, 4), (2, 4, 3))),
    ],
    ids=str,
)
def test_any_shape(left, right, device):
    a, b = (testing.guard(operand(s, device=device)) for s in (left, right))
    run(a.tensor, b.tensor)
    a.check()
    b.check()
    with testing.guarded():
        out = batched.matmul(a.tensor, b.tensor, precision="ieee")
    assert_right(out, a.tensor, b.tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, device):
    a, b = operand((2, 17, 70), dtype, device), operand((2, 70, 20), dtype, device)
    run(a, b)
    run(a, b, None)
    run(a[..., :64], b[:, :64])


def test_tf32(device):
    a, b = operand((2, 5, 70), device=device), operand((2, 70, 20), device=device)
    assert_right(batched.matmul(a, b, precision="tf32"), a, b, "tf32")


def test_any_strides(device):
    a, b = operand((2, 3, 5, 9), device=device), operand((2, 3, 9, 7), device=device)
    for x in (dict(testing.layouts(a)) | dict(testing.expanded(a))).values():
        run(x, b)
    for x in (dict(testing.layouts(b)) | dict(testing.expanded(b))).values():
        run(a, x)
    run(a.transpose(0, 1), b.transpose(0, 1)[:, ::2])
    heads = operand((2, 6, 3, 8), device=device).transpose(1, 2)
    run(heads, heads.mT)


@settings(max_examples=15)
@given(
    batch=st.lists(st.integers(1, 3), max_size=4),
    one=st.integers(0, 15),
    other=st.integers(0, 15),
    order=st.permutations(range(4)),
)
def test_views_of_any_kind(batch, one, other, order):
    """Each dimension broadcast or not, in any order in memory."""
    device = here.torch_device()

    def made(matrix, mask):
        sizes = [1 if mask >> i & 1 else size for i, size in enumerate(batch)]
        own = [d for d in order if d < len(batch)]
        x = torch.randn([sizes[d] for d in own] + matrix, device=device)
        back = [own.index(d) for d in range(len(batch))]
        return x.permute(*back, len(batch), len(batch) + 1)

    run(made([3, 4], one), made([4, 2], other))


def test_dimensions_are_joined_where_one_stride_will_do():
    a = torch.empty(2, 3, 4, 5, 6, device="meta")
    b = torch.empty(2, 3, 4, 6, 7, device="meta")
    assert batched.collapsed(a, b) == ([24], [30], [42])
    shared = b[:, :1].expand(2, 3, 4, 6, 7)
    assert batched.collapsed(a, shared)[0] == [2, 3, 4]
    everywhere = torch.empty(6, 7, device="meta").expand(2, 3, 4, 6, 7)
    assert batched.collapsed(a, everywhere) == ([24], [30], [0])
    assert batched.collapsed(a[:1, :1, :1], b[:1, :1, :1]) == ([], [], [])


def test_nan_and_infinities(device):
    a, b = operand((2, 3, 40), device=device), operand((2, 40, 4), device=device)
    a[0, 1, 39], b[1, 3, 2] = float("nan"), float("inf")
    run(a, b)


def test_the_same_bits_each_time(device):
    a, b = operand((3, 20, 70), device=device), operand((70, 20), device=device)
    testing.deterministic(lambda: batched.matmul(a, b), here.sizes(20, 2))


def test_refusals(device):
    a = torch.ones(2, 3, 4, device=device)
    with pytest.raises(ValueError, match="a must have at least 2 dimensions, got 1"):
        batched.matmul(a[0, 0], a)
    with pytest.raises(
        ValueError, match=r"batch dimensions of b .* \(2,\), got \(3,\)"
    ):
        batched.matmul(a, torch.ones(3, 4, 5, device=device))
    with pytest.raises(ValueError, match="as many columns as b has rows, got 4 and 3"):
        batched.matmul(a, a)
    with pytest.raises(TypeError, match="b must have the dtype of a"):
        batched.matmul(a, a.mT.half())
    with pytest.raises(TypeError, match=r"a must be .* got float64"):
        batched.matmul(a.double(), a.mT)
    with pytest.raises(ValueError, match="precision must be"):
        batched.matmul(a, a.mT, precision="best")


MISTAKES = [
    ("stride_b1, stride_b2, stride_o", "stride_b2, stride_b1, stride_o"),
    ("at_0 * stride_a0 + at_1 * stride_a1", "at_0 * stride_a0 + at_2 * stride_a1"),
    ("(batch % size_2)", "(batch % size_1)"),
    ("(step_a * size, step_b * size)", "(step_a * size, along_b[-1])"),
    ("along_a[-1], along_b[-1] = step_a, step_b", "along_a[-1] = step_a"),
    ("mask=(offs_m < m)[:, None] &", "mask=(offs_m <= m)[:, None] &"),
    ("        if size == 1:\n", "        if size == 2:\n"),
]  # fmt: skip


def suite(device):
    """What the tests above look at, on a few small cases."""
    a, b = operand((3, 2, 4, 5, 9), device=device), operand((2, 1, 9, 7), device=device)
    run(a, b)
    run(
        operand((2, 2, 3, 4, 5), device=device), operand((2, 2, 3, 5, 4), device=device)
    )
    run(a[:, 0, ::2], operand((3, 2, 9, 7), device=device))
    run(a[:, 0, :1], b[:1])


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    assert testing.caught(batched, old, new, suite, device)


def test_without_a_mistake_the_same_tests_pass(device):
    suite(device)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_machine_code(target):
    caught = []

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *args, **meta: caught.append((self.kernel, args, meta))

    bf16 = {"dtype": torch.bfloat16, "device": "meta"}
    a = torch.empty(8, 1024, 512, **bf16)
    for b in (torch.empty(8, 512, 512, **bf16), torch.empty(512, 512, **bf16).t()):
        batched.launch(a, b, torch.empty(8, 1024, 512, **bf16), wrap=Recorder)
    for kernel, args, meta in caught:
        if target.startswith("gfx"):
            meta = {**meta, "num_stages": 2}
        found = compile_only.compile(kernel, *args, target=target, **meta).evidence
        assert not max(found.spill_store_bytes, found.spill_load_bytes)
        assert not found.warnings
        assert target != "sm_90" or ("wgmma" in found.mma and found.async_copies)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes_of_the_experiments(dtype, device):
    for left, right in (
        ((32, 512, 128), (32, 128, 512)),
        ((4, 8, 1000, 65), (4, 1, 65, 257)),
        ((512, 64, 64), (64, 64)),
    ):
        a, b = operand(left, dtype, device), operand(right, dtype, device)
        out = testing.deterministic(
            lambda a=a, b=b: batched.matmul(a, b, precision="ieee")
        )
        assert_right(out, a, b)


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_to_the_31_elements(device):
    a = torch.randn(33, 2**13, 2**13 + 8, dtype=torch.bfloat16, device=device)
    b = torch.randn(2**13 + 8, 16, dtype=torch.bfloat16, device=device)
    out = batched.matmul(a, b)
    assert_right(out[-1, -8:], a[-1, -8:], b)
