"""The checker takes our solutions and refuses plausible wrong ones."""

import math
from functools import partial

import pytest
import torch

from tilebook import compile_only
from tilebook.attention import reference, selftest, solutions
from tilebook.attention.exercises import EXERCISES
from tilebook.testing import CheckFailed, check, mutants

CHECK = partial(check, quiet=True)
ANSWERS = {
    "attention-traffic": (3238002688, 16777216),
    "attention-blocks": (992, 64),
    "attention-merge": (2.31326, 1.80682),
    "attention-backward": (-0.75, 0.75, -0.25, 2.25),
}
KERNELS = {
    "attention-split": solutions.split_kernel,
    "attention-sink": solutions.sink_kernel,
    "attention-delta": solutions.delta_kernel,
    "attention-queries": solutions.queries_kernel,
    "attention-group": solutions.group_kernel,
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "attention-traffic": [
        (16777216 + 16384**2 * 6, 16777216),  # each kernel's results alone
        (16777216 + 16384**2 * 16, 16777216),  # weights in float32
        (3238002688, 8388608),  # without values and result
        (1619001344, 8388608),  # elements of two bytes
        16777216,
    ],
    "attention-blocks": [
        (992, 32),  # a block for each tile
        (1024, 32),  # half of all, and the diagonal
        (1056, 64),  # all of them
        (1984, 64),  # nothing skipped
        (64, 992),  # the wrong way round
    ],
    "attention-merge": [
        (3.0, 2.5),  # the mean, of equal weights
        (2.31326, 2.5),
        (2.31326, 5.0),  # not divided
        (1.5, 1.80682),
        (2.31326, 3.19318),  # weights exchanged
    ],
    "attention-backward": [
        (-0.75, 0.75, -1.25, -0.75),  # the other sign of what arrives
        (0.5, 4.5, 1.0, 6.0),  # without delta
        (-0.75, 0.75, -0.75, 0.75),  # nothing of the logarithm
        (-3.0, 1.0, -1.0, 3.0),  # not times the weight
        (0.25, 0.75, -0.25, 2.25),  # the weights
    ],
}


def loose(m0, block_m, block_n, sq, sk, left, right):
    """The last tile is as high as all others."""
    return solutions.spans(m0, block_m, block_n, sq + block_m, sk, left, right)


