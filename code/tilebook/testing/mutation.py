"""Planted mistakes: kernels, functions and modules rebuilt from edited source.

A test that no planted mistake turns red tests nothing. Edits are exact pieces of text
that occur once, so that a mutation never silently misses its target.
"""

import __future__

import ast
import copy
import gc
import inspect
import itertools
import linecache
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

_serial = itertools.count(1)


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
        ValueError: an edit that doesn't match exactly once or changes nothing.
        TypeError: the target has no Python source.

    Notes:
        All edits are tried out before the first mutant is yielded. A wrapper keeps
        launching the original kernel: for that, see `mutated_module`.
    """
    fn = _function(target)
    source = textwrap.dedent(inspect.getsource(fn))
    edited = {
        name: _edit(source, old, new, f"{fn.__name__}, {name}")
        for name, (old, new) in edits.items()
    }
    for name, text in edited.items():
        namespace = {**fn.__globals__, **_captured(fn)}
        filename = _remember(text, f"{fn.__name__}: {name}")
        flags = fn.__code__.co_flags & __future__.annotations.compiler_flag
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
        The module. Whoever holds one of its functions calls the edited one; kernels
        and classes are replaced in every module that imported them by name (numbers
        and strings are not). Registered operators keep their registration.

    Raises:
        ValueError: the text doesn't occur exactly once, or the edit changes what
            can't be swapped in a running module: imports, or a function's
            decorators.

    Notes:
        Everything is put back on leaving, also after an exception.
    """
    source = inspect.getsource(module)
    edited = _edit(source, old, new, module.__name__)
    undo: list[Callable[[], None]] = []
    try:
        _swap(module, source, edited, undo)
        yield module
    finally:
        for step in reversed(undo):
            step()


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


def _function(target: Any) -> FunctionType:
    """The Python function inside a kernel, however often it is wrapped."""
    fn = target
    while not isinstance(fn, FunctionType):
        inner = getattr(fn, "fn", None) or getattr(fn, "__wrapped__", None)
        if inner is None or inner is fn:
            raise TypeError(f"{target!r} is neither a kernel nor a Python function")
        fn = inner
    return fn


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


def _postponed(module: ModuleType) -> int:
    """Compiler flag of a module whose annotations are not evaluated."""
    wanted = vars(module).get("annotations") is __future__.annotations
    return __future__.annotations.compiler_flag if wanted else 0


def _is_kernel(value: Any) -> bool:
    return not isinstance(value, FunctionType) and any(
        cls.__name__ == "KernelInterface" for cls in type(value).__mro__
    )


def _swap(
    module: ModuleType, source: str, edited: str, undo: list[Callable[[], None]]
) -> None:
    before, after = ast.parse(source).body, ast.parse(edited).body
    if len(before) != len(after):
        raise ValueError(f"{module.__name__}: the edit adds or drops a statement")
    changed = [
        new
        for old, new in zip(before, after, strict=True)
        if ast.dump(old) != ast.dump(new)
    ]
    filename = _remember(edited, module.__name__)
    kernels = [
        node
        for node in after
        if isinstance(node, ast.FunctionDef)
        and _is_kernel(vars(module).get(node.name))
        and _function(vars(module)[node.name]).__module__ == module.__name__
    ]
    functions = _functions_of(module)
    for node in changed:
        if isinstance(node, ast.Import | ast.ImportFrom):
            raise ValueError(f"{module.__name__}: the edit changes an import")
        if isinstance(node, ast.FunctionDef) and node not in kernels:
            _recode(module, before[after.index(node)], node, filename, functions, undo)
    # A kernel may inline another one or a constant: all of them are built anew.
    again = [n for n in after if n in kernels or n in changed]
    for node in again:
        if isinstance(node, ast.FunctionDef) and node not in kernels:
            continue
        _replace(module, node, filename, undo)


def _functions_of(module: ModuleType) -> dict[str, list[FunctionType]]:
    """Live functions that were defined in a module, wherever they are held."""
    found: dict[str, list[FunctionType]] = {}
    for holder in gc.get_referrers(vars(module)):
        if isinstance(holder, FunctionType) and holder.__globals__ is vars(module):
            found.setdefault(holder.__code__.co_qualname, []).append(holder)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _recode(
    module: ModuleType,
    old: ast.stmt,
    new: ast.FunctionDef,
    filename: str,
    functions: Mapping[str, list[FunctionType]],
    undo: list[Callable[[], None]],
) -> None:
    """Give a function, and those defined inside it, the edited code in place."""
    same = [ast.dump(d) for d in getattr(old, "decorator_list", [])]
    if getattr(old, "name", None) != new.name or same != [
        ast.dump(d) for d in new.decorator_list
    ]:
        raise ValueError(f"{module.__name__}: the edit changes how {new.name} is made")
    bare = copy.copy(new)
    bare.decorator_list = []
    scratch: dict[str, Any] = {}
    exec(_compiled(bare, filename, _postponed(module)), dict(vars(module)), scratch)
    made = scratch[new.name]
    inner = {c.co_qualname: c for c in _codes(made.__code__)}
    for name, code in {made.__code__.co_qualname: made.__code__, **inner}.items():
        for fn in functions.get(name, []):
            if fn.__code__.co_freevars != code.co_freevars:
                raise ValueError(
                    f"{module.__name__}: the edit changes {name}'s closure"
                )
            undo.append(_restorer(fn))
            fn.__code__ = code
            if name == new.name:
                fn.__defaults__, fn.__kwdefaults__ = (
                    made.__defaults__,
                    made.__kwdefaults__,
                )
    if new.name not in functions:
        raise ValueError(f"{module.__name__}: no live function {new.name} to edit")


def _restorer(fn: FunctionType) -> Callable[[], None]:
    code, defaults, named = fn.__code__, fn.__defaults__, fn.__kwdefaults__

    def restore() -> None:
        fn.__code__, fn.__defaults__, fn.__kwdefaults__ = code, defaults, named

    return restore


def _replace(
    module: ModuleType, node: ast.stmt, filename: str, undo: list[Callable[[], None]]
) -> None:
    """Run a statement again, and put what it binds wherever the old value is held."""
    space = vars(module)
    saved = dict(space)
    exec(_compiled(node, filename, _postponed(module)), space)
    for name, value in dict(space).items():
        if name in saved and saved[name] is value:
            continue
        if name not in saved:
            undo.append(lambda name=name: space.pop(name, None))
            continue
        undo.append(lambda name=name, old=saved[name]: space.__setitem__(name, old))
        _propagate(saved[name], value, undo)


def _propagate(old: Any, new: Any, undo: list[Callable[[], None]]) -> None:
    """Rebind an object in every other module that imported it by name."""
    if isinstance(old, int | float | str | bytes | tuple | frozenset | type(None)):
        return
    for other in list(sys.modules.values()):
        space = getattr(other, "__dict__", {})
        names = [name for name, value in list(space.items()) if value is old]
        for name in names:
            undo.append(lambda space=space: _forget(space))
            undo.append(lambda space=space, name=name: space.__setitem__(name, old))
            space[name] = new
            _forget(space)


def _forget(space: Mapping[str, Any]) -> None:
    """Drop what a module's kernels were compiled to: they may inline another one."""
    for value in list(space.values()):
        while _is_kernel(value):
            caches = getattr(value, "device_caches", None)
            if caches is not None:
                value.hash = None
                caches.clear()
            value = value.fn
