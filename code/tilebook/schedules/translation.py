"""A kernel's own Python with models in place of Gluon's operations."""

from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import triton.language as tl
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import ampere, hopper

from tilebook import _gluon
from tilebook.schedules import arithmetic, language

MODELS: dict[str, Any] = {
    "program_id": language.program_id,
    "num_programs": language.num_programs,
    "allocate_shared_memory": language.allocate_shared_memory,
    "warp_specialize": language.warp_specialize,
    "inline_asm_elementwise": language.inline_asm_elementwise,
    "split": language.split,
    "join": language.join,
    "zeros": language.zeros,
    "arange": language.arange,
    "expand_dims": language.expand_dims,
    "load": language.load,
    "cdiv": language.cdiv,
    "static_range": range,
    "full": arithmetic.full,
    "maximum": arithmetic.maximum,
    "minimum": arithmetic.minimum,
    "max": arithmetic.max,
    "sum": arithmetic.sum,
    "exp2": arithmetic.exp2,
    "log2": arithmetic.log2,
    "where": arithmetic.where,
    "convert_layout": arithmetic.convert_layout,
    "store": arithmetic.store,
    "atomic_add": arithmetic.atomic_add,
}
"""What stands for `gl` and for `tl`, by name."""
_BY_ID: dict[int, Any] = {
    **{
        id(getattr(module, name)): model
        for module in (gl, tl)
        for name, model in MODELS.items()
        if hasattr(module, name)
    },
    id(hopper.mbarrier.init): language.init,
    id(hopper.mbarrier.expect): language.expect,
    id(hopper.mbarrier.arrive): language.arrive,
    id(hopper.mbarrier.wait): language.wait,
    id(hopper.tma.store_wait): language.store_wait,
    id(_gluon.async_copy_load): language.async_copy,
    id(ampere.async_copy.mbarrier_arrive): language.copies_arrive,
    id(_gluon.async_load): language.async_load,
    id(_gluon.async_store): language.async_store,
    id(_gluon.async_add): language.async_add,
    id(_gluon.seen_as): language.seen_as,
    id(hopper.fence_async_shared): language.fence_async_shared,
    id(hopper.warpgroup_mma): language.warpgroup_mma,
    id(hopper.warpgroup_mma_init): language.warpgroup_mma_init,
    id(hopper.warpgroup_mma_wait): language.warpgroup_mma_wait,
}


def unwrapped(value: Any) -> Any:
    """A value, or what a constexpr holds."""
    return value.value if isinstance(value, gl.constexpr) else value


class Translation:
    """Kernels and what they call, translated as they are now.

    A mistake that a test plants for a while is seen by the next translation.
    """

    def __init__(self) -> None:
        # By identity: a kernel's hash reads its source.
        self._done: dict[int, Callable[..., Any]] = {}

    def of(self, function: Any) -> Callable[..., Any]:
        """Translate a kernel, or what one calls.

        Args:
            function: decorated with @gluon.jit or @triton.jit.

        Returns:
            A function that runs on `machine.here()`.
        """
        if id(function) not in self._done:
            inner = function.fn
            models: dict[str, Any] = {}
            cells = tuple(CellType() for _ in inner.__closure__ or ())
            found = FunctionType(inner.__code__, models, inner.__name__, closure=cells)
            # It may call itself: it is there before its own names are looked up.
            self._done[id(function)] = found
            found.__defaults__ = tuple(map(unwrapped, inner.__defaults__ or ()))
            named = (inner.__kwdefaults__ or {}).items()
            found.__kwdefaults__ = {name: unwrapped(value) for name, value in named}
            for name, cell, old in zip(
                inner.__code__.co_freevars, cells, inner.__closure__ or (), strict=True
            ):
                cell.cell_contents = self.model(old.cell_contents, name)
            for name in _names(inner.__code__):
                if name in inner.__globals__:
                    models[name] = self.model(inner.__globals__[name], name)
        return self._done[id(function)]

    def model(self, value: Any, name: str) -> Any:
        """What stands for a value that a kernel knows by a name."""
        if id(value) in _BY_ID:
            return _BY_ID[id(value)]
        value = unwrapped(value)
        if isinstance(value, ModuleType):
            return _Module(value, self)
        theirs = getattr(getattr(value, "fn", value), "__module__", None) or ""
        if theirs.startswith("triton.") and not isinstance(value, type):
            if callable(value):
                return _unmodelled(f"{theirs.removeprefix('triton.')}.{name}")
            return value
        return self.of(value) if hasattr(value, "fn") else value


class _Module:
    """A module, with models of what is in it."""

    def __init__(self, module: ModuleType, translation: Translation) -> None:
        self._module, self._translation = module, translation

    def __getattr__(self, name: str) -> Any:
        return self._translation.model(getattr(self._module, name), name)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _unmodelled(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **meta: Any) -> Any:
        raise NotImplementedError(f"{name} is not modelled")

    return refuse
