"""What eight bits cost: inputs that are hard on scales, and errors against float64."""

import torch

from tilebook.fp8 import formats, scaling

FREEDOM = 3
"""Of Student's t: tails that fall as the inverse cube of a size."""
EVERY = 512
"""Of outliers: one column in so many is larger, as a few channels of a language model's
activations are."""
LARGER = tuple(2.0**e for e in (6, 10, 14, 18))
"""How much larger: it takes much, for eight bits of float have 17 octaves."""
KINDS = ("gaussian", "student", "outliers")
"""Of inputs, by name."""


def drawn(
    kind: str,
    rows: int,
    columns: int,
    generator: torch.Generator,
    *,
    larger: float = 1.0,
) -> torch.Tensor:
    """Draw a matrix.

    Args:
        kind: "gaussian"; "student", with heavy tails; or "outliers", normal numbers
            with some columns much larger.
        rows: of the matrix.
        columns: of it.
        generator: draws, on its own device.
        larger: of outliers, how much.

    Returns:
        (rows, columns), bfloat16.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    told = {"generator": generator, "device": generator.device}
    x = torch.randn(rows, columns, **told)
    if kind == "student":
        squares = torch.randn(FREEDOM, rows, columns, **told).square().mean(0)
        x = x / squares.sqrt()
    elif kind == "outliers":
        x[:, ::EVERY] *= larger
    return x.bfloat16()


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The norm of a difference, by the norm of what is exact.

    Args:
        found: any floating-point tensor.
        exact: of the same shape.
    """
    exact = exact.double()
    return float((found.double() - exact).norm() / exact.norm())


def lost(quantized: scaling.Quantized, x: torch.Tensor, granularity: str) -> float:
    """The relative error of what comes back.

    Args:
        quantized: codes and scales of `x`.
        x: what was quantised.
        granularity: how.
    """
    back = scaling.dequantize(*quantized, granularity, dtype=torch.float64)
    return relative(back, x)


def small_lost(
    quantized: scaling.Quantized, x: torch.Tensor, granularity: str
) -> float:
    """The relative error among the columns that hold no outliers.

    Args:
        quantized: codes and scales of `x`.
        x: what was quantised, of the kind "outliers".
        granularity: how.
    """
    back = scaling.dequantize(*quantized, granularity, dtype=torch.float64)
    kept = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    kept[::EVERY] = False
    return relative(back[:, kept], x[:, kept])


def expected(format: formats.Format = formats.E4M3) -> float:
    """Derive the relative error of rounding, far from both ends of a format's range.

    Args:
        format: one of `formats.FORMATS`.

    Returns:
        For significands whose logarithm is as likely here as there: rounding with step
        s = 2^-p is off by s^2 / 12 on average of squares, and the significand's square
        is on average 3 / (2 ln 2).
    """
    step = 2.0**-format.mantissa
    square = 3 / (2 * float(torch.log(torch.tensor(2.0))))
    return (step * step / 12 / square) ** 0.5
