"""Planted bugs that earlier galleries lack: a wait, a fence, an alignment, an index.

The first two are Gluon's, where barriers are the programmer's own; the model of
`schedules` runs them without a GPU.
"""

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
)
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import schedules
from tilebook._gluon import async_load, async_store
from tilebook.hopper.launching import describe

SIDE = 64
SEEDS = range(16)
"""Orders that are tried."""


@gluon.jit
def copied_kernel(x_desc, out_desc, WAIT: gl.constexpr):
    rows: gl.constexpr = x_desc.block_type.shape[0]
    places = gl.allocate_shared_memory(
        x_desc.dtype, [1, rows, x_desc.block_type.shape[1]], x_desc.layout
    )
    barriers = gl.allocate_shared_memory(
        gl.int64,
        [1, 1],
        mbarrier.MBarrierLayout(),
    )
    place, arrived = places.index(0), barriers.index(0)
    mbarrier.init(arrived, count=1)
    row = gl.program_id(0) * rows
    mbarrier.expect(arrived, x_desc.block_type.nbytes)
    async_load(x_desc, [row, 0], arrived, place)
    if WAIT:
        mbarrier.wait(arrived, 0)
    async_store(out_desc, [row, 0], place)
    tma.store_wait(0)


@gluon.jit
def doubled_kernel(x_desc, out_desc, FENCE: gl.constexpr):
    rows: gl.constexpr = x_desc.block_type.shape[0]
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    places = gl.allocate_shared_memory(
        x_desc.dtype, [1, rows, x_desc.block_type.shape[1]], x_desc.layout
    )
    barriers = gl.allocate_shared_memory(
        gl.int64,
        [1, 1],
        mbarrier.MBarrierLayout(),
    )
    place, arrived = places.index(0), barriers.index(0)
    mbarrier.init(arrived, count=1)
    row = gl.program_id(0) * rows
    mbarrier.expect(arrived, x_desc.block_type.nbytes)
    async_load(x_desc, [row, 0], arrived, place)
    mbarrier.wait(arrived, 0)
    x = place.load(layout)
    place.store(x + x)
    if FENCE:
        # What threads have written the engine sees only behind this.
        fence_async_shared()
    async_store(out_desc, [row, 0], place)
    tma.store_wait(0)


def _scheduled(kernel: object, right: bool) -> str:
    """Try orders of a kernel, and say of how many the result is wrong."""
    name = "WAIT" if kernel is copied_kernel else "FENCE"
    wrong = []
    for seed in SEEDS:
        x = torch.arange(2 * SIDE * SIDE).remainder(251).bfloat16().view(-1, SIDE)
        out = torch.full_like(x, float("nan"))
        described = [describe(t, SIDE, SIDE, False) for t in (x, out)]
        try:
            schedules.run(kernel, (2,), *described, **{name: right}, seed=seed)
        except schedules.ScheduleError as error:
            return f"with seed {seed}, {type(error).__name__}: {error}"
        want = x if kernel is copied_kernel else x + x
        if not torch.equal(out, want):
            wrong.append(seed)
    return f"{len(wrong)} of {len(SEEDS)} orders are wrong" if wrong else ""


def unwaited(right: bool = False) -> str:
    """What the model says of a copy that sends a tile before it has come.

    Args:
        right: with the wait.

    Returns:
        Its finding; empty if there is none.
    """
    return _scheduled(copied_kernel, right)


def unfenced(right: bool = False) -> str:
    """What the model says of a tile that threads write and the engine sends.

    Args:
        right: with the fence.

    Returns:
        Its finding; empty if there is none.
    """
    return _scheduled(doubled_kernel, right)


def misaligned(columns: int = 33) -> str:
    """Describe a matrix whose rows are no multiple of 16 bytes apart.

    Args:
        columns: of float32.

    Returns:
        What the descriptor says; empty if it accepts them.
    """
    x = torch.zeros(SIDE, columns)
    try:
        TensorDescriptor.from_tensor(x, [32, 32])
    except (AssertionError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@triton.jit
def looked_up_kernel(index_ptr, table_ptr, out_ptr, n, size, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offs < n
    index = tl.load(index_ptr + offs, mask=inside, other=0)
    tl.device_assert((index >= 0) & (index < size), "no such row", mask=inside)
    row = tl.load(table_ptr + index, mask=inside, other=0.0)
    tl.store(out_ptr + offs, row, mask=inside)
