"""Read once, written twice: a matrix and its transpose, each with scales of its own.

The gradient of a layer multiplies along the other side: its operands are transposes,
and those of 8 bits have to lie along the sum. A tile of 128 by 128 has whole groups of
both directions. Its codes leave by rows, and once more by columns.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from tilebook import device
from tilebook.fp8 import arithmetic
from tilebook.fp8.arithmetic import dealt, gathered, loaded, magnitude, scales
from tilebook.fp8.operands import Job
from tilebook.fp8.scaling import Quantized
from tilebook.tiling.operands import check_grid

SIDE = 128
"""Of a tile, and of its groups."""
GRANULARITIES = ("1x128", "128x128")
SHARED = 128
"""Registers of a thread with which two programs of 8 warps share a multiprocessor."""


class Config(NamedTuple):
    """How `both_kernel` is launched."""

    num_warps: int = 8
    registers: int = 0
    """Of a thread, at most; 0 for what the compiler wants."""


@triton.jit
def turn(turned_ptr, y, m, rows_left, columns_left):
    """Store the transpose of a tile whose rows are dealt."""
    rows, columns = tl.arange(0, y.shape[0]), tl.arange(0, y.shape[1])
    place = turned_ptr + columns[:, None].to(tl.int64) * m + rows[None, :]
    mask = (columns < columns_left)[:, None] & (rows < rows_left)[None, :]
    tl.store(place, tl.trans(gathered(y)), mask=mask)


@triton.jit
def both_kernel(
    x_ptr, up_ptr, codes_ptr, scale_ptr, turned_ptr, turned_scale_ptr, m, k,
    x_m, x_k, up_m, up_k, scale_m, scale_k, turned_k, turned_m,
    SIDE: tl.constexpr, TALL: tl.constexpr,
    LARGEST: tl.constexpr, FLOOR: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(k, SIDE)
    pid_m = (tl.program_id(0) // across).to(tl.int64)
    pid_k = (tl.program_id(0) % across).to(tl.int64)
    # Within the tile 32 bits do. Rows are dealt but where the transpose leaves.
    rows, columns = dealt(SIDE), tl.arange(0, SIDE)
    rows_left = tl.minimum(m - pid_m * SIDE, SIDE).to(tl.int32)
    columns_left = tl.minimum(k - pid_k * SIDE, SIDE).to(tl.int32)
    offs_m, offs_k = pid_m * SIDE + rows, pid_k * SIDE + columns
    mask = (rows < rows_left)[:, None] & (columns < columns_left)[None, :]
    x = loaded(
        x_ptr, up_ptr,
        offs_m[:, None] * x_m + offs_k[None, :] * x_k,
        offs_m[:, None] * up_m + offs_k[None, :] * up_k,
        mask, "",
    )  # fmt: skip  # (SIDE, SIDE)
    turned_ptr += pid_k * SIDE * m + pid_m * SIDE
    size = magnitude(x)
    by_row, by_column = tl.max(size, axis=1), tl.max(size, axis=0)
    place = codes_ptr + offs_m[:, None] * k + offs_k[None, :]
    if TALL:
        scale, inverse = scales(tl.max(by_row, axis=0), LARGEST, FLOOR)
        y = (x * inverse).to(codes_ptr.dtype.element_ty)
        tl.store(place, y, mask=mask)
        turn(turned_ptr, y, m, rows_left, columns_left)
        tl.store(scale_ptr + pid_m * scale_m + pid_k * scale_k, scale)
        tl.store(turned_scale_ptr + pid_k * turned_k + pid_m * turned_m, scale)
    else:
        scale, inverse = scales(by_row, LARGEST, FLOOR)
        y = (x * inverse[:, None]).to(codes_ptr.dtype.element_ty)
        tl.store(place, y, mask=mask)
        there = scale_ptr + offs_m * scale_m + pid_k * scale_k
        tl.store(there, scale, mask=rows < rows_left)
        scale, inverse = scales(by_column, LARGEST, FLOOR)
        y = (x * inverse[None, :]).to(codes_ptr.dtype.element_ty)
        turn(turned_ptr, y, m, rows_left, columns_left)
        there = turned_scale_ptr + offs_k * turned_k + pid_m * turned_m
        tl.store(there, scale, mask=columns < columns_left)


def config_for(job: Job) -> Config:
    """Choose how to launch the kernel.

    Args:
        job: the matrix, and how it is quantised.

    Returns:
        With scales for both directions, no more registers than let two programs share
        a multiprocessor, but where columns lie together: that would spill. AMD's
        compiler knows no such limit.
    """
    shared = job.granularity == "1x128" and not job.turned
    return Config(8, SHARED if shared and device.current().backend != "hip" else 0)


def launch(job: Job, turned: Quantized, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        job: the matrix, with the granularity "1x128" or "128x128".
        turned: where its transpose (k, m) goes.
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: there are more tiles than a grid has programs.
    """
    config = config or config_for(job)
    cap = {"maxnreg": config.registers} if config.registers else {}
    count = check_grid(-(-job.m // SIDE) * -(-job.k // SIDE), "tiles")
    job.wrap(both_kernel)[(count,)](
        job.x, job.up, job.codes, job.scale, turned.codes, turned.scale, job.m, job.k,
        *job.strides, *job.scale.stride(), *turned.scale.stride(),
        SIDE=SIDE, TALL=job.granularity == "128x128",
        **arithmetic.constants(job.codes.dtype), num_warps=config.num_warps, **cap,
    )  # fmt: skip
