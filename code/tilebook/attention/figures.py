"""The chapter's pictures: which blocks of scores a mask leaves."""

import numpy as np
from matplotlib.colors import ListedColormap

from tilebook.measure.palette import Drawing, style
from tilebook.parallel.figures import FILLS, Picture

LENGTH, TALL, WIDE = 1024, 128, 64
"""Positions, and queries and keys of a block of scores."""
DRAWN = {
    "causal": (LENGTH, 0, 0),
    "window of 256": (256, 0, 0),
    "causal, last positions meet": (LENGTH, 0, 256),
}
"""Keys before a query's own and after it, and how many more of them there are."""
KINDS = ("left out", "with a mask", "without one")


def kinds(left: int, right: int, shift: int) -> np.ndarray:
    """Say of each block of scores how much of it counts.

    Args:
        left: keys before a query's own that it sees.
        right: keys after it.
        shift: keys that there are more than queries, before the first one's own.

    Returns:
        (tiles of queries, blocks of keys): an index into `KINDS`.
    """
    i = np.arange(LENGTH)[:, None] + shift
    j = np.arange(LENGTH + shift)[None, :]
    seen = (j >= i - left) & (j <= i + right)
    blocks = seen.reshape(LENGTH // TALL, TALL, -1, WIDE)
    return blocks.any((1, 3)).astype(int) + blocks.all((1, 3))


def blocks() -> Picture:
    """Draw which blocks are computed, by mask."""
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 2.6))
        panels = figure.subplots(1, len(DRAWN))
        for axes, (name, ends) in zip(panels, DRAWN.items(), strict=True):
            found = kinds(*ends)
            colours = ListedColormap(("#ffffff", FILLS[1], FILLS[0]))
            down, across = found.shape
            axes.pcolormesh(
                np.arange(across + 1), np.arange(down + 1), found, cmap=colours,
                vmin=0, vmax=2, edgecolors="#808080", linewidth=0.4,
            )  # fmt: skip
            axes.invert_yaxis()
            axes.set(xticks=[], yticks=[], xlabel="keys", title=name)
            counts = np.bincount(found.ravel(), minlength=3)
            each = ", ".join(
                f"{count} {kind}" for kind, count in zip(KINDS, counts, strict=True)
            )
            told.append(f"{name}: {each}")
        panels[0].set_ylabel("queries")
    alt = (
        "Three grids of blocks, tiles of queries downwards and blocks of keys across, "
        "in three colours for those left out, computed with a mask and without. "
        + "; ".join(told)
    )
    return Picture(figure, f"{alt}.")
