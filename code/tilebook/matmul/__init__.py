"""Matrix multiplication up to cuBLAS.

The ladder, in order; each rung is a module with a kernel, `launch` and `matmul`:

* `naive`: an element of the product per lane; each walks its row and its column.
* `outer`: a tile per program, which stays in registers; each term an outer product.
* `tile`: `tl.dot` on tiles of both operands: tensor cores.
* `ordered`: the same tiles in strips, no mask in the loop, loads ahead, epilogues.
* `persistent`: as many programs as multiprocessors; each walks over tiles.
* `described`: tensor descriptors, which Hopper's copy engine follows.

For products of few tiles stand beside it `beside`, whose tiles have widths between the
powers of two, `split`, whose programs share a sum, `streamed`, whose programs share the
last turn, and `vectors`, without tensor cores;
for operands that start anywhere `padded`, for many products of a kind `batched`, for
other precisions `precision`. `matmul` and `linear` choose among all of them, by a race
on the card at hand (`searching`) or by a rule: any shape and strides, gradients,
`torch.compile`.
"""

from tilebook.matmul import (
    batched,
    beside,
    described,
    naive,
    ordered,
    outer,
    padded,
    persistent,
    precision,
    searching,
    split,
    streamed,
    tile,
    vectors,
)
from tilebook.matmul.layers import linear
from tilebook.matmul.public import matmul

__all__ = [
    "LADDER",
    "batched",
    "beside",
    "described",
    "linear",
    "matmul",
    "naive",
    "ordered",
    "outer",
    "padded",
    "persistent",
    "precision",
    "searching",
    "split",
    "streamed",
    "tile",
    "vectors",
]

LADDER = (naive, outer, tile, ordered, persistent, described)
"""The rungs of `matmul`, in order."""
