"""One reference page per module, written before Sphinx looks for pages.

The pages lie in ``book/api``, out of version control: the package is their source. An
object has one entry, under the name by which a reader imports it: that of the
outermost package that exports it, or else of the module that defines it.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from bookext.inputs import PACKAGE, package_root

# Chapters show answers folded; a reference page would give them away.
HIDDEN = {"solutions"}

in_reference: set[str] = set()


def public_modules(path: Path, name: str, whole: bool) -> list[str]:
    """Return a module's dotted name and those of the public modules inside it.

    Args:
        path: the module's file or folder.
        name: its dotted name.
        whole: whether all modules inside count, or only those that are exported.
    """
    names = [name]
    exported = getattr(importlib.import_module(name), "__all__", ())
    for inner in sorted(path.iterdir()) if path.is_dir() else []:
        stem = inner.stem
        if stem.startswith("_") or stem in HIDDEN or not (whole or stem in exported):
            continue
        if inner.suffix == ".py" or (inner / "__init__.py").is_file():
            names.extend(public_modules(inner, f"{name}.{stem}", whole))
    return names


def origin(value: Any) -> tuple[str, str]:
    """Return the module and name under which a function or class was written."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    return (module, name) if isinstance(module, str) and name else ("", "")


def entry_of(module: str, name: str) -> str:
    """Return the module under which the reference lists a function or class."""
    value = getattr(sys.modules[module], name)
    packages = module.split(".")[:-1]
    for depth in range(1, len(packages) + 1):
        package = ".".join(packages[:depth])
        exported = getattr(sys.modules[package], "__all__", ())
        if name in exported and getattr(sys.modules[package], name) is value:
            return package
    return module


def listed_elsewhere(module: ModuleType) -> list[str]:
    """Return the names in a module's reach whose entry belongs on another page."""
    names = []
    for name in sorted({*vars(module), *getattr(module, "__all__", ())}):
        home, written = origin(getattr(module, name))
        known = home.partition(".")[0] == PACKAGE and home in sys.modules
        if not known or not hasattr(sys.modules[home], written):
            continue
        if entry_of(home, written) != module.__name__ or written != name:
            names.append(name)
    return names


def page(names: list[str]) -> str:
    """Return the text of one module's page."""
    parts = []
    for name in names:
        level = "#" if name == names[0] else "##"
        parts.append(f"{level} {name.removeprefix(PACKAGE + '.')}\n")
        directive = f".. automodule:: {name}\n   :members:\n"
        elsewhere = listed_elsewhere(importlib.import_module(name))
        if elsewhere:
            directive += f"   :exclude-members: {', '.join(elsewhere)}\n"
        parts.append(f"```{{eval-rst}}\n{directive}```\n")
    return "\n".join(parts)


def listed(chapters: Path) -> dict[str, list[str]]:
    """Return the modules that have an entry, by page.

    A chapter shows every rung, so all its modules have one. Of the foundation's
    packages a reader uses what they export; how they are built is no reference.
    """
    result = {}
    for path in sorted(package_root().iterdir()):
        inside = (path / "__init__.py").is_file()
        if path.stem.startswith("_") or not (inside or path.suffix == ".py"):
            continue
        whole = (chapters / f"{path.stem}.md").is_file()
        result[path.stem] = public_modules(path, f"{PACKAGE}.{path.stem}", whole)
    return result


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed and remove those whose module is gone."""
    folder = Path(app.srcdir, "book", "api")
    if not folder.is_dir():
        return
    modules = listed(Path(app.srcdir, "chapters"))
    in_reference.update(name for names in modules.values() for name in names)
    wanted = {f"{stem}.md": page(names) for stem, names in modules.items()}
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def resolve_plainly(
    app: Sphinx,
    env: BuildEnvironment,
    node: addnodes.pending_xref,
    content: nodes.TextElement,
) -> nodes.TextElement | None:
    """Leave a name without a link where it has no entry by intention.

    Type variables and modules outside the reference appear in signatures and above
    code that a chapter shows; they are text there.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    module, _, name = target.rpartition(".")
    if module in sys.modules and hasattr(sys.modules[module], name):
        variable = isinstance(getattr(sys.modules[module], name), TypeVar)
        return content if variable or module not in in_reference else None
    return None


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", resolve_plainly)
