"""The smallest kernels that show what Hopper has: one product, and one hand-over."""

from typing import Any

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook import schedules
from tilebook._gluon import async_load, async_store
from tilebook.hopper.launching import describe
from tilebook.hopper.wgmma import barriers, ring_of

SIDES = (64, 32, 32)
"""Rows, columns and terms of the product that the page runs."""
BLOCK = (16, 64)
"""Of what is handed over."""


@gluon.jit
def product_kernel(a_desc, b_desc, out_desc):
    COLUMNS: gl.constexpr = b_desc.block_type.shape[1]
    # Places in shared memory, laid out as the descriptors say.
    a = gl.allocate_shared_memory(
        a_desc.dtype, a_desc.block_type.shape, a_desc.layout
    )  # fmt: skip
    b = gl.allocate_shared_memory(
        b_desc.dtype, b_desc.block_type.shape, b_desc.layout
    )  # fmt: skip
    out = gl.allocate_shared_memory(
        out_desc.dtype, out_desc.block_type.shape, out_desc.layout
    )
    found = gl.allocate_shared_memory(
        gl.int64, [1, 1], mbarrier.MBarrierLayout()
    )  # fmt: skip
    arrived = found.index(0)
    mbarrier.init(arrived, count=1)
    # One arrival, and as many bytes as both tiles have.
    mbarrier.expect(
        arrived, a_desc.block_type.nbytes + b_desc.block_type.nbytes
    )  # fmt: skip
    async_load(a_desc, [0, 0], arrived, a)
    async_load(b_desc, [0, 0], arrived, b)
    mbarrier.wait(arrived, 0)
    # Four warps, 16 rows each; a row's sums are spread over four lanes.
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1],
        instr_shape=[16, COLUMNS, 256 // a_desc.dtype.primitive_bitwidth],
    )  # fmt: skip
    shape: gl.constexpr = [a_desc.block_type.shape[0], COLUMNS]
    acc = warpgroup_mma_init(gl.zeros(shape, gl.float32, layout))
    acc = warpgroup_mma(a, b, acc, use_acc=False, is_async=True)
    sums = warpgroup_mma_wait(0, deps=(acc,))
    out.store(sums.to(out_desc.dtype))
    # The threads wrote; the engine is to read it.
    fence_async_shared()
    async_store(out_desc, [0, 0], out)
    tma.store_wait(0)


@gluon.jit
def ask(x_desc, ring, arrived, free, tiles):
    SLOTS: gl.constexpr = ring.shape[0]
    for tile in range(tiles):
        slot = tile % SLOTS
        # At first all slots are free: the phase before the first is over.
        mbarrier.wait(free.index(slot), ((tile // SLOTS) & 1) ^ 1)
        mbarrier.expect(arrived.index(slot), x_desc.block_type.nbytes)
        row = tile * x_desc.block_type.shape[0]
        async_load(x_desc, [row, 0], arrived.index(slot), ring.index(slot))


@gluon.jit
def send(out_desc, ring, arrived, free, tiles):
    SLOTS: gl.constexpr = ring.shape[0]
    for tile in range(tiles):
        slot = tile % SLOTS
        mbarrier.wait(arrived.index(slot), (tile // SLOTS) & 1)
        row = tile * out_desc.block_type.shape[0]
        async_store(out_desc, [row, 0], ring.index(slot))
        tma.store_wait(0)
        mbarrier.arrive(free.index(slot))


@gluon.jit
def handed_kernel(
    x_desc, out_desc, tiles, SLOTS: gl.constexpr, REGISTERS: gl.constexpr
):  # fmt: skip
    ring = ring_of(x_desc, SLOTS)
    arrived, free = barriers(SLOTS, 1), barriers(SLOTS, 1)
    gl.warp_specialize(
        [
            (send, (out_desc, ring, arrived, free, tiles)),
            (ask, (x_desc, ring, arrived, free, tiles)),
        ],
        [1],
        [REGISTERS],
    )


def product_arguments(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor
) -> tuple[Any, ...]:
    """Describe three matrices, each a single tile.

    Args:
        a: (64, k) in bfloat16 or float16.
        b: (k, n), likewise.
        out: (64, n), likewise.

    Returns:
        The arguments of `product_kernel`.
    """
    return tuple(describe(x, *x.shape, False) for x in (a, b, out))


def multiply(a: torch.Tensor, b: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Multiply two tiles under `schedules`, on the CPU.

    Args:
        a: (64, k) in bfloat16 or float16.
        b: (k, n), likewise.
        seed: which of the possible orders.

    Returns:
        The product (64, n).
    """
    out = a.new_full((a.shape[0], b.shape[1]), float("nan"))
    schedules.run(product_kernel, (1,), *product_arguments(a, b, out), seed=seed)
    return out


def handed_arguments(x: torch.Tensor, out: torch.Tensor) -> tuple[Any, ...]:
    """Describe two matrices as rows of blocks.

    Args:
        x: (m, columns) of BLOCK, in bfloat16 or float16.
        out: likewise.

    Returns:
        The arguments of `handed_kernel`.
    """
    described = (describe(each, *BLOCK, False) for each in (x, out))
    return (*described, -(-x.shape[0] // BLOCK[0]))


def hand_over(x: torch.Tensor, slots: int = 2, seed: int = 0) -> torch.Tensor:
    """Copy a matrix from partition to partition under `schedules`, on the CPU.

    Args:
        x: (m, columns) of BLOCK, in bfloat16 or float16.
        slots: of the ring.
        seed: which of the possible orders.

    Returns:
        The copy.
    """
    out = torch.full_like(x, float("nan"))
    meta = {"SLOTS": slots, "REGISTERS": 24}
    schedules.run(handed_kernel, (1,), *handed_arguments(x, out), seed=seed, **meta)
    return out
