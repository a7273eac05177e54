"""Our solutions to the chapter's exercises, each under its exercise's last word."""

from collections.abc import Sequence

import numpy as np
import torch

from tilebook import compiler
from tilebook.compiler import kinds
from tilebook.compiler import language as tile
from tilebook.compiler.sharing import Buffer, allocate, total
from tilebook.compiler.types import Pointer, f32, i32

__all__ = [
    "apply",
    "barriers",
    "memory",
    "owner",
    "program",
    "squares",
    "swizzle",
    "width",
]


def width(neighbours: int, threads: int, block: int, size: int) -> tuple[int, int]:
    """What a thread loads of a vector.

    Args:
        neighbours: elements side by side that it holds.
        threads: of the program.
        block: elements of the program.
        size: bytes of an element.

    Returns:
        Bytes of a load, and loads.
    """
    wide = min(16, neighbours * size)
    return wide, block * size // (threads * wide)


def owner(row: int, column: int) -> tuple[int, int, int]:
    """Who holds an element of 32 by 32 in the exercise's layout.

    Args:
        row, column: of the element.

    Returns:
        Register, lane and warp.
    """
    layout = kinds.blocked((1, 4), (4, 8), (4, 1), (1, 0), (32, 32))
    return layout.inverse()(dim0=row, dim1=column)


def apply(columns: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Apply a matrix over GF(2) to numbers.

    Args:
        columns: for each bit of a number, the lowest first, the bits it turns over.
        x: numbers.

    Returns:
        What each number leads to.
    """
    found = torch.zeros_like(x)
    for bit, column in enumerate(columns):
        found ^= (x >> bit & 1) * column
    return found


def swizzle(
    row: torch.Tensor, column: torch.Tensor, side: int, vector: int, phases: int
) -> torch.Tensor:
    """Place an element in swizzled shared memory.

    Args:
        row, column: of the element.
        side: elements of a row.
        vector: elements of a group.
        phases: ways in which groups are exchanged; row r has way r mod phases.

    Returns:
        The offset, in elements.
    """
    group = (column // vector) ^ (row % phases)
    return row * side + group * vector + column % vector


def memory(pieces: Sequence[tuple[int, int, int]]) -> int:
    """Bytes of shared memory for buffers that come and go.

    Args:
        pieces: bytes of each, its first operation, and the one behind its last.

    Returns:
        How many are enough, the largest placed first.
    """
    named = [Buffer(str(n), size, 16, *life, None) for n, (size, *life) in
             enumerate(pieces)]  # fmt: skip
    return total(allocate(named))


def barriers(steps: Sequence[tuple[str, str]]) -> int:
    """How many barriers straight code needs.

    Args:
        steps: "store" or "load", and the buffer.

    Returns:
        The number.
    """
    count, read, written = 0, set(), set()
    for what, buffer in steps:
        if buffer in written or (what == "store" and buffer in read):
            count, read, written = count + 1, set(), set()
        (written if what == "store" else read).add(buffer)
    return count


@compiler.program
def squares(x_ptr, out_ptr, n, BLOCK):
    """The sum of squares of a row of n a program, BLOCK columns at a time."""
    row = tile.program_id(0)
    offs = tile.arange(0, BLOCK)
    total = tile.zeros(BLOCK, tile.f32)
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tile.load(x_ptr + row * n + start + offs, mask=mask, other=0.0)
        total += x * x
    tile.store(out_ptr + row, tile.sum(total))


def program(x: torch.Tensor) -> torch.Tensor:
    """Sum the squares of each row by a program of our own language.

    Args:
        x: matrix (m, n), float32.

    Returns:
        Sums (m,), float32.
    """
    given = {"x_ptr": Pointer(f32), "out_ptr": Pointer(f32), "n": i32, "BLOCK": 16}
    function = compiler.lower(squares, given)
    m, n = x.shape
    out = np.zeros(m, np.float32)
    compiler.evaluate(function, (m,), np.ascontiguousarray(x.cpu()), out, n)
    return torch.from_numpy(out).to(x.device)
