"""One reference page per module, written before Sphinx looks for pages.

The pages lie in ``book/api``, out of version control: the package is their source. An
object has one entry, under the name by which a reader imports it: that of the
outermost package that exports it, or else of the module that defines it.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from bookext.inputs import files_for
from bookext.kernels import unwrap
from bookext.machine import PACKAGE, package_root

# A chapter's furniture: nobody calls it, and answers are to stay folded.
HIDDEN = {"exercises", "figures", "selftest", "solutions"}

LISTED = re.compile(r"^\.\. automodule:: (\S+)$", re.M)

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


def listed(chapters: Path, drafts: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the modules that have an entry, by page; packages of drafts have none.

    A chapter shows every rung, so all its modules have one. Of the foundation's
    packages a reader uses what they export; how they are built is no reference.
    """
    result = {}
    for path in sorted(package_root().iterdir()):
        inside = (path / "__init__.py").is_file()
        if path.stem.startswith("_") or not (inside or path.suffix == ".py"):
            continue
        if path.stem in drafts:
            continue
        whole = (chapters / f"{path.stem}.md").is_file()
        result[path.stem] = public_modules(path, f"{PACKAGE}.{path.stem}", whole)
    return result


def package_digest(chapters: Path, drafts: Collection[str] = ()) -> str:
    """Return a digest of what the pages are made from."""
    total = hashlib.sha256(Path(__file__).read_bytes())
    names = sorted(path.stem for path in chapters.glob("*.md"))
    total.update(repr([names, sorted(drafts)]).encode())
    for path in sorted(package_root().rglob("*.py")):
        total.update(f"\0{path.relative_to(package_root())}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed and remove those whose module is gone.

    To list what a package exports takes importing it, hence only when it changed.
    """
    folder = Path(app.srcdir, "book", "api")
    chapters = Path(app.srcdir, "chapters")
    mark = Path(app.doctreedir).parent / ".api"
    hidden = [Path(pattern) for pattern in app.config.exclude_patterns]
    drafts = {path.stem for path in hidden if path.parent.name == chapters.name}
    digest = package_digest(chapters, drafts)
    known = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    if folder.is_dir() and not (known == digest and any(folder.glob("*.md"))):
        unwrap()
        wanted = {f"{k}.md": page(v) for k, v in listed(chapters, drafts).items()}
        for path in folder.glob("*.md"):
            if path.name not in wanted:
                path.unlink()
        for name, text in wanted.items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest, encoding="utf-8")
    in_reference.clear()
    for path in folder.glob("*.md"):
        in_reference.update(LISTED.findall(path.read_text(encoding="utf-8")))


def entry_name(env: BuildEnvironment, target: str) -> str | None:
    """Return the name of an object's entry, given the name where it is written.

    A function that a package exports is listed as the package's.
    """
    objects = env.domains.python_domain.objects
    if target in objects:
        return objects[target].node_id
    module, _, name = target.rpartition(".")
    parts = module.split(".")
    names = [".".join([*parts[:depth], name]) for depth in range(len(parts), 0, -1)]
    return next((found for found in names if found in objects), None)


def has_no_entry(target: str) -> bool:
    """Say whether an object exists that the reference leaves out on purpose.

    Type variables are text, and so are modules that nobody imports by themselves.
    """
    module, _, name = target.rpartition(".")
    files = [path for path, _ in files_for(module)]
    base = module.rpartition(".")[2]
    if not files or base not in (files[-1].stem, files[-1].parent.name):
        return False
    source = files[-1].read_text(encoding="utf-8")
    form = rf"^{name} = TypeVar\(" if module in in_reference else rf"\b{name}\b"
    return bool(re.search(form, source, re.M))


def resolve(
    app: Sphinx,
    env: BuildEnvironment,
    node: addnodes.pending_xref,
    content: nodes.TextElement,
) -> nodes.reference | nodes.TextElement | None:
    """Link an object by the name where it is written; leave some without a link."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    entry = entry_name(env, target)
    if entry is None:
        return content if has_no_entry(target) else None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", entry, node, content
    )


def without_values(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    """Show no values: as Python prints them they may hold paths of the builder's.

    `automodule` passes its options on to what it lists, and there `no-value` is
    heeded. But from Sphinx 9 on it takes no such option itself, nor its default.
    """
    options.no_value = True


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", without_values)
    app.connect("missing-reference", resolve)
