"""All puzzles in their order."""

from tilebook.puzzles import (
    choosing,
    chunks,
    finals,
    pointwise,
    products,
    rearranging,
    scanning,
)

PUBLIC = (*pointwise.PUZZLES, *chunks.PUZZLES, *products.PUZZLES)
"""The twelve public ones (Triton-Puzzles), restated."""
OURS = (
    *rearranging.PUZZLES,
    *scanning.PUZZLES,
    *choosing.PUZZLES,
    *finals.PUZZLES,
)
"""Those of this book."""
PUZZLES = (*PUBLIC, *OURS)
