"""Somebody else's work as data: what every entry of a list has to have.

Nothing here knows Sphinx. `catalogue` and `rivals` say what else theirs have.
"""

import datetime
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

T = TypeVar("T")

# How an entry was read -> what that means.
READINGS = {
    "repository": "its source or text, in a stored copy of its repository",
    "page": "a stored copy of the page",
    "companion": "what goes with it: a notebook, a repository, an agenda",
    "abstract": "the abstract alone",
    "title": "no more than its title and what others say of it",
}
# Type of a field -> what it is called, whether a value of the file is one.
PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    int | None: ("a year", lambda value: isinstance(value, int)),
    list[str]: (
        "a list of names",
        lambda value: (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ),
    ),
    datetime.date: ("a date", lambda value: type(value) is datetime.date),
}

IDENTIFIER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


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


@dataclass(frozen=True, kw_only=True)
class Work:
    """One work of somebody else's.

    Attributes:
        id: its name in addresses.
        group: the heading that it stands under.
        title: as its authors have it.
        address: where it is.
        kind: what kind of work it is.
        what: what it is, in two or three sentences.
        read: how it was read.
        errors: the errors found.
        looked: the day of the look.
        authors: who made it, where known.
        year: when, where known.
        note: what else to know.
    """

    id: str
    group: str
    title: str
    address: str
    kind: str
    what: str
    read: Reading
    errors: list[Fault]
    looked: datetime.date
    authors: str = ""
    year: int | None = None
    note: str = ""


def wants(condition: object, where: str, said: str) -> None:
    """Raise a ValueError unless a condition holds; ``where`` names the entry."""
    if not condition:
        raise ValueError(f"{where}: {said}")


def shaped(kind: type, data: Any, where: str) -> dict[str, Any]:
    """Return a mapping that has a class's fields, all without a default, and no others.

    Raises:
        ValueError: it isn't a mapping, lacks a field, has one too many or one of
            another type.
    """
    wants(isinstance(data, dict), where, f"wants a mapping, got {data!r}")
    names = {item.name for item in fields(kind)}
    needed = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }
    missing, extra = sorted(needed - data.keys()), sorted(data.keys() - names)
    wants(not missing, where, f"lacks {', '.join(missing)}")
    wants(not extra, where, f"has unknown {', '.join(map(str, extra))}")
    for name, value in data.items():
        empty = isinstance(value, str) and not value.strip()
        wants(value is not None and not empty, where, f"{name} is empty")
    for item in fields(kind):
        if item.type in PLAIN and item.name in data:
            (said, fits), value = PLAIN[item.type], data[item.name]
            wants(fits(value), where, f"{item.name} wants {said}, got {value!r}")
    return data


def address_of(text: Any, where: str) -> str:
    """Return an address, or raise a ValueError that names the entry."""
    good = isinstance(text, str) and urlsplit(text).scheme in ("http", "https")
    wants(good and urlsplit(text).netloc, where, f"{text!r} is no address")
    return str(text)


def reading_of(data: Any, where: str) -> Reading:
    """Return how an entry was read, or raise a ValueError that names the entry."""
    read = Reading(**shaped(Reading, data, f"{where}, read"))
    known = ", ".join(READINGS)
    wants(read.how in READINGS, where, f"read.how {read.how!r} is none of {known}")
    return read


def faults_of(data: Any, where: str) -> list[Fault]:
    """Return the errors of an entry, or raise a ValueError that names the entry."""
    wants(isinstance(data, list), where, "errors wants a list")
    return [Fault(**shaped(Fault, item, f"{where}, errors")) for item in data]


def work_of(made: type[Work], data: Any, **choices: Collection[str]) -> dict[str, Any]:
    """Read what every work has; the rest is only of the right type.

    Args:
        made: the class of work.
        data: what the file has of it.
        choices: field -> what it may be.

    Returns:
        The fields of the class, for its constructor.

    Raises:
        ValueError: a field is missing, unknown or not what it may be; the message names
            the work.
    """
    where = str(data.get("id", data)) if isinstance(data, dict) else repr(data)
    data = dict(shaped(made, data, where))
    for name, allowed in choices.items():
        known = ", ".join(sorted(allowed))
        value = data[name]
        wants(value in allowed, where, f"{name} {value!r} is none of {known}")
    wants(IDENTIFIER.fullmatch(data["id"]), where, "id wants a-z, 0-9 and hyphens")
    address_of(data["address"], where)
    data["read"] = reading_of(data["read"], where)
    data["errors"] = faults_of(data["errors"], where)
    return data


def on_path(stems: Collection[str], path: Collection[str], where: str) -> None:
    """Raise a ValueError if a chapter is not in the learning path."""
    for stem in stems:
        wants(stem in path, where, f"{stem!r} is not in the learning path")


def distinct(works: list[Any], *names: str) -> None:
    """Raise a ValueError if two works have one id or one address."""
    for name in names:
        count = Counter(getattr(work, name) for work in works)
        twice = [value for value, times in count.items() if times > 1]
        wants(not twice, ", ".join(twice), f"two entries have this {name}")


def loaded(path: Path, made: Callable[[Any], T]) -> T:
    """Return what is made of a file's data; each ValueError names the file."""
    try:
        return made(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
