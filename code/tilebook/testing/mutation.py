"""Planted mistakes: kernels, functions and modules rebuilt from edited source.

A test that no planted mistake turns red tests nothing. Edits are exact pieces of text
that occur once, so that a mutation never silently misses its target.
"""

import __future__

import ast
import inspect
import itertools
import linecache
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tilebook.testing.source import python_function
from tilebook.testing.swap import swap

_serial = itertools.count(1)
_edited: set[str] = set()


def mutants(
    target: Any, edits: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[str, Any]]:
    """Rebuild a kernel or function with one mistake at a time.

    Args:
        target: jitted kernel (autotuned ones too) or Python function; its source
            must be readable.
        edits: name of the mistake to (old text, new text). The old text must occur
            exactly once in the source, decorators included.

    Yields:
        Name and rebuilt object. A kernel is jitted again as it was, so it runs in
        the same mode; other names are those of the original's module.

    Raises:
        ValueError: an edit that doesn't match exactly once, changes nothing or
            leaves no Python.
        TypeError: the target has no Python source.

    Notes:
        All edits are tried out before the first mutant is yielded. A wrapper keeps
        launching the original kernel: for that, see `mutated_module`.
    """
    fn = python_function(target)
    if fn is None:
        raise TypeError(f"{target!r} is neither a kernel nor a Python function")
    source = textwrap.dedent(inspect.getsource(fn))
    edited = {
        name: _edit(source, old, new, f"{fn.__name__}, {name}")
        for name, (old, new) in edits.items()
    }
    flags = fn.__code__.co_flags & __future__.annotations.compiler_flag
    for name, text in edited.items():
        namespace = {**fn.__globals__, **_captured(fn)}
        filename = _remember(text, f"{fn.__name__}: {name}")
        exec(_compiled(ast.parse(text).body[0], filename, flags), namespace)
        yield name, namespace[fn.__name__]


@contextmanager
def mutated_module(module: ModuleType, old: str, new: str) -> Iterator[ModuleType]:
    """Plant a mistake in a module that is already imported, for a while.

    Args:
        module: an imported module with source.
        old: text that occurs exactly once in it.
        new: what takes its place.

    Yields:
        The module. Whoever holds one of its functions calls the edited one; kernels,
        classes and what is built from them are replaced in every module that
        imported them by name (numbers and strings are not). Registered operators
        keep their registration.

    Raises:
        ValueError: the text doesn't occur exactly once, the module is already
            mutated, or the edit changes what can't be swapped in a running module:
            imports, the number of statements, a function's decorators or closure.

    Notes:
        Everything is put back on leaving, also after an exception.
    """
    name = module.__name__
    if name in _edited:
        raise ValueError(f"{name} is mutated already")
    source = inspect.getsource(module)
    edited = _edit(source, old, new, name)
    filename = _remember(edited, name)
    postponed = vars(module).get("annotations") is __future__.annotations
    flags = __future__.annotations.compiler_flag if postponed else 0
    with ExitStack() as undo:
        _edited.add(name)
        undo.callback(_edited.remove, name)
        swap(module, source, edited, lambda n: _compiled(n, filename, flags), undo)
        yield module


def _edit(source: str, old: str, new: str, what: str) -> str:
    count = source.count(old) if old else 0
    if count != 1:
        raise ValueError(f"{what}: {old!r} occurs {count} times, expected exactly once")
    edited = source.replace(old, new)
    try:
        tree = ast.parse(edited)
    except SyntaxError as error:
        raise ValueError(f"{what}: with {new!r} it is no longer Python") from error
    if ast.dump(tree) == ast.dump(ast.parse(source)):
        raise ValueError(f"{what}: replacing {old!r} by {new!r} changes nothing")
    return edited


def _captured(fn: FunctionType) -> dict[str, Any]:
    cells = zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells}


def _remember(source: str, label: str) -> str:
    """File name under which ``inspect`` finds a source that is in no file."""
    filename = f"<mutant {next(_serial)} of {label}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    return filename


def _compiled(node: ast.stmt, filename: str, flags: int) -> CodeType:
    tree = ast.Module([node], type_ignores=[])
    return compile(tree, filename, "exec", flags=flags, dont_inherit=True)


def caught(
    module: ModuleType, old: str, new: str, suite: Callable[..., Any], *args: Any
) -> bool:
    """Whether a suite fails on a planted mistake.

    Args:
        module: an imported module with source.
        old: text that occurs exactly once in it.
        new: what takes its place.
        suite: makes assertions.
        *args: what it is called with.

    Returns:
        True if it raised what wrong results and wrong addresses raise.

    Raises:
        ValueError: see `mutated_module`.
    """
    with mutated_module(module, old, new):
        try:
            suite(*args)
        except (AssertionError, IndexError, RuntimeError, ValueError):
            return True
    return False
