"""The site as a whole: local MathJax, texts for pictures, previews for links."""

import re
import shutil
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

log = logging.getLogger(__name__)

MATHJAX = "sphinx-mathjax-offline"
OLD_ROLES = re.compile(
    r' role="doc-biblioentry"| role="list"(?= class="citation-list")'
)
# What turns TeX into HTML, in the order in which it is needed. MathJax's own bundle has
# menus, every extension and its loader besides, which is a third more.
PARTS = (
    "core",
    "input/tex-base",
    "[tex]/ams",
    "[tex]/newcommand",
    "[tex]/noundefined",
    "output/chtml",
    "output/chtml/fonts/tex",
    "a11y/assistive-mml",
)
BUNDLE = "tex.js"
FONTS = "output/chtml/fonts/woff-v2"


def mathjax_folder() -> Path:
    """Return where the installed package keeps MathJax."""
    found = metadata.distribution(MATHJAX).locate_file(MATHJAX)
    return Path(str(found)) / "static" / "mathjax"


def bundle(folder: Path) -> str:
    """Return the script that typesets formulas.

    Args:
        folder: where MathJax is.
    """
    names = [part.replace("[tex]", "input/tex/extensions") for part in PARTS]
    files = [folder / f"{name}.js" for name in ("startup", *names)]
    texts = [file.read_text(encoding="utf-8") for file in files]
    # Typesetting starts when this script has ended; nothing is left to be loaded.
    here = ", ".join(repr(name) for name in ("loader", "startup", *PARTS))
    return ";\n".join([*texts, f"MathJax.loader.preLoad({here});\n"])


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put beside the pages what typesets formulas, and the fonts that it asks for."""
    if exception is not None or app.builder.name != "html":
        return
    target = Path(app.outdir, "_static", "mathjax")
    target.mkdir(parents=True, exist_ok=True)
    (target / BUNDLE).write_text(bundle(mathjax_folder()), encoding="utf-8")
    shutil.copytree(mathjax_folder() / FONTS, target / FONTS, dirs_exist_ok=True)


class NeedAlternativeText(SphinxPostTransform):
    """Refuse a picture that says nothing to those who can't see it."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for image in self.document.findall(nodes.image):
            if not image.get("alt", "").strip():
                log.warning(
                    "a figure has no alternative text", location=image, type="alt"
                )


def describe(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Tell who shares a link what the page is: its title and its first sentence."""
    if doctree is None:
        return
    article = doctree.next_node(nodes.section) or doctree
    plain = (x for x in article.findall(nodes.paragraph) if not x["classes"])
    first = next((x for x in plain if isinstance(x.parent, nodes.section)), None)
    text = " ".join(first.astext().split())[:200] if first else app.config.project
    tags = {
        "og:title": app.env.titles[pagename].astext(),
        "og:type": "website",
        "og:url": urljoin(app.config.html_baseurl, f"{pagename}.html"),
        "og:site_name": app.config.project,
        "og:description": text,
    }
    lines = [
        f'<meta property="{name}" content="{escape(value)}">'
        for name, value in tags.items()
    ]
    lines.append(f'<meta name="description" content="{escape(text)}">')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def drop_old_roles(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Leave out the roles of a bibliography that WAI-ARIA has withdrawn."""
    if "body" in context:
        context["body"] = OLD_ROLES.sub("", context["body"])


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", drop_old_roles)
    app.add_post_transform(NeedAlternativeText)
