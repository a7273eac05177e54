"""What `softmax` and `log_softmax` make of their arguments, and what they refuse."""

import torch

from tilebook import check
from tilebook.softmax.operands import DTYPES

# One over the temperature has to be a normal float32.
COLDEST, HOTTEST = 2.0**-126, 2.0**126


def typed(
    x: torch.Tensor, dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.dtype]:
    """Convert the operand, unless a kernel does that while it loads.

    Args:
        x: any tensor.
        dtype: what the caller asked for.

    Returns:
        The tensor that kernels get, and the result's dtype.

    Raises:
        TypeError: a dtype that isn't allowed.
    """
    if dtype is None:
        if x.dtype not in DTYPES:
            check.tensor(x, "x without dtype=", dtype=DTYPES)
        return x, x.dtype
    if dtype not in DTYPES:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"dtype must be one of {allowed}, got {dtype}")
    if x.is_complex():
        raise TypeError(f"x must be real, got {x.dtype}")
    widens = dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16)
    return (x if widens else x.to(dtype)), dtype


def dimension(dim: int, ndim: int) -> int:
    """Count a dimension from the first.

    Args:
        dim: as the caller counts, from the end if negative.
        ndim: how many there are; none counts as one.

    Returns:
        A number from 0 on.

    Raises:
        TypeError: not an integer.
        ValueError: there is no such dimension.
    """
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim must be an int, got {type(dim).__name__}")
    most = max(ndim, 1)
    if not -most <= dim < most:
        raise ValueError(f"dim must be from {-most} to {most - 1}, got {dim}")
    return dim % most


def inverse(temperature: float) -> float:
    """Invert a temperature.

    Args:
        temperature: positive.

    Returns:
        One over it.

    Raises:
        TypeError: not a number.
        ValueError: not positive, or no float32 holds what would be returned.
    """
    value = check.number(temperature, "temperature")
    if not COLDEST <= value <= HOTTEST:
        raise ValueError(
            f"temperature must be positive, with an inverse that float32 holds: from "
            f"2^-126 to 2^126, got {temperature}"
        )
    return 1.0 / value


def causality(causal: bool, dim: int, ndim: int) -> None:
    """Check that rows can be causal.

    Args:
        causal: whether they shall be.
        dim: the dimension, not negative.
        ndim: how many there are.

    Raises:
        TypeError: `causal` is no bool.
        ValueError: rows have no places, or lie along another dimension than the last.
    """
    if not isinstance(causal, bool):
        raise TypeError(f"causal must be a bool, got {type(causal).__name__}")
    if causal and (ndim < 2 or dim != ndim - 1):
        raise ValueError(
            f"causal needs dim to be the last of two or more dimensions, got dim {dim} "
            f"of {ndim}"
        )


def broadcast(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Expand a mask to the shape of the operand, without copying it.

    Args:
        mask: bool, on the operand's device.
        x: the operand.

    Returns:
        A view of the mask.

    Raises:
        TypeError: not a tensor, or not bool.
        ValueError: on another device, or of a shape that doesn't broadcast.
    """
    check.tensor(mask, "mask", dtype=torch.bool, device=x.device)
    sizes = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    if mask.ndim > x.ndim or any(a not in (1, b) for a, b in sizes):
        raise ValueError(
            f"mask must broadcast to the shape of x, {tuple(x.shape)}, got "
            f"{tuple(mask.shape)}"
        )
    return mask.expand(x.shape)
