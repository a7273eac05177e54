"""Stream-K: all programs take as many blocks of terms, whatever tiles they belong to.

133 tiles keep 132 multiprocessors busy for two rounds, the second for one tile. Here
the blocks of terms of all tiles stand in one row, tile after tile, and are cut into
as many equal shares as programs run at the same time. A program finishes the tiles it
has all blocks of. Of a tile that it shares it writes its part into a workspace, two
such at most: the one it began with and the one it ended in. A second kernel adds the
parts of the shared tiles in order and finishes those. No program waits for another.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from tilebook import device, library
from tilebook.matmul.epilogues import arguments, finish, offsets_of, put
from tilebook.matmul.operands import Task, task_of, tiles
from tilebook.matmul.split import (
    BLOCK_BYTES,
    PRETENDED,
    block_for,
    dependent,
    divided,
    dot_precision,
    factors,
    narrow,
    products,
    scaled,
    stages_for,
    sum_dtype,
)
from tilebook.tiling.grouped import grouped


class Config(NamedTuple):
    """How the two kernels are launched."""

    block_m: int
    """Rows of a tile."""
    block_n: int
    """Columns of a tile."""
    block_k: int
    """Terms that are loaded at once."""
    programs: int
    """That share the work: as many as run at the same time."""
    num_warps: int = 8
    num_stages: int = 4
    """Blocks of terms on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


PIECE_ROWS = 16
"""Rows of a shared tile that a program of the second kernel takes."""


