"""The curated list's page: every link, what it is worth today, who covers it here.

``{resources} PART`` makes one part of the page from ``resources.yaml``: the counts, an
index by state, an index by chapter, or the entries under their headings.
"""

from collections import Counter
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx

from bookext import catalogue, places
from bookext.catalogue import STATES, Entry
from bookext.places import (
    Line,
    Mapped,
    joined,
    outside,
    paragraph,
    strong,
    terms,
)
from bookext.verification import table
from bookext.works import READINGS

LABELS = {state: state.capitalize() for state in STATES} | {"unread": "Not read"}
PAGE = "book/resources"
again = places.again(PAGE)


def anchor(entry: Entry) -> str:
    """Return the id and label of an entry."""
    return f"resource-{entry.id}"


def state_mark(state: str) -> nodes.inline:
    """Return a state as a small mark."""
    text = LABELS[state]
    return nodes.inline(text, text, classes=["state", f"state-{state}"])


def inside(entry: Entry) -> nodes.reference:
    """Return a link to an entry of this page."""
    return nodes.reference("", entry.title, refid=anchor(entry), internal=True)


class Resources(Mapped):
    """``{resources} counts``, ``by-state``, ``by-chapter`` or ``entries``."""

    parts: ClassVar[dict[str, str]] = {
        "counts": "counts",
        "by-state": "by_state",
        "by-chapter": "by_chapter",
        "entries": "entries",
    }

    def read(self) -> None:
        """Read the list."""
        self.list = self.data(catalogue.NAME, catalogue.load)

    def counts(self) -> list[nodes.Node]:
        """How many entries there are, of which state, and how they were read."""
        entries = self.list.entries
        states = [
            ("", [state_mark(state), f"{len(self.list.of_state(state))}", meaning])
            for state, meaning in STATES.items()
        ]
        how = Counter(entry.read.how for entry in entries)
        read = [("", [f"{how[name]}", text]) for name, text in READINGS.items()]
        faults = [len(entry.errors) for entry in entries if entry.errors]
        days = sorted({entry.looked for entry in entries})
        when = " to ".join(f"{day}" for day in dict.fromkeys([days[0], days[-1]]))
        said = paragraph(
            f"The list has {len(entries)} links. They were looked at on {when}; "
            f"{sum(faults)} errors are noted, in {len(faults)} of them."
        )
        heads = ["State", "Links", "What it means"]
        return [said, table(heads, states), table(["Links", "What was read"], read)]

    def by_state(self) -> list[nodes.Node]:
        """An index by state; of the renamed ones it gives the new address."""
        rows: list[tuple[Line, list[nodes.Node]]] = []
        for state in STATES:
            found = self.list.of_state(state)
            head: Line = [state_mark(state), nodes.Text(f" {len(found)}")]
            links = [paragraph(inside(entry), *self.moved(entry)) for entry in found]
            items = [nodes.list_item("", link) for link in links]
            rows.append((head, [nodes.bullet_list("", *items)] if items else []))
        return [terms(rows)]

    def moved(self, entry: Entry) -> Line:
        """Return where a renamed entry is, for the index."""
        if entry.state != "renamed":
            return []
        place = entry.now.removeprefix("https://").removeprefix("github.com/")
        return [nodes.Text(" → "), outside(place, entry.now)]

    def by_chapter(self) -> list[nodes.Node]:
        """An index by chapter: what to read after it, what else it covers."""
        rows: list[tuple[Line, list[nodes.Node]]] = []
        for stem in self.list.path:
            advised = self.list.after(stem)
            found = [
                entry
                for entry in self.list.entries
                if stem in self.covers_of(entry) and entry not in advised
            ]
            body: list[nodes.Node] = []
            for text, entries in (
                ("Read after it", advised),
                ("On the same ground", found),
            ):
                if entries:
                    links = joined([[inside(entry)] for entry in entries], "; ")
                    body.append(paragraph(strong(f"{text}:"), " ", *links))
            if body:
                rows.append((self.chapter(stem), body))
        return [terms(rows)]

    def entries(self) -> list[nodes.Node]:
        """Every entry, under the list's headings."""
        result: list[nodes.Node] = []
        for key, title in self.list.groups.items():
            section = nodes.section(ids=[f"resources-{key}"])
            section += nodes.title(title, title)
            section += [self.entry(entry) for entry in self.list.of_group(key)]
            result.append(section)
        return result

    def entry(self, entry: Entry) -> nodes.container:
        """One entry, with a label of its own."""
        holder = self.box(entry, anchor(entry), state_mark(entry.state))
        if entry.note:
            label = strong(f"{LABELS[entry.state]}.")
            holder += paragraph(
                label, " ", *self.inline(entry.note), *self.address(entry)
            )
        if entry.errors:
            holder += self.faults(entry)
        holder += self.places(entry)
        return holder

    def address(self, entry: Entry) -> Line:
        """The address to use instead, as a sentence."""
        if not entry.now:
            return []
        place = entry.now.removeprefix("https://")
        return [nodes.Text(" Use "), outside(place, entry.now), nodes.Text(".")]

    def places(self, entry: Entry) -> list[nodes.Node]:
        """Where the book covers an entry, and after which chapters to read it."""
        guess = ", to judge by the title" if entry.read.how == "title" else ""
        said = f"In this book{guess}:"
        line = self.line(self.covers_of(entry), said, "Planned:")
        result: list[nodes.Node] = [paragraph(*line, name="resource-places")]
        after = [
            [*self.chapter(stem), nodes.Text(": "), *self.inline(why)]
            for stem, why in entry.after.items()
        ]
        if after:
            text = [strong("Read it after"), nodes.Text(" "), *joined(after, "; ")]
            result.append(paragraph(*text, ".", name="resource-after"))
        return result

    def covers_of(self, entry: Entry) -> dict[str, list[str]]:
        """Return the chapters that cover an entry, each with its sections' labels."""
        return self.covers(entry.id, entry.covered, entry.planned)


def setup(app: Sphinx) -> None:
    """Register the directive and the hook."""
    app.add_directive("resources", Resources)
    app.connect("env-get-outdated", again)
