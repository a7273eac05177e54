"""Read what a compiled kernel shows of itself: the evidence line of each rung.

Kinds and widths of instructions are counted in PTX, whose names NVIDIA documents;
registers and spills are what ptxas reports of the binary, in which instructions are
counted. For AMD all come from its assembly. Counts are
static: an instruction in a loop counts once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from tilebook.compile_only import words


class Notice(NamedTuple):
    """A remark of ptxas, such as C7515: wgmma instructions are serialised."""

    code: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """What the machine code of one kernel shows.

    Args:
        target: the architecture, such as "sm_90".
        registers: 32-bit registers per thread.
        spill_store_bytes: bytes per thread that instructions spill.
        spill_load_bytes: bytes per thread that instructions load back.
        stack_bytes: stack frame per thread.
        shared_bytes: shared memory per program.
        global_loads: number of load instructions by width in bits per thread.
        global_stores: number of store instructions by width in bits per thread.
        async_copies: copies from global to shared memory past the registers (cp.async).
        tma_loads: copies by the tensor memory accelerator into shared memory.
        tma_stores: copies (or reductions) by it out of shared memory.
        mma: matrix instructions by kind: mma.sync, wgmma, tcgen05; mfma, wmma on AMD.
        barriers: barriers for all threads of a program (or of a warp group).
        mbarriers: asynchronous barriers initialised in shared memory.
        atomics: atomic operations on global memory.
        instructions: machine instructions, padding left out.
        warnings: what ptxas remarked.
    """

    target: str
    registers: int
    spill_store_bytes: int = 0
    spill_load_bytes: int = 0
    stack_bytes: int = 0
    shared_bytes: int = 0
    global_loads: Mapping[int, int] = field(default_factory=dict)
    global_stores: Mapping[int, int] = field(default_factory=dict)
    async_copies: int = 0
    tma_loads: int = 0
    tma_stores: int = 0
    mma: Mapping[str, int] = field(default_factory=dict)
    barriers: int = 0
    mbarriers: int = 0
    atomics: int = 0
    instructions: int = 0
    warnings: tuple[Notice, ...] = ()

    def line(self) -> str:
        """Return the evidence in one line; what the kernel doesn't have is left out."""
        memory = [
            *(_count(n, f"{bits}-bit load") for bits, n in self.global_loads.items()),
            *(_count(n, f"{bits}-bit store") for bits, n in self.global_stores.items()),
            _count(self.atomics, "atomic"),
            _count(self.async_copies, "async copy", "async copies"),
            _count(self.tma_loads, "TMA load"),
            _count(self.tma_stores, "TMA store"),
        ]
        work = [
            *(f"{n} {kind}" for kind, n in self.mma.items()),
            _count(self.barriers, "barrier"),
            _count(self.mbarriers, "mbarrier"),
        ]
        spilled = max(self.spill_store_bytes, self.spill_load_bytes)
        space = [
            _count(self.registers, "register"),
            f"{spilled} B spilled" if spilled else "no spills",
            f"{self.shared_bytes} B shared" if self.shared_bytes else "",
        ]
        end = [_count(self.instructions, "instruction")]
        codes = sorted({notice.code for notice in self.warnings})
        warned = [f"ptxas: {', '.join(codes)}"] if codes else []
        groups = (
            ", ".join(filter(None, g)) for g in (memory, work, space, end, warned)
        )
        return f"{self.target}: " + "; ".join(filter(None, groups))

    def as_row(self) -> dict[str, Any]:
        """Return the evidence as a flat row for a table.

        Returns:
            Every field by name; counts by width or kind as text such as "4 x 128".
        """
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("global_loads", "global_stores", "mma"):
            row[name] = ", ".join(f"{n} x {kind}" for kind, n in row[name].items())
        row["warnings"] = ", ".join(sorted({n.code for n in self.warnings}))
        return row


def read_nvidia(
    target: str, ptx: str, cubin: bytes, log: str, shared_bytes: int
) -> Evidence:
    """Read the evidence of a kernel compiled for an NVIDIA GPU.

    Args:
        target: the architecture.
        ptx: its PTX.
        cubin: its binary.
        log: what ptxas -v said.
        shared_bytes: shared memory that a launch asks for.

    Returns:
        The evidence.

    Raises:
        ValueError: `log` is no ptxas log, or `cubin` no binary.
    """
    used = re.search(r"Used (\d+) registers", log)
    if used is None:
        raise ValueError(f"ptxas reported no registers: {log!r}")
    spills = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        log,
    )
    stack, stores, loads = (
        sum(map(int, column)) for column in zip(*spills, strict=True)
    )
    ops = list(_ptx_opcodes(ptx))
    code = list(words.instructions(cubin))
    bulk = [op for op in ops if "async" in op and "bulk" in op]
    into_shared = [_copies_into_shared(op) for op in bulk]
    return Evidence(
        target=target,
        registers=int(used[1]),
        spill_store_bytes=stores,
        spill_load_bytes=loads,
        stack_bytes=stack,
        shared_bytes=shared_bytes,
        global_loads=_widths(op for op in ops if op[0] == "ld" and "global" in op),
        global_stores=_widths(op for op in ops if op[0] == "st" and "global" in op),
        async_copies=sum(op[:2] == ["cp", "async"] and op[2] in "ca cg" for op in ops),
        tma_loads=into_shared.count(True),
        tma_stores=into_shared.count(False),
        mma=_matrix_instructions(ops),
        barriers=sum(op[0] in ("bar", "barrier") and "sync" in op for op in ops),
        mbarriers=sum(op[:2] == ["mbarrier", "init"] for op in ops),
        atomics=sum(
            op[0] in ("atom", "red") and not any("shared" in t for t in op)
            for op in ops
        ),
        instructions=len(code),
        warnings=_notices(log) + _lost_constants(code),
    )


