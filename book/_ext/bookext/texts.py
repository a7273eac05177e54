"""Each page as Markdown beside it, ``llms.txt`` that lists them, rules for tutors.

A page is converted once it is resolved: its prose, its code with what it printed, its
numbers with what measured them. Where a picture stands there is a note with its
alternative text. Solutions are left out, so that what reads a page to help with an
exercise doesn't have them at hand.
"""

import re
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import solution_node

from bookext.listings import END, in_order
from bookext.notebooks import numbers_on
from bookext.plain import Block, Converter
from bookext.records import OLDER

LLMS = "llms.txt"
TUTOR = "tutor.md"
RULES = Path(__file__).with_name(TUTOR)
SHOWN = {
    LLMS: "every page with a line on what it holds, for language models",
    TUTOR: "how a language model helps with this book's exercises and numbers",
}
LANGUAGES = {"ipython3": "python", "ipython": "python", "myst-ansi": "text"}
LABEL = re.compile(r'aria-label="([^"]*)"')
NO_SOLUTION = "*The page that a browser shows has a folded solution here.*"


class Reader(Converter):
    """Turns one page into Markdown for who reads without a browser."""

    def table(self) -> list[tuple[type | tuple[type, ...], Any]]:
        """Return which method converts which kind of node; first match wins."""
        return [
            (solution_node, lambda node: [NO_SOLUTION]),
            (addnodes.desc, self.entry),
            (nodes.field_name, lambda node: [f"**{self.text_of(node)}**"]),
            *super().table(),
        ]

    def wrapped(self, node: nodes.Node, inside: str) -> str:
        """Give a measured number's link a title: what measured it."""
        classes = node.get("classes", ())
        if "viewcode-link" in classes or "headerlink" in classes:
            return ""
        if isinstance(node, nodes.reference) and "measured" in classes:
            stamp = node.get("reftitle", "").replace('"', "'")
            return f'[{inside}]({self.address(node)} "{stamp}")'
        return super().wrapped(node, inside)

    def image(self, node: nodes.image) -> str:
        """Say what a picture shows."""
        said = " ".join(node.get("alt", "").split())
        return f"*[A picture. {said}]*" if said else "*[A picture.]*"

    def container(self, node: nodes.container) -> list[Block]:
        """A code cell as its source and what came out."""
        if node.get("nb_element") == "cell_code_output":
            return self.output(node)
        return self.inside(node)

    def output(self, node: nodes.Element) -> list[Block]:
        """What a cell printed or drew; of HTML, a note."""
        result = self.inside(node)
        for raw in node.findall(nodes.raw):
            if "html" in raw.get("format", ""):
                labels = [unescape(x) for x in LABEL.findall(raw.astext())]
                said = " ".join(["A table or a drawing.", *labels])
                result.append(f"*[{said}]*")
        printed = any(str(block).startswith("```") for block in result)
        return ["Output:", *result] if printed else result

    def fence(self, node: nodes.literal_block) -> list[Block]:
        """Code under the name of its language that others know, too."""
        known = LANGUAGES.get(node.get("language", ""))
        if known:
            node = node.deepcopy()
            node["language"] = known
        return super().fence(node)

    def entry(self, node: addnodes.desc) -> list[Block]:
        """An entry of the reference: its signatures as code, then what it says."""
        result: list[Block] = []
        for child in node.children:
            if not isinstance(child, addnodes.desc_signature):
                result.extend(self.inside(child))
                continue
            parts = [x for x in child.children if not isinstance(x, nodes.reference)]
            text = "".join(x.astext() for x in parts if not is_link(x))
            result.append(f"`{' '.join(text.split())}`")
        return result


def is_link(node: nodes.Node) -> bool:
    """Say whether a part of a signature is the link to its source."""
    return isinstance(node, nodes.Element) and (
        isinstance(node, addnodes.only | addnodes.pending_xref)
        or "viewcode-link" in node["classes"]
    )


def description(doctree: nodes.document) -> str:
    """Return the first sentence of a page that holds no measured number.

    A number needs its provenance, for which a line has no room.
    """
    for paragraph in doctree.findall(nodes.paragraph):
        links = paragraph.findall(nodes.reference)
        measured = any("measured" in link["classes"] for link in links)
        inside = paragraph.parent
        prose = isinstance(inside, nodes.section | nodes.Admonition | addnodes.desc)
        if prose and not measured and not paragraph["classes"]:
            text = " ".join(paragraph.astext().split())
            end = END.search(text)
            return text[: end.end()] if end else text
    return ""


