"""Checks an attempt at an exercise (NumPy only).

Every shape is tried twice with different secret values, the second time in another
order, with drawn shapes among them, other layouts and magnitudes, and for functions
with a second call on the same tensors. So an attempt can't pass that is right for one
shape, remembers a result or computes nothing.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tilebook.testing.declare import Case, CheckFailed, Exercise, Report
from tilebook.testing.describe import layout
from tilebook.testing.source import name_problem, signature_problem
from tilebook.testing.trial import Backend, Trial, Wrong
from tilebook.testing.values import answer_problem

__all__ = ["Backend", "CheckFailed", "Exercise", "Report", "run"]


def run(
    exercise: Exercise, attempt: Any, backend: Backend, seed: int | None = None
) -> Report:
    """Check an attempt.

    Args:
        exercise: what was asked.
        attempt: kernel, function or answer, as the exercise's kind says.
        backend: the tensor library.
        seed: of all that is drawn; by default a secret one.

    Returns:
        What was tried.

    Raises:
        CheckFailed: the attempt is wrong; the message says where and why.
    """
    problem = _unfit(exercise, attempt)
    if problem:
        raise CheckFailed(f"{exercise.name}: not yet.\n{layout({'why': problem})}")
    if exercise.kind == "answer":
        return Report(exercise.name)
    secret = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    cases = list(_cases(exercise, secret))
    worst = 0.0
    for number, case in enumerate(cases):
        try:
            worst = max(worst, Trial(exercise, attempt, backend, case).run())
        except Wrong as failure:
            lines = {"case": f"{case}{failure.when}", **failure.lines}
            if number:
                lines["passed"] = _passed(cases[:number])
            lines["again"] = f"check({exercise.name!r}, ..., seed={secret})"
            title = (
                f"{exercise.name}: not yet. Case {number + 1} of {len(cases)} fails."
            )
            message = f"{title}\n{layout(lines)}"
            raise CheckFailed(message, case) from failure.__cause__
    shapes = len({case.shape for case in cases})
    return Report(exercise.name, len(cases), shapes, worst, secret)


def _unfit(exercise: Exercise, attempt: Any) -> str | None:
    """What is wrong before anything is run."""
    if exercise.kind == "answer":
        return answer_problem(exercise, attempt)
    if exercise.kind == "kernel":
        problem = signature_problem(attempt, exercise.parameters)
    else:
        problem = None if callable(attempt) else f"Got {attempt!r}, not a function."
    return problem or name_problem(attempt, exercise.required, exercise.forbidden)


def _cases(exercise: Exercise, seed: int) -> Iterator[Case]:
    """Every shape and dtype simply; then, with fresh values, shuffled and varied."""
    first, second = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    for shape in exercise.shapes:
        for dtype in exercise.dtypes:
            values = int(first.integers(2**31))
            yield Case(tuple(shape), dtype, exercise.layouts[0], 1.0, values)
    drawn = [exercise.draw_shape(second) for _ in range(2)]
    shapes = [tuple(s) for s in (*exercise.shapes, *drawn) if s is not None]
    for turn, at in enumerate(second.permutation(len(shapes))):
        yield Case(
            shapes[at],
            exercise.dtypes[turn % len(exercise.dtypes)],
            exercise.layouts[(turn + 1) % len(exercise.layouts)],
            float(exercise.scales[(turn + 1) % len(exercise.scales)]),
            int(second.integers(2**31)),
            again=exercise.kind == "function",
        )


def _passed(cases: list[Case]) -> str:
    shapes = list(dict.fromkeys(str(case.shape) for case in cases))
    more = ", ..." if len(shapes) > 6 else ""
    plural = "cases" if len(cases) > 1 else "case"
    return f"{len(cases)} {plural} before it: {', '.join(shapes[:6])}{more}"
