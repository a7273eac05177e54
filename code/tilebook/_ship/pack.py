"""The sending side: kernels into source, tensors into descriptions or contents."""

from __future__ import annotations

import ast
import inspect
import io
import pickle
import symtable
import sys
import types
from dataclasses import dataclass
from typing import Any

import torch
from triton.experimental.gluon._runtime import GluonJITFunction
from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import ConstexprFunction

from tilebook._ship import unpack
from tilebook._ship.kernels import is_kernel, source_of

# What is the same in both processes whatever the mode, and travels by name alone.
LIBRARIES = frozenset(sys.stdlib_module_names) | {"numpy", "torch", "triton"}
JIT_OPTIONS = (
    "version",
    "do_not_specialize",
    "do_not_specialize_on_alignment",
    "debug",
    "noinline",
)


@dataclass(frozen=True)
class Pointer:
    """What the compiler sees of a tensor: dtype, address modulo 16, shape and size.

    Args:
        dtype: element type.
        address: data_ptr() modulo 16, in bytes.
        size: shape in elements.
        strides: strides in elements.
        nbytes: size of the whole storage in bytes.
    """

    dtype: torch.dtype
    address: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Pointer:
        """Describe a tensor of any device, meta included."""
        return cls(
            tensor.dtype,
            tensor.data_ptr() % 16,
            tuple(tensor.shape),
            tuple(tensor.stride()),
            tensor.untyped_storage().nbytes(),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.size

    def data_ptr(self) -> int:
        """An address with the tensor's alignment."""
        return self.address

    def stride(self) -> tuple[int, ...]:
        """The tensor's strides."""
        return self.strides

    def ptr_range(self) -> int:
        """Bytes of the storage: AMD's compiler asks whether 32-bit offsets do."""
        return self.nbytes


def dumps(obj: object, storages: list[torch.UntypedStorage] | None = None) -> bytes:
    """Pickle `obj`, kernels inside it as source and tensors as what a compiler sees.

    Args:
        obj: anything picklable, kernels and tensors anywhere in it.
        storages: if given, tensors travel with their contents, views of one storage
            stay views of one storage, and the storages are appended here in order.

    Returns:
        Bytes for `loads` in another process.

    Raises:
        TypeError: a kernel names something that can't be sent; the message says what.
    """
    packer = _Packer(storages)
    root = packer.pickle(obj)
    # Describing a kernel may append the helpers that it names.
    functions = [packer.describe(function) for function in packer.functions]
    packed = [contents(storage) for storage in storages or ()]
    return pickle.dumps((root, functions, packed))


class _Packer:
    """The kernels and storages met while pickling, each packed once."""

    def __init__(self, storages: list[torch.UntypedStorage] | None) -> None:
        self.storages = storages
        self.functions: list[Any] = []

    def pickle(self, obj: object, attributes: frozenset[str] = frozenset()) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer, self, attributes).dump(obj)
        return buffer.getvalue()

    def function(self, kernel: Any) -> int:
        for index, known in enumerate(self.functions):
            if known is kernel:
                return index
        self.functions.append(kernel)
        return len(self.functions) - 1

    def storage(self, tensor: torch.Tensor) -> int:
        found = tensor.untyped_storage()
        for index, known in enumerate(self.storages):
            if known.data_ptr() == found.data_ptr() and len(known) == len(found):
                return index
        self.storages.append(found)
        return len(self.storages) - 1

    def describe(self, kernel: Any) -> unpack.Function:
        fn = kernel.fn
        source, line = source_of(kernel)
        tree = ast.walk(ast.parse(source))
        attributes = frozenset(n.attr for n in tree if isinstance(n, ast.Attribute))
        names = _named_values(fn, source)
        for name, value in names.items():
            try:
                self.pickle(value, attributes)
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                raise TypeError(
                    f"kernel {fn.__name__} uses {name!r}, which can't be sent to the "
                    f"process that handles it: {error}"
                ) from error
        signature = (fn.__defaults__, fn.__kwdefaults__, fn.__annotations__)
        return unpack.Function(
            kind=_kind(kernel),
            name=fn.__name__,
            qualname=fn.__qualname__,
            module=fn.__module__,
            filename=_logical_filename(fn),
            line=line,
            source=source,
            options=_options(kernel),
            signature=self.pickle(signature),
            names=self.pickle(names, attributes),
        )


