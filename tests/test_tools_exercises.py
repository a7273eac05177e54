"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest

from tilebook import testing, tools
from tilebook.testing import CheckFailed, check, exercise
from tilebook.tools import selftest, solutions
from tilebook.tools.exercises import EXERCISES

CHECK = partial(check, quiet=True)
ANSWERS = {
    "tools-sectors": (10, 2),
    "tools-flight": 36 * 1024,
    "tools-utilisation": 0.781,
}
WRONG_ANSWERS = {
    "tools-sectors": [(20, 4), (32, 2), (10, 10), (5, 2)],
    "tools-flight": [36, 288 * 1024, 32 * 1024, 12 * 1024],
    "tools-utilisation": [0.153, 0.93, 78.1, 1.28],
}
FUNCTIONS = {
    "tools-requests": solutions.requests,
    "tools-race": solutions.race,
    "tools-neighbour": solutions.neighbour_kernel,
    "tools-inclusive": solutions.inclusive,
    "tools-control": solutions.control,
}
COUNTED = "torch.unique(row[on != 0] // SECTOR).numel()"
MISTAKES = {
    "tools-requests": [
        (
            COUNTED,
            "torch.unique(row // SECTOR).numel()",
        ),
        ("row[on != 0] // SECTOR)", "row[on != 0])"),
        (
            COUNTED,
            "(row[on != 0] // SECTOR).numel()",
        ),
        (COUNTED, "4"),
    ],
    "tools-race": [
        ("p != q and ", ""),
        ("not in ({0}, {2})", "not in ({0},)"),
        ("not in ({0}, {2})", "!= {0}"),
        ("not in ({0}, {2})", "== {1}"),
        ("not in ({0}, {2})", "in ({1}, {0, 1})"),
    ],
    "tools-neighbour": [
        ("tl.minimum(offs + 1, n - 1)", "offs + 1"),
        ("tl.minimum(offs + 1, n - 1)", "tl.minimum(offs + 1, n)"),
        ("inside = offs < n\n", "inside = offs < n - 1\n"),
        ("tl.maximum(x, y)", "x"),
        ("row * n + right", "row * BLOCK + right"),
    ],
    "tools-inclusive": [
        ("range(len(own) - 1, 0, -1)", "range(1, len(own))"),
        ("own.clone()", "own"),
        ("+= total[node]", "+= own[node]"),
        ("range(len(own) - 1, 0, -1)", "range(len(own) - 1, -1, -1)"),
    ],
    "tools-control": [
        ("torch.where(result == 7, -1, result)", "result"),
        ("field >> 5 & 7", "field >> 4 & 7"),
        ("sum(field >> 11 + bit & 1 for bit in range(6))", "field >> 11 & 63"),
        ("range(6)", "range(8)"),
        ("field & 15", "field & 7"),
    ],
}


def test_there_are_eight_of_them_found_by_name():
    assert len(EXERCISES) == 8
    for task in EXERCISES:
        assert exercise(task.name) is task
        assert task.statement
        assert task.hint
    assert {task.name for task in EXERCISES} == ANSWERS.keys() | FUNCTIONS.keys()


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n, every in WRONG_ANSWERS.items() for a in every]
)
def test_wrong_answers_are_refused(name, answer):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, answer)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_ours_are_taken(name):
    CHECK(name, FUNCTIONS[name])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [(n, *edit) for n, every in MISTAKES.items() for edit in every],
)
def test_wrong_functions_are_refused(name, old, new):
    with testing.mutated_module(solutions, old, new):
        word = FUNCTIONS[name].__name__
        with pytest.raises(CheckFailed, match=name):
            CHECK(name, getattr(solutions, word))


def test_the_tracer_has_nothing_against_our_neighbour(interpreted):
    with tools.tracing() as launches:
        CHECK("tools-neighbour", solutions.neighbour_kernel)
    assert launches
    assert not [said for found in launches for said in found.problems()]


def test_the_selftest_has_five_questions_with_different_options():
    assert len(selftest.QUESTIONS) == 5
    for question in selftest.QUESTIONS:
        assert question.answer in question.options
        assert len(set(question.options)) == len(question.options) == 4
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 3
