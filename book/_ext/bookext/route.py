"""The learning path on a page: a map of all chapters, and ways through them.

``{learning-path}`` lists the chapters by part, with what each needs, how long it
takes and lines from a chapter to those that build on it. ``{way} STEM STEM ...`` is an
ordered list of some. Titles, hardware and minutes come from the chapters themselves;
one that the book doesn't show, because it is a draft or not written, is named without
a link. Both are filled in when the page is written, since all pages are read by then.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from bookext import catalogue, learning
from bookext.catalogue import Catalogue
from bookext.chapters import MINUTES, NEEDS, about
from bookext.places import loaded

STATES = {"shown": "", "draft": "draft", "planned": "planned"}
"""What can be of a chapter, and the mark behind its title."""


class route_part(nodes.General, nodes.Element):
    """A place that is filled in: ``kind`` says with what, ``stems`` with which."""


class Map(SphinxDirective):
    """``{learning-path}``: the map."""

    kind = "map"

    def run(self) -> list[nodes.Node]:
        source = Path(self.env.srcdir)
        try:
            found = path_of(source)
            after = learning.prerequisites(source, list(found.path))
            self.look(found, after)
        except ValueError as error:
            raise self.error(str(error)) from error
        part = route_part(kind=self.kind, stems=self.stems())
        self.set_source_info(part)
        return [part]

    def stems(self) -> list[str]:
        """Return the stems that the page names."""
        return self.arguments[0].split() if self.arguments else []

    def look(self, found: Catalogue, after: dict[str, list[str]]) -> None:
        """Raise a ValueError if what the page names can't be."""


class Way(Map):
    """``{way} STEM STEM ...``: chapters to read one after the other."""

    kind = "way"
    required_arguments = 1
    final_argument_whitespace = True

    def look(self, found: Catalogue, after: dict[str, list[str]]) -> None:
        """Refuse a chapter that isn't in the path, and one that comes too early."""
        stems = self.stems()
        for index, stem in enumerate(stems):
            if stem not in found.path:
                raise ValueError(f"{stem!r} is not in the learning path")
            missing = [x for x in after.get(stem, ()) if x not in stems[:index]]
            if missing:
                raise ValueError(f"{stem} needs {', '.join(missing)} before it")


def path_of(source: Path) -> Catalogue:
    """Return the data that hold the learning path, read once."""
    file = source / "book" / catalogue.NAME
    return loaded(catalogue.load, file, file.stat().st_mtime_ns)


def by_part(path: Sequence[str], parts: dict[str, str]) -> dict[str, list[str]]:
    """Return the chapters of each part, of which the first of each is known."""
    starts = {stem: title for title, stem in parts.items()}
    found: dict[str, list[str]] = {}
    title = ""
    for stem in path:
        title = starts.get(stem, title)
        found.setdefault(title, []).append(stem)
    return found


