"""Find elements that two programs touch when one of them writes.

Bytes are compared, as a kernel may cast pointers: two programs that write different
bytes of one element don't race, and a wide store races with all that it covers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilebook.interpreter import Access

# Loads don't disturb each other, and atomics take turns.
_CONFLICTS = (
    ("store", "store"),
    ("load", "store"),
    ("store", "atomic"),
    ("load", "atomic"),
)


@dataclass(frozen=True, eq=False)
class Race:
    """Elements that different programs touch, at least one of them writing.

    Args:
        kind: the two operations, such as "load/store".
        arguments: the parameter through which each side touches them.
        elements: the first argument's elements that hold a byte which both touch,
            ascending.
        programs: for the first element, one program of each side.
        lines: for the first element, the source line of each side.
    """

    kind: str
    arguments: tuple[str, str]
    elements: np.ndarray
    programs: tuple[tuple[int, int, int], tuple[int, int, int]]
    lines: tuple[int, int]

    def __str__(self) -> str:
        name, other = self.arguments
        also = f" (which {other} overlaps)" if other != name else ""
        count = len(self.elements)
        (p, q), (m, n) = self.programs, self.lines
        return (
            f"{self.kind} race on {count} element{'s' * (count != 1)} of {name}{also}: "
            f"{name}[{self.elements[0]}] by program {p}, line {m}, and {q}, line {n}"
        )


@dataclass(frozen=True, eq=False)
class _Touches:
    """One row per lane and cell: which cell of memory, and which access touches it."""

    cell: np.ndarray
    access: np.ndarray
    program: np.ndarray

    def where(self, rows: np.ndarray) -> _Touches:
        return _Touches(self.cell[rows], self.access[rows], self.program[rows])


def find(
    accesses: Sequence[Access], number: Mapping[tuple[int, int, int], int]
) -> tuple[Race, ...]:
    """Find the races among a launch's accesses.

    Args:
        accesses: all of them.
        number: of each program; any order.

    Returns:
        One race per pair of operations and arguments.
    """
    start, size = _cells(accesses)
    touches = _touches(accesses, start, size, number)
    ops = np.array([access.op for access in accesses])
    races = []
    for first, second in _CONFLICTS:
        sides = [touches.where(ops[touches.access] == op) for op in (first, second)]
        for a, b in _by_arguments(*_conflicts(*sides), accesses):
            x, y = accesses[a.access[0]], accesses[b.access[0]]
            offsets = start + a.cell * size - x.address
            races.append(
                Race(
                    kind=f"{first}/{second}",
                    arguments=(x.argument, y.argument),
                    elements=np.unique(offsets // x.itemsize),
                    programs=(x.program, y.program),
                    lines=(x.line, y.line),
                )
            )
    return tuple(races)


def _cells(accesses: Sequence[Access]) -> tuple[int, int]:
    """Choose cells as large as may be, so that lanes in one cell share a byte.

    Every lane and every element begins where a cell does. Lanes that touch a cell then
    have its first byte in common, and what a cell belongs to is one element.

    Returns:
        The address where cell 0 begins, and the size of a cell in bytes.
    """
    start = min((access.address for access in accesses), default=0)
    size = 0
    for access in accesses:
        inside = int(np.gcd.reduce(access.offsets[access.mask], initial=0))
        size = math.gcd(size, access.address - start, access.itemsize, inside)
    return start, size


def _touches(
    accesses: Sequence[Access],
    start: int,
    size: int,
    number: Mapping[tuple[int, int, int], int],
) -> _Touches:
    cells, owners, programs = [], [], []
    for i, access in enumerate(accesses):
        # Each cell once: lanes of one program don't race with themselves.
        touched = np.unique(access.cells(size, start))
        cells.append(touched)
        owners.append(np.full(touched.size, i))
        programs.append(np.full(touched.size, number[access.program]))
    empty = np.zeros(0, dtype=np.int64)
    return _Touches(*(np.concatenate([empty, *c]) for c in (cells, owners, programs)))


def _conflicts(a: _Touches, b: _Touches) -> tuple[_Touches, _Touches]:
    """Pair each cell's first touch in `a` with one of another program in `b`."""
    b = b.where(np.lexsort((b.program, b.cell)))
    low = np.searchsorted(b.cell, a.cell, side="left")
    high = np.searchsorted(b.cell, a.cell, side="right")
    a, low, high = a.where(low < high), low[low < high], high[low < high]
    # Programs ascend within a cell: the first or the last is another, if any is.
    partner = np.where(b.program[low] != a.program, low, high - 1)
    other = b.program[partner] != a.program
    a, b = a.where(other), b.where(partner[other])
    _, first = np.unique(a.cell, return_index=True)
    return a.where(first), b.where(first)


def _by_arguments(
    a: _Touches, b: _Touches, accesses: Sequence[Access]
) -> Iterator[tuple[_Touches, _Touches]]:
    names = [
        (accesses[i].argument, accesses[j].argument)
        for i, j in zip(a.access, b.access, strict=True)
    ]
    order = sorted(range(len(names)), key=names.__getitem__)
    for _, group in itertools.groupby(order, key=names.__getitem__):
        rows = np.array(list(group))
        yield a.where(rows), b.where(rows)
