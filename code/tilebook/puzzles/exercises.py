"""The tasks of the puzzles, where `tilebook.testing.check` looks for them."""

from tilebook.puzzles import PUZZLES

__all__ = ["EXERCISES"]

EXERCISES = tuple(puzzle.task for puzzle in PUZZLES)
