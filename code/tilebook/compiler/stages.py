"""A small kernel at every stage, each line with what it is for.

`NOTES` says of each stage what its lines are, by patterns that are tried in order. The
tests compile with three versions of Triton and want every line noted and every note
used.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.compiler import pipeline, twins

STAGES = ("ttir", "ttgir", "llir", "ptx", "sass")
"""In the order in which a kernel goes through them."""
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
"""Ampere, Hopper, Blackwell and AMD's MI300."""
Notes = Sequence[tuple[str, str]]

_TILES: Notes = (
    (r"^module|tt\.func", "the kernel, and what is known of it"),
    (r"tt\.return|^ *\}", "the end"),
    (r"dense<0\.0", "what masked lanes are to hold"),
    (r"arith\.constant 1024", "BLOCK, a constant now"),
    (r"get_program_id", "which program this is"),
    (r"arith\.muli", "its first element"),
    (r"make_range", "tl.arange: 0 to 1023"),
    (r"arith\.addi|%offs\w* = tt\.splat", "a scalar becomes a tile to be added to one"),
    (r"%mask\w* = ", "offs < n"),
    (r"tt\.addptr|tt\.splat %\w*ptr", "1,024 pointers"),
    (r"tt\.load", "a load, by pointers and mask"),
    (r"arith\.addf", "x + y"),
    (r"tt\.store", "the store"),
)
NOTES: Mapping[str, Notes] = {
    "ttir": _TILES,
    "ttgir": (
        (
            r"^#blocked",
            "who holds what: a thread 8 neighbours, 32 threads a warp, 4 warps",
        ),
        *_TILES,
    ),
    "llir": (
        (r"^define", "one thread's program; two more pointers, for scratch memory"),
        (r"ctaid", "which program this is"),
        (r"shl i32 %\d+, 10", "its first element: times 1,024"),
        (r"tid\.x", "which thread this is"),
        (r"shl nuw nsw i32 %\d+, 3", "its first element: times 8"),
        (r"and i32 %\d+, 1016", "127 times 8: more there can't be"),
        (r"or disjoint", "no bit in common, so the sum is an or"),
        (r"icmp slt", "one comparison for 8 elements, as n is a multiple of 16"),
        (r"sext", "offsets have 64 bits"),
        (r"getelementptr", "the first of 8 pointers"),
        (r"ld\.global", "16 bytes in four words; zeros first, where masked nothing"),
        (r"extractvalue|bitcast i32", "a word is two numbers"),
        (r"fadd", "two sums at a time"),
        (r"bitcast <2 x half>", "two sums are a word"),
        (r"st\.global", "16 bytes"),
        (r"ret void|^\}", "the end"),
    ),
    "ptx": (
        (r"ld\.param", "parameters to registers"),
        (r"^\.visible|^\)|\.param|reqntid|^\{", "parameters, and 128 threads"),
        (r"\.reg ", "registers: as many as one likes, ptxas assigns real ones"),
        (r"%ctaid", "which program this is"),
        (r"shl\.b32 .*, 10|shl\.b32 .*, 3|and\.b32|%tid", "offsets"),
        (r"or\.b32", "the first of 8"),
        (r"setp", "the mask, a predicate"),
        (r"mul\.wide|add\.s64|mad\.wide", "an address: two bytes an element"),
        (r"mov\.b32|mov\.u32", "zeros, for what is masked"),
        (r"ld\.global", "a load of 16 bytes, if the predicate holds"),
        (r"add\.f16x2", "two sums at a time"),
        (r"st\.global", "a store of 16 bytes"),
        (r"ret;|^\}", "the end"),
    ),
    "sass": (
        (r"SR_TID|SR_CTAID", "which thread, which program"),
        (r"LDC R1\b", "where the stack would be: the driver's, not a parameter"),
        (r"\[0x208\]", "how global memory is to be accessed: the driver's, too"),
        (r"\bU?LDCU?(\.64|\.128)?\b.*c\[", "parameters, from the constant bank"),
        (r"CS2R", "zeros, for what is masked"),
        (r"SHF|SHL|LOP3|LEA", "offsets"),
        (r"ISETP", "the mask, turned over"),
        (r"IMAD\.WIDE|IADD3|IMAD", "addresses"),
        (r"LDG\.E\.128", "a load of 16 bytes"),
        (r"HADD2|HFMA2", "two sums at a time, as sums and as products with 1"),
        (r"EXIT", "threads without work leave; then all"),
        (r"STG\.E\.128", "a store of 16 bytes"),
        (r"BRA|NOP", "padding that is never run"),
    ),
}
"""By stage: what a line matches, and what is said of it."""


@functools.cache
def small(target: str = "sm_90") -> Artefact:
    """Compile the sum of two vectors, of float16, 1,024 elements a program."""
    x = torch.empty(4096, dtype=torch.float16, device="meta")
    return compile_only.compile(
        twins.add_kernel, x, x, x, 4096, BLOCK=1024, target=target
    )


