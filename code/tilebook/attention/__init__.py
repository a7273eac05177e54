"""Flash attention: a softmax that goes on between two products.

The ladder, in order; each rung is a module with a kernel, `launch` and a function:

* `materialised`: products, softmax, products; all scores in memory.
* `onepass`: a program keeps a tile of queries and goes through the keys once.
* `causal`: keys that nobody sees are skipped, and a mask is made at the diagonal alone.
* `forward`: the same for any lengths and options.
* `described`: tiles come by the copy engine, in Triton still.
* `cooperative`: a warp that only loads, groups of four that compute (Gluon, Hopper).
* `overlapped`: the next block's scores are made while this one's are weighed.
* `folded`: the end of a tile and the beginning of the next at the same time.

`backward`, `backward_whole` and, for Hopper, `backward_fused` and `backward_wide` have
the gradients, `scores` what all kernels share.
`attention` is the operator; `attention_varlen` takes packed sequences, and
`scaled_dot_product_attention` has the signature of PyTorch's. `ways` chooses among
`folded` and `forward`, and `which` says what serves. `attention_fp8` takes eight bits,
as `eight_operands` rounds them: by `eight`, or by `eight_hopper` (Gluon).
"""

from tilebook.attention import (
    backward,
    backward_fused,
    backward_whole,
    backward_wide,
    causal,
    cooperative,
    described,
    folded,
    forward,
    materialised,
    onepass,
    overlapped,
)
from tilebook.attention.eight_public import attention_fp8
from tilebook.attention.public import (
    attention,
    attention_varlen,
    scaled_dot_product_attention,
    which,
)

__all__ = [
    "LADDER",
    "ON_HOPPER",
    "attention",
    "attention_fp8",
    "attention_varlen",
    "backward",
    "backward_fused",
    "backward_whole",
    "backward_wide",
    "causal",
    "cooperative",
    "described",
    "folded",
    "forward",
    "materialised",
    "onepass",
    "overlapped",
    "scaled_dot_product_attention",
    "which",
]

LADDER = (materialised, onepass, causal, forward)
"""The rungs of `attention`, in order."""
ON_HOPPER = (described, cooperative, overlapped, folded)
"""Where the ladder goes on, forward: rungs that need a Hopper, or its descriptors."""
