"""What the chapter's cells print of compiled kernels: lines, and what they cost."""

import difflib
import inspect
import re
import textwrap
from types import ModuleType

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.tiling import aligned, blur, descriptors, explicit, stencil, tiled
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
        A row per rung and size of element, on 8192 by 8192 elements: bytes of a tile,
        clocks that memory allows for it, clocks in which it is issued, and their share.
    """
    rows = {}
    for dtype in (torch.uint8, torch.int16, torch.int32):
        config = aligned.config_for(dtype.itemsize, 8192, 8192)
        side, _ = explicit.SIDES[dtype.itemsize]
        for rung, elements in (
            (aligned, config.block_m * config.block_n),
            (explicit, side * side),
        ):
            nbytes = elements * dtype.itemsize
            name = rung.__name__.rpartition(".")[2]
            rows[f"{name}, {8 * dtype.itemsize} bits"] = {
                "bytes of a tile": nbytes,
                "clocks allowed": round(allowed(nbytes)),
                "clocks to issue": round(issued(compiled(rung, dtype=dtype))),
                "share": round(
                    issued(compiled(rung, dtype=dtype)) / allowed(nbytes), 2
                ),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def rules() -> pd.DataFrame:
    """Break every rule of descriptors and tabulate what is said, in short.

    Returns:
        One row per rule: where the descriptor is made, and the error's text.
    """
    table = descriptors.rules().set_index("rule").rename_axis(None)
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
            stencil.direct_kernel,
            *(x, x, *plain, blur.half(size)),
            WEIGHTS=weights,
            **taps,
            **blur.DIRECT,
        )
        kept = compile_only.compile(
            stencil.rows_kernel,
            *(x, x, *plain, blur.half(size)),
            WEIGHTS=weights,
            **taps,
            **blur.ROWS,
        )
        packed = compile_only.compile(
            stencil.packed_kernel,
            *(x, x, *words),
            **taps,
            **blur.PACKED,
        )
        tile = blur.DIRECT["BLOCK_H"] * blur.DIRECT["BLOCK_W"]
        strip = blur.ROWS["ROWS"] * blur.ROWS["BLOCK_W"]
        wide = 4 * blur.PACKED["ROWS"] * blur.PACKED["BLOCK"]
        rows += [
            _cost("direct", size, size * size + 1, direct, tile, 1),
            _cost("rows", size, size + 1, kept, strip, blur.ROWS["ROWS"]),
            _cost("packed", size, 4 / 4, packed, wide, blur.PACKED["ROWS"]),
        ]
    return pd.DataFrame.from_dict(dict(rows), orient="index")


def _cost(
    name: str, size: int, accesses: float, made: Artefact, pixels: int, turns: int
) -> tuple[str, dict[str, float]]:
    more = (turns - 1) * loop_length(made.sass) if turns > 1 else 0
    total = made.evidence.instructions + more
    lanes = 32 * made.metadata["num_warps"]
    instructions = total * lanes / pixels
    by_loads, by_issue = LANES / accesses, ISSUED * 32 / instructions
    return f"{name}, {size} by {size}", {
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
