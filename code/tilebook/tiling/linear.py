"""Layouts as Triton computes with them: where each bit of a number leads.

Register, lane and warp are numbers. Each of their bits has a step in the tile, and the
element that they hold is where all steps together lead, from [0, 0] on. Steps are added
without a carry, which here is all the same, since no two have a bit in common. A step
of [0, 0] says that its bit makes no difference: whoever differs in it alone holds the
same elements.
"""

from typing import NamedTuple

from tilebook import check
from tilebook.tiling.layouts import Blocked


class Bases(NamedTuple):
    """A layout of a tile, by bits, the lowest first.

    A step is rows down and columns to the right: a power of two and 0, or both 0.
    """

    register: tuple[tuple[int, int], ...]
    """Of the number of an element among those that a thread holds."""
    lane: tuple[tuple[int, int], ...]
    """Of the thread's number in its warp."""
    warp: tuple[tuple[int, int], ...]
    """Of the warp's number in its program."""

    def place(self, register: int, lane: int, warp: int) -> tuple[int, int]:
        """Say which element is held where.

        Args:
            register: number of the register in the thread.
            lane: number of the thread in the warp.
            warp: number of the warp.

        Returns:
            Its row and its column.
        """
        row = column = 0
        for number, steps in zip((register, lane, warp), self, strict=True):
            for bit, (down, right) in enumerate(steps):
                if number >> bit & 1:
                    row, column = row ^ down, column ^ right
        return row, column


def bases(layout: Blocked, shape: tuple[int, int]) -> Bases:
    """Write a blocked layout down by bits.

    Args:
        layout: its numbers are powers of two.
        shape: rows and columns of the tile, powers of two.

    Returns:
        The steps. Bits are dealt out to registers, then to lanes, then to warps, for
        each along the dimensions of `layout.order`, each step twice as long as the one
        before it in its dimension. Steps that would leave the tile are [0, 0]; where
        all steps don't fill it, registers get further ones.

    Raises:
        ValueError: a number that is no power of two.
    """
    for sides in (*layout[:3], shape):
        for side in sides:
            if check.positive_int(side, "a side") & (side - 1):
                raise ValueError(f"sides must be powers of two, got {side}")
    covered = [1, 1]

    def dealt(counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        steps = []
        for axis in layout.order:
            for _ in range(counts[axis].bit_length() - 1):
                step = [0, 0]
                if covered[axis] < shape[axis]:
                    step[axis] = covered[axis]
                covered[axis] *= 2
                steps.append((step[0], step[1]))
        return tuple(steps)

    register, lane, warp = map(dealt, layout[:3])
    rest = tuple(max(1, n // done) for n, done in zip(shape, covered, strict=True))
    return Bases(register + dealt(rest), lane, warp)
