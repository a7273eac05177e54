"""What the words of `language` become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilebook.compiler import types
from tilebook.compiler.emit import Emitter, Mismatch, Operand, describe, is_pointer
from tilebook.compiler.ssa import Block, Value
from tilebook.compiler.types import Scalar, Tensor, bf16, f16, f32, i1, i32

LEAST_DOT = 16


def _program_id(emit: Emitter, axis: int) -> Value:
    return emit.one("tt.get_program_id", to=i32, axis=_axis(axis, 3, "the grid"))


def _num_programs(emit: Emitter, axis: int) -> Value:
    return emit.one("tt.get_num_programs", to=i32, axis=_axis(axis, 3, "the grid"))


def _axis(axis: object, rank: int, of: str) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < rank:
        allowed = ", ".join(map(str, range(rank))) or "none"
        raise Mismatch(f"{of} has axes {allowed}, got {describe(axis)}")
    return axis


def _arange(emit: Emitter, start: int, end: int) -> Value:
    for x in (start, end):
        if isinstance(x, bool) or not isinstance(x, int):
            raise Mismatch(f"arange takes constants, got {describe(x)}")
    if start < 0 or not types.is_side(end - start):
        raise Mismatch(f"arange({start}, {end}) needs a length that is a power of two")
    return emit.one(
        "tt.make_range", to=Tensor(i32, (end - start,)), start=start, end=end
    )


def _full(emit: Emitter, shape: tuple, value: Operand, dtype: Scalar) -> Value:
    sides = shape if isinstance(shape, tuple) else (shape,)
    if not sides or not all(map(types.is_side, sides)):
        said = ", ".join(map(describe, sides)) or "none"
        raise Mismatch(f"sides must be constants that are powers of two, got {said}")
    _scalar(dtype)
    if isinstance(value, Value):
        return emit.broadcast(emit.cast(value, dtype), sides)
    return emit.constant(value, Tensor(dtype, sides))


def _zeros(emit: Emitter, shape: tuple, dtype: Scalar) -> Value:
    return _full(emit, shape, 0, dtype)


def _scalar(dtype: object) -> None:
    if not isinstance(dtype, Scalar):
        raise Mismatch(f"a type such as f32 is needed, got {describe(dtype)}")


def _pointers(x: Operand) -> Value:
    if not isinstance(x, Value) or not is_pointer(x):
        raise Mismatch(f"a pointer or a tile of them is needed, got {describe(x)}")
    return x


def _mask(emit: Emitter, mask: Operand, sides: tuple[int, ...]) -> Value:
    mask = emit.value(mask)
    if types.element(mask.type) != i1:
        raise Mismatch(f"a mask is a comparison (i1), got {describe(mask)}")
    return emit.broadcast(mask, sides)


def _load(
    emit: Emitter, pointer: Operand, mask: Operand | None, other: Operand | None
) -> Value:
    pointer = _pointers(pointer)
    sides, kind = types.shape(pointer.type), types.element(pointer.type).element
    if (mask is None) != (other is None):
        raise Mismatch("mask and other go together: what do the other lanes read?")
    operands = [pointer]
    if mask is not None:
        operands.append(_mask(emit, mask, sides))
        if isinstance(other, Value):
            other = emit.broadcast(emit.cast(other, kind), sides)
        else:
            other = emit.constant(other, types.shaped(kind, sides))
        operands.append(other)
    return emit.one("tt.load", *operands, to=types.shaped(kind, sides))


def _store(
    emit: Emitter, pointer: Operand, value: Operand, mask: Operand | None
) -> None:
    pointer = _pointers(pointer)
    sides, kind = types.shape(pointer.type), types.element(pointer.type).element
    value = emit.broadcast(emit.cast(emit.value(value, kind), kind), sides)
    masks = () if mask is None else (_mask(emit, mask, sides),)
    emit.op("tt.store", (pointer, value, *masks))


def _where(emit: Emitter, condition: Operand, x: Operand, y: Operand) -> Value:
    left, right, _ = emit.together(x, y)
    condition = emit.value(condition)
    try:
        sides = types.broadcast(types.shape(condition.type), types.shape(left.type))
    except ValueError as error:
        raise Mismatch(str(error)) from None
    condition = _mask(emit, condition, sides)
    left, right = emit.broadcast(left, sides), emit.broadcast(right, sides)
    return emit.one("arith.select", condition, left, right, to=left.type)


def _maximum(emit: Emitter, x: Operand, y: Operand) -> Operand:
    return emit.binary("maximum", x, y)


def _minimum(emit: Emitter, x: Operand, y: Operand) -> Operand:
    return emit.binary("minimum", x, y)


def _math(name: str) -> Callable[[Emitter, Operand], Value]:
    def lower(emit: Emitter, x: Operand) -> Value:
        x = emit.value(x)
        if types.element(x.type) != f32:
            raise Mismatch(f"{name} takes f32, got {describe(x)}: cast with .to(f32)")
        return emit.one(f"math.{name}", x, to=x.type)

    return lower


def _reduce(symbol: str) -> Callable[[Emitter, Operand, int], Value]:
    def lower(emit: Emitter, x: Operand, axis: int) -> Value:
        if not isinstance(x, Value) or not isinstance(x.type, Tensor):
            raise Mismatch(f"only tiles have axes, not {describe(x)}")
        sides = x.type.shape
        _axis(axis, len(sides), str(x.type))
        narrow = {f16: f32, bf16: f32, i1: i32}
        x = emit.cast(x, narrow.get(x.type.element, x.type.element))
        kind = x.type.element
        terms = Value(kind), Value(kind)
        with emit.block() as ops:
            total = emit.binary(symbol, *terms)
            emit.op("tt.reduce.return", (total,))
        left = types.shaped(kind, sides[:axis] + sides[axis + 1 :])
        body = Block(terms, tuple(ops))
        return emit.op("tt.reduce", (x,), (left,), body, axis=axis)[0]

    return lower


def _dot(emit: Emitter, a: Operand, b: Operand, acc: Operand | None) -> Value:
    for x in (a, b):
        if not isinstance(x, Value) or len(types.shape(x.type)) != 2:
            raise Mismatch(f"dot takes tiles with two sides, got {describe(x)}")
    (m, k), (rows, n) = a.type.shape, b.type.shape
    if k != rows:
        raise Mismatch(f"dot of {a.type} and {b.type}: {k} columns, {rows} rows")
    if a.type.element != b.type.element or a.type.element not in (f16, bf16, f32):
        raise Mismatch(f"dot takes f16, bf16 or f32 twice, got {a.type} and {b.type}")
    if min(m, n, k) < LEAST_DOT:
        raise Mismatch(f"sides of a dot are {LEAST_DOT} or more, got {m}, {n} and {k}")
    kind = Tensor(f32, (m, n))
    acc = emit.constant(0.0, kind) if acc is None else acc
    if not isinstance(acc, Value) or acc.type != kind:
        raise Mismatch(f"acc must be {kind}, got {describe(acc)}")
    return emit.one("tt.dot", a, b, acc, to=kind)


LOWERING: dict[str, Callable[..., Any]] = {
    "program_id": _program_id,
    "num_programs": _num_programs,
    "arange": _arange,
    "full": _full,
    "zeros": _zeros,
    "load": _load,
    "store": _store,
    "where": _where,
    "maximum": _maximum,
    "minimum": _minimum,
    "exp": _math("exp"),
    "exp2": _math("exp2"),
    "log": _math("log"),
    "sqrt": _math("sqrt"),
    "sum": _reduce("+"),
    "max": _reduce("maximum"),
    "dot": _dot,
}
"""By the name of the intrinsic: a function of an emitter and the bound arguments."""
