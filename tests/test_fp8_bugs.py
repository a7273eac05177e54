"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.fp8 import accumulation, bugs, conclusions, emulated, errors, formats
from tilebook.fp8.bugs import products, quantizers, scales, tools

MENTIONS = {
    "ragged-maximum": ("k = 1:", "come back wrong", "x[0, 0] = 448, as nan"),
    "zero-group": ("zeros: 256 of", "x[1, 0] = 0, as nan, expected 0"),
    "lost-nan": ("one NaN: 128 of", "expected nan"),
    "clipped-maximum": ("2 steps after", "is 448, of 7168"),
    "other-format": ("the relative error is 0.05", "rounding to e4m3fn makes 0.0245"),
    "power-below": ("groups lose more than an eighth", "of 446 50% is lost"),
    "tiles-scale": ("column 128 belongs to group 1", "has the scale of group 0"),
    "padded-scales": ("memory that nobody has written 8192 of 8192",),
    "long-sum": ("k = 2,048", "128 terms lose 0.016 at most"),
    "rows-of-b": ("passes through registers", "loads of 128 bits", "wgmma"),
}
# What an interpreter can't show: memory that happens to hold NaN, the sums of tensor
# cores, and time.
UNSEEN = ("padded-scales", "long-sum", "rows-of-b")


@pytest.fixture(params=bugs.GALLERY.values(), ids=lambda bug: bug.name)
def bug(request, device):
    if device.type == "cuda" and not here.has("fp8"):
        pytest.skip("needs 8-bit matrix instructions")
    return request.param


def test_the_usual_test_passes_the_wrong_kernel(bug):
    assert bug.naive()


def test_the_tool_finds_it_and_says_where(bug):
    message = bug.detect()
    for words in MENTIONS[bug.name]:
        assert words in message


def test_the_tool_has_nothing_against_the_mend(bug):
    with pytest.raises(LookupError, match=f"{bug.name}: .* found nothing"):
        bug.detect(bug.mended)


def test_the_mend_is_right_on_both_inputs(bug):
    assert bug.naive(bug.mended)
    inputs = bug.inputs()
    want = bug.truth(*inputs)
    out = bug.mended.run(*inputs)
    if bug.name == "other-format":
        want = scales.rounded(*inputs).double()
    if bug.name == "long-sum" and not here.interpreting():
        assert errors.relative(out, want) < tools.LOSS
        return
    assert torch.equal(out.isnan(), want.isnan())
    testing.assert_close(out.nan_to_num(), want.nan_to_num(), length=bug.length)


def test_the_wrong_kernel_is_seen_to_be_wrong(bug):
    seen = bug.reproduce()
    if bug.name not in UNSEEN:
        assert "elements wrong" in seen
    elif bug.name == "padded-scales":
        # Zero times what happens to be there.
        assert seen.startswith("right: all") or "elements wrong" in seen
    elif here.interpreting() or bug.name == "rows-of-b":
        assert seen.startswith("right: all")


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()
    assert bug.symptom
    assert bug.source


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_all_compile_without_a_remark(bug, target):
    """A compiler sees nothing wrong with any of them."""
    if bug.name == "clipped-maximum":
        x = quantizers.exact(1, 128)
        plans = [each.launch(x[0], x[0, :1]) for each in (bug.wrong, bug.mended)]
    else:
        plans = [each.launch(*bug.inputs()) for each in (bug.wrong, bug.mended)]
    for case, plan in zip((bug.wrong, bug.mended), plans, strict=True):
        warps = 8 if plan.meta.get("BLOCK_N", 0) >= 128 else 4
        found = compile_only.compile(
            case.kernel, *plan.args, target=target, num_warps=warps, **plan.meta
        )
        assert found.evidence.spill_store_bytes == 0
        assert not found.evidence.warnings


@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (1, 16, 1, 1)])
def test_a_scale_of_what_was_stored_never_grows(sizes):
    """It shrinks with the inputs, and what is larger than the last step is cut off."""
    case, mend = bugs.GALLERY["clipped-maximum"].wrong, scales.CLIPPED_MAXIMUM.mended
    xs = scales._steps(*sizes)
    top = float(case.run(xs).abs().max())
    assert top == 448
    late = float(mend.run(xs).abs().max())
    # The mend is one step behind, as delayed scaling is.
    assert late == min(448.0 * sizes[-1], 448.0 * sizes[-2])


def test_numbers_that_need_no_rounding_are_those_of_the_formats():
    for every, format in ((1, formats.E4M3), (2, formats.E5M2)):
        x = quantizers.exact(4, 256, every)
        assert torch.equal(x, formats.round_to(x.cpu(), format).to(x.device))


class TestEmulated:
    """Sums in the interpreter as `accumulation` has them."""

    @pytest.mark.parametrize("bits", [8, 13])
    def test_it_is_the_model(self, bits):
        luck = torch.Generator().manual_seed(3)
        a, b = (torch.randn(s, generator=luck) for s in ((16, 100), (100, 16)))
        a, b = (x.to(torch.float8_e4m3fn) for x in (a, b))
        zeros = torch.zeros(16, 16).double().numpy()
        found = emulated.added(zeros, a.double().numpy(), b.double().numpy(), bits)
        expected = accumulation.modelled(a, b, bits)
        assert torch.equal(torch.from_numpy(found).float(), expected)

    @pytest.mark.parametrize("limit", [None, 32, 64, 128])
    def test_kernels_are_summed_so(self, limit, interpreted):
        luck = torch.Generator().manual_seed(4)
        a, b = accumulation.operands("positive", 512, luck)
        with emulated.tensor_cores():
            found = accumulation.summed(a, b, limit)
        expected = accumulation.modelled(a, b, conclusions.MODEL_BITS, limit)
        assert errors.relative(found, expected) < 2.0**-22
        plain = accumulation.summed(a, b, limit)
        exact = a.double() @ b.double()
        assert errors.relative(plain, exact) < 2.0**-20 < errors.relative(found, exact)

    def test_other_types_are_left_alone(self, interpreted):
        a = torch.ones(64, 128, dtype=torch.float16)
        b = torch.full((64, 128), 2.0**-9, dtype=torch.float16)
        a[:, 0], b[:, 0] = 32, 32
        with emulated.tensor_cores(4):
            found = accumulation.summed(a, b.t())
        assert bool((found == 1024 + 127 * 2.0**-9).all())

    @pytest.mark.parametrize("place", accumulation.PLACES)
    def test_the_probe_reads_it(self, place, interpreted):
        operands = accumulation.probe(place)
        for bits in (9, 13):
            with emulated.tensor_cores(bits):
                found = accumulation.kept(accumulation.summed(*operands))
            assert found == bits

    def test_it_ends_with_its_context(self, interpreted):
        operands = accumulation.probe("beside")
        with pytest.raises(ValueError, match="contiguous"), emulated.tensor_cores(2):
            accumulation.summed(operands.a, operands.a)
        kept = accumulation.kept(accumulation.summed(*operands))
        assert kept == accumulation.MOST

    def test_without_an_interpreter_another_process_runs_it(self, monkeypatch):
        a, b = products._positive(2048)
        plan = products.LONG_SUM.wrong.launch(a.cpu(), b.cpu())
        monkeypatch.setattr(here, "interpreting", lambda: False)
        emulated.run(products.long_kernel, plan.grid, *plan.args, **plan.meta)
        off = errors.relative(plan.out, a.cpu().double() @ b.cpu().double())
        assert off > tools.LOSS
