"""Eight bits: formats, scales, quantisers, and products whose sums are worth having.

`formats` has the numbers, `scaling` who shares a scale, `quantizing` the quantisers,
which are launched by `groups`, `rows`, `whole` and `both`. The ladder of products, in
order:

* `tiled`: tiles by pointers, any strides; scales at the end or by blocks.
* `described`: descriptors, and programs that stay.
* `few`: few rows, sides swapped, the terms of a sum shared out.
* `cooperative`: a warp that only loads, two groups that only multiply (Gluon).
* `promoted`: blocks of terms by tensor cores, their sum by float32's addition (Gluon).
* `paired`: the same with two blocks under way in each group (Gluon).
* `carried`: scales by blocks travel with their block through shared memory (Gluon).
* `folded`: a tile is stored while the next one's first products are under way (Gluon).

`accumulation` finds out what tensor cores keep of a sum, `errors` what eight bits cost,
and `mx` multiplies for Blackwell. `scaled_matmul` chooses among the ladder.
"""

from tilebook.fp8 import (
    carried,
    cooperative,
    described,
    few,
    folded,
    paired,
    promoted,
    tiled,
)
from tilebook.fp8.public import scaled_matmul, which
from tilebook.fp8.quantizing import (
    quantize,
    quantize_both,
    quantize_delayed,
    rms_norm_quantize,
    silu_and_mul_quantize,
)
from tilebook.fp8.scaling import Quantized, dequantize

__all__ = [
    "LADDER",
    "Quantized",
    "carried",
    "cooperative",
    "dequantize",
    "described",
    "few",
    "folded",
    "paired",
    "promoted",
    "quantize",
    "quantize_both",
    "quantize_delayed",
    "rms_norm_quantize",
    "scaled_matmul",
    "silu_and_mul_quantize",
    "tiled",
    "which",
]

LADDER = (tiled, described, few, cooperative, promoted, paired, carried, folded)
"""The rungs of `scaled_matmul`, in order."""
