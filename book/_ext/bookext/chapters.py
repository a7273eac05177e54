"""What stands under a chapter's title: the hardware it needs, minutes, its notebook.

A chapter's front matter says ``needs: none``, ``gpu`` or ``sm90``; the rest is found.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

NEEDS = {
    "none": "Runs anywhere",
    "gpu": "Live on a GPU, recorded elsewhere",
    "sm90": "Live on Hopper (sm_90), recorded elsewhere",
}
# Ids that every solution's and every exercise's body comes with.
BODIES = frozenset({"solution-content", "exercise-content"})
# Where a page's metadata keep its length, for the learning path.
MINUTES = "bookext_minutes"
FRAME = re.compile(r"^(?:Cell In\[\d+\]|File )", re.M)
WORDS_PER_MINUTE = 180
# Code is read more slowly than prose, and shown code is read twice.
LINES_PER_MINUTE = 12


def is_read(node: nodes.Node) -> bool:
    """Say whether text is there to be read: not printed by a cell, not folded code."""
    while node.parent is not None:
        node = node.parent
        if node.get("nb_element") == "cell_code_output" or "hide_mode" in node:
            return False
    return True


def minutes(doctree: nodes.document) -> int:
    """Return how long a chapter takes to read, to the next five minutes."""
    words = lines = 0
    for text in filter(is_read, doctree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.literal_block):
            lines += text.count("\n") + 1
        else:
            words += len(text.split())
    total = words / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE
    return max(5, 5 * round(total / 5))


def about(length: int) -> str:
    """Return a reading time as a badge says it."""
    return f"About {length} minutes"


def badge(text: str, kind: str) -> nodes.inline:
    """Return one badge."""
    return nodes.inline("", text, classes=["badge", f"badge-{kind}"])


def add_badges(app: Sphinx, doctree: nodes.document) -> None:
    """Put the line of badges under a chapter's title."""
    docname = app.env.current_document.docname
    if not docname.startswith("chapters/"):
        return
    length = minutes(doctree)
    app.env.metadata[docname][MINUTES] = length
    needs = str(app.env.metadata[docname].get("needs", "")).lower()
    if needs not in NEEDS:
        allowed = ", ".join(NEEDS)
        log.warning(
            "front matter says needs: %r; allowed: %s",
            needs,
            allowed,
            location=docname,
            type="chapter",
        )
        return
    title = doctree.next_node(nodes.title)
    if title is None:
        return
    line = nodes.paragraph(classes=["badges"])
    line += badge(NEEDS[needs], needs)
    line += nodes.Text(" ")
    line += badge(about(length), "minutes")
    line += nodes.Text(" ")
    line += nodes.reference(
        "",
        "Download the executed notebook",
        refuri=f"{docname.rpartition('/')[2]}.ipynb",
        internal=True,
        classes=["badge", "badge-notebook"],
    )
    title.parent.insert(title.parent.index(title) + 1, line)


def say_only_what_failed(app: Sphinx, doctree: nodes.document) -> None:
    """Cut a shown error down to its message: frames name the builder's folders."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "ipythontb":
            text = message_of(block.astext())
            block.rawsource = text
            block.clear()
            block += nodes.Text(text)


def message_of(traceback: str) -> str:
    """Return what stands after a traceback's last frame."""
    frames = list(FRAME.finditer(traceback))
    last = traceback[frames[-1].start() :] if frames else traceback
    return (last.partition("\n\n")[2] or last).strip()


def number_once(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep ids unique: each solution's body comes with the same one.

    Nothing links to those ids, so they go.
    """
    for section in doctree.findall(nodes.section):
        if not isinstance(section.parent, nodes.section | nodes.document):
            section["ids"] = [name for name in section["ids"] if name not in BODIES]


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("doctree-read", add_badges)
    app.connect("doctree-read", say_only_what_failed)
    app.connect("doctree-resolved", number_once)
