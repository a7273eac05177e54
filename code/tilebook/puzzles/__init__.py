"""Puzzles: small kernels to write, each with a strict check.

    from tilebook.puzzles import PUZZLES, hint
    from tilebook.testing import check

    print(PUZZLES[7].stub)           # what to fill in
    hint("puzzle-08")                # the next hint at each call
    check("puzzle-08", my_kernel)

The puzzles themselves need NumPy only. `solutions` has a kernel for each, `drawing` a
picture of what one of its programs touches, `wrong` mistakes that a weak test accepts,
and `notebook` makes a notebook of the stubs. Modules in the order of the puzzles:

* `pointwise`: 1 to 6
* `chunks`: 7 to 9
* `products`: 10 to 12
* `rearranging`: 13 to 16
* `scanning`: 17 to 21
* `choosing`: 22 to 24
* `finals`: 25 to 27
"""

from tilebook.puzzles.declare import Puzzle
from tilebook.puzzles.hinting import hint, puzzle
from tilebook.puzzles.listing import OURS, PUBLIC, PUZZLES

__all__ = ["OURS", "PUBLIC", "PUZZLES", "Puzzle", "hint", "puzzle"]
