"""Planted bugs of eight bits: of quantisers and of products, each with who finds it.

They are used as those of `tilebook.parallel.bugs` are.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tilebook.fp8.bugs.products import (
    LONG_SUM,
    PADDED_SCALES,
    ROWS_OF_B,
    TILES_SCALE,
)
from tilebook.fp8.bugs.quantizers import LOST_NAN, RAGGED_MAXIMUM, ZERO_GROUP
from tilebook.fp8.bugs.scales import CLIPPED_MAXIMUM, OTHER_FORMAT, POWER_BELOW
from tilebook.parallel.bugs import Bug

__all__ = ["GALLERY", "Bug"]

_BUGS = (
    *(RAGGED_MAXIMUM, ZERO_GROUP, LOST_NAN, CLIPPED_MAXIMUM, OTHER_FORMAT, POWER_BELOW),
    *(TILES_SCALE, PADDED_SCALES, LONG_SUM, ROWS_OF_B),
)

GALLERY: Mapping[str, Bug] = MappingProxyType({bug.name: bug for bug in _BUGS})
"""The chapter's bugs by name."""
