"""The operations' page: where the book teaches each, and which kernels use it.

``{operations} PART`` makes the counts, or the tables by group. Where something is
taught is known when all pages are read, so the parts are filled in when the page is
written.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from bookext import catalogue, vocabulary
from bookext.api import entry_name
from bookext.machine import PACKAGE
from bookext.survey import STATES, Named, Survey, Taught, loaded
from bookext.verification import table
from bookext.vocabulary import Operation

PAGE = "book/operations"
KERNELS = 3


class operations_part(nodes.General, nodes.Element):
    """A part of the page, until all pages are read."""


class Operations(SphinxDirective):
    """``{operations} counts`` or ``tables``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in ("counts", "tables"):
            raise self.error("choose one of counts, tables")
        path = Path(self.env.srcdir, "book", vocabulary.NAME)
        self.env.note_dependency(str(path))
        try:
            loaded(path, path.stat().st_mtime_ns)
        except ValueError as error:
            raise self.error(str(error)) from error
        part = operations_part(part=self.arguments[0])
        self.set_source_info(part)
        if part["part"] == "counts":
            return [part]
        # Headings are needed while the page is read, for its table of contents.
        found, _ = loaded(path, path.stat().st_mtime_ns)
        result: list[nodes.Node] = []
        for title in found.groups:
            section = nodes.section(ids=[nodes.make_id(f"operations-{title}")])
            section += nodes.title(title, title)
            section += operations_part(part="group", group=title)
            result.append(section)
        return result


