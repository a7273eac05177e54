"""Layouts as matrices of bits: who holds what, and how it gets from one to another.

A number is its bits, and a layout sends the bits of a register's, a lane's and a warp's
number to bits of a place in a tile. What two bits lead to is added without a carry, so
the layout is a matrix over the field of two numbers, GF(2), and all that one asks of
layouts is linear algebra: one after the other is a product of matrices, "who holds this
element?" an inverse, "who else?" a kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Sides = tuple[tuple[str, int], ...]
"""Names of numbers with how many bits each has, that with the lowest bits first."""

DIMENSIONS = ("dim0", "dim1", "dim2", "dim3", "dim4")
"""What a tile's dimensions are called, rows first."""


@dataclass(frozen=True)
class Linear:
    """A linear map from numbers to numbers, all of bits.

    Args:
        inputs: the numbers it takes.
        outputs: the numbers it makes.
        columns: for each bit of the inputs, in order, the bits of the outputs that it
            turns over, packed into one integer.
    """

    inputs: Sides
    outputs: Sides
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.columns) != sum(bits for _, bits in self.inputs):
            raise ValueError("columns must be one for each bit of the inputs")
        limit = 1 << sum(bits for _, bits in self.outputs)
        if not all(0 <= column < limit for column in self.columns):
            raise ValueError("columns must have no more bits than the outputs")

    @property
    def matrix(self) -> np.ndarray:
        """The matrix: uint8 of 0 and 1, a row for each bit of the outputs."""
        rows = range(sum(bits for _, bits in self.outputs))
        found = [[column >> row & 1 for column in self.columns] for row in rows]
        return np.array(found, np.uint8).reshape(len(rows), len(self.columns))

    @property
    def rank(self) -> int:
        """How many bits of the outputs can be set independently of one another."""
        return len(eliminated(self.columns)[0])

    def __call__(self, **numbers: int | np.ndarray) -> tuple[int | np.ndarray, ...]:
        """Apply the map.

        Args:
            numbers: by name, those that aren't given are 0; arrays work elementwise.

        Returns:
            A number for each output, in order.

        Raises:
            ValueError: there is no input of a name.
        """
        _known(numbers, self.inputs)
        total, at = 0, 0
        for name, bits in self.inputs:
            number = numbers.get(name, 0)
            for bit in range(bits):
                total = total ^ (number >> bit & 1) * self.columns[at + bit]
            at += bits
        return _unpacked(total, self.outputs)

    def bases(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Return where each bit of an input leads alone, the lowest first.

        Args:
            name: of the input; one that isn't there has no bits.

        Returns:
            For each bit a number for each output.
        """
        at = 0
        for each, bits in self.inputs:
            if each == name:
                columns = self.columns[at : at + bits]
                return tuple(_unpacked(column, self.outputs) for column in columns)
            at += bits
        return ()

    def then(self, outer: Linear) -> Linear:
        """Return the map that applies this one, then another: a product of matrices.

        Args:
            outer: takes what this one makes.

        Returns:
            `outer` after this.

        Raises:
            ValueError: it takes other numbers.
        """
        if self.outputs != outer.inputs:
            raise ValueError(f"outer takes {outer.inputs}, this makes {self.outputs}")
        made = tuple(_product(outer.columns, column) for column in self.columns)
        return Linear(self.inputs, outer.outputs, made)

    def inverse(self) -> Linear:
        """Return a map back: of all inputs that lead to an output, the least.

        Returns:
            The inverse matrix, or where several inputs lead to the same output, one
            that names the first of them: this after it changes nothing.

        Raises:
            ValueError: some outputs are led to by no input.
        """
        pivots, _ = eliminated(self.columns)
        total = sum(bits for _, bits in self.outputs)
        back = []
        for bit in range(total):
            found = _solved(pivots, 1 << bit)
            if found is None:
                raise ValueError("the map doesn't reach every output")
            back.append(found)
        # Elimination makes nothing with an input that earlier ones do for.
        return Linear(self.outputs, self.inputs, tuple(back))

    def kernel(self) -> tuple[tuple[int, ...], ...]:
        """Return inputs that lead to 0: whoever differs by them holds the same.

        Returns:
            A basis: for each a number for each input. None if all hold different.
        """
        _, relations = eliminated(self.columns)
        return tuple(_unpacked(each, self.inputs) for each in relations)

    def owners(self, name: str) -> np.ndarray:
        """Say which number of an input holds each element, the first if several do.

        Args:
            name: "lane", for instance.

        Returns:
            int64 array with an axis for each output.

        Raises:
            ValueError: there is no such input, or not every element is held.
        """
        _known((name,), self.inputs)
        shape = tuple(1 << bits for _, bits in self.outputs)
        back = self.inverse()
        places = dict(
            zip((each for each, _ in self.outputs), np.indices(shape), strict=True)
        )
        found = dict(
            zip((each for each, _ in self.inputs), back(**places), strict=True)
        )
        return np.broadcast_to(np.asarray(found[name], np.int64), shape)

    def trimmed(self, name: str) -> Linear:
        """Return the map without those bits of an input that lead nowhere alone.

        Args:
            name: "register": as a dimension is left out, and as Triton 3.9 has it.
        """
        given = {each: self.bases(each) for each, _ in self.inputs}
        if name in given:
            given[name] = tuple(at for at in given[name] if any(at))
        shape = [1 << bits for _, bits in self.outputs]
        return layout(shape, **given)


def layout(shape: Sequence[int], **bases: Iterable[Sequence[int]]) -> Linear:
    """Return the layout of a tile from its bases, as Triton prints them.

    Args:
        shape: the tile's sides, powers of two.
        bases: by name of an input ("register", "lane", "warp", "offset"), for each of
            its bits, the lowest first, the place that it leads to.

    Returns:
        A map to "dim0", "dim1" and so on.

    Raises:
        ValueError: a side is no power of two, or a place is outside the tile.
    """
    outputs = tile(shape)
    inputs, columns = [], []
    for name, places in bases.items():
        found = [packed(place, outputs) for place in places]
        inputs.append((name, len(found)))
        columns.extend(found)
    return Linear(tuple(inputs), outputs, tuple(columns))


def tile(shape: Sequence[int]) -> Sides:
    """Return the names of a tile's dimensions with their bits.

    Args:
        shape: its sides.

    Returns:
        Outputs of a layout.

    Raises:
        ValueError: a side is no power of two.
    """
    for side in shape:
        if side < 1 or side & (side - 1):
            raise ValueError(f"sides must be powers of two, got {side}")
    bits = (side.bit_length() - 1 for side in shape)
    return tuple(zip(DIMENSIONS[: len(shape)], bits, strict=True))


def conversion(source: Linear, target: Linear) -> Linear:
    """Return where each element has to go from one layout to another.

    Args:
        source: of the tile as it is.
        target: of the same tile as it is wanted.

    Returns:
        From the source's register, lane and warp to the first of the target's.

    Raises:
        ValueError: the tiles differ, or the target doesn't hold every element.
    """
    return source.then(target.inverse())


UNITS = ("register", "lane", "warp")
"""Numbers of a distributed layout, from the smallest unit to the largest."""


def reach(source: Linear, target: Linear) -> str:
    """Say how far elements go from one layout to another.

    Args:
        source: of the tile as it is.
        target: of the same tile as it is wanted.

    Returns:
        "" if each is where it is wanted, "register" if each thread has what it will
        hold, "lane" if each warp has, and else "warp".
    """
    if source == target:
        return ""
    for number, unit in enumerate(UNITS[:2], 1):
        # A unit has what it will hold if its bits lead to the same places, give or
        # take what the smaller ones lead to.
        inside, outside = UNITS[:number], UNITS[number:]
        near, _ = eliminated([x for name in inside for x in _own(source, name)])
        wanted = [x for name in inside for x in _own(target, name)]
        for name in outside:
            pair = _own(source, name), _own(target, name)
            wanted += [a ^ b for a, b in itertools.zip_longest(*pair, fillvalue=0)]
        if all(_solved(near, each) is not None for each in wanted):
            return unit
    return "warp"


def _own(map_: Linear, name: str) -> list[int]:
    return [packed(place, map_.outputs) for place in map_.bases(name)]


def packed(numbers: Sequence[int], sides: Sides) -> int:
    """Put numbers into one integer, the first lowest.

    Raises:
        ValueError: one has more bits than its side, or their count differs.
    """
    if len(numbers) != len(sides):
        raise ValueError(f"{list(numbers)} must be {len(sides)} numbers")
    total, at = 0, 0
    for number, (name, bits) in zip(numbers, sides, strict=True):
        if not 0 <= number < 1 << bits:
            raise ValueError(f"{name} must be below {1 << bits}, got {number}")
        total |= number << at
        at += bits
    return total


def _unpacked(total: int | np.ndarray, sides: Sides) -> tuple:
    found, at = [], 0
    for _, bits in sides:
        found.append(total >> at & ((1 << bits) - 1))
        at += bits
    return tuple(found)


def _known(names: Iterable[str], sides: Sides) -> None:
    have = [name for name, _ in sides]
    for name in names:
        if name not in have:
            raise ValueError(f"{name} must be one of {', '.join(have)}")


def _product(columns: Sequence[int], vector: int) -> int:
    """Multiply a matrix, given by columns, with a vector."""
    total = 0
    for bit, column in enumerate(columns):
        total ^= column * (vector >> bit & 1)
    return total


def eliminated(columns: Sequence[int]) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Eliminate (Gauss): each column less what the ones before it have of its top bit.

    Args:
        columns: of a matrix, as packed bits.

    Returns:
        By top bit, what is left of a column and which inputs make it; and the sums of
        inputs of which nothing is left.
    """
    pivots: dict[int, tuple[int, int]] = {}
    relations = []
    for number, column in enumerate(columns):
        made = 1 << number
        while column and (top := column.bit_length() - 1) in pivots:
            column ^= pivots[top][0]
            made ^= pivots[top][1]
        if column:
            pivots[column.bit_length() - 1] = column, made
        else:
            relations.append(made)
    return pivots, relations


def _solved(pivots: Mapping[int, tuple[int, int]], wanted: int) -> int | None:
    """Return inputs that make a vector, by what `eliminated` found, or None."""
    made = 0
    while wanted:
        pivot = pivots.get(wanted.bit_length() - 1)
        if pivot is None:
            return None
        wanted ^= pivot[0]
        made ^= pivot[1]
    return made
