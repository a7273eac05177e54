"""Gluon kernels for eight bits: on the CPU in any order, and compiled as they ship."""

import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.fp8 import (
    carried,
    cooperative,
    evidence,
    folded,
    paired,
    products,
    promoted,
    scaling,
    warps,
)
from tilebook.fp8.products import Product
from tilebook.fp8.warps import Config

PRECISE = (promoted, paired)
"""Kernels that take sums in two levels, and scales that change along k."""
KERNELS = (cooperative, *PRECISE, folded)
"""Kernels that take scales at the end."""
ALL = (*KERNELS, carried)
BF16, FP16 = torch.bfloat16, torch.float16
# Tiles so small that a program has several, of several chunks, in few slots.
SMALL = (Config(64, 32, 3, group=2), Config(32, 32, 2, 2, group=1))
MODES = {
    "row": ("row", "row"),
    "tensor": ("tensor", "row"),
    "blocks": ("1x128", "128x128"),
    "both blocks": ("128x128", "128x128"),
    "vectors": ("128x128", "1x128"),
    "both vectors": ("1x128", "1x128"),
}


BLOCKED = [mode for mode, (left, _) in MODES.items() if "128" in left]


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=name)
all_kernels = pytest.mark.parametrize("kernel", ALL, ids=name)


def made(mode, shape, *, dtype=BF16, bias=False, fast=True):
    """A product over what is no number, with room between the rows of the result."""
    m, n, k = shape
    x = torch.randn(m, k) * torch.logspace(-2, 2, k)
    w = torch.randn(n, k) * torch.logspace(2, -2, k)
    a, b = (
        scaling.reference(y, granularity)
        for y, granularity in zip((x, w), MODES[mode], strict=True)
    )
    out = torch.full((m, -(-n // 8) * 8 + 8), torch.nan, dtype=dtype)[:, :n]
    vector = torch.randn(n) if bias else None
    return Product(a.codes, b.codes.t(), a.scale, b.scale.t(), out, vector, fast)


def scheduled(kernel, product, config, programs, seed):
    """Make a product in one of the orders that barriers allow."""
    (found,) = evidence.launches_of(kernel, product, config)
    return schedules.run(
        found.kernel, (programs,), *found.args, **found.meta, seed=seed
    )


def assert_right(product):
    """Within its bound, and nothing beside it is written."""
    products.assert_right(product)
    out = product.out
    assert out._base[:, out.shape[1] :].isnan().all()


class TestOnTheCPU:
    @all_kernels
    @pytest.mark.parametrize("mode", MODES)
    def test_modes(self, kernel, mode):
        for seed, shape in enumerate([(33, 40, 272), (70, 72, 384)]):
            product = made(mode, shape, bias=seed == 1, dtype=(BF16, FP16)[seed])
            if kernel.refusal(product):
                assert kernel in ((cooperative, folded) if product.blocks else ALL[-1:])
                return
            scheduled(kernel, product, SMALL[seed], 1 + 2 * seed, seed)
            assert_right(product)

    @each_kernel
    def test_any_order(self, kernel):
        """Programs with several tiles, fewer than tiles, and more; one block."""
        for seed in range(4):
            mode = "blocks" if kernel in PRECISE and seed % 2 else "row"
            product = made(mode, (100, 40, (144, 16)[seed == 3]))
            scheduled(kernel, product, SMALL[seed % 2], (1, 2, 5, 20)[seed], seed)
            assert_right(product)

    def test_two_levels_without_scales(self):
        product = made("row", (40, 40, 400), fast=False)
        scheduled(promoted, product, SMALL[0], 2, 1)
        assert_right(product)

    @each_kernel
    def test_infinities_and_nan_stay_in_their_row_and_column(self, kernel):
        product = made("row", (40, 40, 272))
        product.a[3, 5] = product.b[7, 33] = torch.nan
        scheduled(kernel, product, SMALL[0], 2, 0)
        assert_right(product)

    @all_kernels
    def test_who_meets_at_barriers(self, kernel):
        product = made("blocks" if kernel is carried else "row", (64, 64, 272))
        (events,) = scheduled(kernel, product, SMALL[0], 1, 0)
        found = {
            name: (set(meeting.arrive), set(meeting.wait))
            for name, meeting in schedules.meetings(events).items()
        }
        groups, producer = {"consume 0", "consume 1"}, {"produce"}
        if kernel is carried:
            producer.add("carry")
        assert found["arrived"] == ({*producer, "copy engine"}, groups)
        assert found["free"] == (groups, producer)

    @given(
        st.integers(1, 80),
        st.integers(1, 9),
        st.integers(9, 40),
        st.sampled_from(sorted(BLOCKED)),
        st.integers(0, 1),
        st.integers(1, 6),
        st.integers(0, 2**20),
    )
    def test_carried_for_any_sides(
        self, m, eights, sixteens, mode, which, programs, seed
    ):
        product = made(mode, (m, 8 * eights, 16 * sixteens))
        scheduled(carried, product, SMALL[which], programs, seed)
        assert_right(product)

    @pytest.mark.parametrize("kernel", [*PRECISE, carried], ids=name)
    @pytest.mark.parametrize("value", [torch.inf, torch.nan])
    def test_a_last_scale_that_is_no_number_stays_in_its_rows(self, kernel, value):
        """A partner of zeros for the last block has scales of zero, too."""
        product = made("blocks", (40, 40, 384))
        product.scale_a[3, 2] = value
        scheduled(kernel, product, SMALL[0], 2, 0)
        rows = torch.arange(40) != 3
        assert product.out[rows].isfinite().all()
        assert not product.out[3].isfinite().any()
        if value == torch.inf:
            assert product.out[3].isinf().all()


CARRIED = {
    "copies that nobody waits for": (
        "            async_copy.mbarrier_arrive(here)\n", ""),
    "an arrival that wasn't counted on": (
        "async_copy.mbarrier_arrive(here)",
        "async_copy.mbarrier_arrive(here, increment_count=False)"),
    "copies announced after the arrival": (
        "            async_copy.mbarrier_arrive(here)\n"
        "            mbarrier.arrive(here)\n",
        "            mbarrier.arrive(here)\n"
        "            async_copy.mbarrier_arrive(here)\n"),
    "one arrival fewer than there are": (
        "barriers(STAGES, 2), barriers(STAGES, 2)",
        "barriers(STAGES, 1), barriers(STAGES, 2)"),
    "the other half's scales": ("left_ring.index(2 * slot + PART)",
                                "left_ring.index(2 * slot)"),
    "scales of the block before": ("left_b + at * scale_ak",
                                   "left_b + gl.maximum(at - 1, 0) * scale_ak"),
    "a slot given back before its scales were read": (
        "            sums = added(sums, found, even_scale, right_ring, one, GROUP_B, "
        "layout)\n            mbarrier.arrive(free.index(one))\n",
        "            mbarrier.arrive(free.index(one))\n"
        "            sums = added(sums, found, even_scale, right_ring, one, GROUP_B, "
        "layout)\n"),
    "no zeros past the last block": ("right + at * scale_bk, in_n & there",
                                     "right + at * scale_bk, in_n"),
    "a wait for the wrong product": ("warpgroup_mma_wait(1, deps=(even,))",
                                     "warpgroup_mma_wait(2, deps=(even,))"),
    "one block too few": ("range(gl.cdiv(blocks, 2) * 2)", "range(blocks)"),
    "no partner past the last block": (
        "even = gl.cdiv(k, 2 * BLOCK_K) * 2 * BLOCK_K", "even = k"),
    "columns of the first tile": ("here_b = column + across\n", "here_b = across\n"),
}  # fmt: skip


class TestMistakes:
    """An order that shows each is found."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("found = warpgroup_mma_wait(0, deps=(even,))\n            mbarrier.arrive("
             "free.index(chunk % STAGES))",
             "mbarrier.arrive(free.index(chunk % STAGES))\n            found = "
             "warpgroup_mma_wait(0, deps=(even,))"),
            ("found = warpgroup_mma_wait(0, deps=(even,))",
             "found = warpgroup_mma_wait(1, deps=(even,))"),
            ("warpgroup_mma_wait(0, deps=(odd,))",
             "warpgroup_mma_wait(1, deps=(odd,))"),
            ("scale_bn, block + 2, blocks,", "scale_bn, block + 1, blocks,"),
            ("even = gl.cdiv(k, 2 * BLOCK_K) * 2 * BLOCK_K", "even = k"),
            ("chunk += 2", "chunk += 1"),
            ("row += PART * HALF", "row += 0"),
        ],
    )  # fmt: skip
    def test_in_promoted(self, old, new):
        def all_orders():
            for seed in range(6):
                product = made("blocks", (70, 40, 640))
                scheduled(promoted, product, SMALL[0], 2, seed)
                assert_right(product)

        with (
            testing.mutated_module(promoted, old, new),
            pytest.raises((AssertionError, RuntimeError, IndexError)),
        ):
            all_orders()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("free.index(chunk % STAGES)", "free.index((chunk + 1) % STAGES)"),
            ("free.index((chunk + 1) % STAGES)", "free.index(chunk % STAGES)"),
            ("warpgroup_mma_wait(1, deps=(even,))",
             "warpgroup_mma_wait(2, deps=(even,))"),
            ("warpgroup_mma_wait(0, deps=(odd,))",
             "warpgroup_mma_wait(1, deps=(odd,))"),
            ("even = gl.cdiv(k, 2 * BLOCK_K) * 2 * BLOCK_K", "even = k"),
            ("scale_bn, block + 2, blocks,", "scale_bn, block + 3, blocks,"),
            ("scale_bn, block + 3, blocks,", "scale_bn, block + 2, blocks,"),
            ("chunk += 2", "chunk += 1"),
        ],
    )  # fmt: skip
    def test_in_paired(self, old, new):
        def all_orders():
            for seed in range(6):
                product = made("blocks", (70, 40, 640))
                scheduled(paired, product, SMALL[0], 2, seed)
                assert_right(product)

        all_orders()
        with (
            testing.mutated_module(paired, old, new),
            pytest.raises((AssertionError, RuntimeError, IndexError)),
        ):
            all_orders()

    @pytest.mark.parametrize("mistake", CARRIED)
    def test_in_carried(self, mistake):
        def all_orders():
            for seed in range(8):
                for mode in ("blocks", "both vectors"):
                    product = made(mode, (70, 72, 640))
                    scheduled(carried, product, SMALL[0], 2, seed)
                    assert_right(product)

        all_orders()
        with (
            testing.mutated_module(carried, *CARRIED[mistake]),
            pytest.raises((AssertionError, RuntimeError, IndexError)),
        ):
            all_orders()


class TestRefusals:
    def test_each_rule(self):
        product = made("row", (40, 40, 272))
        assert warps.refusal(product) is None
        for changes, match in (
            ({"out": product.out.float()}, "the result must be of bfloat16 or float16"),
            ({"b": product.b.contiguous()}, "b's transpose can't be described: its la"),
            ({"a": product.a[:, 1:]}, "a can't be described: it must start at a mult"),
            (
                {
                    "scale_a": torch.empty(1, device="meta").as_strided(
                        (40, 1), (2**27, 1)
                    )
                },
                "scale_a must lie within 2.31 elements",
            ),
        ):
            with pytest.raises(ValueError, match=match):
                promoted.launch(product._replace(**changes))

    def test_what_has_no_end_scales(self):
        for kernel in (cooperative, folded):
            with pytest.raises(ValueError, match="scales must not change along k"):
                kernel.launch(made("blocks", (40, 40, 272)))
            with pytest.raises(ValueError, match="the sum must be fast"):
                kernel.launch(made("row", (40, 40, 272), fast=False))
        with pytest.raises(ValueError, match="scales must change along k"):
            carried.launch(made("row", (40, 40, 272), fast=False))


class TestConfigurations:
    @all_kernels
    def test_those_to_choose_from_fit_as_they_are(self, kernel):
        product = evidence.product_for(4096, 4096, 4096, "1x128", fast=False)
        for config in kernel.CONFIGS:
            assert kernel.room(product, config) == config
        assert len(set(kernel.CONFIGS)) == len(kernel.CONFIGS)

    @each_kernel
    @given(sizes=st.tuples(*[st.integers(1, 40_000)] * 3))
    def test_fit_for_any_shape(self, kernel, sizes):
        m, n, k = sizes
        product = evidence.product_for(m, n, -(-k // 16) * 16, "row", fast=True)
        config = kernel.config_for(product)
        assert config.num_stages >= 2
        assert warps.shared_bytes(config) <= warps.SHARED


def cases():
    modes = {**dict.fromkeys(PRECISE, ("1x128", "row")), carried: ("1x128",)}
    for kernel in ALL:
        for mode in modes.get(kernel, ("row",)):
            for i, config in enumerate(kernel.CONFIGS):
                marks = [pytest.mark.slow] if i else []
                yield pytest.param(
                    kernel, config, mode, id=f"{name(kernel)}-{mode}-{i}", marks=marks
                )


@pytest.mark.parametrize(("kernel", "config", "mode"), [*cases()])
def test_compiles_clean(kernel, config, mode):
    fast = kernel in (cooperative, folded)
    product = evidence.product_for(4096, 4096, 4096, mode, fast=fast)
    (each,) = evidence.launches_of(kernel, product, config)
    artefact = compile_only.compile(
        each.kernel, *each.args, target="sm_90", **each.meta
    )
    found = artefact.evidence
    assert found.spill_store_bytes == found.spill_load_bytes == found.stack_bytes == 0
    assert not found.warnings
    assert set(found.mma) == {"wgmma"}
    assert found.tma_loads
    assert found.tma_stores
    assert bool(found.async_copies) == (kernel is carried)
    assert not found.global_stores
    counted = getattr(kernel, "shared_bytes", warps.shared_bytes)
    assert found.shared_bytes <= counted(config) <= warps.SHARED
    counts = re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", artefact.ptx)
    assert {232, 40} < {int(count) for count in counts}
    assert "wgmma.mma_async.sync.aligned" in artefact.ptx
    assert ".f32.e4m3.e4m3" in artefact.ptx


@pytest.mark.gpu
class TestOnAGPU:
    @all_kernels
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("shape", [(1000, 1032, 2064), (300, 520, 144)], ids=str)
    def test_every_configuration(self, kernel, mode, shape, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")
        base = made(mode, shape, bias=True)
        if kernel.refusal(base):
            pytest.skip("not for such scales")
        tensors = (x if x is None else x.to(device) for x in base[:6])
        base = Product(*tensors, fast=base.fast)
        for config in kernel.CONFIGS:
            with testing.guarded():
                out = torch.empty(shape[0], shape[1], dtype=BF16, device=device)
                product = base._replace(out=out)
                kernel.launch(product, config)
            products.assert_right(product, bits=13)

            def again(product=product, config=config):
                kernel.launch(product, config)
                return product.out

            testing.deterministic(again)

    @pytest.mark.sanitize
    @all_kernels
    @pytest.mark.parametrize("mode", MODES)
    def test_small(self, kernel, mode, device):
        """A tile and parts of others, for compute-sanitizer to watch."""
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")
        base = made(mode, (200, 136, 304), bias=True)
        if kernel.refusal(base):
            pytest.skip("not for such scales")
        tensors = (x if x is None else x.to(device) for x in base[:6])
        base = Product(*tensors, fast=base.fast)
        with testing.guarded():
            out = torch.empty(200, 136, dtype=BF16, device=device)
            product = base._replace(out=out)
            kernel.launch(product)
        products.assert_right(product, bits=13)
