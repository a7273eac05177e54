"""A program holds whole rows: a scale per row, and what needs the row first, the norm.

Where a row fits into registers it is read once. A longer one is walked over, once for
its norm and its largest magnitude and once more for its codes; what the second walk
reads is in L1 still, if the rows that are under way fit there, else in L2.

A norm scales by r = 1 / sqrt(mean of squares + eps). Rounding keeps order, so the
largest magnitude of (x w) r is that of x w, times r: one walk finds both.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.fp8 import arithmetic
from tilebook.fp8.arithmetic import cut, loaded, magnitude, powers, scales
from tilebook.fp8.operands import Job
from tilebook.fp8.scaling import GRANULARITIES
from tilebook.tiling.operands import check_grid

ELEMENTS = 4096
"""Of a tile, where rows are short."""
LONGEST = 16384
"""Elements of a row of which an SM's registers hold two."""
TURNED = 64
"""Rows of a tile where neighbours lie along columns."""


class Config(NamedTuple):
    """How `rows_kernel` is launched."""

    rows: int
    """Of a program, a power of two."""
    block: int
    """Elements of a row at a time, a power of two: all of them, or a part."""
    num_warps: int


class Norm(NamedTuple):
    """What rows are normalised with."""

    weight: torch.Tensor
    """(k,), any stride."""
    eps: float
    """Added to the mean of squares."""


@triton.jit
def part(
    x_ptr, up_ptr, weight_ptr, offs_m, start, m, k, x_m, x_k, up_m, up_k, weight_k,
    BLOCK: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Load a part of some rows, and the same times the weight. KEEP is what caches are
    told of the rows; the weight is everybody's and stays."""
    offs_k = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_k < k)[None, :]
    x = loaded(
        x_ptr, up_ptr,
        offs_m[:, None] * x_m + offs_k[None, :] * x_k,
        offs_m[:, None] * up_m + offs_k[None, :] * up_k,
        mask, KEEP,
    )  # fmt: skip  # (ROWS, BLOCK)
    y = x
    if weight_ptr is not None:
        weight = tl.load(
            weight_ptr + offs_k * weight_k, mask=offs_k < k, other=0.0,
            eviction_policy="evict_last",
        )  # fmt: skip
        y = x * weight.to(tl.float32)[None, :]
    return x, y


@triton.jit
def scaled(amax, factor):
    """The bits of a magnitude times a factor."""
    return magnitude(amax.to(tl.float32, bitcast=True) * factor)


