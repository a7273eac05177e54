"""Shared memory's 32 banks: who has to wait for whom."""

from collections.abc import Callable, Iterable
from operator import index

import numpy as np

BANKS = 32
"""Of 4 bytes each; in one cycle each hands out one word."""


def conflicts(words: Iterable[int]) -> int:
    """Cycles that one access of a warp takes.

    Args:
        words: which 4-byte word each of its threads wants, counted from the start of
            shared memory. Two threads that want the same word get it together.

    Returns:
        The most different words that lie in one bank: 1 where nobody waits.

    Raises:
        TypeError: a word isn't a whole number.
    """
    wanted = np.unique(np.fromiter(map(index, words), dtype=np.int64))
    return int(np.bincount(wanted % BANKS, minlength=1).max(initial=0))


def plain(row: int, column: int) -> int:
    """Where an element of a tile of 32 by 32 words lies, row after row."""
    return 32 * row + column


def padded(row: int, column: int) -> int:
    """The same with one unused word behind each row."""
    return 33 * row + column


def swizzled(row: int, column: int) -> int:
    """The same with each row's columns permuted by the row's number."""
    return 32 * row + (column ^ row)


LAYOUTS: dict[str, Callable[[int, int], int]] = {
    "plain": plain,
    "padded": padded,
    "swizzled": swizzled,
}
"""Ways to keep a tile of 32 by 32 words in shared memory."""


def cycles(layout: Callable[[int, int], int]) -> tuple[int, int]:
    """Cycles that a warp takes for one row and for one column of a tile.

    Args:
        layout: says in which word an element lies.

    Returns:
        The worst of all rows, and of all columns.
    """
    rows = max(conflicts(layout(i, j) for j in range(32)) for i in range(32))
    columns = max(conflicts(layout(i, j) for i in range(32)) for j in range(32))
    return rows, columns
