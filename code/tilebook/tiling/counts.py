"""What the chapter's cells count: sectors of memory, and cycles of shared memory."""

import numpy as np
import pandas as pd
import torch

from tilebook import microscope
from tilebook.memory import coalescing
from tilebook.memory.strides import SECTOR
from tilebook.tiling import (
    described,
    explicit,
    indexed,
    layouts,
    naive,
    reduce,
    tiled,
)
from tilebook.tiling.evidence import compiled

ELEMENTS = {"i8": torch.uint8, "i16": torch.int16, "i32": torch.int32}
"""Names in compiled code."""


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


def summed(itemsize: int = 4) -> pd.DataFrame:
    """Count the sectors of a tile of terms, along neighbours and across them.

    Args:
        itemsize: bytes of an element.

    Returns:
        A row per tile, of sums by terms: sectors that it touches where the terms of a
        sum are neighbours in memory, where those of different sums are, and the least.
    """
    far = 2**20
    rows = {}
    for kept, terms in (reduce.ALONG, reduce.ACROSS):
        at = np.indices((kept, terms))
        touched = [
            np.unique((at[0] * strides[0] + at[1] * strides[1]) * itemsize // SECTOR)
            for strides in ((far, 1), (1, far))
        ]
        least = kept * terms * itemsize // SECTOR
        rows[f"{kept} by {terms}"] = [*map(len, touched), least]
    columns = ["sums of rows", "sums of columns", "least"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def engine_waits() -> pd.DataFrame:
    """Count the cycles of a write into the engine's buffer, by the block's shape.

    Returns:
        A row per size of element, columns for the wide and the narrower blocks of
        `described`.
    """
    rows = {}
    for element, dtype in ELEMENTS.items():
        size = dtype.itemsize
        row = rows[f"{8 * size} bits"] = {}
        for wide, blocks in (
            (True, described.WIDE_BLOCKS),
            (False, described.BLOCKS),
        ):
            block_m, block_n = blocks[size]
            ttgir = compiled(described, dtype=dtype, wide=wide).ttgir
            _, held = layouts.moved(ttgir, "tt.trans", element)
            cycles = layouts.cycles(
                held, layouts.engine(size), (block_n, block_m), size
            )
            kind = "wide" if wide else "narrower"
            row |= {
                f"{kind} block": f"{block_m} by {block_n}",
                f"{kind}, cycles": cycles,
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def waits() -> pd.DataFrame:
    """Count the cycles of eight lanes that write a column of 16-byte groups.

    Returns:
        A row per size of element, a column per way to lay rows out in shared memory:
        as they come, shifted by the row, shifted every so many rows.
    """
    rows = {}
    for element, dtype in ELEMENTS.items():
        block, _ = explicit.SIDES[dtype.itemsize]
        vector = 16 // dtype.itemsize
        holds = layouts.moved(
            compiled(explicit, dtype=dtype).ttgir, "tt.trans", element
        )
        rows[f"V = {vector}"] = {
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
    return pd.DataFrame.from_dict(rows, orient="index")
