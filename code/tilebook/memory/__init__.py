"""Where the bytes are: `copy`, from one element a thread to the copy engine.

The ladder, in order; each rung is a module with `copy_kernel` and `copy`:

* `narrow`: one element for each thread.
* `wide`: one load of 16 bytes for each thread.
* `deep`: several such loads on their way at a time.
* `persistent`: as many programs as fit, each loading ahead.
* `hinted`: hints for the caches.
* `engine`: Hopper's copy engine, through shared memory (Gluon).
* `capped`: no more threads at a time than keep the memory busy.

`copy` is for use: any strides, any dtype, `out=`, a gradient, `torch.compile`. The
kernels that ask the memory questions are in `streams`, `strides`, `sweep`, `chase`,
`contention` and `intensity`.
"""

from tilebook.memory import (
    capped,
    deep,
    engine,
    hinted,
    narrow,
    persistent,
    wide,
)
from tilebook.memory.public import copy

__all__ = [
    "LADDER",
    "capped",
    "copy",
    "deep",
    "engine",
    "hinted",
    "narrow",
    "persistent",
    "wide",
]

LADDER = (narrow, wide, deep, persistent, hinted, engine, capped)
"""The rungs of `copy`, in order."""
