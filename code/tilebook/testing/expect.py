"""What an exercise's reference says, and how firmly (NumPy only)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.testing.compare import widen
from tilebook.testing.declare import Exercise

_SHAKE = 2.0**-24
_SAMPLES = 4


def copies(values: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs for a reference: float64 and int64 copies that it may change."""
    return {
        name: widen(value) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def as_arrays(expected: Any) -> list[np.ndarray]:
    """A reference's arrays, NumPy's scalars among them; none if it has none."""
    parts = expected if isinstance(expected, tuple) else (expected,)
    if not any(isinstance(part, np.ndarray | np.generic) for part in parts):
        return []
    return [np.asarray(part) for part in parts]


def sensitivity(
    exercise: Exercise, values: Mapping[str, Any], arrays: list[np.ndarray], seed: int
) -> list[np.ndarray]:
    """How much each element moves when inputs do, relative to their movement.

    A sum that cancels can't be had to the last bit of its own small value; what its
    terms allow shows when they are shaken a little.

    Args:
        exercise: has the reference.
        values: the inputs.
        arrays: what the reference makes of them.
        seed: of the shaking.

    Returns:
        For each array a float64 one of its shape: the root mean square of the change,
        divided by the relative change of the inputs.
    """
    squares = [np.zeros(array.shape) for array in arrays]
    rng = np.random.default_rng(seed)
    for _ in range(_SAMPLES):
        moved = as_arrays(exercise.reference(**_shaken(copies(values), rng)))
        for square, old, new in zip(squares, arrays, moved, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                change = (new.astype(np.float64) - old.astype(np.float64)) / _SHAKE
                change = np.square(change) / _SAMPLES
            square += np.where(np.isfinite(change), change, 0.0)
    return [np.sqrt(square) for square in squares]


def _shaken(values: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {
        name: value * (1 + _SHAKE * rng.choice((-1.0, 1.0), value.shape))
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        else value
        for name, value in values.items()
    }
