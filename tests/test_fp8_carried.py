"""Scales that travel with their block: in any order, and compiled as they ship."""

import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.fp8 import carried, evidence, products, scaling, warps
from tilebook.fp8.products import Product
from tilebook.fp8.warps import Config

SMALL = (Config(64, 32, 3, group=2), Config(32, 32, 2, 2, group=1))
"""Tiles so small that a program has several, of several blocks, in few slots."""
MODES = {
    "blocks": ("1x128", "128x128"),
    "both blocks": ("128x128", "128x128"),
    "vectors": ("128x128", "1x128"),
    "both vectors": ("1x128", "1x128"),
}


def made(mode, shape, *, dtype=torch.bfloat16, bias=False):
    """A product over what is no number, with room between the rows of the result."""
    m, n, k = shape
    x = torch.randn(m, k) * torch.logspace(-2, 2, k)
    w = torch.randn(n, k) * torch.logspace(2, -2, k)
    a, b = (
        scaling.reference(y, granularity)
        for y, granularity in zip((x, w), MODES[mode], strict=True)
    )
    wide = torch.full((m, -(-n // 8) * 8 + 8), torch.nan, dtype=dtype)
    vector = torch.randn(n) if bias else None
    codes = (a.codes, b.codes.t(), a.scale, b.scale.t())
    return Product(*codes, wide[:, :n], vector, False)


def moved(product, device):
    """The same on a GPU."""
    tensors = (x if x is None else x.to(device) for x in product[:6])
    return Product(*tensors, fast=product.fast)


def scheduled(product, config, programs, seed):
    """Make a product in one of the orders that barriers allow."""
    (found,) = evidence.launches_of(carried, product, config)
    return schedules.run(
        found.kernel, (programs,), *found.args, **found.meta, seed=seed
    )


def assert_right(product):
    """Within its bound, and nothing beside it is written."""
    products.assert_right(product)
    assert product.out._base[:, product.out.shape[1] :].isnan().all()


class TestOnTheCPU:
    @pytest.mark.parametrize("mode", MODES)
    def test_modes(self, mode):
        for seed, shape in enumerate([(33, 40, 272), (70, 72, 384)]):
            product = made(mode, shape, bias=seed == 1)
            scheduled(product, SMALL[seed], 1 + 2 * seed, seed)
            assert_right(product)

    @given(
        st.integers(1, 80),
        st.integers(1, 9),
        st.integers(9, 40),
        st.sampled_from(sorted(MODES)),
        st.integers(0, 1),
        st.integers(1, 6),
        st.integers(0, 2**20),
    )
    def test_any_sides(self, m, eights, sixteens, mode, which, programs, seed):
        product = made(mode, (m, 8 * eights, 16 * sixteens))
        scheduled(product, SMALL[which], programs, seed)
        assert_right(product)

    @pytest.mark.parametrize("value", [torch.inf, torch.nan])
    def test_a_last_scale_that_is_no_number_stays_in_its_rows(self, value):
        """A partner of zeros for the last block has scales of zero, too."""
        product = made("blocks", (40, 40, 384))
        product.scale_a[3, 2] = value
        scheduled(product, SMALL[0], 2, 0)
        rows = torch.arange(40) != 3
        assert product.out[rows].isfinite().all()
        assert not product.out[3].isfinite().any()
        if value == torch.inf:
            assert product.out[3].isinf().all()

    def test_who_meets_at_barriers(self):
        product = made("blocks", (64, 64, 272))
        (events,) = scheduled(product, SMALL[0], 1, 0)
        found = {
            name: (set(meeting.arrive), set(meeting.wait))
            for name, meeting in schedules.meetings(events).items()
        }
        groups, producer = {"consume 0", "consume 1"}, {"produce"}
        assert found["arrived"] == ({*producer, "copy engine"}, groups)
        assert found["free"] == (groups, producer)


MISTAKES = {
    "copies that nobody waits for": (
        "            async_copy.mbarrier_arrive(here)\n", ""),
    "an arrival that wasn't counted on": (
        "async_copy.mbarrier_arrive(here)",
        "async_copy.mbarrier_arrive(here, increment_count=False)"),
    "copies after the promise": (
        "            # One more arrival each, when the copies are there.\n"
        "            async_copy.mbarrier_arrive(here)\n"
        "            mbarrier.expect(here, NBYTES)\n",
        "            mbarrier.expect(here, NBYTES)\n"),
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
    "columns of the first tile": ("here_b = column + across\n", "here_b = across\n"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake):
    def all_orders():
        for seed in range(8):
            for mode in ("blocks", "both vectors"):
                product = made(mode, (70, 72, 640))
                scheduled(product, SMALL[0], 2, seed)
                assert_right(product)

    all_orders()
    found = (AssertionError, IndexError, schedules.ScheduleError)
    with testing.mutated_module(carried, *MISTAKES[mistake]), pytest.raises(found):
        all_orders()


def test_scales_that_do_not_change_along_k_are_refused():
    product = evidence.product_for(256, 256, 256, "row", fast=False)
    assert carried.refusal(product) == "scales must change along k"
    with pytest.raises(ValueError, match="scales must change along k"):
        carried.launch(product)


@pytest.mark.parametrize("config", carried.CONFIGS)
def test_evidence(config):
    """As it ships: products of eight bits that nothing holds up, and no spill."""
    product = evidence.product_for(4096, 4096, 4096, "1x128", fast=False)
    config = carried.room(product, config)
    (found,) = evidence.launches_of(carried, product, config)
    made = compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)
    found = made.evidence
    assert found.spill_store_bytes == found.spill_load_bytes == found.stack_bytes == 0
    assert not found.warnings
    assert set(found.mma) == {"wgmma"}
    assert found.tma_loads
    assert found.tma_stores
    assert found.async_copies
    assert not found.global_stores
    assert found.shared_bytes <= carried.shared_bytes(config) <= warps.SHARED
    counts = re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", made.ptx)
    assert {232, 40} < {int(count) for count in counts}
    assert ".f32.e4m3.e4m3" in made.ptx


@pytest.mark.gpu
class TestOnAGPU:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("shape", [(1000, 1032, 2064), (300, 520, 144)], ids=str)
    def test_every_configuration(self, mode, shape, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")
        base = moved(made(mode, shape, bias=True), device)
        for config in carried.CONFIGS:
            with testing.guarded():
                out = torch.empty(shape[:2], dtype=torch.bfloat16, device=device)
                product = base._replace(out=out)
                carried.launch(product, carried.room(product, config))
            products.assert_right(product, bits=13)

            def again(product=product, config=config):
                carried.launch(product, carried.room(product, config))
                return product.out

            testing.deterministic(again)

    @pytest.mark.sanitize
    @pytest.mark.parametrize("mode", MODES)
    def test_small(self, mode, device):
        """A tile and parts of others, for compute-sanitizer to watch."""
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")
        base = moved(made(mode, (200, 136, 304), bias=True), device)
        with testing.guarded():
            out = torch.empty(200, 136, dtype=torch.bfloat16, device=device)
            product = base._replace(out=out)
            carried.launch(product)
        products.assert_right(product, bits=13)
