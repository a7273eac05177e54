"""Which lanes ask for memory together, and how many sectors that takes.

A warp's threads issue a load as one request, and memory answers in sectors of 32 bytes.
Which thread holds which element the compiler decides, by a rule: threads lie along the
dimension whose addresses grow by one element, each with as many neighbours as 16 bytes
hold. Here the rule is applied to addresses that were seen.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tilebook.compiler import kinds
from tilebook.interpreter import Access
from tilebook.tiling import layouts
from tilebook.tools.launched import file_of

SECTOR = 32
"""Bytes that memory hands out at least."""
WIDEST = 16
"""Bytes that one thread loads or stores with one instruction at most."""


class Shape(NamedTuple):
    """How a tile is dealt out to threads: the numbers of a blocked layout."""

    size: tuple[int, ...]
    """Neighbours that a thread holds, along each dimension."""
    lanes: tuple[int, ...]
    warps: tuple[int, ...]
    order: tuple[int, ...]
    """Dimensions, that along which numbers grow first in front."""


Place = tuple[str, int, str, int]
"""Where a tile is touched: file, line, kind of access, and the tile's rank."""


class Requests(NamedTuple):
    """What one access of one program asks of memory."""

    count: int
    """Of requests: instructions of warps with at least one lane that isn't masked."""
    sectors: int
    """Of 32 bytes, handed out to all of them."""
    least: int
    """Sectors that each request's bytes would fill without a gap."""
    vector: int
    """Elements that a thread takes at once."""


def contiguity(offsets: np.ndarray, width: int, axis: int) -> int:
    """Find how many neighbours along an axis lie side by side in memory.

    Args:
        offsets: of a tile's elements, in bytes; sides are powers of two.
        width: bytes of one.
        axis: of the tile.

    Returns:
        The largest power of two such that every aligned run of so many does.
    """
    found = 1
    while 2 * found <= offsets.shape[axis]:
        runs = np.moveaxis(offsets, axis, -1).reshape(-1, 2 * found)
        if not (np.diff(runs, axis=1) == width).all():
            break
        found *= 2
    return found


