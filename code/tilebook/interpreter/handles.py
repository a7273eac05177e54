"""A Triton handle's bits, and the numbers they stand for."""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from tilebook.interpreter import floats

Handle = upstream.TensorHandle


def values_of(handle: Any) -> np.ndarray:
    """The numbers that a handle's data stand for; bfloat16 and 8-bit ones widened."""
    kind = handle.dtype.scalar
    if kind == tl.bfloat16:
        return floats.from_bfloat16(handle.data)
    if kind.name in floats.FLOAT8:
        return floats.from_float8(handle.data, kind.name)
    return handle.data


def pack(values: np.ndarray, kind: tl.dtype) -> Any:
    """Build a handle of a scalar type from the numbers it is to stand for."""
    if kind == tl.bfloat16:
        return Handle(floats.to_bfloat16(values), kind)
    if kind.name in floats.FLOAT8:
        return Handle(floats.to_float8(values, kind.name), kind)
    return Handle(np.asarray(values).astype(upstream._get_np_dtype(kind)), kind)


def is_narrow(kind: tl.dtype) -> bool:
    return kind == tl.bfloat16 or kind.name in floats.FLOAT8
