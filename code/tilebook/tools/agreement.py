"""Whether programs that race leave the same bytes behind, whoever comes last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilebook.microscope import Access, Race


def same_bytes(accesses: Sequence[Access], race: Race) -> bool:
    """Compare all that is stored into a race's elements, byte by byte.

    Args:
        accesses: of the launch.
        race: one of its races between stores.

    Returns:
        True where each byte is given one value only, through whichever parameter and
        pointer type.
    """
    first = next(a for a in accesses if a.argument == race.arguments[0])
    fought = first.address + race.elements * first.itemsize
    fought = _spread(fought, first.itemsize).ravel()
    addresses, given = [], []
    for access in accesses:
        if access.op != "store":
            continue
        at = _spread(access.address + access.offsets[access.mask], access.width)
        here = np.isin(at, fought)
        addresses.append(at[here])
        given.append(_bytes(access)[here])
    where, what = np.concatenate(addresses), np.concatenate(given)
    order = np.lexsort((what, where))
    where, what = where[order], what[order]
    again = where[1:] == where[:-1]
    return bool((what[1:] == what[:-1])[again].all())


def _spread(starts: np.ndarray, width: int) -> np.ndarray:
    return starts[:, None] + np.arange(width)


def _bytes(access: Access) -> np.ndarray:
    """What each active lane stores into each of its bytes, as uint64."""
    values = np.ascontiguousarray(access.values[access.mask])
    if values.itemsize == 4 and access.width == 2:
        # An observer is shown bfloat16 as float32, whose upper half it is.
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    if values.itemsize != access.width:
        # A float of 8 bits, widened. Of which kind isn't known: its number stands for
        # it, beyond all bytes, so that it equals none that is stored as an integer.
        numbers = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        return np.repeat(numbers[:, None] + np.uint64(256), access.width, axis=1)
    return values.view(np.uint8).reshape(-1, access.width).astype(np.uint64)
