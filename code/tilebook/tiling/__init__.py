"""Two dimensions: `transpose`, from rows to tiles that both sides like.

The ladder, in order; each rung is a module with `transpose_kernel` and `transpose`:

* `naive`: a piece of a row per program; what it stores lies far apart.
* `tiled`: a tile per program, turned round on the way through shared memory.
* `grouped`: the same tiles in an order that keeps what is written together.
* `aligned`: what divides a stride is told to the compiler: 16 bytes at a time.
* `described`: tensor descriptors, which Hopper's copy engine follows.
* `explicit`: Gluon, where layouts and shared memory are written down (NVIDIA only).

`transpose` is the best of them for use: any strides, batches, a gradient,
`torch.compile`.
"""

from tilebook.tiling import aligned, described, explicit, grouped, naive, tiled
from tilebook.tiling.public import transpose

__all__ = [
    "LADDER",
    "aligned",
    "described",
    "explicit",
    "grouped",
    "naive",
    "tiled",
    "transpose",
]

LADDER = (naive, tiled, grouped, aligned, described, explicit)
"""The rungs of `transpose`, in order."""
