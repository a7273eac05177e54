"""Where wrong elements lie, in words (NumPy only)."""

import numpy as np


def extent(bad: np.ndarray) -> str:
    """Where wrong elements lie, in words: "963 to 999", "columns 60 to 63"."""
    if bad.ndim == 0 or not bad.any():
        return ""
    places = [np.unique(axis) for axis in np.nonzero(bad)]
    if np.prod([p.size for p in places]) != bad.sum():
        shown = [_index(i) for i in np.argwhere(bad)[:4]]
        more = ", ..." if bad.sum() > len(shown) else ""
        return ", ".join(shown) + more
    names = {1: [""], 2: ["rows ", "columns "]}.get(bad.ndim)
    names = names or [f"dimension {d}: " for d in range(bad.ndim)]
    parts = [
        name + _run(place)
        for name, place, size in zip(names, places, bad.shape, strict=True)
        if place.size < size or bad.ndim == 1
    ]
    return ", ".join(parts) or "all of them"


def _run(places: np.ndarray) -> str:
    first, last = int(places[0]), int(places[-1])
    if first == last:
        return str(first)
    step = int(places[1]) - first
    if np.array_equal(places, np.arange(first, last + 1, step)):
        every = f", every {ordinal(step)}" if step > 1 else ""
        return f"{first} to {last}{every}"
    return ", ".join(str(int(p)) for p in places[:4]) + ", ..."


def _index(index: np.ndarray) -> str:
    inside = ", ".join(str(int(i)) for i in index)
    return inside if len(index) == 1 else f"({inside})"


def ordinal(number: int) -> str:
    """English ordinal of a small number: second, third, 4th."""
    return {2: "second", 3: "third"}.get(number, f"{number}th")