def blocked(access: Access, num_warps: int, lanes: int = 32) -> Shape:
    """Deal a tile out as Triton's rule for loads and stores would, at best.

    Args:
        access: one load, store or atomic; of a tile, not of a single element.
        num_warps: of the program.
        lanes: threads of a warp.

    Returns:
        The layout's numbers.

    Notes:
        The compiler doesn't see addresses. It has to prove that they lie side
        by side and begin at a multiple; where it can't, a thread takes fewer.
    """
    shape, width = access.offsets.shape, access.width
    axes = range(len(shape))
    runs = [contiguity(access.offsets, width, axis) for axis in axes]
    # The longest run first; of equals the last dimension.
    order = tuple(sorted(axes, key=lambda axis: (-runs[axis], -axis)))
    share = max(1, access.offsets.size // (lanes * num_warps))
    vector = min(runs[order[0]], share, max(1, WIDEST // width))
    first = np.moveaxis(access.offsets, order[0], -1)
    starts = first.reshape(-1, first.shape[-1]) + access.address
    while vector > 1 and (starts[:, ::vector] % (vector * width)).any():
        vector //= 2
    size, threads, warps = ([1] * len(shape) for _ in range(3))
    size[order[0]] = vector
    left, others = lanes, num_warps
    for axis in order:
        room = shape[axis] // size[axis]
        threads[axis] = min(left, max(1, room))
        warps[axis] = min(others, max(1, room // threads[axis]))
        left, others = left // threads[axis], others // warps[axis]
    # Who is left over holds copies.
    threads[order[-1]] *= left
    warps[order[-1]] *= others
    return Shape(tuple(size), tuple(threads), tuple(warps), order)


@functools.lru_cache(maxsize=512)
def groups(how: Shape, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Say by which request, and by which lane, each element of a tile is asked for.

    Args:
        how: the layout's numbers.
        shape: of the tile.

    Returns:
        Two int64 arrays of the tile's shape: numbers of requests, which grow with the
        instruction and then with the warp, and lanes.
    """
    layout = kinds.blocked(*how, shape)
    together = layout.owners("register") // max(how.size)
    numbers = together * int(np.prod(how.warps)) + layout.owners("warp")
    return numbers, layout.owners("lane")


def requests(
    access: Access, num_warps: int, lanes: int = 32, how: Shape | None = None
) -> Requests:
    """Count what one access asks of memory.

    Args:
        access: one load, store or atomic.
        num_warps: of the program.
        lanes: threads of a warp.
        how: the layout, if it is known; `blocked` of the access by default.

    Returns:
        Requests, sectors and the least number of these.

    Notes:
        Threads that hold copies of others' elements ask for nothing here. Caches aren't
        modelled: a sector counts once for each request.
    """
    offsets, mask = access.offsets, access.mask
    if offsets.ndim == 0 or offsets.size == 1:
        numbers, vector = np.zeros(offsets.shape, np.int64), 1
    else:
        how = how or blocked(access, num_warps, lanes)
        (numbers, _), vector = groups(how, offsets.shape), max(how.size)
    group = numbers[mask]
    if not group.size:
        return Requests(0, 0, 0, vector)
    start = offsets[mask] + access.address
    reach = np.arange(access.width)
    # A request's bytes, each once, in numbers that tell requests apart.
    low = int(start.min()) // SECTOR * SECTOR
    span = int(start.max()) + access.width - low
    span += -span % SECTOR
    every = np.unique((group[:, None] * span + start[:, None] - low + reach).ravel())
    whose, bytes_of_it = np.unique(every // span, return_counts=True)
    return Requests(
        count=whose.size,
        sectors=np.unique(every // SECTOR).size,
        least=int((-(-bytes_of_it // SECTOR)).sum()),
        vector=vector,
    )


_OPS = {"load": r"tt\.load|ttg\.async_copy_global_to_local", "store": r"tt\.store"}
_OPS["atomic"] = r"tt\.atomic_rmw"
_POINTERS = re.compile(r"tensor<[\dx]*x!tt\.ptr<\w+>, (#[\w.]+(?:<\{[^}]*\}>)?)>")


def compiled(ttgir: str) -> Mapping[Place, Shape]:
    """Read the layouts with which a compiled kernel touches memory.

    Args:
        ttgir: of the kernel.

    Returns:
        For each line of a file, kind of access ("load", "store", "atomic") and rank of
        the tile its layout's numbers, where it is a blocked one, or one of its sides.
    """
    known = {name: Shape(*it) for name, it in layouts.blocked(ttgir).items()}
    places = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", ttgir, re.M))
    found = {}
    for line in ttgir.splitlines():
        for op, names in _OPS.items():
            pointers = _POINTERS.search(line)
            place = re.search(r"loc\((#loc\d*)\)$", line)
            if re.search(rf"(?:= |^\s*)(?:{names}) ", line) and pointers and place:
                how = _spelled(pointers[1], known)
                at = _line(place[1], places)
                if how is not None and at is not None:
                    found[*at, op, len(how.size)] = how
    return found


def _spelled(text: str, known: Mapping[str, Shape]) -> Shape | None:
    if side := re.match(r"#ttg\.slice<\{dim = (\d), parent = (#\w+)\}>", text):
        parent = known.get(side[2])
        return parent and _side(parent, int(side[1]))
    return known.get(text)


def _side(parent: Shape, axis: int) -> Shape:
    """Leave out a dimension of a layout: threads along it hold the same."""
    size, threads, warps = (
        tuple(n for i, n in enumerate(each) if i != axis) for each in parent[:3]
    )
    order = tuple(i - (i > axis) for i in parent.order if i != axis)
    return Shape(size, threads, warps, order)


def _line(place: str, places: Mapping[str, str]) -> tuple[str, int] | None:
    """Follow a location to its line; of a helper's call to the line in the helper."""
    text = places.get(place, "")
    if at := re.match(r'"(.*)":(\d+):\d+', text):
        return file_of(at[1]), int(at[2])
    inner = re.search(r"#loc\d*", text)
    return _line(inner[0], places) if inner else None
