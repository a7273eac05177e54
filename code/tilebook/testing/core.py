"""Checks an attempt at an exercise (NumPy only).

Every shape is tried twice with different secret values, the second time in another
order, with drawn shapes among them, other layouts and magnitudes, and for functions
with a second call on the same tensors. So an attempt can't pass that is right for one
shape, remembers a result or computes nothing.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tilebook.testing.backend import Backend
from tilebook.testing.declare import Case, CheckFailed, Exercise, Report, Shape
from tilebook.testing.describe import layout
from tilebook.testing.source import name_problem, signature_problem
from tilebook.testing.trial import Trial, Wrong
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
    earlier: dict[Shape, list[np.ndarray]] = {}
    for number, case in enumerate(cases):
        known = earlier.setdefault(case.shape, [])
        trial = Trial(exercise, attempt, backend, case, known)
        try:
            worst = max(worst, trial.run())
        except Wrong as failure:
            lines = {"case": f"{trial}{failure.when}", **failure.lines}
            # The second call has its own reason; for the first, look for a simpler one.
            reason = "" if failure.when else _varied(exercise, attempt, backend, case)
            if reason:
                lines["why"] = reason
            if number:
                lines["passed"] = _passed(cases[:number])
            called = getattr(attempt, "__name__", "").replace("<lambda>", "") or "..."
            lines["again"] = f"check({exercise.name!r}, {called}, seed={secret})"
            title = f"not yet. Case {number + 1} of {len(cases)} fails."
            message = f"{exercise.name}: {title}\n{layout(lines)}"
            raise CheckFailed(message, case) from failure.__cause__
    if exercise.watch and (complaint := exercise.watch(attempt)):
        lines = {"why": complaint}
        title = "not yet. Every value is right, but not the way to it."
        raise CheckFailed(f"{exercise.name}: {title}\n{layout(lines)}")
    shapes = len({case.shape for case in cases})
    return Report(exercise.name, len(cases), shapes, worst, secret)


def _varied(exercise: Exercise, attempt: Any, backend: Backend, case: Case) -> str:
    """A reason found by trying a failed case again with one thing made ordinary."""
    ordinary = {
        "layout": (
            "contiguous",
            "The same values pass when they lie contiguous: does the attempt use the "
            "strides of its inputs?",
        ),
        "scale": (
            1.0,
            "Inputs of ordinary magnitude pass: does something overflow, underflow or "
            "lose digits at this one?",
        ),
    }
    for name, (value, reason) in ordinary.items():
        easier = dataclasses.replace(case, **{name: value})
        if easier == case:
            continue
        with contextlib.suppress(Wrong):
            Trial(exercise, attempt, backend, easier, []).run()
            return reason
    return ""


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
    # Each dtype, layout and magnitude meets the largest shape, whatever the shuffle.
    turns = max(map(len, (exercise.dtypes, exercise.layouts, exercise.scales)))
    largest = max(shapes, key=math.prod)
    plan = [(shape, turn + 1) for turn, shape in enumerate(shapes)]
    plan += [(largest, turn) for turn in range(turns)]
    for at in second.permutation(len(plan)):
        shape, turn = plan[at]
        yield Case(
            shape,
            exercise.dtypes[turn % len(exercise.dtypes)],
            exercise.layouts[turn % len(exercise.layouts)],
            float(exercise.scales[turn % len(exercise.scales)]),
            int(second.integers(2**31)),
            again=exercise.kind == "function",
        )


def _passed(cases: list[Case]) -> str:
    shapes = list(dict.fromkeys(str(case.shape) for case in cases))
    more = ", ..." if len(shapes) > 6 else ""
    plural = "cases" if len(cases) > 1 else "case"
    return f"{len(cases)} {plural} before it: {', '.join(shapes[:6])}{more}"
