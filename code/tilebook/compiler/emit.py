"""Typed operations: each method checks its operands and appends what they need."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tilebook.compiler import types
from tilebook.compiler.ssa import Block, Op, Place, Value
from tilebook.compiler.types import Pointer, Scalar, Type, f32, i1, i32

Number = bool | int | float
Operand = Value | Number

# For integers, and for floating-point numbers; None where there is none.
ARITHMETIC = {
    "+": ("arith.addi", "arith.addf"),
    "-": ("arith.subi", "arith.subf"),
    "*": ("arith.muli", "arith.mulf"),
    "/": (None, "arith.divf"),
    "//": ("arith.divsi", None),
    "%": ("arith.remsi", None),
    "maximum": ("arith.maxsi", "arith.maxnumf"),
    "minimum": ("arith.minsi", "arith.minnumf"),
}
LOGIC = {"&": "arith.andi", "|": "arith.ori", "^": "arith.xori"}
# A NaN is unequal to everything, and compares with nothing else: o is for ordered.
COMPARISONS = {
    "<": ("slt", "olt"),
    "<=": ("sle", "ole"),
    ">": ("sgt", "ogt"),
    ">=": ("sge", "oge"),
    "==": ("eq", "oeq"),
    "!=": ("ne", "une"),
}


class Mismatch(Exception):
    """Operands of the wrong type; the caller knows where."""


def _quotient(a: int, b: int) -> int:
    """Divide and round towards zero, as the hardware does and Python doesn't."""
    whole = abs(a) // abs(b)
    return whole if (a < 0) == (b < 0) else -whole


def _number_of(choose: Callable[..., Any], a: Any, b: Any) -> Any:
    """Choose among two, a number rather than a NaN."""
    return b if a != a else a if b != b else choose(a, b)


FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": _quotient,
    "%": lambda a, b: a - b * _quotient(a, b),
    "maximum": functools.partial(_number_of, max),
    "minimum": functools.partial(_number_of, min),
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Emitter:
    """Appends operations to a block.

    `place` and `hint` are where the user wrote what comes next, and the name it is for.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.hint = place, ""
        self._ops: list[Op] = []

    @contextmanager
    def block(self) -> Iterator[list[Op]]:
        """Append to a block inside, for the time of a `with`, and yield its list."""
        outer, self._ops = self._ops, []
        try:
            yield self._ops
        finally:
            self._ops = outer

    def op(
        self,
        name: str,
        operands: tuple[Value, ...],
        results: tuple[Type, ...] = (),
        body: Block | None = None,
        hints: Iterable[str] = (),
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Append an operation and return its results, of these names if they differ."""
        named = tuple(hints) or (self.hint,) * len(results)
        made = tuple(map(Value, results, named))
        self._ops.append(Op(name, operands, made, self.place, attributes, body))
        return made

    def one(self, name: str, *operands: Value, to: Type, **attributes: Any) -> Value:
        """Append an operation that makes one value, and return it."""
        return self.op(name, operands, (to,), **attributes)[0]

    def value(self, x: Operand, beside: Scalar | None = None) -> Value:
        """Return a value as it is, and a constant as a value of the type it takes."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, Number):
            raise Mismatch(f"a number or a tile is needed, got {describe(x)}")
        try:
            return self.constant(x, types.of_constant(x, beside))
        except ValueError as error:
            raise Mismatch(str(error)) from None

    def constant(self, x: Number, kind: Type) -> Value:
        """Append a constant, the same for every entry of a tile."""
        scalar = types.element(kind)
        if not isinstance(scalar, Scalar):
            raise Mismatch(f"a number is no pointer: {describe(x)}")
        try:
            x = float(x) if scalar.floating else x
        except OverflowError:
            raise Mismatch(f"{scalar} can't hold {x}") from None
        whole = scalar.floating or (math.isfinite(x) and x == int(x))
        if not whole or not (scalar.floating or types.fits(int(x), scalar)):
            raise Mismatch(f"{scalar} can't hold {x}")
        x = x if scalar.floating else int(x)
        return self.one("arith.constant", to=kind, value=x)

    def cast(self, x: Operand, to: Scalar) -> Value:
        """Convert numbers to another type."""
        if not isinstance(x, Value):
            return self.constant(x, to) if to.floating else self.value(x, to)
        old = types.element(x.type)
        if not isinstance(old, Scalar) or not isinstance(to, Scalar):
            raise Mismatch(f"only numbers can be cast to numbers, not {x.type} to {to}")
        kind = types.shaped(to, types.shape(x.type))
        if old == to:
            return x
        if to == i1:
            return self.compare("!=", x, 0)
        if old.floating and to.floating:
            if old.bits == to.bits:
                return self.cast(self.cast(x, f32), to)
            return self.one(
                "arith.extf" if old.bits < to.bits else "arith.truncf", x, to=kind
            )
        if old.floating:
            return self.one("arith.fptosi", x, to=kind)
        if to.floating:
            # A truth value counts as 1; as a signed number of one bit it would be -1.
            return self.one("arith.uitofp" if old == i1 else "arith.sitofp", x, to=kind)
        if old.bits > to.bits:
            return self.one("arith.trunci", x, to=kind)
        return self.one("arith.extui" if old == i1 else "arith.extsi", x, to=kind)

    def broadcast(self, x: Value, sides: tuple[int, ...]) -> Value:
        """Stretch a scalar, or sides of one, to a shape."""
        old = types.shape(x.type)
        if old == sides:
            return x
        if not old:
            return self.one("tt.splat", x, to=types.shaped(x.type, sides))
        try:
            common = types.broadcast(old, sides)
        except ValueError as error:
            raise Mismatch(str(error)) from None
        if common != sides:
            raise Mismatch(f"a tile of {list(old)} doesn't stretch to {list(sides)}")
        while len(types.shape(x.type)) < len(sides):
            x = self.expand(x, 0)
        if types.shape(x.type) == sides:
            return x
        return self.one("tt.broadcast", x, to=types.shaped(x.type.element, sides))

    def expand(self, x: Operand, axis: int) -> Value:
        """Insert a side of one."""
        if not isinstance(x, Value) or not types.shape(x.type):
            raise Mismatch(f"only tiles have axes, not {describe(x)}")
        sides = list(x.type.shape)
        sides.insert(axis, 1)
        kind = types.shaped(x.type.element, tuple(sides))
        return self.one("tt.expand_dims", x, to=kind, axis=axis)

    def together(self, a: Operand, b: Operand) -> tuple[Value, Value, Scalar]:
        """Bring two operands to one type and one shape."""
        kinds = []
        for x in (a, b):
            kind = types.element(x.type) if isinstance(x, Value) else None
            if isinstance(kind, Pointer):
                raise Mismatch(f"numbers are needed here, got {describe(x)}")
            kinds.append(kind)
        try:
            left, right = self.value(a, kinds[1]), self.value(b, kinds[0])
            common = types.broadcast(types.shape(left.type), types.shape(right.type))
        except ValueError as error:
            raise Mismatch(str(error)) from None
        pair = types.element(left.type), types.element(right.type)
        to = pair[0] if pair[0] == pair[1] else types.PROMOTION[pair]
        left, right = (self.broadcast(self.cast(x, to), common) for x in (left, right))
        return left, right, to

    def binary(self, symbol: str, a: Operand, b: Operand) -> Operand:
        """Append `a symbol b`; two constants are worked out now."""
        if not isinstance(a, Value) and not isinstance(b, Value):
            return self._fold(symbol, a, b)
        pointers = [isinstance(x, Value) and is_pointer(x) for x in (a, b)]
        if symbol == "+" and any(pointers):
            return self._address(*((a, b) if pointers[0] else (b, a)))
        if any(pointers):
            raise Mismatch(f"pointers can be added to only: {symbol} isn't allowed")
        if symbol in COMPARISONS:
            return self.compare(symbol, a, b)
        left, right, to = self.together(a, b)
        if symbol in LOGIC:
            if to.floating:
                raise Mismatch(f"{symbol} takes integers or truth values, got {to}")
            return self.one(LOGIC[symbol], left, right, to=left.type)
        if to == i1 or (symbol == "/" and not to.floating):
            to = i32 if symbol != "/" else f32
            left, right = self.cast(left, to), self.cast(right, to)
        name = ARITHMETIC[symbol][to.floating]
        if name is None:
            raise Mismatch(f"{symbol} takes integers, got {to}: / divides {to}")
        return self.one(name, left, right, to=left.type)

    def _fold(self, symbol: str, a: Number, b: Number) -> Number:
        for x in (a, b):
            if not isinstance(x, Number):
                raise Mismatch(f"{symbol} takes numbers and tiles, got {describe(x)}")
        if symbol in ("//", "%") and float in (type(a), type(b)):
            raise Mismatch(f"{symbol} takes integers, got {describe(a)}, {describe(b)}")
        try:
            return FOLDS[symbol](a, b)
        except (TypeError, ArithmeticError) as error:
            raise Mismatch(str(error)) from None

    def _address(self, pointer: Operand, offset: Operand) -> Value:
        offset = self.value(offset, i32)
        kind = types.element(offset.type)
        if not isinstance(kind, Scalar) or kind.floating or kind == i1:
            raise Mismatch(f"a pointer moves by i32 or i64, got {describe(offset)}")
        try:
            sides = types.broadcast(types.shape(pointer.type), types.shape(offset.type))
        except ValueError as error:
            raise Mismatch(str(error)) from None
        pointer = self.broadcast(pointer, sides)
        return self.one(
            "tt.addptr", pointer, self.broadcast(offset, sides), to=pointer.type
        )

    def compare(self, symbol: str, a: Operand, b: Operand) -> Value:
        """Append a comparison, which makes truth values."""
        left, right, kind = self.together(a, b)
        if kind == i1:
            left, right, kind = self.cast(left, i32), self.cast(right, i32), i32
        return self.one(
            "arith.cmpf" if kind.floating else "arith.cmpi",
            left,
            right,
            to=types.shaped(i1, types.shape(left.type)),
            predicate=COMPARISONS[symbol][kind.floating],
        )

    def negate(self, x: Operand) -> Operand:
        """Append -x; 0 - x would make 0 of 0, and Triton takes no arith.negf."""
        if not isinstance(x, Value):
            return -x if isinstance(x, float) else self._fold("-", 0, x)
        kind = types.element(x.type)
        floating = isinstance(kind, Scalar) and kind.floating
        return self.binary("-", -0.0 if floating else 0, x)

    def invert(self, x: Operand) -> Operand:
        """Append ~x: the other truth value, or every bit of an integer."""
        if not isinstance(x, Value):
            return not x if isinstance(x, bool) else self._fold("^", x, -1)
        kind = types.element(x.type)
        return self.binary("^", x, kind == i1 or -1)


def is_pointer(x: Value) -> bool:
    """Tell whether a value is a pointer or a tile of them."""
    return isinstance(types.element(x.type), Pointer)


def describe(x: object) -> str:
    """Say what an operand is, for a message."""
    if isinstance(x, Value):
        return f"{x.name} of {x.type}" if x.name else str(x.type)
    if isinstance(x, float) and not math.isfinite(x):
        return f"the constant {x}"
    return f"the constant {x!r}" if isinstance(x, Number) else f"{x!r}"
