"""Memory by address: what an interpreted kernel loads, stores and changes atomically.

Triton's library reads and writes whatever address it is given. Here every lane has to
fall into one of the arrays that were registered, and one that doesn't is an error.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Binary = Callable[[np.ndarray, np.ndarray], np.ndarray]


class BadAddress(IndexError):
    """A lane touched memory that belongs to no registered array."""


class _Span:
    """Bytes from an address on, for NumPy to look at."""

    def __init__(self, start: int, size: int) -> None:
        self.__array_interface__ = {
            "data": (start, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }


def bounds_of(array: np.ndarray) -> tuple[int, int]:
    """Return the addresses of an array's lowest byte and of the one after its highest.

    Args:
        array: of any strides, negative ones included.
    """
    low = high = array.__array_interface__["data"][0]
    if array.size == 0:
        return low, low
    for size, stride in zip(array.shape, array.strides, strict=True):
        reach = (size - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + array.itemsize


class Memory:
    """The arrays that kernels may touch."""

    def __init__(self) -> None:
        # The arrays are kept, lest their memory be freed and used for another.
        self._arrays: list[np.ndarray] = []
        self._extents: list[tuple[int, int]] = []

    def register(self, array: np.ndarray) -> int:
        """Let kernels touch an array.

        Args:
            array: of any strides.

        Returns:
            The address of its first element.
        """
        self._arrays.append(array)
        self._extents.append(bounds_of(array))
        return array.__array_interface__["data"][0]

    def forget(self) -> None:
        """Let kernels touch nothing any more."""
        self._arrays.clear()
        self._extents.clear()

    def at(self, address: int) -> np.ndarray | None:
        """Return the array registered last whose first element is at an address."""
        for array in reversed(self._arrays):
            if array.__array_interface__["data"][0] == address:
                return array
        return None

    def _parts(
        self, addresses: np.ndarray, width: int, what: str
    ) -> Iterator[tuple[Any, np.ndarray, int, int]]:
        """Split lanes by the array that they fall into.

        Yields:
            Which lanes, their offsets in bytes, where that array starts, its bytes.
        """
        if addresses.size == 0:
            return
        low, high = int(addresses.min()), int(addresses.max()) + width
        for start, stop in reversed(self._extents):
            if start <= low and high <= stop:
                yield slice(None), addresses - np.uint64(start), start, stop - start
                return
        left = np.ones(addresses.shape, dtype=bool)
        for start, stop in reversed(self._extents):
            room = stop - start - width
            if room < 0:
                continue
            # Compared by distance: an address below the start wraps around.
            offsets = addresses - np.uint64(start)
            here = left & (offsets <= np.uint64(room))
            if here.any():
                left &= ~here
                yield here, offsets[here], start, stop - start
        if left.any():
            lost = int(addresses[left][0])
            raise BadAddress(f"{what} at address {lost:#x}, inside no argument")

    def gather(self, addresses: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
        """Read an element at each address.

        Args:
            addresses: uint64, one-dimensional; they need not be aligned.
            dtype: of the elements.
            what: the operation, for the message.

        Returns:
            The elements.

        Raises:
            BadAddress: a lane falls outside every array.
        """
        found = np.empty(addresses.shape, dtype=dtype)
        for lanes, offsets, start, size in self._parts(addresses, dtype.itemsize, what):
            cells, where = _cells(offsets, start, size, dtype)
            found[lanes] = cells[where].view(dtype).reshape(where.shape[:1])
        return found

    def scatter(self, addresses: np.ndarray, values: np.ndarray, what: str) -> None:
        """Write an element at each address; of several at one address the last stays.

        Args:
            addresses: uint64, one-dimensional.
            values: of the same shape.
            what: the operation, for the message.

        Raises:
            BadAddress: a lane falls outside every array; nothing is written then.
        """
        dtype = values.dtype
        parts = list(self._parts(addresses, dtype.itemsize, what))
        for lanes, offsets, start, size in parts:
            cells, where = _cells(offsets, start, size, dtype)
            chosen = np.ascontiguousarray(values[lanes])
            if where.ndim == 2:
                chosen = chosen.view(np.uint8).reshape(where.shape)
            cells[where] = chosen

    def change(
        self, addresses: np.ndarray, values: np.ndarray, op: Binary, what: str
    ) -> np.ndarray:
        """Read, combine and write back, lane after lane.

        Args:
            addresses: uint64, one-dimensional; lanes may share one.
            values: what each lane brings; its dtype is that of memory.
            op: makes the new elements of the old ones and of those.
            what: the operation, for the message.

        Returns:
            What each lane found.

        Raises:
            BadAddress: a lane falls outside every array.
        """
        found = np.zeros(addresses.shape, dtype=values.dtype)
        for turn in _turns(addresses):
            here = addresses[turn]
            found[turn] = self.gather(here, values.dtype, what)
            new = op(found[turn], values[turn]).astype(values.dtype)
            self.scatter(here, new, what)
        return found


def _cells(
    offsets: np.ndarray, start: int, size: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return an array's memory cut into cells, and where in it the lanes are.

    The cells are elements where every lane is at a multiple of their size, else bytes;
    then each lane has a row of them.
    """
    width = dtype.itemsize
    offsets = offsets.view(np.int64)
    raw = np.asarray(_Span(start, size))
    if not (offsets % width).any():
        return raw[: size // width * width].view(dtype), offsets // width
    return raw, offsets[:, None] + np.arange(width)


def _turns(addresses: np.ndarray) -> Iterator[np.ndarray]:
    """Split lanes into turns, within which no address occurs twice, in their order."""
    order = np.argsort(addresses, kind="stable")
    sorted_ = addresses[order]
    first = np.ones(sorted_.shape, dtype=bool)
    first[1:] = sorted_[1:] != sorted_[:-1]
    begins = np.maximum.accumulate(np.where(first, np.arange(first.size), 0))
    turn = np.empty(first.size, dtype=np.int64)
    turn[order] = np.arange(first.size) - begins
    for number in range(int(turn.max(initial=-1)) + 1):
        yield np.flatnonzero(turn == number)
