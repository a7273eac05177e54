"""Exercises on NumPy arrays: kernels are checked so where there is no torch."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilebook.browser.arrays import Tensor
from tilebook.testing import marks
from tilebook.testing.backend import Read
from tilebook.testing.compare import widen
from tilebook.testing.precision import round_to

BAND = 1 << 16
"""Bytes before and after each array that nobody may write."""
_bytes = itertools.cycle(marks.OUTSIDE_BYTES)
_source = random.Random()


@dataclass(frozen=True, eq=False)
class Guarded:
    """An array in the middle of memory that nobody else may write.

    Args:
        tensor: the array.
        memory: that and all around it, as unsigned integers of an element's size.
        own: which of them the array's elements are.
        outside: what the others hold.
        unwritten: what its own held at first; None for bool.
    """

    tensor: Tensor
    memory: np.ndarray
    own: np.ndarray
    outside: int
    unwritten: int | None

    def complaint(self, name: str) -> str | None:
        """Return what was written outside the array, as a sentence."""
        spoiled = np.flatnonzero((self.memory != self.outside) & ~self.own)
        if spoiled.size == 0:
            return None
        inside = np.flatnonzero(self.own)
        first, last = (inside[0], inside[-1]) if inside.size else (0, -1)
        sides = (
            ("before its start", "element {} before its first", first - spoiled[::-1]),
            ("past its end", "element {} after its last", spoiled - last),
        )
        for where, nearest, distances in sides:
            outside = distances[distances > 0]
            if outside.size:
                at = nearest.format(outside[0])
                return self._sentence(name, outside.size, where, at)
        where = f"between its elements (strides {self.tensor.stride()})"
        return self._sentence(name, spoiled.size, where, f"offset {spoiled[0] - first}")

    def _sentence(self, name: str, count: int, where: str, nearest: str) -> str:
        what = f"{name} ({self.tensor.dtype}, shape {self.tensor.shape})"
        plural = "s" if count != 1 else ""
        return (
            f"{what}: {count} element{plural} written {where}, the nearest {nearest}. "
            "Is the store masked, and the offset right?"
        )


class NumpyBackend:
    """NumPy arrays in guarded memory; what is tried has to be a kernel."""

    def __init__(self) -> None:
        # By the address of the first element, which lives as long as the guard.
        self._guards: dict[int, Guarded] = {}

    def place(self, values: np.ndarray, dtype: str, layout: str) -> Tensor:
        """Array with these values, in guarded memory, laid out as asked."""
        made = self._allocate(values.shape, dtype, layout)
        made[...] = self._converted(values, dtype)
        return made

    def output(self, shape: tuple[int, ...], dtype: str, initial: float | None) -> Any:
        """Array in guarded memory, full of poison unless an initial value is given."""
        made = self._allocate(shape, dtype, "contiguous")
        if initial is not None:
            made[...] = initial
        return made

    def overwrite(self, tensor: Tensor, values: np.ndarray) -> None:
        """Give an array new values, in place."""
        tensor[...] = self._converted(values, tensor.dtype.name)

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is an array."""
        return isinstance(value, np.ndarray)

    def read(self, tensor: Tensor) -> Read:
        """An array's contents."""
        plain = np.array(tensor, order="C", subok=False)
        never = np.zeros(plain.shape, dtype=bool)
        made = self._guards.get(_address(tensor))
        if made is not None and made.unwritten is not None and plain.size:
            never = plain.view(made.memory.dtype).reshape(plain.shape) == made.unwritten
        return Read(widen(plain), plain.dtype.name, never, plain.tobytes())

    def overlap(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether two arrays share memory."""
        return bool(np.may_share_memory(one, other))

    def trespass(self, tensor: Tensor, name: str) -> str | None:
        """What was written outside an array made here, as a sentence."""
        made = self._guards.get(_address(tensor))
        return made.complaint(name) if made else None

    def call(
        self, fn: Callable[[], Any], only_triton: bool, empty: bool
    ) -> tuple[Any, str | None]:
        """Result of a call, and no complaint: a kernel allocates nothing."""
        return fn(), None

    def _converted(self, values: np.ndarray, dtype: str) -> np.ndarray:
        if values.dtype.kind == "f":
            values = round_to(values, dtype)
        return np.asarray(values).astype(dtype)

    def _allocate(self, shape: tuple[int, ...], dtype: str, layout: str) -> Tensor:
        kind = np.dtype(dtype)
        wide, chosen, turned = _laid_out(shape, layout)
        count, band = int(np.prod(wide, dtype=np.int64)), BAND // kind.itemsize
        start = band + (layout == "offset")
        words = np.dtype(f"u{kind.itemsize}")
        outside, unwritten = _patterns(kind)
        memory = np.full(start + count + band, outside, dtype=words)
        own = np.zeros(memory.shape, dtype=bool)

        def inside(whole: np.ndarray) -> np.ndarray:
            part = whole[start : start + count].reshape(wide)[chosen]
            return part.T if turned else part

        inside(own)[...] = True
        if unwritten is not None:
            inside(memory)[...] = unwritten
        tensor = inside(memory.view(kind)).view(Tensor)
        made = Guarded(tensor, memory, own, outside, unwritten)
        self._guards[_address(tensor)] = made
        return tensor


def _patterns(kind: np.dtype) -> tuple[int, int | None]:
    """Return the bits of memory around an array, and of what nobody wrote."""
    byte = next(_bytes)
    if kind.name in marks.NAN:
        unwritten, outside = marks.NAN[kind.name]
        return outside + byte, unwritten
    outside = int.from_bytes(bytes([byte] * kind.itemsize), "little")
    if kind.kind == "b":
        return outside, None
    mark = bytes([_source.choice(marks.UNWRITTEN_BYTES)] * kind.itemsize)
    return outside, int.from_bytes(mark, "little")


def _laid_out(shape: tuple[int, ...], layout: str) -> tuple[tuple[int, ...], Any, bool]:
    """Return the shape to allocate, which part of it is the array, whether turned."""
    if not shape or layout == "contiguous":
        return shape, ..., False
    *rows, columns = shape
    if layout == "strided":
        return (*rows, 2 * columns + 1), (..., slice(1, None, 2)), False
    if layout == "sliced" and rows:
        return (*rows, columns + 5), (..., slice(3, 3 + columns)), False
    if layout == "transposed" and rows:
        return shape[::-1], ..., True
    return shape, ..., False


def _address(tensor: np.ndarray) -> int:
    return int(tensor.__array_interface__["data"][0])
