"""Products in eight bits, by pointers and descriptors, against float64."""

import dataclasses
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.fp8 import (
    described,
    evidence,
    few,
    products,
    public,
    scaling,
    tiled,
    ways,
)
from tilebook.fp8.products import Product
from tilebook.matmul import ways as earlier

MODES = {
    "tensor": ("tensor", "tensor"),
    "row": ("row", "row"),
    "mixed": ("row", "tensor"),
    "blocks": ("1x128", "128x128"),
    "vectors": ("1x128", "1x128"),
    "squares": ("128x128", "128x128"),
    "one side": ("row", "1x128"),
}
RUNGS = {
    "tiled": (tiled, None),
    "large": (tiled, tiled.Config(32, 256, 4, 1, group=2)),
    "described": (described, described.Config(64, 64, 4, 2, 2, group=2)),
    "few": (few, few.Config(64, 128, 2, 2)),
    "few whole": (few, few.Config(64, 128, 1, 2)),
}
BF16, FP32 = torch.bfloat16, torch.float32
BITS = 12 if here.has("wgmma") else None
"""Of a sum, that tensor cores are trusted to keep; 24 where there are none."""
each_mode = pytest.mark.parametrize("mode", MODES)
each_rung = pytest.mark.parametrize("rung", RUNGS)


def made(mode, shape, device="cpu", *, dtype=FP32, bias=False, fast=False):
    """A product to be made, of operands whose groups differ in size."""
    m, n, k = shape
    size = torch.logspace(-2, 2, k)
    x = torch.randn(m, k) * size * torch.logspace(-1, 1, m)[:, None]
    w = torch.randn(n, k) / size * torch.logspace(-1, 1, n)[:, None]
    a, b = (
        scaling.reference(y, granularity)
        for y, granularity in zip((x, w), MODES[mode], strict=True)
    )
    tensors = (a.codes, b.codes.t(), a.scale, b.scale.t())
    out = torch.empty(m, n, dtype=dtype, device=device)
    vector = torch.randn(n, device=device) if bias else None
    return Product(*(y.to(device) for y in tensors), out, vector, fast)


def launched(rung, product):
    """Made over what is no number, and between guards."""
    module, config = RUNGS[rung]
    config = config and module.room(product, config)
    with testing.guarded():
        product = product._replace(out=torch.empty_like(product.out))
        module.launch(product, config)
    products.assert_right(product, bits=BITS)
    return product


class TestRungs:
    @pytest.mark.sanitize
    @each_mode
    @each_rung
    def test_every_mode(self, rung, mode, device):
        """Several tiles, or a part of one; whole blocks of terms, or not."""
        fast = ([*RUNGS].index(rung) + [*MODES].index(mode)) % 2 == 0
        shape = (17, 40, 304) if fast else (70, 136, 128)
        launched(rung, made(mode, shape, device, bias=not fast, fast=fast))

    @each_rung
    @pytest.mark.parametrize("dtype", products.RESULTS[:2], ids=str)
    def test_types_of_results(self, rung, dtype, device):
        launched(rung, made("row", (9, 16, 160), device, dtype=dtype))

    @each_rung
    def test_types_of_operands(self, rung, device):
        product = made("row", (9, 16, 160), device)
        wide = product.b.float().to(torch.float8_e5m2)
        launched(rung, product._replace(b=wide))
        wide = product.a.float().to(torch.float8_e5m2)
        launched(rung, product._replace(a=wide))

    @pytest.mark.sanitize
    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 129), (16, 1, 7)], ids=str)
    def test_any_size(self, shape, device):
        for mode in ("row", "blocks"):
            launched("tiled", made(mode, shape, device, bias=True))

    def test_any_strides(self, device):
        product = made("vectors", (9, 20, 260), device)
        for name in ("a", "b", "scale_a", "scale_b"):
            x = getattr(product, name)
            for _, placed in testing.layouts(x.float()):
                # Not all of PyTorch's copies know 8-bit types.
                given_ = torch.empty_strided(
                    placed.shape, placed.stride(), dtype=x.dtype, device=device
                ).copy_(x)
                launched("tiled", product._replace(**{name: given_}))

    @each_mode
    def test_infinities_and_nan_stay_in_their_row_and_column(self, mode, device):
        product = made(mode, (20, 24, 256), device)
        product.a[3, 5] = product.b[7, 2] = torch.nan
        assert (products.exact(product)).isnan().sum() == 20 + 24 - 1
        for rung in ("tiled", "described", "few"):
            launched(rung, product)


