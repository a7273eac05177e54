"""The curated list's page: every link, what it is worth today, who covers it here.

``{resources} PART`` makes one part of the page from ``resources.yaml``: the counts, an
index by state, an index by chapter, or the entries under their headings. A chapter that
the book doesn't show, because it is a draft or not written, comes out as planned and
becomes a link on the day that it is shown.
"""

import functools
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from bookext import catalogue
from bookext.catalogue import READINGS, STATES, Catalogue, Entry
from bookext.verification import table

LABELS = {state: state.capitalize() for state in STATES} | {"unread": "Not read"}
PAGE = "book/resources"

Line = list[nodes.Node]


@functools.lru_cache(maxsize=1)
def loaded(path: Path, changed: int) -> Catalogue:
    """Return the list, read once for each time that its file ``changed``."""
    return catalogue.load(path)


def anchor(entry: Entry) -> str:
    """Return the id and label of an entry."""
    return f"resource-{entry.id}"


def joined(lines: list[Line], between: str = ", ") -> Line:
    """Return inline nodes of several lines with a text between them."""
    result: Line = []
    for line in lines:
        result += [nodes.Text(between), *line] if result else line
    return result


def paragraph(*parts: nodes.Node | str, name: str = "") -> nodes.paragraph:
    """Return a paragraph of texts and inline nodes, of a class if it has a name."""
    holder = nodes.paragraph(classes=[name] if name else [])
    holder += [nodes.Text(part) if isinstance(part, str) else part for part in parts]
    return holder


def strong(text: str) -> nodes.strong:
    """Return a text in bold."""
    return nodes.strong(text, text)


def state_mark(state: str) -> nodes.inline:
    """Return a state as a small mark."""
    text = LABELS[state]
    return nodes.inline(text, text, classes=["state", f"state-{state}"])


def outside(text: str, address: str) -> nodes.reference:
    """Return a link to another site."""
    return nodes.reference("", text, refuri=address, internal=False)


def inside(entry: Entry) -> nodes.reference:
    """Return a link to an entry of this page."""
    return nodes.reference("", entry.title, refid=anchor(entry), internal=True)


def terms(rows: list[tuple[Line, list[nodes.Node]]]) -> nodes.definition_list:
    """Return a list of terms and what is said of each."""
    result = nodes.definition_list(classes=["resource-index"])
    for head, body in rows:
        item = nodes.definition_list_item()
        item += [nodes.term("", "", *head), nodes.definition("", *body)]
        result += item
    return result


