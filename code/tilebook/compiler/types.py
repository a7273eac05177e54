"""The types of the little language, and what two of them become together."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A number.

    Args:
        name: as MLIR calls it, such as "f32".
        bits: its width.
        floating: whether it has an exponent; integers are signed, i1 is a truth value.
    """

    name: str
    bits: int
    floating: bool

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Pointer:
    """An address in global memory.

    Args:
        element: the type of the numbers there.

    Raises:
        ValueError: it is i1, which has no byte of its own.
    """

    element: Scalar

    def __post_init__(self) -> None:
        if self.element.bits < 8:
            raise ValueError("memory has no entries of i1: store truth values as i32")

    def __str__(self) -> str:
        return f"*{self.element}"


@dataclass(frozen=True)
class Tensor:
    """A tile: numbers or pointers of one type, each side a power of two.

    Args:
        element: the type of each.
        shape: the sides.
    """

    element: Scalar | Pointer
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.element}[{', '.join(map(str, self.shape))}]"


Type = Scalar | Pointer | Tensor

i1 = Scalar("i1", 1, False)
i32 = Scalar("i32", 32, False)
i64 = Scalar("i64", 64, False)
f16 = Scalar("f16", 16, True)
bf16 = Scalar("bf16", 16, True)
f32 = Scalar("f32", 32, True)
SCALARS = {scalar.name: scalar for scalar in (i1, i32, i64, f16, bf16, f32)}

_PROMOTION = """
.     i1    i32  i64  f16  bf16  f32
i1    i32   i32  i64  f16  bf16  f32
i32   i32   i32  i64  f16  bf16  f32
i64   i64   i64  i64  f16  bf16  f32
f16   f16   f16  f16  f16  f32   f32
bf16  bf16  bf16 bf16 f32  bf16  f32
f32   f32   f32  f32  f32  f32   f32
"""


def _table(text: str) -> dict[tuple[Scalar, Scalar], Scalar]:
    head, *rows = (line.split() for line in text.split("\n") if line)
    return {
        (SCALARS[row[0]], SCALARS[column]): SCALARS[entry]
        for row in rows
        for column, entry in zip(head[1:], row[1:], strict=True)
    }


PROMOTION = _table(_PROMOTION)
"""The type in which two numbers are added, compared and so on.

An integer yields to a floating-point number however wide it is; the two formats of 16
bits, neither of which holds the other, meet in f32; truth values are counted in i32.
A constant has no type of its own: see `of_constant`.
"""


def element(kind: Type) -> Scalar | Pointer:
    """Return the type of each of a tile's entries; a scalar is its own."""
    return kind.element if isinstance(kind, Tensor) else kind


def shape(kind: Type) -> tuple[int, ...]:
    """Return a tile's sides; a scalar has none."""
    return kind.shape if isinstance(kind, Tensor) else ()


def shaped(kind: Scalar | Pointer, sides: tuple[int, ...]) -> Type:
    """Return the type of a tile with these sides, or of a scalar if there are none."""
    return Tensor(kind, sides) if sides else kind


def of_constant(x: bool | int | float, beside: Scalar | None = None) -> Scalar:
    """Return the type a Python number takes.

    Args:
        x: the number.
        beside: the type of the other operand, which it takes if it can.

    Returns:
        `beside`; without it, or where `x` is no integer and `beside` is one, or `x` too
        large for it, the first of i1 (for truth values), i32, i64 and f32 that fits.

    Raises:
        ValueError: it is an integer and needs more than 64 bits.
    """
    if isinstance(x, float):
        return beside if beside is not None and beside.floating else f32
    if isinstance(x, bool):
        return i1 if beside is None else beside
    if beside is not None and (beside.floating or fits(x, beside)):
        return beside
    for kind in (i32, i64):
        if fits(x, kind):
            return kind
    raise ValueError(f"the constant {x} needs more than 64 bits")


def fits(x: int, kind: Scalar) -> bool:
    """Tell whether an integer type holds a number."""
    if kind == i1:
        return x in (0, 1)
    return -(2 ** (kind.bits - 1)) <= x < 2 ** (kind.bits - 1)


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sides two tiles have together; sides of one stretch, as in NumPy.

    Args:
        a: sides of the first, of which missing ones are added at the left.
        b: of the second.

    Returns:
        The common sides.

    Raises:
        ValueError: they differ, and neither is one.
    """
    rank = max(len(a), len(b))
    wide = [(1,) * (rank - len(sides)) + sides for sides in (a, b)]
    for left, right in zip(*wide, strict=True):
        if left != right and 1 not in (left, right):
            raise ValueError(f"tiles of {list(a)} and {list(b)} have no common shape")
    return tuple(max(pair) for pair in zip(*wide, strict=True))


def is_side(x: object) -> bool:
    """Tell whether a number can be a tile's side: a power of two, at most 2^20."""
    whole = isinstance(x, int) and not isinstance(x, bool)
    return whole and 0 < x <= 2**20 and math.log2(x).is_integer()
