"""Which elements of an output are wrong, by a limit for each (NumPy only).

The functions take NumPy arrays or torch tensors alike: ``xp`` is the library.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tilebook.testing.precision import (
    ELEMENT_FACTOR,
    Format,
    accumulated,
    dtype_name,
    format_of,
    ulp,
)

# From here on not every integer is a float64.
_INEXACT = 2.0**53


@dataclass(frozen=True)
class Limit:
    """What an output's elements may be off by.

    Args:
        length: roundings an output passes through; see `precision.bound`.
        accumulate: format of the intermediate results.
        operand: format that factors of a product are rounded to, if any.
        factor: multiple of sqrt(length) allowed for one element.
        atol: absolute error allowed besides, for integers too.
    """

    length: int = 1
    accumulate: Any = "float32"
    operand: Any = None
    factor: float = ELEMENT_FACTOR
    atol: float = 0.0

    def relative(self, target: Format) -> float:
        """Relative error before the final rounding, for one element."""
        return accumulated(
            target,
            self.length,
            self.accumulate,
            operand=self.operand,
            factor=self.factor,
        )


def allowed(
    expected: Any, dtype: Any, limit: Limit, scale: Any, xp: ModuleType = np
) -> Any:
    """Largest error of each element: half an ulp plus what accumulating may add.

    Args:
        expected: float64 reference values.
        dtype: of the output.
        limit: what is allowed.
        scale: magnitude of what was summed for each element, float64, broadcastable.
        xp: ``numpy`` or ``torch``.

    Returns:
        float64, shape of ``expected``.
    """
    target = format_of(dtype)
    if target is None:
        return xp.zeros_like(expected, dtype=xp.float64) + limit.atol
    finite = xp.where(xp.isfinite(expected), expected, xp.ones_like(expected))
    relative = limit.relative(target)
    slack = 0.5 * ulp(finite, target, xp) + limit.atol
    if relative == 0.0:
        return slack
    # Approximate instructions flush results below float32's normal numbers to zero.
    flushed = min(2.0**-126, target.smallest_normal)
    return slack + relative * xp.maximum(xp.abs(finite), scale) + flushed


def alike(got: Any, expected: Any, xp: ModuleType = np) -> tuple[Any, Any]:
    """Output and reference as two of a kind, so that they can be compared exactly.

    Args:
        got: output, as float64 or as an integer of 64 bits.
        expected: reference, likewise.
        xp: ``numpy`` or ``torch``.

    Returns:
        Both as they are if both are integers or neither is, else both as float64.

    Raises:
        ValueError: one is integer, the other is not, and at some place both are too
            large for float64 to tell neighbouring integers apart.
    """
    floating = [format_of(x.dtype) is not None for x in (got, expected)]
    if floating[0] == floating[1]:
        return got, expected
    wide = tuple(xp.asarray(x, dtype=xp.float64) for x in (got, expected))
    large = [xp.isfinite(x) & (xp.abs(x) >= _INEXACT) for x in wide]
    if bool((large[0] & large[1]).any()):
        kinds = ["floating-point" if f else "integer" for f in floating]
        raise ValueError(
            f"the output is {kinds[0]} and its reference {kinds[1]}, and both reach "
            "2**53, from where on float64 does not hold every integer: give a "
            f"reference that is {kinds[0]}, too"
        )
    return wide


def apart(got: Any, expected: Any, xp: ModuleType = np) -> Any:
    """How far each element is from its reference.

    Args:
        got: output, as float64 or as an integer of 64 bits.
        expected: reference, integer if the output is; perhaps of the other sign.
        xp: ``numpy`` or ``torch``.

    Returns:
        float64: the exact distance, rounded once; 0.0 only where they are equal.
    """
    if format_of(got.dtype) is not None:
        return xp.abs(got - expected)
    # By halves, as the difference of two integers of 64 bits may not fit in 64.
    (high, low), (other_high, other_low) = _halves(got, xp), _halves(expected, xp)
    high = xp.asarray(high - other_high, dtype=xp.float64)
    return xp.abs(high * 2.0**32 + xp.asarray(low - other_low, dtype=xp.float64))


def _halves(values: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Upper and lower 32 bits as int64; the upper ones have the sign, if there is."""
    mask = 0xFFFF_FFFF
    if dtype_name(values.dtype) == "uint64":
        # Torch can do no arithmetic with uint64.
        values = values.view(xp.int64)
        return (values >> 32) & mask, values & mask
    return values >> 32, values & mask


def wrong(got: Any, expected: Any, limits: Any, dtype: Any, xp: ModuleType = np) -> Any:
    """Which elements are off by more than they may be.

    Args:
        got: output, as float64 or as an integer of 64 bits.
        expected: reference, same shape; see `alike`.
        limits: result of `allowed`.
        dtype: the output's own.
        xp: ``numpy`` or ``torch``.

    Returns:
        bool, shape of ``expected``. NaN must meet NaN, an infinity the same one;
        a finite reference that the format can't hold must have overflowed.
    """
    target = format_of(dtype)
    if target is None:
        return ~(apart(got, expected, xp) <= limits)
    same = (got == expected) | (xp.isnan(got) & xp.isnan(expected))
    finite = xp.isfinite(got) & xp.isfinite(expected)
    with np.errstate(invalid="ignore", over="ignore"):
        close = finite & (xp.abs(got - expected) <= limits)
        spilled = xp.abs(expected) + limits >= target.overflow
        over = ~xp.isfinite(got) & spilled & xp.isfinite(expected)
        over = over & ((got > 0) == (expected > 0))
    if not target.infinity:
        # Without infinities a format saturates or gives NaN, by the conversion used.
        over = xp.isnan(got) & spilled
        largest = xp.abs(got) == target.largest
        over = over | (largest & spilled & ((got > 0) == (expected > 0)))
    return ~(same | close | over)


def judged(
    got: Any,
    expected: Any,
    limits: Any,
    never: Any,
    dtype: Any,
    xp: ModuleType = np,
) -> tuple[Any, Any]:
    """Which elements are wrong, and which of them because nobody wrote them.

    Args:
        got, expected, limits, dtype, xp: as for `wrong`.
        never: which elements hold poison, bool. Integers and one-byte formats may
            hold such a value in earnest: there it counts only where it is wrong, and
            only if half of all wrong elements have it.

    Returns:
        Two bool arrays; the second implies the first.
    """
    bad = wrong(got, expected, limits, dtype, xp)
    target = format_of(dtype)
    if target is not None and target.bits > 8:
        return bad | never, never
    never = never & bad
    if 2 * int(never.sum()) < int(bad.sum()):
        never = xp.zeros_like(never)
    return bad, never


def root_mean_square(values: np.ndarray) -> float:
    """Root mean square of the finite elements; 0.0 if there are none."""
    # In float64, where the square of an integer doesn't wrap.
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def widen(values: np.ndarray) -> np.ndarray:
    """Same values as float64, or as int64 for integers and bool (uint64 as it is)."""
    if values.dtype.kind in "biu":
        return values.astype(np.uint64 if values.dtype == np.uint64 else np.int64)
    return values.astype(np.float64)
