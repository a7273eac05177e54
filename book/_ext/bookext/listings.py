"""Lists of all figures, exercises and claims, each with a link to its place.

``{listing} figures``, ``exercises`` or ``claims`` is filled in when pages are written,
from what Sphinx numbered and what the records say by then. A chapter that the book
shows is in the lists; a draft is not.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node

from bookext.quotes import STORE
from bookext.records import stamped, verified

log = logging.getLogger(__name__)

KINDS = ("figures", "exercises", "claims")
EXERCISE = "ex-"
# A full stop inside a sentence, as in "2.5" or "e.g. one", has no capital after it.
# Nor is that after a single letter one that ends a sentence: "H. Kim".
END = re.compile(r"(?<!\b[A-Z])[.?!](?=\s+[^a-z\s]|\s*$)")

# Kind -> [(id, what is said of it)], in the order of a page; lists by their kinds.
Places = dict[str, list[tuple[str, list[nodes.Node]]]]


def first_sentence(holder: nodes.Element) -> list[nodes.Node]:
    """Return copies of a text's nodes up to the end of its first sentence.

    References become their text: the place has its own link.
    """
    found: list[nodes.Node] = []
    for child in holder.children:
        if isinstance(child, addnodes.pending_xref | nodes.reference):
            number = child.get("reftype") == "numref"
            child = nodes.Text("the figure above" if number else child.astext())
        if not isinstance(child, nodes.Text):
            found.append(child.deepcopy())
            continue
        text = child.astext().replace("\n", " ")
        end = END.search(text)
        # "Fig. 2" doesn't occur in captions; a stop before a node may.
        last = end is not None and (end.end() < len(text) or child is holder[-1])
        found.append(nodes.Text(text[: end.end()] if last else text))
        if last:
            break
    return found


def figures_of(doctree: nodes.document) -> Iterator[tuple[str, list[nodes.Node]]]:
    """Yield a page's figures that can be linked to, with their captions' beginnings."""
    for figure in doctree.findall(nodes.figure):
        caption = figure.next_node(nodes.caption)
        if figure["ids"] and caption is not None:
            yield figure["ids"][0], first_sentence(caption)


def exercises_of(doctree: nodes.document) -> Iterator[tuple[str, list[nodes.Node]]]:
    """Yield a page's exercises with their titles and the names that `check` takes."""
    for node in doctree.findall(nodes.Admonition):
        if not isinstance(node, exercise_node | exercise_enumerable_node):
            continue
        label = node["label"]
        name = label.removeprefix(EXERCISE)
        subtitle = node.next_node(nodes.subtitle)
        title = subtitle.astext().strip() if subtitle is not None else ""
        section = node.parent
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        # A puzzle's exercise is called by its name alone; the section has the title.
        if title in ("", name) and section is not None:
            title = section.next_node(nodes.title).astext()
        said: list[nodes.Node] = [nodes.Text(title)]
        if label.startswith(EXERCISE):
            said += [nodes.Text(", "), nodes.literal("", name)]
        yield node["ids"][0] if node["ids"] else label, said


def claims_of(doctree: nodes.document) -> Iterator[tuple[str, list[nodes.Node]]]:
    """Yield the experiments whose claims a page lists."""
    for holder in doctree.findall(nodes.container):
        if "record_claims" in holder and holder["ids"]:
            yield holder["ids"][0], [nodes.Text(holder["record_claims"])]


class Listed(EnvironmentCollector):
    """Collect what the lists hold of each page."""

    def clear_doc(self, app: Sphinx, env: BuildEnvironment, docname: str) -> None:
        listed(env).pop(docname, None)

    def merge_other(
        self,
        app: Sphinx,
        env: BuildEnvironment,
        docnames: set[str],
        other: BuildEnvironment,
    ) -> None:
        new = {name: x for name, x in listed(other).items() if name in docnames}
        listed(env).update(new)

    def process_doc(self, app: Sphinx, doctree: nodes.document) -> None:
        places: Places = {
            "figures": list(figures_of(doctree)),
            "exercises": list(exercises_of(doctree)),
            "claims": list(claims_of(doctree)),
            "lists": [
                (x["listing"], [])
                for x in doctree.findall(nodes.container)
                if "listing" in x
            ],
        }
        listed(app.env)[app.env.current_document.docname] = places


def listed(env: BuildEnvironment) -> dict[str, Places]:
    """Return what the lists hold, by page."""
    return env.__dict__.setdefault("bookext_listed", {})


def in_order(env: BuildEnvironment) -> list[str]:
    """Return the book's pages in the order of its table of contents."""
    found: dict[str, None] = {}

    def visit(docname: str) -> None:
        if docname not in found and docname in env.found_docs:
            found[docname] = None
            for child in env.toctree_includes.get(docname, ()):
                visit(child)

    visit(env.config.root_doc)
    return [*found, *sorted(env.found_docs - found.keys())]


