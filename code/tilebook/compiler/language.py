"""What a program may call. Each is a declaration: the compiler knows what it does."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilebook.compiler.types import bf16, f16, f32, i1, i32, i64

inf = math.inf
"""More than every number: what a maximum starts from, negated."""

__all__ = [
    "Intrinsic",
    "arange",
    "bf16",
    "dot",
    "exp",
    "exp2",
    "f16",
    "f32",
    "full",
    "i1",
    "i32",
    "i64",
    "inf",
    "load",
    "log",
    "max",
    "maximum",
    "minimum",
    "num_programs",
    "program_id",
    "sqrt",
    "store",
    "sum",
    "where",
    "zeros",
]


@dataclass(frozen=True)
class Intrinsic:
    """An operation of the language.

    Args:
        name: the word for it.
        signature: its parameters.
        meaning: what it does.
    """

    name: str
    signature: inspect.Signature
    meaning: str

    def __call__(self, *_: Any, **__: Any) -> None:
        raise TypeError(f"{self.name} can be called in a @program only")


def _intrinsic(declared: Callable[..., Any]) -> Intrinsic:
    return Intrinsic(
        declared.__name__, inspect.signature(declared), inspect.getdoc(declared)
    )


@_intrinsic
def program_id(axis=0):
    """Which program of the grid this is, along an axis (0, 1 or 2): i32."""


@_intrinsic
def num_programs(axis=0):
    """How many programs the grid has along an axis: i32."""


@_intrinsic
def arange(start, end):
    """The integers from `start` to below `end`: i32[end - start], constants both."""


@_intrinsic
def full(shape, value, dtype):
    """A tile of one number; the sides are constants, each a power of two."""


@_intrinsic
def zeros(shape, dtype):
    """A tile of zeros."""


@_intrinsic
def load(pointer, mask=None, other=None):
    """What is at each pointer; where `mask` is false, `other`, and nothing is read."""


@_intrinsic
def store(pointer, value, mask=None):
    """Write a value to each pointer, cast to its type, but where `mask` is false."""


@_intrinsic
def where(condition, x, y):
    """`x` where the condition holds, `y` elsewhere."""


@_intrinsic
def maximum(x, y):
    """The larger of two numbers; a number rather than a NaN."""


@_intrinsic
def minimum(x, y):
    """The smaller of two numbers; a number rather than a NaN."""


@_intrinsic
def exp(x):
    """e to the x, of f32."""


@_intrinsic
def exp2(x):
    """2 to the x, of f32."""


@_intrinsic
def log(x):
    """The natural logarithm, of f32."""


@_intrinsic
def sqrt(x):
    """The square root, of f32."""


@_intrinsic
def sum(x, axis=0):
    """Sums along an axis: f16 and bf16 in f32, truth values in i32."""


@_intrinsic
def max(x, axis=0):
    """The largest along an axis: f16 and bf16 as f32, truth values as i32."""


@_intrinsic
def dot(a, b, acc=None):
    """The product of [m, k] and [k, n], both f16, bf16 or f32, added to f32[m, n]."""
