"""Programs as text that Triton reads: its own dialect of MLIR, TTIR."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping

from tilebook.compiler import types
from tilebook.compiler.ssa import Block, Function, Op, Place, Value
from tilebook.compiler.types import Pointer, Scalar, Tensor, Type, bf16, f16, i1

_CASTS = ("extf", "truncf", "extsi", "extui", "trunci", "sitofp", "uitofp", "fptosi")
_STRETCH = "{operands} : {t[0]} -> {r}"
FORMS: Mapping[str, str] = {
    **{f"arith.{name}": "{operands} : {t[0]} to {r}" for name in _CASTS},
    "arith.select": "{operands} : {t[0]}, {r}",
    "arith.cmpi": "{predicate}, {operands} : {t[0]}",
    "arith.cmpf": "{predicate}, {operands} : {t[0]}",
    "tt.get_program_id": "{letter} : {r}",
    "tt.get_num_programs": "{letter} : {r}",
    "tt.make_range": "{{end = {end} : i32, start = {start} : i32}} : {r}",
    "tt.splat": _STRETCH,
    "tt.broadcast": _STRETCH,
    "tt.expand_dims": "{operands} {{axis = {axis} : i32}} : {t[0]} -> {r}",
    "tt.addptr": "{operands} : {t[0]}, {t[1]}",
    "tt.load": "{operands} : {t[0]}",
    "tt.store": "{operands} : {t[0]}",
    # Products of f32 keep its 24 bits, not the eleven of TF32.
    "tt.dot": "{operands}, inputPrecision = ieee : {t[0]} * {t[1]} -> {r}",
    "tt.reduce.return": "{operands} : {t[0]}",
    "scf.yield": "{operands} : {types}",
}
"""What follows the name of an operation: `t` its operands' types, `r` its result's.

Operations that aren't listed are like "arith.addf": operands, and the result's type.
"""


def ttir(function: Function) -> str:
    """Write a program as TTIR.

    Args:
        function: made by `build.lower`.

    Returns:
        A module with one public function. Each operation says where the user wrote it.
    """
    return "\n".join(_Printer(function).module()) + "\n"


def spelled(name: str) -> str:
    """Return a name in the letters that MLIR takes."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def mlir(kind: Type) -> str:
    """Return MLIR's name of a type."""
    if isinstance(kind, Scalar):
        return kind.name
    if isinstance(kind, Pointer):
        return f"!tt.ptr<{kind.element}>"
    return f"tensor<{'x'.join(map(str, kind.shape))}x{mlir(kind.element)}>"


def literal(x: int | float, kind: Type) -> str:
    """Return a constant as MLIR reads it.

    Args:
        x: the number.
        kind: its type; of a tile, every entry is the number.

    Returns:
        A decimal number if that is exact, else the bits of the floating-point number.
    """
    scalar = types.element(kind)
    if scalar == i1:
        text = "true" if x else "false"
    elif not scalar.floating:
        text = str(x)
    else:
        bits, held = encode(x, scalar)
        text = f"{x:.6e}"
        if not math.isfinite(held) or float(text) != held:
            text = f"0x{bits:0{scalar.bits // 4}X}"
    return f"dense<{text}>" if isinstance(kind, Tensor) else text


def encode(x: float, kind: Scalar) -> tuple[int, float]:
    """Round a number to a floating-point type.

    Args:
        x: the number.
        kind: f16, bf16 or f32.

    Returns:
        The bits, and the number they stand for. Too large ones become infinite.
    """
    form, code = ("<e", "<H") if kind == f16 else ("<f", "<I")
    try:
        packed = struct.pack(form, x)
    except OverflowError:
        packed = struct.pack(form, math.copysign(math.inf, x))
    (bits,) = struct.unpack(code, packed)
    if kind == bf16:
        if math.isfinite(x):
            bits += 0x7FFF + (bits >> 16 & 1)
        wide = bits & 0xFFFF0000
        return wide >> 16, struct.unpack("<f", struct.pack("<I", wide))[0]
    return bits, struct.unpack(form, packed)[0]


