"""What a chapter's cached outputs depend on.

The execution cache keys on the text of the cells alone. Here each chapter gets a
hidden last cell with a digest of all else that can change its outputs: the package's
files that it imports, the records it reads, the device, the versions. Edit a kernel,
and the chapters that import it run again; edit prose, and none does.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from bookext.machine import PACKAGE, package_root, surroundings
from bookext.quotes import STORE

log = logging.getLogger(__name__)
TAG = "inputs-digest"
CELL = re.compile(r"^(`{3,}|:{3,})\{code-cell\}[^\n]*\n(.*?)^\1\s*$", re.M | re.S)


def cells_of(text: str) -> list[str]:
    """Return the Python of a chapter's code cells, without options and magics."""
    sources = []
    for match in CELL.finditer(text):
        lines = match[2].splitlines()
        if lines and lines[0].strip() == "---":
            end = next(
                i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"
            )
            lines = lines[end + 1 :]
        kept = [line for line in lines if not re.match(r"^:\w|^\s*[%!]", line)]
        sources.append("\n".join(kept))
    return sources


def parsed(source: str) -> ast.AST:
    """Parse a cell; one that is no Python (it shows a syntax error) imports nothing."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names that code in ``package`` imports, at any depth of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def files_for(name: str) -> Iterator[tuple[Path, str]]:
    """Yield each file that importing ``name`` runs, and the package it runs in."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    root = package_root()
    for depth in range(1, len(parts) + 1):
        here = root.joinpath(*parts[1:depth])
        if (here / "__init__.py").is_file():
            yield here / "__init__.py", ".".join(parts[:depth])
        elif here.with_suffix(".py").is_file():
            yield here.with_suffix(".py"), ".".join(parts[: depth - 1])


def modules_of(trees: list[ast.AST], extra: tuple[str, ...] = ()) -> list[Path]:
    """Return the package's files that code imports, directly or through one another."""
    seen: set[Path] = set()
    names = [name for tree in trees for name in imported(tree, "")] + list(extra)
    while names:
        for path, package in files_for(names.pop()):
            if path not in seen:
                seen.add(path)
                source = path.read_text(encoding="utf-8")
                names.extend(imported(ast.parse(source), package))
    return sorted(seen)


def own_modules(stem: str) -> tuple[str, ...]:
    """Return every module of a chapter's own package.

    Experiments and exercises are found by name while a cell runs, not imported by it.
    """
    folder = package_root() / stem
    inside = [path.stem for path in sorted(folder.glob("*.py"))]
    return tuple(f"{PACKAGE}.{stem}.{name}" for name in inside)


def records_of(trees: list[ast.AST], stem: str) -> list[Path]:
    """Return the records that a chapter reads: its own, and those it names."""
    words = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return [
        path
        for path in sorted(package_root().glob("records/*/*.json"))
        if path.stem in words or path.stem.startswith(f"{stem}-")
    ]


def moved(path: Path) -> str:
    """Return which modules a record's code has moved away from: pages say so."""
    try:
        return " ".join(STORE.get(path.stem, path.parent.name).stale)
    except (LookupError, ValueError) as error:
        return str(error)


def digest(text: str, stem: str) -> tuple[str, list[Path]]:
    """Return the digest of a chapter's inputs and the files it was made from."""
    trees = [parsed(source) for source in cells_of(text)]
    modules = modules_of(trees, own_modules(stem))
    records = records_of(trees, stem)
    total = hashlib.sha256(surroundings().encode())
    for path in [*modules, *records]:
        total.update(f"\0{path.relative_to(package_root())}\0".encode())
        total.update(path.read_bytes())
    for path in records:
        total.update(f"\0{moved(path)}".encode())
    return total.hexdigest()[:16], [*modules, *records]


def add_inputs(app: Sphinx, docname: str, content: list[str]) -> None:
    """Append the hidden cell: at the end, so that warnings name the right lines."""
    if not CELL.search(content[0]):
        return
    value, files = digest(content[0], docname.rpartition("/")[2])
    for path in files:
        app.env.note_dependency(str(path), docname=docname)
    log.debug("%s depends on %d files: %s", docname, len(files), value)
    cell = f"```{{code-cell}} python\n:tags: [remove-cell, {TAG}]\n# {value}\n```\n"
    content[0] = f"{content[0].rstrip()}\n\n{cell}"


def setup(app: Sphinx) -> None:
    """Register the hook."""
    app.connect("source-read", add_inputs)
