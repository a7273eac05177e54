"""The curated list's links as data: what an entry has to have, and who covers what.

Nothing here knows Sphinx. `resources` makes the page of it.
"""

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

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
# How an entry was read -> what that means.
READINGS = {
    "repository": "its source or text, in a stored copy of its repository",
    "page": "a stored copy of the page",
    "companion": "what goes with it: a notebook, a repository, an agenda",
    "abstract": "the abstract alone",
    "title": "no more than its title and what others say of it",
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

IDENTIFIER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LABEL = re.compile(r"^\(([a-z0-9-]+)\)=$", re.M)


@dataclass(frozen=True)
class Fault:
    """One error of a resource.

    Attributes:
        wrong: what it says or does.
        right: what holds instead.
    """

    wrong: str
    right: str


@dataclass(frozen=True)
class Reading:
    """How an entry was read.

    Attributes:
        how: one of READINGS.
        what: which copy, commit or part.
    """

    how: str
    what: str


@dataclass(frozen=True)
class Entry:
    """One link of the list.

    Attributes:
        id: its name in addresses.
        group: the heading of the list that it stands under.
        title: as the list or its authors have it.
        address: as the list has it.
        kind: one of KINDS.
        what: what it is, in two or three sentences.
        state: one of STATES.
        read: how it was read.
        errors: the errors found.
        covered: labels of this book's sections.
        planned: chapters of the learning path by stem; those that stand become links.
        after: chapter -> why to read the entry after it.
        looked: the day of the look.
        authors: who made it, where known.
        year: when, where known.
        note: what the state means here.
        now: the address to use instead of the list's.
    """

    id: str
    group: str
    title: str
    address: str
    kind: str
    what: str
    state: str
    read: Reading
    errors: list[Fault]
    covered: list[str]
    planned: list[str]
    after: dict[str, str]
    looked: datetime.date
    authors: str = ""
    year: int | None = None
    note: str = ""
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


def wants(condition: object, where: str, said: str) -> None:
    """Raise a ValueError unless a condition holds; ``where`` names the entry."""
    if not condition:
        raise ValueError(f"{where}: {said}")


def shaped(kind: type, data: Any, where: str) -> dict[str, Any]:
    """Return a mapping that has all of a class's fields and no others.

    Raises:
        ValueError: it isn't a mapping, lacks a field or has one too many.
    """
    wants(isinstance(data, dict), where, f"wants a mapping, got {data!r}")
    names = {item.name for item in fields(kind)}
    optional = {"authors", "year", "note", "now"} if kind is Entry else set()
    missing, extra = sorted(names - optional - data.keys()), sorted(data.keys() - names)
    wants(not missing, where, f"lacks {', '.join(missing)}")
    wants(not extra, where, f"has unknown {', '.join(map(str, extra))}")
    for name, value in data.items():
        empty = isinstance(value, str) and not value.strip()
        wants(value is not None and not empty, where, f"{name} is empty")
    return data


def address_of(text: Any, where: str) -> str:
    """Return an address, or raise a ValueError that names the entry."""
    good = isinstance(text, str) and urlsplit(text).scheme in ("http", "https")
    wants(good and urlsplit(text).netloc, where, f"{text!r} is no address")
    return str(text)


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
    where = str(data.get("id", data)) if isinstance(data, dict) else repr(data)
    data = dict(shaped(Entry, data, where))
    for name, kind in Entry.__annotations__.items():
        plain = {str: "text", int | None: "a year", list[str]: "a list of names"}
        if kind not in plain or name not in data:
            continue
        value = data[name]
        fits = {
            str: isinstance(value, str),
            int | None: isinstance(value, int),
            list[str]: isinstance(value, list)
            and all(isinstance(item, str) for item in value),
        }[kind]
        wants(fits, where, f"{name} wants {plain[kind]}, got {value!r}")
    for name, allowed in (("group", groups), ("kind", KINDS), ("state", STATES)):
        known = ", ".join(sorted(allowed))
        value = data[name]
        wants(value in allowed, where, f"{name} {value!r} is none of {known}")
    wants(IDENTIFIER.fullmatch(data["id"]), where, "id wants a-z, 0-9 and hyphens")
    address_of(data["address"], where)
    read = Reading(**shaped(Reading, data["read"], f"{where}, read"))
    known = ", ".join(READINGS)
    wants(read.how in READINGS, where, f"read.how {read.how!r} is none of {known}")
    wants(isinstance(data["errors"], list), where, "errors wants a list")
    errors = [Fault(**shaped(Fault, x, f"{where}, errors")) for x in data["errors"]]
    wants(isinstance(data["after"], dict), where, "after wants a mapping")
    for stem in [*data["planned"], *data["after"]]:
        wants(stem in path, where, f"{stem!r} is not in the learning path")
    date = data["looked"]
    wants(type(date) is datetime.date, where, f"looked wants a date, got {date!r}")
    entry = Entry(**data | {"read": read, "errors": errors})
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
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    try:
        return catalogue_of(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


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
    for name in ("id", "address"):
        count = Counter(getattr(entry, name) for entry in entries)
        twice = [value for value, times in count.items() if times > 1]
        wants(not twice, ", ".join(twice), f"two entries have this {name}")
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