def config_for(task: Task) -> Config:
    """Choose how to launch the kernels.

    Args:
        task: the product.

    Returns:
        Tiles of 128 by 128, or as low or narrow as the product, and a program for
        each multiprocessor, but none without a block of terms.
    """
    block_m = block_for(task.m, 128)
    block_n = block_for(task.n, 64 if narrow(task) else 128)
    block_k = BLOCK_BYTES // task.a.itemsize
    count = -(-task.m // block_m) * -(-task.n // block_n)
    steps = max(-(-task.k // block_k), 1)
    programs = min(device.current().sms or PRETENDED, max(count * steps, 1))
    warps = 8 if block_m * block_n >= 128 * (64 if narrow(task) else 128) else 4
    return Config(
        block_m, block_n, block_k, programs, warps, stages_for(4, block_m, block_n)
    )


@triton.jit
def begin(program, total, programs):
    """The first step of a program's share: shares differ by one step at most."""
    share, rest = total // programs, total % programs
    return program * share + tl.minimum(program, rest)


@triton.jit(do_not_specialize=["steps", "programs"])
def shares_kernel(
    a_ptr, b_ptr, out_ptr, parts_ptr, m, n, k,
    stride_am, stride_ak, stride_bk, stride_bn, steps, programs, stride_om, stride_on,
    scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, GROUP: tl.constexpr, EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr, BY: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        gdc_launch_dependents()
    m, n, k = scaled(m, BY[0]), scaled(n, BY[1]), scaled(k, BY[2])
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    program = tl.program_id(0)
    total = tl.cast(tiles_m * tiles_n, tl.int64) * steps
    start = begin(program.to(tl.int64), total, programs)
    end = begin(program.to(tl.int64) + 1, total, programs)
    for tile in range((start // steps).to(tl.int32), tl.cdiv(end, steps).to(tl.int32)):
        before = tl.cast(tile, tl.int64) * steps
        first = tl.maximum(start - before, 0).to(tl.int32)
        last = tl.minimum(end - before, steps).to(tl.int32)
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        acc = products(
            a_ptr, b_ptr, offs_m, offs_n, m, n, k,
            scaled(stride_am, BY[3]), scaled(stride_ak, BY[4]),
            scaled(stride_bk, BY[5]), scaled(stride_bn, BY[6]),
            first, last, BLOCK_K, EVEN_K, PRECISION,
        )  # fmt: skip
        if (first == 0) & (last == steps):
            done = finish(acc, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION)
            out_n, width = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
            put(
                done, out_ptr, offs_m, out_n, m, width, stride_om, stride_on,
                residual_ptr, residual_m, residual_n,
            )  # fmt: skip
        else:
            # Of a program's two places the second is for a tile that it began.
            place = 2 * program.to(tl.int64) + (first == 0).to(tl.int64)
            rows = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N
            at = rows + tl.arange(0, BLOCK_N)[None, :]
            tl.store(parts_ptr + place * (BLOCK_M * BLOCK_N) + at, acc)


@triton.jit(do_not_specialize=["steps", "programs"])
def shared_kernel(
    out_ptr, parts_ptr, m, n, steps, programs, stride_om, stride_on,
    scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        gdc_wait()
    PIECES: tl.constexpr = BLOCK_M // ROWS
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    total = tl.cast(tiles_m * tiles_n, tl.int64) * steps
    # Looked at from the second of the programs that may share a tile.
    second = tl.program_id(0).to(tl.int64) // PIECES + 1
    piece = tl.program_id(0) % PIECES
    tile = begin(second, total, programs) // steps
    before, after = tile * steps, (tile + 1) * steps
    cut = begin(second, total, programs) > before
    if cut & (begin(second - 1, total, programs) <= before):
        offs = (piece * ROWS + tl.arange(0, ROWS))[:, None] * BLOCK_N
        at = parts_ptr + offs + tl.arange(0, BLOCK_N)[None, :]
        SIZE: tl.constexpr = BLOCK_M * BLOCK_N
        acc = tl.load(at + (2 * second - 1) * SIZE)  # (ROWS, BLOCK_N)
        program = second
        while begin(program, total, programs) < after:
            acc += tl.load(at + 2 * program * SIZE)
            program += 1
        pid_m, pid_n = grouped(tile.to(tl.int32), tiles_m, tiles_n, GROUP)
        offs_m = pid_m.to(tl.int64) * BLOCK_M + piece * ROWS + tl.arange(0, ROWS)
        offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        acc = finish(acc, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION)
        out_n, width = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
        put(
            acc, out_ptr, offs_m, out_n, m, width, stride_om, stride_on,
            residual_ptr, residual_m, residual_n,
        )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Multiply, and write the result that a task names.

    Args:
        task: the product; its operands have been checked.
        config: how to launch; `config_for` chooses by default.

    Raises:
        ValueError: there are more tiles than a grid has programs.

    Notes:
        Takes memory for two tiles of each program.
    """
    if not task.out.numel():
        return
    config = config or config_for(task)
    count = tiles(task, config.block_m, config.block_n)
    # A tile of no terms takes a step all the same: it is finished, too.
    steps = max(-(-task.k // config.block_k), 1)
    programs = min(config.programs, count * steps)
    group = min(config.group, -(-task.m // config.block_m))
    given, constants = arguments(task)
    shared = constants | {
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "GROUP": group,
    }
    even = task.k > 0 and task.k % config.block_k == 0
    found = torch.empty(
        (programs, 2, config.block_m, config.block_n),
        dtype=sum_dtype(task),
        device=task.a.device,
    )
    whole = count * steps % programs == 0 and count * steps // programs % steps == 0
    early = not whole and dependent(task)
    with library.on(task.a):
        task.wrap(shares_kernel)[(programs,)](
            task.a, task.b, task.out, found, *divided(task), steps, programs,
            *task.out.stride(), *given, **shared, BY=factors(task),
            BLOCK_K=config.block_k, EVEN_K=even,
            PRECISION=dot_precision(task), DEPENDENT=early,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
        if whole:
            # Every share ends where a tile does.
            return
        pieces = config.block_m // PIECE_ROWS
        task.wrap(shared_kernel)[((programs - 1) * pieces,)](
            task.out, found, task.m, task.n, steps, programs, *task.out.stride(),
            *given, **shared, ROWS=PIECE_ROWS, num_warps=4,
            DEPENDENT=early, **({"launch_pdl": True} if early else {}),
        )  # fmt: skip


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices, the blocks of terms shared out evenly.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.

    Returns:
        Their product (m, n), contiguous, of the same dtype, or int32 for int8.

    Raises:
        TypeError: as `operands.check_pair`.
        ValueError: as `operands.task_of`.
    """
    task, wanted = task_of(a, b, precision=precision)
    if wanted:
        launch(task)
    return task.out
