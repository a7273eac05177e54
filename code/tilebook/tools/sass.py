"""Reading machine code: widths, products, spills, and who waits for whom.

Since sm_70 each instruction of 128 bits carries what hardware used to find out by
itself: how many clocks to wait before the next one is issued, which of six barriers it
raises until its result is there (or its operands are read), and which it waits for.
NVIDIA documents none of it; the fields are those that Jia and others found in 2018, and
that they make sense in the kernels of this chapter is tested.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import triton

from tilebook.compile_only import Artefact

_LINE = re.compile(
    r"/\*(?P<at>[0-9a-f]{4,})\*/\s+(?P<text>[^;]*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/\s*"
    r"/\* 0x(?P<high>[0-9a-f]{16}) \*/"
)
_CONTROL = 41
"""The field's lowest bit in the upper 64."""
NONE = 7
"""In the place of a barrier's number: no barrier."""
_PRODUCT = re.compile(r"(?:H|I|Q|O|D|UTC[HIQO]?)G?MMA(?:\.|$)")


class Instruction(NamedTuple):
    """One instruction, and what it says to the scheduler."""

    at: int
    """Its place in bytes."""
    text: str
    stall: int
    """Clocks before the warp's next instruction is issued."""
    result: int | None
    """The barrier that falls when its result is there."""
    operands: int | None
    """The barrier that falls when its operands are read."""
    waits: tuple[int, ...]
    """Barriers that must have fallen before it is issued."""

    @property
    def opcode(self) -> str:
        """The operation with its suffixes: "LDG.E.128"."""
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split()[0]

    @property
    def bits(self) -> int:
        """What a thread loads or stores with it: 32 unless a suffix says otherwise."""
        for part in self.opcode.split(".")[1:]:
            if match := re.fullmatch(r"[US]?(8|16|32|64|128|256)", part):
                return int(match[1])
        return 32


def read(artefact: Artefact) -> tuple[Instruction, ...]:
    """Read a compiled kernel's instructions.

    Args:
        artefact: compiled for an NVIDIA GPU.

    Returns:
        All of them, in the order of the binary; what fills its end is left out.

    Raises:
        AttributeError: it is compiled for another GPU.
    """
    cubin = artefact.asm.get("cubin")
    if not isinstance(cubin, bytes):
        raise AttributeError(f"{artefact.name} for {artefact.target} has no cubin")
    found = [_decoded(match) for match in _LINE.finditer(_listing(cubin))]
    while found and (found[-1].opcode == "NOP" or found[-1].opcode == "BRA"):
        found.pop()
    return tuple(found)


@functools.lru_cache(maxsize=32)
def _listing(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.nvdisasm.path
        done = subprocess.run(
            [tool, "-c", "-hex", "-ndf", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout


def _decoded(match: re.Match[str]) -> Instruction:
    control = int(match["high"], 16) >> _CONTROL
    result, operands = control >> 5 & 7, control >> 8 & 7
    mask = control >> 11 & 63
    return Instruction(
        at=int(match["at"], 16),
        text=re.sub(r"\s+", " ", match["text"]).strip(),
        stall=control & 15,
        result=None if result == NONE else result,
        operands=None if operands == NONE else operands,
        waits=tuple(bit for bit in range(6) if mask >> bit & 1),
    )


def widths(code: Sequence[Instruction], op: str = "LDG") -> Mapping[int, int]:
    """Count accesses by how many bits a thread moves.

    Args:
        code: from `read`.
        op: "LDG" and "STG" for global memory, "LDS" and "STS" for shared, "LDL" and
            "STL" for what was spilled.

    Returns:
        Number of instructions by width, the widest first.
    """
    counts = Counter(one.bits for one in code if one.opcode.split(".")[0] == op)
    return dict(sorted(counts.items(), reverse=True))


def products(code: Sequence[Instruction]) -> Mapping[str, int]:
    """Count tensor cores' instructions by their opcode, suffixes included.

    Args:
        code: from `read`.

    Returns:
        Number by opcode. HFMA2.MMA isn't one, though its name says so.
    """
    return dict(Counter(one.opcode for one in code if _PRODUCT.match(one.opcode)))


def spilled(code: Sequence[Instruction]) -> int:
    """Add up the bytes that a thread's spilling instructions move.

    Args:
        code: from `read`.

    Returns:
        Bytes stored and loaded, each instruction once.
    """
    moved = [*widths(code, "STL").items(), *widths(code, "LDL").items()]
    return sum(bits // 8 * count for bits, count in moved)


def in_flight(code: Sequence[Instruction]) -> int:
    """Find how many bytes a thread has asked memory for before it waits.

    Args:
        code: from `read`.

    Returns:
        The most that are on their way at a time, by loads into registers.

    Notes:
        Read from top to bottom: a loop's body counts once. A barrier that
        several loads raise falls when the last is done: waiting ends them all.
    """
    most, pending = 0, Counter()
    for one in code:
        for barrier in one.waits:
            pending[barrier] = 0
        if one.opcode.startswith("LDG") and one.result is not None:
            pending[one.result] += one.bits // 8
        most = max(most, pending.total())
    return most


def annotated(
    code: Sequence[Instruction], pattern: str = "", limit: int | None = None
) -> str:
    """List instructions with what they say to the scheduler.

    Args:
        code: from `read`.
        pattern: regular expression; only instructions that it is found in.
        limit: at most so many.

    Returns:
        A line for each: clocks to stall, "w" and the barrier that its result lowers,
        "r" and the one that its operands do, barriers waited for, the instruction.
    """
    shown = [one for one in code if re.search(pattern, one.text)][:limit]
    return "\n".join(
        f"{one.at:04x}  stall {one.stall:2}  "
        f"{'  ' if one.result is None else f'w{one.result}'} "
        f"{'  ' if one.operands is None else f'r{one.operands}'} "
        f"{'waits ' + ','.join(map(str, one.waits)) if one.waits else '':12} "
        f"{one.text}"
        for one in shown
    )
