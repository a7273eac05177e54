"""Exercises on NumPy arrays, for where there is no torch: a page in a browser."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from tilebook.testing.backend import Read
from tilebook.testing.compare import widen

_BAND = 4096  # elements
_UNWRITTEN = {8: 0x7FF8_DEAD_BEEF_DEAD, 4: 0x7FC0_DEAD, 2: 0x7EAD}
_OUTSIDE = {8: 0x7FF8_0BAD_0BAD_0BAD, 4: 0x7FC0_0BAD, 2: 0x7EBA}
_ORIGINALS = {name: getattr(np, name) for name in ("empty", "empty_like")}


@dataclass(frozen=True, eq=False)
class _Placed:
    """An array amid a larger one, and which of that one's elements are its own."""

    array: np.ndarray
    memory: np.ndarray
    own: np.ndarray


class NumpyBackend:
    """NumPy arrays in guarded memory; dtypes are those that NumPy has."""

    def __init__(self) -> None:
        self._placed: dict[int, _Placed] = {}

    def place(self, values: np.ndarray, dtype: str, layout: str) -> np.ndarray:
        """Array with these values, in guarded memory, laid out as asked."""
        array = self._allocate(values.shape, np.dtype(dtype), layout)
        array[...] = values
        return array

    def output(
        self, shape: tuple[int, ...], dtype: str, initial: float | None
    ) -> np.ndarray:
        """Array in guarded memory, full of poison unless an initial value is given."""
        array = self._allocate(shape, np.dtype(dtype), "contiguous")
        if initial is None:
            _fill(array, _UNWRITTEN)
        else:
            array.fill(initial)
        return array

    def overwrite(self, tensor: np.ndarray, values: np.ndarray) -> None:
        """Give an array new values, in place."""
        tensor[...] = values

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is an array."""
        return isinstance(value, np.ndarray)

    def read(self, tensor: np.ndarray) -> Read:
        """An array's contents."""
        never = np.zeros(tensor.shape, dtype=bool)
        if tensor.dtype.kind == "f":
            never = _words(np.ascontiguousarray(tensor)) == _UNWRITTEN[tensor.itemsize]
        name = tensor.dtype.name
        return Read(widen(tensor), name, never.reshape(tensor.shape), tensor.tobytes())

    def overlap(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether two arrays share memory."""
        return bool(np.shares_memory(one, other))

    def trespass(self, tensor: np.ndarray, name: str) -> str | None:
        """What was written outside an array made here, as a sentence."""
        placed = self._placed.get(id(tensor))
        if placed is None:
            return None
        clean = np.empty_like(placed.memory)
        _fill(clean, _OUTSIDE)
        spoiled = (_words(placed.memory) != _words(clean)) & ~placed.own
        count = int(spoiled.sum())
        if not count:
            return None
        plural = "s" if count != 1 else ""
        return f"{count} element{plural} written outside {name}. Is the store masked?"

    def call(
        self, fn: Callable[[], Any], only_triton: bool, empty: bool
    ) -> tuple[Any, str | None]:
        """Result of a call in which ``np.empty`` gives poison; no complaint."""
        with ExitStack() as stack:
            for name, original in _ORIGINALS.items():
                patch = mock.patch.object(np, name, _poisoning(original))
                stack.enter_context(patch)
            return fn(), None

    def _allocate(
        self, shape: tuple[int, ...], dtype: np.dtype, layout: str
    ) -> np.ndarray:
        size = int(np.prod(shape))
        step = 2 if layout == "strided" else 1
        start = _BAND + (layout == "offset")
        memory = np.zeros(2 * _BAND + step * size + 1, dtype)
        _fill(memory, _OUTSIDE)
        own = np.zeros(memory.shape, dtype=bool)
        own[start : start + step * size : step] = True
        body = memory[start : start + step * size : step]
        if layout == "transposed":
            array = body.reshape(shape[::-1]).T
        else:
            strides = np.zeros(shape, dtype).strides
            strides = tuple(step * stride for stride in strides)
            array = np.lib.stride_tricks.as_strided(body, shape, strides)
        self._placed[id(array)] = _Placed(array, memory, own)
        return array


def _words(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")


def _fill(array: np.ndarray, patterns: dict[int, int]) -> None:
    if array.dtype.kind == "f":
        _words(array)[...] = patterns[array.itemsize]
    elif array.dtype.kind in "iu":
        array.fill(np.iinfo(array.dtype).max // 3)


def _poisoning(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def factory(*args: Any, **kwargs: Any) -> Any:
        array = original(*args, **kwargs)
        _fill(array, _UNWRITTEN)
        return array

    return factory
