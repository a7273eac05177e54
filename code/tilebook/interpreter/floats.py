"""Narrow floating-point formats on NumPy: what their bits mean, and rounding to them.

bfloat16 and the 8-bit formats have no NumPy type; Triton's interpreter keeps their bit
patterns in unsigned integers. NumPy only, no Triton.
"""

import functools

import numpy as np

# Exponent bits, mantissa bits, exponent bias, and what the top codes mean: "ieee" has
# infinities and NaNs, "fn" one NaN per sign and no infinity, "fnuz" a single NaN at
# negative zero, "finite" neither.
FLOAT8 = {
    "fp8e5": (5, 2, 15, "ieee"),
    "fp8e4nv": (4, 3, 7, "fn"),
    "fp8e5b16": (5, 2, 16, "fnuz"),
    "fp8e4b8": (4, 3, 8, "fnuz"),
    "fp8e4b15": (4, 3, 15, "finite"),
}


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16 bit patterns (uint16, any shape) to float32, exactly."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: np.ndarray, *, toward_zero: bool = False) -> np.ndarray:
    """Round values to bfloat16 bit patterns.

    Args:
        values: float32, or what casts to it, any shape.
        toward_zero: truncate instead of rounding to nearest, ties to even.

    Returns:
        uint16 of the same shape; NaN stays NaN, infinities stay, overflow goes to
        infinity.
    """
    values = np.asarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    bias = 0 if toward_zero else 0x7FFF + ((bits >> 16) & 1)
    # Adding to the bits of a NaN could wrap them around to a number.
    rounded = np.where(np.isnan(values), (bits >> 16) | 0x40, (bits + bias) >> 16)
    return rounded.astype(np.uint16)


@functools.cache
def _float8_values(name: str) -> np.ndarray:
    """The value of each of the 256 codes of an 8-bit format, float32."""
    exponent_bits, mantissa_bits, bias, special = FLOAT8[name]
    codes = np.arange(256)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = np.where(exponent > 0, 1.0, 0.0) + mantissa / 2.0**mantissa_bits
    values = np.ldexp(fraction, np.maximum(exponent, 1) - bias)
    if special == "ieee":
        top = exponent == (1 << exponent_bits) - 1
        values = np.where(top, np.where(mantissa > 0, np.nan, np.inf), values)
    elif special == "fn":
        values = np.where((codes & 0x7F) == 0x7F, np.nan, values)
    values = np.where(codes >= 0x80, -values, values)
    if special == "fnuz":
        values = np.where(codes == 0x80, np.nan, values)
    return values.astype(np.float32)


def from_float8(bits: np.ndarray, name: str) -> np.ndarray:
    """Widen the bit patterns (uint8) of one of the `FLOAT8` formats to float32."""
    return _float8_values(name)[np.asarray(bits).view(np.uint8)]


def to_float8(
    values: np.ndarray, name: str, *, toward_zero: bool = False
) -> np.ndarray:
    """Round values to the bit patterns of an 8-bit format.

    Args:
        values: floats of any width, any shape.
        name: one of the `FLOAT8` formats.
        toward_zero: truncate instead of rounding to nearest, ties to even.

    Returns:
        uint8 of the same shape. What is too large, infinity included, becomes the
        largest finite value, as NVIDIA's and Triton's conversions do; NaN stays NaN
        where the format has one.
    """
    values = np.asarray(values, dtype=np.float64)
    table = _float8_values(name)[:0x80].astype(np.float64)
    finite = table[np.isfinite(table)]  # ascending, and so are its codes from 0
    size = np.abs(values)
    below = np.searchsorted(finite, size, side="right") - 1
    above = np.minimum(below + 1, len(finite) - 1)
    code = below
    if not toward_zero:
        middle = (finite[below] + finite[above]) / 2
        code = np.where(
            (size > middle) | ((size == middle) & (below % 2 == 1)), above, below
        )
    special = FLOAT8[name][3]
    negative = np.signbit(values)
    if special == "fnuz":
        negative = negative & (code > 0)
    code = code | (negative * 0x80)
    nan_code = {"ieee": 0x7F, "fn": 0x7F, "fnuz": 0x80, "finite": 0x7F}[special]
    return np.where(np.isnan(values), nan_code, code).astype(np.uint8)


def to_integer(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert floats to integers as NVIDIA's `cvt.rzi` does.

    Args:
        values: floats of any width, any shape.
        dtype: the integer type wanted.

    Returns:
        Values cut toward zero and clamped to the type's range; 8-bit types keep the
        low byte of the 16-bit result. NaN gives 0, or the top bit alone when either
        side has 64 bits.

    Notes:
        PTX ISA, `cvt`; Triton itself leaves values out of range undefined.
    """
    dtype = np.dtype(dtype)
    wide = np.dtype(dtype.str.replace("1", "2")) if dtype.itemsize == 1 else dtype
    limits = np.iinfo(wide)
    nan = np.isnan(values)
    cut = np.trunc(np.where(nan, 0, values))
    high, low = cut >= float(limits.max), cut <= float(limits.min)
    result = np.where(high | low, 0, cut).astype(wide)
    result = np.where(high, wide.type(limits.max), result)
    result = np.where(low, wide.type(limits.min), result)
    if 8 in (values.dtype.itemsize, dtype.itemsize):
        top = np.array(1 << (limits.bits - 1), dtype=f"u{wide.itemsize}").view(wide)
        result = np.where(nan, top, result)
    return result.astype(dtype)