class Resources(SphinxDirective):
    """``{resources} counts``, ``by-state``, ``by-chapter`` or ``entries``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        parts = {
            "counts": self.counts,
            "by-state": self.by_state,
            "by-chapter": self.by_chapter,
            "entries": self.entries,
        }
        if self.arguments[0] not in parts:
            raise self.error(f"choose one of {', '.join(parts)}")
        source = Path(self.env.srcdir)
        path = source / "book" / catalogue.NAME
        self.env.note_dependency(str(path))
        try:
            self.list = loaded(path, path.stat().st_mtime_ns)
            self.owners = catalogue.sections(source)
            return parts[self.arguments[0]]()
        except ValueError as error:
            raise self.error(str(error)) from error

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
                if stem in self.covers(entry) and entry not in advised
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
        holder = nodes.container(classes=["resource"], names=[anchor(entry)])
        self.state.document.note_explicit_target(holder, holder)
        here = nodes.reference(
            "", "#", refid=anchor(entry), internal=True, classes=["resource-anchor"]
        )
        here["reftitle"] = f"Link to {entry.title}"
        title = outside(entry.title, entry.address)
        head = paragraph(title, " ", state_mark(entry.state), " ", here)
        head["classes"].append("resource-title")
        holder += [head, self.about(entry), paragraph(*self.inline(entry.what))]
        if entry.note:
            label = strong(f"{LABELS[entry.state]}.")
            holder += paragraph(
                label, " ", *self.inline(entry.note), *self.address(entry)
            )
        if entry.errors:
            holder += self.faults(entry)
        holder += self.places(entry)
        return holder

    def about(self, entry: Entry) -> nodes.paragraph:
        """The line of small print: kind, authors, year, what was read and when."""
        by = ", ".join(str(x) for x in (entry.authors, entry.year) if x)
        about = f"{entry.kind.capitalize()}{f', {by}' if by else ''}. "
        about += f"Looked at on {entry.looked}: "
        read = self.inline(entry.read.what)
        return paragraph(about, *read, ".", name="resource-about")

    def address(self, entry: Entry) -> Line:
        """The address to use instead, as a sentence."""
        if not entry.now:
            return []
        place = entry.now.removeprefix("https://")
        return [nodes.Text(" Use "), outside(place, entry.now), nodes.Text(".")]

    def faults(self, entry: Entry) -> nodes.bullet_list:
        """The errors found, each with what is right."""
        items = [
            nodes.list_item(
                "",
                paragraph(
                    *[strong("Error:"), nodes.Text(" "), *self.inline(fault.wrong)],
                    *[nodes.Text(" "), strong("Right:"), nodes.Text(" ")],
                    *self.inline(fault.right),
                ),
            )
            for fault in entry.errors
        ]
        return nodes.bullet_list("", *items, classes=["resource-errors"])

    def places(self, entry: Entry) -> list[nodes.Node]:
        """Where the book covers an entry, and after which chapters to read it."""
        covers = self.covers(entry)
        shown = [stem for stem in covers if self.page(stem)]
        planned = [[nodes.Text(self.title(x))] for x in covers if x not in shown]
        line: Line = []
        if shown:
            parts = joined([self.part(x, covers[x]) for x in shown], "; ")
            guess = ", to judge by the title" if entry.read.how == "title" else ""
            line += [strong(f"In this book{guess}:"), nodes.Text(" "), *parts]
            line.append(nodes.Text(". "))
        if planned:
            parts = joined(planned, "; ")
            line += [strong("Planned:"), nodes.Text(" "), *parts, nodes.Text(".")]
        result: list[nodes.Node] = [paragraph(*line, name="resource-places")]
        after = [
            [*self.chapter(stem), nodes.Text(": "), *self.inline(why)]
            for stem, why in entry.after.items()
        ]
        if after:
            text = [strong("Read it after"), nodes.Text(" "), *joined(after, "; ")]
            result.append(paragraph(*text, ".", name="resource-after"))
        return result

    def covers(self, entry: Entry) -> dict[str, list[str]]:
        """Return the chapters that cover an entry, each with its sections' labels.

        Raises:
            ValueError: no section has one of the labels.
        """
        found: dict[str, list[str]] = {}
        for label in entry.covered:
            if label not in self.owners:
                raise ValueError(f"{entry.id}: no section has the label {label!r}")
            found.setdefault(self.owners[label], []).append(label)
        for stem in entry.planned:
            found.setdefault(stem, [])
        order = list(self.list.path)
        unknown = [stem for stem in found if stem not in order]
        if unknown:
            raise ValueError(f"{entry.id}: {unknown[0]!r} is not in the learning path")
        return {stem: found[stem] for stem in sorted(found, key=order.index)}

    def page(self, stem: str) -> str:
        """Return the page of a chapter or an appendix; empty if the book has none."""
        names = (f"chapters/{stem}", f"book/{stem}")
        return next((name for name in names if name in self.env.found_docs), "")

    def title(self, stem: str) -> str:
        """Return a chapter's title as the learning path has it."""
        return self.list.path[stem]

    def chapter(self, stem: str) -> Line:
        """Return a link to a chapter, or its title and that it is planned."""
        page = self.page(stem)
        if page:
            return [self.link("doc", f"/{page}", self.title(stem))]
        planned = nodes.inline("", "planned", classes=["planned"])
        return [nodes.Text(f"{self.title(stem)} "), planned]

    def part(self, stem: str, labels: list[str]) -> Line:
        """Return links to a chapter and to its sections that cover something."""
        rest = [[self.link("ref", x, x)] for x in labels if x != f"ch-{stem}"]
        chapter = self.chapter(stem)
        if not rest:
            return chapter
        return [*chapter, nodes.Text(" ("), *joined(rest), nodes.Text(")")]

    def link(self, kind: str, target: str, text: str) -> addnodes.pending_xref:
        """Return a link whose text becomes the title of its target."""
        link = addnodes.pending_xref(
            "",
            nodes.inline(text, text, classes=["std", f"std-{kind}"]),
            refdomain="std",
            reftype=kind,
            reftarget=target,
            refexplicit=False,
            refwarn=True,
            refdoc=self.env.docname,
        )
        self.set_source_info(link)
        return link

    def inline(self, text: str) -> Line:
        """Return a text's inline nodes; warnings come up at the directive."""
        found, messages = self.parse_inline(text.strip(), lineno=self.lineno)
        return [*found, *messages]


def again(
    app: Sphinx,
    env: BuildEnvironment,
    added: set[str],
    changed: set[str],
    removed: set[str],
) -> list[str]:
    """Read the page again when a chapter comes, goes or changes: it links to them."""
    moved = any(name.startswith("chapters/") for name in added | changed | removed)
    return [PAGE] if moved and PAGE in env.found_docs else []


def setup(app: Sphinx) -> None:
    """Register the directive and the hook."""
    app.add_directive("resources", Resources)
    app.connect("env-get-outdated", again)
