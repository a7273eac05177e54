"""The receiving side: source into kernels of this process's mode."""

from __future__ import annotations

import ast
import importlib
import io
import linecache
import operator
import pickle
import types
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.experimental import gluon
from triton.runtime.interpreter import InterpretedFunction

PAGE = 2**16
"""Bytes that travel together, or not at all where they are all zero."""


@dataclass(frozen=True)
class Content:
    """What a storage holds."""

    nbytes: int
    pages: list[int]
    """Numbers of the pages that aren't all zero."""
    data: bytes
    """Their bytes, and those after the last whole page."""


@dataclass(frozen=True)
class Function:
    """A jitted function as text: enough to decorate it again."""

    kind: str
    name: str
    qualname: str
    module: str
    filename: str
    line: int
    source: str
    options: dict[str, Any]
    signature: bytes
    names: bytes


def loads(data: bytes, storages: list[torch.UntypedStorage] | None = None) -> Any:
    """Rebuild what `dumps` packed, kernels decorated for this process's mode.

    Args:
        data: bytes from `dumps`.
        storages: if given, the rebuilt tensors' storages are appended here in order.

    Returns:
        The object.
    """
    root, functions, contents = pickle.loads(data)
    rebuilt = [_storage(content) for content in contents]
    if storages is not None:
        storages.extend(rebuilt)
    return _Builder(functions, rebuilt).unpickle(root)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, builder: _Builder) -> None:
        super().__init__(io.BytesIO(data))
        self.builder = builder

    def persistent_load(self, reference: tuple[str, Any]) -> Any:
        kind, value = reference
        if kind == "kernel":
            return self.builder.kernel(value)
        if kind == "storage":
            return self.builder.storages[value]
        if kind == "module":
            return importlib.import_module(value)
        module, qualname = value
        return operator.attrgetter(qualname)(importlib.import_module(module))


class _Builder:
    """Builds each kernel once, when something first names it."""

    def __init__(
        self, functions: list[Function], storages: list[torch.UntypedStorage]
    ) -> None:
        self.functions = functions
        self.storages = storages
        self.kernels: dict[int, Any] = {}
        self.lines: dict[str, list[str]] = {}

    def unpickle(self, data: bytes) -> Any:
        return _Unpickler(data, self).load()

    def kernel(self, index: int) -> Any:
        if index not in self.kernels:
            function = self.functions[index]
            fn = self.define(function)
            kernel = self.kernels[index] = _decorate(function, fn)
            # After the kernel is known: it may name itself, or a helper that names it.
            fn.__globals__.update(self.unpickle(function.names))
            if isinstance(kernel, InterpretedFunction):
                kernel.rewrite()  # now, while linecache holds its source
        return self.kernels[index]

    def define(self, function: Function) -> types.FunctionType:
        """Run the `def`, so that inspect finds its source at its own lines."""
        text = function.source.splitlines(keepends=True)
        first, last = function.line - 1, function.line - 1 + len(text)
        lines = self.lines.setdefault(function.filename, [])
        lines.extend(["\n"] * (last - len(lines)))
        lines[first:last] = text
        size = sum(map(len, lines))
        linecache.cache[function.filename] = (size, None, lines, function.filename)

        tree = ast.parse(function.source)
        arguments = tree.body[0].args
        # Defaults travel as values; their expressions may name what has gone since.
        arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
        arguments.kw_defaults = [
            d and ast.Constant(None) for d in arguments.kw_defaults
        ]
        ast.increment_lineno(ast.fix_missing_locations(tree), first)
        scope: dict[str, Any] = {"__name__": function.module}
        exec(compile(tree, function.filename, "exec"), scope)
        fn = scope[function.name]
        fn.__qualname__ = function.qualname
        fn.__defaults__, fn.__kwdefaults__, annotations = self.unpickle(
            function.signature
        )
        fn.__annotations__ = annotations
        return fn


def _decorate(function: Function, fn: types.FunctionType) -> Any:
    if function.kind == "constexpr_function":
        return triton.constexpr_function(fn)
    decorate = gluon.jit if function.kind == "gluon" else triton.jit
    return decorate(**function.options)(fn)


def _storage(content: Content) -> torch.UntypedStorage:
    # Zeros that nobody has touched take no memory.
    storage = torch.zeros(content.nbytes, dtype=torch.uint8).untyped_storage()
    _fill(storage, content)
    return storage


def overwrite(storage: torch.UntypedStorage, content: Content) -> None:
    """Give a storage of the same size, on any device, what another one held."""
    bytes_view(storage).zero_()
    _fill(storage, content)


def _fill(storage: torch.UntypedStorage, content: Content) -> None:
    if not content.data:
        return
    data = torch.frombuffer(bytearray(content.data), dtype=torch.uint8)
    pages, rest = pages_of(storage)
    filled = len(content.pages) * PAGE
    where = torch.tensor(content.pages, dtype=torch.int64, device=pages.device)
    pages[where] = data[:filled].view(-1, PAGE).to(pages.device)
    rest.copy_(data[filled:])


def pages_of(storage: torch.UntypedStorage) -> tuple[torch.Tensor, torch.Tensor]:
    """View a storage as whole pages, (count, PAGE) bytes, and what is left."""
    flat = bytes_view(storage)
    whole = len(flat) // PAGE * PAGE
    return flat[:whole].view(-1, PAGE), flat[whole:]


def bytes_view(storage: torch.UntypedStorage) -> torch.Tensor:
    """View a storage as a flat uint8 tensor."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def tensor(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
) -> torch.Tensor:
    return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)


def module(name: str) -> types.ModuleType:
    """Make an empty module: what is used of it follows."""
    return types.ModuleType(name)


def identity(obj: object) -> object:
    return obj
