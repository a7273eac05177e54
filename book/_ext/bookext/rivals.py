"""The page of other books and courses: what they have, and where this book has it.

``{rivals} PART`` makes one part of the page from ``rivals.yaml``: the counts, what is
left out and why, or the entries under their headings.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx

from bookext.places import (
    Line,
    Mapped,
    again,
    joined,
    paragraph,
    strong,
    terms,
)
from bookext.verification import Cell, table
from bookext.works import Work, distinct, loaded, on_path, shaped, wants, work_of

NAME = "rivals.yaml"
KINDS = {
    "benchmark",
    "book",
    "collection",
    "course",
    "notebooks",
    "practice",
    "puzzles",
    "scripts",
}


@dataclass(frozen=True)
class Topic:
    """Something that a work teaches: covered or planned here, or left out.

    Attributes:
        topic: what it is.
        covered: labels of this book's sections.
        planned: chapters of the learning path by stem; those that stand become links.
        why: the reason why this book leaves it out.
    """

    topic: str
    covered: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Rival(Work):
    """A book, a course or a place to practise.

    Attributes:
        better: what it does better than this book.
        topics: what it teaches.
    """

    better: str
    topics: list[Topic]


@dataclass(frozen=True)
class Rivals:
    """All of them.

    Attributes:
        groups: headings, key -> title, in order.
        entries: the works, under each heading in the alphabet's order.
    """

    groups: dict[str, str]
    entries: list[Rival]


def topic_of(data: Any, where: str) -> Topic:
    """Read one topic, or raise a ValueError that names the work."""
    topic = Topic(**shaped(Topic, data, f"{where}, topics"))
    where = f"{where}, {topic.topic}"
    here = topic.covered + topic.planned
    wants(here or topic.why, where, "is neither covered nor planned, nor says why")
    wants(not (here and topic.why), where, "is covered or planned and says why not")
    wants(len(set(here)) == len(here), where, "names a section or chapter twice")
    return topic


def rivals_of(data: Any) -> Rivals:
    """Return what the file's data mean.

    Raises:
        ValueError: a work is incomplete or in the wrong place, or a topic has neither a
            place here nor a reason; the message names both.
    """
    for name, kind in {"groups": dict, "entries": list}.items():
        good = isinstance(data, dict) and isinstance(data.get(name), kind)
        wants(good, "the file", f"wants groups, entries; {name} is not a {kind}")
    groups, entries = data["groups"], []
    for item in data["entries"]:
        found = work_of(Rival, item, group=groups, kind=KINDS)
        wants(isinstance(found["topics"], list), found["id"], "topics wants a list")
        wants(found["topics"], found["id"], "has no topic")
        found["topics"] = [topic_of(x, found["id"]) for x in found["topics"]]
        names = [topic.topic for topic in found["topics"]]
        wants(len(set(names)) == len(names), found["id"], "has a topic twice")
        entries.append(Rival(**found))
    distinct(entries, "id", "address")
    order = [(list(groups).index(x.group), x.id) for x in entries]
    for last, this in pairwise(order):
        wants(last < this, this[1], "does not stand in the alphabet's order")
    for group in groups:
        wants(any(entry.group == group for entry in entries), group, "has no entry")
    return Rivals(groups, entries)


def load(path: Path) -> Rivals:
    """Read the file; each ValueError names it."""
    return loaded(path, rivals_of)


def check(rivals: Rivals, path: Collection[str]) -> None:
    """Raise a ValueError if a planned chapter is not in the learning path."""
    for entry in rivals.entries:
        for topic in entry.topics:
            on_path(topic.planned, path, f"{entry.id}, {topic.topic}")


class Elsewhere(Mapped):
    """``{rivals} counts``, ``left-out`` or ``entries``."""

    parts: ClassVar[dict[str, str]] = {
        "counts": "counts",
        "left-out": "left_out",
        "entries": "entries",
    }

    def read(self) -> None:
        """Read the works, and where the book has their topics."""
        self.rivals = self.data(NAME, load)
        check(self.rivals, self.path)
        self.places = {
            (entry.id, topic.topic): self.covers(
                f"{entry.id}, {topic.topic}", topic.covered, topic.planned
            )
            for entry in self.rivals.entries
            for topic in entry.topics
        }

    def standing(self, entry: Rival, topic: Topic) -> str:
        """Return whether a topic is here, planned or left out."""
        if topic.why:
            return "left out"
        shown = any(self.page(x) for x in self.places[entry.id, topic.topic])
        return "here" if shown else "planned"

    def counts(self) -> list[nodes.Node]:
        """How many topics there are, and how far the book has them."""
        states = ("here", "planned", "left out")
        rows: list[tuple[str, list[Cell]]] = []
        every: list[str] = []
        for key, title in self.rivals.groups.items():
            of_group = [x for x in self.rivals.entries if x.group == key]
            found = [self.standing(x, topic) for x in of_group for topic in x.topics]
            every += found
            counts = [f"{found.count(state)}" for state in states]
            links = joined([[self.to(x)] for x in of_group], "; ")
            rows.append(("", [title, self.cell(links), *counts]))
        sums = [f"{every.count(state)}" for state in states]
        rows.append(("", ["All", f"{len(self.rivals.entries)}", *sums]))
        return [table(["", "Works", "Topics here", "Planned", "Left out"], rows)]

    def left_out(self) -> list[nodes.Node]:
        """What the book has no place for, by reason."""
        reasons: dict[str, list[Line]] = {}
        for entry in self.rivals.entries:
            for topic in entry.topics:
                if topic.why:
                    said = [*self.inline(topic.topic), nodes.Text(" (")]
                    said.append(self.to(entry))
                    reasons.setdefault(topic.why, []).append([*said, nodes.Text(")")])
        rows: list[tuple[Line, list[nodes.Node]]] = [
            (self.sentence(why), [paragraph(*joined(topics, "; "))])
            for why, topics in sorted(reasons.items())
        ]
        return [terms(rows)]

    def to(self, entry: Rival) -> nodes.reference:
        """Return a link to a work's entry."""
        return nodes.reference("", entry.title, refid=anchor(entry), internal=True)

    def sentence(self, why: str) -> Line:
        """Return a reason as a sentence."""
        return [*self.inline(f"{why[0].upper()}{why[1:]}"), nodes.Text(".")]

    def entries(self) -> list[nodes.Node]:
        """Every work, under its heading."""
        result: list[nodes.Node] = []
        for key, title in self.rivals.groups.items():
            section = nodes.section(ids=[f"elsewhere-{key}"])
            section += nodes.title(title, title)
            section += [self.entry(x) for x in self.rivals.entries if x.group == key]
            result.append(section)
        return result

    def entry(self, entry: Rival) -> nodes.container:
        """One work, with a label of its own."""
        holder = self.box(entry, anchor(entry))
        holder += paragraph(strong("Better there:"), " ", *self.inline(entry.better))
        if entry.note:
            holder += paragraph(*self.inline(entry.note))
        if entry.errors:
            holder += paragraph(f"Found in the version read on {entry.looked}:")
            holder += self.faults(entry)
        rows: list[tuple[str, list[Cell]]] = [
            ("", [self.cell(self.inline(x.topic)), self.cell(self.place(entry, x))])
            for x in entry.topics
        ]
        holder += table(["Its topics", "Here"], rows)
        return holder

    def place(self, entry: Rival, topic: Topic) -> Line:
        """Return where the book has a topic, or why it hasn't."""
        if topic.why:
            return self.inline(f"Left out: {topic.why}.")
        return self.line(self.places[entry.id, topic.topic], "", "Planned:")

    def cell(self, line: Line) -> nodes.inline:
        """Return a table's cell."""
        return nodes.inline("", "", *line)


def anchor(entry: Rival) -> str:
    """Return the id and label of a work."""
    return f"elsewhere-{entry.id}"


def setup(app: Sphinx) -> None:
    """Register the directive and the hook."""
    app.add_directive("rivals", Elsewhere)
    app.connect("env-get-outdated", again("book/elsewhere"))
