"""What a way may be made of, for answers that were read from a disk.

A file may be damaged, edited by hand or somebody else's. What no kernel would be raced
with hangs it, breaks it off or gives another product, and is no answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tilebook import device
from tilebook.matmul.fitting import SHARED

Limits = Mapping[str, Sequence[int]]
"""What each field of a configuration may be, by name."""

MOST_PROGRAMS = 4096
"""That share a tile, or a product: more than any GPU runs at a time."""
REGISTERS = 255
"""Of a thread."""
LEAST_COLUMNS = 16
"""Of a piece of a tile."""


def powers(least: int, most: int) -> tuple[int, ...]:
    """The powers of two from one to another.

    Args:
        least: a power of two.
        most: another.
    """
    return tuple(1 << x for x in range(least.bit_length() - 1, most.bit_length()))


LIMITS: Limits = {
    "block_m": powers(16, 256),
    "block_n": powers(16, 256),
    "more": powers(16, 128),
    "block_k": powers(16, 256),
    "num_warps": powers(1, 16),
    "num_stages": range(1, 17),
    "pieces": powers(1, 4),
    "group": range(1, 65),
    "parts": range(1, MOST_PROGRAMS + 1),
    "programs": range(1, MOST_PROGRAMS + 1),
    "flatten": (False, True),
    "longer": (False, True),
    "engine": (False, True),
    # Never raced, for it isn't deterministic.
    "atomic": (False,),
}
"""Of tiles for tensor cores, whatever the kernel."""


def sound(config: Mapping[str, Any], narrower: Limits) -> bool:
    """Whether a kernel may be launched so.

    Args:
        config: the configuration's values by field, of any type.
        narrower: limits of this kernel, in place of those in `LIMITS`; of a field that
            its configuration lacks, what it is instead.

    Returns:
        True if each value is within its limits, columns are enough for their pieces,
        and a tile is neither more than the registers hold, nor its stages more than
        shared memory does, of elements of one byte.
    """
    limits = {**LIMITS, **narrower}
    for name, value in config.items():
        # A flag is a number to Python, and 8.0 is 8.
        if type(value) is not type(limits[name][0]) or value not in limits[name]:
            return False
    columns, more = config.get("block_n", 0), config.get("more", 0)
    cut = columns // config.get("pieces", 1)
    if more > columns or ("pieces" in config and cut < LEAST_COLUMNS):
        return False
    terms = config.get("block_k", limits["block_k"][0])
    rows = config.get("block_m", 0)
    sums = (rows or terms) * (columns + more)
    stages = config["num_stages"] * (rows + columns + more) * terms
    has = device.current().shared_memory_per_block or SHARED
    return sums <= 32 * config.get("num_warps", 8) * REGISTERS and stages <= has
