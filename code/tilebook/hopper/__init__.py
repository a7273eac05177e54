"""TMA, wgmma and warp specialisation: what Hopper's tensor cores need to be busy.

The ladder, in order; each rung is a module with a kernel, `launch` and `matmul`. It
begins where `tilebook.matmul.described` ends:

* `made`: descriptors that the kernel makes.
* `automatic`: the same kernel, its loads in warps of their own, by the compiler.
* `pipelined`: the same by hand, in Gluon; eight warps do everything.
* `cooperative`: a warp that only loads, two groups of four that only multiply.
* `folded`: a tile is stored while the next one's first products are under way.
* `pingpong`: a tile to each group; one multiplies while the other stores.

Beside them stand `widths`, whose tiles have widths between the powers of two, and
`remainder`: whole turns of wide tiles, and one of narrower ones. `matmul` chooses among
these kernels and those of `tilebook.matmul`.
"""

from tilebook.hopper import (
    automatic,
    cooperative,
    folded,
    made,
    pingpong,
    pipelined,
    remainder,
    widths,
)
from tilebook.hopper.public import matmul
from tilebook.hopper.ways import which

__all__ = [
    "LADDER",
    "automatic",
    "cooperative",
    "folded",
    "made",
    "matmul",
    "pingpong",
    "pipelined",
    "remainder",
    "which",
    "widths",
]

LADDER = (made, automatic, pipelined, cooperative, folded, pingpong)
"""The rungs of `matmul`, in order."""
