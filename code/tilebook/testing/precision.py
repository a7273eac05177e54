"""Number formats and the errors that honest arithmetic in them may make (NumPy only).

Derivation of the bounds
------------------------
A format with p significant bits rounds to nearest with a relative error of at most
its unit roundoff u = 2**-p: half a unit in the last place (ulp).

An output that is computed by one correctly rounded operation in its own format is
off by at most half an ulp, nothing more; that is what ``length=1`` demands.

An output computed in an accumulator of unit roundoff v passes through k roundings
there before the last one: k = length when the accumulator is wider than the output,
and k = length - 1 when they are one format, since then the last accumulation is the
final rounding. Two limits hold for what these k roundings add:

* always, k v to first order (Higham, Accuracy and Stability of Numerical Algorithms,
  2nd edition, section 3.1), relative to the sum of the terms' magnitudes;
* for roundings that are not correlated, a multiple of sqrt(k) v. Rounding i has a
  variance of at most v**2/3 times the square of partial sum i. Terms of one sign
  give partial sums i*m, and so a root-mean-square error of v sqrt(k)/3 relative to
  the result. Terms of random sign give partial sums of about sqrt(i)*s and a result
  of sqrt(k)*s: v sqrt(k/6), which is 0.41 sqrt(k) v. Any other order of summation
  (a tree, blocks) has smaller partial sums, hence smaller errors.

So the norm-wise bound on a whole output is u + min(k, 2 sqrt(k)) v: five times the
root-mean-square error, which leaves room for hardware approximations of a few ulp
and none for a sum kept in half precision, whose v is 8,192 times larger. Single
elements may lie further out, so the element-wise limit has 4 sqrt(k): ten times.

Below the smallest normal number ulp stop shrinking, and with them half an ulp, which
is h = 2**(e - p) there, for a smallest exponent e. The final rounding of k such results
adds h sqrt(k) to the norm at most, whatever their own norm is: of a softmax in float16
over a million elements all results are subnormal, and it is a hundredth of them.

Operands that are rounded once more before they are multiplied (TF32) add their
rounding twice per product: 2 w, for an operand format of unit roundoff w.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

NORM_FACTOR = 2.0
ELEMENT_FACTOR = 4.0


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Args:
        name: as in ``torch.float32``, without the ``torch.``.
        digits: significant bits, the hidden one included.
        min_exponent: exponent of the smallest normal number.
        largest: largest finite number.
        bits: width in memory.
        infinity: whether numbers beyond the largest become infinite.
    """

    name: str
    digits: int
    min_exponent: int
    largest: float
    bits: int
    infinity: bool = True

    @property
    def roundoff(self) -> float:
        """Largest relative error of rounding to nearest, 2**-digits."""
        return 2.0**-self.digits

    @property
    def smallest_normal(self) -> float:
        """Smallest number that still has all its significant bits."""
        return 2.0**self.min_exponent

    @property
    def underflow(self) -> float:
        """Largest error of rounding to a subnormal number: half of their distance."""
        return 2.0 ** (self.min_exponent - self.digits)

    @property
    def overflow(self) -> float:
        """Magnitude from which on rounding to nearest leaves the finite numbers."""
        exponent = np.floor(np.log2(self.largest))
        return float(self.largest + 2.0 ** (exponent - self.digits))


FORMATS = {
    f.name: f
    for f in (
        Format("float64", 53, -1022, float(np.finfo(np.float64).max), 64),
        Format("float32", 24, -126, float(np.finfo(np.float32).max), 32),
        Format("tf32", 11, -126, 2.0**127 * (2 - 2.0**-10), 32),
        Format("bfloat16", 8, -126, 2.0**127 * (2 - 2.0**-7), 16),
        Format("float16", 11, -14, 65504.0, 16),
        Format("float8_e4m3fn", 4, -6, 448.0, 8, infinity=False),
        Format("float8_e5m2", 3, -14, 57344.0, 8),
    )
}


def dtype_name(dtype: Any) -> str:
    """Plain name of a dtype given as torch's, NumPy's or a string.

    Args:
        dtype: for example ``torch.bfloat16``, ``np.dtype("int32")``, ``"tf32"``.

    Returns:
        The name without a library's prefix: ``"bfloat16"``.
    """
    name = dtype if isinstance(dtype, str) else str(dtype)
    if isinstance(dtype, type):
        name = np.dtype(dtype).name
    return name.removeprefix("torch.")


