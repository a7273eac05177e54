"""Putting the repairs and the bounds check in place, once per process."""

import functools
import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter as upstream
from triton.runtime.jit import JITCallable, JITFunction

from tilebook.interpreter import bounds, libdevice, repairs, watch
from tilebook.interpreter.patches import replace

_installed = False
# What Triton's decorator is given, and under which name a compiled kernel keeps it.
_OPTIONS = {
    "version": "version",
    "do_not_specialize": "do_not_specialize",
    "do_not_specialize_on_alignment": "do_not_specialize_on_alignment",
    "debug": "debug",
    "noinline": "noinline",
    "repr": "_repr",
    "launch_metadata": "launch_metadata",
}


def install() -> None:
    """Repair and watch the interpreter; convert kernels decorated before."""
    global _installed
    if not _installed:
        repairs.install()
        watch.install()
        libdevice.install()
        # Upstream builds a table of all types at every look-up.
        replace(upstream, "_get_np_dtype", _remembering)
        # It replaces the whole language at every call of a helper function.
        replace(upstream, "_patch_lang", _once_a_launch)
        # And looks through all its names for functions at every launch.
        replace(upstream, "_patch_builtin", _knowing_names)
        # It writes down the shape of every tile anew.
        replace(tl.tensor, "__init__", _sharing_shapes)
        # And checks it in every type of a tile.
        replace(tl.block_type, "__init__", _sharing_types)
        # It compares types by name, and shapes side by side, that are one object now.
        replace(tl.dtype, "__eq__", _same_first)
        replace(TritonSemantic, "broadcast_impl_value", _same_shape_first)
        _installed = True
    _convert_compiled_kernels()


def _remembering(look_up: Callable) -> Callable:
    known: dict[str, np.dtype] = {}

    def get_np_dtype(kind: Any) -> np.dtype:
        name = kind.scalar.name
        if name not in known:
            known[name] = look_up(kind)
        return known[name]

    return get_np_dtype


def _once_a_launch(patch: Callable) -> Callable:
    known: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()

    def patch_lang(fn: Any) -> Any:
        if not bounds.launches:
            return patch(fn)
        if fn not in known:
            seen = (x for x in fn.__globals__.values() if inspect.ismodule(x))
            known[fn] = frozenset(x.__name__ for x in seen if x in (tl, tl.core))
        if known[fn] and known[fn] <= bounds.launches[-1].patched:
            return upstream._LangPatchScope()
        bounds.launches[-1].patched |= known[fn]
        return patch(fn)

    return patch_lang


def _knowing_names(patch: Callable) -> Callable:
    known: dict[Any, list[str]] = {}

    def patch_builtin(owner: Any, builder: Any, scope: Any) -> None:
        if owner not in known:
            members = inspect.getmembers(owner)
            known[owner] = [name for name, x in members if tl.core.is_builtin(x)]
        for name in known[owner]:
            # A launch replaces a function once, however many modules lead to it.
            if tl.core.is_builtin(member := getattr(owner, name)):
                upstream._patch_attr(owner, name, member, builder, scope)

    return patch_builtin


def _sharing_shapes(init: Callable) -> Callable:
    known: dict[tuple[int, ...], dict[str, Any]] = {}

    @functools.wraps(init)
    def make(self: tl.tensor, handle: Any, type: tl.dtype) -> None:
        shape = tuple(type.shape) if type.is_block() else ()
        if shape not in known:
            init(self, handle, type)
            own = ("handle", "type", "dtype")
            known[shape] = {k: v for k, v in vars(self).items() if k not in own}
        vars(self).update(known[shape], handle=handle, type=type, dtype=type.scalar)

    return make


def _sharing_types(init: Callable) -> Callable:
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    shapes: dict[tuple[int, ...], Any] = {}

    @functools.wraps(init)
    def make(self: tl.block_type, element_ty: tl.dtype, shape: Any) -> None:
        space = getattr(element_ty, "address_space", None)
        try:
            key = (type(element_ty), element_ty.name, space, type(shape), *shape)
            found = known.get(key)
        except (AttributeError, TypeError):
            # What can't be looked up is upstream's to accept or to refuse.
            return init(self, element_ty, shape)
        if found is None:
            init(self, element_ty, shape)
            self.shape = shapes.setdefault(tuple(self.shape), self.shape)
            known[key] = dict(vars(self))
        else:
            vars(self).update(found)
        return None

    return make


def _same_first(equal: Callable) -> Callable:
    @functools.wraps(equal)
    def first(self: tl.dtype, other: Any) -> bool:
        return self is other or equal(self, other)

    return first


def _same_shape_first(broadcast: Callable) -> Callable:
    @functools.wraps(broadcast)
    def first(self: Any, lhs: tl.tensor, rhs: tl.tensor) -> tuple[Any, Any]:
        shape = getattr(lhs.type, "shape", None)
        if shape is not None and shape is getattr(rhs.type, "shape", None):
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    return first


class _Converted(JITCallable, upstream.InterpretedFunction):
    """A kernel decorated for the compiler, made an interpreted one.

    Deriving from the compiler's class too lets an existing object change into it.
    """

    __hash__ = object.__hash__

    def __get__(self, instance: Any, owner: type) -> Any:
        # Triton hangs some of its functions on the tensor class, as bare kernels
        # when compiling and as methods when interpreting: x.max(0).
        if isinstance(instance, tl.tensor):
            return functools.partial(self, instance)
        return self


def _convert_compiled_kernels() -> None:
    """Turn every compiled-mode kernel of this process into an interpreted one.

    Triton picks a kernel's class when it is decorated. Where Triton was imported
    before `tilebook`, its own library (`tl.sum` and the like) and perhaps the reader's
    kernels are compiled ones. They are converted in place, because others hold
    references to them: autotuners, importing modules, and the interpreter itself,
    which knows some of them by identity. Gluon kernels stay, as nothing interprets
    them.
    """
    for kernel in [found for found in gc.get_objects() if type(found) is JITFunction]:
        options = {key: getattr(kernel, name) for key, name in _OPTIONS.items()}
        attributes = upstream.InterpretedFunction(kernel.fn, **options).__dict__
        kernel.__class__ = _Converted
        kernel.__dict__.clear()
        kernel.__dict__.update(attributes)
