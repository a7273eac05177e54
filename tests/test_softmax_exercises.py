"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest
import torch
import triton

from tilebook import compile_only, testing
from tilebook.softmax import erratum, recurrence, selftest, solutions
from tilebook.softmax.exercises import EXERCISES, ROWS, SHAPES, WIDE, block, whole
from tilebook.testing import CheckFailed, check, exercise, mutants

CHECK = partial(check, quiet=True)
KERNELS = {
    "softmax-rows": solutions.rows_kernel,
    "softmax-log": solutions.log_kernel,
    "softmax-lse": solutions.lse_kernel,
    "softmax-backward": solutions.backward_kernel,
    "softmax-argmax": solutions.argmax_kernel,
    "softmax-variance": solutions.variance_kernel,
}
ANSWERS = {
    "softmax-traffic": (4 * (8 * 4096 * 8192 + 4 * 4096), 4 * 2 * 4096 * 8192),
    "softmax-flight": (2_100_000, 4),
    "softmax-merge": (5.0, 2.9936),
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "softmax-traffic": [
        (8 * 4096 * 8192 + 4 * 4096, 2 * 4096 * 8192),  # elements
        (4 * 8 * 4096 * 8192, 4 * 2 * 4096 * 8192),  # maxima and sums forgotten
        (4 * 5 * 4096 * 8192, 4 * 2 * 4096 * 8192),  # a pass a kernel
        (4 * (8 * 4096 * 8192 + 4 * 4096), 4 * 4096 * 8192),  # the result not written
        4 * (8 * 4096 * 8192 + 4 * 4096),
    ],
    "softmax-flight": [
        (2_100_000, 3),  # rounded down
        (2_100, 4),  # microseconds for nanoseconds
        (4_286, 1),  # bandwidth over latency
        (15_909, 4),  # of one multiprocessor
    ],
    "softmax-merge": [
        (5.0, 31.5),  # not rescaled
        (5.0, 604.07),  # the factor turned round
        (5.0, 30.07),  # the other sum rescaled
        (2.0, 2.9936),
        (7.0, 31.5),
    ],
}
WRONG_KERNELS = {
    "softmax-rows": {
        "zeros for padding": ('other=float("-inf")', "other=0.0"),
        "summed along columns": (
            "tl.sum(e, axis=1)[:, None]",
            "tl.sum(e, axis=0)[None, :]",
        ),
        "one maximum for the tile": (
            "tl.max(x, axis=1)",
            "tl.max(x, axis=1) * 0.0 + tl.max(tl.max(x, axis=1), axis=0)",
        ),
        "rows unmasked": ("(offs_m < m)[:, None] & ", ""),
        "rows of COLUMNS": ("offs_m[:, None] * n", "offs_m[:, None] * COLUMNS"),
    },
    "softmax-log": {
        "logarithm of the softmax": (
            "z - tl.log(tl.sum(tl.exp(z), axis=0))",
            "tl.log(tl.exp(z) / tl.sum(tl.exp(z), axis=0))",
        ),
        "no maximum": ("x - tl.max(x, axis=0)", "x"),
        "zeros for padding": ('other=float("-inf")', "other=0.0"),
        "the sum itself": ("tl.log(tl.sum(", "(tl.sum("),
    },
    "softmax-lse": {
        "infinity less itself": ('tl.where(new == float("-inf"), 0.0, new)', "new"),
        "factor turned round": ("tl.exp(m - base)", "tl.exp(base - m)"),
        "not rescaled": ("d * tl.exp(m - base)", "d"),
        "zeros for padding": (
            'mask=mask, other=float("-inf")',
            "mask=mask, other=0.0",
        ),
        "maximum forgotten at the end": ("base + tl.log(d)", "tl.log(d)"),
        "last chunk only": ("d * tl.exp(m - base) + ", ""),
    },
    "softmax-backward": {
        "no sum": ("y * (dy - dot)", "y * dy"),
        "diagonal only": ("y * (dy - dot)", "y * dy * (1.0 - y)"),
        "sum of the gradient": ("tl.sum(y * dy, axis=0)", "tl.sum(dy, axis=0)"),
        "times the gradient": ("y * (dy - dot)", "dy * (y - dot)"),
        "store unmasked": ("y * (dy - dot), mask=mask", "y * (dy - dot)"),
    },
    "softmax-argmax": {
        "last of equal chunks": ("top > best", "top >= best"),
        "last within a chunk": (
            "tl.min(tl.where(x == top, offs, n), axis=0)",
            "tl.max(tl.where(x == top, offs, 0), axis=0)",
        ),
        "zeros for padding": ('other=float("-inf")', "other=0.0"),
        "within the chunk": ("at.to(tl.int64)", "(at - start).to(tl.int64)"),
        "from 0 on": ('tl.full((), float("-inf")', "tl.full((), 0.0"),
    },
    "softmax-variance": {
        "means apart forgotten": (
            " + delta * delta * (count * new / total)",
            "",
        ),
        "zeros take part": ("tl.where(mask, x - centre, 0.0)", "x - centre"),
        "mean of means": ("delta * (new / total)", "delta * 0.5"),
        "one less": ("m2 / n", "m2 / (n - 1)"),
        "squares less the mean's": (
            "tl.sum(away * away, axis=0) + delta",
            "tl.sum(x * x, axis=0) - new * centre * centre + delta",
        ),
    },
}


