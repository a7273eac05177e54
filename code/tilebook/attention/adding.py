"""Who adds a tile to memory: threads, from their registers, or the copy engine.

What a backward kernel of one piece does to the gradient of queries, and nothing else: a
program for each tile of keys of a head has a tile of float32, and adds it to each tile
of the head's rows, from the first to the last. Threads add what lies side by side, four
numbers an instruction (`LINES`): in `backward_whole` the compiler turns tiles through
shared memory for that. Or they add a product as it is left in their registers, two at a
time (`LEFT`). The engine (`ENGINE`) takes a tile from shared memory, as in
`backward_fused`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

from tilebook import check, device, library
from tilebook.attention import launching
from tilebook.attention.backward_blocks import add_half
from tilebook.attention.wgmma import ring_of
from tilebook.matmul.operands import itself

SIDE = 64
"""Rows and columns of a tile."""
LINES, LEFT, ENGINE = "threads, by lines", "threads, as left", "copy engine"
WAYS = (LINES, LEFT, ENGINE)


class Sums(NamedTuple):
    """What is to be added, and where to."""

    parts: torch.Tensor
    """A tile for each head and tile of keys (heads, tiles, SIDE, SIDE), contiguous
    bfloat16."""
    sums: torch.Tensor
    """(1, heads, rows, SIDE), contiguous float32; `SIDE` divides the rows."""
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched."""


@triton.jit
def lines_kernel(parts_ptr, sums_ptr, tiles, rows, SIDE: tl.constexpr):
    offs = tl.arange(0, SIDE)
    at = offs[:, None] * SIDE + offs[None, :]
    tile = tl.load(parts_ptr + tl.program_id(0) * (SIDE * SIDE) + at)
    tile = tile.to(tl.float32)
    head = tl.program_id(0) // tiles
    for start in range(0, rows, SIDE):
        to = sums_ptr + (head * rows + start) * SIDE
        tl.atomic_add(to + at, tile, sem="relaxed")


@gluon.jit
def left_kernel(parts, sums, sums_desc, tiles, rows, ENGINE: gl.constexpr):
    SIDE: gl.constexpr = sums_desc.block_type.shape[3]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, SIDE, 16]
    )
    offs_m = gl.arange(0, SIDE, layout=gl.SliceLayout(1, layout))
    offs_n = gl.arange(0, SIDE, layout=gl.SliceLayout(0, layout))
    at = gl.expand_dims(offs_m, 1) * SIDE + gl.expand_dims(offs_n, 0)
    tile = gl.load(parts + gl.program_id(0) * (SIDE * SIDE) + at).to(gl.float32)
    place = ring_of(sums_desc, 1).index(0)
    head = gl.program_id(0) // tiles
    for start in range(0, rows, SIDE):
        if ENGINE:
            add_half(tile, sums_desc, place, 0, head, start, 0)
        else:
            to = sums + (head * rows + start) * SIDE
            gl.atomic_add(to + at, tile, sem="relaxed")
    tma.store_wait(0)


def launch(way: str, task: Sums) -> None:
    """Launch a kernel that adds.

    Args:
        way: one of `WAYS`.
        task: what is added, and where to.
    """
    heads, tiles = task.parts.shape[:2]
    grid, rows = (heads * tiles,), task.sums.shape[2]
    told = (task.parts, task.sums)
    if way == LINES:
        task.wrap(lines_kernel)[grid](*told, tiles, rows, SIDE=SIDE, num_warps=4)
    else:
        to = launching.described(task.sums, SIDE, SIDE)
        task.wrap(left_kernel)[grid](
            *told, to, tiles, rows, ENGINE=way == ENGINE, num_warps=4
        )


def added(parts: torch.Tensor, rows: int, way: str) -> torch.Tensor:
    """Add tiles of keys to all rows of their heads.

    Args:
        parts: tiles (heads, tiles, SIDE, SIDE) in bfloat16, any strides.
        rows: of a head, a multiple of `SIDE`.
        way: one of `WAYS`; all but `LINES` need a Hopper.

    Returns:
        Sums (heads, rows, SIDE) in float32. Terms come in any order.

    Raises:
        HardwareError: the way needs another GPU.
        TypeError: no tensor of bfloat16, or `rows` is no integer.
        ValueError: another shape, 2^31 numbers of parts or of sums, another way, or a
            tensor where this process's kernels can't reach it.
    """
    check.tensor(parts, "parts", dtype=torch.bfloat16, shape=(None, None, SIDE, SIDE))
    check.one_of(way, "way", WAYS)
    check.natural_number(rows, "rows")
    if rows % SIDE:
        raise ValueError(f"rows must be a multiple of {SIDE}, got {rows}")
    check.runs_here(parts, "parts")
    shape = (1, parts.shape[0], rows, SIDE)
    # Offsets have 32 bits.
    for name, count in (("parts", parts.numel()), ("rows", math.prod(shape))):
        if count >= 1 << 31:
            raise ValueError(f"{name} must make fewer than 2**31 numbers, got {count}")
    sums = torch.zeros(shape, dtype=torch.float32, device=parts.device)
    if sums.numel() and parts.numel():
        if way != LINES:
            device.require("wgmma")
        with library.on(parts):
            launch(way, Sums(parts.contiguous(), sums))
    return sums[0]


def reference(parts: torch.Tensor, rows: int) -> torch.Tensor:
    """The same by PyTorch, in the type of `parts`.

    Args:
        parts: as for `added`.
        rows: likewise.
    """
    return parts.sum(1).repeat(1, rows // SIDE, 1)