def format_of(dtype: Any) -> Format | None:
    """Floating-point format of a dtype, or None where arithmetic is exact.

    Args:
        dtype: torch's, NumPy's or a name.

    Returns:
        The format; None for integers and bool.

    Raises:
        ValueError: the dtype is a floating-point or complex one without an entry.
    """
    name = dtype_name(dtype)
    if name in FORMATS:
        return FORMATS[name]
    if name.startswith(("int", "uint", "bool")):
        return None
    raise ValueError(f"no error bound for dtype {name}; known: {', '.join(FORMATS)}")


def bound(
    dtype: Any,
    length: int = 1,
    *,
    accumulate: Any = "float32",
    operand: Any = None,
    factor: float = NORM_FACTOR,
) -> float:
    """Largest relative error that honest arithmetic makes, derived from the formats.

    Args:
        dtype: of the output.
        length: roundings an output passes through: terms of a sum, or operations of
            an element-wise chain; 1 is a single correctly rounded operation.
        accumulate: format of the intermediate results; never taken as narrower than
            needed: a float64 output is accumulated in float64.
        operand: format that the factors of a product are rounded to before the
            multiplication, if any, such as ``"tf32"``.
        factor: multiple of sqrt(length) allowed; see the module's derivation.

    Returns:
        Bound on the relative error in the Frobenius norm; 0.0 for integers and bool.

    Raises:
        ValueError: unknown dtype, or a negative length.

    Notes:
        Derived in this module's docstring. Tensor cores truncate where this assumes
        rounding to nearest: long sums of one sign read out in float32 may need a
        larger ``factor``, said where it is used.
    """
    target = format_of(dtype)
    if target is None:
        return 0.0
    extra = accumulated(target, length, accumulate, operand=operand, factor=factor)
    return target.roundoff + extra


def accumulated(
    target: Format,
    length: int,
    accumulate: Any = "float32",
    *,
    operand: Any = None,
    factor: float = NORM_FACTOR,
) -> float:
    """The part of `bound` that comes before the final rounding.

    Args:
        target: format of the output.
        length, accumulate, operand, factor: as for `bound`.

    Returns:
        Relative error gathered in the accumulator and in rounded operands.

    Raises:
        ValueError: unknown dtype, or a negative length.
    """
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    inner = format_of(accumulate)
    if inner is None:
        raise ValueError(f"accumulate must be floating-point, got {accumulate}")
    if target.digits > inner.digits:
        inner = target
    roundings = max(length, 1) - (inner.digits == target.digits)
    steps = min(roundings, factor * roundings**0.5)
    rounded = format_of(operand) if operand is not None else None
    return steps * inner.roundoff + (2 * rounded.roundoff if rounded else 0.0)


def ulp(values: Any, target: Format, xp: ModuleType = np) -> Any:
    """Distance between neighbouring numbers of a format, at given magnitudes.

    Args:
        values: float64 array or tensor; finite (others give meaningless results).
        target: the format.
        xp: ``numpy`` or ``torch``, whichever ``values`` belongs to.

    Returns:
        float64, shape of ``values``: 2**(floor(log2|value|) - digits + 1), and the
        subnormal spacing below the smallest normal number.
    """
    exponent = (values.view(xp.int64) >> 52) & 0x7FF
    low = max(target.min_exponent + 1023, target.digits)
    exponent = xp.clip(exponent, low, None) - (target.digits - 1)
    return (exponent << 52).view(xp.float64)


def round_to(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Values rounded to nearest, ties to even, in a floating-point format.

    Args:
        values: any floating-point array.
        dtype: the format, which NumPy need not have (bfloat16).

    Returns:
        float64 array of numbers that the format holds exactly. Beyond the largest
        one: infinity, or the largest where the format has no infinity.

    Raises:
        ValueError: the dtype is no floating-point one.
    """
    target = format_of(dtype)
    if target is None:
        raise ValueError(f"{dtype_name(dtype)} is no floating-point dtype")
    exact = np.array(values, dtype=np.float64)
    if target.name == "float64":
        return exact
    finite = np.isfinite(exact)
    spacing = ulp(np.where(finite, exact, 1.0), target)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(finite, np.rint(exact / spacing) * spacing, exact)
    beyond = np.inf if target.infinity else target.largest
    too_large = np.abs(rounded) > target.largest
    return np.where(too_large, np.copysign(beyond, rounded), rounded)
