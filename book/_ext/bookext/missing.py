"""The page for an address that leads nowhere: a search, and the way to every chapter.

sphinx-notfound-page makes the page and its addresses, which have to be absolute: it is
shown wherever the wrong address would have been.
"""

from html import escape
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx

from bookext.texts import parts

TITLE = "Nothing has this address"
BODY = """\
<h1>{title}</h1>
<p>Perhaps it was mistyped, or cut off where a line ended. Pages of this book keep their
addresses when chapters are added. If a link of the book itself led here, please
<a href="{issues}">say so</a>.</p>
<form class="missing-search" role="search" action="{search}" method="get">
<label for="missing-words">Search the book</label>
<input id="missing-words" type="search" name="q">
<button type="submit">Search</button>
</form>
<p>Or start from <a href="{root}">the front page</a>, or from one of these:</p>
{pages}
"""


def pages(app: Sphinx, base: str) -> str:
    """Return the pages of the table of contents as lists, a part each."""
    blocks = []
    for caption, docnames in parts(app).items():
        if caption == "Optional":
            continue
        items = [
            f'<li><a href="{escape(base + app.builder.get_target_uri(name))}">'
            f"{escape(app.env.titles[name].astext())}</a></li>"
            for name in docnames
            if name != app.config.root_doc
        ]
        if items:
            head = f"<h2>{escape(caption)}</h2>"
            blocks.append(f"<section>{head}<ul>{''.join(items)}</ul></section>")
    return f'<div class="missing-pages">{"".join(blocks)}</div>'


def fill(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Write the page's text in the place of the one it comes with."""
    if pagename != getattr(app.config, "notfound_pagename", None):
        return
    base = app.config.notfound_urls_prefix or "/"
    uri = app.builder.get_target_uri
    context["title"] = TITLE
    context["body"] = BODY.format(
        title=TITLE,
        issues=escape(urljoin(app.config.book_repository + "/", "issues")),
        search=escape(base + uri("search")),
        root=escape(base + uri(app.config.root_doc)),
        pages=pages(app, base),
    )


def setup(app: Sphinx) -> None:
    """Register the hook."""
    app.connect("html-page-context", fill)
