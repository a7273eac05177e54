"""Bugs of sharing: two programs and one element."""

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.parallel.bugs import tools
from tilebook.parallel.bugs.bug import BLOCK, Bug, Case, Launch, launch_map
from tilebook.parallel.bugs.inputs import normal, uniform


@triton.jit
def thread_style_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + 1.0, mask=mask)


@triton.jit
def increment_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + 1.0, mask=mask)


THREAD_INDEX = Bug(
    name="thread-index",
    title="A program taken for a thread",
    symptom=(
        "Right up to 256 elements. Beyond, the front of the answer is right and "
        "the rest is garbage, though the grid covers every element."
    ),
    source=(
        "The first kernel of many a CUDA programmer: an index that counts programs "
        "where it should count blocks."
    ),
    tool=tools.OWNERSHIP,
    wrong=Case(thread_style_kernel, launch_map),
    mended=Case(increment_kernel, launch_map),
    expected=lambda x: x + 1.0,
    friendly=lambda: (normal(256),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def scale_moved_back_kernel(x_ptr, n, a, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    # The last block is moved back to end at n, so that no mask is needed.
    offs = tl.minimum(pid * BLOCK, n - BLOCK) + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)  # (BLOCK,)
    tl.store(x_ptr + offs, a * x)


@triton.jit
def scale_in_place_kernel(x_ptr, n, a, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(x_ptr + offs, a * x, mask=mask)


def _in_place_launch(x: torch.Tensor) -> Launch:
    x = x.clone()
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, n, 3.0), {"BLOCK": BLOCK}, x)


MOVED_BACK = Bug(
    name="moved-back",
    title="The block that was moved back",
    symptom=(
        "Multiples of 256 are right. Otherwise some elements near the end are "
        "multiplied twice: in the interpreter always, on a GPU now and then."
    ),
    source=(
        "Sound where the output is a tensor of its own, so it gets copied to where "
        "it is not: in-place backward passes clobbered their own input in "
        "Liger-Kernel issues 272 and 370."
    ),
    tool=tools.RACES,
    wrong=Case(scale_moved_back_kernel, _in_place_launch),
    mended=Case(scale_in_place_kernel, _in_place_launch),
    expected=lambda x: 3.0 * x,
    friendly=lambda: (normal(1024),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def sum_lost_kernel(x_ptr, total_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    total = tl.load(total_ptr)
    tl.store(total_ptr, total + tl.sum(x, axis=0))


@triton.jit
def sum_kernel(x_ptr, total_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    tl.atomic_add(total_ptr, tl.sum(x, axis=0))


def _sum_launch(x: torch.Tensor) -> Launch:
    total = x.new_zeros(1)
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, total, n), {"BLOCK": BLOCK}, total)


LOST_UPDATE = Bug(
    name="lost-update",
    title="The sum that forgets",
    symptom=(
        "Right in the interpreter, at every size. On a GPU the total is too small "
        "and differs from run to run."
    ),
    source=(
        "The layer-norm tutorial's lock without a barrier loses updates the same "
        "way: tritonbench issue 1266 counts about 99 runs in 100."
    ),
    tool=tools.RACES,
    wrong=Case(sum_lost_kernel, _sum_launch),
    mended=Case(sum_kernel, _sum_launch),
    expected=lambda x: x.sum().reshape(1),
    length=1000,
    friendly=lambda: (uniform(200, 1.0, 2.0),),
    inputs=lambda: (uniform(1000, 1.0, 2.0),),
)


@triton.jit
def smooth_in_place_kernel(x_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    before = tl.maximum(offs - 1, 0)
    here = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    left = tl.load(x_ptr + before, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(x_ptr + offs, 0.5 * (left + here), mask=mask)


@triton.jit
def smooth_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    before = tl.maximum(offs - 1, 0)
    here = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    left = tl.load(x_ptr + before, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, 0.5 * (left + here), mask=mask)


def _smooth_in_place_launch(x: torch.Tensor) -> Launch:
    x = x.clone()
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, n), {"BLOCK": BLOCK}, x)


def _smoothed(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (torch.cat([x[:1], x[:-1]]) + x)


IN_PLACE_NEIGHBOUR = Bug(
    name="in-place-neighbour",
    title="Reading what a neighbour has overwritten",
    symptom=(
        "Constant input comes out constant, as it should. On real input the first "
        "element of a block is wrong, of some blocks, on some runs."
    ),
    source=(
        "Elementwise kernels may run in place and stencils may not; a rotary "
        "embedding or a shift written like the one and run like the other has this."
    ),
    tool=tools.RACES,
    wrong=Case(smooth_in_place_kernel, _smooth_in_place_launch),
    mended=Case(smooth_kernel, launch_map),
    expected=_smoothed,
    friendly=lambda: (torch.ones(1000, device=device.torch_device()),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def share_unmasked_kernel(x_ptr, start_ptr, out_ptr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    start = tl.load(start_ptr + pid)
    end = tl.load(start_ptr + pid + 1)
    offs = start + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < end, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x / tl.sum(x, axis=0))


@triton.jit
def share_kernel(x_ptr, start_ptr, out_ptr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    start = tl.load(start_ptr + pid)
    end = tl.load(start_ptr + pid + 1)
    offs = start + tl.arange(0, BLOCK)
    mask = offs < end
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x / tl.sum(x, axis=0), mask=mask)


def _share_launch(x: torch.Tensor, lengths: tuple[int, ...]) -> Launch:
    """One program for each of the sequences that lie end to end in x."""
    out = torch.empty_like(x)
    ends = torch.tensor((0, *lengths)).cumsum(0).to(x.device)
    return Launch((len(lengths),), (x, ends, out), {"BLOCK": BLOCK}, out)


def _shares(x: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.cat([part / part.sum() for part in x.split(lengths)])


PACKED_NEIGHBOUR = Bug(
    name="packed-neighbour",
    title="The store into the next sequence",
    symptom=(
        "Sequences of one length are right, and mixed lengths are right in the "
        "interpreter. On a GPU a sequence sometimes begins with zeros."
    ),
    source=(
        "Unmasked split ends in a published decoding kernel; variable-length "
        "batches without padding are the usual place."
    ),
    tool=tools.RACES,
    wrong=Case(share_unmasked_kernel, _share_launch),
    mended=Case(share_kernel, _share_launch),
    expected=_shares,
    length=BLOCK,
    friendly=lambda: (uniform(3 * BLOCK, 1.0, 2.0), (BLOCK,) * 3),
    # The last sequence is full: nothing strays, so no bounds check can help.
    inputs=lambda: (uniform(200 + 100 + BLOCK, 1.0, 2.0), (200, 100, BLOCK)),
)
