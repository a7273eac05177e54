"""The book as an EPUB: the same sources and cached outputs, no JavaScript.

Sphinx's own builder writes what the site's theme and extensions would have in a page.
This one writes pages of its own: XHTML with one style sheet, formulas as MathML, tabs
and folded parts opened out, and links that lead somewhere.
"""

import posixpath
import re
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.epub3 import Epub3Builder
from sphinx.config import Config
from sphinx.errors import SphinxError
from sphinx.highlighting import PygmentsBridge
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator
from sphinx_design.shared import is_component

from bookext.browser import NoBrowserError
from bookext.edition import BASENAME, Edition, cover, edition
from bookext.formulas import Formula, error_in, formula_of, marked_up
from bookext.lean import plain
from bookext.pages import OLD_ROLES

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("epub.css")
PYGMENTS = "a11y-high-contrast-light"
COVER = "_images/cover.png"
SVG = "http://www.w3.org/2000/svg"
PAGE = """\
<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="{lang}" xml:lang="{lang}">
<head>
<meta charset="utf-8" />
<title>{title}</title>
<link rel="stylesheet" type="text/css" href="{up}_static/epub.css" />
<link rel="stylesheet" type="text/css" href="{up}_static/pygments.css" />
</head>
<body>
{body}
</body>
</html>
"""
# What a notebook's tables bring that XHTML doesn't know.
OWN_STYLE = re.compile(r"<style\b[^>]*>.*?</style>", re.S)
VOID = re.compile(r"<(br|hr|img|col|wbr)\b([^>]*?)\s*/?>")
BARE_SVG = re.compile(r"<svg\b(?![^>]*\bxmlns=)")
ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot);)\w+;")
BORDER = re.compile(r'(<table[^>]*?) border="1"')
ITEM = re.compile(r'(<item id="[^"]*" href="([^"]*)" media-type="[^"]*") />')


class Translator(HTML5Translator):
    """Writes a page's body: formulas as MathML, what cells drew as XML."""

    builder: "Epub"

    def visit_math(self, node: nodes.Element) -> None:
        self.body.append(self.builder.formula(node))
        raise nodes.SkipNode

    def visit_math_block(self, node: nodes.Element) -> None:
        self.body.append(self.starttag(node, "div", CLASS="math"))
        if node.get("number"):
            number = escape(get_node_equation_number(self, node))
            self.body.append(f'<span class="eqno">({number})</span>')
        self.body.append(self.builder.formula(node) + "</div>\n")
        raise nodes.SkipNode

    def visit_raw(self, node: nodes.Element) -> None:
        if "html" in node.get("format", "").split():
            self.body.append(as_xml(node))
        raise nodes.SkipNode


def as_xml(node: nodes.Element) -> str:
    """Return HTML that a cell made, fit for a page that is read as XML."""
    text = BORDER.sub(r"\1", OWN_STYLE.sub("", node.astext()))
    text = VOID.sub(r"<\1\2 />", ENTITY.sub(lambda x: unescape(x[0]), text))
    try:
        ElementTree.fromstring(f"<div>{text}</div>")
    except ElementTree.ParseError as error:
        log.warning("HTML that is not XML: %s", error, location=node, type="epub")
        return ""
    return BARE_SVG.sub(f'<svg xmlns="{SVG}"', text)


