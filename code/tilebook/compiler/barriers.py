"""Barriers by what is pending: no thread may read what others haven't written yet.

Going through a kernel, note which bytes of shared memory have been read and written
since all threads last met. An operation that reads what was written, or writes what was
read or written, needs a barrier before it, after which nothing is pending. Where ways
meet, all that is pending on any of them is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from tilebook.compiler import flow
from tilebook.compiler.flow import Block, Operation
from tilebook.compiler.sharing import SCRATCH, Buffer, buffers


class Span(NamedTuple):
    """Bytes of shared memory."""

    start: int
    end: int

    def meets(self, other: Span) -> bool:
        """Whether both have a byte in common."""
        return self.start < other.end and other.start < self.end


Bytes = frozenset[Span]
NONE: Bytes = frozenset()


class Pending(NamedTuple):
    """What was touched since the last barrier."""

    read: Bytes = NONE
    written: Bytes = NONE

    def joined(self, other: Pending) -> Pending:
        """What is pending where two ways meet."""
        return Pending(self.read | other.read, self.written | other.written)


class Barriers(NamedTuple):
    """Where barriers have to be: numbers of operations."""

    before: frozenset[int]
    """Those that need one before them."""
    after: frozenset[int]
    """Waits, which are each thread's own: the others have to hear of it."""
    within: frozenset[int]
    """Those that have one inside: they write, and read what others wrote."""


def needed(
    module: str, places: Mapping[str, int] | None = None, slots: bool = True
) -> Barriers:
    """Say where a kernel needs barriers.

    Args:
        module: at allocate-shared-memory-nv, before or after.
        places: offsets by the buffer's name; by default those that Triton chose.
        slots: whether tiles of one buffer are told apart by constant numbers, as
            Triton 3.9 does and earlier ones don't.

    Returns:
        The places.

    Raises:
        ValueError: the kernel has something that isn't known here.
    """
    blocks = flow.read(module)
    walk = Walk(blocks, buffers(module), places or {}, slots)
    states = {block.label: Pending() for block in blocks}
    before = None
    while before != (states, walk.before):
        before = dict(states), set(walk.before)
        for block in blocks:
            left = walk.block(block, states[block.label])
            for label in flow.following(block):
                states[label] = states[label].joined(left)
    return Barriers(*map(frozenset, (walk.before, walk.after, walk.within)))


class Walk:
    """A way through a kernel, and the barriers found on it.

    Args:
        blocks: of the kernel.
        pieces: its buffers.
        places: offsets by name, where they aren't Triton's.
        slots: as for `needed`.
    """

    def __init__(
        self,
        blocks: list[Block],
        pieces: list[Buffer],
        places: Mapping[str, int],
        slots: bool,
    ) -> None:
        self.spans: dict[str, Bytes] = {}
        for piece in pieces:
            at = places.get(piece.name, piece.offset)
            self.spans[piece.name] = frozenset({Span(at, at + piece.size)})
        self.slots = slots
        self.views(blocks)
        self.before: set[int] = set()
        self.after: set[int] = set()
        self.within: set[int] = set()

    def views(self, blocks: list[Block]) -> None:
        """Follow every view of a buffer to the bytes that it may be of."""
        numbers = {
            op.results[0]: int(found[1])
            for block in blocks
            for op in block.operations
            if op.name == "arith.constant"
            and (found := re.match(r" (\d+) : i32", op.text))
        }
        given = {block.label: block.arguments for block in blocks}
        before = -1
        while before != (before := sum(map(len, self.spans.values()))):
            for block in blocks:
                for op in block.operations:
                    if op.name.startswith(("ttg.memdesc_", "arith.select")):
                        for operand in op.operands:
                            self.view(op, operand, numbers)
                    for label, values in op.targets:
                        for to, of in zip(given[label], values, strict=True):
                            self.add(to, self.spans.get(of, NONE))

    def view(self, op: Operation, of: str, numbers: Mapping[str, int]) -> None:
        """Note which bytes a view of a value is of."""
        spans = self.spans.get(of, NONE)
        slot = numbers.get(op.operands[-1])
        if self.slots and op.name == "ttg.memdesc_index" and slot is not None:
            count = int(re.search(r"memdesc<(\d+)x", op.text)[1])
            size = {x: (x.end - x.start) // count for x in spans}
            spans = frozenset(
                Span(x.start + slot * size[x], x.start + (slot + 1) * size[x])
                for x in spans
            )
        self.add(op.results[0], spans)

    def add(self, value: str, spans: Bytes) -> None:
        """Note bytes that a value may be of."""
        if spans:
            self.spans[value] = self.spans.get(value, NONE) | spans

    def block(self, block: Block, pending: Pending) -> Pending:
        """Go through a block; return what is pending behind it."""
        following = [*block.operations[1:], None]
        for op, behind in zip(block.operations, following, strict=True):
            if op.name == "ttg.async_wait":
                # Of several in a row the last has it.
                if behind is None or behind.name != op.name:
                    self.after.add(op.number)
                pending = Pending()
            else:
                pending = self.step(op, pending)
        return pending

    def step(self, op: Operation, pending: Pending) -> Pending:
        """Go past an operation; return what is pending behind it."""
        read, written = self.touched(op)
        if _meet(read, pending.written) or _meet(
            written, pending.read | pending.written
        ):
            self.before.add(op.number)
        if op.number in self.before:
            pending = Pending()
        if op.name in SCRATCH and written:
            # It writes, waits for all, and reads.
            self.within.add(op.number)
            return Pending(read=written)
        return pending.joined(Pending(read, written))

    def touched(self, op: Operation) -> tuple[Bytes, Bytes]:
        """Say what an operation reads and what it writes."""
        scratch = self.spans.get(f"{op.name} {op.results[0]}" if op.results else "")
        if scratch is not None:
            return NONE, scratch
        views = NONE.union(*(self.spans.get(x, NONE) for x in op.operands))
        match op.name:
            case "ttg.local_alloc":
                return NONE, self.spans[op.results[0]] if op.operands else NONE
            case "ttg.local_load" | "ttng.warp_group_dot":
                return views, NONE
            case "ttg.local_store" | "ttg.async_copy_global_to_local":
                return NONE, views
            case "ttg.local_dealloc" | "ttng.warp_group_dot_wait":
                return NONE, NONE
        if views and not op.name.startswith(("ttg.memdesc_", "cf.", "arith.select")):
            raise ValueError(f"what {op.name} does to shared memory isn't known here")
        return NONE, NONE


def _meet(some: Bytes, others: Bytes) -> bool:
    return any(a.meets(b) for a in some for b in others)
