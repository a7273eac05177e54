"""The verification page: what was tested and measured, where, when, for which code."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bookext import runs
from bookext.machine import package_root
from bookext.quotes import STORE, Quote, committed

log = logging.getLogger(__name__)
Cell = str | nodes.Node


def table(heads: list[str], rows: list[tuple[str, list[Cell]]]) -> nodes.table:
    """Return a table; each row has an id, empty for none."""
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]

    def line(cells: list[Cell], name: str = "") -> nodes.row:
        row = nodes.row()
        for index, cell in enumerate(cells):
            text = nodes.Text(cell) if isinstance(cell, str) else cell
            holder = nodes.paragraph("", "", text)
            if name and index == 0:
                holder = nodes.paragraph("", "", nodes.inline("", "", text, ids=[name]))
            row += nodes.entry("", holder)
        return row

    group += nodes.thead("", line(list(heads)))
    group += nodes.tbody("", *(line(cells, name) for name, cells in rows))
    return nodes.table("", group, classes=["verification-table"])


def quotes_here() -> list[Quote]:
    """Return every record: what this build measured, then the committed ones."""
    known = committed()
    shown = [STORE.get(name) for name in sorted({name for name, _ in known})]
    live = [quote for quote in shown if quote.live]
    return [*live, *(STORE.get(name, gpu) for name, gpu in known)]


def record_rows(quotes: list[Quote]) -> list[tuple[str, list[Cell]]]:
    """Return one row per record; the first of an experiment and GPU carries the id."""
    rows: list[tuple[str, list[Cell]]] = []
    known = set()
    for quote in quotes:
        made = quote.provenance
        state: Cell = nodes.inline("", "this code", classes=["current"])
        if quote.confirmed and not quote.stale:
            last = quote.confirmed
            text = f"this code: {last['rows']} of the rows again on {last['date']}"
            state = nodes.inline("", text, classes=["current"])
        if quote.stale:
            text = f"earlier code; moved since: {', '.join(quote.stale)}"
            state = nodes.inline("", text, classes=["older"])
        when = f"{made['date']}, in this build" if quote.live else made["date"]
        software = f"driver {made['driver']}, torch {made['torch']}, "
        software += f"triton {made['triton']}"
        cells = [
            nodes.literal("", quote.name),
            quote.gpu,
            when,
            software,
            f"{len(quote.rows)}",
            nodes.literal("", str(made["commit"])[:12]),
            state,
        ]
        rows.append(("" if quote.anchor in known else quote.anchor, cells))
        known.add(quote.anchor)
    return rows


def run_rows(data: dict[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Return one row per test file of one GPU's run."""
    return [
        ("", [nodes.literal("", name), *(f"{counts[k]:,}" for k in runs.OUTCOMES)])
        for name, counts in data["tests"].items()
    ]


def run_summary(data: dict[str, Any]) -> list[nodes.Node]:
    """Return what one GPU's run says besides its counts."""
    same = data["digest"] == runs.code_digest(package_root())
    code = "the code of this build" if same else "an earlier version of this code"
    dirty = ", with uncommitted changes" if data["dirty"] else ""
    text = (
        f"{data['date']}, driver {data['driver']}, torch {data['torch']}, triton "
        f"{data['triton']}, Python {data['python']}, commit {data['commit']}{dirty}. "
        f"It ran {code}."
    )
    found = [
        f"compute-sanitizer {tool['version']} {tool['tool']}: {tool['errors']} errors"
        for tool in data["sanitizer"]
    ]
    paragraphs: list[nodes.Node] = [nodes.paragraph("", text)]
    if found:
        paragraphs.append(nodes.paragraph("", "; ".join(found) + "."))
    return paragraphs


class Verification(SphinxDirective):
    """``{verification} records`` or ``{verification} tests``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kinds = {"records": self.records, "tests": self.tests}
        if self.arguments[0] not in kinds:
            raise self.error(f"choose one of {', '.join(kinds)}")
        return kinds[self.arguments[0]]()

    def records(self) -> list[nodes.Node]:
        """The table of records is filled in once the chapters have run."""
        return [nodes.container(classes=["records"], record_list=True)]

    def tests(self) -> list[nodes.Node]:
        """One section per GPU on which the tests were run."""
        parts: list[nodes.Node] = []
        for path in sorted(package_root().glob(f"records/*/{runs.NAME}")):
            self.env.note_dependency(str(path))
            parts.extend(self.one_run(path))
        return parts or [nodes.paragraph("", "No run on a GPU is on record.")]

    def one_run(self, path: Path) -> list[nodes.Node]:
        try:
            data = runs.read(path)
        except ValueError as error:
            log.warning("%s", error, location=self.get_location(), type="verification")
            return []
        heads = ["tests", *runs.OUTCOMES]
        title = nodes.rubric(
            "", f"Tests on {data['gpu']}", ids=[f"tests-{data['slug']}"]
        )
        return [title, *run_summary(data), table(heads, run_rows(data))]


class ListRecords(SphinxPostTransform):
    """Fill in the table of records."""

    default_priority = 7

    def run(self, **kwargs: Any) -> None:
        heads = ["record", "GPU", "date", "with", "rows", "commit", "code"]
        for holder in list(self.document.findall(nodes.container)):
            if not holder.get("record_list"):
                continue
            rows = record_rows(quotes_here())
            none = nodes.paragraph("", "No measurement is on record.")
            holder += table(heads, rows) if rows else none


def setup(app: Sphinx) -> None:
    """Register the directive and the post-transform."""
    app.add_directive("verification", Verification)
    app.add_post_transform(ListRecords)
