"""The learning path as data: chapters in order, what each needs first, lines to draw.

A chapter's front matter says ``after: [STEM, ...]``, the chapters that it builds on.
Nothing here knows Sphinx. `route` makes the map of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


def front_matter(path: Path) -> dict[str, Any]:
    """Return what stands between the marks at the top of a page; empty if nothing.

    Raises:
        ValueError: it is no mapping; the message names the file.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    try:
        data = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)])) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: damaged front matter: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: the front matter is no mapping")
    return data


def prerequisites(source: Path, path: Sequence[str]) -> dict[str, list[str]]:
    """Return the chapters that each written chapter builds on.

    Since these come earlier in the path, there is no circle.

    Args:
        source: the folder with conf.py; drafts count, whether or not they are shown.
        path: the stems of the learning path, in order.

    Returns:
        Stem -> stems of what it needs first, for each chapter of the path that is
        written, in the path's order.

    Raises:
        ValueError: a chapter names none that is written and comes before it; the
            message names both.
    """
    found: dict[str, list[str]] = {}
    for stem in path:
        page = source / "chapters" / f"{stem}.md"
        if not page.is_file():
            continue
        after = front_matter(page).get("after", [])
        if not isinstance(after, list) or len(set(map(str, after))) != len(after):
            raise ValueError(f"{stem}: after wants a list of chapters, got {after!r}")
        for name in after:
            if name not in found:
                known = ", ".join(found) or "none"
                raise ValueError(
                    f"{stem}: after names {name!r}; written and earlier: {known}"
                )
        found[stem] = after
    return found


def reduced(after: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Leave out what follows: who needs b, which needs a, needs a in any case.

    Args:
        after: what each chapter needs first, without circles.

    Returns:
        The same with what remains of each.
    """

    def behind(stem: str) -> set[str]:
        """All that a chapter needs, and what that needs."""
        direct = after.get(stem, ())
        return set(direct).union(*map(behind, direct))

    return {
        stem: [x for x in names if not any(x in behind(y) for y in names)]
        for stem, names in after.items()
    }


@dataclass(frozen=True)
class Rails:
    """Lines from chapters down to those that build on them, row by row.

    Attributes:
        lanes: how many stand side by side; lane 0 is that of the dots.
        rows: for each row its pieces, a lane and "from" (from the row's dot down),
            "to" (from above to the dot) or "through".
    """

    lanes: int
    rows: list[list[tuple[int, str]]]


def rails(rows: Sequence[str], after: Mapping[str, Sequence[str]]) -> Rails:
    """Lay the lines of a map that lists chapters from top to bottom.

    A chapter's lines share one lane, the innermost that is free; the line to the very
    next chapter runs from dot to dot.

    Args:
        rows: the chapter in each row; empty where a row has none.
        after: what each chapter needs first; what is in no row is left out.

    Returns:
        The lines.
    """
    at = {stem: row for row, stem in enumerate(rows) if stem}
    spans: list[tuple[int, list[int]]] = []
    pieces: list[list[tuple[int, str]]] = [[] for _ in rows]

    def lay(lane: int, start: int, ends: list[int]) -> None:
        pieces[start].append((lane, "from"))
        for row in range(start + 1, ends[-1] + 1):
            if row < ends[-1]:
                pieces[row].append((lane, "through"))
            if row in ends:
                pieces[row].append((lane, "to"))

    for stem, start in at.items():
        ends = sorted(at[x] for x in at if stem in after.get(x, ()))
        following = next((row for row in at.values() if row > start), None)
        if following in ends:
            lay(0, start, [ends.pop(0)])
        if ends:
            spans.append((start, ends))
    taken: list[list[tuple[int, int]]] = []
    for start, ends in sorted(spans, key=lambda x: (x[1][-1] - x[0], x[0])):
        lane = free_lane(taken, start, ends[-1])
        if lane == len(taken):
            taken.append([])
        taken[lane].append((start, ends[-1]))
        lay(lane + 1, start, ends)
    return Rails(len(taken) + 1, pieces)


def free_lane(taken: Sequence[Sequence[tuple[int, int]]], start: int, end: int) -> int:
    """Return the first lane that has nothing between two rows, these included."""
    for lane, others in enumerate(taken):
        if all(start > last or end < first for first, last in others):
            return lane
    return len(taken)
