"""One scale for all: nobody can round before everybody has looked.

Two kernels: `largest_kernel` finds the largest magnitude, each program's by one atomic
maximum of integers, which gives the same in any order; `codes_kernel` reads the matrix
again. For a scale that is known before, that of the last step, the second is enough.
It finds the largest magnitude on the way, for the next: delayed scaling.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.fp8 import arithmetic
from tilebook.fp8.arithmetic import cut, loaded, magnitude, scales
from tilebook.fp8.operands import Job
from tilebook.softmax.occupancy import programs

WAVES = 8
"""Programs on a multiprocessor, each of which walks over tiles."""
LARGE = 1 << 27
"""Elements from which on more programs pay where a matrix is read once."""


class Config(NamedTuple):
    """How the kernels are launched."""

    rows: int
    """Of a tile, a power of two."""
    columns: int
    """Of it, a power of two."""
    num_warps: int
    waves: int = WAVES
    """Programs for each multiprocessor, at most."""


@triton.jit
def at(
    tile, m, k, x_m, x_k, up_m, up_k, x_ptr, up_ptr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Load a tile; say where it is."""
    across = tl.cdiv(k, COLUMNS)
    offs_m = (tile // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offs_k = (tile % across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (offs_m < m)[:, None] & (offs_k < k)[None, :]
    x = loaded(
        x_ptr, up_ptr,
        offs_m[:, None] * x_m + offs_k[None, :] * x_k,
        offs_m[:, None] * up_m + offs_k[None, :] * up_k,
        mask, "",
    )  # fmt: skip  # (ROWS, COLUMNS)
    return x, offs_m[:, None] * k + offs_k[None, :], mask


@triton.jit
def largest_kernel(
    x_ptr, up_ptr, amax_ptr, m, k, x_m, x_k, up_m, up_k,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    amax = tl.zeros((ROWS, COLUMNS), tl.int32)
    tiles = tl.cdiv(m, ROWS).to(tl.int64) * tl.cdiv(k, COLUMNS)
    for tile in range(tl.program_id(0).to(tl.int64), tiles, tl.num_programs(0)):
        x, _, _ = at(
            tl.cast(tile, tl.int64), m, k, x_m, x_k, up_m, up_k, x_ptr, up_ptr,
            ROWS, COLUMNS,
        )  # fmt: skip
        amax = tl.maximum(amax, magnitude(x))
    tl.atomic_max(amax_ptr, tl.max(tl.max(amax, axis=1), axis=0))


@triton.jit
def codes_kernel(
    x_ptr, up_ptr, codes_ptr, scale_ptr, amax_ptr, m, k, x_m, x_k, up_m, up_k,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GIVEN: tl.constexpr,
    LARGEST: tl.constexpr, FLOOR: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    if GIVEN:
        inverse = tl.div_rn(tl.full((), 1.0, tl.float32), tl.load(scale_ptr))
    else:
        scale, inverse = scales(tl.load(amax_ptr), LARGEST, FLOOR)
        if tl.program_id(0) == 0:
            tl.store(scale_ptr, scale)
    amax = tl.zeros((ROWS, COLUMNS), tl.int32)
    tiles = tl.cdiv(m, ROWS).to(tl.int64) * tl.cdiv(k, COLUMNS)
    for tile in range(tl.program_id(0).to(tl.int64), tiles, tl.num_programs(0)):
        x, offsets, mask = at(
            tl.cast(tile, tl.int64), m, k, x_m, x_k, up_m, up_k, x_ptr, up_ptr,
            ROWS, COLUMNS,
        )  # fmt: skip
        y = x * inverse
        if GIVEN:
            # What came before says nothing of how large these are.
            y = cut(y, LARGEST)
        tl.store(codes_ptr + offsets, y.to(codes_ptr.dtype.element_ty), mask=mask)
        if GIVEN:
            amax = tl.maximum(amax, magnitude(x))
    if GIVEN:
        tl.atomic_max(amax_ptr, tl.max(tl.max(amax, axis=1), axis=0))


def config_for(job: Job, given: bool = False) -> Config:
    """Choose how to launch the kernels.

    Args:
        job: the matrix.
        given: whether its scale is, so that it is read once.

    Returns:
        Tiles of 4096 elements, as wide as a row is long, up to 1024; tall ones where
        neighbours lie along columns. What is read once, and remembered nowhere, has
        tiles of up to 2048 columns, and more of them at a time where it is large.
    """
    if job.turned:
        return Config(64, 128, 8)
    columns = triton.next_power_of_2(job.k)
    if not given:
        columns = max(16, min(1024, columns))
        return Config(4096 // columns, columns, 4)
    columns = max(16, min(2048, columns))
    if job.m * job.k < LARGE:
        return Config(2048 // columns, columns, 4, 8)
    return Config(8192 // columns, columns, 4, 32)


def launch(
    job: Job, config: Config | None = None, amax: torch.Tensor | None = None
) -> None:
    """Launch both kernels, or with `amax` the second alone.

    Args:
        job: the matrix, its granularity "tensor"; with `amax` its scale is given, and
            else written.
        config: how; by default what `config_for` chooses.
        amax: one float32, zero or positive: becomes the larger of itself and the
            largest magnitude, NaN if there is one.
    """
    config = config or config_for(job, amax is not None)
    tiles = -(-job.m // config.rows) * -(-job.k // config.columns)
    grid = (programs(tiles, config.waves),)
    found = amax
    if found is None:
        found = torch.zeros((), dtype=torch.float32, device=job.x.device)
    bits = found.view(torch.int32)
    shape = {"ROWS": config.rows, "COLUMNS": config.columns}
    if amax is None:
        job.wrap(largest_kernel)[grid](
            job.x, job.up, bits, job.m, job.k, *job.strides,
            **shape, num_warps=config.num_warps,
        )  # fmt: skip
    job.wrap(codes_kernel)[grid](
        job.x, job.up, job.codes, job.scale, bits, job.m, job.k, *job.strides,
        **shape, GIVEN=amax is not None, **arithmetic.constants(job.codes.dtype),
        num_warps=config.num_warps,
    )  # fmt: skip
