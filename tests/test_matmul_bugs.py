"""Every planted bug slips through the usual test, and its tool finds it."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.matmul import _bug_tools, bugs

MENTIONS = {
    "default-precision": ("mma.sync", "f32.tf32.tf32", "with operands rounded"),
    "tuned-sum": ("call 2 of 2 differs from the first",),
    "one-mask": ("out[0, 0] = nan", "480 of 480"),
    "narrow-sum": ("k = 64:", "bfloat16"),
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
    seen = bug.reproduce()
    if bug is bugs.DEFAULT_PRECISION and here.interpreting():
        # The interpreter multiplies float32 as it is: that is the case's point.
        assert seen == "right: all 480 elements as expected"
    else:
        assert "elements wrong" in seen


def test_a_number_of_tf32_has_11_digits():
    x = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-12, -3.0, 1e-30])
    x = x.to(bugs.normal(1).device)
    rounded = _bug_tools.as_tf32(x)
    assert torch.equal(rounded[[0, 3]], x[[0, 3]])
    assert rounded[1] == 1
    assert rounded[2] == 1 + 2.0**-10
    assert ((rounded - x).abs() <= 2.0**-11 * x.abs()).all()
    # The test's own operands are such numbers, so that no card can fail it.
    for x in bugs.DEFAULT_PRECISION.friendly():
        assert torch.equal(_bug_tools.as_tf32(x), x)


def test_three_digits_are_right_where_seven_were_expected():
    a, b = bugs.DEFAULT_PRECISION.inputs()
    want = a.double() @ b.double()
    rounded = bugs.DEFAULT_PRECISION.mended.run(*map(_bug_tools.as_tf32, (a, b)))
    exact = bugs.DEFAULT_PRECISION.mended.run(a, b)
    assert testing.error(exact, want) < 1e-6
    assert 1e-4 < testing.error(rounded, want) < 1e-3
    bound = testing.bound(torch.float32, a.shape[1], operand="tf32")
    assert testing.error(rounded, want) < bound


def test_other_back_ends_have_the_same_default():
    plan = bugs.DEFAULT_PRECISION.wrong.launch(*bugs.DEFAULT_PRECISION.inputs())

    def code(kernel, target):
        return compile_only.compile(kernel, *plan.args, target=target, **plan.meta)

    assert "f32.tf32.tf32" in code(bugs.default_kernel, "sm_80").ptx
    assert code(bugs.ieee_kernel, "sm_80").evidence.mma == {}
    assert "xf32" in code(bugs.default_kernel, "gfx942").amdgcn
    assert "xf32" not in code(bugs.ieee_kernel, "gfx942").amdgcn


def test_what_comes_first_is_a_multiple_and_what_comes_later_is_right():
    inputs = bugs.TUNED_SUM.inputs()
    want = inputs[0] @ inputs[1]
    first, second = (bugs.TUNED_SUM.run(*inputs) for _ in range(2))
    times = (first / want)[want != 0]
    assert bool((times >= 1 + len(bugs.CONFIGS)).all())
    if here.interpreting():
        assert bool((times == 1 + len(bugs.CONFIGS)).all())
    assert torch.equal(second, want)
    assert torch.equal(bugs.TUNED_SUM.mended.run(*bugs.TUNED_SUM.inputs()), want)


@pytest.mark.parametrize("behind", [float("nan"), float("inf"), -float("inf")])
def test_zero_times_what_lies_behind(behind):
    a, b = bugs.ONE_MASK.friendly()
    want = bugs.ONE_MASK.truth(a, b)
    assert torch.equal(bugs.ONE_MASK.wrong.run(a, b).double(), want)
    b[a.shape[1] :] = behind
    assert bool(bugs.ONE_MASK.wrong.run(a, b).isnan().all())
    assert torch.equal(bugs.ONE_MASK.mended.run(a, b).double(), want)


def test_a_narrow_sum_stops_growing():
    """256 blocks of ones; the 257th is half of what bfloat16 could still tell."""
    steps = 260
    ones = torch.ones(16, steps * bugs.BLOCK_K, dtype=torch.bfloat16)
    a = ones.to(bugs.normal(1).device)
    stuck = 256 * bugs.BLOCK_K
    assert bool((bugs.NARROW_SUM.wrong.run(a, a.t().contiguous()) == stuck).all())
    right = bugs.NARROW_SUM.mended.run(a, a.t().contiguous())
    exact = torch.tensor(float(steps * bugs.BLOCK_K)).bfloat16()
    assert bool((right == exact.to(right.device)).all())
    assert exact > stuck


def test_the_error_of_a_narrow_sum_grows_with_its_length():
    a, b = bugs.NARROW_SUM.inputs()
    errors = []
    for k in (32, 256, 2048):
        part = a[:, :k].contiguous(), b[:k]
        errors.append(
            testing.error(bugs.NARROW_SUM.run(*part), bugs.NARROW_SUM.truth(*part))
        )
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 2.0**-8 < errors[2]


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80
    assert bug.diff()
    assert bug.symptom
    assert bug.source


def test_the_mend_of_a_tuned_sum_is_one_line():
    changed = [
        line for line in bugs.TUNED_SUM.diff().splitlines() if line[0] in "+-"
    ][2:]  # fmt: skip
    named = [line for line in changed if "_kernel(" not in line]
    assert named == ['+    reset_to_zero=["out_ptr"],']


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    kernel, meta = bug.mend, dict(plan.meta)
    if bug is bugs.TUNED_SUM:
        kernel, meta = kernel.fn, meta | bugs.CONFIGS[0].kwargs
    artefact = compile_only.compile(kernel, *plan.args, target=target, **meta)
    assert artefact.evidence.spill_store_bytes == 0
    assert not artefact.evidence.warnings
