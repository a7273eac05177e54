"""Programs as lists of operations, in which each value is set once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tilebook.compiler.types import Type


class Place(NamedTuple):
    """A line and a column of a file, both counted from one, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, eq=False)
class Value:
    """What one operation (or a loop, or the caller) makes.

    Args:
        type: its type.
        name: a hint for people; not unique.
    """

    type: Type
    name: str = ""


@dataclass(frozen=True, eq=False)
class Op:
    """An operation.

    Args:
        name: its dialect's and its own, such as "arith.addf".
        operands: what it takes.
        results: what it makes.
        place: where the user wrote it.
        attributes: what is known of it when it is compiled.
        body: the operations inside a loop or a reduction.
    """

    name: str
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    place: Place
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: Block | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """Operations in order, with what they are given when they start.

    Args:
        arguments: a loop's variable and what it carries, or a reduction's two terms.
        ops: the operations; the last ends the block.
    """

    arguments: tuple[Value, ...]
    ops: tuple[Op, ...]


@dataclass(frozen=True, eq=False)
class Function:
    """A program for given types and constants.

    Args:
        name: the Python function's.
        file: where it is written.
        place: of its `def`.
        parameters: the arguments that are known at a launch only.
        aligned: names of those that are multiples of 16 (pointers: of 16 bytes).
        body: the operations.
    """

    name: str
    file: str
    place: Place
    parameters: tuple[Value, ...]
    aligned: frozenset[str]
    body: Block

    def walk(self) -> Iterator[Op]:
        """Yield every operation, those inside others behind them."""
        yield from _walk(self.body)


def _walk(block: Block) -> Iterator[Op]:
    for op in block.ops:
        yield op
        if op.body is not None:
            yield from _walk(op.body)
