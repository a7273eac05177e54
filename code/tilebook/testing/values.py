"""Answers that are values: numbers, words, and tuples of them (NumPy only)."""

import math
from typing import Any

import numpy as np

from tilebook.testing.declare import Exercise


def answer_problem(exercise: Exercise, given: Any) -> str | None:
    """What is wrong with an answer; never gives the right one away.

    Args:
        exercise: of kind ``answer``.
        given: what the reader answers.

    Returns:
        A sentence, or None if the answer is right.
    """
    right = exercise.answer()
    if same_value(given, right, exercise.rtol):
        return None
    remark = exercise.explain(given) if exercise.explain else None
    problem = f"{given!r} is not the answer."
    expected, got = _kind(right), _kind(given)
    if expected != got:
        problem += f" It should be {expected}, this is {got}."
    elif isinstance(right, tuple | list) and len(right) == len(given):
        off = [
            str(at)
            for at, (a, b) in enumerate(zip(given, right, strict=True))
            if not same_value(a, b, exercise.rtol)
        ]
        problem += f" Wrong at position {', '.join(off)}."
    return f"{problem} {remark}" if remark else problem


def same_value(given: Any, right: Any, rtol: float = 0.0) -> bool:
    """Whether a value is the right one.

    Args:
        given: what came; zero-dimensional arrays and tensors count as numbers.
        right: integers, bools and words must be met exactly, but for case and spaces.
        rtol: relative deviation accepted where the right value is a float.

    Returns:
        True if it is; False also where types don't fit.
    """
    given, right = _plain(given), _plain(right)
    if isinstance(right, tuple | list):
        return (
            isinstance(given, tuple | list)
            and len(given) == len(right)
            and all(same_value(a, b, rtol) for a, b in zip(given, right, strict=True))
        )
    if isinstance(right, str):
        return isinstance(given, str) and _letters(given) == _letters(right)
    if isinstance(right, bool) or right is None:
        return given is right
    if isinstance(given, bool) or not isinstance(given, int | float):
        return False
    if isinstance(right, int):
        return given == right
    both_nan = math.isnan(right) and math.isnan(given)
    return both_nan or math.isclose(given, right, rel_tol=max(rtol, 1e-12))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def _letters(text: str) -> str:
    return " ".join(text.casefold().split())


def _kind(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a word"
    if isinstance(value, tuple | list):
        return f"{len(value)} values in a tuple"
    return f"of type {type(value).__name__}"
