"""Eight bits and fewer, from the bits up: what codes mean, and rounding to them.

A code is a sign, an exponent field e and a mantissa field f of p bits. With the bias b
it stands for

    (-1)^s (1 + f / 2^p) 2^(e - b)      for e > 0,
    (-1)^s (f / 2^p) 2^(1 - b)          for e = 0, the subnormal numbers.

Without their sign codes are in the order of the numbers that they stand for, so that
rounding works on codes as on integers. What the topmost mean differs: e5m2 is cut off
from float16, with infinities and NaN; e4m3fn gives up the infinities, and all NaN but
one for each sign, for one more octave; e2m1 has neither. e8m0 is an exponent and
nothing else: the power 2^(c - 127), and one NaN.
"""

from dataclasses import dataclass

import torch

from tilebook import check


@dataclass(frozen=True)
class Format:
    """A floating-point format of at most eight bits, with a sign.

    Args:
        name: as the field calls it.
        exponent: bits of the exponent field.
        mantissa: bits of the mantissa field.
        bias: what is subtracted from the exponent field.
        largest_code: of the largest number.
        infinity: the code of infinity, if there is one.
        nan: the first code that means not a number, if there is one.
        dtype: PyTorch's type, if it has one for a single number.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int
    largest_code: int
    infinity: int | None = None
    nan: int | None = None
    dtype: torch.dtype | None = None

    @property
    def sign(self) -> int:
        """The code's bit that is the sign."""
        return 1 << (self.exponent + self.mantissa)

    @property
    def largest(self) -> float:
        """The largest number."""
        return value(self.largest_code, self)

    @property
    def smallest(self) -> float:
        """The smallest positive number, a subnormal one."""
        return value(1, self)

    @property
    def smallest_normal(self) -> float:
        """The smallest number that has all its significant bits."""
        return value(1 << self.mantissa, self)


E4M3 = Format("e4m3fn", 4, 3, 7, 0x7E, None, 0x7F, torch.float8_e4m3fn)
E5M2 = Format("e5m2", 5, 2, 15, 0x7B, 0x7C, 0x7D, torch.float8_e5m2)
E2M1 = Format("e2m1", 2, 1, 1, 0x7)
FORMATS = {each.name: each for each in (E4M3, E5M2, E2M1)}
"""Of elements, by name."""
BY_DTYPE = {each.dtype: each for each in (E4M3, E5M2)}
"""Of elements, by PyTorch's type."""

SCALE_BIAS = 127
SCALE_NAN = 0xFF
ROUNDINGS = ("down", "up")
"""Which power of two a scale becomes: the last one below it, or the next above."""


def value(code: int, format: Format) -> float:
    """Read a code.

    Args:
        code: from 0 to twice the format's `sign`, less one.
        format: one of `FORMATS`.

    Returns:
        The number that it stands for.

    Raises:
        ValueError: there is no such code.
    """
    if not 0 <= code < 2 * format.sign:
        raise ValueError(
            f"code must be from 0 to {2 * format.sign - 1} for {format.name}, got "
            f"{code}"
        )
    sign = -1.0 if code & format.sign else 1.0
    rest = code & (format.sign - 1)
    if format.nan is not None and rest >= format.nan:
        return float("nan")
    if rest == format.infinity:
        return sign * float("inf")
    exponent, fraction = divmod(rest, 1 << format.mantissa)
    hidden = 1 if exponent else 0
    steps = hidden * (1 << format.mantissa) + fraction
    # An exponent field of 0 counts as 1: the hidden bit is what is missing.
    return sign * steps * 2.0 ** (max(exponent, 1) - format.bias - format.mantissa)


def table(format: Format) -> torch.Tensor:
    """Read all codes of a format.

    Args:
        format: one of `FORMATS`.

    Returns:
        float32, the number of each code.
    """
    return torch.tensor([value(code, format) for code in range(2 * format.sign)])


def decode(codes: torch.Tensor, format: Format) -> torch.Tensor:
    """Read codes.

    Args:
        codes: uint8, any shape.
        format: one of `FORMATS`.

    Returns:
        float32 of the same shape, exact.

    Raises:
        TypeError: not a tensor of uint8.
    """
    check.tensor(codes, "codes", dtype=torch.uint8)
    return table(format).to(codes.device)[codes.int()]


