"""Outputs against float64 references, within bounds derived from the formats."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from tilebook.testing import poison
from tilebook.testing.compare import Limit, alike, allowed, apart, judged
from tilebook.testing.describe import findings, layout
from tilebook.testing.hints import Difference
from tilebook.testing.precision import (
    ELEMENT_FACTOR,
    NORM_FACTOR,
    bound,
    dtype_name,
    format_of,
)

# Large outputs are compared piecewise: float64 copies of 2**31 elements would need
# several times the memory of what they check.
_PIECE = 1 << 25
_SHAKE = 2.0**-24


def reference(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Evaluate a function in float64.

    Args:
        fn: computes the same as the code under test, with torch functions.
        *args: floating-point tensors are replaced by float64 copies, in lists, tuples
            and dicts too; other tensors by copies. ``requires_grad`` is kept.
        **kwargs: likewise.

    Returns:
        What ``fn`` returns.
    """
    return fn(*_doubled(args), **_doubled(kwargs))


def sensitivity(
    fn: Callable[..., torch.Tensor], *args: Any, samples: int = 4
) -> torch.Tensor:
    """How much a result moves when its inputs do, relative to their movement.

    Args:
        fn: as for `reference`; returns one tensor.
        *args: likewise. Floating-point tensors are shaken by 2**-24 of each element.
        samples: how often.

    Returns:
        float64 tensor of the result's shape, for ``assert_close(scale=...)``: where
        terms cancel it is larger than the result, by as much as its error may be.
    """
    exact = reference(fn, *args)
    total = torch.zeros_like(exact)
    for _ in range(samples):
        change = (reference(fn, *_shaken(args)) - exact) / _SHAKE
        total += torch.nan_to_num(change, posinf=0.0, neginf=0.0).square() / samples
    return total.sqrt()


