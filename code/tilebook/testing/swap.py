"""Puts an edited module's definitions where the old ones are held, and takes them out.

A reload would register operators twice and leave every ``from module import name``
with the old object. So only what changed is made anew: plain functions get the
edited code in place, which reaches whoever holds them; kernels, whose source is read
when they are made, are rebuilt with everything at the module's top that is made from
them, and rebound wherever the old object has a name.
"""

import ast
import copy
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tilebook.testing.source import python_function

Compile = Callable[[ast.stmt], CodeType]

STRANGERS = sys.stdlib_module_names - {"__main__"} | {
    *("matplotlib", "numpy", "pandas", "scipy", "sympy", "torch", "triton"),
}
"""Packages whose many modules hold nothing that others wrote."""


def swap(
    module: ModuleType, source: str, edited: str, compile_node: Compile, undo: ExitStack
) -> None:
    """Make a running module do what its edited source says.

    Args:
        module: to be changed.
        source: what it was made from.
        edited: what it should be made from.
        compile_node: compiles one of the edited source's statements.
        undo: gets what puts everything back, also if this raises half-way.

    Raises:
        ValueError: the edit changes something that can't be swapped.
    """
    before, after = ast.parse(source).body, ast.parse(edited).body
    if len(before) != len(after):
        raise ValueError(f"{module.__name__}: the edit adds or drops a statement")
    pairs = [
        (old, new)
        for old, new in zip(before, after, strict=True)
        if ast.dump(old) != ast.dump(new)
    ]
    renewed: set[str] = set()
    for node in after:
        if isinstance(node, ast.FunctionDef) and _makes_kernel(module, node):
            renewed.add(node.name)
    functions = _functions_of(module)
    for old, new in pairs:
        if isinstance(new, ast.Import | ast.ImportFrom):
            raise ValueError(f"{module.__name__}: the edit changes an import")
        if isinstance(new, ast.FunctionDef) and new.name not in renewed:
            _recode(module, old, new, compile_node, functions, undo)
        else:
            renewed |= _bound(new)
    replaced: dict[int, tuple[Any, Any]] = {}
    for node in after:
        names = _bound(node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and renewed & _used(node):
            renewed |= names
        if renewed & names:
            _renew(module, compile_node(node), replaced, undo)
    _rebind(replaced, undo)


def _is_kernel(value: Any) -> bool:
    return _makes_kernels(type(value))


def _makes_kernels(kind: type) -> bool:
    # By its class: asking objects found in other modules for attributes may run code.
    return any(cls.__name__ == "KernelInterface" for cls in kind.__mro__)


def _makes_kernel(module: ModuleType, node: ast.FunctionDef) -> bool:
    value = vars(module).get(node.name)
    fn = python_function(value) if _is_kernel(value) else None
    return fn is not None and fn.__module__ == module.__name__


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement at a module's top binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    }


def _used(node: ast.stmt) -> set[str]:
    """Names that a statement reads."""
    return {
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)
    }


def _functions_of(module: ModuleType) -> list[FunctionType]:
    """Live functions that were defined in a module, wherever they are held."""
    space = vars(module)
    return [
        holder
        for holder in gc.get_referrers(space)
        if isinstance(holder, FunctionType) and holder.__globals__ is space
    ]


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _recode(
    module: ModuleType,
    old: ast.stmt,
    new: ast.FunctionDef,
    compile_node: Compile,
    functions: list[FunctionType],
    undo: ExitStack,
) -> None:
    """Give a function, and those defined inside it, the edited code in place."""
    if not isinstance(old, ast.FunctionDef) or _made(old) != _made(new):
        raise ValueError(f"{module.__name__}: the edit changes how {new.name} is made")
    bare = copy.copy(new)
    bare.decorator_list = []
    scratch: dict[str, Any] = {}
    exec(compile_node(bare), dict(vars(module)), scratch)
    made = scratch[new.name]
    inner = {code.co_qualname: code for code in _codes(made.__code__)}
    first = min(d.lineno for d in (*old.decorator_list, old))
    found = False
    for fn in functions:
        # Several may be called "_": the line tells which one this is.
        same = fn.__code__.co_firstlineno == first and fn.__qualname__ == new.name
        code = made.__code__ if same else inner.get(fn.__code__.co_qualname)
        if code is None:
            continue
        if fn.__code__.co_freevars != code.co_freevars:
            name = f"{module.__name__}: {fn.__qualname__}"
            raise ValueError(f"{name}: the edit changes its closure")
        undo.callback(_restore, fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__)
        fn.__code__ = code
        if same:
            found = True
            fn.__defaults__ = made.__defaults__
            fn.__kwdefaults__ = made.__kwdefaults__
    if not found:
        raise ValueError(f"{module.__name__}: nothing holds {new.name} any more")


def _made(node: ast.FunctionDef) -> list[str]:
    return [node.name, *(ast.dump(d) for d in node.decorator_list)]


def _restore(fn: FunctionType, code: CodeType, defaults: Any, named: Any) -> None:
    fn.__code__, fn.__defaults__, fn.__kwdefaults__ = code, defaults, named


def _renew(
    module: ModuleType,
    code: CodeType,
    replaced: dict[int, tuple[Any, Any]],
    undo: ExitStack,
) -> None:
    """Run a statement again and note which objects it replaced."""
    space = vars(module)
    saved = dict(space)
    try:
        exec(code, space)
    finally:
        for name, value in list(space.items()):
            if name not in saved:
                undo.callback(space.pop, name)
            elif saved[name] is not value:
                undo.callback(space.update, {name: saved[name]})
                replaced[id(saved[name])] = saved[name], value


def _rebind(replaced: Mapping[int, tuple[Any, Any]], undo: ExitStack) -> None:
    """Put new objects under every name that an old one has in some other module."""
    plain = (int, float, complex, str, bytes, tuple, frozenset, type(None))
    shared = {k: pair for k, pair in replaced.items() if not isinstance(pair[0], plain)}
    spaces = [
        vars(other)
        for name, other in list(sys.modules.items())
        if isinstance(other, ModuleType) and name.partition(".")[0] not in STRANGERS
    ]
    undo.callback(_forget, spaces)
    for space in spaces:
        for name, value in list(space.items()):
            if id(value) in shared:
                old, new = shared[id(value)]
                undo.callback(space.update, {name: old})
                space[name] = new
    _forget(spaces)


def _forget(spaces: list[dict[str, Any]]) -> None:
    """Drop what kernels were compiled to: any of them may inline a replaced one."""
    values = [value for space in spaces for value in list(space.values())]
    # There are tens of thousands of values, of a few hundred classes.
    kinds = {kind for kind in set(map(type, values)) if _makes_kernels(kind)}
    for value in [value for value in values if type(value) in kinds]:
        while _is_kernel(value):
            caches = getattr(value, "device_caches", None)
            if caches is not None:
                value.hash = None
                caches.clear()
            value = value.fn