def encode(x: torch.Tensor, format: Format, *, saturate: bool = True) -> torch.Tensor:
    """Round numbers to codes: to nearest, of two that are equally near the even one.

    Args:
        x: float32, any shape.
        format: one of `FORMATS`.
        saturate: whether what is too large, infinity included, becomes the largest
            number, as NVIDIA's `cvt.satfinite` has it; otherwise infinity where the
            format has one, or NaN, or the largest number for want of both.

    Returns:
        uint8 of the same shape. NaN becomes NaN of the same sign, and where the format
        has none the largest number.

    Raises:
        TypeError: not a tensor of float32.
    """
    check.tensor(x, "x", dtype=torch.float32)
    bits = x.contiguous().view(torch.int32)
    size = bits & 0x7FFFFFFF
    dropped = 23 - format.mantissa
    # Half a step, less one unless the last bit that stays is odd: ties go to even. A
    # carry runs on into the exponent, where it belongs.
    half = (1 << (dropped - 1)) - 1 + ((size >> dropped) & 1)
    normal = ((size + half) >> dropped) - ((127 - format.bias) << format.mantissa)
    # Beside this number neighbours of float32 are as far apart as subnormal ones.
    magic = torch.tensor(2.0**23 * format.smallest, device=x.device)
    subnormal = (x.abs() + magic).view(torch.int32) - magic.view(torch.int32)
    code = torch.where(x.abs() < format.smallest_normal, subnormal, normal)
    beyond = format.largest_code
    if not saturate:
        beyond = format.infinity or format.nan or beyond
    code = torch.where(code > format.largest_code, beyond, code)
    code = torch.where(size >= 0x7F800000, beyond, code)
    unknown = format.largest_code if format.nan is None else format.sign - 1
    code = torch.where(x.isnan(), unknown, code)
    return (code | torch.where(bits < 0, format.sign, 0)).to(torch.uint8)


def round_to(x: torch.Tensor, format: Format, *, saturate: bool = True) -> torch.Tensor:
    """Round numbers to those of a format.

    Args:
        x: as for `encode`, whose errors these are, too.
        format: likewise.
        saturate: likewise.

    Returns:
        float32 of the same shape.
    """
    return decode(encode(x, format, saturate=saturate), format)


def decode_scale(codes: torch.Tensor) -> torch.Tensor:
    """Read e8m0 codes.

    Args:
        codes: uint8, any shape.

    Returns:
        float32 of the same shape, exact: powers of two from 2^-127 to 2^127, and NaN.

    Raises:
        TypeError: not a tensor of uint8.
    """
    check.tensor(codes, "codes", dtype=torch.uint8)
    # The code is float32's exponent field; 2^-127 is a subnormal number there.
    bits = torch.where(codes == 0, 1 << 22, codes.int() << 23)
    return torch.where(codes == SCALE_NAN, torch.nan, bits.view(torch.float32))


def encode_scale(x: torch.Tensor, rounding: str) -> torch.Tensor:
    """Round positive numbers to powers of two, as e8m0 codes.

    Args:
        x: float32, any shape, not negative.
        rounding: one of `ROUNDINGS`.

    Returns:
        uint8 of the same shape: 0, the power 2^-127, for all that is less, and NaN for
        infinity, NaN and what is negative.

    Raises:
        TypeError: not a tensor of float32.
        ValueError: another rounding.
    """
    check.tensor(x, "x", dtype=torch.float32)
    check.one_of(rounding, "rounding", ROUNDINGS)
    bits = x.contiguous().view(torch.int32)
    code = bits >> 23
    if rounding == "up":
        # Of field 0 are 2^-127, whose bits are 1 << 22, and what is less.
        above = torch.where(code == 0, bits > 1 << 22, (bits & 0x7FFFFF) > 0)
        code = (code + above).clamp(max=SCALE_NAN - 1)
    odd = ~((x >= 0) & (x < torch.inf))
    return torch.where(odd, SCALE_NAN, code).to(torch.uint8)
