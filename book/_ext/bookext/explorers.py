"""Figures that a reader operates: ``{explorer} NAME``, with a caption for its content.

The page holds a still picture, its description and a table: what there is without
JavaScript, in print, in an EPUB and in the page's Markdown. Beside it lie data, with
which the scripts in ``_static/explorers`` put a live figure in its place. A page loads
those of its own figures.
"""

import json
from html import escape
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from bookext.explored import FIGURES

FOLDER = "explorers"
SHARED = "frame"
# What a figure shows depends on these, beside the page.
MODULES = {
    "launch-orders": ("tiling.grouped", "tiling.orders"),
    "layouts": ("tiling.linear",),
    "online-softmax": ("softmax.recurrence",),
    "phases": ("hopper.phases",),
}


class explorer(nodes.General, nodes.Element):
    """What stands in the page for a live figure: its words and its table."""


def table_of(rows: list[list[str]]) -> nodes.table:
    """Return rows of texts as a table, the first of them as its head."""
    group = nodes.tgroup(cols=len(rows[0]))
    group += [nodes.colspec(colwidth=1) for _ in rows[0]]
    lines = [
        nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in row))
        for row in rows
    ]
    group += [nodes.thead("", lines[0]), nodes.tbody("", *lines[1:])]
    return nodes.table("", group)


class Explorer(SphinxDirective):
    """Put a figure that can be operated into a page."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FIGURES:
            raise self.error(f"choose one of {', '.join(FIGURES)}")
        caption = " ".join(self.content)
        if not caption or "name" not in self.options:
            raise self.error("a figure needs a caption and a name")
        self.note_inputs(name)
        made = FIGURES[name]()
        data = json.dumps(made.data, separators=(",", ":"))
        holder = explorer(explorer=name, data=data, svg=made.svg)
        said = f"[A figure to operate in a browser. {made.words}]"
        holder += nodes.paragraph(
            "", "", nodes.emphasis("", said), classes=["explorer-words"]
        )
        holder += table_of(made.rows)
        inline, messages = self.parse_inline(caption)
        figure = nodes.figure("", holder, classes=["explorer-figure"])
        figure += nodes.caption(caption, "", *inline)
        self.set_source_info(figure)
        self.add_name(figure)
        return [figure, *messages]

    def note_inputs(self, name: str) -> None:
        """Have the page read again when the package's functions change."""
        from bookext.inputs import files_for
        from bookext.machine import PACKAGE

        for module in MODULES[name]:
            for path, _ in files_for(f"{PACKAGE}.{module}"):
                self.env.note_dependency(str(path))


def visit_html(writer: HTML5Translator, node: explorer) -> None:
    """Write the still picture; the words and the table follow."""
    name = escape(node["explorer"])
    writer.body.append(f'<div class="explorer" data-explorer="{name}">\n')
    writer.body.append(f'<div class="explorer-still">\n{node["svg"]}\n')


def depart_html(writer: HTML5Translator, node: explorer) -> None:
    """Write what the script is given, except into a book that runs none."""
    writer.body.append("</div>\n")
    if writer.builder.name != "epub":
        # Within a script, "</" would end it.
        data = node["data"].replace("</", "<\\/")
        writer.body.append(f'<script type="application/json">{data}</script>\n')
    writer.body.append("</div>\n")


def bare(writer: nodes.NodeVisitor, node: explorer) -> None:
    """Leave it to what is inside."""


def add_scripts(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Have a page load what its figures need."""
    shown = {node["explorer"] for node in doctree.findall(explorer)} if doctree else ()
    if not shown or app.builder.name == "epub":
        return
    app.add_css_file(f"{FOLDER}/{FOLDER}.css")
    for name in (SHARED, *sorted(shown)):
        app.add_js_file(f"{FOLDER}/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> None:
    """Register the directive, its node and the hook."""
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (bare, bare))
    app.add_node(explorer, html=(visit_html, depart_html), **others)
    app.add_directive("explorer", Explorer)
    app.connect("html-page-context", add_scripts)
