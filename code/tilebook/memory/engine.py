"""Rung 6, the copy engine: tiles through shared memory, past the registers (Gluon).

The tensor memory accelerator copies whole tiles on its own. A program of one warp keeps
a ring of them in shared memory: it asks for a tile, waits at a barrier until its bytes
have come, sends it on, and asks for the next into the place of one that has left.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import check, device
from tilebook._gluon import async_load, async_store
from tilebook.memory import vectors, wide

COLUMNS = 256
"""Words in a row of a tile, the most that the engine takes."""
ROWS = 16
STAGES = 8
PER_SM = 1


@gluon.jit
def copy_kernel(x_desc, out_desc, tiles, STAGES: gl.constexpr):
    rows: gl.constexpr = x_desc.block_type.shape[0]
    nbytes: gl.constexpr = x_desc.block_type.nbytes
    ring = gl.allocate_shared_memory(
        x_desc.dtype, [STAGES, rows, x_desc.block_type.shape[1]], x_desc.layout
    )
    arrived = gl.allocate_shared_memory(
        gl.int64, [STAGES, 1], mbarrier.MBarrierLayout()
    )
    for i in gl.static_range(STAGES):
        mbarrier.init(arrived.index(i), count=1)
    first = gl.program_id(0)
    step = gl.num_programs(0)
    for i in gl.static_range(STAGES - 1):
        tile = first + i * step
        mbarrier.expect(arrived.index(i), nbytes, pred=tile < tiles)
        async_load(
            x_desc, [tile * rows, 0], arrived.index(i), ring.index(i),
            pred=tile < tiles,
        )  # fmt: skip
    for turn in range(gl.cdiv(tiles - first, step)):
        tile = first + turn * step
        stage = turn % STAGES
        # A barrier's phase flips each time that its bytes have come.
        mbarrier.wait(arrived.index(stage), (turn // STAGES) & 1)
        async_store(out_desc, [tile * rows, 0], ring.index(stage))
        # All but this turn's tile have left: the last turn's place is free.
        tma.store_wait(1)
        ahead = tile + (STAGES - 1) * step
        free = (turn + STAGES - 1) % STAGES
        mbarrier.expect(arrived.index(free), nbytes, pred=ahead < tiles)
        async_load(
            x_desc, [ahead * rows, 0], arrived.index(free), ring.index(free),
            pred=ahead < tiles,
        )  # fmt: skip
    tma.store_wait(0)


def describe(x: torch.Tensor, rows: int) -> TensorDescriptor:
    """Make the engine's description of a matrix of words.

    Args:
        x: contiguous (m, COLUMNS) int32 that starts at a multiple of 16 bytes.
        rows: of a tile.

    Returns:
        The descriptor, with tiles of (rows, COLUMNS) that aren't swizzled: nobody but
        the engine reads them.
    """
    layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2)
    return TensorDescriptor.from_tensor(x, [rows, COLUMNS], layout)


def copy(
    x: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    stages: int = STAGES,
    rows: int = ROWS,
    per_sm: int = PER_SM,
) -> torch.Tensor:
    """Copy a vector with Hopper's copy engine.

    Args:
        x: contiguous tensor that starts at a multiple of 16 bytes, any dtype of up to
            8 bytes.
        out: the same, and of the same shape, dtype and device; receives the copy.
        stages: tiles that a program holds in shared memory at a time, 2 to 12: with
            one it would wait for a tile that it never asked for.
        rows: of `COLUMNS` words in a tile, a power of two up to 256.
        per_sm: programs on each multiprocessor.

    Returns:
        `out`, or a new tensor.

    Raises:
        HardwareError: there is no such engine here.
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, a tensor isn't contiguous, starts off a
            multiple of 16 bytes, or a number is out of range.

    Notes:
        What is left after the last whole row of `COLUMNS` words goes the way of
        `wide`. The engine counts rows in 32 bits: 2 TiB.
    """
    device.require("tma")
    if check.positive_int(stages, "stages") not in range(2, 13):
        raise ValueError(f"stages must be from 2 to 12, got {stages}")
    check.power_of_two(rows, "rows", 256)
    check.positive_int(per_sm, "per_sm")
    out = vectors.check(x, out)
    for name, tensor in (("x", x), ("out", out)):
        if tensor.data_ptr() % 16:
            raise ValueError(
                f"{name} must start at a multiple of 16 bytes for the copy engine, "
                f"got {tensor.data_ptr() % 16} bytes past one"
            )
    whole = x.nbytes // (4 * COLUMNS) * (4 * COLUMNS)
    flat = (t.as_strided((t.numel(),), (1,)) for t in (x, out))
    bytes_in, bytes_out = (t.view(torch.uint8) for t in flat)
    if whole:
        source, target = (
            t[:whole].view(torch.int32).view(-1, COLUMNS) for t in (bytes_in, bytes_out)
        )
        tiles = triton.cdiv(source.shape[0], rows)
        programs = min(tiles, per_sm * (device.current().sms or 1))
        copy_kernel[(programs,)](
            describe(source, rows),
            describe(target, rows),
            tiles,
            STAGES=stages,
            num_warps=1,
        )
    if whole < x.nbytes:
        wide.copy(bytes_in[whole:], out=bytes_out[whole:])
    return out