class Epub(Epub3Builder):
    """Builds ``thinking-in-tiles.epub``."""

    default_translator_class = Translator
    domain_indices: list[Any]

    def init(self) -> None:
        super().init()
        self.use_index = False
        self.formulas: dict[Formula, str] = {}

    def init_highlighter(self) -> None:
        self.highlighter = PygmentsBridge("html", PYGMENTS)
        self.dark_highlighter = None

    def add_css_file(self, filename: str, **kwargs: Any) -> None:
        """Take no one's style sheet."""

    def add_js_file(self, filename: str, **kwargs: Any) -> None:
        """Take no one's script."""

    def prepare_writing(self, docnames: Any) -> None:
        super().prepare_writing(docnames)
        self.domain_indices = []
        found = {
            formula_of(node)
            for docname in docnames
            for kind in (nodes.math, nodes.math_block)
            for node in self.env.get_doctree(docname).findall(kind)
        }
        try:
            self.formulas = marked_up(found)
        except NoBrowserError as error:
            raise SphinxError(f"formulas: {error}") from error

    def formula(self, node: nodes.Element) -> str:
        """Return a formula's MathML; one that is none is a warning."""
        mathml = self.formulas[formula_of(node)]
        if said := error_in(mathml):
            log.warning("formula: %s", said, location=node, type="epub")
        return mathml

    def handle_page(
        self,
        pagename: str,
        addctx: dict[str, Any],
        templatename: str = "page.html",
        **kwargs: Any,
    ) -> None:
        """Write one page; of what no document is, only the cover."""
        said = edition()
        body = OLD_ROLES.sub("", addctx.get("body", ""))
        if "image" in addctx:
            name = escape(f"{said.title}: {said.subtitle}")
            image = escape(addctx["image"])
            body = f'<div class="cover"><img src="{image}" alt="Cover: {name}" /></div>'
        if not body:
            return
        title = re.sub(r"<[^>]*>", "", addctx.get("title", ""))
        page = PAGE.format(
            lang=self.config.language,
            title=title or escape(said.title),
            up="../" * pagename.count("/"),
            body=body,
        )
        path = Path(self.outdir, *f"{pagename}{self.out_suffix}".split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")

    def copy_static_files(self) -> None:
        """Write the style sheets, and nothing of the site's."""
        folder = Path(self.outdir, "_static")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STYLE.name).write_bytes(STYLE.read_bytes())
        (folder / "pygments.css").write_text(
            self.highlighter.get_stylesheet(), encoding="utf-8"
        )

    def copy_extra_files(self) -> None:
        """Leave out what the site has at its root."""

    def gen_pages_from_extensions(self) -> None:
        """Leave out pages of source."""

    def copy_image_files(self) -> None:
        """Copy pictures, rid of what EPUB doesn't take, and draw the cover."""
        super().copy_image_files()
        folder = Path(self.outdir, self.imagedir)
        for path in folder.glob("*.svg"):
            path.write_text(plain(path.read_text(encoding="utf-8")), encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        Path(self.outdir, COVER).write_bytes(cover(edition(), "png"))

    def content_metadata(self) -> dict[str, Any]:
        """Date the book by its source."""
        stamp = edition().date.strftime("%Y-%m-%dT%H:%M:%SZ")
        return super().content_metadata() | {"date": stamp}

    def get_refnodes(
        self, doctree: nodes.Node, result: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Collect the lines of the contents, with the numbers that pages show."""
        known = len(result)
        result = super().get_refnodes(doctree, result)
        number = (
            doctree.get("secnumber") if isinstance(doctree, nodes.Element) else None
        )
        if number and len(result) > known:
            said = ".".join(map(str, number))
            result[known]["text"] = f"{said}. {result[known]['text']}"
        return result

    def get_toc(self) -> None:
        """Collect the pages, each under its plain address."""
        super().get_toc()
        for item in self.refnodes:
            item["refuri"] = posixpath.normpath(item["refuri"])

    def toc_metadata(self, level: int, navpoints: list[Any]) -> dict[str, Any]:
        """Call the book by its identifier, not by the name of that."""
        said = super().toc_metadata(level, navpoints)
        return said | {"uid": escape(self.config.epub_identifier)}

    def build_content(self) -> None:
        """Write the list of files, and say which have formulas or drawings inside."""
        super().build_content()
        path = Path(self.outdir, "content.opf")

        def described(match: re.Match[str]) -> str:
            kinds = ["cover-image"] if match[2] == COVER else []
            if match[2].endswith(self.out_suffix):
                text = Path(self.outdir, match[2]).read_text(encoding="utf-8")
                found = {"mathml": "<math", "svg": "<svg"}
                kinds += [kind for kind, tag in found.items() if tag in text]
            said = f' properties="{" ".join(kinds)}"' if kinds else ""
            return f"{match[1]}{said} />"

        text = path.read_text(encoding="utf-8")
        path.write_text(ITEM.sub(described, text), encoding="utf-8")

    def build_navigation_doc(self) -> None:
        """Write the contents, as a list that does not count its lines."""
        super().build_navigation_doc()
        path = Path(self.outdir, "nav.xhtml")
        style = "<style>ol { list-style: none; padding-left: 1.2em; }</style>"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("</head>", f"{style}</head>", 1), encoding="utf-8")

    def build_epub(self) -> None:
        """Pack the files, dated by the source: the same book is the same bytes."""
        date = edition().date.timetuple()[:6]
        path = Path(self.outdir, f"{self.config.epub_basename}.epub")
        names = ["META-INF/container.xml", "content.opf", "toc.ncx", *self.files]
        with ZipFile(path, "w") as file:
            for name in ("mimetype", *names):
                packed = ZIP_STORED if name == "mimetype" else ZIP_DEFLATED
                file.writestr(
                    ZipInfo(name, date), Path(self.outdir, name).read_bytes(), packed
                )


class OpenOut(SphinxPostTransform):
    """Set tabs one after another and folded parts open; leave hidden code out."""

    # Before what makes HTML of them.
    default_priority = 198
    builders = (Epub.name,)

    def run(self, **kwargs: Any) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code" and cell.get("hide_mode"):
                self.unfold(cell)
        for tabs in list(self.document.findall(lambda x: is_component(x, "tab-set"))):
            del tabs["design_component"]
            for item in tabs.children:
                if is_component(item, "tab-item") and len(item.children) == 2:
                    self.entitle(item, "tab")
        for fold in list(self.document.findall(lambda x: is_component(x, "dropdown"))):
            del fold["design_component"]
            fold["classes"] = ["admonition", "opened"]
            if fold["has_title"]:
                self.entitle(fold, "admonition-title")

    def unfold(self, cell: nodes.container) -> None:
        """Show a cell's outputs; its code if the page folds only these."""
        mode = cell.attributes.pop("hide_mode")
        for part in list(cell.children):
            hidden = mode in ("input", "input+output", "all")
            if hidden and part.get("nb_element") == "cell_code_source":
                cell.remove(part)

    def entitle(self, holder: nodes.Element, name: str) -> None:
        """Turn the rubric that a holder begins with into a line of its own."""
        label = holder[0]
        line = nodes.paragraph("", "", *label.children, classes=[name])
        line["ids"] = label["ids"]
        holder.replace(label, line)


class LeadOut(SphinxPostTransform):
    """Lead links to what the EPUB has not, as source and notebooks, to the site."""

    default_priority = 950
    builders = (Epub.name,)

    def run(self, **kwargs: Any) -> None:
        here = posixpath.dirname(self.env.docname)
        pages = {self.app.builder.get_target_uri(x) for x in self.env.found_docs}
        for link in self.document.findall(nodes.reference):
            path, mark, anchor = link.get("refuri", "").partition("#")
            if not path or urlsplit(path).scheme:
                continue
            target = posixpath.normpath(posixpath.join(here, path))
            if target not in pages:
                suffix = self.app.builder.out_suffix
                if target.endswith(suffix):
                    target = f"{target.removesuffix(suffix)}.html"
                base = self.config.html_baseurl
                link["refuri"] = urljoin(base, target) + mark + anchor
                link["internal"] = False


def describe(app: Sphinx, config: Config) -> None:
    """Set what the EPUB says of itself."""
    said: Edition = edition()
    config.epub_basename = BASENAME
    config.epub_title = f"{said.title}: {said.subtitle}"
    config.epub_author = config.epub_publisher = ", ".join(said.authors)
    config.epub_contributor = config.epub_publisher
    config.epub_description = said.about
    config.epub_copyright = said.rights
    config.epub_identifier, config.epub_uid = said.url, "address"
    config.epub_scheme = "URL"
    config.epub_cover = (COVER, "cover")
    config.epub_show_urls = "no"
    config.epub_tocscope = "includehidden"
    config.epub_tocdepth = 2


def setup(app: Sphinx) -> None:
    """Register the builder, its steps and its settings."""
    app.add_builder(Epub, override=True)
    app.add_post_transform(OpenOut)
    app.add_post_transform(LeadOut)
    app.connect("config-inited", describe)
