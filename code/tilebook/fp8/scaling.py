"""Which elements share a scale, and what a scale is.

A scale is what codes are multiplied with to come back: x is about `codes * scale`. Of a
group of elements with the largest magnitude amax it is

    scale = max(amax / largest, 2^-120),    codes = round(x * (1 / scale)),

each operation rounded to float32, `largest` the format's largest number. So a group of
zeros has the scale 2^-120 and codes of zero, nothing is divided by zero, and 1 / scale
is always finite. A group with an infinity or NaN has that as its scale, and all of it
comes back as NaN: what went wrong stays visible.

In MX formats a scale is a power of two, an e8m0 code. "down" is the rule of the Open
Compute Project's specification: the power of two below amax, divided by that below
`largest`. What is up to 8/7 of the largest number is then cut off. "up" takes the next
power of two above amax / largest: nothing is cut off, and up to a bit is given away.
"""

from typing import NamedTuple

import torch

from tilebook import check
from tilebook.fp8 import formats

SMALLEST = 2.0**-120
"""The smallest scale but for MX formats."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""What can be quantised."""


class Granularity(NamedTuple):
    """Which elements of a matrix share a scale; None is all of a side."""

    rows: int | None
    columns: int | None
    power: bool = False
    """Whether scales are powers of two, as e8m0 codes."""


GRANULARITIES = {
    "tensor": Granularity(None, None),
    "row": Granularity(1, None),
    "1x128": Granularity(1, 128),
    "128x128": Granularity(128, 128),
    "mx": Granularity(1, 32, power=True),
}
"""By name."""


class Quantized(NamedTuple):
    """A matrix in eight bits."""

    codes: torch.Tensor
    """(m, k), contiguous, of an 8-bit type."""
    scale: torch.Tensor
    """A scale for each group, as many rows and columns as there are groups along each
    side: float32, or float8_e8m0fnu. Scales of neighbouring rows lie together."""


def scale_shape(m: int, k: int, granularity: str) -> tuple[int, int]:
    """Count the groups of a matrix.

    Args:
        m: rows.
        k: columns.
        granularity: one of `GRANULARITIES`.

    Returns:
        Groups along each side: one for a whole side, also if that is empty.
    """
    rows, columns, _ = GRANULARITIES[granularity]
    return (
        1 if rows is None else -(-m // rows),
        1 if columns is None else -(-k // columns),
    )


def scale_dtype(granularity: str) -> torch.dtype:
    """The element type of a granularity's scales."""
    power = GRANULARITIES[granularity].power
    return torch.float8_e8m0fnu if power else torch.float32


def place(
    m: int, k: int, granularity: str, dtype: torch.dtype, device: torch.device
) -> Quantized:
    """Make room for a matrix in eight bits.

    Args:
        m: rows.
        k: columns.
        granularity: one of `GRANULARITIES`.
        dtype: of the codes.
        device: where.

    Returns:
        Codes and scales, not yet written.
    """
    codes = torch.empty(m, k, dtype=dtype, device=device)
    shape = scale_shape(m, k, granularity)[::-1]
    scale = torch.empty(shape, dtype=scale_dtype(granularity), device=device)
    return Quantized(codes, scale.t())


def spread(scale: torch.Tensor, granularity: str, m: int, k: int) -> torch.Tensor:
    """Give each element its scale.

    Args:
        scale: of each group, float32 or float8_e8m0fnu.
        granularity: one of `GRANULARITIES`.
        m: rows of the matrix.
        k: columns of it.

    Returns:
        (m, k), float32.
    """
    if scale.dtype == torch.float8_e8m0fnu:
        scale = formats.decode_scale(scale.view(torch.uint8))
    rows, columns, _ = GRANULARITIES[granularity]
    scale = scale.repeat_interleave(m if rows is None else rows, 0)[:m]
    return scale.repeat_interleave(k if columns is None else columns, 1)[:, :k]


def dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    granularity: str,
    *,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Multiply codes with their scales.

    Args:
        codes: (m, k), of an 8-bit type, any strides.
        scale: of each group: (groups along m, groups along k), float32 or
            float8_e8m0fnu.
        granularity: one of `GRANULARITIES`.
        dtype: the result's, a floating-point one; float64 is exact.

    Returns:
        (m, k), each product rounded once.

    Raises:
        TypeError: not tensors, or of another dtype.
        ValueError: no such granularity, no matrices, or another number of scales than
            there are groups.
    """
    check.one_of(granularity, "granularity", tuple(GRANULARITIES))
    check.tensor(codes, "codes", dtype=tuple(formats.BY_DTYPE), ndim=2)
    m, k = map(int, codes.shape)
    wanted = scale_shape(m, k, granularity)
    check.tensor(scale, "scale", dtype=scale_dtype(granularity), shape=wanted)
    check.same_device(codes=codes, scale=scale)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    each = spread(scale, granularity, m, k).to(wide)
    return (codes.to(wide) * each).to(dtype)


def _over(x: torch.Tensor, y: float) -> torch.Tensor:
    # By a number PyTorch's GPU kernels don't divide: they multiply with its inverse.
    return x / torch.full_like(x, y)


def power_code(
    amax: torch.Tensor, format: formats.Format, rounding: str
) -> torch.Tensor:
    """The e8m0 code of a group's scale; see `reference`."""
    if rounding == "up":
        return formats.encode_scale(_over(amax, format.largest), "up")
    top = (format.largest_code >> format.mantissa) - format.bias
    return formats.encode_scale(amax * 2.0**-top, "down")


def largest(x: torch.Tensor, granularity: str) -> torch.Tensor:
    """The largest magnitude of each group.

    Args:
        x: (m, k), float32.
        granularity: one of `GRANULARITIES`.

    Returns:
        Of the shape of the scales; NaN where a group has one, 0 of an empty group.
    """
    rows, columns, _ = GRANULARITIES[granularity]
    m, k = x.shape
    down, across = scale_shape(m, k, granularity)
    rows, columns = rows or m, columns or k
    full = x.new_zeros(down * rows, across * columns)
    full[:m, :k] = x.abs()
    if not full.numel():
        return x.new_zeros(down, across)
    return full.view(down, rows, across, columns).amax((1, 3))


def reference(
    x: torch.Tensor,
    granularity: str,
    *,
    dtype: torch.dtype = torch.float8_e4m3fn,
    rounding: str = "down",
) -> Quantized:
    """Quantise with PyTorch's operations: what the kernels give, bit by bit.

    Args:
        x: (m, k), a type of `DTYPES`.
        granularity: one of `GRANULARITIES`.
        dtype: of the codes, `torch.float8_e4m3fn` or `torch.float8_e5m2`.
        rounding: of MX scales, one of `formats.ROUNDINGS`.

    Returns:
        Codes and scales.
    """
    format = formats.BY_DTYPE[dtype]
    m, k = x.shape
    amax = largest(x.float(), granularity)
    if GRANULARITIES[granularity].power:
        scale = power_code(amax, format, rounding).view(torch.float8_e8m0fnu)
        inverse = 1 / spread(scale, granularity, m, k)
    else:
        scale = _over(amax.clamp(min=format.largest * SMALLEST), format.largest)
        inverse = spread(1 / scale, granularity, m, k)
    codes = formats.encode(x.float() * inverse, format)
    return Quantized(codes.view(dtype), scale)
