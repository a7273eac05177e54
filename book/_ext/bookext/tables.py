"""A record as a table, one tab per GPU; what this build measured comes first."""

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx_design.shared import create_component

from bookext.quotes import STORE, Quote, committed
from bookext.records import FillIn, stamped

# Column -> how a cell is written.
FORMATS = {
    "ms": "{:,.4f}",
    "us": "{:,.2f}",
    "us_per_link": "{:,.2f}",
    "spread": "{:.1%}",
    "gbps": "{:,.0f}",
    "tflops": "{:,.1f}",
    "relative_error": "{:.1e}",
}
HEADS = {
    "impl": "implementation",
    "dtype": "type",
    "gbps": "GB/s",
    "tflops": "TFLOP/s",
    "us": "µs",
    "us_per_link": "µs per link",
    "relative_error": "error",
}
DEFAULT = "impl shape dtype regime us spread gbps"


def words(text: str) -> list[str]:
    """Read an option as words between spaces or commas."""
    return directives.unchanged_required(text).replace(",", " ").split()


class Records(SphinxDirective):
    """``{records} NAME``: its rows, with ``:columns:`` and ``:where: key=value``."""

    required_arguments = 1
    option_spec: ClassVar = {"columns": words, "where": words}

    def run(self) -> list[nodes.Node]:
        holder = nodes.container(classes=["records"])
        holder["record_table"] = self.arguments[0]
        holder["columns"] = self.options.get("columns", DEFAULT.split())
        holder["rows_where"] = [x.partition("=") for x in self.options.get("where", [])]
        holder["where"] = self.get_location()
        return [holder]


def field(row: dict[str, Any], name: str) -> Any:
    """Return a row's field: stored, derived, or from its shape or its extras."""
    if name == "us":
        return row["ms"] * 1e3
    if name == "spread":
        return (row["ms_high"] - row["ms_low"]) / row["ms"]
    if name == "shape":
        return " \N{MULTIPLICATION SIGN} ".join(
            f"{size:,}" for size in row["shape"].values()
        )
    for part in (row, row["shape"], row["extra"]):
        if name in part:
            return part[name]
    raise LookupError(f"rows have no field {name!r}")


def cell(row: dict[str, Any], name: str) -> str:
    """Return a field as a cell of the table."""
    value = field(row, name)
    if value is None:
        return "\N{EN DASH}"
    if name in FORMATS:
        return FORMATS[name].format(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def table_of(rows: list[dict[str, Any]], columns: list[str]) -> nodes.table:
    """Return rows as a table; where peers are among them, ours stand out."""
    peers = not all(row["ours"] for row in rows)
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    head = nodes.row()
    for name in columns:
        head += nodes.entry("", nodes.paragraph("", HEADS.get(name, name)))
    group += nodes.thead("", head)
    body = nodes.tbody()
    for row in rows:
        line = nodes.row(classes=["ours"] if row["ours"] and peers else [])
        for name in columns:
            line += nodes.entry("", nodes.paragraph("", cell(row, name)))
        body += line
    group += body
    return nodes.table("", group, classes=["record-table"])


class FillTables(SphinxPostTransform):
    """Fill in the tables, after the chapters ran and before tabs become HTML."""

    default_priority = 6

    def run(self, **kwargs: Any) -> None:
        for holder in list(self.document.findall(nodes.container)):
            if "record_table" in holder:
                holder += self.filled(holder)

    def filled(self, holder: nodes.container) -> list[nodes.Node]:
        """Return the tabs of one directive, or warn as any other quotation does."""
        fill = FillIn(self.document, self.startnode)
        return fill.guarded(
            holder, holder["record_table"], lambda name: self.tabs(name, holder)
        )

    def tabs(self, name: str, holder: nodes.container) -> list[nodes.Node]:
        """Return one tab per GPU, or the bare table where there is but one."""
        shown = STORE.get(name)
        others = [STORE.get(name, gpu) for found, gpu in committed() if found == name]
        quotes = [shown, *(x for x in others if shown.live or x.slug != shown.slug)]
        bodies = [self.body(quote, holder) for quote in quotes]
        if len(quotes) == 1:
            return bodies[0]
        items = []
        for quote, body in zip(quotes, bodies, strict=True):
            text = f"{quote.gpu}, this build" if quote.live else quote.gpu
            label = nodes.rubric(text, text, classes=["sd-tab-label"])
            content = create_component(
                "tab-content", children=body, classes=["sd-tab-content"]
            )
            items.append(
                create_component(
                    "tab-item", children=[label, content], classes=["sd-tab-item"]
                )
            )
        return [create_component("tab-set", children=items, classes=["sd-tab-set"])]

    def body(self, quote: Quote, holder: nodes.container) -> list[nodes.Node]:
        """Return one GPU's table and its provenance."""
        wanted = holder["rows_where"]
        rows = [
            row
            for row in quote.rows
            if all(str(field(row, key)) == value for key, _, value in wanted)
        ]
        if not rows:
            raise LookupError("no row is left")
        line = nodes.paragraph(classes=["provenance"])
        line += stamped(self.app.builder, self.env.docname, quote)
        return [table_of(rows, holder["columns"]), line]


def setup(app: Sphinx) -> None:
    """Register the directive and the post-transform."""
    app.add_directive("records", Records)
    app.add_post_transform(FillTables)
