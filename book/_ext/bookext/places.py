"""Pages that say where this book covers somebody else's work.

A chapter that the book doesn't show, because it is a draft or not written, comes out as
planned and becomes a link on the day that it is shown.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from bookext import catalogue
from bookext.works import Work

T = TypeVar("T")
Line = list[nodes.Node]
Changes = set[str]
Hook = Callable[[Sphinx, BuildEnvironment, Changes, Changes, Changes], list[str]]


@functools.lru_cache(maxsize=4)
def loaded(load: Callable[[Path], T], path: Path, changed: int) -> T:
    """Return what a file holds, read once for each time that it ``changed``."""
    return load(path)


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


def outside(text: str, address: str) -> nodes.reference:
    """Return a link to another site."""
    return nodes.reference("", text, refuri=address, internal=False)


def terms(rows: list[tuple[Line, list[nodes.Node]]]) -> nodes.definition_list:
    """Return a list of terms and what is said of each."""
    result = nodes.definition_list(classes=["resource-index"])
    for head, body in rows:
        item = nodes.definition_list_item()
        item += [nodes.term("", "", *head), nodes.definition("", *body)]
        result += item
    return result


class Mapped(SphinxDirective, ABC):
    """Makes one part of such a page, which its argument names.

    Attributes:
        parts: argument -> method that makes the part.
        path: the learning path, stem -> title.
        owners: label of a section -> stem of its chapter or appendix.
    """

    required_arguments = 1
    parts: ClassVar[dict[str, str]]

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in self.parts:
            raise self.error(f"choose one of {', '.join(self.parts)}")
        source = Path(self.env.srcdir)
        try:
            self.path = self.data(catalogue.NAME, catalogue.load).path
            self.owners = catalogue.sections(source) | catalogue.puzzles(source)
            self.read()
            return getattr(self, self.parts[self.arguments[0]])()
        except ValueError as error:
            raise self.error(str(error)) from error

    @abstractmethod
    def read(self) -> None:
        """Read what the page is made of."""

    def data(self, name: str, load: Callable[[Path], T]) -> T:
        """Return what a file beside the page holds; the page depends on it."""
        path = Path(self.env.srcdir, "book", name)
        self.env.note_dependency(str(path))
        return loaded(load, path, path.stat().st_mtime_ns)

    def box(self, work: Work, name: str, *marks: nodes.Node) -> nodes.container:
        """Return a box for a work, with its head.

        Args:
            work: the work.
            name: the box's label.
            marks: what stands behind the title.
        """
        holder = nodes.container(classes=["resource"], names=[name])
        self.state.document.note_explicit_target(holder, holder)
        here = nodes.reference(
            "", "#", refid=name, internal=True, classes=["resource-anchor"]
        )
        here["reftitle"] = f"Link to {work.title}"
        parts = [outside(work.title, work.address), *marks, here]
        head = paragraph(*joined([[part] for part in parts], " "))
        head["classes"].append("resource-title")
        holder += [head, self.about(work), paragraph(*self.inline(work.what))]
        return holder

    def about(self, work: Work) -> nodes.paragraph:
        """The line of small print: kind, authors, year, what was read and when."""
        by = ", ".join(str(x) for x in (work.authors, work.year) if x)
        about = f"{work.kind.capitalize()}{f', {by}' if by else ''}. "
        about += f"Looked at on {work.looked}: "
        read = self.inline(work.read.what)
        return paragraph(about, *read, ".", name="resource-about")

    def faults(self, work: Work) -> nodes.bullet_list:
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
            for fault in work.errors
        ]
        return nodes.bullet_list("", *items, classes=["resource-errors"])

    def covers(
        self, where: str, covered: list[str], planned: list[str]
    ) -> dict[str, list[str]]:
        """Return the chapters that cover something, each with its sections' labels.

        Raises:
            ValueError: no section has one of the labels; the message begins with where.
        """
        found: dict[str, list[str]] = {}
        for label in covered:
            if label not in self.owners:
                raise ValueError(f"{where}: no section has the label {label!r}")
            found.setdefault(self.owners[label], []).append(label)
        for stem in planned:
            found.setdefault(stem, [])
        order = list(self.path)
        unknown = [stem for stem in found if stem not in order]
        if unknown:
            raise ValueError(f"{where}: {unknown[0]!r} is not in the learning path")
        return {stem: found[stem] for stem in sorted(found, key=order.index)}

    def line(self, covers: dict[str, list[str]], said: str, planned: str) -> Line:
        """Return where the book has something, and where it will have it.

        Args:
            covers: chapters by stem, each with its sections' labels.
            said: what goes before the links.
            planned: what goes before the titles of chapters that the book doesn't show.
        """
        shown = [stem for stem in covers if self.page(stem)]
        rest = [[nodes.Text(self.title(x))] for x in covers if x not in shown]
        line: Line = []
        for head, parts in (
            (said, [self.part(x, covers[x]) for x in shown]),
            (planned, rest),
        ):
            if parts:
                line += [nodes.Text(" ")] if line else []
                line += [strong(head), nodes.Text(" ")] if head else []
                line += [*joined(parts, "; "), nodes.Text(".")]
        return line

    def page(self, stem: str) -> str:
        """Return the page of a chapter or an appendix; empty if the book has none."""
        names = (f"chapters/{stem}", f"book/{stem}")
        return next((name for name in names if name in self.env.found_docs), "")

    def title(self, stem: str) -> str:
        """Return a chapter's title as the learning path has it."""
        return self.path[stem]

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


def again(page: str) -> Hook:
    """Return a hook to read a page again when it would lead elsewhere.

    That is when a chapter comes or goes, or a label does or moves to another chapter.
    What sections are called is looked up when the page is written.
    """

    def outdated(
        app: Sphinx,
        env: BuildEnvironment,
        added: set[str],
        changed: set[str],
        removed: set[str],
    ) -> list[str]:
        source = Path(env.srcdir)
        owners = catalogue.sections(source) | catalogue.puzzles(source)
        known = env.__dict__.setdefault("bookext_owners", {})
        moved = known.get(page) != owners
        known[page] = owners
        moved |= any(x.startswith("chapters/") for x in added | removed)
        return [page] if moved and page in env.found_docs else []

    return outdated
