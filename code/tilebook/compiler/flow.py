"""A compiled kernel as blocks of operations, and where each of its values is live."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = re.compile(r"%[\w#]+")
_HEAD = re.compile(r'^(?:(%[\w, :%]+?) = )?"?([a-z]\w*\.[\w.]+)"?(.*)$')
_BLOCK = re.compile(r"^(\^bb\d+)(?:\((.*)\))?:")
_TARGET = re.compile(r"(\^bb\d+)(?:\(([^)]*)\))?")
_REGION = re.compile(r"^\}\)? ?(.*)$")


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation.

    Args:
        number: its place, counted through all blocks.
        name: such as "tt.load".
        results: values that it makes.
        operands: values that it takes, those handed to blocks left out.
        text: all behind the name, without what stands inside of it.
        targets: blocks that may follow, each with the values it is given.
    """

    number: int
    name: str
    results: tuple[str, ...]
    operands: tuple[str, ...]
    text: str
    targets: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """Operations in order, and the values that it is given when it starts."""

    label: str
    arguments: tuple[str, ...]
    operations: tuple[Operation, ...]


def read(module: str) -> list[Block]:
    """Read the blocks of a module with one function and no loops.

    Args:
        module: as `pipeline.plain` leaves it, behind convert-scf-to-cf.

    Returns:
        Its blocks, in order.

    Raises:
        ValueError: it has several functions, or groups of warps.
    """
    if module.count("tt.func ") != 1 or "ttg.warp_specialize" in module:
        raise ValueError("one function is read, whose warps all do the same")
    lines = iter(module[module.index("tt.func ") :].splitlines())
    signature = next(lines)
    arguments = tuple(re.findall(r"(%\w+): ", signature))
    blocks: list[Block] = []
    label, operations, number = "^bb0", [], 0
    for line in lines:
        line = line.strip()
        if found := _BLOCK.match(line):
            blocks.append(Block(label, arguments, tuple(operations)))
            label, operations = found[1], []
            arguments = tuple(re.findall(r"(%[\w#]+): ", found[2] or ""))
        elif found := _HEAD.match(line):
            results, name, text = found.groups()
            if text.endswith("({"):
                text = text[:-2] + _skipped(lines)
            operations.append(_operation(number, results, name, text))
            number += 1
    blocks.append(Block(label, arguments, tuple(operations)))
    return blocks


def _skipped(lines: Iterator[str]) -> str:
    """Pass over what stands inside an operation; return what follows it."""
    depth = 1
    for line in lines:
        line = line.strip()
        if line.startswith("}"):
            depth -= 1
            if not depth:
                return _REGION.match(line)[1]
        depth += line.endswith("{")
    raise ValueError("an operation has no end")


def _operation(number: int, results: str | None, name: str, text: str) -> Operation:
    made: list[str] = []
    for each in results.split(", ") if results else ():
        base, _, count = each.partition(":")
        many = [f"{base}#{i}" for i in range(int(count or 0))]
        made += many or [base]
    targets = ()
    if name in ("cf.br", "cf.cond_br"):
        targets = tuple(
            (label, tuple(_NAME.findall((given or "").partition(" : ")[0])))
            for label, given in _TARGET.findall(text)
        )
        text = text.partition("^")[0]
    operands = tuple(_NAME.findall(text))
    return Operation(number, name, tuple(made), operands, text, targets)


def live(blocks: list[Block]) -> dict[str, set[int]]:
    """Say at which operations each value is still needed.

    Args:
        blocks: from `read`.

    Returns:
        By value the numbers of operations, from the one that makes it (or the first of
        a block that is given it) to the last that takes it, on any way.
    """
    uses, makes = {}, {}
    for block in blocks:
        made = set(block.arguments)
        used: set[str] = set()
        for op in block.operations:
            used |= set(_taken(op)) - made
            made |= set(op.results)
        uses[block.label], makes[block.label] = used, made
    after = {block.label: following(block) for block in blocks}
    needed = {label: set(used) for label, used in uses.items()}
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            behind = set().union(*(needed[x] for x in after[block.label]))
            before = uses[block.label] | behind - makes[block.label]
            changed |= before != needed[block.label]
            needed[block.label] = before
    found: dict[str, set[int]] = {}
    for block in blocks:
        alive = set().union(*(needed[x] for x in after[block.label]))
        for op in reversed(block.operations):
            alive |= set(_taken(op)) | set(op.results)
            for value in alive:
                found.setdefault(value, set()).add(op.number)
            alive -= set(op.results)
    return found


def _taken(op: Operation) -> tuple[str, ...]:
    return op.operands + tuple(x for _, given in op.targets for x in given)


def following(block: Block) -> list[str]:
    """Return the labels of the blocks that may run after one."""
    last = block.operations[-1:] or ()
    return [label for op in last for label, _ in op.targets]


def aliases(blocks: list[Block], names: set[str]) -> dict[str, set[str]]:
    """Say which values are views of which buffers.

    Args:
        blocks: from `read`.
        names: values that are buffers.

    Returns:
        By value the buffers that it may be a view of; buffers are their own.
    """
    views = {name: {name} for name in names}
    given = {block.label: block.arguments for block in blocks}
    while True:
        before = sum(map(len, views.values()))
        for block in blocks:
            for op in block.operations:
                pairs = []
                if op.name.startswith(("ttg.memdesc_", "arith.select")):
                    pairs += [(op.results[0], x) for x in op.operands]
                for label, values in op.targets:
                    pairs += zip(given[label], values, strict=True)
                for to, of in pairs:
                    if of in views:
                        views.setdefault(to, set()).update(views[of])
        if sum(map(len, views.values())) == before:
            return views
