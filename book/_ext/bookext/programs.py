"""Which kernels run in the pages, and the programs that do it.

A file of ``book/programs`` stands for a chapter: functions that make inputs, launch a
kernel, their only parameter, and compare; and ``MODULES``, the modules of the chapter
with the functions for the kernels shown there. A kernel's program is its source with
all that it needs, and under it the function's body. Where a page shows the kernel it
gets a mark for ``_static/run/run.js``, which fetches the program when it is asked for.

All that is there only where `make browser-runtime` has left a runtime.
"""

import ast
import functools
import hashlib
import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from bookext import runtime
from bookext.machine import PACKAGE
from bookext.whole import whole

FOLDER = Path(__file__).parents[2] / "programs"
BENCH = "tilebook.browser.bench"
SCRIPT = "run/run.js"
SHEET = "run/run.css"


SCRATCH = "scratch.start"
FIRST = "tilebook.parallel.masked.add_kernel"
"""What the page for any kernel begins with."""


class runnable(nodes.General, nodes.Element):
    """The place under code from which it is run."""


class progress(nodes.General, nodes.Element):
    """The place that says how many puzzles are solved."""


def stems() -> tuple[str, ...]:
    """Return the chapters that have programs."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py")))


def bodies(stem: str) -> dict[str, tuple[str, str]]:
    """Return a chapter's functions: the kernel each takes, and its body as text."""
    text = (FOLDER / f"{stem}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            # A comment before the first statement belongs to the body.
            first = node.lineno
            while not lines[first - 1].rstrip().endswith(":"):
                first += 1
            body = textwrap.dedent("\n".join(lines[first : node.end_lineno]))
            found[node.name] = (node.args.args[0].arg, body)
    return found


def modules(stem: str) -> dict[str, tuple[str, ...]]:
    """Return which functions go with which of a chapter's modules."""
    text = (FOLDER / f"{stem}.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES":
            known = ast.literal_eval(node.value)
            return {
                name: (x,) if isinstance(x, str) else tuple(x)
                for name, x in known.items()
            }
    raise LookupError(f"programs/{stem}.py has no MODULES")


@functools.cache
def places() -> dict[str, tuple[str, str, str]]:
    """Return each kernel that runs: chapter, module and function, by its full name."""
    found = {}
    for stem in stems():
        known = bodies(stem)
        for module, functions in modules(stem).items():
            for function in functions:
                kernel = known[function][0]
                full = f"{PACKAGE}.{stem}.{module}".removesuffix(".")
                found[f"{full}.{kernel}"] = (stem, full, function)
    return found


def imports_for(body: str) -> list[str]:
    """Return the imports that a body needs beside Triton's."""
    from tilebook.browser import bench

    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    ours = sorted(used & set(bench.__all__))
    lines = ["import numpy as np"] if "np" in used else []
    lines += [f"from {BENCH} import {', '.join(ours)}"] if ours else []
    return lines


def program(name: str) -> str:
    """Return the program that runs a kernel.

    Args:
        name: the kernel's full name.

    Raises:
        KeyError: no file of ``book/programs`` has it.
        NotWhole: the kernel needs what can't be in a page.
    """
    stem, module, function = places()[name]
    kernel, body = bodies(stem)[function]
    text = whole(module, kernel)
    head, _, rest = text.partition("\n\n")
    plain = [x for x in imports_for(body) if not x.startswith("from tilebook")]
    ours = [x for x in imports_for(body) if x.startswith("from tilebook")]
    lines = sorted({*head.splitlines(), *plain})
    return "\n".join([*lines, "", *ours]) + f"\n\n{rest.rstrip()}\n\n\n{body}\n"


def puzzle_program(name: str) -> str:
    """Return the program in which a puzzle is solved."""
    from tilebook.puzzles import puzzle

    one = puzzle(name)
    return (
        "import triton\nimport triton.language as tl\n\n"
        "from tilebook.testing import check\n\n\n"
        f'{one.stub}\n\ncheck("{name}", {one.kernel})\n'
    )


def short(name: str) -> str:
    """Return what a page calls a kernel: its full name without the package's."""
    return name.removeprefix(f"{PACKAGE}.")


def every_program() -> Iterator[tuple[str, str]]:
    """Yield all programs by what pages call them."""
    from tilebook.puzzles import PUZZLES

    for name in places():
        yield short(name), program(name)
    yield SCRATCH, program(FIRST)
    for one in PUZZLES:
        yield one.name, puzzle_program(one.name)


def mark(name: str, what: str = "") -> runnable:
    """Return the place from which something is run.

    Args:
        name: what the page calls the program.
        what: for a name of its own, what is run.
    """
    return runnable(program=name, what=what or name.rpartition(".")[2])


def add_marks(app: Sphinx, doctree: nodes.document) -> None:
    """Put a place under each kernel that a page shows and that can be run."""
    if not runtime.present():
        return
    for holder in list(doctree.findall(nodes.container)):
        if holder.get("shown") in places():
            holder += mark(short(holder["shown"]))


class Runnable(SphinxDirective):
    """``{runnable} puzzle-08``: the code above is run, or solved, in the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [mark(self.arguments[0])] if runtime.present() else []


class Scratch(SphinxDirective):
    """``{scratch}``: a place for any kernel, or a word on why there is none."""

    def run(self) -> list[nodes.Node]:
        if runtime.present():
            return [mark(SCRATCH, "your program")]
        said = "This build of the book runs no kernels in its pages."
        return [nodes.paragraph("", said)]


class Progress(SphinxDirective):
    """``{solved-puzzles}``: how many puzzles are solved, and a notebook of them."""

    def run(self) -> list[nodes.Node]:
        return [progress()] if runtime.present() else []


class IfRunnable(SphinxDirective):
    """``{if-runnable}``: what to say only where kernels run in the page."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return self.parse_content_to_nodes() if runtime.present() else []


def visit_progress(writer: HTML5Translator, node: progress) -> None:
    """Write an empty place, which the script fills."""
    if writer.builder.name == "html":
        writer.body.append('<div class="run-bar run-progress"></div>\n')


def visit_html(writer: HTML5Translator, node: runnable) -> None:
    """Write an empty place, which the script fills."""
    if writer.builder.name == "html":
        name = writer.attval(node["program"])
        what = writer.attval(node["what"])
        writer.body.append(f'<div class="run-place" data-run="{name}"')
        writer.body.append(f' data-what="{what}"></div>\n')


def leave(writer: nodes.NodeVisitor, node: runnable) -> None:
    """There is nothing inside."""


def add_script(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Have a page load the script if anything on it can be run."""
    if doctree is None or app.builder.name != "html" or not runtime.present():
        return
    if doctree.next_node(runnable) is not None:
        app.add_css_file(SHEET)
        attributes = {"data-version": version()}
        app.add_js_file(SCRIPT, loading_method="defer", **attributes)


@functools.cache
def version() -> str:
    """Return a digest of all that a page fetches to run something."""
    total = hashlib.sha256(runtime.manifest().encode())
    total.update(runtime.package())
    for name, text in every_program():
        total.update(f"{name}\0{text}\0".encode())
    return total.hexdigest()[:12]


def write_all(app: Sphinx, exception: Exception | None) -> None:
    """Put the runtime and the programs beside the pages."""
    if exception is not None or app.builder.name != "html" or not runtime.present():
        return
    target = Path(app.outdir, "_static", "runtime")
    shutil.rmtree(target, ignore_errors=True)
    runtime.copy(target)
    texts: dict[str, dict[str, str]] = {}
    for name, text in every_program():
        group = name.partition(".")[0] if "." in name else "puzzles"
        texts.setdefault(group, {})[name] = text
    (target / "programs").mkdir()
    for group, programs in texts.items():
        text = json.dumps(programs, indent=0)
        (target / "programs" / f"{group}.json").write_text(text, encoding="utf-8")


def outdated(app: Sphinx, env: Any, added: set, changed: set, removed: set) -> list:
    """Write the places anew where the runtime has come or gone since they were read."""
    was = env.__dict__.get("bookext_runtime")
    now = runtime.present()
    env.__dict__["bookext_runtime"] = now
    if was is None or was == now:
        return []
    return [x for x in env.found_docs if x.startswith("chapters/") or "book/" in x]


def setup(app: Sphinx) -> None:
    """Register the directive, its node and the hooks."""
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (leave, leave))
    app.add_node(runnable, html=(visit_html, leave), **others)
    app.add_node(progress, html=(visit_progress, leave), **others)
    app.add_directive("runnable", Runnable)
    app.add_directive("scratch", Scratch)
    app.add_directive("solved-puzzles", Progress)
    app.add_directive("if-runnable", IfRunnable)
    app.connect("doctree-read", add_marks)
    app.connect("env-get-outdated", outdated)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", write_all)
