"""A gallery of planted bugs: small kernels that pass a test and are wrong.

Each has the form in which it is met in the wild, and a tool that finds it:

    from tilebook.parallel import bugs
    bug = bugs.GALLERY["padding"]
    print(bug.show())       # the wrong kernel and its launch
    bug.naive()             # True: the usual test lets it pass
    print(bug.reproduce())  # what a user sees
    print(bug.detect())     # what the tool says
    print(bug.diff())       # the mend
"""

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from tilebook.parallel.bugs.bounds import (
    FLOOR_GRID,
    INT32_OFFSET,
    NO_MASK,
    OFF_BY_ONE,
    PADDING,
)
from tilebook.parallel.bugs.bug import Bug, Case, Launch, Tool
from tilebook.parallel.bugs.sharing import (
    IN_PLACE_NEIGHBOUR,
    LOST_UPDATE,
    MOVED_BACK,
    PACKED_NEIGHBOUR,
    THREAD_INDEX,
)
from tilebook.parallel.bugs.values import (
    BORN_IN_A_BRANCH,
    BYTE_SUM,
    IGNORED_STRIDES,
    RAGGED_BLOCK,
    SWALLOWED_NAN,
)

__all__ = ["GALLERY", "Bug", "Case", "Launch", "Tool", "table"]

_BUGS = (
    FLOOR_GRID,
    NO_MASK,
    OFF_BY_ONE,
    PADDING,
    INT32_OFFSET,
    THREAD_INDEX,
    MOVED_BACK,
    LOST_UPDATE,
    IN_PLACE_NEIGHBOUR,
    PACKED_NEIGHBOUR,
    BYTE_SUM,
    SWALLOWED_NAN,
    IGNORED_STRIDES,
    RAGGED_BLOCK,
    BORN_IN_A_BRANCH,
)

GALLERY: Mapping[str, Bug] = MappingProxyType({bug.name: bug for bug in _BUGS})


def table() -> pd.DataFrame:
    """The gallery at a glance.

    Returns:
        One row per bug, indexed by name: title, symptom and tool.
    """
    rows = [(b.name, b.title, b.symptom, b.tool.name) for b in _BUGS]
    frame = pd.DataFrame(rows, columns=["name", "title", "symptom", "tool"])
    return frame.set_index("name")
