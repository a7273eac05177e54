"""Matrices in global memory, as the copy engine knows them."""

from collections.abc import Sequence
from typing import Any

import torch

from tilebook.schedules.machine import ScheduleError
from tilebook.schedules.tiles import TYPES, Missing

GRANULE = 16
"""Bytes that the copy engine writes whole, past a matrix's edge, too."""


class BlockType:
    """A descriptor's tile.

    Args:
        shape: of the tile.
        itemsize: bytes of an element.
    """

    def __init__(self, shape: Sequence[int], itemsize: int) -> None:
        self.shape = list(shape)
        self.nbytes = itemsize
        for side in shape:
            self.nbytes *= side


class Descriptor(Missing):
    """A matrix and the tiles in which the engine moves it.

    Args:
        host: Triton's descriptor; its tensor is on the CPU.
    """

    def __init__(self, host: Any) -> None:
        if host.padding != "zero":
            raise NotImplementedError(f"padding {host.padding!r} is not modelled")
        self.base = host.base.as_strided(host.shape, host.strides)
        self.layout = host.layout
        self.dtype = TYPES[host.base.dtype]
        self.block_type = BlockType(host.block_shape, host.base.itemsize)
        self._granule = GRANULE // host.base.itemsize

    def put(self, at: Sequence[int], tile: torch.Tensor) -> None:
        """Write what lies inside, the last of a row in whole granules.

        Args:
            at: where the tile begins.
            tile: all of it, as it was in shared memory.

        Raises:
            ScheduleError: the granules end past the matrix's memory.
        """
        there, inside = self.window(at)
        before, part = there[-1], inside[-1]
        *sides, columns = self.base.shape
        ends = part.stop > part.start and before.stop == columns
        more = -columns % self._granule if ends else 0
        try:
            place = self.base.as_strided((*sides, columns + more), self.base.stride())
        except RuntimeError:
            raise ScheduleError(
                f"the last row's end is not a multiple of {GRANULE} bytes, which are "
                "written whole: past the end of the matrix's memory"
            ) from None
        along = slice(before.start, before.stop + more)
        place[(*there[:-1], along)] = tile[
            (*inside[:-1], slice(part.start, part.stop + more))
        ]

    def add(self, at: Sequence[int], tile: torch.Tensor) -> None:
        """Add what lies inside.

        Args:
            at: where the tile begins.
            tile: all of it, as it was in shared memory.
        """
        there, inside = self.window(at)
        self.base[there] += tile[inside]

    def window(self, at: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where a tile lies in the matrix, and where that part is in the tile."""
        there, inside = [], []
        for first, side, size in zip(
            at, self.block_type.shape, self.base.shape, strict=True
        ):
            begin = min(max(first, 0), size)
            end = min(max(first + side, 0), size)
            there.append(slice(begin, end))
            inside.append(slice(begin - first, end - first))
            if begin == end:
                # Nothing of it is there: nor does a slice count from the end.
                inside[-1] = slice(0, 0)
        return tuple(there), tuple(inside)
