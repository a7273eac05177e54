"""Groups within a tile: each element is read once, 1 x 128, 128 x 128 and MX."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.fp8 import arithmetic
from tilebook.fp8.arithmetic import (
    cut,
    dealt,
    gathered,
    loaded,
    magnitude,
    powers,
    scales,
)
from tilebook.fp8.operands import Job
from tilebook.fp8.scaling import GRANULARITIES
from tilebook.tiling.operands import check_grid

ELEMENTS = 4096
"""Of a tile whose groups are within a row."""
TURNED = 64
"""Rows of a tile where neighbours lie along columns: 128 bytes of 2-byte elements."""


class Config(NamedTuple):
    """How `groups_kernel` is launched."""

    rows: int
    """Of a tile, a power of two; 128 where groups have 128."""
    groups: int
    """Groups along a row of it, a power of two."""
    num_warps: int


@triton.jit
def groups_kernel(
    x_ptr, up_ptr, codes_ptr, scale_ptr, m, k,
    x_m, x_k, up_m, up_k, scale_m, scale_k,
    ROWS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, TALL: tl.constexpr,
    TURNED: tl.constexpr,
    LARGEST: tl.constexpr, FLOOR: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    COLUMNS: tl.constexpr = GROUPS * WIDTH
    across = tl.cdiv(k, COLUMNS)
    pid_m, pid_k = tl.program_id(0) // across, tl.program_id(0) % across
    offs_m = pid_m.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = pid_k.to(tl.int64) * COLUMNS
    offs_k = first + tl.arange(0, COLUMNS)
    mask = (offs_m < m)[:, None] & (offs_k < k)[None, :]
    there = first + (dealt(COLUMNS) if TURNED else tl.arange(0, COLUMNS))
    x = loaded(
        x_ptr, up_ptr,
        offs_m[:, None] * x_m + there[None, :] * x_k,
        offs_m[:, None] * up_m + there[None, :] * up_k,
        (offs_m < m)[:, None] & (there < k)[None, :], "",
    )  # fmt: skip  # (ROWS, COLUMNS)
    if TURNED:
        x = tl.trans(gathered(tl.trans(x)))
    x = tl.reshape(x, (ROWS, GROUPS, WIDTH))
    amax = tl.max(magnitude(x), axis=2)  # (ROWS, GROUPS)
    if TALL:
        amax = tl.max(amax, axis=0)[None, :]  # (1, GROUPS)
        offs_down = pid_m.to(tl.int64) + tl.arange(0, 1)
    else:
        offs_down = offs_m
    if POWER != "":
        scale, inverse = powers(amax, LARGEST, TOP, POWER)
    else:
        scale, inverse = scales(amax, LARGEST, FLOOR)
    y = tl.reshape(x * inverse[:, :, None], (ROWS, COLUMNS))
    if POWER == "down":
        y = cut(y, LARGEST)
    tl.store(
        codes_ptr + offs_m[:, None] * k + offs_k[None, :],
        y.to(codes_ptr.dtype.element_ty),
        mask=mask,
    )
    offs_g = pid_k.to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    tl.store(
        scale_ptr + offs_down[:, None] * scale_m + offs_g[None, :] * scale_k,
        scale,
        mask=(offs_down < m)[:, None] & (offs_g < tl.cdiv(k, WIDTH))[None, :],
    )


def config_for(job: Job) -> Config:
    """Choose how to launch the kernel.

    Args:
        job: the matrix and how it is quantised.

    Returns:
        A tile of `ELEMENTS` as wide as a row is long, up to 1024; where neighbours lie
        along columns one that is a group wide and `TURNED` rows tall.
    """
    rows, width, _ = GRANULARITIES[job.granularity]
    if rows == 128:
        return Config(128, 1, 8)
    if job.turned:
        return Config(TURNED, 128 // width, 4)
    most = min(1024, triton.next_power_of_2(job.k))
    groups = max(1, most // width)
    return Config(max(1, ELEMENTS // (groups * width)), groups, 4)


def launch(job: Job, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        job: the matrix and how it is quantised: "1x128", "128x128" or "mx".
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: there are more tiles than a grid has programs, or `config` has
            another number of rows than its groups have.
    """
    config = config or config_for(job)
    rows, width, _ = GRANULARITIES[job.granularity]
    tall = rows == 128
    if tall and config.rows != rows:
        raise ValueError(f"config must have tiles of {rows} rows, got {config.rows}")
    count = -(-job.m // config.rows) * -(-job.k // (config.groups * width))
    scale = job.scale
    if scale.dtype == torch.float8_e8m0fnu:
        scale = scale.view(torch.uint8)
    job.wrap(groups_kernel)[(check_grid(count, "tiles"),)](
        job.x, job.up, job.codes, scale, job.m, job.k,
        *job.strides, *scale.stride(),
        ROWS=config.rows, GROUPS=config.groups, WIDTH=width, TALL=tall,
        TURNED=job.turned,
        **arithmetic.constants(job.codes.dtype, job.rounding),
        num_warps=config.num_warps,
    )  # fmt: skip
