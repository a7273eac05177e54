"""Who holds what: layouts as the compiler wrote them down, and whose banks meet."""

import re
from typing import NamedTuple

import numpy as np

from tilebook.memory import banks

_BLOCKED = re.compile(
    r"^(#\w+) = #ttg\.blocked<\{sizePerThread = \[([\d, ]+)\], "
    r"threadsPerWarp = \[([\d, ]+)\], warpsPerCTA = \[([\d, ]+)\], "
    r"order = \[([\d, ]+)\]",
    re.M,
)
# Of shared memory: what a warp moves in one cycle at most.
_CYCLE = 4 * banks.BANKS


class Blocked(NamedTuple):
    """A blocked layout: how the elements of a tile are dealt out to threads."""

    size_per_thread: tuple[int, ...]
    """Neighbours that one thread holds, along each dimension."""
    threads_per_warp: tuple[int, ...]
    """How the lanes of a warp lie side by side."""
    warps_per_cta: tuple[int, ...]
    """How the warps of a program do."""
    order: tuple[int, ...]
    """Dimensions, first the one along which lanes and warps are numbered first."""

    def threads(self, shape: tuple[int, int]) -> np.ndarray:
        """Number the thread that holds each element of a tile.

        Args:
            shape: rows and columns of the tile.

        Returns:
            int64 array of the shape. Threads 0 to 31 are the lanes of warp 0, and so
            on. A tile larger than what all threads cover is dealt out in rounds.
        """
        lane = _boxes(shape, self.size_per_thread, self.threads_per_warp, self.order)
        warp = _boxes(shape, self.warp(), self.warps_per_cta, self.order)
        return lane + int(np.prod(self.threads_per_warp)) * warp

    def warp(self) -> tuple[int, ...]:
        """Say how many elements one warp covers along each dimension."""
        sides = zip(self.size_per_thread, self.threads_per_warp, strict=True)
        return tuple(size * threads for size, threads in sides)

    def turned(self) -> "Blocked":
        """Return the layout of the transposed tile, in which nothing has moved."""
        return Blocked(
            self.size_per_thread[::-1],
            self.threads_per_warp[::-1],
            self.warps_per_cta[::-1],
            tuple(1 - axis for axis in self.order),
        )


def _boxes(
    shape: tuple[int, int],
    step: tuple[int, ...],
    count: tuple[int, ...],
    order: tuple[int, ...],
) -> np.ndarray:
    """Number boxes of `step` elements, `count` along each dimension, then anew."""
    at = np.indices(shape)
    number, weight = np.zeros(shape, dtype=np.int64), 1
    for axis in order:
        number += at[axis] // step[axis] % count[axis] * weight
        weight *= count[axis]
    return number


def blocked(ttgir: str) -> dict[str, Blocked]:
    """Read the blocked layouts of a compiled kernel.

    Args:
        ttgir: Triton GPU IR, as `Artefact.ttgir` has it.

    Returns:
        Layouts by the names that they have there, such as "#blocked1".
    """
    return {
        name: Blocked(*(tuple(map(int, part.split(","))) for part in parts))
        for name, *parts in _BLOCKED.findall(ttgir)
    }


def moved(ttgir: str, op: str, element: str) -> list[Blocked]:
    """Read the layouts between which an operation of a compiled kernel moves a tile.

    Args:
        ttgir: as for `blocked`.
        op: the operation, such as "tt.load" or "ttg.convert_layout".
        element: type of the tile's elements, such as "i16".

    Returns:
        The layouts of the first such operation, those of its operands first.

    Raises:
        ValueError: there is no such operation.
    """
    known = blocked(ttgir)
    for line in ttgir.splitlines():
        if f" {op} " in line:
            names = re.findall(rf"x(?:!tt\.ptr<)?{element}>?, (#\w+)>", line)
            if names and all(name in known for name in names):
                return [known[name] for name in names]
    raise ValueError(f"no {op} of {element} with a blocked layout")


class Shared(NamedTuple):
    """A swizzled layout in shared memory: groups of a row change places."""

    vector: int
    """Elements of a group, which stay together."""
    per_phase: int
    """Rows, one below the other, that are shifted alike."""
    phases: int
    """Shifts there are before they begin again."""
    width: int
    """Elements of a row. Further columns lie behind all the rows."""

    def offset(self, row: np.ndarray, column: np.ndarray, rows: int) -> np.ndarray:
        """Say where elements of a tile lie.

        Args:
            row: theirs.
            column: theirs.
            rows: how many the tile has.

        Returns:
            Elements from the first one.
        """
        block, column = np.divmod(column, self.width)
        group, within = np.divmod(column, self.vector)
        group = group ^ row // self.per_phase % self.phases
        start = (block * rows + row) * self.width
        return np.asarray(start + group * self.vector + within)


def cycles(
    holds: Blocked,
    lies: Shared,
    shape: tuple[int, int],
    itemsize: int,
    vector: int = 1,
) -> int:
    """Count the cycles in which lanes put a tile into shared memory.

    Args:
        holds: who has the elements.
        lies: where they go.
        shape: rows and columns of the tile.
        itemsize: bytes of an element.
        vector: neighbours of a row that a lane writes at a time. As many lanes are
            served at a time as write 128 bytes together, at most all.

    Returns:
        Cycles for these lanes, at worst: 1 where nobody waits.
    """
    at = np.indices(shape)
    lanes = holds.threads(shape)
    words = lies.offset(*at, shape[0]) * itemsize // 4
    # A write is of one round of the layout, one of a thread's rows, one vector.
    covered = [
        size * warps
        for size, warps in zip(holds.warp(), holds.warps_per_cta, strict=True)
    ]
    write = np.stack(
        [
            at[0] // covered[0],
            at[1] // covered[1],
            at[0] % holds.size_per_thread[0],
            at[1] % holds.size_per_thread[1] // vector,
            lanes // min(32, _CYCLE // (vector * itemsize)),
        ],
        axis=-1,
    ).reshape(-1, 5)
    _, which = np.unique(write, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel()))[:-1]
    return max(map(banks.conflicts, np.split(words.ravel()[order], ends)))


def engine(itemsize: int) -> Shared:
    """Describe how the tensor memory accelerator leaves tiles in shared memory.

    Args:
        itemsize: bytes of an element.

    Returns:
        Rows of 128 bytes, in which groups of 16 change places from row to row.
    """
    return Shared(16 // itemsize, 1, 8, 128 // itemsize)