@triton.jit
def finish(
    y, factor, amax, codes_ptr, scale_ptr, offs_m, start, m, k, scale_m, scale_k,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    LARGEST: tl.constexpr, FLOOR: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """Store codes of a part of some rows times `factor`; with WIDTH find its groups'
    scales, and store these, too. Without, `amax` is that of the rows, factor
    included."""
    ROWS: tl.constexpr = y.shape[0]
    offs_k = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
    mask_m = offs_m < m
    if WIDTH:
        GROUPS: tl.constexpr = BLOCK // WIDTH
        y = tl.reshape(y, (ROWS, GROUPS, WIDTH))
        most = scaled(tl.max(magnitude(y), axis=2), factor[:, None])  # (ROWS, GROUPS)
        if POWER != "":
            scale, inverse = powers(most, LARGEST, TOP, POWER)
        else:
            scale, inverse = scales(most, LARGEST, FLOOR)
        y = y * factor[:, None, None] * inverse[:, :, None]
        y = tl.reshape(y, (ROWS, BLOCK))
        offs_g = tl.cast(start, tl.int64) // WIDTH + tl.arange(0, GROUPS)
        tl.store(
            scale_ptr + offs_m[:, None] * scale_m + offs_g[None, :] * scale_k,
            scale,
            mask=mask_m[:, None] & (offs_g < tl.cdiv(k, WIDTH))[None, :],
        )
    else:
        scale, inverse = scales(amax, LARGEST, FLOOR)
        # One after the other: both may be large, and their product infinite.
        y = y * factor[:, None] * inverse[:, None]
    if POWER == "down":
        y = cut(y, LARGEST)
    tl.store(
        codes_ptr + offs_m[:, None] * k + offs_k[None, :],
        y.to(codes_ptr.dtype.element_ty),
        mask=mask_m[:, None] & (offs_k < k)[None, :],
    )


@triton.jit
def rows_kernel(
    x_ptr, up_ptr, weight_ptr, codes_ptr, scale_ptr, m, k, eps,
    x_m, x_k, up_m, up_k, weight_k, scale_m, scale_k,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ONCE: tl.constexpr, WIDTH: tl.constexpr,
    LARGEST: tl.constexpr, FLOOR: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    factor = tl.full((ROWS,), 1.0, tl.float32)
    if ONCE:
        x, y = part(
            x_ptr, up_ptr, weight_ptr, offs_m, 0, m, k, x_m, x_k, up_m, up_k,
            weight_k, BLOCK, "",
        )  # fmt: skip
        if weight_ptr is not None:
            factor = tl.rsqrt(tl.sum(x * x, axis=1) / k + eps)
        amax = scaled(tl.max(magnitude(y), axis=1), factor)
        finish(
            y, factor, amax, codes_ptr, scale_ptr, offs_m, 0, m, k, scale_m, scale_k,
            BLOCK, WIDTH, LARGEST, FLOOR, TOP, POWER,
        )  # fmt: skip
    else:
        squares = tl.zeros((ROWS,), tl.float32)
        amax = tl.zeros((ROWS,), tl.int32)
        for start in range(0, k, BLOCK):
            x, y = part(
                x_ptr, up_ptr, weight_ptr, offs_m, start, m, k, x_m, x_k, up_m, up_k,
                weight_k, BLOCK, "evict_last",
            )  # fmt: skip
            squares += tl.sum(x * x, axis=1)
            amax = tl.maximum(amax, tl.max(magnitude(y), axis=1))
        if weight_ptr is not None:
            factor = tl.rsqrt(squares / k + eps)
        amax = scaled(amax, factor)
        for start in range(0, k, BLOCK):
            _, y = part(
                x_ptr, up_ptr, weight_ptr, offs_m, start, m, k, x_m, x_k, up_m, up_k,
                weight_k, BLOCK, "evict_first",
            )  # fmt: skip
            finish(
                y, factor, amax, codes_ptr, scale_ptr, offs_m, start, m, k,
                scale_m, scale_k, BLOCK, WIDTH, LARGEST, FLOOR, TOP, POWER,
            )  # fmt: skip
    if WIDTH == 0:
        scale, _ = scales(amax, LARGEST, FLOOR)
        tl.store(scale_ptr + offs_m * scale_m, scale, mask=offs_m < m)


def config_for(job: Job, normed: bool = False) -> Config:
    """Choose how to launch the kernel.

    Args:
        job: the matrix and how it is quantised.
        normed: whether its rows are normalised.

    Returns:
        The whole row up to `LONGEST`, several of them where rows are short; see `long`
        for others. Where neighbours lie along columns `TURNED` rows, in parts.
    """
    if job.turned:
        return Config(TURNED, 128, 8)
    if job.k > LONGEST:
        return long(job, normed)
    block = max(128, triton.next_power_of_2(job.k))
    return Config(max(1, ELEMENTS // block), block, min(8, max(4, block // 1024)))


def long(job: Job, normed: bool) -> Config:
    """Choose how to launch the kernel where a row doesn't fit into half the registers.

    Args:
        job: the matrix and how it is quantised.
        normed: whether its rows are normalised.

    Returns:
        Parts such that the rows of two programs stay in L1 for the second walk; of rows
        twice as long those of one. A norm has as much to compute as memory has to
        bring, so lanes past the end cost time: the whole row where these are few, small
        parts where they aren't.
    """
    if not normed:
        return Config(1, LONGEST if job.k <= 2 * LONGEST else 2 * LONGEST, 16)
    if job.k > 2 * LONGEST:
        return Config(1, LONGEST, 16)
    if job.k > 2 * LONGEST * 3 // 4:
        return Config(1, 2 * LONGEST, 32 if job.granularity == "row" else 16)
    return Config(1, 8192, 8)


def launch(job: Job, config: Config | None = None, norm: Norm | None = None) -> None:
    """Launch the kernel.

    Args:
        job: the matrix and how it is quantised: "row", or with `norm` "1x128" or "mx".
        config: how; by default what `config_for` chooses.
        norm: what rows are normalised with, if they are.

    Raises:
        ValueError: there are more rows than a grid has programs, or `config` has parts
            that aren't whole groups.
    """
    config = config or config_for(job, norm is not None)
    width = GRANULARITIES[job.granularity].columns or 0
    if width and config.block % width:
        raise ValueError(f"config must have whole groups of {width}: {config.block}")
    scale = job.scale
    if scale.dtype == torch.float8_e8m0fnu:
        scale = scale.view(torch.uint8)
    weight, eps = norm or (None, 0.0)
    stride = 0 if weight is None else weight.stride(0)
    programs = check_grid(-(-job.m // config.rows), "rows")
    job.wrap(rows_kernel)[(programs,)](
        job.x, job.up, weight, job.codes, scale, job.m, job.k, eps,
        *job.strides, stride, *scale.stride(),
        ROWS=config.rows, BLOCK=config.block, ONCE=config.block >= job.k, WIDTH=width,
        **arithmetic.constants(job.codes.dtype, job.rounding),
        num_warps=config.num_warps,
    )  # fmt: skip
