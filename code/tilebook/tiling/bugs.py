"""Planted bugs of two dimensions: right on the square, wrong on everything else."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
import triton
import triton.language as tl

from tilebook.parallel.bugs import Bug, Case, Launch, tools
from tilebook.parallel.bugs.inputs import normal

BLOCK = 16


@triton.jit
def turn_swapped_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * n + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK, BLOCK)
    ptrs = out_ptr + offs_n[:, None] * n + offs_m[None, :]
    tl.store(ptrs, tl.trans(x), mask=tl.trans(mask))


@triton.jit
def turn_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * n + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK, BLOCK)
    ptrs = out_ptr + offs_n[:, None] * m + offs_m[None, :]
    tl.store(ptrs, tl.trans(x), mask=tl.trans(mask))


def _turn_launch(x: torch.Tensor) -> Launch:
    m, n = x.shape
    out = x.new_empty((n, m))
    grid = (triton.cdiv(m, BLOCK), triton.cdiv(n, BLOCK))
    return Launch(grid, (x, out, m, n), {"BLOCK": BLOCK}, out)


SWAPPED_STRIDES = Bug(
    name="swapped-strides",
    title="The stride of the other matrix",
    symptom=(
        "Right on every square matrix. On a tall one part of the result is missing, "
        "on a wide one somebody else's memory is overwritten."
    ),
    source=(
        "The output's row is as long as the input has rows. With both sides 1024 in "
        "the test, every mistake of that kind cancels."
    ),
    tool=tools.BOUNDS,
    wrong=Case(turn_swapped_kernel, _turn_launch, strays=True),
    mended=Case(turn_kernel, _turn_launch),
    expected=lambda x: x.t(),
    friendly=lambda: (normal(32, 32),),
    inputs=lambda: (normal(20, 48),),
)


@triton.jit
def scale_half_masked_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs = offs_m[:, None] * n + offs_n[None, :]
    mask = offs < m * n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK, BLOCK)
    row = offs_m[:, None].to(tl.float32)
    tl.store(out_ptr + offs, x + row, mask=mask)


@triton.jit
def scale_masked_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs = offs_m[:, None] * n + offs_n[None, :]
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK, BLOCK)
    row = offs_m[:, None].to(tl.float32)
    tl.store(out_ptr + offs, x + row, mask=mask)


def _scale_launch(x: torch.Tensor) -> Launch:
    m, n = x.shape
    out = torch.empty_like(x)
    grid = (triton.cdiv(m, BLOCK), triton.cdiv(n, BLOCK))
    return Launch(grid, (x, out, m, n), {"BLOCK": BLOCK}, out)


HALF_A_MASK = Bug(
    name="half-a-mask",
    title="One mask for two dimensions",
    symptom=(
        "No access leaves the tensor, so no bounds check helps. The first elements of "
        "rows are wrong, not those of every row, and on a GPU not always the same."
    ),
    source=(
        "A mask on the flat offset, carried over from one dimension: lanes past the "
        "end of a row fall on the beginning of the next."
    ),
    tool=tools.RACES,
    wrong=Case(scale_half_masked_kernel, _scale_launch),
    mended=Case(scale_masked_kernel, _scale_launch),
    expected=lambda x: x + torch.arange(len(x), device=x.device)[:, None],
    friendly=lambda: (normal(20, 32),),
    inputs=lambda: (normal(20, 40),),
)


@triton.jit
def turn_unturned_mask_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * n + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK, BLOCK)
    ptrs = out_ptr + offs_n[:, None] * m + offs_m[None, :]
    tl.store(ptrs, tl.trans(x), mask=mask)


UNTURNED_MASK = Bug(
    name="unturned-mask",
    title="A mask that stayed behind",
    symptom=(
        "Right where tiles fit. Where the last tiles are cut off, parts of the result "
        "hold what was in memory before, and zeros stand where numbers should."
    ),
    source=(
        "Tiles are square, so that the mask of the input has the shape of the output's "
        "and nothing complains."
    ),
    tool=tools.POISON,
    wrong=Case(turn_unturned_mask_kernel, _turn_launch),
    mended=Case(turn_kernel, _turn_launch),
    expected=lambda x: x.t(),
    friendly=lambda: (normal(32, 48),),
    inputs=lambda: (normal(20, 48),),
)


@triton.jit
def pack_narrow_kernel(x_ptr, out_ptr, m, n, stride, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * stride + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0)  # (BLOCK, BLOCK)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], x, mask=mask)


@triton.jit
def pack_kernel(x_ptr, out_ptr, m, n, stride, BLOCK: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * stride + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0)  # (BLOCK, BLOCK)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], x, mask=mask)


def _pack_launch(x: torch.Tensor) -> Launch:
    m, n = x.shape
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(m, BLOCK), triton.cdiv(n, BLOCK))
    return Launch(grid, (x, out, m, n, x.stride(0)), {"BLOCK": BLOCK}, out)


def _bytes(m: int, n: int, stride: int) -> torch.Tensor:
    """Rows of random bytes that start `stride` bytes apart."""
    x = normal(m, n).mul(30).to(torch.int8)
    # Memory that nobody touches costs a CPU nothing, nor on the way to the interpreter.
    wide = torch.empty((m - 1) * stride + n, dtype=torch.int8, device=x.device)
    return wide.as_strided((m, n), (stride, 1)).copy_(x)


NARROW_ROWS = Bug(
    name="narrow-rows",
    title="A row times a stride",
    symptom=(
        "Right on every matrix of up to 2,147,483,648 elements, and on the first rows "
        "of a larger one."
    ),
    source=(
        "No index passes 2^31 and neither does the stride, only their product: "
        "Liger-Kernel issue 803 (rows of logits) and FlagGems issue 4153."
    ),
    tool=tools.BOUNDS,
    wrong=Case(pack_narrow_kernel, _pack_launch, strays=True),
    mended=Case(pack_kernel, _pack_launch),
    expected=torch.clone,
    friendly=lambda: (_bytes(20, 40, 64),),
    # Row 16 starts at element 2^31: 2 GiB, of which 17 rows are touched.
    inputs=lambda: (_bytes(17, 40, 2**27),),
)

GALLERY: Mapping[str, Bug] = MappingProxyType(
    {
        bug.name: bug
        for bug in (SWAPPED_STRIDES, HALF_A_MASK, UNTURNED_MASK, NARROW_ROWS)
    }
)
"""The chapter's bugs by name."""