@functools.cache
def row(target: str = "sm_90") -> Artefact:
    """Compile a softmax of rows of 4,096 float16 numbers."""
    x = torch.empty(4096, dtype=torch.float16, device="meta")
    return compile_only.compile(
        twins.softmax_kernel, x, x, *(4096,) * 3, BLOCK=4096, target=target
    )


@functools.cache
def product(target: str = "sm_90") -> Artefact:
    """Compile a product of float16 matrices, 128 by 128 with 32 terms a round."""
    x = torch.empty(4096, dtype=torch.float16, device="meta")
    sizes = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}
    return compile_only.compile(
        twins.matmul_kernel, *(x,) * 3, *(4096,) * 6, target=target, **sizes
    )


def lines(artefact: Artefact, stage: str) -> list[str]:
    """Return the lines of a stage that are code.

    Args:
        artefact: a compiled kernel.
        stage: one of `STAGES`.

    Returns:
        Lines without places, comments, addresses and metadata.
    """
    text = getattr(artefact, stage)
    if stage in ("ttir", "ttgir"):
        return pipeline.plain(text).splitlines()
    return list(_CODE[stage](text))


def _llir(text: str) -> Iterator[str]:
    inside = False
    for line in text.splitlines():
        inside |= line.startswith("define")
        if inside:
            yield re.sub(r", !dbg !\d+|!dbg !\d+ ", "", line)
        inside &= line != "}"


def _ptx(text: str) -> Iterator[str]:
    text = text[text.index(".visible") :]
    for line in text[: text.index("\n}") + 2].splitlines():
        code = line.partition("//")[0].expandtabs(1).rstrip()
        if code.strip() and not re.match(r"\s*(\.loc|\$L)", code):
            yield code


def _sass(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if found := re.match(r"\s*/\*\w{4}\*/\s+(.*;)", line):
            yield found[1]


_CODE = {"llir": _llir, "ptx": _ptx, "sass": _sass}


def noted(stage: str, target: str = "sm_90") -> list[tuple[str, str]]:
    """Return the lines of `small` at a stage, each with what it is for.

    Args:
        stage: one of `STAGES`.
        target: as for `compile_only.compile`; notes are about sm_90.

    Returns:
        Pairs of a line and its note; "" where there is none.
    """
    found = []
    for line in lines(small(target), stage):
        notes = (note for pattern, note in NOTES[stage] if re.search(pattern, line))
        found.append((line, next(notes, "")))
    return found


def annotated(stage: str, width: int = 100) -> str:
    """Write the lines of `small` at a stage, with notes above them.

    Args:
        stage: one of `STAGES`.
        width: characters to which lines are cut.

    Returns:
        The listing; a note stands once above lines that follow one another.
    """
    mark = {"ptx": "//", "sass": "//", "llir": ";"}.get(stage, "//")
    out, last = [], ""
    for line, note in noted(stage):
        if note != last:
            out.append(f"{mark} {note}")
        last = note
        short = re.sub(r"!ttg?\.|\{tt\.divisibility = 16 : i32\}", "", line)
        short = short if len(short) <= width else short[: width - 2] + " …"
        out.append("    " + short.strip())
    return "\n".join(out)


def targets(names: Sequence[str] = TARGETS) -> pd.DataFrame:
    """Compile the three kernels for several GPUs.

    Args:
        names: as for `compile_only.compile`.

    Returns:
        A row for each kernel and target: how many threads a warp has, where a product's
        sums are and in what layout, and what the machine code shows.
    """
    rows = {}
    for make in (small, row, product):
        for name in names:
            found = make(name)
            shown = found.evidence
            rows[f"{make.__name__}, {name}"] = {
                "warp": re.search(r'threads-per-warp" = (\d+)', found.ttgir)[1],
                "unit": ", ".join(shown.mma) or "",
                "sums": sums(found.ttgir),
                "loads": ", ".join(
                    f"{n} x {bits}" for bits, n in shown.global_loads.items()
                ),
                "copies": shown.async_copies,
                "registers": shown.registers,
                "shared bytes": shown.shared_bytes,
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def sums(ttgir: str) -> str:
    """Return the kind of layout that a product's sums have; "" without a product."""
    kinds = ("nvidia_mma", "amd_mfma", "tensor_memory_encoding")
    return next((kind for kind in kinds if f".{kind}<" in ttgir), "")


def tree(kernel: Any) -> str:
    """Write a kernel's syntax tree, a node a line.

    Args:
        kernel: decorated with @triton.jit.

    Returns:
        Class and name of each node, indented by depth; contexts are left out.
    """
    source = textwrap.dedent(inspect.getsource(kernel.fn))
    (function,) = ast.parse(source).body
    out: list[str] = []

    def walk(node: ast.AST, depth: int) -> None:
        said = [type(node).__name__]
        for name in ("id", "attr", "arg", "value", "name"):
            value = getattr(node, name, None)
            if isinstance(value, str | int | float):
                said.append(str(value))
        out.append("  " * depth + " ".join(said))
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                walk(child, depth + 1)

    for statement in function.body[1:]:
        walk(statement, 0)
    return "\n".join(out)