def wrong_kernels():
    for name, edits in WRONG_KERNELS.items():
        for mistake, kernel in mutants(KERNELS[name], edits):
            yield pytest.param(name, kernel, id=f"{name}: {mistake}")


def strides_ignored(x, t):
    return solutions.temperature(x.as_strided(x.shape, (x.shape[1], 1)), t)


def neighbours_in_t(x, t):
    return solutions.temperature(x, t.as_strided(t.shape, (1,)))


def multiplied(x, t):
    return solutions.temperature(x, 1 / t)


def hottest_for_all(x, t):
    return solutions.temperature(x, t[:1].expand(t.shape))


def in_torch(x, t):
    return torch.softmax(x / t[:, None], dim=-1)


def first_block_only(x, t):
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel():
        kernel = solutions.temperature_kernel
        n = min(x.shape[1], 1024)
        args = (x, t, out, n, *x.stride(), t.stride(0))
        kernel[(x.shape[0],)](*args, BLOCK=triton.next_power_of_2(n))
    return out


WRONG_FUNCTIONS = (
    strides_ignored,
    neighbours_in_t,
    multiplied,
    hottest_for_all,
    in_torch,
    first_block_only,
)


def test_there_are_eight_to_ten_of_them_found_by_name():
    assert 8 <= len(EXERCISES) <= 10
    for task in EXERCISES:
        assert exercise(task.name) is task
        assert task.statement
        assert task.hint
    names = {task.name for task in EXERCISES}
    assert names == KERNELS.keys() | ANSWERS.keys() | {"softmax-temperature"}


def test_shapes_have_one_chunk_and_several_whole_and_ragged():
    chunks = {(n > block(n), n % block(n) == 0) for m, n in SHAPES if m}
    assert {(False, False), (True, False)} <= chunks
    assert all(n <= whole(n) < 2 * max(n, 2) for _, n in SHAPES)
    assert any(m % ROWS for m, _ in exercise("softmax-rows").shapes)
    assert max(n for _, n in exercise("softmax-rows").shapes) == WIDE


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_ours_are_taken(name):
    assert CHECK(name, KERNELS[name]).shapes >= 5


def test_the_function_of_ours_is_taken():
    assert CHECK("softmax-temperature", solutions.temperature).shapes >= 5


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(("name", "kernel"), list(wrong_kernels()))
def test_wrong_kernels_are_refused(name, kernel):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, kernel)


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n, given in WRONG_ANSWERS.items() for a in given]
)
def test_wrong_answers_are_refused(name, answer):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, answer)


@pytest.mark.parametrize("function", WRONG_FUNCTIONS)
def test_wrong_functions_are_refused(function):
    with pytest.raises(CheckFailed, match="softmax-temperature"):
        CHECK("softmax-temperature", function)


def test_remarks_fit_the_mistake():
    task = exercise("softmax-traffic")
    assert "elements" in task.explain(WRONG_ANSWERS["softmax-traffic"][0])
    assert "written and read" in task.explain(WRONG_ANSWERS["softmax-traffic"][1])
    assert task.explain(1) is None
    assert task.explain((1, 2)) is None


def test_the_answer_about_states_is_that_of_the_recurrence():
    def state(m, d):
        return recurrence.State(torch.tensor(m).double(), torch.tensor(d).double())

    m, d = recurrence.merge(state(2.0, 30.0), state(5.0, 1.5))
    assert solutions.merge(2.0, 30.0, 5.0, 1.5) == pytest.approx((float(m), float(d)))


@pytest.mark.parametrize(
    ("variant", "shift"),
    [("padding", -3.0), ("rescale", 3.0), ("both", -3.0), ("both", 3.0)],
)
def test_the_erratum_would_be_refused_here(variant, shift, device):
    """Padding shows below 0, and a factor where a maximum above 0 grows."""
    x = torch.randn(3, 100, device=device) + shift
    rising = x.sort(dim=-1).values
    out = erratum.softmax(rising, variant)
    with pytest.raises(AssertionError):
        testing.assert_close(
            out, torch.softmax(rising.double(), -1), length=rising.shape[1]
        )


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_solutions_compile_everywhere(target):
    x = torch.empty((64, 64), device="meta")
    names = KERNELS if target == "sm_90" else ("softmax-lse",)
    for name in names:
        args, meta = (x, x, 64), {"BLOCK": 64}
        if name == "softmax-rows":
            args, meta = (x, x, 64, 64), {"ROWS": 4, "COLUMNS": 64}
        if name == "softmax-backward":
            args = (x, x, x, 64)
        if name == "softmax-argmax":
            args = (x, torch.empty(64, dtype=torch.int64, device="meta"), 64)
        evidence = compile_only.compile(
            KERNELS[name], *args, **meta, target=target
        ).evidence
        assert evidence.spill_store_bytes == 0


def test_repeats_are_equal(device):
    x, t = torch.randn(4, 70, device=device), torch.rand(4, device=device) + 0.5
    testing.deterministic(lambda: solutions.temperature(x, t), 3)


def test_the_selftest_has_five_questions_with_different_options():
    assert len(selftest.QUESTIONS) == 5
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.answer in question.options
        assert question.text.strip()
        assert len(question.explanation) > 40
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 2


def test_what_the_selftest_says_of_float32_is_so():
    limit = torch.finfo(torch.float32).max
    assert torch.tensor(89.0).double().exp() > limit > torch.tensor(88.0).exp()