def subnormal(ref: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Which results lie where a format's numbers stop getting nearer to each other.

    Args:
        ref: exact results.
        dtype: what they are rounded to.

    Returns:
        bool, shape of ``ref``; False for zero, which needs no rounding.
    """
    target = format_of(dtype)
    if target is None:
        return torch.zeros_like(ref, dtype=torch.bool)
    return (ref != 0) & (ref.abs() < target.smallest_normal)


def error(out: torch.Tensor, ref: torch.Tensor) -> float:
    """Relative error of an output in the Frobenius norm.

    Args:
        out: output, any dtype.
        ref: reference of the same shape, usually float64.

    Returns:
        ``norm(out - ref) / norm(ref)`` over the finite elements. Infinity if NaN or
        infinities are at other places than in the reference (or have another sign),
        or the reference is zero and the output isn't.

    Raises:
        TypeError: a tensor is complex.
        ValueError: shapes differ, or one tensor is integer, the other is not, and both
            have elements of 2**53 and more, where float64 doesn't hold all integers.
    """
    _same_shape(out, ref)
    for _, got, expected in _pieces(out, ref):
        if not got.is_floating_point():
            break
        same = (got == expected) | (torch.isnan(got) & torch.isnan(expected))
        finite = torch.isfinite(got) & torch.isfinite(expected)
        if not bool((same | finite).all()):
            return float("inf")
    difference, size = _norms(out, ref)
    if size == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / size


def assert_close(
    out: torch.Tensor,
    ref: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    length: int = 1,
    accumulate: Any = torch.float32,
    operand: Any = None,
    factor: float = NORM_FACTOR,
    scale: torch.Tensor | None = None,
    atol: float = 0.0,
) -> None:
    """Assert that an output is as near to its reference as its format allows.

    Args:
        out: output, on any device.
        ref: reference of the same shape, in float64 (or exact integers: any for an
            integer output, however large).
        dtype: what the output's dtype must be; None for any.
        length: roundings an output passes through: the terms of a sum, or the
            operations of a chain; 1 demands a correctly rounded result.
        accumulate: format of the intermediate results.
        operand: format that factors are rounded to before multiplication ("tf32").
        factor: multiple of sqrt(length) allowed in the norm; twice that for a single
            element. `tilebook.testing.precision` derives them.
        scale: magnitude of what was summed for each element, broadcastable: the sum
            of the terms' absolute values, or `sensitivity`. By default the
            reference's root mean square, which is too little for a few elements
            whose terms may cancel.
        atol: absolute error allowed besides, for integers too.

    Raises:
        AssertionError: an element out of bounds, a NaN or infinity at the wrong
            place, an element never written (see `tilebook.testing.poison`), a wrong
            dtype, or too large an error in the norm. The message says where.
        TypeError: a tensor is complex.
        ValueError: shapes differ, or one tensor is integer, the other is not, and both
            have elements of 2**53 and more, where float64 doesn't hold all integers.
    """
    _same_shape(out, ref)
    out, ref = out.detach(), ref.detach().to(out.device)
    if dtype is not None and out.dtype != dtype:
        raise AssertionError(f"output is {out.dtype}, expected {dtype}")
    limit = Limit(
        length, accumulate, operand, factor * ELEMENT_FACTOR / NORM_FACTOR, atol
    )
    difference, size = _norms(out, ref)
    given = scale is not None
    if not given:
        scale = torch.tensor(size / max(ref.numel(), 1) ** 0.5, dtype=torch.float64)
    scale = scale.detach().to(out.device, torch.float64).abs()
    count = small = 0
    lines: dict[str, str] = {}
    for start, got, expected, written, room in _pieces(out, ref, out, scale):
        limits = allowed(expected, out.dtype, limit, room, torch)
        never = poison.untouched(written)
        bad, never = judged(got, expected, limits, never, out.dtype, torch)
        small += int(subnormal(expected, out.dtype).sum())
        found = int(bad.sum())
        if found and not count:
            arrays = [x.cpu().numpy() for x in (got, expected, bad, never)]
            failed = Difference(*arrays, dtype_name(out.dtype))
            lines = findings(failed, limits.cpu().numpy(), offset=start)
        count += found
    shape = f"{dtype_name(out.dtype)} {tuple(out.shape)}, length {length}"
    if count:
        if out.numel() > _PIECE:
            lines["wrong"] = f"{count} of {out.numel()} elements"
        raise AssertionError(
            f"output differs from its reference: {shape}\n{layout(lines)}"
        )
    most = bound(
        out.dtype, length, accumulate=accumulate, operand=operand, factor=factor
    )
    if given:
        size = float(
            torch.maximum(ref.double().abs(), scale).nan_to_num(posinf=0).norm()
        )
    target = format_of(out.dtype)
    if target is None:
        return
    # The last two terms are what is lost near zero: what instructions flush, and what
    # rounding costs where ulp stop shrinking.
    room = most * size + (atol + 2.0**-126) * out.numel() ** 0.5
    room += target.underflow * small**0.5
    if difference > room:
        raise AssertionError(
            f"output differs from its reference: {shape}\n  relative error "
            f"{difference / size:.3g} is above the bound of {room / size:.3g}, though "
            "every element alone is within its own"
        )


def _doubled(value: Any) -> Any:
    def double(tensor: torch.Tensor) -> torch.Tensor:
        wide = tensor.detach().clone()
        if tensor.is_floating_point():
            wide = wide.to(torch.float64)
        return wide.requires_grad_(tensor.requires_grad)

    return tree_map_only(torch.Tensor, double, value)


def _shaken(value: Any) -> Any:
    def shake(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        signs = torch.randint_like(tensor, 2, dtype=torch.float64) * 2 - 1
        return tensor.detach().double() * (1 + _SHAKE * signs)

    return tree_map_only(torch.Tensor, shake, value)


def _same_shape(out: torch.Tensor, ref: torch.Tensor) -> None:
    if out.shape != ref.shape:
        raise ValueError(
            f"output has shape {tuple(out.shape)}, its reference {tuple(ref.shape)}"
        )


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Same values as float64, or as int64 for integers and bool (uint64 as it is)."""
    if tensor.is_complex():
        raise TypeError("complex tensors: compare torch.view_as_real of both")
    if tensor.dtype == torch.uint64:
        return tensor
    exact = not tensor.is_floating_point()
    return tensor.to(torch.int64 if exact else torch.float64)


def _pieces(
    out: torch.Tensor, ref: torch.Tensor, *more: torch.Tensor
) -> Iterator[tuple[Any, ...]]:
    """Start index, then output and reference widened, then the others' same part."""
    tensors = (out.detach(), ref.detach().to(out.device), *more)
    whole = out.numel() <= _PIECE
    if not whole:
        tensors = tuple(t.reshape(-1) if t.ndim else t for t in tensors)
    for start in range(0, max(out.numel(), 1), _PIECE):
        parts = [
            t if whole or t.ndim == 0 else t[start : start + _PIECE] for t in tensors
        ]
        got, expected = alike(widened(parts[0]), widened(parts[1]), torch)
        yield start, got, expected, *parts[2:]


def _norms(out: torch.Tensor, ref: torch.Tensor) -> tuple[float, float]:
    """Frobenius norms of ``out - ref`` and of ``ref``, where both are finite."""
    difference = size = 0.0
    for _, got, expected in _pieces(out, ref):
        finite = torch.isfinite(got.double()) & torch.isfinite(expected.double())
        got, expected = got[finite], expected[finite]
        difference += float(apart(got, expected, torch).square().sum())
        size += float(expected.double().square().sum())
    return difference**0.5, size**0.5
