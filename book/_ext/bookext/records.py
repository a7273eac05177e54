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

from bookext.quotes import STORE, Quote

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
    """Quote a measured number: ``{measured}`parallel-add.best_gbps:,.0f```.

    ``parallel-add@h200-sxm.best_gbps`` is the one on record for that GPU, whatever GPU
    the page's other numbers are from.
    """

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
        name = nodes.make_id(f"claims-{self.arguments[0]}")
        # The first of a page is where a list of claims leads to.
        if name not in self.state.document.ids:
            holder["ids"].append(name)
            self.state.document.ids[name] = holder
        return [holder]


def verified(builder: Any, docname: str, quote: Quote) -> str:
    """Return the address of a record's row on the verification page."""
    page = builder.get_relative_uri(docname, "book/verification")
    return f"{page}#{quote.anchor}"


def older() -> nodes.Node:
    """Return the mark beside a number whose code has moved on."""
    return nodes.abbreviation("", "older code", explanation=OLDER, classes=["older"])


def stamped(builder: Any, docname: str, quote: Quote) -> list[nodes.Node]:
    """Return a record's stamp, after a mark when its code has moved on."""
    uri = verified(builder, docname, quote)
    link = nodes.reference("", quote.stamp, refuri=uri, internal=True)
    if not quote.stale:
        return [link]
    mark = nodes.inline("", OLDER.capitalize(), classes=["older"])
    return [mark, nodes.Text(" "), link]


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
        except (OSError, LookupError, ValueError) as error:
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
            raise ValueError("write RECORD.VALUE or RECORD@GPU.VALUE, then :FORMAT")
        name, _, gpu = name.partition("@")
        quote = STORE.get(name, gpu or None)
        link = nodes.reference(
            "",
            format(quote.value(field), spec),
            refuri=verified(self.app.builder, self.env.docname, quote),
            reftitle=quote.stamp,
            internal=True,
            classes=["measured"],
        )
        return [link, nodes.Text(" "), older()] if quote.stale else [link]

    def provenance(self, want: str) -> list[nodes.Node]:
        """The record's stamp, with a mark when its code has moved on."""
        return stamped(self.app.builder, self.env.docname, STORE.get(want))

    def claims(self, want: str) -> list[nodes.Node]:
        """Each claim with its verdict for the record shown in this build."""
        quote = STORE.get(want)
        if not quote.claims:
            raise LookupError("no claims are written beside this experiment")
        items = []
        for text, holds, detail in quote.claims:
            verdict = "Holds" if holds else "Does not hold"
            why = f" ({detail})" if detail else ""
            line = nodes.paragraph("", text.rstrip(".") + ". ")
            line += nodes.strong("", f"{verdict} on {quote.gpu}{why}.")
            kind = "holds" if holds else "broken"
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