class _Pickler(pickle.Pickler):
    """Pickles kernels by number, libraries by name, modules by the parts in use."""

    def __init__(
        self, file: io.BytesIO, packer: _Packer, attributes: frozenset[str]
    ) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.packer = packer
        self.attributes = attributes

    def persistent_id(self, obj: object) -> tuple[str, Any] | None:
        if is_kernel(obj):
            if _is_library(obj.fn.__module__):
                return "object", (obj.fn.__module__, obj.fn.__qualname__)
            return "kernel", self.packer.function(obj)
        if isinstance(obj, types.ModuleType) and _is_library(obj.__name__):
            return "module", obj.__name__
        if isinstance(obj, _Storage):
            return "storage", obj.index
        return None

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, torch.Tensor):
            if self.packer.storages is None:
                return Pointer, tuple(vars(Pointer.of(obj)).values())
            layout = obj.dtype, obj.storage_offset(), obj.shape, obj.stride()
            return unpack.tensor, (_Storage(self.packer.storage(obj)), *layout)
        if isinstance(obj, (Autotuner, Heuristics)):
            return unpack.identity, (obj.fn,)
        if isinstance(obj, types.ModuleType):
            used = {name: vars(obj)[name] for name in self.attributes & set(vars(obj))}
            used = {k: v for k, v in used.items() if self._can_pickle(v)}
            return unpack.module, (obj.__name__,), used
        if isinstance(obj, (type, types.FunctionType)) and obj.__module__ == "__main__":
            raise TypeError(
                f"{obj.__qualname__} is a {type(obj).__name__} of a script or notebook "
                "and no kernel; define it in a module"
            )
        return NotImplemented

    def _can_pickle(self, value: object) -> bool:
        if isinstance(value, types.ModuleType):
            return True
        try:
            self.packer.pickle(value, self.attributes)
        except (TypeError, AttributeError, pickle.PicklingError):
            return False
        return True


@dataclass(frozen=True)
class _Storage:
    """Stands for a storage among the packed ones."""

    index: int


def contents(storage: torch.UntypedStorage) -> unpack.Content:
    """Return what a storage holds, from any device, and nothing of empty pages."""
    pages, rest = unpack.pages_of(storage)
    filled = pages.view(torch.int64).any(1)
    parts = (pages[filled], rest)
    data = b"".join(part.cpu().numpy().tobytes() for part in parts)
    where = filled.nonzero().flatten().tolist()
    return unpack.Content(storage.nbytes(), where, data)


def _is_library(module: str | None) -> bool:
    # A function made by exec with bare globals claims to be of builtins.
    return module not in (None, "builtins") and module.partition(".")[0] in LIBRARIES


def _kind(kernel: Any) -> str:
    if isinstance(kernel, ConstexprFunction):
        return "constexpr_function"
    return "gluon" if isinstance(kernel, GluonJITFunction) else "triton"


def _options(kernel: Any) -> dict[str, Any]:
    given = kernel.kwargs if isinstance(kernel, InterpretedFunction) else vars(kernel)
    return {name: given[name] for name in JIT_OPTIONS if given.get(name) is not None}


def _logical_filename(fn: types.FunctionType) -> str:
    """Name a source file without saying where this machine keeps it.

    It ends up in the compiled artefacts, which should be the same everywhere.
    """
    if fn.__module__ in (None, "builtins", "__main__"):
        return fn.__code__.co_filename.rpartition("/")[2]
    return fn.__module__.replace(".", "/") + ".py"


def _named_values(fn: types.FunctionType, source: str) -> dict[str, Any]:
    """Find the values of all names that a function's source takes from outside."""
    module = symtable.symtable(source, "<kernel>", "exec")
    names = {s.get_name() for s in module.get_symbols() if s.is_referenced()}
    tables = list(module.get_children())
    for table in tables:
        names.update(s.get_name() for s in table.get_symbols() if s.is_global())
        tables.extend(table.get_children())
    known = {**fn.__globals__, **inspect.getclosurevars(fn).nonlocals}
    return {name: known[name] for name in sorted(names) if name in known}
