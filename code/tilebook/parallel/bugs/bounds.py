"""Bugs of coverage: elements nobody writes, and elements of somebody else."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.bugs import tools
from tilebook.parallel.bugs.bug import BLOCK, Bug, Case, Launch, launch_map
from tilebook.parallel.bugs.inputs import normal, uniform


@triton.jit
def double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, 2.0 * x, mask=mask)


def _floor_launch(x: torch.Tensor) -> Launch:
    out = torch.empty_like(x)
    n = x.numel()
    grid = (n // BLOCK,)
    return Launch(grid, (x, out, n), {"BLOCK": BLOCK}, out)


FLOOR_GRID = Bug(
    name="floor-grid",
    title="The tail nobody wrote",
    symptom=(
        "Right on every size that was tried, all powers of two. On 1,000 elements "
        "the last 232 hold whatever the allocator left there: garbage, or the "
        "right answer of an earlier call."
    ),
    source=(
        "A grid rounded down in a published course; a buffer rounded down under a "
        "grid rounded up in attorch, mended in August 2026."
    ),
    tool=tools.POISON,
    wrong=Case(double_kernel, _floor_launch),
    mended=Case(double_kernel, launch_map),
    expected=lambda x: 2.0 * x,
    friendly=lambda: (normal(1024),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def square_unmasked_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)  # (BLOCK,)
    tl.store(out_ptr + offs, x * x)


@triton.jit
def square_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x * x, mask=mask)


NO_MASK = Bug(
    name="no-mask",
    title="No mask at all",
    symptom=(
        "The answer is right, on ragged sizes too. Now and then another tensor of "
        "the program changes, or a launch much later dies of an illegal memory "
        "access."
    ),
    source=(
        "An unmasked store in applied-ai's A100 dequantising matmul; an unmasked load "
        "in a published answer to Triton Puzzle 2."
    ),
    tool=tools.BOUNDS,
    wrong=Case(square_unmasked_kernel, launch_map, strays=True),
    mended=Case(square_kernel, launch_map),
    expected=lambda x: x * x,
    friendly=lambda: (normal(1024),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def negate_one_more_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, -x, mask=offs <= n)


@triton.jit
def negate_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, -x, mask=offs < n)


OFF_BY_ONE = Bug(
    name="off-by-one",
    title="One element too many",
    symptom=(
        "Right at 1,024 elements and at 1,000. The tensor that lies behind the "
        "output has a zero at its front that nobody put there."
    ),
    source=(
        "A published attention chapter forgets the bound of one dimension and "
        "overwrites the neighbour's gradient; applied-ai's dequantising matmul "
        "compares row indices with the number of columns."
    ),
    tool=tools.GUARDS,
    wrong=Case(negate_one_more_kernel, launch_map, strays=True),
    mended=Case(negate_kernel, launch_map),
    expected=lambda x: -x,
    friendly=lambda: (normal(1024),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def minimum_padded_kernel(x_ptr, part_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    tl.store(part_ptr + pid, tl.min(x, axis=0))


@triton.jit
def minimum_kernel(x_ptr, part_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    # Padding must be the neutral element of what consumes it.
    x = tl.load(x_ptr + offs, mask=offs < n, other=float("inf"))
    tl.store(part_ptr + pid, tl.min(x, axis=0))


def _minimum_launch(x: torch.Tensor) -> Launch:
    n = x.numel()
    programs = triton.cdiv(n, BLOCK)
    part = x.new_empty(programs)
    return Launch((programs,), (x, part, n), {"BLOCK": BLOCK}, part)


PADDING = Bug(
    name="padding",
    title="Padding that takes part",
    symptom=(
        "The minimum of normally distributed numbers is right at every length. "
        "The minimum of prices is 0, unless their number is a multiple of 256."
    ),
    source=(
        "Padded lanes counted in a softmax denominator (a published answer to "
        "Triton Puzzle 8) and in a variance (a published performance book)."
    ),
    tool=tools.LENGTHS,
    wrong=Case(minimum_padded_kernel, _minimum_launch, torch.min),
    mended=Case(minimum_kernel, _minimum_launch, torch.min),
    expected=torch.min,
    friendly=lambda: (normal(1000),),
    inputs=lambda: (uniform(1000, 1.0, 2.0),),
)


@triton.jit
def copy_narrow_kernel(x_ptr, out_ptr, first, n, BLOCK: tl.constexpr):
    pid = first + tl.program_id(0)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


@triton.jit
def copy_kernel(x_ptr, out_ptr, first, n, BLOCK: tl.constexpr):
    pid = (first + tl.program_id(0)).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


def _copy_launch(x: torch.Tensor, first: int = 0) -> Launch:
    """Programs first, first + 1 … of a launch: all of them, or one far out."""
    out = torch.zeros_like(x)
    n = x.numel()
    grid = (1,) if first else (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, out, first, n), {"BLOCK": BLOCK}, out)


INT32_OFFSET = Bug(
    name="int32-offset",
    title="The offset that wraps",
    symptom=(
        "Right up to 2,147,483,648 elements. With one block more: an illegal memory "
        "access, or data from eight GiB before the tensor."
    ),
    source=(
        "Liger-Kernel issue 803, FlagGems issues 4153 and 6411 (a language model's "
        "score fell from 87 % to 60 %), and most kernel collections read for this "
        "book."
    ),
    tool=tools.BOUNDS,
    wrong=Case(copy_narrow_kernel, _copy_launch, strays=True),
    mended=Case(copy_kernel, _copy_launch),
    expected=lambda x, first=0: torch.zeros_like(x) if first else x,
    friendly=lambda: (normal(1000),),
    # The first program whose offsets need 32 bits: it has nothing to do here.
    inputs=lambda: (normal(1000), 2**31 // BLOCK),
)
