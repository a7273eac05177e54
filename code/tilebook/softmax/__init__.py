"""Softmax: until memory is the limit.

The ladder, in order; each rung is a module with kernels and `softmax`:

* `naive`: PyTorch step by step, every step through memory.
* `fused`: a row per program, read once and written once.
* `several`: several short rows per program.
* `persistent`: as many programs as fit; each asks for its next row ahead.
* `ragged`: rows that start anywhere, 16 bytes at a time all the same.
* `online`: rows of any length in two passes, the second back to front.
* `split`: a few very long rows, each shared out among programs.
* `resident`: the row in shared memory, brought by the copy engine (Gluon, Hopper).
* `cooperative`: a long row in the registers of programs that wait for one another.

Beside it stand `columns`, over a dimension that isn't the last, `masked`, and the
gradients: `backward`, `backward_long`, `backward_cooperative` and `backward_columns`.
`softmax` and `log_softmax` choose among all of them: any shape and strides, masks,
`torch.compile`.
"""

from tilebook.softmax import (
    backward,
    backward_columns,
    backward_cooperative,
    backward_long,
    columns,
    cooperative,
    fused,
    masked,
    naive,
    online,
    persistent,
    ragged,
    resident,
    several,
    split,
)
from tilebook.softmax.public import log_softmax, softmax

__all__ = [
    "LADDER",
    "backward",
    "backward_columns",
    "backward_cooperative",
    "backward_long",
    "columns",
    "cooperative",
    "fused",
    "log_softmax",
    "masked",
    "naive",
    "online",
    "persistent",
    "ragged",
    "resident",
    "several",
    "softmax",
    "split",
]

LADDER = (
    *(naive, fused, several, persistent, ragged, online, split, resident),
    cooperative,
)
"""The rungs of `softmax`, in order."""
