"""Runs operations over NumPy arrays: what a program means, without a GPU."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilebook.compiler import types
from tilebook.compiler.emit import FOLDS
from tilebook.compiler.ssa import Block, Function, Op, Value
from tilebook.compiler.types import Scalar, Type, bf16, f16, f32, i1, i32, i64

# NumPy has no bf16: its numbers are kept in float32, rounded.
STORED: Mapping[Scalar, type] = {
    i1: np.bool_,
    i32: np.int32,
    i64: np.int64,
    f16: np.float16,
    bf16: np.float32,
    f32: np.float32,
}


@dataclass(frozen=True)
class Address:
    """Pointers: entries of one of the arrays, counted from its first."""

    name: str
    array: np.ndarray
    offsets: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.offsets.shape

    def moved(self, offsets: np.ndarray) -> Address:
        """Return pointers to other entries of the same array."""
        return replace(self, offsets=offsets)


def rounded(x: np.ndarray, kind: Scalar) -> np.ndarray:
    """Return numbers in a type's precision, as STORED keeps them."""
    found = np.asarray(x).astype(STORED[kind])
    if kind != bf16:
        return found
    bits = found.view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    kept = np.where(np.isfinite(found), nearest, bits) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def evaluate(
    function: Function, grid: tuple[int, ...], *arguments: np.ndarray | int | float
) -> None:
    """Run every program of a grid, one after another, on arrays.

    Args:
        function: made by `build.lower`.
        grid: how many programs along each of up to three axes.
        arguments: for each parameter a number, or the contiguous array a pointer points
            to the start of, with STORED's type; written in place.

    Raises:
        IndexError: a program reads or writes outside an array; it names the line.
        TypeError: an array's type is not the pointer's.
    """
    given = {}
    for value, x in zip(function.parameters, arguments, strict=True):
        if isinstance(value.type, types.Pointer):
            if x.dtype != STORED[value.type.element] or not x.flags.c_contiguous:
                raise TypeError(
                    f"{value.name} must be contiguous, of {value.type.element}"
                )
            given[value] = Address(value.name, x.reshape(-1), np.int64(0))
        else:
            given[value] = rounded(x, value.type)
    sides = (*grid, 1, 1)[:3]
    # Integers wrap around and NaNs are made without a word, as on a GPU.
    with np.errstate(all="ignore"):
        for place in itertools.product(*map(range, sides)):
            _Run(function.file, place, sides, dict(given)).block(function.body)


