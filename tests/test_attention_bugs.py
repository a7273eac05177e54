"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook.attention import attention, bugs

MENTIONS = {
    "late-mask": ("which sees none of them, has changed",),
    "padded-keys": ("1 keys:",),
    "wrong-corner": ("the last 47 of 48 queries",),
    "modulo-heads": ("read those of keys [0, 1, 0, 1], and should read [0, 0, 1, 1]",),
    "finite-infinity": ("query 1 sees no key", "without a mask it is 0.0"),
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
    out = bug.mended.run(*inputs)
    testing.assert_close(out, bug.truth(*inputs), length=bug.length)


def test_the_wrong_kernel_is_seen_to_be_wrong(bug):
    assert "elements wrong" in bug.reproduce()


def test_the_chapters_own_attention_has_none_of_them(bug):
    q, k, v, *seen = bug.inputs()
    told = {"bias": seen[0] != 0} if seen else {}
    if bug.expected is bugs.last_rows:
        told = {"causal": True, "align": "bottom-right"}
    out = attention(q[None], k[None], v[None], **told)[0]
    testing.assert_close(out, bug.truth(*bug.inputs()), length=bug.length)


def test_rows_before_a_loud_key_are_lost():
    _, k, _ = bugs.LATE_MASK.inputs()
    out = bugs.LATE_MASK.run()
    gone = (out == 0).all(dim=2)
    assert bool(gone.any(dim=1).all())
    assert not bool(gone[:, -1].any())
    assert k.abs().amax(dim=(0, 2)).argmax() == k.shape[1] - 1


def test_a_row_that_sees_nothing_saw_everything():
    """A number that is added to all logits changes no weight, but for rounding."""
    out = bugs.FINITE_INFINITY.run()[:, 5]
    q, k, v, _ = bugs.FINITE_INFINITY.inputs()
    everything = bugs.expected(q, k, v)[:, 5]
    # A float32 near a million has steps of a sixteenth.
    assert 0 < float((out - everything).abs().max()) < 2.0**-4
    mended = bugs.FINITE_INFINITY.mended.run(*bugs.FINITE_INFINITY.inputs())
    assert torch.equal(mended[:, 5], torch.zeros_like(out))


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()
    assert bug.symptom
    assert bug.source


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    artefact = compile_only.compile(bug.mend, *plan.args, target=target, **plan.meta)
    assert artefact.evidence.spill_store_bytes == 0