class TestFew:
    def test_parts_add_up_in_order(self, device):
        product = made("vectors", (5, 70, 1024), device)
        first = launched("few", product).out
        config = few.Config(64, 128, 8, 2)
        few.launch(product, config)
        products.assert_right(product, bits=BITS)
        # Parts of one block each: as many roundings, at other places.
        assert (product.out != first).any()
        again = [
            product.out.clone() for _ in range(3) if not few.launch(product, config)
        ]
        assert all(torch.equal(x, again[0]) for x in again)

    @pytest.mark.sanitize
    def test_no_part_is_empty(self, device):
        for parts in (3, 4, 5, 9):
            product = made("blocks", (2, 16, 5 * 128), device)
            config = few.room(product, few.Config(64, 128, parts, 2))
            few.launch(product, config)
            products.assert_right(product, bits=BITS)

    @given(sizes=st.tuples(st.integers(1, 128), *[st.integers(1, 40_000)] * 2))
    def test_configurations_fit(self, sizes):
        m, n, k = sizes
        for mode, fast in (("row", True), ("1x128", False)):
            product = evidence.product_for(m, n, -(-k // 16) * 16, mode, fast=fast)
            for config in (*few.configs(product), few.config_for(product)):
                assert config.num_stages >= 2
                assert few.shared_bytes(product, config) <= few.SHARED
                assert config.block_k == 128 or fast


class TestRefusals:
    @pytest.fixture
    def arguments(self, device):
        product = made("blocks", (9, 16, 160), device)
        return dict(zip(("a", "b", "scale_a", "scale_b"), product, strict=False))

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"a": [1]}, TypeError, r"a must be a torch\.Tensor, got list"),
            ({"b": torch.zeros(160, 16)}, TypeError, "b must be float8_e4m3fn or"),
            ({"scale_a": 1.0}, TypeError, r"scale_a must be a torch\.Tensor, got fl"),
            ({"scale_a": torch.ones(9, 1).double()}, TypeError, "must be float32, got"),
            ({"scale_b": torch.ones(())}, ValueError, "must have 2 dimensions, got 0"),
            ({"scale_a": torch.ones(2, 9)}, ValueError, r"all or 128 terms, 1 or 9 x"),
            ({"scale_b": torch.ones(16, 2)}, ValueError, r"1 or 2 x 1 or 16, got \(16"),
            ({"bias": torch.ones(15)}, ValueError, r"bias must have shape \(16,\), "),
            ({"out_dtype": torch.float64}, TypeError, "out_dtype must be one of torch"),
            ({"fast_accumulation": 1}, TypeError, "fast_accumulation must be a bool"),
        ],
    )  # fmt: skip
    def test_of_arguments(self, arguments, change, error, match):
        with pytest.raises(error, match=match):
            public.scaled_matmul(**(arguments | change))

    def test_of_sides_and_gradients(self, arguments):
        with pytest.raises(ValueError, match="as many columns as b has rows, got 16"):
            public.scaled_matmul(**(arguments | {"a": arguments["b"]}))
        arguments["scale_a"].requires_grad_()
        with pytest.raises(ValueError, match="scale_a takes part in a gradient"):
            public.scaled_matmul(**arguments)

    def test_of_the_copy_engine(self, device):
        product = made("row", (9, 16, 160), device)
        rows = product.b.contiguous()
        for kernel in (described, few):
            with pytest.raises(ValueError, match="b's transpose can't be described"):
                kernel.launch(product._replace(b=rows))
            with pytest.raises(ValueError, match="a can't be described: its rows"):
                kernel.launch(made("row", (9, 16, 150), device))
        with pytest.raises(ValueError, match="it must have at most 128 rows, got 129"):
            few.launch(made("row", (129, 16, 160), device))


