"""Reductions and scans of narrow types, for the interpreter.

Each public function takes the method that Triton ships and returns the one to put in
its place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from tilebook.interpreter.handles import Handle, pack, values_of


def to_tensor(original: Callable) -> Callable:
    def to_tensor(self: Any, ret: Any, dtype: tl.dtype) -> Any:
        # Narrowing through astype wraps around where NumPy 2 would refuse.
        data = np.asarray(ret).astype(upstream._get_np_dtype(dtype))
        kind = tl.block_type(dtype, list(data.shape)) if data.shape else dtype
        handle = Handle(data if data.shape else data.reshape(1), dtype.scalar)
        return tl.core.tensor(handle, kind)

    return to_tensor


def _rounded_sum(values: np.ndarray, axis: int, kind: tl.dtype) -> np.ndarray:
    """Add along an axis pairwise, rounding to the type after every addition."""
    values = np.moveaxis(values, axis, 0)
    while len(values) > 1:
        half = len(values) // 2
        total = values_of(pack(values[:half] + values[half : 2 * half], kind))
        values = np.concatenate([total, values[2 * half :]])
    return values[0]


def rounded_sum(original: Callable) -> Callable:
    def reduce_sum(self: Any, input: Any) -> Any:
        kind = input.dtype
        if kind not in (tl.float16, tl.bfloat16):
            return original(self, input)
        values = values_of(input.handle).astype(np.float32)
        flat = values.ravel() if self.axis is None else values
        total = _rounded_sum(flat, self.axis or 0, kind)
        if self.keep_dims:
            ones = tuple(range(values.ndim)) if self.axis is None else self.axis
            total = np.expand_dims(total, ones)
        return self.to_tensor(pack(total, kind).data, kind)

    return reduce_sum


def min_max(original: Callable) -> Callable:
    extremes = {
        np.min: np.fmin,
        np.nanmin: np.fmin,
        np.max: np.fmax,
        np.nanmax: np.fmax,
    }

    def min_max(self: Any, input: Any, val_reduce_op: Any, idx_reduce_op: Any) -> Any:
        source = input[0] if isinstance(input, tuple) else input
        values = values_of(source.handle)
        pick = extremes[val_reduce_op]
        axis, keep = self.axis, self.keep_dims
        best = pick.reduce(values, axis=axis, keepdims=keep)
        value = self.to_tensor(pack(best, source.dtype).data, source.dtype)
        if idx_reduce_op is None:
            return value
        # The leftmost of the best; a row of nothing but NaN gives its first.
        wanted = pick.reduce(values, axis=axis, keepdims=True)
        index = np.argmax(values == wanted, axis=axis, keepdims=keep)
        return value, self.to_tensor(index, tl.int32)

    return lambda self, input, val_reduce_op, idx_reduce_op=None: min_max(
        self, input, val_reduce_op, idx_reduce_op
    )


def scan(operation: Callable) -> Callable[[Callable], Callable]:
    def make(original: Callable) -> Callable:
        def scan(self: Any, input: Any) -> Any:
            kind = input.dtype
            if kind != tl.bfloat16:
                return original(self, input)
            values = np.moveaxis(values_of(input.handle), self.axis, 0).copy()
            for i in range(1, len(values)):
                values[i] = values_of(pack(operation(values[i - 1], values[i]), kind))
            data = pack(np.moveaxis(values, 0, self.axis), kind).data
            return [self.to_tensor(data, kind)]

        return scan

    return make
