"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest

from tilebook import compile_only, testing
from tilebook.tiling import bugs

MENTIONS = {"swapped-strides": ("out_ptr",), "half-a-mask": ("out_ptr",)}


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
    testing.assert_close(bug.mended.run(*inputs), bug.truth(*inputs))


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    artefact = compile_only.compile(bug.mend, *plan.args, target=target, **plan.meta)
    assert artefact.evidence.spill_store_bytes == 0
