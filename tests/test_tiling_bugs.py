"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook.tiling import bugs

MENTIONS = {
    "swapped-strides": ("out_ptr",),
    "half-a-mask": ("out_ptr",),
    "unturned-mask": ("never written",),
    "narrow-rows": ("x_ptr", str(-(2**31))),
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
    testing.assert_close(bug.mended.run(*inputs), bug.truth(*inputs))


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()


def test_a_half_mask_spoils_the_beginnings_of_rows(device):
    """As the page says: the first eight, and on a CPU neither in row 0 nor in 16."""
    bug = bugs.GALLERY["half-a-mask"]
    (x,) = bug.inputs()
    right = torch.isclose(bug.run(x), bug.expected(x))
    assert right[:, 8:].all()
    assert right[0].all()
    if device.type == "cpu":
        rows = (~right[:, :8]).all(dim=1).nonzero().flatten().tolist()
        assert rows == [row for row in range(20) if row % 16]


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    artefact = compile_only.compile(bug.mend, *plan.args, target=target, **plan.meta)
    assert artefact.evidence.spill_store_bytes == 0
