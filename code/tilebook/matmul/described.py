"""Rung 6, tensor descriptors: a copy engine brings tiles, and programs only multiply.

A descriptor says where a matrix lies; a load names a tile of it. No thread computes an
address or a mask, and a tile of `a` or `b` goes from global memory to where tensor
cores read it without a register in between. A matrix whose columns lie together is
described as its transpose, and its tile turned where it lies: only the reading differs.
Tensor cores take two bytes an element either way, other sizes only with terms together:
otherwise such tiles go through registers once.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device, library
from tilebook.matmul import epilogues, estimates, fitting, versions
from tilebook.matmul.descriptors import ends, operand, part, store, unfit
from tilebook.matmul.naive import accumulator
from tilebook.matmul.operands import Task, divisor, task_of, tiles
from tilebook.softmax.occupancy import fits, programs
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
    """Pieces, 1, 2 or 4, in which a tile is finished and stored."""
    flatten: bool = True
    """Whether the first loads of a tile may begin before the last tile is stored."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 64, 8, 4), Config(128, 256, 64, 8, 3)),
    *(Config(256, 128, 64, 8, 4), Config(128, 128, 64, 4, 3, group=4)),
    *(Config(128, 128, 64, 8, 6), Config(128, 128, 64, 8, 6, flatten=False)),
    *(Config(128, 128, 64, 4, 4), Config(128, 64, 64, 4, 4)),
    *(Config(64, 128, 128, 4, 4), Config(64, 128, 64, 4, 8, flatten=False)),
    *(Config(64, 64, 128, 4, 6), Config(64, 64, 128, 4, 6, flatten=False)),
    *(Config(64, 32, 128, 4, 8, 1), Config(64, 32, 128, 4, 8, 1, flatten=False)),
    Config(64, 64, 64, 4, 5),
)
"""What to try on a card, for operands of two bytes; of two equals `config_for` takes
the first."""
PIECES = 4
"""Of a tile with a long ending."""
LEAST = 32
"""Columns of such a piece."""


@triton.jit
def matmul_kernel(
    a_desc, b_desc, out_desc, residual_desc, out_ptr, m, n, k, out_m, out_n,
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
            acc, start_m, start_n, m, n, out_desc, out_ptr, out_m, out_n, scale,
            bias_ptr, bias_n, residual_desc, residual_ptr, residual_m, residual_n,
            OUT_DIV, ACTIVATION, PIECES,
        )  # fmt: skip


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
    # Whatever it ends in takes room for a piece at a time.
    plain = task._replace(residual=None, activation="")
    if (fitted := fitting.room(plain, pointers, wide)) is None:
        return None
    config = in_pieces(task, config)._replace(block_k=fitted.block_k)
    has = device.current().shared_memory_per_block or fitting.SHARED
    stage, last = shared_bytes(task, config)
    # Barriers, and what lies between, take some of it.
    stages = min(config.num_stages, (has - last - 1024) // stage)
    return config._replace(num_stages=stages) if stages > 1 else None


def in_pieces(task: Task, config: Any) -> Any:
    """Cut a tile into more pieces where what it ends in wants room.

    Args:
        task: the product.
        config: has `block_n` and `pieces`.

    Returns:
        It, with `PIECES` or as many as have `LEAST` columns; as it was without a long
        ending.
    """
    if task.residual is None and task.activation in ("", "relu"):
        return config
    return config._replace(pieces=min(PIECES, config.block_n // LEAST))


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
    if task.residual is not None:
        # A piece of it comes to where the result's waits.
        last *= 2
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
    fitted = [each for config in CONFIGS if (each := room(task, config))]
    return min(
        fitted,
        key=lambda c: estimates.seconds(task, fitting.tile(c, per_sm(task, c))),
    )


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
    a_desc, a_turned = operand(task.a, "a", (block_m, block_k))
    b_desc, b_turned = operand(task.b, "b", (block_k, block_n))
    (out_desc,), (residual_desc,) = ends(task, block_m, block_n // config.pieces)
    out_m, out_n = task.out.stride()
    out_div, n_div = divisor(task.out)[0], math.gcd(task.n, 16)
    rest, activation = epilogues.arguments(task)
    count = tiles(task, block_m, block_n)
    task.wrap(matmul_kernel)[(programs(count, per_sm(task, config)),)](
        a_desc, b_desc, out_desc, residual_desc, task.out,
        task.m, task.n // n_div, task.k,
        out_m // out_div, out_n, *rest,
        A_TURNED=a_turned, B_TURNED=b_turned, N_DIV=n_div, OUT_DIV=out_div,
        ACC=accumulator(task.a.dtype), PRECISION=task.precision, **activation,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        PIECES=config.pieces, FLATTEN=config.flatten, GROUP=config.group,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip


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