class FillIn(SphinxPostTransform):
    """Fill in the map and the ways."""

    default_priority = 22

    def run(self, **kwargs: Any) -> None:
        places = list(self.document.findall(route_part))
        if not places:
            return
        self.source = Path(self.env.srcdir)
        self.list = path_of(self.source)
        self.after = learning.prerequisites(self.source, list(self.list.path))
        for place in places:
            make = self.map if place["kind"] == "map" else self.way
            place.replace_self(make(place["stems"]))

    # Of one chapter

    def docname(self, stem: str) -> str:
        """Return the page of a chapter or an appendix; empty if the book has none."""
        names = (f"chapters/{stem}", f"book/{stem}")
        return next((x for x in names if x in self.env.found_docs), "")

    def state(self, stem: str) -> str:
        """Return one of `STATES`."""
        if self.docname(stem):
            return "shown"
        return "draft" if stem in self.after else "planned"

    def title(self, stem: str) -> list[nodes.Node]:
        """Return a chapter's title: a link, or what it is instead of one."""
        docname = self.docname(stem)
        if docname:
            text = self.env.titles[docname].astext()
            page = self.app.builder.get_relative_uri(self.env.docname, docname)
            return [nodes.reference("", text, refuri=page, internal=True)]
        text, mark = self.list.path[stem], STATES[self.state(stem)]
        name = nodes.inline("", text, classes=["unwritten"])
        return [name, nodes.Text(" "), nodes.inline("", mark, classes=["planned"])]

    def facts(self, stem: str) -> nodes.paragraph:
        """Return what a written chapter needs and how long it takes."""
        line = nodes.paragraph(classes=["map-facts"])
        page = self.source / "chapters" / f"{stem}.md"
        needs = str(learning.front_matter(page).get("needs", "")).lower()
        if needs in NEEDS:
            line += nodes.inline("", NEEDS[needs], classes=[f"needs-{needs}"])
        length = self.env.metadata[self.docname(stem)].get(MINUTES)
        if length:
            line += nodes.Text(f". {about(length)}")
        titles = [self.list.path[x] for x in self.after[stem]]
        if titles:
            line += nodes.Text(f". After: {'; '.join(titles)}")
        line += nodes.Text(".")
        return line

    # The parts of the page

    def way(self, stems: list[str]) -> list[nodes.Node]:
        """Return an ordered list of chapters."""
        result = nodes.enumerated_list(enumtype="arabic", prefix="", suffix=".")
        result["classes"].append("way")
        for stem in stems:
            line = nodes.paragraph("", "", *self.title(stem))
            result += nodes.list_item("", line)
        return [result]

    def map(self, stems: list[str]) -> list[nodes.Node]:
        """Return the map: parts, in each its chapters; unwritten ones share a row."""
        rows: list[tuple[str, list[str]]] = []  # What the row is, the chapters in it.
        for part, those in by_part(list(self.list.path), self.list.parts).items():
            rows.append((part, []))
            groups = itertools.groupby(those, lambda x: self.state(x) == "planned")
            for planned, names in groups:
                together = [list(names)] if planned else [[x] for x in names]
                rows += [("planned" if planned else "", x) for x in together]
        drawn = ["" if kind else names[0] for kind, names in rows]
        lines = learning.rails(drawn, learning.reduced(self.after))
        result = nodes.bullet_list()
        for (kind, names), pieces in zip(rows, lines.rows, strict=True):
            if not names:
                name = nodes.strong("", kind)
                head = nodes.paragraph("", "", rail_of(pieces, ""), name)
                inside = nodes.bullet_list()
                result += nodes.list_item("", head, inside, classes=["map-part"])
                continue
            inside += self.row(kind, names, pieces)
        return [learning_map("", result, lanes=lines.lanes)]

    def row(
        self, kind: str, names: list[str], pieces: list[tuple[int, str]]
    ) -> nodes.list_item:
        """Return a row: one chapter with its facts, or those that are planned."""
        if kind == "planned":
            line = nodes.paragraph("", "Planned: ")
            for index, name in enumerate(names):
                line += nodes.Text("; " if index else "")
                text = self.list.path[name]
                line += nodes.inline("", text, classes=["unwritten"])
            item = nodes.list_item("", rail_of(pieces, ""), line)
            item["classes"].append("map-planned")
            return item
        [stem] = names
        state = self.state(stem)
        item = nodes.list_item("", rail_of(pieces, state))
        item["classes"].append("map-chapter")
        item += nodes.paragraph("", "", *self.title(stem), classes=["map-title"])
        if stem in self.after:
            item += self.facts(stem)
        return item


class learning_map(nodes.container):
    """The map, with the number of its lanes."""


def visit_map(self: HTML5Translator, node: learning_map) -> None:
    """Begin the map."""
    style = f"--lanes: {node['lanes']}"
    named = {"aria-label": "Learning path"}
    self.body.append(
        self.starttag(node, "nav", CLASS="learning-path", style=style, **named)
    )


def depart_map(self: HTML5Translator, node: learning_map) -> None:
    """End it."""
    self.body.append("</nav>\n")


def rail_of(pieces: list[tuple[int, str]], state: str) -> nodes.raw:
    """Return what is drawn beside a row: its pieces of lines, and a dot for a state."""
    drawn = [
        f'<i class="{"straight" if lane == 0 else "lane"} {way}" '
        f'style="--lane: {lane}"></i>'
        for lane, way in pieces
    ]
    dot = f'<b class="dot {state}"></b>' if state else ""
    return html(f'<span class="rail" aria-hidden="true">{"".join(drawn)}{dot}</span>')


def html(text: str) -> nodes.raw:
    """Return a piece of HTML; other formats leave it out."""
    return nodes.raw("", text, format="html")


def again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the first page again whatever was read: it is of all chapters."""
    return [env.config.root_doc]


def setup(app: Sphinx) -> None:
    """Register the node, the directives and the transform."""
    app.add_node(route_part)
    app.add_node(learning_map, html=(visit_map, depart_map))
    app.add_directive("learning-path", Map)
    app.add_directive("way", Way)
    app.add_post_transform(FillIn)
    app.connect("env-updated", again)
