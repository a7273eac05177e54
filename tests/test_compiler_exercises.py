"""The checker takes our solutions and refuses plausible wrong ones."""

import importlib.util
import textwrap
from functools import partial

import pytest

from tilebook import compiler, testing
from tilebook.compiler import solutions
from tilebook.compiler.exercises import CODE, EXERCISES
from tilebook.compiler.types import Pointer, f32, i32
from tilebook.testing import CheckFailed, check, exercise

CHECK = partial(check, quiet=True)
ANSWERS = {
    "compiler-width": (8, 4),
    "compiler-owner": (5, 10, 1),
    "compiler-carried": "total",
    "compiler-memory": 28 * 1024,
    "compiler-barriers": 4,
}
WRONG_ANSWERS = {
    "compiler-width": [(4, 4), (8, 2), (16, 2), (8, 16)],
    "compiler-owner": [(1, 10, 1), (5, 10, 5), (10, 1, 5), (5, 2, 1)],
    "compiler-carried": ["count, total", "scale, total", "total, x", ""],
    "compiler-memory": [44 * 1024, 24 * 1024, 36 * 1024, 28],
    "compiler-barriers": [3, 5, 6, 2],
}
FUNCTIONS = {
    "compiler-apply": solutions.apply,
    "compiler-swizzle": solutions.swizzle,
    "compiler-program": solutions.program,
}
MISTAKES = {
    "compiler-apply": [
        ("found ^= ", "found += "),
        ("x >> bit & 1", "x >> (len(columns) - 1 - bit) & 1"),
        ("found ^= ", "found |= "),
    ],
    "compiler-swizzle": [
        ("^ (row % phases)", "+ (row % phases)"),
        ("row % phases", "row // phases"),
        (" + column % vector", ""),
        ("row * side + group * vector", "row * side + group"),
    ],
}


def carrying(folder):
    """The page's program, from a file."""
    path = folder / "carrying.py"
    body = textwrap.indent("offs = tile.arange(0, BLOCK)\n" + CODE, "    ")
    path.write_text(
        "from tilebook.compiler import language as tile\n"
        "from tilebook.compiler import program\n\n\n@program\n"
        f"def carrying(x_ptr, n, BLOCK):\n{body}",
        encoding="utf-8",
    )
    spec = importlib.util.spec_from_file_location("carrying", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.carrying


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
    assert CHECK(name, FUNCTIONS[name]).shapes >= 5


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [(n, *edit) for n, every in MISTAKES.items() for edit in every],
)
def test_wrong_functions_are_refused(name, old, new):
    with testing.mutated_module(solutions, old, new):
        wrong = getattr(solutions, name.removeprefix("compiler-"))
        with pytest.raises(CheckFailed, match=name):
            CHECK(name, wrong)


def test_a_sum_in_torch_is_no_program():
    with pytest.raises(CheckFailed, match="compiler-program"):
        CHECK("compiler-program", lambda x: (x * x).sum(1))


def test_the_loop_carries_what_the_answer_says(tmp_path):
    given = {"x_ptr": Pointer(f32), "n": i32, "BLOCK": 16}
    (loop,) = (
        op
        for op in compiler.lower(carrying(tmp_path), given).walk()
        if op.name == "scf.for"
    )
    assert ", ".join(x.name for x in loop.results) == ANSWERS["compiler-carried"]
