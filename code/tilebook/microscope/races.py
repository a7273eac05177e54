"""Find elements that two programs touch when one of them writes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilebook.interpreter import Access
from tilebook.microscope.arguments import Argument

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
        elements: element indices within the first argument, ascending.
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
    """One row per lane: the address it touches, and which access it belongs to."""

    address: np.ndarray
    access: np.ndarray
    program: np.ndarray

    def where(self, rows: np.ndarray) -> _Touches:
        return _Touches(self.address[rows], self.access[rows], self.program[rows])


def find(
    accesses: Sequence[Access],
    arguments: Mapping[str, Argument],
    number: Mapping[tuple[int, int, int], int],
) -> tuple[Race, ...]:
    """Find the races among a launch's accesses.

    Args:
        accesses: all of them.
        arguments: the tensors, for views of the same memory under two names.
        number: of each program; any order.

    Returns:
        One race per pair of operations and arguments.
    """
    bases = _bases(accesses, arguments)
    touches = _touches(accesses, bases, number)
    ops = np.array([access.op for access in accesses])
    races = []
    for first, second in _CONFLICTS:
        sides = [touches.where(ops[touches.access] == op) for op in (first, second)]
        for a, b in _by_arguments(*_conflicts(*sides), accesses):
            x, y = accesses[a.access[0]], accesses[b.access[0]]
            start, itemsize = bases[x.argument]
            races.append(
                Race(
                    kind=f"{first}/{second}",
                    arguments=(x.argument, y.argument),
                    elements=np.unique((a.address - start) // itemsize),
                    programs=(x.program, y.program),
                    lines=(x.line, y.line),
                )
            )
    return tuple(races)


def _bases(
    accesses: Sequence[Access], arguments: Mapping[str, Argument]
) -> dict[str, tuple[int, int]]:
    """Map each tensor's name to its address and its element's size."""
    bases = {name: (a.address, a.itemsize) for name, a in arguments.items()}
    for access in accesses:
        # A tensor reached through memory has no known address: keep it apart.
        bases.setdefault(access.argument, (-(1 << 48) * (len(bases) + 1), 1))
    return bases


def _touches(
    accesses: Sequence[Access],
    bases: Mapping[str, tuple[int, int]],
    number: Mapping[tuple[int, int, int], int],
) -> _Touches:
    used = {bases[access.argument] for access in accesses}
    # Elements of one size are told apart by where they start; those of several sizes
    # may overlap, and are compared byte by byte, or as coarsely as fits all.
    unit = math.gcd(*(itemsize for _, itemsize in used))
    mixed = len({itemsize for _, itemsize in used}) > 1
    addresses, owners, programs = [], [], []
    for i, access in enumerate(accesses):
        start, itemsize = bases[access.argument]
        # Each element once: lanes of one program don't race with themselves.
        touched = start + np.unique(access.elements[access.mask]) * itemsize
        if mixed:
            touched = (touched[:, None] + np.arange(0, itemsize, unit)).ravel()
        addresses.append(touched)
        owners.append(np.full(touched.size, i))
        programs.append(np.full(touched.size, number[access.program]))
    empty = np.zeros(0, dtype=np.int64)
    return _Touches(
        *(np.concatenate([empty, *c]) for c in (addresses, owners, programs))
    )


def _conflicts(a: _Touches, b: _Touches) -> tuple[_Touches, _Touches]:
    """Pair each address's first touch in `a` with one of another program in `b`."""
    b = b.where(np.lexsort((b.program, b.address)))
    low = np.searchsorted(b.address, a.address, side="left")
    high = np.searchsorted(b.address, a.address, side="right")
    a, low, high = a.where(low < high), low[low < high], high[low < high]
    # Programs ascend within an address: the first or the last is another, if any is.
    partner = np.where(b.program[low] != a.program, low, high - 1)
    other = b.program[partner] != a.program
    a, b = a.where(other), b.where(partner[other])
    _, first = np.unique(a.address, return_index=True)
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