class TestPublic:
    @each_mode
    def test_product(self, mode, device):
        product = made(mode, (20, 24, 272), device)
        for fast in (False, True):
            with testing.guarded():
                out = public.scaled_matmul(
                    *product[:4], out_dtype=FP32, fast_accumulation=fast
                )
            products.assert_right(product._replace(out=out, fast=fast), bits=BITS)

    @pytest.mark.parametrize("shape", [(0, 8, 16), (8, 0, 16), (8, 8, 0)], ids=str)
    def test_nothing_to_multiply(self, shape, device):
        product = made("row", shape, device)
        bias = torch.arange(shape[1], dtype=FP32, device=device)
        with testing.guarded():
            out = public.scaled_matmul(*product[:4])
            lifted = public.scaled_matmul(*product[:4], bias=bias)
        assert out.shape == shape[:2]
        assert not out.any()
        assert (lifted == bias).all()
        assert public.which(*product[:4]) == "nothing to launch"

    def test_as_torch_expects_it(self, device):
        product = made("blocks", (9, 16, 160), device)
        # Its check for changed inputs multiplies them, which 8-bit types can't be.
        checks = ("test_faketensor", "test_autograd_registration")
        found = torch.library.opcheck(
            public.scaled_matmul_operator,
            (*product[:4], None, BF16, False),
            test_utils=(*checks, "test_aot_dispatch_dynamic"),
        )
        assert set(found.values()) == {"SUCCESS"}

    def test_compiled(self, device):
        product = made("row", (9, 16, 160), device)

        def call(*arguments):
            return public.scaled_matmul(*arguments) + 1

        made_ = torch.compile(call, backend="aot_eager", fullgraph=True)
        assert torch.equal(made_(*product[:4]), call(*product[:4]))

    def test_what_comes_of_it_is_near_the_product_of_what_was_quantised(self, device):
        from tilebook.fp8 import quantizing

        x, w = torch.randn(20, 256, device=device), torch.randn(24, 256, device=device)
        exact = x.double() @ w.double().t()
        for granularity in ("tensor", "row", "1x128"):
            a, b = (quantizing.quantize(y, granularity) for y in (x, w))
            out = public.scaled_matmul(
                a.codes, b.codes.t(), a.scale, b.scale.t(), out_dtype=FP32
            )
            # Each factor is off by some 2.6 %, and so is each term by 3.7 %.
            assert 0.03 < testing.error(out, exact) < 0.045


@pytest.fixture
def card(monkeypatch):
    """An H100, for whoever asks what is here."""
    found = dataclasses.replace(
        here.current(),
        slug="h100-sxm",
        sms=132,
        shared_memory_per_block=227 * 1024,
        shared_memory_per_sm=228 * 1024,
    )
    monkeypatch.setattr(here, "current", lambda: found)
    monkeypatch.setattr(here, "has", lambda feature: True)


