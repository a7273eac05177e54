"""How many sectors a launch makes the memory hand out, counted from its addresses."""

from typing import NamedTuple

import numpy as np

from tilebook import check
from tilebook.memory.strides import SECTOR
from tilebook.microscope import Look

WARP = 32
"""Threads that access memory with one instruction, hence together."""


class Traffic(NamedTuple):
    """What a launch touched of one tensor."""

    sectors: int
    """Of 32 bytes, handed out to groups of neighbouring lanes."""
    least: int
    """Sectors that each group's bytes would fill without a gap."""

    @property
    def share(self) -> float:
        """Useful bytes among those handed out, at most."""
        return self.least / self.sectors if self.sectors else 1.0


def traffic(look: Look, argument: str, *, lanes: int = WARP) -> Traffic:
    """Count the sectors that a launch's accesses to a tensor need.

    Args:
        look: what the microscope saw.
        argument: the kernel's parameter.
        lanes: neighbours whose accesses count as one, in the order of the tile's
            elements, row after row; masked-off ones touch nothing.

    Returns:
        The sectors, a sector counted once for each group that needs it.

    Raises:
        TypeError: `lanes` isn't an integer.
        ValueError: the kernel has no such tensor, or `lanes` isn't positive.

    Notes:
        Which thread holds which lane is the compiler's choice. Groups of neighbours
        are what it tries for: the order of a tile's elements in memory, if the tile's
        last dimension is the contiguous one.
    """
    if argument not in look.arguments:
        have = ", ".join(look.arguments)
        raise ValueError(f"{look.kernel} has no tensor {argument!r}, only {have}")
    check.positive_int(lanes, "lanes")
    sectors = least = 0
    for access in look.accesses:
        if access.argument != argument:
            continue
        # From the sector in which the tensor begins, wherever it does in there.
        offsets = np.ravel(access.offsets) + access.address % SECTOR
        mask = np.ravel(access.mask)
        for start in range(0, offsets.size, lanes):
            on = offsets[start : start + lanes][mask[start : start + lanes]]
            nbytes = np.unique(on[:, None] + np.arange(access.width))
            sectors += np.unique(nbytes // SECTOR).size
            least += -(-nbytes.size // SECTOR)
    return Traffic(sectors, least)
