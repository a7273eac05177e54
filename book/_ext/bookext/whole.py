"""A kernel's source with all that it needs, as a program of its own.

A module of the package holds more than a kernel: what launches it needs PyTorch. Here
a kernel is taken out with the constants and the functions that it names, from whichever
modules they are imported. Nothing is imported for that.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bookext.inputs import files_for
from bookext.machine import PACKAGE, package_root

KNOWN = {
    "triton": "import triton",
    "tl": "import triton.language as tl",
    "np": "import numpy as np",
}
"""What a program may import, by the name that it goes by."""
FOREIGN = ("triton", "numpy", "math")


class NotWhole(Exception):
    """A kernel needs something that a program in a page can't have."""


@dataclass
class Module:
    """A module's definitions, by their names.

    Args:
        name: the module's.
    """

    name: str
    lines: list[str] = field(init=False)
    defined: dict[str, ast.stmt] = field(init=False, default_factory=dict)
    imported: dict[str, tuple[str, str | None]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        path, package = list(files_for(self.name))[-1]
        text = Path(path).read_text(encoding="utf-8")
        self.lines = text.splitlines()
        for node in ast.parse(text).body:
            for name in names_made(node):
                self.defined[name] = node
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (alias.name, None)
            elif isinstance(node, ast.ImportFrom):
                base = (
                    package.split(".")[: 1 - node.level or None] if node.level else []
                )
                home = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (home, alias.name)

    def text_of(self, node: ast.stmt) -> str:
        """Return a definition's lines; of its decorators those that make kernels."""
        first = node.lineno
        head = []
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if ast.unparse(decorator).startswith("triton.jit"):
                    lines = self.lines[decorator.lineno - 1 : decorator.end_lineno]
                    head += lines
        return "\n".join([*head, *self.lines[first - 1 : node.end_lineno]])


def names_made(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at a module's top defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (x.id for x in ast.walk(target) if isinstance(x, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def names_used(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a definition takes from its module, in order."""
    own: set[str] = set()
    kept: list[ast.AST] = [node]
    if isinstance(node, ast.FunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        own = {arg.arg for arg in every}
        jits = [x for x in node.decorator_list if "triton.jit" in ast.unparse(x)]
        kept = [*jits, node.args, *node.body]
    loads, seen = [], set()
    for part in kept:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Name):
                if isinstance(inner.ctx, ast.Load):
                    loads.append(inner.id)
                elif isinstance(node, ast.FunctionDef):
                    own.add(inner.id)
    for name in loads:
        if name not in own and name not in seen and not hasattr(builtins, name):
            seen.add(name)
            yield name


class Collector:
    """Gathers what a program is made of, each definition after what it needs."""

    def __init__(self) -> None:
        self.imports: dict[str, None] = {}
        self.parts: dict[tuple[str, str], str] = {}
        self._modules: dict[str, Module] = {}

    def take(self, module_name: str, name: str, alias: str = "") -> None:
        """Take a definition, and what it needs before it.

        Raises:
            NotWhole: it needs what can't be in a page.
        """
        if (module_name, name) in self.parts:
            return
        if not list(files_for(module_name)):
            raise NotWhole(f"{module_name} is no module of the package")
        if module_name not in self._modules:
            self._modules[module_name] = Module(module_name)
        module = self._modules[module_name]
        node = module.defined.get(name)
        if node is None:
            if name not in module.imported:
                raise NotWhole(f"{module_name} has no {name}")
            home, original = module.imported[name]
            self._import(name, home, original)
            return
        if alias and alias != name:
            raise NotWhole(f"{name} goes by another name")
        # Against rings; the text is put in place below.
        self.parts[module_name, name] = ""
        text = module.text_of(node)
        for used in names_used(node):
            inner = self._submodule(module, used)
            if inner:
                text = self._unqualified(text, used, inner)
            elif used != name:
                self.take(module_name, used)
        clash = [
            where
            for (where, known), lines in self.parts.items()
            if known == name and lines and lines != text
        ]
        if clash:
            raise NotWhole(f"{name} is something else in {clash[0]}")
        del self.parts[module_name, name]
        self.parts[module_name, name] = text

    def _submodule(self, module: Module, name: str) -> str:
        """Return the module of the package that a name stands for, or nothing."""
        home, original = module.imported.get(name, ("", None))
        inner = f"{home}.{original}"
        place = package_root().joinpath(*inner.split(".")[1:])
        ours = original is not None and home.partition(".")[0] == PACKAGE
        return inner if ours and place.with_suffix(".py").is_file() else ""

    def _unqualified(self, text: str, alias: str, inner: str) -> str:
        """Take what is named as a module's attributes, and name it by itself."""
        qualified = re.compile(rf"\b{alias}\.(\w+)")
        for name in dict.fromkeys(qualified.findall(text)):
            self.take(inner, name)
        return qualified.sub(r"\1", text)

    def _import(self, name: str, home: str, original: str | None) -> None:
        root = home.partition(".")[0]
        if root in FOREIGN:
            if name in KNOWN and original in (None, "language"):
                self.imports[KNOWN[name]] = None
            elif original is None:
                line = f"import {home}" + (f" as {name}" if name != home else "")
                self.imports[line] = None
            else:
                as_name = f" as {name}" if name != original else ""
                self.imports[f"from {home} import {original}{as_name}"] = None
        elif root == PACKAGE and original is not None:
            self.take(home, original, name)
        else:
            raise NotWhole(f"it needs {home}")

    def text(self) -> str:
        """Return the program so far: imports, then the definitions."""
        head = sorted({*self.imports, KNOWN["triton"], KNOWN["tl"]})
        kept = list(dict.fromkeys(text for text in self.parts.values() if text))
        constants, functions = [], []
        for text in kept:
            (functions if "def " in text else constants).append(text)
        blocks = ["\n".join(head)]
        if constants:
            blocks.append("\n" + "\n".join(constants))
        blocks += ["\n\n" + text for text in functions]
        return "\n".join(blocks) + "\n"


def whole(module: str, name: str) -> str:
    """Return a kernel as a program that defines it and launches nothing.

    Args:
        module: where it is, such as ``"tilebook.parallel.masked"``.
        name: the kernel's.

    Raises:
        NotWhole: it needs what can't be in a page.
    """
    collector = Collector()
    collector.take(module, name)
    return collector.text()
