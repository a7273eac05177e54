"""What the chapter's cells print: compiled kernels read back, compared and counted."""

import difflib
import inspect
import re
import textwrap
from types import ModuleType

import pandas as pd
import torch

from tilebook import compile_only, microscope
from tilebook.compile_only import Artefact
from tilebook.memory import coalescing
from tilebook.tiling import (
    aligned,
    blur,
    descriptors,
    explicit,
    indexed,
    layouts,
    naive,
    stencil,
    tiled,
)
from tilebook.tiling.evidence import compiled

GBPS, SMS, GHZ = 3000, 132, 1.7
"""What the chapter's predictions take an H100 for: its copy, its SMs, its clock."""

ISSUED, LANES = 4, 32
"""Instructions of warps that an SM issues in a clock, and lanes that load or store."""


def ttgir(artefact: Artefact, pattern: str) -> str:
    """Pick lines of a compiled kernel, without their places and namespaces.

    Args:
        artefact: the kernel.
        pattern: regular expression, searched for in each line.

    Returns:
        The lines, with "..." for what is left out between them.
    """
    lines = compile_only.excerpt(artefact.ttgir, pattern)
    lines = re.sub(r" loc\(.*\)$", "", lines, flags=re.M)
    return re.sub(r"!ttg?\.|, #smem|, mutable", "", lines)


def layout_lines(artefact: Artefact) -> str:
    """Pick the lines that say how tiles are dealt out to threads.

    Args:
        artefact: a compiled kernel.

    Returns:
        A line for each blocked layout.
    """
    return compile_only.excerpt(artefact.ttgir, r"^#\w+ = #ttg\.blocked")


def diff(before: ModuleType, after: ModuleType) -> str:
    """Compare the kernels of two rungs.

    Args:
        before: the earlier rung.
        after: the later one.

    Returns:
        What changed, as a diff with one line around each change.
    """
    listings = [
        textwrap.dedent(inspect.getsource(rung.transpose_kernel.fn)).splitlines()
        for rung in (before, after)
    ]
    names = [rung.__name__.rpartition(".")[2] for rung in (before, after)]
    return "\n".join(difflib.unified_diff(*listings, *names, lineterm="", n=1))


def turned_view(m: int = 8192, n: int = 8192) -> Artefact:
    """Compile `tiled` for an input that is a transposed view already.

    Args:
        m: rows of the view.
        n: columns of it.

    Returns:
        The kernel.
    """
    x, out = (torch.empty(m, n, dtype=torch.int16, device="meta") for _ in range(2))
    return compile_only.compile(
        tiled.transpose_kernel,
        *(x, out, m, n, 1, m),
        **{"BLOCK_M": tiled.BLOCK_M, "BLOCK_N": tiled.BLOCK_N},
    )