def read_amd(target: str, assembly: str, shared_bytes: int) -> Evidence:
    """Read the evidence of a kernel compiled for an AMD GPU.

    Args:
        target: the architecture.
        assembly: its assembly ("amdgcn").
        shared_bytes: shared memory (LDS) that a launch asks for.

    Returns:
        The evidence; registers are vector registers.
    """
    lines = re.findall(
        r"^\s+((?:s|v|ds|global|buffer|flat|scratch)_.*)", assembly, re.M
    )
    ops = [line.split()[0] for line in lines]
    to_lds = [
        bool(
            re.match(r"(global|buffer)_load", line) and re.search(r"\blds|_lds_", line)
        )
        for line in lines
    ]
    into_registers = [op for op, lds in zip(ops, to_lds, strict=True) if not lds]
    spilled = re.findall(r"(\d+)-byte Folded (Spill|Reload)", assembly)
    return Evidence(
        target=target,
        registers=int(re.search(r"\.vgpr_count:\s+(\d+)", assembly)[1]),
        spill_store_bytes=sum(int(n) for n, what in spilled if what == "Spill"),
        spill_load_bytes=sum(int(n) for n, what in spilled if what == "Reload"),
        stack_bytes=int(
            re.search(r"\.private_segment_fixed_size:\s+(\d+)", assembly)[1]
        ),
        shared_bytes=shared_bytes,
        global_loads=_amd_widths(into_registers, "load"),
        global_stores=_amd_widths(into_registers, "store"),
        async_copies=sum(to_lds),
        mma=_sorted(Counter(m[1] for op in ops if (m := _AMD_MATRIX.match(op)))),
        barriers=sum(op.startswith(("s_barrier", "s_barrier_signal")) for op in ops),
        atomics=sum("_atomic_" in op and not op.startswith("ds_") for op in ops),
        instructions=sum(op not in ("s_nop", "s_code_end") for op in ops),
    )


_AMD_MATRIX = re.compile(r"v_s?(mfma|wmma|mfmac)")
_AMD_ACCESS = re.compile(
    r"(?:global|buffer|flat)_(load|store)_(?:d16_)?(\w+?)(?:_d16.*)?$"
)
_AMD_NAMED = {
    "byte": 8,
    "ubyte": 8,
    "sbyte": 8,
    "short": 16,
    "ushort": 16,
    "sshort": 16,
}


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}" if n else ""


def _sorted(counts: Mapping[Any, int]) -> dict[Any, int]:
    return dict(sorted(counts.items(), reverse=True))


def _ptx_opcodes(ptx: str) -> Iterator[list[str]]:
    """Yield each instruction's opcode, split at its dots."""
    for statement in re.split(r"[;{}\n]", re.sub(r"//.*", "", ptx)):
        if match := re.match(r"\s*(?:@!?%?\w+\s+)?([a-z]\w*(?:\.[\w:]+)+)", statement):
            yield match[1].split(".")


def _copies_into_shared(op: list[str]) -> bool | None:
    """Tell a TMA load from a store; None for what only waits or prefetches."""
    spaces = [token for token in op if token.partition("::")[0] in ("shared", "global")]
    if len(spaces) != 2:
        return None
    return spaces[0].startswith("shared")


def _widths(ops: Iterator[list[str]]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for op in ops:
        vector = next((int(t[1:]) for t in op if re.fullmatch(r"v\d", t)), 1)
        counts[vector * int(re.search(r"\d+$", op[-1])[0])] += 1
    return _sorted(counts)


def _matrix_instructions(ops: list[list[str]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for op in ops:
        if op[0] == "wgmma" and op[1] == "mma_async":
            counts["wgmma"] += 1
        elif op[0] == "tcgen05" and op[1] == "mma":
            counts["tcgen05"] += 1
        elif op[0] == "mma":
            counts["mma.sync"] += 1
    return _sorted(counts)


def _amd_widths(ops: list[str], direction: str) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for op in ops:
        match = _AMD_ACCESS.match(op)
        if match is None or match[1] != direction:
            continue
        unit = match[2]
        if unit.startswith("dword"):
            counts[32 * int(unit.partition("x")[2] or 1)] += 1
        else:
            counts[_AMD_NAMED.get(unit) or int(re.search(r"\d+$", unit)[0])] += 1
    return _sorted(counts)


def _lost_constants(code: Iterable[words.Word]) -> tuple[Notice, ...]:
    """Additions of zero to two packed 16-bit numbers.

    No compiler writes one. ptxas of CUDA 12.8 does where it should have added a
    constant to the upper number and moved it down for that, but not the constant.
    """
    lost = sum(word.adds_nothing for word in code)
    text = "ptxas wrote VIADD.16x2 with a constant of 0x0: the result is wrong"
    return (Notice("lost constant", text),) * lost


def _notices(log: str) -> tuple[Notice, ...]:
    found = []
    for line in log.splitlines():
        coded = re.search(r"\((C\d{4})\)\s*(.*)", line)
        warned = re.search(r"\bwarning\s*:\s*(.*)", line)
        if coded:
            found.append(Notice(coded[1], coded[2]))
        elif warned:
            found.append(Notice("warning", warned[1]))
    return tuple(found)
