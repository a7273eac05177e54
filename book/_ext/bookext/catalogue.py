"""The curated list's links as data: what an entry has to have, and who covers what.

Nothing here knows Sphinx. `resources` makes the page of it.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bookext.works import (
    Work,
    address_of,
    distinct,
    loaded,
    on_path,
    wants,
    work_of,
)

NAME = "resources.yaml"

# State -> what it means.
STATES = {
    "current": "Nothing was found in it that today's Triton refuses or does otherwise.",
    "stale": "Part of it no longer runs, or describes what has changed since. The note "
    "says against which version.",
    "renamed": "It lives at another address, which is given. The note says how it "
    "stands there.",
    "gone": "It was looked for and is no more.",
    "unread": "It could not be read. The note says what could not.",
}
KINDS = {
    "article",
    "catalogue",
    "community",
    "documentation",
    "notebook",
    "paper",
    "repository",
    "slides",
    "video",
}
# Read after a chapter: three are advice, more are another list.
ADVISED = 3

PUZZLE = re.compile(r"^```\{puzzle\} ([\w-]+)$", re.M)
LABEL = re.compile(r"^\(([a-z0-9-]+)\)=$", re.M)


@dataclass(frozen=True, kw_only=True)
class Entry(Work):
    """One link of the list, which gives its group, title and address.

    Attributes:
        state: one of STATES, of which the note says what that means here.
        covered: labels of this book's sections.
        planned: chapters of the learning path by stem; those that stand become links.
        after: chapter -> why to read the entry after it.
        now: the address to use instead of the list's.
    """

    state: str
    covered: list[str]
    planned: list[str]
    after: dict[str, str]
    now: str = ""


@dataclass(frozen=True)
class Catalogue:
    """The list.

    Attributes:
        title: the list's name.
        address: where it is.
        path: the learning path, stem -> title, in order.
        groups: the list's headings, key -> title, in order.
        entries: the links, in the list's order.
        parts: the path's parts, title -> stem of the first chapter, in order.
    """

    title: str
    address: str
    path: dict[str, str]
    groups: dict[str, str]
    entries: list[Entry] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)

    def of_group(self, group: str) -> list[Entry]:
        """Return the entries under one heading."""
        return [entry for entry in self.entries if entry.group == group]

    def of_state(self, state: str) -> list[Entry]:
        """Return the entries of one state."""
        return [entry for entry in self.entries if entry.state == state]

    def after(self, stem: str) -> list[Entry]:
        """Return the entries to read after a chapter."""
        return [entry for entry in self.entries if stem in entry.after]


def entry_of(data: Any, path: dict[str, str], groups: dict[str, str]) -> Entry:
    """Read one entry.

    Args:
        data: what the file has of it.
        path: the learning path.
        groups: the list's headings.

    Returns:
        The entry.

    Raises:
        ValueError: a field is missing, unknown or not what it may be; the message names
            the entry.
    """
    data = work_of(Entry, data, group=groups, kind=KINDS, state=STATES)
    where = data["id"]
    wants(isinstance(data["after"], dict), where, "after wants a mapping")
    on_path([*data["planned"], *data["after"]], path, where)
    entry = Entry(**data)
    consistent(entry)
    return entry


def consistent(entry: Entry) -> None:
    """Raise a ValueError if an entry contradicts itself."""
    where, state, how = entry.id, entry.state, entry.read.how
    wants(
        entry.note or state == "current",
        where,
        f"is {state}, so it wants a note that says of what",
    )
    wants(entry.now or state != "renamed", where, "is renamed, so it wants now")
    if entry.now:
        wants(address_of(entry.now, where) != entry.address, where, "now is address")
    unread = how == "title"
    wants(state == "unread" or not unread, where, "was not read and has a state")
    whole = how in ("repository", "page")
    wants(state != "unread" or not whole, where, "was read and says unread")
    wants(not unread or not entry.errors, where, "was not read and has errors")
    wants(entry.covered or entry.planned, where, "is covered nowhere")
    for names in (entry.covered, entry.planned):
        wants(len(set(names)) == len(names), where, "names a chapter twice")


def load(path: Path) -> Catalogue:
    """Read the list.

    Args:
        path: the file.

    Returns:
        The list, checked.

    Raises:
        ValueError: the file is damaged, an entry incomplete or a name given twice; the
            message names file and entry.
    """
    return loaded(path, catalogue_of)


def catalogue_of(data: Any) -> Catalogue:
    """Return what the file's data mean, or raise a ValueError that names the fault."""
    has = {"list": dict, "path": dict, "groups": dict, "entries": list}
    for name, kind in has.items():
        good = isinstance(data, dict) and isinstance(data.get(name), kind)
        wants(good, "the file", f"wants {', '.join(has)}; {name} is not a {kind}")
    parts = data.get("parts", {})
    wants(isinstance(parts, dict), "the file", "wants parts as a mapping")
    places = [list(data["path"]).index(x) for x in parts.values() if x in data["path"]]
    ordered = len(places) == len(parts) and places == sorted(set(places))
    wants(ordered, "parts", "wants first chapters from the path, in its order")
    source, path, groups = data["list"], data["path"], data["groups"]
    wants(set(source) == {"title", "address"}, "list", "wants title and address")
    entries = [entry_of(item, path, groups) for item in data["entries"]]
    distinct(entries, "id", "address")
    for stem, times in Counter(x for entry in entries for x in entry.after).items():
        wants(times <= ADVISED, stem, f"{times} entries after it, {ADVISED} at most")
    for group in groups:
        wants(any(entry.group == group for entry in entries), group, "has no entry")
    address = address_of(source["address"], "list")
    return Catalogue(source["title"], address, path, groups, entries, parts)


def sections(source: Path) -> dict[str, str]:
    """Return the labels that chapters declare for their sections, label -> stem.

    Args:
        source: the folder with conf.py; drafts count, whether or not they are shown.
    """
    return {
        label: path.stem
        for path in sorted(source.glob("chapters/*.md"))
        for label in LABEL.findall(path.read_text(encoding="utf-8"))
    }


def puzzles(source: Path) -> dict[str, str]:
    """Return the labels of the puzzles, which are those of their page's fences.

    Args:
        source: the folder with conf.py.
    """
    path = source / "book" / "puzzles.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict.fromkeys(PUZZLE.findall(text), path.stem)
