"""A Python function as a syntax tree with the line numbers of its file."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tilebook.compiler.ssa import Place


class CompileError(Exception):
    """A program that is not of the little language.

    Args:
        message: what is wrong, and what is allowed.
        file: where the program is written.
        place: the line and column of it.
    """

    def __init__(self, message: str, file: str, place: Place) -> None:
        super().__init__(f"{file}:{place.line}:{place.column}: {message}")
        self.message, self.file, self.place = message, file, place


@dataclass(frozen=True, eq=False)
class Program:
    """A function that is compiled rather than called.

    Args:
        name: the function's.
        file: its file.
        tree: its definition, lines and columns those of the file.
        names: what its module, and the functions around it, call by name.
        lines: the tree's text, by line; its first is the file's line `first`.
        first: that line's number.
        indent: columns by which the file has it further right than the tree.
    """

    name: str
    file: str
    tree: ast.FunctionDef
    names: Mapping[str, Any]
    lines: tuple[str, ...]
    first: int
    indent: int

    @property
    def parameters(self) -> list[str]:
        """The names of its arguments."""
        return [argument.arg for argument in self.tree.args.args]

    def place(self, node: ast.AST) -> Place:
        """Return where the file has a node."""
        # Python counts bytes.
        before = self.lines[node.lineno - self.first].encode()[: node.col_offset]
        return Place(node.lineno, len(before.decode()) + 1 + self.indent)

    def error(self, node: ast.AST, message: str) -> CompileError:
        """Return an exception that points to a node."""
        return CompileError(message, self.file, self.place(node))

    def __call__(self, *_: Any, **__: Any) -> None:
        raise TypeError(f"{self.name} is a program: launch() runs it, a call can't")


def program(function: Callable[..., None]) -> Program:
    """Read a Python function as a program of the little language.

    Args:
        function: with positional parameters only; it is never called.

    Returns:
        Its syntax tree, and the names around it.

    Raises:
        CompileError: it has other parameters, or defaults.
    """
    lines, first = inspect.getsourcelines(function)
    text = "".join(lines)
    dedented = textwrap.dedent(text)
    tree = ast.parse(dedented).body[0]
    ast.increment_lineno(tree, first - 1)
    found = inspect.getclosurevars(function)
    made = Program(
        name=function.__name__,
        file=inspect.getsourcefile(function),
        tree=tree,
        names={**function.__globals__, **found.nonlocals},
        lines=tuple(dedented.split("\n")),
        first=first,
        indent=len(text) - len(text.lstrip()),
    )
    given = tree.args
    if given.posonlyargs or given.kwonlyargs or given.vararg or given.kwarg:
        raise made.error(tree, "only plain positional parameters are allowed")
    if given.defaults:
        raise made.error(given.defaults[0], "a parameter can't have a default")
    return made