@pytest.mark.usefixtures("card")
class TestWays:
    @pytest.mark.parametrize(
        ("shape", "mode", "fast", "kernel"),
        [
            ((1, 4096, 4096), "row", True, "few"),
            ((128, 28672, 8192), "1x128", False, "few"),
            ((4096, 4096, 4096), "row", True, "folded"),
            ((4096, 4096, 4096), "row", False, "paired"),
            ((4096, 4096, 4096), "1x128", False, "carried"),
            ((4096, 4096, 4088), "row", True, "tiled"),
        ],
    )
    def test_by_a_rule(self, shape, mode, fast, kernel):
        product = evidence.product_for(*shape, mode, fast=fast)
        assert ways.rule(product) is ways.KERNELS[kernel]
        assert ways.told(product) == f"{kernel}, by a rule"

    def test_without_wgmma_and_without_the_copy_engine(self, monkeypatch):
        product = evidence.product_for(4096, 4096, 4096, "row", fast=True)
        monkeypatch.setattr(here, "has", lambda feature: feature != "wgmma")
        assert ways.rule(product) is described
        monkeypatch.setattr(here, "has", lambda feature: False)
        assert ways.rule(product) is tiled
        assert {w.kernel for w in earlier.entrants(product, "fp8")} == {"tiled"}

    @pytest.mark.parametrize("mode", ["tensor", "row", "1x128"])
    @pytest.mark.parametrize("fast", [True, False])
    @pytest.mark.parametrize("m", [16, 128, 512, 8192])
    def test_each_kernel_that_can_serve_enters(self, mode, fast, m):
        product = evidence.product_for(m, 4096, 4096, mode, fast=fast)
        found = earlier.entrants(product, "fp8")
        assert len(set(found)) == len(found) <= ways.ENTRANTS
        kernels = {"tiled", "described", "promoted", "paired"}
        if m <= few.MOST:
            kernels.add("few")
        if mode == "1x128":
            kernels.add("carried")
        elif fast:
            kernels |= {"cooperative", "folded"}
        assert {way.kernel for way in found} == kernels
        for way in found:
            assert earlier.read([way.kernel, list(way.config)], "fp8") == way

    def test_questions_differ_where_the_answer_may(self):
        from tilebook.matmul import searching

        asked = {
            searching.question(evidence.product_for(512, 512, 512, mode, fast=fast))
            for mode in ("tensor", "row", "1x128", "128x128")
            for fast in (True, False)
        }
        assert len(asked) == 8
        keys = {
            searching.exactly(evidence.product_for(512, 512, 512, "row", fast=fast))
            for fast in (True, False)
        }
        assert len(keys) == 2


CONFIGS = [
    pytest.param(
        kernel, config, mode, fast,
        id=f"{kernel.__name__.rpartition('.')[2]}-{mode}-{fast}-{i}",
        marks=[pytest.mark.slow] if i else [],
    )
    for mode, fast in (("row", True), ("row", False), ("1x128", False))
    for kernel, configs in (
        (tiled, tiled.CONFIGS),
        (described, described.CONFIGS),
        (few, (None, few.Config(128, 128, 4, 5), few.Config(64, 256, 2, 4))),
    )
    for i, config in enumerate(configs)
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "config", "mode", "fast"), CONFIGS)
def test_compiles_clean(kernel, config, mode, fast):
    """Nothing spills, nothing is serialised, and products are Hopper's."""
    shape = (128, 4096, 4096) if kernel is few else (4096, 4096, 4096)
    product = evidence.product_for(*shape, mode, fast=fast)
    if config is not None and (config := kernel.room(product, config)) is None:
        pytest.skip("registers don't hold it, or it isn't for such sums")
    for each in evidence.launches_of(kernel, product, config):
        artefact = compile_only.compile(
            each.kernel, *each.args, target="sm_90", **each.meta
        )
        found = artefact.evidence
        assert found.spill_store_bytes == found.spill_load_bytes == 0
        assert not found.warnings
        if each.kernel is few.sum_kernel:
            continue
        low = kernel is tiled and config and config.block_m < 64
        assert set(found.mma) == {"mma.sync" if low else "wgmma"}
        assert "e4m3" in artefact.ptx
        assert bool(found.tma_loads) == (kernel is not tiled)
        assert math.isclose(found.stack_bytes, 0)
        if kernel is not tiled:
            count = kernel.shared_bytes(product, config or kernel.config_for(product))
            assert found.shared_bytes <= count <= few.SHARED