class FillIn(SphinxPostTransform):
    """Fill in the parts of the page."""

    default_priority = 22

    def run(self, **kwargs: Any) -> None:
        parts = list(self.document.findall(operations_part))
        if not parts:
            return
        self.survey = Survey(self.env)
        self.titles = catalogue.load(Path(self.env.srcdir, "book", catalogue.NAME)).path
        for part in parts:
            made = (
                self.counts()
                if part["part"] == "counts"
                else self.group(self.survey.vocabulary.groups[part["group"]])
            )
            part.replace_self(made)

    def counts(self) -> list[nodes.Node]:
        """How many operations there are, and how far the book teaches them."""
        found = self.survey.vocabulary
        rows = []
        states: dict[str, Counter[str]] = {"tl": Counter(), "gl": Counter()}
        for operation in found.operations().values():
            if operation.here:
                root = operation.name.partition(".")[0]
                states[root][self.survey.of(operation).state] += 1
        for state, meaning in STATES.items():
            counts = [f"{states[root][state]}" for root in states]
            rows.append(("", [state.capitalize(), *counts, meaning]))
        sums = [f"{states[root].total()}" for root in states]
        rows.append(("", ["All", *sums, f"operations of Triton {found.version}"]))
        return [table(["State", "triton.language", "Gluon", "Meaning"], rows)]

    def group(self, operations: list[Operation]) -> list[nodes.Node]:
        """One group: a table of what the book has, a list of what it lacks."""
        taught = [self.survey.of(one) for one in operations]
        rows = [
            (anchor(x.operation), [self.name(x), self.where(x), self.kernels(x)])
            for x in taught
            if x.state != "absent"
        ]
        rest = [x for x in taught if x.state == "absent"]
        result: list[nodes.Node] = []
        if rows:
            result.append(table(["Operation", "Where", "Kernels"], rows))
        reasons: dict[str, list[Taught]] = {}
        for x in rest:
            reasons.setdefault(self.why(x), []).append(x)
        items = []
        for why, those in sorted(reasons.items()):
            line = nodes.paragraph()
            for index, x in enumerate(those):
                line += [nodes.Text(", " if index else ""), self.name(x, True)]
            line += nodes.Text(f": {why}." if why else ".")
            items.append(nodes.list_item("", line))
        if items:
            result.append(nodes.paragraph("", "Not taught:"))
            result.append(nodes.bullet_list("", *items, classes=["untaught"]))
        return result

    def name(self, taught: Taught, anchored: bool = False) -> nodes.inline:
        """Return an operation's name, and in which versions it works if not in all."""
        operation = taught.operation
        ids = [anchor(operation)] if anchored else []
        literal = nodes.literal("", operation.name)
        result = nodes.inline("", "", literal, ids=ids)
        if operation.since or operation.removed:
            said = f" from {operation.since}" if operation.since else ""
            said += f" before {operation.removed}" if operation.removed else ""
            result += nodes.inline("", said, classes=["versions"])
        return result

    def why(self, taught: Taught) -> str:
        """Return why no chapter has an operation; empty if the data have no reason."""
        operation = taught.operation
        now = self.survey.vocabulary.version
        parts = []
        if operation.removed and not operation.here:
            parts.append(f"removed in {operation.removed}")
        elif operation.since and not operation.here:
            parts.append(f"not in Triton {now}")
        stems = [operation.planned] if operation.planned else taught.drafts
        parts += [operation.reason] if operation.reason else []
        parts += [f"planned: {self.titles[x]}" for x in stems if x in self.titles]
        return ", ".join(parts)

    def where(self, taught: Taught) -> nodes.inline:
        """Return a link to the section that teaches an operation."""
        place = taught.explained or taught.shown
        if place is None:
            why = self.why(taught)
            return nodes.inline("", f"not taught{f'; {why}' if why else ''}")
        docname, section, title = place
        here = self.app.builder.get_relative_uri(self.env.docname, docname)
        link = nodes.reference("", title, refuri=f"{here}#{section}", internal=True)
        chapter = self.env.titles[docname].astext()
        lead = "" if taught.explained else "shown in "
        result = nodes.inline("", lead, link)
        if chapter != title:
            result += nodes.Text(f" ({chapter})")
        if not taught.operation.here:
            result += nodes.Text(f"; {self.why(taught)}")
        return result

    def kernels(self, taught: Taught) -> nodes.inline:
        """Return links to a few kernels, of as many packages as there are."""
        packages: dict[str, list[tuple[str, str]]] = {}
        for module, kernel in taught.kernels:
            packages.setdefault(module.split(".")[1], []).append((module, kernel))
        rounds = range(max(map(len, packages.values()), default=0))
        spread = [x[i] for i in rounds for x in packages.values() if i < len(x)]
        result = nodes.inline()
        for index, (module, kernel) in enumerate(spread[:KERNELS]):
            result += nodes.Text(", " if index else "")
            result += self.entry(module, kernel)
        more = len(spread) - KERNELS
        if more > 0:
            result += nodes.Text(f" and {more} more")
        elif not spread and taught.hidden:
            result += nodes.Text("in exercises")
        return result

    def entry(self, module: str, kernel: str) -> nodes.reference:
        """Return a link to a kernel's entry in the reference."""
        target = f"{module}.{kernel}"
        listed = self.env.domains.python_domain.objects[entry_name(self.env, target)]
        here = self.app.builder.get_relative_uri(self.env.docname, listed.docname)
        link = nodes.reference("", "", refuri=f"{here}#{listed.node_id}", internal=True)
        link["reftitle"] = target.removeprefix(f"{PACKAGE}.")
        link += nodes.literal("", f"{module.rpartition('.')[2]}.{kernel}")
        return link


def anchor(operation: Operation) -> str:
    """Return the id of an operation's place on the page."""
    return "op-" + operation.name.replace(".", "-").replace("_", "-")


def again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the page again after any change: all that it has comes from other pages."""
    return [PAGE] if PAGE in env.found_docs else []


def setup(app: Sphinx) -> None:
    """Register the node, the directive, the collector and the transform."""
    app.add_node(operations_part)
    app.add_directive("operations", Operations)
    app.add_env_collector(Named)
    app.add_post_transform(FillIn)
    app.connect("env-updated", again)
