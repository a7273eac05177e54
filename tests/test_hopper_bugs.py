"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest
import torch

from tilebook import compile_only, schedules
from tilebook.hopper import bugs, launching
from tilebook.hopper.bugs import BLOCK_K, BLOCK_M, BLOCK_N, GALLERY, STAGES

MENTIONS = {
    "restarted-count": (
        "nobody can go on",
        "consume waits for arrived[1], phase 0",
        "free[1]",
    ),
    "freed-early": ("orders are wrong", "with seed 3", "out[0, 0] = -4"),
}


@pytest.fixture(params=GALLERY.values(), ids=lambda bug: bug.name)
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


def test_the_mend_is_right_in_every_order(bug):
    assert bug.naive(bug.mended)
    a, b, _ = bug.inputs()
    for seed in (3, 10, 20, 30):
        assert torch.equal(bug.mended.run(a, b, seed), a @ b)


def test_the_wrong_kernel_is_seen_to_be_wrong():
    assert "Deadlock" in bugs.RESTARTED.reproduce()
    assert "elements wrong" in bugs.HASTY.reproduce()


@pytest.mark.parametrize("chunks", range(1, 9))
def test_a_restarted_count_hangs_but_for_whole_rounds_of_the_ring(chunks):
    a, b, seed = bugs._operands(2 * BLOCK_M, BLOCK_N, chunks * BLOCK_K, 0)
    if chunks % (2 * STAGES) == 0:
        assert torch.equal(bugs.RESTARTED.wrong.run(a, b, seed), a @ b)
        return
    try:
        out = bugs.RESTARTED.wrong.run(a, b, seed)
    except schedules.ScheduleError:
        return
    assert not torch.equal(out, a @ b)


def test_an_early_slot_is_harmless_while_none_is_used_twice():
    a, b, _ = bugs.HASTY.friendly()
    assert a.shape[1] == STAGES * BLOCK_K
    for seed in bugs.SEEDS:
        assert torch.equal(bugs.HASTY.wrong.run(a, b, seed), a @ b)


def test_an_early_slot_is_now_and_then_right():
    a, b, _ = bugs.HASTY.inputs()
    right = [torch.equal(bugs.HASTY.wrong.run(a, b, s), a @ b) for s in bugs.SEEDS]
    assert 0 < sum(right) < len(right)


@pytest.mark.parametrize("name", ["kept", "hasty", "restarted"])
def test_all_compile_for_a_card_without_a_remark(name):
    """A compiler sees nothing wrong with a wrong schedule."""
    x = torch.empty((512, 512), dtype=torch.bfloat16, device="meta")
    described = (
        launching.describe(x, BLOCK_M, BLOCK_K, False),
        launching.describe(x, BLOCK_K, BLOCK_N, False),
        launching.describe(x, BLOCK_M, BLOCK_N, False),
    )
    meta = {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K}
    made = compile_only.compile(
        bugs.product_kernel, *described, 512, 512, 512, name,
        **meta, STAGES=STAGES, num_warps=4,
    )  # fmt: skip
    assert "wgmma" in made.evidence.mma
    assert made.evidence.spill_store_bytes == 0
    assert not [n for n in made.evidence.warnings if n.code.startswith("C75")]


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()
    assert bug.symptom
    assert bug.source
