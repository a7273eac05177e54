"""Shared memory by liveness: which buffers may lie in the same place, and where.

A buffer is live from the operation that makes it to the last that looks at it. Two that
are never live at once may share bytes. So each gets the lowest place that no buffer
which lives with it has, the largest first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tilebook.compiler import flow, spelled
from tilebook.compiler.flow import Block, Operation
from tilebook.compiler.layouts import Linear, reach

_TENSOR = re.compile(r"tensor<((?:\d+x)*)(!tt\.ptr<\w+>|\w+)(?:, (#.*?))?>(?=[,) ]|$)")
_MEMDESC = re.compile(r"!ttg\.memdesc<((?:\d+x)+)(\w+), (#\w+), #smem\b")
_OFFSET = re.compile(r"allocation\.offset = (\d+)")
SCRATCH = ("ttg.convert_layout", "tt.reduce")
"""Operations that may need memory for the time that they take."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """A piece of shared memory.

    Args:
        name: the value that it is, or the operation that needs it.
        size: bytes.
        align: of which its address must be a multiple.
        start: the first operation at which it is live.
        end: the first behind its life.
        offset: where Triton put it; None if it isn't said.
    """

    name: str
    size: int
    align: int
    start: int
    end: int
    offset: int | None

    def meets(self, other: Buffer) -> bool:
        """Whether both are live at some operation."""
        return self.start < other.end and other.start < self.end


class Sizes:
    """How many bytes an operation needs.

    Args:
        module: whose names of layouts are meant.
    """

    def __init__(self, module: str) -> None:
        self.names = spelled.named(module)

    def of(self, op: Operation) -> tuple[int, int]:
        """Return bytes and alignment; 0 bytes if it needs none.

        Raises:
            ValueError: an operation whose need isn't known here.
        """
        if op.name == "ttg.local_alloc":
            found = _MEMDESC.search(op.text)
            if found is None:
                raise ValueError(f"{op.text} is no buffer of shared memory")
            count = math.prod(int(x) for x in found[1].split("x") if x)
            swizzle = re.search(
                r"swizzlingByteWidth = (\d+)", self.names.get(found[3], "")
            )
            # The hardware exchanges by bits of the address.
            align = 8 * max(16, int(swizzle[1])) if swizzle else 16
            return count * _bits(found[2]) // 8, align
        tiles = _TENSOR.findall(op.text)
        if op.name == "ttg.convert_layout":
            (sides, element, source), (_, _, target) = tiles
            shape = _sides(sides)
            pair = [self.layout(text, shape) for text in (source, target)]
            if reach(*pair) != "warp":
                return 0, 16
            size = math.prod(shape) * _bits(element) // 8
            return size // rounds(*pair, _bits(element)), 16
        if op.name == "tt.reduce":
            total = 0
            axis = int(re.search(r"axis = (\d+)", op.text)[1])
            inputs = op.text.partition(" : ")[2].partition(" -> ")[0]
            for sides, element, source in _TENSOR.findall(inputs):
                shape = _sides(sides)
                parts = _parts(self.layout(source, shape), axis)
                rest = math.prod(shape) // shape[axis]
                total += (parts > 1) * parts * rest * max(8, _bits(element)) // 8
            return total, 16
        if _OFFSET.search(op.text):
            raise ValueError(f"what {op.name} needs isn't known here")
        return 0, 16

    def layout(self, text: str, shape: tuple[int, ...]) -> Linear:
        """Return the layout that a tile's type names."""
        whole = re.sub(
            r"#\w+(?![\w.])", lambda found: self.names.get(found[0], found[0]), text
        )
        return spelled.read(whole, shape)


def rounds(source: Linear, target: Linear, bits: int) -> int:
    """Say in how many rounds a conversion may go.

    Where both layouts count a step by registers, the tile falls into parts that are
    converted one after another, in the same place. Steps that make up the 16 bytes that
    a thread moves at a time come first, and are no parts.
    """
    common = set(source.bases("register")) & set(target.bases("register"))
    vector = (128 // bits).bit_length() - 1
    return 1 << max(0, len(common) - vector)


def _parts(layout: Linear, axis: int) -> int:
    """How many warps hold different parts along an axis."""
    found = [place for place in layout.bases("warp") if place[axis]]
    return 1 << len(found)


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x") if side)


def _bits(element: str) -> int:
    found = re.search(r"(\d+)", element)
    return 64 if element.startswith("!tt.ptr") else int(found[1])


def buffers(module: str) -> list[Buffer]:
    """List what a kernel keeps in shared memory.

    Args:
        module: at allocate-shared-memory-nv, before or after.

    Returns:
        Buffers, in the order in which they are made.

    Raises:
        ValueError: the kernel has something that isn't known here.
    """
    blocks, sizes = flow.read(module), Sizes(module)
    needs = {op: sizes.of(op) for block in blocks for op in block.operations}
    kept = {op for op in needs if op.name == "ttg.local_alloc"}
    lives = _lives(blocks, {op.results[0] for op in kept})
    found = []
    for op, (size, align) in needs.items():
        if size:
            name = op.results[0] if op in kept else f"{op.name} {op.results[0]}"
            at = lives[op.results[0]] if op in kept else {op.number}
            offset = _OFFSET.search(op.text)
            place = int(offset[1]) if offset else None
            found.append(Buffer(name, size, align, min(at), max(at) + 1, place))
    return found


def _lives(blocks: Sequence[Block], names: set[str]) -> dict[str, set[int]]:
    live, views = flow.live(list(blocks)), flow.aliases(list(blocks), names)
    found: dict[str, set[int]] = {name: set() for name in names}
    for view, of in views.items():
        for name in of:
            found[name] |= live.get(view, set())
    return found


def allocate(pieces: Sequence[Buffer]) -> dict[Buffer, int]:
    """Give each buffer a place.

    Args:
        pieces: from `buffers`.

    Returns:
        Offsets, in bytes. Buffers that live at once don't overlap.
    """
    placed: dict[Buffer, int] = {}
    for each in sorted(pieces, key=lambda piece: -piece.size):
        offset = 0
        # From the lowest up: whatever is in the way, go past it.
        for other in sorted(placed, key=placed.get):
            if other.meets(each) and placed[other] < offset + each.size:
                behind = max(offset, placed[other] + other.size)
                offset = -(-behind // each.align) * each.align
        placed[each] = offset
    return placed


def total(places: dict[Buffer, int]) -> int:
    """Return how many bytes a program needs."""
    return max((at + piece.size for piece, at in places.items()), default=0)


def collisions(places: dict[Buffer, int]) -> list[tuple[str, str]]:
    """List pairs of buffers that live at once and overlap: there should be none."""
    pieces = list(places)
    return [
        (a.name, b.name)
        for i, a in enumerate(pieces)
        for b in pieces[:i]
        if a.meets(b)
        and places[a] < places[b] + b.size
        and places[b] < places[a] + a.size
    ]
