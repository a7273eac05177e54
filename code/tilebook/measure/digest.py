"""Digests of measured code: they change with the code and not with its comments.

The text is hashed, not the syntax tree or the token stream: both differ between Python
versions, and the machine that measures need not run the version of the one that checks.
"""

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

# What chapters stand on. It is not what an experiment measures, so it has no digest.
FOUNDATION = frozenset(
    (
        "check",
        "compile_only",
        "device",
        "doctor",
        "interpreter",
        "library",
        "measure",
        "microscope",
        "ops",
        "records",
        "testing",
    )
)

BRIEF = "_BRIEF"
"""How the names of constants end that `Bench.choose` takes in a build."""


# A session asks for the same modules again and again, and files may change meanwhile:
# what is remembered is remembered of their text.
_remembered = functools.lru_cache(maxsize=2048)


def of_source(source: str) -> str:
    """Hash Python source without its comments, docstrings and blank lines.

    Args:
        source: text of a module, or of a few of its top-level definitions.

    Returns:
        Twelve hexadecimal digits.
    """
    text = "\n".join(_bare(source))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def of_module(name: str, package: Path = PACKAGE) -> str:
    """Hash one module of this package.

    Args:
        name: dotted name below the package, such as ``"parallel.masked"``.
        package: folder of the package.

    Returns:
        Twelve hexadecimal digits.

    Raises:
        LookupError: the package has no such module.
    """
    return of_source(_file(name, package).read_text(encoding="utf-8"))


def of_function(source: str, name: str) -> str:
    """Hash a top-level function together with what it uses of its own module.

    Args:
        source: text of the whole module.
        name: the function. Constants and helpers of the same module that it names,
            directly or through one another, count as its code. Only ``..._BRIEF`` ones
            don't: they say what a build leaves out, and a record leaves out nothing.

    Returns:
        Twelve hexadecimal digits.

    Raises:
        LookupError: the module defines no such name.
    """
    tree = ast.parse(source)
    defined = {n: node for node in tree.body for n in _binds(node)}
    if name not in defined:
        raise LookupError(f"no top-level {name!r} in this module")
    used, todo = {}, [name]
    while todo:
        node = defined[todo.pop()]
        if node.lineno in used:
            continue
        used[node.lineno] = node
        names = {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
        todo += sorted(x for x in names & defined.keys() if not x.endswith(BRIEF))
    lines = source.splitlines(keepends=True)
    parts = [lines[_first(x) - 1 : x.end_lineno] for _, x in sorted(used.items())]
    return of_source("".join("".join(part) for part in parts))


def of_modules(names: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """Hash modules and every chapter module that they import.

    Args:
        names: dotted names below the package.
        package: folder of the package.

    Returns:
        Digest by dotted name, sorted. Modules of the foundation are left out.

    Raises:
        LookupError: the package has no such module.
    """
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = of_module(name, package)
            todo += _imports(name, package)
    return dict(sorted(found.items()))


@_remembered
def _bare(source: str) -> list[str]:
    """The lines of code, without comments, docstrings, blank lines, trailing space."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            _cut(lines, body[0])
    return [line.rstrip() for line in lines if line.strip()]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _cut(lines: list[str], node: ast.Expr) -> None:
    """Blank what a node covers, and nothing beside it on its lines."""
    head = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    tail = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    lines[node.lineno - 1 : node.end_lineno] = [""] * (
        node.end_lineno - node.lineno + 1
    )
    lines[node.lineno - 1] = head + tail


def _first(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included."""
    above = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in above)])


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [x.id for t in targets for x in ast.walk(t) if isinstance(x, ast.Name)]
    return []


def _file(name: str, package: Path) -> Path:
    base = package.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise LookupError(f"{package.name} has no module {name!r}")


def _imports(name: str, package: Path) -> list[str]:
    """The chapter modules that a module imports, by dotted name below the package."""
    path = _file(name, package)
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    names = []
    for node in _import_statements(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            full = [a.name.split(".") for a in node.names]
            names += [x[1:] for x in full if x[0] == package.name]
        else:
            stem = node.module.split(".") if node.module else []
            if node.level:
                stem = here[: len(here) - node.level + 1] + stem
            elif stem[:1] == [package.name]:
                stem = stem[1:]
            else:
                continue
            names += [_where(stem, a.name, package) for a in node.names]
    return [".".join(x) for x in names if x and not _founds(x[0])]


@_remembered
def _import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    kinds = ast.Import | ast.ImportFrom
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


@_remembered
def _passed_on(source: str) -> dict[str, str]:
    """The names that a package takes from its own modules: module by name."""
    return {
        alias.asname or alias.name: node.module
        for node in reversed(ast.parse(source).body)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        for alias in reversed(node.names)
    }


def _founds(stem: str) -> bool:
    return stem in FOUNDATION or stem.startswith("_")


def _where(stem: list[str], name: str, package: Path) -> list[str]:
    """The module that ``from stem import name`` reads: a submodule, or stem itself.

    A package's ``__init__`` passes names on; the module that defines one is meant.
    """
    folder = package.joinpath(*stem)
    if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
        return [*stem, name]
    front = folder / "__init__.py"
    if stem and front.is_file():
        found = _passed_on(front.read_text(encoding="utf-8"))
        if name in found:
            return _where([*stem, *found[name].split(".")], name, package)
    return stem
