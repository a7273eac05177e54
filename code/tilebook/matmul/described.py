"""Rung 6, tensor descriptors: a copy engine brings tiles, and programs only multiply.

A descriptor says where a matrix lies; a load names a tile of it. No thread computes an
address or a mask, and a tile of `a` or `b` goes from global memory to where tensor
cores read it without a register in between. A matrix whose columns lie together is
described as its transpose, and its tile turned where it lies: only the reading differs.
Tensor cores take two bytes an element either way, other sizes only with terms together:
otherwise such tiles go through registers once.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device, library
from tilebook.matmul import epilogues, fitting, versions
from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, divisor, task_of, tiles
from tilebook.matmul.ordered import scaled
from tilebook.softmax.occupancy import fits, programs
from tilebook.softmax.operands import starts_aligned
from tilebook.tiling.described import LARGEST
from tilebook.tiling.grouped import grouped


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile of the product, a power of two from 64 on, at most 256."""
    block_n: int
    """Columns of it, a power of two from 16 on."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 32 on."""
    num_warps: int
    """Warps that share a tile."""
    num_stages: int
    """Steps of the loop whose loads are on their way or in use."""
    pieces: int = 2
    """Pieces, 1 or 2, in which a tile is stored: each waits in shared memory."""
    flatten: bool = True
    """Whether the first loads of a tile may begin before the last tile is stored."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 64, 8, 3), Config(128, 256, 64, 8, 4)),
    *(Config(128, 256, 64, 8, 4, flatten=False), Config(256, 128, 64, 8, 4)),
    *(Config(128, 128, 64, 8, 4), Config(128, 128, 64, 4, 4)),
    *(Config(64, 128, 64, 4, 4), Config(128, 64, 64, 4, 4), Config(64, 64, 64, 4, 5)),
    *(Config(128, 256, 64, 8, 4, group=4), Config(128, 128, 64, 4, 3, group=4)),
    *(Config(128, 128, 64, 8, 6), Config(128, 128, 64, 8, 6, flatten=False)),
    *(Config(64, 128, 64, 4, 8), Config(64, 128, 64, 4, 8, flatten=False)),
    *(Config(128, 64, 64, 4, 8), Config(128, 64, 64, 4, 8, flatten=False)),
    *(Config(64, 64, 128, 4, 6), Config(64, 64, 128, 4, 6, flatten=False)),
    *(Config(64, 64, 64, 4, 12), Config(64, 32, 64, 4, 16, 1)),
    *(Config(64, 32, 128, 4, 8, 1), Config(64, 32, 128, 4, 8, 1, flatten=False)),
    *(Config(64, 128, 128, 4, 4), Config(128, 128, 128, 8, 3)),
)
"""What to try on a card, for operands of two bytes; of two equals `config_for` takes
the first."""


@triton.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, out_ptr, m, n, k, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    A_TURNED: tl.constexpr, B_TURNED: tl.constexpr,
    N_DIV: tl.constexpr, OUT_DIV: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PIECES: tl.constexpr, FLATTEN: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    n *= N_DIV
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    steps = tl.cdiv(k, BLOCK_K)
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN
    ):
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        start_m, start_n = pid_m * BLOCK_M, pid_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
        for step in range(steps):
            start_k = step * BLOCK_K
            a = part(a_desc, start_m, start_k, A_TURNED)  # (BLOCK_M, BLOCK_K)
            b = part(b_desc, start_k, start_n, B_TURNED)  # (BLOCK_K, BLOCK_N)
            acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=ACC)
        store(
            acc, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n,
            scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
            OUT_DIV, ACTIVATION, PIECES,
        )  # fmt: skip


@triton.jit
def part(desc, row, column, TURNED: tl.constexpr):
    """Load a tile of a matrix, described as it is or as its transpose."""
    return desc.load([column, row]).T if TURNED else desc.load([row, column])


@triton.jit
def store(
    acc, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    OUT_DIV: tl.constexpr, ACTIVATION: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Finish a tile and store it, described or not."""
    BLOCK_M: tl.constexpr = acc.shape[0]
    offs_n = start_n.to(tl.int64) + tl.arange(0, acc.shape[1])
    acc = epilogues.finish(acc, offs_n, n, scale, bias_ptr, bias_n, ACTIVATION)
    COLUMNS: tl.constexpr = acc.shape[1]
    if ACTIVATION == "silu_and_mul":
        start_n, n = start_n // 2, n // 2
    if out_desc is None:
        offs_m = start_m.to(tl.int64) + tl.arange(0, BLOCK_M)
        epilogues.put(
            acc, out_ptr, offs_m, start_n.to(tl.int64) + tl.arange(0, COLUMNS), m, n,
            scaled(out_m, OUT_DIV), out_n, residual_ptr, residual_m, residual_n,
        )  # fmt: skip
    else:
        out = acc.to(out_desc.dtype)
        if PIECES == 2:
            halves = tl.reshape(out, (BLOCK_M, 2, COLUMNS // 2))
            left, right = tl.split(tl.permute(halves, (0, 2, 1)))
            out_desc.store([start_m, start_n], left)
            out_desc.store([start_m, start_n + COLUMNS // 2], right)
        else:
            out_desc.store([start_m, start_n], out)


def unfit(x: torch.Tensor) -> str | None:
    """Say why a matrix can't be described as it is.

    Args:
        x: matrix, any strides.

    Returns:
        The first rule that is broken; None if none is.
    """
    row = x.stride(0) * x.itemsize
    if not x.numel():
        return f"it must have elements, got shape {tuple(x.shape)}"
    if x.stride(1) != 1:
        return f"its last stride must be 1, got {x.stride(1)}"
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    if row % 16 or row <= 0:
        return f"its rows must lie a multiple of 16 bytes apart, got {row}"
    if x.shape[0] > 1 and x.stride(0) < x.shape[1]:
        return "its rows must not overlap"
    if max(x.shape) > LARGEST:
        return f"a side must be at most {LARGEST}, got {max(x.shape)}"
    return None


def turned(x: torch.Tensor) -> bool:
    """Whether a matrix is to be described as its transpose.

    Args:
        x: matrix, any strides.
    """
    return unfit(x) is not None and unfit(x.t()) is None


def refusal(task: Task) -> str | None:
    """Say why the operands of a product can't be described.

    Args:
        task: the product.

    Returns:
        The first rule that an operand breaks, or that this Triton may be wrong on the
        product (see `in_doubt`); None if both keep all.
    """
    if in_doubt(task):
        return "this Triton may turn a in registers, and multiply something else"
    for name, x in (("a", task.a), ("b", task.b)):
        if unfit(x) and unfit(x.t()):
            reason = unfit(x.t() if x.stride(0) == 1 else x)
            return f"{name} can't be described: {reason}"
    if max(task.m, task.n) > LARGEST:
        return f"a side of the product must be at most {LARGEST}"
    return None


def in_doubt(task: Task) -> bool:
    """Whether tensor cores would get `a` turned in registers by a Triton that may be
    wrong there: on Hopper, with three products for one and columns of `a` together.

    Args:
        task: the product.
    """
    three = task.a.dtype == torch.float32 and task.precision == "tf32x3"
    by_columns = task.a.stride(0) == 1 != task.a.stride(1)
    return three and by_columns and device.has("wgmma") and versions.suspect()


def room(task: Task, config: Config) -> Config | None:
    """Fit one of `CONFIGS` to a product; see `fitting.room`."""
    pointers = fitting.Config(*config[:5])
    # Without tensor cores a tile of float32 comes out of shared memory into registers
    # in swizzled order, which takes more of them: as with narrower loads.
    wide = 8 if task.precision == "ieee" else 16
    if (fitted := fitting.room(task, pointers, wide)) is None:
        return None
    config = config._replace(block_k=fitted.block_k)
    has = device.current().shared_memory_per_block or fitting.SHARED
    stage, last = shared_bytes(task, config)
    # Barriers, and what lies between, take some of it.
    stages = min(config.num_stages, (has - last - 1024) // stage)
    return config._replace(num_stages=stages) if stages > 1 else None


def shared_bytes(task: Task, config: Config) -> tuple[int, int]:
    """Count the shared memory of a program.

    Args:
        task: the product.
        config: how it is launched.

    Returns:
        Bytes of a stage, and of what else there is: what waits to be stored, and tiles
        that tensor cores can't read as they came.
    """
    itemsize = task.a.itemsize
    stage = (config.block_m + config.block_n) * config.block_k * itemsize
    last = config.block_m * config.block_n * task.out.itemsize // config.pieces
    if itemsize != 2 and not fitting.along_terms(task):
        # Tensor cores want terms together: tiles turned for them take a second place.
        last += stage
    return stage, last


def per_sm(task: Task, config: Config) -> int:
    """Programs to launch for a multiprocessor: as many as live there at a time, for one
    that comes later has none of its own, at most two.

    Args:
        task: the product.
        config: how it is launched.
    """
    if config.num_warps >= 8:
        return 1
    stage, last = shared_bytes(task, config)
    return min(2, fits(config.num_warps, 255, config.num_stages * stage + last + 1024))


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `ordered.config_for`."""
    return fitting.cheapest(task, [room(task, config) for config in CONFIGS])


def launch(task: Task, config: Config | None = None) -> None:
    """Describe the matrices and launch the kernel.

    Args:
        task: the product, one that `refusal` doesn't refuse.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: an operand can't be described, or the product has more tiles than 32
            bits count.
    """
    config = config or config_for(task)
    block_m, block_n, block_k = config[:3]
    (a, a_turned), (b, b_turned) = placed(task.a, "a"), placed(task.b, "b")
    described = [
        TensorDescriptor.from_tensor(x, [*(reversed(block) if turn else block)])
        for x, block, turn in (
            (a, (block_m, block_k), a_turned),
            (b, (block_k, block_n), b_turned),
        )
    ]
    (out_desc,) = places(task, block_m, block_n // config.pieces)
    out_m, out_n = task.out.stride()
    out_div, n_div = divisor(task.out)[0], math.gcd(task.n, 16)
    rest, activation = epilogues.arguments(task)
    count = tiles(task, block_m, block_n)
    task.wrap(matmul_kernel)[(programs(count, per_sm(task, config)),)](
        *described, out_desc, task.out, task.m, task.n // n_div, task.k,
        out_m // out_div, out_n, *rest,
        A_TURNED=a_turned, B_TURNED=b_turned, N_DIV=n_div, OUT_DIV=out_div,
        ACC=accumulator(a.dtype), PRECISION=task.precision, **activation,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        PIECES=config.pieces, FLATTEN=config.flatten, GROUP=config.group,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip


def places(task: Task, rows: int, *widths: int) -> list[TensorDescriptor | None]:
    """Describe where tiles of the result go.

    Args:
        task: the product.
        rows: of a tile.
        *widths: columns of the product that are stored at a time.

    Returns:
        A descriptor for each width; None for all if there is a residual to read there,
        or the result can't be described.
    """
    if task.residual is not None or unfit(task.out):
        return [None for _ in widths]
    half = 2 if task.activation == "silu_and_mul" else 1
    return [
        TensorDescriptor.from_tensor(task.out, [rows, width // half])
        for width in widths
    ]


def placed(x: torch.Tensor, name: str) -> tuple[torch.Tensor, bool]:
    """What is described of an operand: itself or its transpose, and which."""
    if unfit(x) is None:
        return x, False
    if unfit(x.t()) is None:
        return x.t(), True
    raise ValueError(f"{name} can't be described: {unfit(x)}")


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices that tensor descriptors can describe.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, rows or columns of neighbours
            that lie multiples of 16 bytes apart, as does its start.
        b: matrix (k, n), likewise, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.

    Returns:
        The product (m, n), contiguous, of the same dtype; int32 for int8.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, another precision, a matrix
            that can't be described, or a tensor where this process's kernels can't
            reach it.

    Notes:
        On GPUs without a tensor memory accelerator Triton turns the descriptors back
        into pointers and masks.
    """
    task, any_work = task_of(a, b, precision=precision)
    if any_work:
        if reason := refusal(task):
            raise ValueError(f"{reason}; tilebook.matmul.ordered takes it")
        with library.on(a):
            launch(task)
    return task.out
