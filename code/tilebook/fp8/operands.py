"""What the quantisers take, and how kernels are told."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import check, library
from tilebook.fp8 import formats, scaling
from tilebook.matmul.operands import itself
from tilebook.tiling.operands import no_gradient

DTYPES = tuple(formats.BY_DTYPE)
"""The 8-bit types."""


class Job(NamedTuple):
    """A matrix to be quantised, and where to."""

    x: torch.Tensor
    """(m, k), any strides, of a type in `scaling.DTYPES`."""
    codes: torch.Tensor
    """(m, k), contiguous, of an 8-bit type."""
    scale: torch.Tensor
    """A scale for each group, any strides."""
    granularity: str
    """One of `scaling.GRANULARITIES`."""
    rounding: str = ""
    """Of scales that are powers of two, one of `formats.ROUNDINGS`; else ""."""
    up: torch.Tensor | None = None
    """(m, k), any strides: what is quantised is silu(x) * up."""
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched."""

    @property
    def m(self) -> int:
        """Rows."""
        return int(self.x.shape[0])

    @property
    def k(self) -> int:
        """Columns."""
        return int(self.x.shape[1])

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the operands, two each; of one that isn't there 0."""
        up = (0, 0) if self.up is None else self.up.stride()
        return (*self.x.stride(), *up)

    @property
    def turned(self) -> bool:
        """Whether neighbours lie along columns."""
        return self.k > 1 and self.x.stride(1) != 1 and self.x.stride(0) == 1


def check_operand(x: torch.Tensor, name: str) -> torch.Tensor:
    """Check that a matrix can be quantised here.

    Args:
        x: the matrix.
        name: what the caller calls it.

    Returns:
        The tensor, or a copy of a lazily negated view.

    Raises:
        TypeError: not a tensor, or a dtype outside `scaling.DTYPES`.
        ValueError: no matrix, one that takes part in a gradient, or one where this
            process's kernels can't reach it.
        NotImplementedError: it carries a forward-mode derivative.
    """
    check.tensor(x, name, dtype=scaling.DTYPES, ndim=2)
    check.runs_here(x, name)
    no_gradient(x, name)
    library.no_tangent(x)
    return x.resolve_neg()


def check_way(
    granularity: str, dtype: torch.dtype, rounding: str | None, allowed: tuple[str, ...]
) -> str:
    """Check how a matrix is to be quantised.

    Args:
        granularity: one of those allowed.
        dtype: of the codes.
        rounding: of MX scales; None is "down" there.
        allowed: granularities.

    Returns:
        The rounding; "" where scales are no powers of two.

    Raises:
        TypeError: no 8-bit type.
        ValueError: another granularity, another rounding, or one where there are no
            MX scales.
    """
    check.one_of(granularity, "granularity", allowed)
    if dtype not in DTYPES:
        names = " or ".join(map(str, DTYPES))
        raise TypeError(f"dtype must be {names}, got {dtype}")
    if not scaling.GRANULARITIES[granularity].power:
        if rounding is not None:
            raise ValueError(
                f"rounding must be None for {granularity!r}, whose scales are no "
                f"powers of two, got {rounding!r}"
            )
        return ""
    rounding = "down" if rounding is None else rounding
    check.one_of(rounding, "rounding", formats.ROUNDINGS)
    return rounding