class Listing(SphinxDirective):
    """Leave a mark where a list goes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in KINDS:
            raise self.error(f"choose one of {', '.join(KINDS)}")
        holder = nodes.container(classes=["listing"], listing=self.arguments[0])
        holder["where"] = self.get_location()
        return [holder]


class FillLists(SphinxPostTransform):
    """Fill in the lists; before numbers are, since a caption may quote one."""

    default_priority = 4

    def run(self, **kwargs: Any) -> None:
        for holder in list(self.document.findall(nodes.container)):
            if "listing" in holder:
                holder += self.filled(holder)

    def filled(self, holder: nodes.container) -> list[nodes.Node]:
        """Return how many there are, then a list for each page that has some."""
        kind = holder["listing"]
        result: list[nodes.Node] = []
        total = pages = 0
        for docname in in_order(self.env):
            entries = listed(self.env).get(docname, {}).get(kind, [])
            items = [x for one in entries for x in self.items(holder, docname, *one)]
            if items:
                total, pages = total + len(items), pages + 1
                title = self.env.titles[docname].astext()
                head = nodes.paragraph(classes=["listing-page"])
                head += nodes.strong("", "", self.link(docname, "", title))
                result += [head, nodes.bullet_list("", *items)]
        noun = kind if total != 1 else kind.removesuffix("s")
        where = "page" if pages == 1 else "pages"
        said = f"{total} {noun} on {pages} {where}." if total else f"No {kind} yet."
        return [nodes.paragraph("", said), *result]

    def items(
        self, holder: nodes.Element, docname: str, name: str, said: list[nodes.Node]
    ) -> list[nodes.list_item]:
        """Return the items of one place: a figure's, an exercise's, all its claims."""
        if holder["listing"] == "claims":
            return self.claims(holder, docname, name, said[0].astext())
        kind = holder["listing"].removesuffix("s")
        number = self.env.toc_fignumbers.get(docname, {}).get(kind, {}).get(name)
        copies = [node.deepcopy() for node in said]
        if number is None:
            text = copies[0].astext() if copies else name
            return [item([self.link(docname, name, text), *copies[1:]])]
        form = self.config.numfig_format.get(kind, f"{kind.capitalize()} %s")
        lead = self.link(docname, name, form % ".".join(map(str, number)))
        return [item([lead, nodes.Text(": "), *copies])]

    def claims(
        self, holder: nodes.Element, docname: str, name: str, experiment: str
    ) -> list[nodes.list_item]:
        """Return an experiment's claims, each with its verdict and its record."""
        try:
            quote = STORE.get(experiment)
        except (OSError, LookupError, ValueError) as error:
            where = holder["where"]
            log.warning("%s: %s", experiment, error, location=where, type="measured")
            return []
        builder, here = self.app.builder, self.env.docname
        items = []
        for text, holds, detail in quote.claims:
            verdict = "Holds" if holds else "Does not hold"
            why = f" ({detail})" if detail else ""
            record = nodes.reference(
                "",
                "",
                nodes.literal("", experiment),
                refuri=verified(builder, here, quote),
                reftitle=quote.stamp,
                internal=True,
            )
            line: list[nodes.Node] = [
                self.link(docname, name, text.rstrip(".") + "."),
                nodes.Text(" "),
                nodes.strong("", f"{verdict} on {quote.gpu}{why}."),
                nodes.Text(" "),
                record,
            ]
            if quote.stale:
                line += [nodes.Text(" "), stamped(builder, here, quote)[0]]
            items.append(item(line, "holds" if holds else "broken"))
        return items

    def link(self, docname: str, name: str, text: str) -> nodes.reference:
        """Return a link to a place of a page, or to the page."""
        page = self.app.builder.get_relative_uri(self.env.docname, docname)
        address = f"{page}#{name}" if name else page
        return nodes.reference("", text, refuri=address, internal=True)


def item(line: Iterable[nodes.Node], name: str = "") -> nodes.list_item:
    """Return a line of a list, of a class if it has a name."""
    holder = nodes.paragraph("", "", *line)
    return nodes.list_item("", holder, classes=[name] if name else [])


def again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write pages with lists again whatever was read: they are of all pages."""
    return [name for name, places in listed(env).items() if places["lists"]]


def setup(app: Sphinx) -> None:
    """Register the directive, the collector and the post-transform."""
    app.add_directive("listing", Listing)
    app.add_env_collector(Listed)
    app.add_post_transform(FillLists)
    app.connect("env-updated", again)
