"""Atomics, descriptors, arguments and assertions, where the interpreter is wrong.

Each public function takes what Triton ships and returns what to put in its place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton import knobs
from triton.runtime import interpreter as upstream

from tilebook.interpreter.handles import Handle, is_narrow, pack, values_of
from tilebook.interpreter.watch import Operation


def atomic_rmw(original: Callable) -> Callable:
    def create_atomic_rmw(
        self: Any, op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any
    ) -> Any:
        if val.dtype.scalar == tl.bfloat16 and op == upstream._ir.ATOMIC_OP.FADD:
            return _lane_by_lane(np.add, ptr, val, mask)
        result = original(self, op, ptr, val, mask, sem, scope)
        # Natively, lanes that are off return whatever the memory held.
        return Handle(
            np.where(mask.data, result.data, result.data.dtype.type(0)), result.dtype
        )

    return create_atomic_rmw


def _lane_by_lane(op: Callable, ptr: Any, val: Any, mask: Any) -> Any:
    """Do an atomic of a type that the native code lacks; lanes may share an element."""
    kind, native = val.dtype.scalar, upstream._interpreter
    old = np.zeros(ptr.data.shape, dtype=val.data.dtype)
    on, nothing = np.ones(1, dtype=bool), np.zeros(1, dtype=val.data.dtype)
    lanes = np.broadcast_to(np.asarray(mask.data), ptr.data.shape)
    for lane in zip(*np.nonzero(lanes), strict=True):
        address = ptr.data[lane].reshape(1)
        before = native.load(address, on, nothing, nothing.dtype)
        given = Handle(val.data[lane].reshape(1), kind)
        after = pack(op(values_of(Handle(before, kind)), values_of(given)), kind)
        native.store(address, after.data, on)
        old[lane] = before[0]
    return Handle(old, kind)


def descriptor_reduce(original: Callable | None) -> Callable:
    kinds, ops = upstream._ir.DESCRIPTOR_REDUCE_KIND, upstream._ir.ATOMIC_OP
    bitwise = {kinds.AND: ops.AND, kinds.OR: ops.OR, kinds.XOR: ops.XOR}

    def choose(kind: Any, dtype: tl.dtype) -> Any:
        if kind == kinds.ADD:
            return ops.FADD if dtype.is_floating() else ops.ADD
        if kind in bitwise:
            return bitwise[kind]
        signed = dtype.is_int_signed()
        if kind == kinds.MIN:
            return ops.MIN if signed else ops.UMIN
        return ops.MAX if signed else ops.UMAX

    def create_descriptor_reduce(
        self: Any, kind: Any, desc: Any, value: Any, offsets: Any
    ) -> None:
        pointers, inside = desc.materialize_pointers(offsets)
        mask = inside if isinstance(inside, Handle) else Handle(inside, tl.int1)
        dtype = value.dtype.scalar
        if dtype.is_floating() and kind != kinds.ADD:
            access = Operation("atomic", self, pointers, mask)
            mask = access.check(mask)
            access.report(value)
            op = np.fmin if kind == kinds.MIN else np.fmax
            _lane_by_lane(op, pointers, value, mask)
        else:
            relaxed = upstream._ir.MEM_SEMANTIC.RELAXED
            op = choose(kind, dtype)
            self.create_atomic_rmw(op, pointers, value, mask, relaxed, None)

    return create_descriptor_reduce


def nan_padded_load(original: Callable) -> Callable:
    nan = upstream._ir.PADDING_OPTION.PAD_NAN

    def create_descriptor_load(self: Any, desc: Any, indices: Any, *rest: Any) -> Any:
        kind = desc.base.get_element_ty()
        if desc.padding != nan or not is_narrow(kind):
            return original(self, desc, indices, *rest)
        pointers, mask = desc.materialize_pointers(indices)
        other = pack(np.full(pointers.data.shape, np.nan), kind)
        return self.create_masked_load(pointers, mask, other, *rest, False)

    return create_descriptor_load


def scalar_arguments(original: Callable) -> Callable:
    def convert(arg: Any) -> Any:
        if isinstance(arg, bool):
            return tl.tensor(Handle(np.array([arg]), tl.int1), tl.int1)
        if isinstance(arg, float):
            return tl.tensor(pack(np.array([arg]), tl.float32), tl.float32)
        return original(arg)

    return convert


def index(original: Callable) -> Callable:
    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    return patch


def options(original: Any) -> Any:
    """Let device assertions fire, and overflow checks only where they were asked for.

    Those checks are costly, and end in assertions that a GPU drops unless debugging.
    """
    checks = knobs.runtime.debug
    return dataclasses.replace(original, debug=True, sanitize_overflow=checks)