def outwards(m0, block_m, block_n, sq, sk, left, right):
    """The inner ends are rounded as the outer ones are."""
    last = min(m0 + block_m, sq) - 1
    low, high = max(m0 - left, 0), min(last + right + 1, sk)
    if low >= high:
        return 0, 0
    needed = -(-high // block_n) - low // block_n
    inner_low, inner_high = max(last - left, 0), min(m0 + right + 1, sk)
    plain = max(0, -(-inner_high // block_n) - inner_low // block_n)
    return plain, needed - plain


def first_row(m0, block_m, block_n, sq, sk, left, right):
    """What the first query sees, all of them do."""
    return solutions.spans(m0, 1, block_n, sq, sk, left, right)


def beyond(m0, block_m, block_n, sq, sk, left, right):
    """Tiles past the last key have blocks, too."""
    plain, masked = solutions.spans(m0, block_m, block_n, sq, sk, left, right)
    return plain, max(masked, 1)


WRONG_FUNCTIONS = (loose, outwards, first_row, beyond)
# By exercise and mistake, old and new text of our kernel.
WRONG_KERNELS = {
    "attention-split": {
        "nothing minus nothing": (
            'tl.where(highest == -float("inf"), 0.0, highest)', "highest"
        ),
        "divided by nothing": ("tl.where(total == 0.0, 1.0, total)", "total"),
        "equal weights": ("part * weight", "part"),
        "not shrunk": ("acc * shrink +", "acc +"),
        "the sum not shrunk": ("total * shrink +", "total +"),
        "without the maximum": ("top + tl.log(seen)", "tl.log(seen)"),
        "the other order": ("split * m + row) * E", "row * splits + split) * E"),
        "not divided": ("acc / seen", "acc"),
    },
    "attention-sink": {
        "no share": ("tl.full((BLOCK_M,), 1.0", "tl.full((BLOCK_M,), 0.0"),
        "no maximum": ("+ sink\n", '- float("inf")\n'),
        "at zero": ("+ sink\n", "\n"),
        "scaled": ("+ sink\n", "+ sink * scale\n"),
        "keys that aren't there": (
            '        s = tl.where((offs_n < n)[None, :], s, -float("inf"))\n', ""
        ),
        "the sink is a key of value 1": (
            "acc = tl.zeros((BLOCK_M, D), tl.float32)",
            "acc = tl.full((BLOCK_M, D), 1.0, tl.float32)",
        ),
    },
    "attention-delta": {
        "the other sign": ("- dlse", "+ dlse"),
        "without the logarithm": (" - dlse", ""),
        "the next row's": ("& (offs_e < E)[None, :]", ""),
        "squares": ("do * o", "o * o"),
        "stored by power": ("offs_m[:, None] * E", "offs_m[:, None] * BLOCK_E"),
    },
    "attention-queries": {
        "not scaled": ("dq * scale", "dq"),
        "no delta": ("dp - delta[:, None]", "dp"),
        "delta added": ("dp - delta[:, None]", "dp + delta[:, None]"),
        "no mask": ("tl.where(seen, p * (dp - delta[:, None]), 0.0)",
                    "p * (dp - delta[:, None])"),
        "top left": ("offs_m[:, None] + n - m", "offs_m[:, None]"),
        "ends too early": ("m0 + BLOCK_M + n - m)", "m0 + n - m)"),
        "values for keys": ("tl.dot(ds.to(k.dtype), k, dq)",
                            "tl.dot(ds.to(k.dtype), v, dq)"),
        "powers of 2": ("p = tl.exp(", "p = tl.exp2("),
    },
    "attention-group": {
        "heads side by side": ("head * GROUP + offs_g",
                               "head + offs_g * tl.num_programs(0)"),
        "somebody else's rows": ("(offs_g < GROUP)[:, None]",
                                 "(offs_g < BLOCK_G)[:, None]"),
        "the first head's keys": ("(head * n + offs_n)", "(offs_n)"),
        "keys that aren't there": (
            '        s = tl.where((offs_n < n)[None, :], s, -float("inf"))\n', ""
        ),
        "not shrunk": ("acc * shrink[:, None]", "acc"),
    },
}  # fmt: skip


def test_every_exercise_is_ours_and_has_a_hint():
    names = [each.name for each in EXERCISES]
    assert len(names) == len(set(names)) == 10
    assert set(names) == {*ANSWERS, *KERNELS, "attention-spans"}
    assert all(each.hint and each.statement for each in EXERCISES)


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(
    ("name", "got"), [(n, got) for n, each in WRONG_ANSWERS.items() for got in each]
)
def test_wrong_answers_are_refused(name, got):
    with pytest.raises(CheckFailed):
        CHECK(name, got)


@pytest.mark.parametrize(
    ("name", "got", "said"),
    [
        ("attention-traffic", WRONG_ANSWERS["attention-traffic"][0], "next one reads"),
        ("attention-blocks", (992, 32), "in two blocks"),
    ],
)
def test_near_misses_are_told_what_they_are(name, got, said):
    with pytest.raises(CheckFailed, match=said):
        CHECK(name, got)


def test_answers_are_what_definitions_give():
    q, v = torch.ones(1, 1, 1, 1).double(), torch.tensor([2.0, 6.0]).double()
    k = torch.tensor([0.0, math.log(3)]).double().view(1, 1, 2, 1).requires_grad_()
    for c, want in ((0.0, (-0.75, 0.75)), (2.0, (-0.25, 2.25))):
        out, lse = reference.attention(q, k, v.view(1, 1, 2, 1), scale=1.0)
        (found,) = torch.autograd.grad(out.sum() + c * lse.sum(), k)
        torch.testing.assert_close(found.flatten().tolist(), list(want))
    x, value = torch.tensor([0.3, 1.2, -0.4]), torch.tensor([5.0, 1.0, 2.0])
    parts = [
        (float(x[i].logsumexp(0)), float(x[i].softmax(0) @ value[i]))
        for i in ([0], [1, 2])
    ]
    lse, out = solutions.merge(*parts)
    assert lse == pytest.approx(float(x.logsumexp(0)), rel=1e-5)
    assert out == pytest.approx(float(x.softmax(0) @ value), rel=1e-5)


def test_our_function_passes():
    CHECK("attention-spans", solutions.spans, seed=7)


@pytest.mark.parametrize("wrong", WRONG_FUNCTIONS)
def test_wrong_functions_are_refused(wrong):
    with pytest.raises(CheckFailed):
        CHECK("attention-spans", wrong, seed=7)


def test_a_loop_is_refused():
    def spans(m0, block_m, block_n, sq, sk, left, right):
        first = max(range(m0 + 1))
        return solutions.spans(first, block_m, block_n, sq, sk, left, right)

    with pytest.raises(CheckFailed, match="range"):
        CHECK("attention-spans", spans, seed=7)


@pytest.mark.parametrize("name", KERNELS)
def test_our_kernels_pass(name):
    CHECK(name, KERNELS[name], seed=7)


@pytest.mark.parametrize(
    ("name", "mistake"), [(n, m) for n, each in WRONG_KERNELS.items() for m in each]
)
def test_wrong_kernels_are_refused(name, mistake):
    edit = {mistake: WRONG_KERNELS[name][mistake]}
    ((_, kernel),) = mutants(KERNELS[name], edit)
    with pytest.raises(CheckFailed):
        CHECK(name, kernel, seed=7)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_solutions_compile_for_a_card(name, target):
    half = torch.empty(512, 128, dtype=torch.float16, device="meta")
    x, row = torch.empty(512, 128, device="meta"), torch.empty(512, device="meta")
    tile = {"D": 128, "BLOCK_N": 64}
    args, meta = {
        "attention-split": ((x, row, x, row, 4, 128), {"E": 128, "BLOCK_E": 128}),
        "attention-sink": (
            (half, half, half, half, 512, 512, 0.1, 1.5), tile | {"BLOCK_M": 64}
        ),
        "attention-delta": (
            (x, x, row, row, 512), {"E": 100, "BLOCK_E": 128, "BLOCK_M": 8}
        ),
        "attention-queries": (
            (half, half, half, half, row, row, x, 512, 512, 0.1), tile | {"BLOCK_M": 64}
        ),
        "attention-group": (
            (half, half, half, half, 512, 0.1), tile | {"GROUP": 8, "BLOCK_G": 16}
        ),
    }[name]  # fmt: skip
    made = compile_only.compile(
        KERNELS[name], *args, target=target, num_warps=4, **meta
    )
    assert made.evidence.spill_store_bytes == 0


def test_the_selftest_has_five_questions_with_different_options():
    assert len(selftest.QUESTIONS) == 5
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.answer in question.options
        assert question.text.strip()
        assert len(question.explanation) > 40
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 3


def test_numbers_in_the_selftest():
    assert selftest.RATIO == 32
    assert selftest.PRODUCTS == {"forward": 2, "two kernels": 7, "one kernel": 5}
    assert selftest.SHARE == 0.5
    assert selftest.FEWER == 8
