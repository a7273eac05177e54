"""Programs, not threads: `add`, from one program to any tensor.

The ladder, in order; each rung is a module with `add_kernel` and `add`:

* `single`: one program whose tile is the whole vector; a power of two.
* `grid`: many programs, a tile each; the tiles must fit exactly.
* `masked`: any length; a mask keeps the last tile inside.
* `strided`: a fixed number of programs, each striding over the vector.
* `wide`: more than 2^31 elements, by offsets of 64 bits.
* `whole`: whole tiles without a mask, so that every length moves 16 bytes at a time.

`add` is the best of them for use: any strides, `out=`, a gradient, `torch.compile`.
"""

from tilebook.parallel import grid, masked, single, strided, whole, wide
from tilebook.parallel.public import add

__all__ = ["LADDER", "add", "grid", "masked", "single", "strided", "whole", "wide"]

LADDER = (single, grid, masked, strided, wide, whole)
"""The rungs of `add`, in order."""
