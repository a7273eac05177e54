"""Puzzles by name, and their hints one at a time."""

import difflib

from tilebook.puzzles.declare import Puzzle
from tilebook.puzzles.listing import PUZZLES

_given: dict[str, int] = {}


def puzzle(name: str) -> Puzzle:
    """Find a puzzle.

    Args:
        name: such as ``"puzzle-08"``.

    Returns:
        The puzzle.

    Raises:
        LookupError: there is none of that name; the message has similar ones.
    """
    known = {one.name: one for one in PUZZLES}
    if name in known:
        return known[name]
    close = ", ".join(difflib.get_close_matches(str(name), known, cutoff=0.4))
    listed = close or f"{PUZZLES[0].name} to {PUZZLES[-1].name}"
    raise LookupError(f"no puzzle is called {name!r}; there is: {listed}")


def hint(name: str) -> None:
    """Print a puzzle's next hint; after the last, begin again.

    Args:
        name: such as ``"puzzle-08"``.

    Raises:
        LookupError: there is no such puzzle.
    """
    hints = puzzle(name).hints
    turn = _given.get(name, 0)
    _given[name] = (turn + 1) % len(hints)
    print(f"{name}, hint {turn + 1} of {len(hints)}: {hints[turn]}")
    if turn + 1 == len(hints):
        print("That was the last one. The page has the solution, folded.")
