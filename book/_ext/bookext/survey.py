"""What the chapters have of each operation: where they explain it, or show it.

A chapter explains an operation if its text names it, and shows it if the code of a
kernel or a cell uses it. Kernels of a draft are left out, since the book has no page to
link to.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors import EnvironmentCollector

from bookext import vocabulary
from bookext.api import HIDDEN, entry_name
from bookext.chapters import is_read
from bookext.crossref import Places, note, shown_in
from bookext.machine import package_root
from bookext.vocabulary import Operation, Uses, Vocabulary

DOTTED = re.compile(r"\b(?:tl|gl)(?:\.\w+)+")
BARE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)?)(?:\(.*\))?")
Place = tuple[str, str, str]


@functools.lru_cache(maxsize=1)
def loaded(path: Path, changed: int) -> tuple[Vocabulary, Uses]:
    """Return the operations and who uses them, read once for each change.

    Raises:
        ValueError: the data are not sound, or a kernel uses what is in no group.
    """
    found = vocabulary.load(path)
    users, unknown = vocabulary.uses(found, package_root())
    if unknown:
        raise ValueError(f"{path}: in no group: {unknown[0]}")
    return found, users


class Named(EnvironmentCollector):
    """Collect which operations each chapter's text and code cells name."""

    def clear_doc(self, app: Sphinx, env: BuildEnvironment, docname: str) -> None:
        sections_in(env).pop(docname, None)
        for name, places in list(words_in(env).items()):
            words_in(env)[name] = [x for x in places if x[0] != docname]

    def merge_other(
        self,
        app: Sphinx,
        env: BuildEnvironment,
        docnames: set[str],
        other: BuildEnvironment,
    ) -> None:
        for name, places in words_in(other).items():
            new = [place for place in places if place[0] in docnames]
            words_in(env).setdefault(name, []).extend(new)
        theirs = sections_in(other)
        sections_in(env).update({x: theirs[x] for x in docnames if x in theirs})

    def process_doc(self, app: Sphinx, doctree: nodes.document) -> None:
        docname = app.env.current_document.docname
        if not docname.startswith("chapters/"):
            return
        # A folded solution has a section of its own, which no link should open.
        sections_in(app.env)[docname] = [
            section["ids"][0]
            for section in doctree.findall(nodes.section)
            if isinstance(section.parent, nodes.section | nodes.document)
        ]
        words = words_in(app.env)
        for literal in doctree.findall(nodes.literal):
            text = literal.astext()
            for name in DOTTED.findall(text):
                note(words, f"text {name}", docname, literal)
            if bare := BARE.fullmatch(text):
                note(words, f"bare {bare[1]}", docname, literal)
        for block in doctree.findall(nodes.literal_block):
            if is_read(block.next_node(nodes.Text) or block):
                for name in DOTTED.findall(block.astext()):
                    note(words, f"code {name}", docname, block)


def words_in(env: BuildEnvironment) -> Places:
    """Return where chapters name what; a name stands behind how it is named."""
    return env.__dict__.setdefault("bookext_words", {})


def sections_in(env: BuildEnvironment) -> dict[str, list[str]]:
    """Return the ids of each chapter's sections, in order."""
    return env.__dict__.setdefault("bookext_sections", {})


@dataclass
class Taught:
    """What the book has of one operation.

    Args:
        operation: the operation.
        explained: the first section whose text names it and whose code uses it, or else
            the first whose text names it.
        shown: the first section whose code uses it.
        kernels: (module, function) of the kernels that use it and are in the reference.
        hidden: how many kernels of exercises and their solutions use it.
        drafts: the stems of the unpublished chapters whose kernels use it.
    """

    operation: Operation
    explained: Place | None = None
    shown: Place | None = None
    kernels: list[tuple[str, str]] = field(default_factory=list)
    hidden: int = 0
    drafts: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """How far the book teaches it."""
        if self.explained:
            return "explained"
        if self.shown:
            return "shown"
        return "used" if self.kernels or self.hidden else "absent"


STATES = {
    "explained": "a chapter's text names it, if possible beside code that uses it",
    "shown": "a chapter shows code that uses it, and its text does not name it",
    "used": "kernels or exercises of the package use it, and no chapter has it",
    "absent": "nothing here has it",
}


class Survey:
    """What the book has of every operation, once all pages are read."""

    def __init__(self, env: BuildEnvironment) -> None:
        self.env = env
        path = Path(env.srcdir, "book", vocabulary.NAME)
        self.vocabulary, self.users = loaded(path, path.stat().st_mtime_ns)
        listed = env.toctree_includes.get(env.config.root_doc, [])
        self.order = [x for x in listed if x.startswith("chapters/")]
        self.tops = {x.rpartition("/")[2]: n for n, x in enumerate(self.order)}
        self.explained: dict[str, list[Place]] = {}
        self.shown: dict[str, list[Place]] = {}
        self.read()

    def read(self) -> None:
        """Sort out which operation each name in a chapter is of."""
        words = words_in(self.env)
        shown = shown_in(self.env)
        for operation, users in self.users.items():
            for module, kernel in users:
                places = shown.get(f"{module}.{kernel}", [])
                self.shown.setdefault(operation, []).extend(places)
        for word, places in words.items():
            how, _, name = word.partition(" ")
            operation = self.vocabulary.lookup(name)
            if operation and how != "bare":
                kind = self.explained if how == "text" else self.shown
                kind.setdefault(operation, []).extend(places)
        # A bare name may be anything, so it counts beside code that uses it.
        for operation, near in self.shown.items():
            short = operation.split(".")
            for name in (short[-1], ".".join(short[-2:])):
                places = words.get(f"bare {name}", [])
                found = [place for place in places if place in near]
                self.explained.setdefault(operation, []).extend(found)

    def first(self, places: list[Place]) -> Place | None:
        """Return the place that a reader comes to first; drafts are no places."""
        sections = sections_in(self.env)
        known = [
            place
            for place in places
            if place[0] in self.order and place[1] in sections[place[0]]
        ]
        return min(
            known,
            key=lambda x: (self.order.index(x[0]), sections[x[0]].index(x[1])),
            default=None,
        )

    def of(self, operation: Operation) -> Taught:
        """Return what the book has of an operation."""
        name = operation.name
        named, shown = self.explained.get(name, []), self.shown.get(name, [])
        both = self.first([place for place in named if place in shown])
        result = Taught(operation, both or self.first(named), self.first(shown))
        for module, kernel in self.users.get(name, []):
            parts = module.split(".")
            stem = parts[1] if len(parts) > 1 else ""
            draft = Path(self.env.srcdir, "chapters", f"{stem}.md").is_file()
            if draft and f"chapters/{stem}" not in self.env.found_docs:
                result.drafts += [] if stem in result.drafts else [stem]
            elif HIDDEN.intersection(parts):
                result.hidden += 1
            elif entry_name(self.env, f"{module}.{kernel}"):
                result.kernels.append((module, kernel))
        result.kernels.sort(key=lambda x: self.tops.get(x[0].split(".")[1], 99))
        return result
