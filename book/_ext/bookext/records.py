"""Numbers, provenance and claims: filled in from records once every chapter has run.

A chapter may quote any record, its own or another's, whichever of them ran first:
the roles and directives here leave a mark, and a post-transform fills it in. A number
that nobody measured is a warning at its very line, and the build turns it into an
error.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

log = logging.getLogger(__name__)

OLDER = "measured on an earlier version of this code"


class record_mark(nodes.Inline, nodes.TextElement):
    """A place that a record fills in: ``kind`` says how, ``want`` says with what."""


def line_of(path: Path, start: int, raw: str) -> int:
    """Return the line that holds ``raw``, at or after ``start``.

    MyST gives an inline role the first line of its paragraph; a warning should point
    at the line that has to change.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[start - 1 :], start):
        if raw in line:
            return number
    return start


class Measured(SphinxRole):
    """Quote a measured number: ``{measured}`parallel-add.best_gbps:,.0f```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        raw = f"{{{self.name}}}`{self.text}`"
        source, start = self.get_source_info()
        line = line_of(Path(source), start, raw)
        where = f"{self.env.doc2path(self.env.docname)}:{line}"
        return [record_mark(raw, kind="value", want=self.text, where=where)], []


class Provenance(SphinxDirective):
    """Under a figure: what measured it."""

    required_arguments = 1
    kind = "provenance"

    def run(self) -> list[nodes.Node]:
        mark = record_mark("", kind=self.kind, want=self.arguments[0])
        mark["where"] = self.get_location()
        holder = nodes.paragraph(classes=["provenance"])
        holder += mark
        return [holder]


class Claims(Provenance):
    """List what the book claims of a record, and which of it fails to hold here."""

    kind = "claims"

    def run(self) -> list[nodes.Node]:
        holder = nodes.container(classes=["claims"])
        holder["record_claims"] = self.arguments[0]
        holder["where"] = self.get_location()
        return [holder]


def load(name: str) -> Any:
    """Return this build's measurement of an experiment, or the one on record."""
    from tilebook import measure

    return measure.load(name)


def anchor(record: Any) -> str:
    """Return the id of a record's row on the verification page."""
    return f"record-{record.name}-{record.slug}"


def verified(builder: Any, docname: str, record: Any) -> str:
    """Return the address of a record's row on the verification page."""
    return f"{builder.get_relative_uri(docname, 'book/verification')}#{anchor(record)}"


def older() -> nodes.Node:
    """Return the visible mark of a record that its code has moved away from."""
    return nodes.inline("", OLDER, classes=["older"])


class FillIn(SphinxPostTransform):
    """Replace each mark by what its record says."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for mark in list(self.document.findall(record_mark)):
            filled = self.guarded(mark, mark["want"], getattr(self, mark["kind"]))
            mark.parent.replace(mark, filled)
        for holder in list(self.document.findall(nodes.container)):
            if "record_claims" in holder:
                holder += self.guarded(holder, holder["record_claims"], self.claims)

    def guarded(self, node: nodes.Element, want: str, fill: Any) -> list[nodes.Node]:
        """Fill in, or warn at the line that asks for what nobody measured."""
        try:
            return fill(want)
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            log.warning(
                "nothing measured for %r: %s",
                want,
                error,
                location=node["where"],
                type="measured",
            )
            return [nodes.problematic(want, want)]

    def value(self, want: str) -> list[nodes.Node]:
        """One number, linked to the row that says what measured it."""
        key, _, spec = want.partition(":")
        name, dot, field = key.rpartition(".")
        if not dot:
            raise ValueError("write RECORD.VALUE or RECORD.VALUE:FORMAT")
        record = load(name)
        link = nodes.reference(
            "",
            format(record.value(field), spec),
            refuri=verified(self.app.builder, self.env.docname, record),
            reftitle=record.stamp(),
            internal=True,
            classes=["measured"],
        )
        return [link, nodes.Text(" "), older()] if record.stale() else [link]

    def provenance(self, want: str) -> list[nodes.Node]:
        """The record's stamp, with a mark when its code has moved on."""
        record = load(want)
        link = nodes.reference(
            "",
            record.stamp(),
            refuri=verified(self.app.builder, self.env.docname, record),
            internal=True,
        )
        return [older(), nodes.Text(" "), link] if record.stale() else [link]

    def claims(self, want: str) -> list[nodes.Node]:
        """Each claim with its verdict for the record shown in this build."""
        from tilebook import measure

        record = load(want)
        broken = {claim.name: detail for claim, detail in record.broken_claims()}
        made = measure.claims(want)
        if not made:
            raise LookupError("no claims are written beside this experiment")
        items = []
        for claim in made:
            failed = claim.name in broken
            verdict = "Does not hold" if failed else "Holds"
            detail = f" ({broken[claim.name]})" if broken.get(claim.name) else ""
            line = nodes.paragraph("", claim.text.rstrip(".") + ". ")
            line += nodes.strong("", f"{verdict} on {record.gpu}{detail}.")
            kind = "broken" if failed else "holds"
            items.append(nodes.list_item("", line, classes=[kind]))
        title = nodes.paragraph("", "What this page says of the measurement")
        title["classes"].append("claims-title")
        return [title, nodes.bullet_list("", *items)]


def setup(app: Sphinx) -> None:
    """Register the roles, the directives and the post-transform."""
    app.add_node(record_mark)
    app.add_role("measured", Measured())
    app.add_directive("provenance", Provenance)
    app.add_directive("claims", Claims)
    app.add_post_transform(FillIn)
