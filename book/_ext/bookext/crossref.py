"""Chapter, function and source, each a click from the others.

Code that a chapter shows by name gets a line above it: what it is called in the
reference, and which lines of which file it is. Each entry of the reference says in
which section of which chapter it is explained.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.build_phase import BuildPhase

from bookext.api import entry_name, in_reference
from bookext.chapters import BODIES
from bookext.inputs import files_for
from bookext.machine import PACKAGE, package_root

BACK_LINK = re.compile(r'href="[^"#]*#([\w.]+)"(?=>\[docs\])')

# Object -> [(page, section's id, section's title)], in the order of reading.
Places = dict[str, list[tuple[str, str, str]]]


class source_line(nodes.Inline, nodes.TextElement):
    """A link to lines of a module's source page; its address depends on the page."""


class ShownCode(LiteralInclude):
    """``literalinclude`` that says whose lines it shows."""

    def run(self) -> list[nodes.Node]:
        if self.arguments[0].endswith(".py"):
            self.options.setdefault("language", "python")
        shown = super().run()
        path = Path(self.env.relfn2path(self.arguments[0])[1]).resolve()
        name = self.options.get("pyobject")
        root = package_root().resolve()
        if name is None or not path.is_relative_to(root):
            return shown
        inside = path.relative_to(root).with_suffix("").parts
        module = ".".join([PACKAGE, *(part for part in inside if part != "__init__")])
        tags = ModuleAnalyzer.for_file(str(path), module).find_tags()
        if name not in tags:
            return shown
        _, first, last = tags[name]
        holder = nodes.container(classes=["shown-code"], shown=f"{module}.{name}")
        holder += self.bar(module, name, first, last)
        holder += shown
        return [holder]

    def bar(self, module: str, name: str, first: int, last: int) -> nodes.paragraph:
        """Return the line above the code: its name in the reference, its lines."""
        file = module.removeprefix(f"{PACKAGE}.").replace(".", "/")
        where = f"{file}.py, lines {first} to {last}"
        if module not in in_reference:
            text = nodes.inline("", where, classes=["source-line"])
            plain = nodes.paragraph("", "", nodes.literal("", name), text)
            plain["classes"].append("code-bar")
            return plain
        entry: nodes.Element = nodes.literal("", name)
        # What isn't public has no entry.
        if not any(part.startswith("_") for part in name.split(".")):
            entry = addnodes.pending_xref(
                "",
                entry,
                refdomain="py",
                reftype="obj",
                reftarget=f"{module}.{name}",
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
        lines = source_line("", where)
        lines["page"] = "_modules/" + module.replace(".", "/")
        lines["anchor"] = name
        self.set_source_info(entry)
        line = nodes.paragraph("", "", entry, nodes.Text(" "), lines)
        line["classes"].append("code-bar")
        return line


class Explained(EnvironmentCollector):
    """Collect where each object of the package is shown, or else first mentioned."""

    def clear_doc(self, app: Sphinx, env: BuildEnvironment, docname: str) -> None:
        for places in (shown_in(env), mentioned_in(env)):
            for name in list(places):
                places[name] = [x for x in places[name] if x[0] != docname]

    def merge_other(
        self,
        app: Sphinx,
        env: BuildEnvironment,
        docnames: set[str],
        other: BuildEnvironment,
    ) -> None:
        pairs = ((shown_in, shown_in(other)), (mentioned_in, mentioned_in(other)))
        for ours, theirs in pairs:
            for name, places in theirs.items():
                new = [place for place in places if place[0] in docnames]
                ours(env).setdefault(name, []).extend(new)

    def process_doc(self, app: Sphinx, doctree: nodes.document) -> None:
        docname = app.env.current_document.docname
        if not docname.startswith("chapters/"):
            return
        for holder in doctree.findall(nodes.container):
            if "shown" in holder and not folded(holder):
                note(shown_in(app.env), holder["shown"], docname, holder)
        for ref in doctree.findall(addnodes.pending_xref):
            if ref.get("refdomain") == "py" and not folded(ref):
                note(mentioned_in(app.env), ref["reftarget"], docname, ref)


def folded(node: nodes.Node) -> bool:
    """Whether a node is in the body of an exercise or a solution: no link finds it."""
    while node is not None:
        if isinstance(node, nodes.section) and not BODIES.isdisjoint(node["ids"]):
            return True
        node = node.parent
    return False


def shown_in(env: BuildEnvironment) -> Places:
    """Return where the book shows each object's code."""
    return env.__dict__.setdefault("bookext_shown", {})


def mentioned_in(env: BuildEnvironment) -> Places:
    """Return where the book links to each object."""
    return env.__dict__.setdefault("bookext_mentioned", {})


def note(places: Places, name: str, docname: str, node: nodes.Node) -> None:
    """Note that ``node``, in some section of a page, is about the object ``name``."""
    section = node.parent
    while section is not None and not isinstance(section, nodes.section):
        section = section.parent
    if section is None:
        return
    title = section.next_node(nodes.title)
    place = (docname, section["ids"][0], title.astext() if title else docname)
    known = places.setdefault(name, [])
    if place not in known:
        known.append(place)


class LinkSources(SphinxPostTransform):
    """Give each source line its address."""

    default_priority = 20
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        pages = getattr(self.env, "_viewcode_modules", {})
        for line in list(self.document.findall(source_line)):
            page = pages.get(line["page"].removeprefix("_modules/").replace("/", "."))
            if not page or line["anchor"] not in page[2]:
                # What has no entry in the reference has no anchor there either.
                text = nodes.inline("", line.astext(), classes=["source-line"])
                line.parent.replace(line, text)
                continue
            here = self.app.builder.get_relative_uri(self.env.docname, line["page"])
            link = nodes.reference(
                "",
                line.astext(),
                refuri=f"{here}#{line['anchor']}",
                internal=True,
                classes=["source-line"],
            )
            line.parent.replace(line, link)


class SayWhere(SphinxPostTransform):
    """Open each entry of the reference with the sections that explain it."""

    default_priority = 21
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        if not self.env.docname.startswith("book/api/"):
            return
        shown, mentioned = map(self.by_entry, (shown_in, mentioned_in))
        for entry in self.document.findall(addnodes.desc):
            signature = entry.next_node(addnodes.desc_signature)
            if signature is None or not signature.get("ids"):
                continue
            name = signature["ids"][0]
            places = shown.get(name) or mentioned.get(name)
            if places:
                content = entry.next_node(addnodes.desc_content)
                content.insert(0, self.sentence(sorted(set(places))))

    def by_entry(self, known: Callable[[BuildEnvironment], Places]) -> Places:
        """Return places by the name of an object's entry."""
        result: Places = {}
        for name, places in known(self.env).items():
            entry = entry_name(self.env, name)
            if entry:
                result.setdefault(entry, []).extend(places)
        return result

    def sentence(self, places: list[tuple[str, str, str]]) -> nodes.paragraph:
        """Return "Explained in", with a link to each section."""
        line = nodes.paragraph("", "Explained in ", classes=["explained"])
        for index, (docname, section, title) in enumerate(places):
            here = self.app.builder.get_relative_uri(self.env.docname, docname)
            line += nodes.Text(", " if index else "")
            line += nodes.reference(
                "", title, refuri=f"{here}#{section}", internal=True
            )
        line += nodes.Text(".")
        return line


def find_source(app: Sphinx, module: str) -> tuple[str, dict[str, Any]] | None:
    """Give Sphinx the package's source; to find it itself, it would import it.

    Once the pages are read, Sphinx asks only whether there is any.
    """
    files = [path for path, _ in files_for(module)]
    if not files:
        return None
    if app.phase > BuildPhase.READING:
        return "", {}
    analyzer = ModuleAnalyzer.for_file(str(files[-1]), module)
    return analyzer.code, analyzer.find_tags()


def keep_sources(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Leave a source page as it is if it is newer than its source.

    Sphinx can't tell, since it is not told where a module's file is. What has no source
    would be listed without a page, such as the module of an alias of `tuple`.
    """
    known: dict[str, Any] = getattr(app.env, "_viewcode_modules", {})
    for module in list(known):
        page = Path(app.outdir, "_modules", f"{module.replace('.', '/')}.html")
        if not known[module] and not page.exists():
            del known[module]
            continue
        files = [path for path, _ in files_for(module)]
        written = page.stat().st_mtime if files and page.exists() else 0
        if written and files[-1].stat().st_mtime <= written:
            known[module] = False
    return []


def mend_back_links(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Lead each "[docs]" of a source page to the entry that its code has.

    Sphinx takes one name for all of a module: that of the package if it exports any, or
    that of a module which holds an instance of one of its classes.
    """
    if not pagename.startswith("_modules/") or "body" not in context:
        return
    module = pagename.removeprefix("_modules/").replace("/", ".")
    objects = app.env.domains.python_domain.objects

    def mended(match: re.Match[str]) -> str:
        parts = match[1].split(".")
        for depth in range(1, len(parts)):
            entry = objects.get(".".join([module, *parts[depth:]]))
            if entry:
                page = app.builder.get_relative_uri(pagename, entry.docname)
                return f'href="{page}#{entry.node_id}"'
        return match[0]

    context["body"] = BACK_LINK.sub(mended, context["body"])


def setup(app: Sphinx) -> None:
    """Register the directive, the collector and the post-transforms."""
    app.add_node(source_line)
    app.add_directive("literalinclude", ShownCode, override=True)
    app.add_env_collector(Explained)
    app.add_post_transform(LinkSources)
    app.add_post_transform(SayWhere)
    app.connect("viewcode-find-source", find_source)
    app.connect("html-page-context", mend_back_links)
    app.connect("html-collect-pages", keep_sources)