def sectors(m: int = 64, n: int = 256) -> pd.DataFrame:
    """Count the sectors that a warp's accesses touch, for two rungs.

    Args:
        m: rows of the input, whose elements have 2 bytes.
        n: columns of it, a power of two.

    Returns:
        A row per rung: sectors for 32 neighbouring lanes, on average, reading and
        writing.
    """
    launches = {
        naive: ((m,), {"BLOCK": n}),
        tiled: (
            (-(-m // tiled.BLOCK_M) * -(-n // tiled.BLOCK_N),),
            {"BLOCK_M": tiled.BLOCK_M, "BLOCK_N": tiled.BLOCK_N},
        ),
    }
    rows = {}
    for rung, (grid, blocks) in launches.items():
        x = torch.zeros(m, n, dtype=torch.int16)
        out = torch.zeros(n, m, dtype=torch.int16)
        look = microscope.look(
            rung.transpose_kernel, grid, x, out, m, n, n, 1, **blocks, raise_error=True
        )
        warps = m * n / coalescing.WARP
        rows[rung.__name__.rpartition(".")[2]] = [
            coalescing.traffic(look, name).sectors / warps
            for name in ("x_ptr", "out_ptr")
        ]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["read by a warp", "written by a warp"]
    )


def allowed(nbytes: int) -> float:
    """Clocks that memory gives an SM for a tile that is read and written once.

    Args:
        nbytes: of the tile.

    Returns:
        Clocks, at `GBPS` for all of `SMS` and a clock of `GHZ`.
    """
    return nbytes / (GBPS / 2 / SMS / GHZ)


def issued(artefact: Artefact) -> float:
    """Clocks in which an SM issues the instructions of one program without a loop.

    Args:
        artefact: the compiled kernel.

    Returns:
        Clocks, `ISSUED` instructions in each.
    """
    return artefact.evidence.instructions * artefact.metadata["num_warps"] / ISSUED


def budgets() -> pd.DataFrame:
    """Hold what two rungs have to issue against what memory allows them.

    Returns:
        A row per size of element and rung, on 8192 by 8192 elements: bytes of a tile,
        clocks that memory allows for it, and clocks in which it is issued.
    """
    rows = []
    for dtype in (torch.uint8, torch.int16, torch.int32):
        config = aligned.config_for(dtype.itemsize, 8192, 8192)
        side, _ = explicit.SIDES[dtype.itemsize]
        for rung, elements in (
            (aligned, config.block_m * config.block_n),
            (explicit, side * side),
        ):
            nbytes = elements * dtype.itemsize
            rows.append(
                {
                    "bytes of an element": dtype.itemsize,
                    "rung": rung.__name__.rpartition(".")[2],
                    "bytes of a tile": nbytes,
                    "clocks allowed": round(allowed(nbytes)),
                    "clocks to issue": round(issued(compiled(rung, dtype=dtype))),
                }
            )
    return pd.DataFrame(rows)


def gathered(size: int = 256, rows: int = 8) -> pd.DataFrame:
    """Count the sectors that a warp reads of a matrix, for two kinds of index.

    Args:
        size: rows and columns of the matrix, whose elements have 2 bytes.
        rows: of the index.

    Returns:
        A row per kind: sectors for 32 neighbouring lanes, on average.
    """
    draw = torch.Generator().manual_seed(0)
    wild = torch.randint(0, size, (rows, size), generator=draw)
    found = {}
    for name, index in (
        ("a row for each lane", wild),
        ("a row for all lanes", wild[:, :1].expand_as(wild)),
    ):
        x = torch.zeros(size, size, dtype=torch.int16)
        look = microscope.look(
            indexed.gather_kernel,
            (-(-rows // 4),),
            *(x, index, x.new_empty(rows, size), size, rows, size),
            *(*x.stride(), *index.stride(), size, 1),
            **{"BLOCK_M": 4, "BLOCK_N": size},
            raise_error=True,
        )
        warps = rows * size / coalescing.WARP
        found[name] = [coalescing.traffic(look, "x_ptr").sectors / warps]
    return pd.DataFrame.from_dict(found, orient="index", columns=["read by a warp"])


def waits() -> pd.DataFrame:
    """Count the cycles of eight lanes that write a column of 16-byte groups.

    Returns:
        A row per size of element, a column per way to lay rows out in shared memory:
        as they come, shifted by the row, shifted every so many rows.
    """
    rows = {}
    for element, dtype in (
        ("i8", torch.uint8),
        ("i16", torch.int16),
        ("i32", torch.int32),
    ):
        block, _ = explicit.SIDES[dtype.itemsize]
        vector = 16 // dtype.itemsize
        holds = layouts.moved(
            compiled(explicit, dtype=dtype).ttgir, "tt.trans", element
        )
        rows[vector] = {"V": vector} | {
            name: layouts.cycles(
                holds[-1],
                layouts.Shared(vector, per_phase, phases, block),
                (block, block),
                dtype.itemsize,
                vector,
            )
            for name, per_phase, phases in (
                ("as they come", 1, 1),
                ("by the row", 1, 8),
                ("every V rows", vector, 8),
            )
        }
    return pd.DataFrame(rows.values())


def rules() -> pd.DataFrame:
    """Break every rule of descriptors and tabulate what is said, in short.

    Returns:
        One row per rule: where the descriptor is made, the rule, the error's text.
    """
    table = descriptors.rules()
    said = table.columns[-1]
    table[said] = (
        table[said]
        .str.replace(r"^(rank mismatch).*", r"\1", regex=True)
        .replace("no message", "CompilationError with a caret under the call, no words")
    )
    return table


def stencils() -> pd.DataFrame:
    """Count what a pixel costs each stencil, and how many pixels a clock that allows.

    Returns:
        A row per way and size: accesses to memory and instructions for a pixel, the
        pixels that an SM can finish in a clock by either, and the share of a copy's
        bandwidth that the lesser of them leaves.
    """
    x = torch.empty(8192, 8192, dtype=torch.uint8, device="meta")
    plain, words = (8192, 8192, 8192, 1), (8192, 2048, 2048)
    rows = []
    for size, weights in blur.WEIGHTS.items():
        taps = {"RADIUS": size // 2, "BORDER": "zero"}
        direct = compile_only.compile(
            stencil.direct_kernel, x, x, *plain, WEIGHTS=weights, **taps, **blur.DIRECT
        )
        kept = compile_only.compile(
            stencil.rows_kernel, x, x, *plain, WEIGHTS=weights, **taps, **blur.ROWS
        )
        packed = compile_only.compile(
            stencil.packed_kernel,
            *(x, x, *words),
            **taps,
            **blur.PACKED,
            num_warps=blur.PACKED_WARPS,
        )
        tile = blur.DIRECT["BLOCK_H"] * blur.DIRECT["BLOCK_W"]
        strip = blur.ROWS["ROWS"] * blur.ROWS["BLOCK_W"]
        wide = 4 * blur.PACKED["ROWS"] * blur.PACKED["BLOCK"]
        rows += [
            _cost("direct", size, size * size + 1, direct, tile, 1),
            _cost("rows", size, size + 1, kept, strip, blur.ROWS["ROWS"]),
            _cost("packed", size, 4 / 4, packed, wide, blur.PACKED["ROWS"]),
        ]
    return pd.DataFrame(rows)


def _cost(
    name: str, size: int, accesses: float, made: Artefact, pixels: int, turns: int
) -> dict[str, object]:
    total = made.evidence.instructions + (turns - 1) * loop_length(made.sass)
    lanes = 32 * made.metadata["num_warps"]
    instructions = total * lanes / pixels
    by_loads, by_issue = LANES / accesses, ISSUED * 32 / instructions
    return {
        "way": name,
        "size": size,
        "accesses": accesses,
        "instructions": round(instructions, 1),
        "pixels by accesses": round(by_loads, 1),
        "by instructions": round(by_issue, 1),
        "of a copy": round(min(1, min(by_loads, by_issue) * allowed(1)), 2),
    }


def loop_length(sass: str) -> int:
    """Count the instructions of the longest loop in a disassembled kernel.

    Args:
        sass: as `Artefact.sass` has it.

    Returns:
        Instructions from a label to the last branch back to it; 0 without a loop.
    """
    labels: dict[str, int] = {}
    longest = count = 0
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = count
        elif re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?!NOP)\S", line):
            count += 1
            back = re.search(r"\bBRA `\((\.L_\w+)\)", line)
            if back and back[1] in labels:
                longest = max(longest, count - labels[back[1]])
    # The branch to itself behind the end is no loop.
    return longest if longest > 1 else 0