def _truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide and round towards zero; the least number has no absolute value."""
    whole = np.floor_divide(a, b)
    inexact = whole * b != a
    return whole + (inexact & ((a < 0) != (b < 0))).astype(whole.dtype)


BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("arith.addi", "arith.addf"), operator.add),
    **dict.fromkeys(("arith.subi", "arith.subf"), operator.sub),
    **dict.fromkeys(("arith.muli", "arith.mulf"), operator.mul),
    "arith.divf": operator.truediv,
    "arith.divsi": _truncated,
    "arith.remsi": lambda a, b: a - b * _truncated(a, b),
    "arith.maxsi": np.maximum,
    "arith.minsi": np.minimum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "arith.andi": operator.and_,
    "arith.ori": operator.or_,
    "arith.xori": operator.xor,
}
UNARY: Mapping[str, Callable[[Any], Any]] = {
    "math.exp": np.exp,
    "math.exp2": np.exp2,
    "math.log": np.log,
    "math.sqrt": np.sqrt,
}
CASTS = {
    f"arith.{name}"
    for name in ("extf", "truncf", "extsi", "extui", "trunci", "sitofp", "uitofp")
}
SIGNED = ("arith.extsi", "arith.sitofp")
PREDICATES = {
    **{"slt": "<", "sle": "<=", "sgt": ">", "sge": ">=", "eq": "==", "ne": "!="},
    **{"olt": "<", "ole": "<=", "ogt": ">", "oge": ">=", "oeq": "==", "une": "!="},
}


@dataclass
class _Run:
    """One program: where it is in the grid, and its values so far."""

    file: str
    place: tuple[int, ...]
    grid: tuple[int, ...]
    values: dict[Value, Any]

    def block(self, block: Block) -> list[Any]:
        """Run operations; return what the last one hands on."""
        for op in block.ops:
            given = [self.values[value] for value in op.operands]
            if op.name in ("scf.yield", "tt.reduce.return", "tt.return"):
                return given
            made = self.run(op, given)
            made = made if op.name == "scf.for" else [made] * len(op.results)
            for value, x in zip(op.results, made, strict=True):
                self.values[value] = self.kept(x, value.type)
        raise AssertionError("a block ends by handing on its values")

    def kept(self, x: Any, kind: Type) -> Any:
        if not isinstance(x, Address):
            x = rounded(x, types.element(kind))
        if x.shape != types.shape(kind):
            raise AssertionError(f"{x.shape} is no {kind}")
        return x

    def run(self, op: Op, given: list[Any]) -> Any:
        name, attributes = op.name, op.attributes
        if name in BINARY:
            return BINARY[name](*given)
        if name in UNARY:
            return UNARY[name](*given)
        if name in CASTS:
            # The only bit of a truth value is its sign, if it is read as signed.
            minus = given[0].dtype == np.bool_ and name in SIGNED
            return -given[0].astype(np.int32) if minus else given[0]
        kind = op.results[0].type if op.results else None
        match name:
            case "arith.constant":
                return np.full(types.shape(kind), attributes["value"])
            case "arith.cmpi" | "arith.cmpf":
                return FOLDS[PREDICATES[attributes["predicate"]]](*given)
            case "arith.select":
                return np.where(*given)
            case "arith.fptosi":
                return np.trunc(given[0])
            case "tt.get_program_id":
                return np.int32(self.place[attributes["axis"]])
            case "tt.get_num_programs":
                return np.int32(self.grid[attributes["axis"]])
            case "tt.make_range":
                return np.arange(attributes["start"], attributes["end"])
            case "tt.splat" | "tt.broadcast":
                return _each(given[0], lambda x: np.broadcast_to(x, kind.shape))
            case "tt.expand_dims":
                axis = attributes["axis"]
                return _each(given[0], lambda x: np.expand_dims(x, axis))
            case "tt.addptr":
                return given[0].moved(given[0].offsets + given[1].astype(np.int64))
            case "tt.load":
                return self.load(op, *given)
            case "tt.store":
                return self.store(op, *given)
            case "tt.dot":
                a, b, acc = (x.astype(np.float64) for x in given)
                return a @ b + acc
            case "tt.reduce":
                return self.reduce(op, given[0])
            case "scf.for":
                return self.loop(op, *given)
        raise AssertionError(f"{name} has no meaning here")

    def reduce(self, op: Op, x: np.ndarray) -> np.ndarray:
        # Neighbours first, then pairs: as long as halves remain.
        x = np.moveaxis(x, op.attributes["axis"], 0)
        while len(x) > 1:
            half = len(x) // 2
            for value, term in zip(
                op.body.arguments, (x[:half], x[half:]), strict=True
            ):
                self.values[value] = term
            (inner, _) = op.body.ops
            x = rounded(
                self.run(inner, [self.values[value] for value in inner.operands]),
                inner.results[0].type,
            )
        return x[0]

    def loop(self, op: Op, start: Any, stop: Any, step: Any, *carried: Any) -> Any:
        for index in range(int(start), int(stop), int(step)):
            index = rounded(index, op.operands[0].type)
            self.values.update(zip(op.body.arguments, (index, *carried), strict=True))
            carried = self.block(op.body)
        return list(carried)

    def load(self, op: Op, at: Address, mask: Any = True, other: Any = 0) -> Any:
        offsets = self.inside(op, at, mask)
        found = at.array[offsets] if at.array.size else at.array.dtype.type(0)
        return np.where(mask, found, other)

    def store(self, op: Op, at: Address, x: np.ndarray, mask: Any = True) -> None:
        mask = np.broadcast_to(mask, at.shape)
        at.array[self.inside(op, at, mask)[mask]] = x[mask]

    def inside(self, op: Op, at: Address, mask: Any) -> np.ndarray:
        """Return the offsets, those masked off 0; none may be outside the array."""
        offsets = np.where(mask, at.offsets, 0)
        wrong = (offsets < 0) | (offsets >= at.array.size)
        if np.any(wrong & mask):
            raise IndexError(
                f"{self.file}:{op.place.line}:{op.place.column}: program {self.place} "
                f"is at entry {offsets[wrong & mask].flat[0]} of {at.name}, which has "
                f"{at.array.size}"
            )
        return offsets


def _each(x: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return x.moved(change(x.offsets)) if isinstance(x, Address) else change(x)