class _Printer:
    """Names for values, and a generator of lines."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.names: dict[Value, str] = {}
        self.used: set[str] = set()

    def name(self, value: Value) -> str:
        """Name a new value after its hint."""
        stem = spelled(value.name) or "v"
        name, count = stem, 0
        while name in self.used:
            count += 1
            name = f"{stem}_{count}"
        self.used.add(name)
        self.names[value] = f"%{name}"
        return self.names[value]

    def at(self, place: Place) -> str:
        file = json.dumps(self.function.file)
        return f"loc({file}:{place.line}:{place.column})"

    def module(self) -> Iterator[str]:
        function = self.function
        parameters = ", ".join(
            f"{self.name(value)}: {mlir(value.type)}"
            + " {tt.divisibility = 16 : i32}" * (value.name in function.aligned)
            for value in function.parameters
        )
        yield "module {"
        yield f"  tt.func public @{spelled(function.name)}({parameters}) {{"
        yield from self.block(function.body, "    ")
        yield f"  }} {self.at(function.place)}"
        yield "}"

    def block(self, block: Block, indent: str) -> Iterator[str]:
        for op in block.ops:
            if op.name == "scf.for":
                yield from self.loop(op, indent)
            elif op.name == "tt.reduce":
                yield from self.reduce(op, indent)
            else:
                yield f"{indent}{self.line(op)} {self.at(op.place)}"

    def operands(self, op: Op) -> str:
        return ", ".join(self.names[value] for value in op.operands)

    def line(self, op: Op) -> str:
        if op.name == "arith.constant":
            kind = op.results[0].type
            text = literal(op.attributes["value"], kind)
            # A truth value's constant says its type itself.
            after = text if kind == i1 else f"{text} : {mlir(kind)}"
        elif not op.operands and not op.results:
            after = ""
        else:
            after = FORMS.get(op.name, "{operands} : {r}").format(
                operands=self.operands(op),
                t=[mlir(value.type) for value in op.operands],
                types=", ".join(mlir(value.type) for value in op.operands),
                r=mlir(op.results[0].type) if op.results else "",
                letter="xyz"[op.attributes.get("axis", 0)],
                **op.attributes,
            )
        made = f"{self.name(op.results[0])} = " if op.results else ""
        return f"{made}{op.name} {after}".rstrip()

    def loop(self, op: Op, indent: str) -> Iterator[str]:
        start, stop, step = (self.names[value] for value in op.operands[:3])
        index, *carried = op.body.arguments
        before = [self.names[value] for value in op.operands[3:]]
        after = [self.name(value) for value in op.results]
        head = f"scf.for {self.name(index)} = {start} to {stop} step {step}"
        if carried:
            pairs = zip(map(self.name, carried), before, strict=True)
            kinds = ", ".join(mlir(value.type) for value in carried)
            head += f" iter_args({', '.join(f'{a} = {b}' for a, b in pairs)})"
            many = f":{len(after)}" if len(after) > 1 else ""
            head = f"{after[0]}{many} = {head} -> ({kinds})"
            for number, value in enumerate(op.results if many else ()):
                self.names[value] = f"{after[0]}#{number}"
        yield f"{indent}{head} : {mlir(index.type)} {{"
        yield from self.block(op.body, indent + "  ")
        yield f"{indent}}} {self.at(op.place)}"

    def reduce(self, op: Op, indent: str) -> Iterator[str]:
        operand, (result,) = op.operands[0], op.results
        axis = op.attributes["axis"]
        taken = self.names[operand]
        yield (
            f'{indent}{self.name(result)} = "tt.reduce"({taken}) '
            f"<{{axis = {axis} : i32}}> ({{"
        )
        terms = ", ".join(f"{self.name(v)}: {mlir(v.type)}" for v in op.body.arguments)
        yield f"{indent}^bb0({terms}):"
        yield from self.block(op.body, indent + "  ")
        kinds = f"({mlir(operand.type)}) -> {mlir(result.type)}"
        yield f"{indent}}}) : {kinds} {self.at(op.place)}"