def page_text(app: Sphinx, docname: str, doctree: nodes.document) -> str:
    """Return a page as Markdown: its title, what it holds, where it is, its text."""
    address = urljoin(app.config.html_baseurl, f"{docname}.html")
    page = doctree.deepcopy()
    for line in list(page.findall(nodes.paragraph)):
        if "badges" in line["classes"]:
            line.parent.remove(line)
    blocks = [str(x) for x in Reader(address, numbers_on(app, docname)).blocks(page)]
    title = app.env.titles[docname].astext()
    at = next((i for i, x in enumerate(blocks) if x.startswith("# ")), None)
    if at is not None:
        blocks.pop(at)
    rules = urljoin(app.config.html_baseurl, TUTOR)
    said = description(page) or f"A page of {app.config.project}."
    head = [f"# {title}", f"> {said}", f"Online: {address}. Rules for tutors: {rules}"]
    return "\n\n".join([*head, *blocks]) + "\n"


def write_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Write a page's Markdown next to it, and say so in its head."""
    if doctree is None or app.builder.name != "html":
        return
    path = Path(app.outdir, *f"{pagename}.md".split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page_text(app, pagename, doctree), encoding="utf-8")
    name = escape(path.name)
    link = f'<link rel="alternate" type="text/markdown" href="{name}">'
    context["metatags"] = context.get("metatags", "") + link + "\n"


def said_of(app: Sphinx, docname: str) -> str:
    """Return the line that a page's Markdown has under its title; empty if none.

    It is read from there because another process may have written it.
    """
    path = Path(app.outdir, *f"{docname}.md".split("/"))
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").split("\n", 3)
    return lines[2].removeprefix("> ")


def parts(app: Sphinx) -> dict[str, list[str]]:
    """Return the book's pages under the captions of its tables of contents."""
    env, root = app.env, app.config.root_doc
    under: dict[str, str] = {root: "Start"}
    for tree in env.get_doctree(root).findall(addnodes.toctree):
        for _, docname in tree["entries"]:
            under.setdefault(docname or "", tree.get("caption") or "Start")
    found: dict[str, list[str]] = {}
    for docname in in_order(env):
        # What no table of the first page has is reached through others: details.
        found.setdefault(under.get(docname, "Optional"), []).append(docname)
    return {k: found[k] for k in sorted(found, key=lambda k: k == "Optional")}


def listing(app: Sphinx) -> str:
    """Return ``llms.txt``: title, a paragraph, every page with a line."""
    base, root = app.config.html_baseurl, app.config.root_doc
    about = said_of(app, root)
    blocks = [
        f"# {app.config.project}",
        f"> {about}",
        "Each page is here as Markdown. A measured number is a link whose title says "
        f"what measured it. [{TUTOR}]({urljoin(base, TUTOR)}) is for who helps a "
        "reader: hints in the book's order, no solutions, numbers with provenance.",
    ]
    for caption, docnames in parts(app).items():
        lines = []
        for docname in docnames:
            said = said_of(app, docname)
            if said:
                title = app.env.titles[docname].astext()
                address = urljoin(base, f"{docname}.md")
                lines.append(f"- [{title}]({address}): {said}")
        if lines:
            blocks += [f"## {caption}", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def rules(app: Sphinx) -> str:
    """Return ``tutor.md`` with this site's addresses."""
    base = app.config.html_baseurl
    return RULES.read_text(encoding="utf-8").format(
        title=app.config.project,
        llms=urljoin(base, LLMS),
        verification=urljoin(base, "book/verification.html"),
        claims=urljoin(base, "book/indexes.html"),
        older=OLDER,
    )


def write_lists(app: Sphinx, exception: Exception | None) -> None:
    """Write what stands at the site's root, once its pages do.

    Raises:
        SphinxError: a page was not written. Sphinx drops what a writing process raises
            while others wait, and ends as if all were well.
    """
    if exception is None and app.builder.name == "html":
        lost = [name for name in in_order(app.env) if not said_of(app, name)]
        if lost:
            raise SphinxError(f"not written: {', '.join(lost)}")
        for name, make in ((LLMS, listing), (TUTOR, rules)):
            Path(app.outdir, name).write_text(make(app), encoding="utf-8")


class Texts(SphinxDirective):
    """``{texts}`` links to the files at the site's root."""

    def run(self) -> list[nodes.Node]:
        up = "../" * self.env.docname.count("/")
        result = nodes.bullet_list()
        for name, said in SHOWN.items():
            link = nodes.reference("", name, refuri=up + name, internal=True)
            line = nodes.paragraph("", "", link, nodes.Text(f": {said}."))
            result += nodes.list_item("", line)
        beside = nodes.paragraph(
            "", "Beside each page there is one that ends in .md instead of .html."
        )
        return [result, beside]


def setup(app: Sphinx) -> None:
    """Register the directive and the hooks."""
    app.add_directive("texts", Texts)
    app.connect("html-page-context", write_page)
    app.connect("build-finished", write_lists)
