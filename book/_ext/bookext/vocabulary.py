"""The operations of Triton's two languages, and which the package's kernels use.

Groups and what is said of an operation are data, ``operations.yaml``. Whether there is
such an operation is asked of the installed Triton, and who uses it of the syntax trees
of the kernels, none of which runs.
"""

import ast
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from packaging.version import Version

from bookext.machine import PACKAGE

NAME = "operations.yaml"
ROOTS = {"tl": "triton.language", "gl": "triton.experimental.gluon.language"}
GENERAL = ("reason", "planned")
NOTES = {"since", "removed", "reason", "planned"}
Has = Callable[[str], bool]
# Operation -> [(module, function)], in the order of files and lines.
Uses = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Args:
        name: the name as kernels write it, such as ``"tl.load"``.
        here: whether the Triton at hand has it, in a form that works.
        since: the first version that has it; empty where all supported ones do.
        removed: the first version that lacks it, or where it raises.
        reason: why no chapter teaches it.
        planned: the stem of the chapter that is to teach it.
    """

    name: str
    here: bool
    since: str = ""
    removed: str = ""
    reason: str = ""
    planned: str = ""


@dataclass
class Vocabulary:
    """All operations, by group, and the names that are none."""

    version: str
    groups: dict[str, list[Operation]]
    apart: set[str]
    ours: dict[str, str] = field(default_factory=dict)

    def operations(self) -> dict[str, Operation]:
        """Return every operation by its name."""
        return {one.name: one for group in self.groups.values() for one in group}

    def lookup(self, dotted: str) -> str:
        """Return the operation that a dotted name is of; empty if there is none.

        ``tl.extra.libdevice.sin`` is of ``tl.extra.libdevice``.
        """
        known = self.operations()
        parts = self.ours.get(dotted, dotted).split(".")
        names = (".".join(parts[:depth]) for depth in range(len(parts), 1, -1))
        return next((name for name in names if name in known), "")


@cache
def find(name: str) -> Any:
    """Return what a name such as ``"tl.load"`` is in the installed Triton, or None."""
    root, *parts = name.split(".")
    dotted = ROOTS[root]
    found: Any = importlib.import_module(dotted)
    for part in parts:
        dotted = f"{dotted}.{part}"
        inner = getattr(found, part, None)
        if inner is None and isinstance(found, ModuleType):
            try:
                inner = importlib.import_module(dotted)
            except ModuleNotFoundError:
                return None
        found = inner
    return found


def has(name: str) -> bool:
    """Say whether the installed Triton has something of this name."""
    return find(name) is not None


def public(module: str) -> list[str]:
    """Return the names that a module offers kernels; none if there is no such module.

    Modules inside don't count, nor names that a module without ``__all__`` imported
    from outside Triton.
    """
    found = find(module)
    if found is None:
        return []
    names = getattr(found, "__all__", None) or vars(found)
    good = []
    for name in dict.fromkeys(sorted(names)):
        value = getattr(found, name, None)
        home = getattr(value, "__module__", "triton")
        if name.startswith("_") or value is None or isinstance(value, ModuleType):
            continue
        if str(home).startswith("triton"):
            good.append(f"{module}.{name}")
    return good


def words(text: Any, where: str) -> list[str]:
    """Return the words of a field, or raise a ValueError that says where it is."""
    if not isinstance(text, str) or not text.split():
        raise ValueError(f"{where}: wants names with spaces between, got {text!r}")
    return text.split()


def operation_of(name: str, note: dict[str, str], version: str, has: Has) -> Operation:
    """Return an operation, its note checked against the installed Triton.

    Raises:
        ValueError: the note has an unknown field, or contradicts what is installed.
    """
    if not isinstance(note, dict) or set(note) - NOTES:
        raise ValueError(f"{name}: a note has {', '.join(sorted(NOTES))}")
    if not all(isinstance(text, str) and text for text in note.values()):
        raise ValueError(f"{name}: a note's fields are texts, versions in quotes")
    now = Version(Version(version).base_version)
    late = "since" in note and now < Version(note["since"])
    gone = "removed" in note and now >= Version(note["removed"])
    if late and has(name):
        raise ValueError(f"{name}: is in triton {version}, not since {note['since']}")
    if not (late or gone or has(name)):
        raise ValueError(f"{name}: triton {version} has no such operation")
    return Operation(name, not (late or gone), **note)


def grouped(groups: list[dict[str, str]], apart: set[str]) -> dict[str, list[str]]:
    """Return each group's operations, by its title.

    Args:
        groups: as the file has them.
        apart: the names that belong in none.

    Raises:
        ValueError: a group has other fields, or a name is there twice.
    """
    listed: dict[str, list[str]] = {}
    taken: set[str] = set()
    for group in groups:
        title = group.get("title", "")
        kind = group.keys() - {"title", *GENERAL}
        if not title or title in listed or kind not in ({"root", "names"}, {"every"}):
            said = "a group has a title of its own, and root and names, or every"
            raise ValueError(f"{title or group}: {said}")
        listed[title] = []
        for name in words(group["names"], title) if "names" in group else []:
            full = f"{group['root']}.{name}"
            if full in taken or full in apart:
                raise ValueError(f"{full}: is named twice")
            taken.add(full)
            listed[title].append(full)
    for group in groups:
        title = group["title"]
        for module in words(group["every"], title) if "every" in group else []:
            new = [x for x in public(module) if x not in taken and x not in apart]
            taken.update(new)
            listed[title] += new
    return listed


def vocabulary_of(data: Any, version: str, has: Has = has) -> Vocabulary:
    """Return what the file's data mean.

    Args:
        data: the file's content.
        version: of the installed Triton.
        has: says whether that has something of a name.

    Raises:
        ValueError: the data are not sound; the message names the fault.
    """
    parts = {"groups": list, "apart": dict, "notes": dict, "ours": dict}
    for name, kind in parts.items():
        if not isinstance(data, dict) or not isinstance(data.get(name), kind):
            raise ValueError(f"wants {', '.join(parts)}; {name} is not a {kind}")
    apart = {
        f"{root}.{name}"
        for root, text in data["apart"].items()
        for name in words(text, f"apart, {root}")
    }
    listed = grouped(data["groups"], apart)
    taken = {name for names in listed.values() for name in names}
    general = {
        group["title"]: {x: group[x] for x in GENERAL if x in group}
        for group in data["groups"]
    }
    lost = sorted(data["notes"].keys() - taken)
    if lost:
        raise ValueError(f"{lost[0]}: has a note and is in no group")
    groups = {
        title: [
            operation_of(name, data["notes"].get(name, general[title]), version, has)
            for name in names
        ]
        for title, names in listed.items()
    }
    ours = {}
    for name, text in data["ours"].items():
        found = [x for x in words(text, name) if x in taken]
        if not found:
            raise ValueError(f"{name}: none of {text} is in a group")
        ours[name] = found[0]
    return Vocabulary(version, groups, apart, ours)


def load(path: Path) -> Vocabulary:
    """Return the vocabulary of a file, against the installed Triton.

    Raises:
        ValueError: the file is damaged or wrong; the message names it and the fault.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return vocabulary_of(data, importlib.metadata.version("triton"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def shortened(dotted: str) -> str:
    """Return a full name by its root, such as ``"tl.load"``; empty if it has none."""
    for root, module in reversed(ROOTS.items()):
        if dotted == module or dotted.startswith(f"{module}."):
            return root + dotted.removeprefix(module)
    return dotted if dotted.startswith(f"{PACKAGE}._gluon.") else ""


def imported(tree: ast.Module) -> dict[str, str]:
    """Return what a module's names for parts of the two languages stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = {x.asname: x.name for x in node.names if x.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = {x.asname or x.name: f"{node.module}.{x.name}" for x in node.names}
        else:
            continue
        names |= {name: short for name, x in found.items() if (short := shortened(x))}
    return names


def is_kernel(node: ast.AST) -> bool:
    """Say whether a function is compiled by Triton: decorated with some ``jit``."""
    if not isinstance(node, ast.FunctionDef):
        return False
    for mark in node.decorator_list:
        mark = mark.func if isinstance(mark, ast.Call) else mark
        if (
            mark.attr if isinstance(mark, ast.Attribute) else getattr(mark, "id", "")
        ) in (
            "jit",
            "constexpr_function",
        ):
            return True
    return False


def chains(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """Yield the dotted names in a tree that begin with one of ``names``."""
    inner: set[int] = set()
    for part in ast.walk(node):
        if id(part) in inner:
            continue
        steps: list[str] = []
        here = part
        while isinstance(here, ast.Attribute):
            steps.insert(0, here.attr)
            here = here.value
            inner.add(id(here))
        if isinstance(here, ast.Name) and here.id in names:
            yield ".".join([names[here.id], *steps])


def written(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (module, kernel, dotted name) for every name a kernel of a package uses.

    Args:
        root: the folder of the package.
    """
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root.parent).with_suffix("").parts
        module = ".".join(part for part in inside if part != "__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = imported(tree)
        for node in filter(is_kernel, ast.walk(tree) if names else ()):
            assert isinstance(node, ast.FunctionDef)
            for name in dict.fromkeys(chains(node, names)):
                yield module, node.name, name


def uses(vocabulary: Vocabulary, root: Path) -> tuple[Uses, list[str]]:
    """Return who uses each operation, and the names that are in no group.

    Args:
        vocabulary: the operations.
        root: the folder of the package.
    """
    result: Uses = {}
    unknown = []
    for module, kernel, name in written(root):
        operation = vocabulary.lookup(name)
        if operation:
            users = result.setdefault(operation, [])
            if (module, kernel) not in users:
                users.append((module, kernel))
        else:
            unknown.append(f"{name} in {module}.{kernel}")
    return result, unknown
