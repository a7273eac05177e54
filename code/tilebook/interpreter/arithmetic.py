"""Arithmetic and conversions as a GPU does them, for the interpreter's builder.

Each public function takes the method that Triton ships and returns the one to put in
its place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from tilebook.interpreter import floats
from tilebook.interpreter.handles import Handle, is_narrow, pack, values_of

_COMPARISONS = {
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
    np.equal,
    np.not_equal,
}


def binary_op(original: Callable) -> Callable:
    def binary_op(self: Any, lhs: Any, rhs: Any, op: Callable) -> Any:
        kind = lhs.dtype.scalar
        if op in _COMPARISONS:
            return Handle(op(values_of(lhs), values_of(rhs)), tl.int1)
        if lhs.data.dtype == rhs.data.dtype == np.bool_:
            # One-bit integers wrap around; NumPy's booleans saturate.
            wide = op(lhs.data.astype(np.int8), rhs.data.astype(np.int8))
            return Handle((wide & 1).astype(np.bool_), kind)
        if is_narrow(kind):
            return pack(op(values_of(lhs), values_of(rhs)), kind)
        return original(self, lhs, rhs, op)

    return binary_op


def unary_op(original: Callable) -> Callable:
    def unary_op(self: Any, arg: Any, op: Callable) -> Any:
        kind = arg.dtype.scalar
        if is_narrow(kind):
            return pack(op(values_of(arg)), kind)
        return original(self, arg, op)

    return unary_op


def dot(original: Callable) -> Callable:
    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return original(self, _widen(a), _widen(b), d, *rest)

    return create_dot


def _widen(handle: Any) -> Any:
    if is_narrow(handle.dtype.scalar):
        return Handle(values_of(handle), tl.float32)
    return handle


def fma(original: Callable) -> Callable:
    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        kind = z.dtype.scalar
        exact = hasattr(upstream._interpreter, "fma_fp32")  # since Triton 3.9
        if kind == tl.float64 or (kind == tl.float32 and exact):
            return original(self, x, y, z)
        # The product of two floats is exact in float64, so that only the sum rounds.
        a, b, c = (values_of(h).astype(np.float64) for h in (x, y, z))
        return pack(a * b + c, kind)

    return create_fma


def clamp(original: Callable) -> Callable:
    def create_clampf(self: Any, arg: Any, lo: Any, hi: Any, propagate: Any) -> Any:
        values = [values_of(h) for h in (arg, lo, hi)]
        keeps_nan = propagate == upstream._ir.PROPAGATE_NAN.ALL
        least, most = (np.minimum, np.maximum) if keeps_nan else (np.fmin, np.fmax)
        return pack(least(most(values[0], values[1]), values[2]), arg.dtype.scalar)

    return create_clampf


def choose(op: Callable) -> Callable[[Callable], Callable]:
    return lambda original: lambda self, lhs, rhs: self.binary_op(lhs, rhs, op)


def umulhi(original: Callable) -> Callable:
    def create_umulhi(self: Any, lhs: Any, rhs: Any) -> Any:
        bits = lhs.data.dtype.itemsize * 8
        unsigned = np.dtype(f"u{bits // 8}")
        a, b = (h.data.view(unsigned).astype(object) for h in (lhs, rhs))
        high = np.asarray((a * b) >> bits, dtype=object).astype(unsigned)
        return Handle(high.view(lhs.data.dtype), lhs.dtype.scalar)

    return create_umulhi


def histogram(original: Callable) -> Callable:
    def create_histogram(self: Any, data: Any, bins: int, mask: Any) -> Any:
        values = data.data.astype(np.int64)
        counted = (values >= 0) & (values < bins)
        if mask is not None:
            counted &= mask.data
        counts = np.bincount(values[counted], minlength=bins)
        return Handle(counts.astype(np.int32), tl.int32)

    return create_histogram


# Conversions.


def cast(original: Callable) -> Callable:
    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        return _convert(src, dst_type.scalar)

    return cast_impl


def fp_to_fp(original: Callable) -> Callable:
    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding: Any) -> Any:
        toward_zero = rounding == upstream._ir.ROUNDING_MODE.RTZ
        return _convert(src, dst_type.scalar, toward_zero=toward_zero)

    return create_fp_to_fp


def _convert(src: Any, kind: tl.dtype, *, toward_zero: bool = False) -> Any:
    values = values_of(src)
    if kind.is_int() and not kind.is_bool() and values.dtype.kind == "f":
        data = floats.to_integer(values, upstream._get_np_dtype(kind))
        return Handle(data, kind)
    if kind == tl.bfloat16:
        return Handle(floats.to_bfloat16(values, toward_zero=toward_zero), kind)
    if kind.name in floats.FLOAT8:
        data = floats.to_float8(values, kind.name, toward_zero=toward_zero)
        return Handle(data, kind)
    data = values.astype(upstream._get_np_dtype(kind))
    if toward_zero and values.dtype.kind == "f":
        outward = np.abs(data) > np.abs(values)
        data = np.where(outward, np.nextafter(data, data.dtype.type(0)), data)
    return Handle(data, kind)


def bfloat16_constant(original: Callable | None) -> Callable:
    return lambda self, value: pack(np.array([value], dtype=np.float32), tl.bfloat16)
