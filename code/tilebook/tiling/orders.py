"""Launch orders on the host: the kernels' own arithmetic, on all programs at once."""

from types import FunctionType, SimpleNamespace
from typing import NamedTuple

import numpy as np

from tilebook import check
from tilebook.testing.source import python_function
from tilebook.tiling.grouped import grouped

# `grouped` asks Triton for a minimum, and for nothing else.
_NUMPY = {"tl": SimpleNamespace(minimum=np.minimum)}


class Needs(NamedTuple):
    """What programs that run together read of the operands of a product."""

    rows: int
    """Different rows of tiles of A."""
    columns: int
    """Different columns of tiles of B."""

    def tiles(self, depth: int) -> int:
        """Count different tiles.

        Args:
            depth: tiles along a row of A, which are as many as down a column of B.
        """
        return (self.rows + self.columns) * depth


def order(tiles_m: int, tiles_n: int, group: int) -> np.ndarray:
    """Say where every program of a launch works.

    Args:
        tiles_m: rows of tiles.
        tiles_n: columns of tiles.
        group: rows of tiles in a strip; 1 for row by row.

    Returns:
        int64 array (tiles_m * tiles_n, 2): row and column of each program's tile, as
        `grouped.grouped` computes them.

    Raises:
        TypeError: a number isn't an integer.
        ValueError: a number below 1.
    """
    sizes = {"tiles_m": tiles_m, "tiles_n": tiles_n, "group": group}
    for name, value in sizes.items():
        check.positive_int(value, name)
    written = python_function(grouped)
    place = FunctionType(written.__code__, _NUMPY)
    return np.stack(place(np.arange(tiles_m * tiles_n), *sizes.values()), axis=1)


def waves(tiles_m: int, tiles_n: int, group: int, programs: int) -> list[Needs]:
    """Count what is read by each wave of a launch, as if all of it ran in step.

    Args:
        tiles_m: rows of tiles.
        tiles_n: columns of tiles.
        group: rows of tiles in a strip; 1 for row by row.
        programs: how many run at a time.

    Returns:
        The needs of programs 0 to `programs` - 1, of the next as many, and so on.

    Raises:
        TypeError: a number isn't an integer.
        ValueError: a number below 1.
    """
    check.positive_int(programs, "programs")
    at = order(tiles_m, tiles_n, group)
    parts = (at[i : i + programs] for i in range(0, len(at), programs))
    return [
        Needs(*(len(np.unique(part[:, axis])) for axis in (0, 1))) for part in parts
    ]
