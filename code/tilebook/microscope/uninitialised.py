"""Find the reads of memory that nobody had written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilebook.interpreter import Access
from tilebook.microscope.arguments import Argument


def find(
    accesses: Sequence[Access], arguments: Mapping[str, Argument]
) -> tuple[Access, ...]:
    """Find the reads of poisoned tensors that come before the bytes are written.

    Args:
        accesses: all of a launch's, in the order they happened.
        arguments: the tensors, with what was undefined before the launch.

    Returns:
        Those reads, their masks narrowed to the lanes with an undefined byte.
    """
    undefined = {
        name: np.repeat(argument.undefined, argument.itemsize)
        for name, argument in arguments.items()
        if argument.undefined is not None
    }
    # Where the kernel ran: a tensor of a GPU is interpreted in a copy.
    addresses = {access.argument: access.address for access in accesses}
    found = []
    for access in accesses:
        state = undefined.get(access.argument)
        if state is not None and access.op != "store":
            mask = access.mask.copy()
            lanes = access.offsets[mask][:, None] + np.arange(access.width)
            mask[mask] = state[lanes].any(axis=1)
            if mask.any():
                found.append(replace(access, mask=mask))
        if access.op != "load":
            # Another parameter may lead to the same memory.
            for name in undefined.keys() & addresses.keys():
                written = access.cells(1, addresses[name])
                inside = (written >= 0) & (written < undefined[name].size)
                undefined[name][written[inside]] = False
    return tuple(found)
