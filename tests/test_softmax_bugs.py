"""Every planted bug slips through the usual test, and its tool finds it."""

import math

import pytest
import torch

from tilebook import compile_only, testing
from tilebook.softmax import bugs

MENTIONS = {
    "zero-maximum": ("x + -200", "nan"),
    "turned-factor": ("rows don't sum to 1",),
    "masked-chunk": ("columns 0 to 31 are -inf", "nan"),
}


@pytest.fixture(params=bugs.GALLERY.values(), ids=lambda bug: bug.name)
def bug(request):
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
    out, want = bug.mended.run(*inputs), bug.truth(*inputs)
    testing.assert_close(out, want, length=bug.length)


def test_the_wrong_kernel_is_seen_to_be_wrong(bug):
    assert "of 400 elements" in bug.reproduce()


def test_a_masked_chunk_spoils_its_own_row_only():
    out = bugs.MASKED_CHUNK.run()
    assert bool(out[2].isnan().all())
    assert not bool(out[[0, 1, 3]].isnan().any())


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()


def test_a_wholly_masked_row_is_nan_as_in_pytorch():
    told = bugs.wholly_masked()["value"]
    assert math.isnan(told["softmax"])
    assert math.isnan(told["log_softmax"])
    assert told["logsumexp"] == -math.inf
    assert told["attention, mask of bools"] == 0.0
    x = torch.full((4, 100), -math.inf, device=bugs.normal(1).device)
    for case in (bugs.ZERO_MAXIMUM.mended, bugs.MASKED_CHUNK.mended):
        assert bool(case.run(x).isnan().all())


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    artefact = compile_only.compile(bug.mend, *plan.args, target=target, **plan.meta)
    assert artefact.evidence.spill_store_bytes == 0
