"""Where Triton's interpreter meets the bounds check: launches, pointers, accesses."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.interpreter import bounds
from tilebook.interpreter.handles import Handle, values_of
from tilebook.interpreter.patches import replace

_Builder = upstream.InterpreterBuilder
# A launch replaces the language of the whole process, and counts its programs there.
_one_at_a_time = threading.RLock()
# Pointer-valued operations, and which of their arguments is the pointer.
_CARRIERS = {
    "create_addptr": 0,
    "create_bitcast": 0,
    "create_broadcast": 0,
    "create_expand_dims": 0,
    "create_reshape": 0,
    "create_splat": 1,
    "create_trans": 0,
    "create_unsplat": 0,
}


def install() -> None:
    """Lay the bounds check and the observers over the interpreter."""
    replace(upstream.GridExecutor, "__call__", _watch_launch)
    replace(upstream.GridExecutor, "_init_args_hst", _learn_arguments)
    replace(upstream, "_implicit_cvt", _mark_argument)
    for name, position in _CARRIERS.items():
        replace(_Builder, name, functools.partial(_carry_origin, position=position))
    replace(_Builder, "create_select", _carry_common_origin)
    for name in ("TensorDescHandle", "BlockPointerHandle"):
        if hasattr(upstream, name):
            owner = getattr(upstream, name)
            replace(owner, "materialize_pointers", _carry_base)
    replace(_Builder, "create_masked_load", _watch_load)
    replace(_Builder, "create_masked_store", _watch_store)
    replace(_Builder, "create_atomic_cas", _watch_cas)
    replace(_Builder, "create_atomic_rmw", _watch_rmw)
    for name in ("create_atomic_load", "create_atomic_store"):
        if hasattr(_Builder, name):
            replace(_Builder, name, _watch_atomic_access)


def _watch_launch(call: Callable) -> Callable:
    @functools.wraps(call)
    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A GPU has no floating-point warnings; NumPy's would only alarm the reader.
        with _one_at_a_time, np.errstate(all="ignore"):
            bounds.launches.append(bounds.Launch(self.fn.__name__))
            try:
                return call(self, *args, **kwargs)
            except InterpreterError as error:
                cause: BaseException | None = error
                while isinstance(cause, InterpreterError):
                    cause = cause.__cause__
                if isinstance(cause, bounds.OutOfBounds):
                    raise cause from None
                raise
            finally:
                bounds.launches.pop()

    return launch


def _learn_arguments(init: Callable) -> Callable:
    @functools.wraps(init)
    def learn(self: Any, args: Any, kwargs: Any) -> Any:
        host_args, host_kwargs = init(self, args, kwargs)
        launch = bounds.launches[-1]
        names = dict(zip(self.arg_names, host_args, strict=False))
        for name, value in (names | host_kwargs).items():
            _add_argument(launch, value, name)
        return host_args, host_kwargs

    return learn


def _add_argument(launch: bounds.Launch, value: Any, name: str) -> None:
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            _add_argument(launch, part, f"{name}[{i}]")
    elif isinstance(value, TensorDescriptor):
        _add_argument(launch, value.base, name)
    elif hasattr(value, "data_ptr"):
        launch.add(value, name)


def _mark_argument(convert: Callable) -> Callable:
    @functools.wraps(convert)
    def mark(arg: Any) -> Any:
        result = convert(arg)
        if bounds.launches and isinstance(result, tl.tensor):
            origin = bounds.launches[-1].origins.get(id(arg))
            if origin is not None:
                result.handle.attr[bounds.ORIGIN] = origin
        return result

    return mark


def _carry_origin(operation: Callable, position: int) -> Callable:
    @functools.wraps(operation)
    def carry(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = operation(self, *args, **kwargs)
        origin = args[position].attr.get(bounds.ORIGIN)
        if origin is not None:
            result.attr[bounds.ORIGIN] = origin
        return result

    return carry


def _carry_common_origin(select: Callable) -> Callable:
    @functools.wraps(select)
    def carry(self: Any, condition: Any, a: Any, b: Any) -> Any:
        result = select(self, condition, a, b)
        origin = a.attr.get(bounds.ORIGIN)
        if origin is not None and origin is b.attr.get(bounds.ORIGIN):
            result.attr[bounds.ORIGIN] = origin
        return result

    return carry


def _carry_base(materialize: Callable) -> Callable:
    @functools.wraps(materialize)
    def carry(self: Any, *args: Any) -> Any:
        pointers, masks = materialize(self, *args)
        origin = self.base.attr.get(bounds.ORIGIN)
        if origin is not None:
            pointers.attr[bounds.ORIGIN] = origin
        return pointers, masks

    return carry


class Operation:
    """One access on its way through the interpreter."""

    def __init__(self, op: str, builder: Any, pointers: Any, mask: Any) -> None:
        self.pointers = np.asarray(pointers.data)
        # Descriptors hand over a bare array as their mask before Triton 3.9.
        bare = isinstance(mask, np.ndarray) or mask is None
        data = True if mask is None else mask if bare else mask.data
        lanes = np.broadcast_to(np.asarray(data, dtype=bool), self.pointers.shape)
        bits = pointers.get_element_ty().primitive_bitwidth
        self.rest = (
            lanes,
            max(1, bits // 8),
            pointers.attr.get(bounds.ORIGIN),
            tuple(builder.grid_idx),
        )
        self.op = _atomic_now[-1] if _atomic_now else op

    def check(self, mask: Any) -> Any:
        """Raise `OutOfBounds` unless the access stays inside its tensor.

        Args:
            mask: as the interpreter has it.

        Returns:
            It; without the lanes that stray, if somebody collects these.
        """
        lanes = bounds.check(self.op, self.pointers, *self.rest)
        if lanes is None:
            return mask
        self.rest = (lanes, *self.rest[1:])
        return lanes if isinstance(mask, np.ndarray) else Handle(lanes, tl.int1)

    def report(self, value: Any) -> None:
        """Tell the observers, if any, about the access and its values (a handle)."""
        if bounds.observed():
            bounds.report(self.op, self.pointers, *self.rest, values_of(value))


# Not empty while a load or store carries out an atomic one.
_atomic_now: list[str] = []


def _watch_load(load: Callable) -> Callable:
    @functools.wraps(load)
    def watch(self: Any, ptrs: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        access = Operation("load", self, ptrs, mask)
        mask = access.check(mask)
        result = load(self, ptrs, mask, *rest, **options)
        access.report(result)
        return result

    return watch


def _watch_store(store: Callable) -> Callable:
    @functools.wraps(store)
    def watch(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        access = Operation("store", self, ptrs, mask)
        mask = access.check(mask)
        access.report(value)
        return store(self, ptrs, value, mask, *rest)

    return watch


def _watch_cas(cas: Callable) -> Callable:
    @functools.wraps(cas)
    def watch(self: Any, ptr: Any, cmp: Any, val: Any, *rest: Any) -> Any:
        access = Operation("atomic", self, ptr, None)
        if access.check(None) is not None:
            # An exchange has no mask that could leave a lane out.
            return Handle(np.zeros_like(cmp.data), cmp.dtype)
        access.report(val)
        return cas(self, ptr, cmp, val, *rest)

    return watch


def _watch_rmw(rmw: Callable) -> Callable:
    @functools.wraps(rmw)
    def watch(self: Any, kind: Any, ptr: Any, val: Any, mask: Any, *rest: Any) -> Any:
        access = Operation("atomic", self, ptr, mask)
        mask = access.check(mask)
        access.report(val)
        return rmw(self, kind, ptr, val, mask, *rest)

    return watch


def _watch_atomic_access(operation: Callable) -> Callable:
    @functools.wraps(operation)
    def watch(self: Any, *args: Any) -> Any:
        _atomic_now.append("atomic")
        try:
            return operation(self, *args)
        finally:
            _atomic_now.pop()

    return watch
