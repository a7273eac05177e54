"""A matrix product small enough for a pencil, and what its launch order reads."""

import functools
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from tilebook import check, library, microscope
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import check_grid, no_gradient

BLOCKS = (1, 2, 4, 8)
"""Sides of a tile. From 16 on the compiler takes the sum of products for a `tl.dot`."""

LONGEST = 2**30
"""The longest side: a step beyond it still fits 32 bits."""


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, m, n, k, BLOCK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    # A tile of C per program: BLOCK rows of A times BLOCK columns of B.
    pid_m, pid_n = grouped(
        tl.program_id(0), tl.cdiv(m, BLOCK), tl.cdiv(n, BLOCK), GROUP
    )
    offs_m = (pid_m.to(tl.int64) * BLOCK + tl.arange(0, BLOCK))[:, None]
    offs_n = (pid_n.to(tl.int64) * BLOCK + tl.arange(0, BLOCK))[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK):
        offs_k = start + tl.arange(0, BLOCK)
        a = tl.load(
            a_ptr + offs_m * k + offs_k[None, :],
            mask=(offs_m < m) & (offs_k < k)[None, :],
            other=0.0,
        )  # (BLOCK, BLOCK): m, k
        b = tl.load(
            b_ptr + offs_k[:, None].to(tl.int64) * n + offs_n,
            mask=(offs_k < k)[:, None] & (offs_n < n),
            other=0.0,
        )  # (BLOCK, BLOCK): k, n
        # Every element of a row times every column: (m, k, n), summed over k.
        acc += tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    tl.store(c_ptr + offs_m * n + offs_n, acc, mask=(offs_m < m) & (offs_n < n))


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, block: int = 8, group: int = 1
) -> torch.Tensor:
    """Multiply two matrices without matrix units.

    Args:
        a: contiguous float32 matrix (m, k).
        b: contiguous float32 matrix (k, n).
        block: side of a tile, one of `BLOCKS`.
        group: rows of tiles in a strip of the launch order; 1 for row by row.

    Returns:
        `a @ b` (m, n), float32.

    Raises:
        TypeError: not tensors of float32, or `group` isn't an integer.
        ValueError: shapes that don't fit, sides of more than `LONGEST`, other devices,
            not contiguous, a tensor where this process's kernels can't reach it or that
            takes part in a gradient, another `block`, or `group` < 1.
    """
    for name, x in (("a", a), ("b", b)):
        check.tensor(x, name, dtype=torch.float32, ndim=2, contiguous=True)
        check.runs_here(x, name)
        no_gradient(x, name)
        if max(x.shape) > LONGEST:
            raise ValueError(
                f"{name} must have sides of at most {LONGEST}, got {tuple(x.shape)}"
            )
    check.same_device(a=a, b=b)
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"b must have as many rows as a has columns, {a.shape[1]}, got {b.shape[0]}"
        )
    check.positive_int(group, "group")
    check.one_of(block, "block", BLOCKS)
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty((m, n), dtype=torch.float32, device=a.device)
    if c.numel():
        tiles_m, tiles_n = triton.cdiv(m, block), triton.cdiv(n, block)
        tiles = check_grid(tiles_m * tiles_n, "tiles of the result", "a")
        group = min(group, tiles_m)
        with library.on(a):
            matmul_kernel[(tiles,)](a, b, c, m, n, k, BLOCK=block, GROUP=group)
    return c


class Reads(NamedTuple):
    """Which blocks the first programs of a launch touched."""

    a: np.ndarray
    """By block of A, how many of the programs loaded it."""
    b: np.ndarray
    """By block of B, the same."""
    c: np.ndarray
    """By block of C, the program that stored it; -1 for none."""

    @property
    def blocks(self) -> int:
        """Different blocks of A and B: what has to come from memory at least."""
        return int((self.a > 0).sum() + (self.b > 0).sum())


def reads(
    tiles: int = 9, group: int = 1, *, programs: int | None = None, block: int = 2
) -> Reads:
    """Launch the first programs of a product and see what they read.

    Args:
        tiles: blocks in a row and in a column of each of the three matrices.
        group: rows of tiles in a strip of the launch order; 1 for row by row.
        programs: how many programs run; as many as `tiles` unless given.
        block: side of a block.

    Returns:
        The counts, read-only, from the addresses of a real launch.

    Raises:
        TypeError: `tiles`, `group` or `programs` isn't an integer.
        ValueError: one of them below 1, more `programs` than tiles, or another `block`
            than those of `BLOCKS`.
    """
    check.positive_int(tiles, "tiles")
    check.positive_int(group, "group")
    check.one_of(block, "block", BLOCKS)
    programs = tiles if programs is None else programs
    if check.positive_int(programs, "programs") > tiles * tiles:
        raise ValueError(f"programs must be at most {tiles * tiles}, got {programs}")
    return _reads(tiles, group, programs, block)


@functools.cache
def _reads(tiles: int, group: int, programs: int, block: int) -> Reads:
    side = tiles * block
    a, b, c = (torch.zeros(side, side) for _ in range(3))
    look = microscope.look(
        matmul_kernel, (programs,), a, b, c, side, side, side,
        BLOCK=block, GROUP=min(group, tiles), raise_error=True,
    )  # fmt: skip
    # A program loads each element of its blocks once, so any element of a
    # block tells how many programs loaded it.
    counts = [look.counts(name)[::block, ::block] for name in ("a_ptr", "b_ptr")]
    seen = Reads(*counts, look.ownership("c_ptr")[::block, ::block])
    for each in seen:
        each.flags.writeable = False
    return seen
