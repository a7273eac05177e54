"""How the chapter's Gluon kernels are launched: what fits, what is refused, and the
descriptors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import device, library
from tilebook.matmul import estimates
from tilebook.matmul.descriptors import turned, unfit, unfit_place
from tilebook.matmul.operands import Task, task_of, tiles
from tilebook.softmax.occupancy import programs

DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
"""Element types that tensor cores read in either order of memory."""
SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""
BARRIERS = 1024
"""Bytes that barriers and alignment take, at most."""


class Config(NamedTuple):
    """How a kernel is launched."""

    block_m: int
    """Rows of a tile of the product, a power of two."""
    block_n: int
    """Columns of it, a power of two from 16 to 256."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 16 on."""
    num_stages: int
    """Chunks that are on their way or in use."""
    pieces: int = 1
    """Pieces, 1 or 2, in which a tile is stored."""
    group: int = 8
    """Rows of tiles in a strip."""


class Kernel(NamedTuple):
    """A kernel, and what its launch depends on."""

    kernel: Any
    parts: int
    """Groups of warps that share a tile's rows."""
    meta: Mapping[str, Any]
    """More constants and options."""
    args: tuple[Any, ...] = (None,)
    """More arguments: a log of times, or None."""


def refusal(task: Task) -> str | None:
    """Say why these kernels can't take a product.

    Args:
        task: the product.

    Returns:
        The first rule that is broken; None if none is.
    """
    if task.a.dtype not in DTYPES:
        return f"operands must be of bfloat16 or float16, got {task.a.dtype}"
    if task.out.dtype not in DTYPES:
        return f"the result must be of bfloat16 or float16, got {task.out.dtype}"
    if not task.plain:
        return "nothing may be done to the product before it is stored"
    for name, x in (("a", task.a), ("b", task.b)):
        if unfit(x) and unfit(x.t()):
            reason = unfit(x.t() if x.stride(0) == 1 else x)
            return f"{name} can't be described: {reason}"
    if reason := unfit_place(task.out):
        return f"the result can't be described: {reason}"
    return None


def shared_bytes(config: Config, parts: int, itemsize: int = 2) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
        parts: groups of warps that share a tile's rows; with one, there are two groups
            with a tile each.
        itemsize: bytes of an element.
    """
    chunk = (config.block_m + config.block_n) * config.block_k
    rows = config.block_m if parts > 1 else 2 * config.block_m
    place = rows * config.block_n // config.pieces
    return (config.num_stages * chunk + place) * itemsize + BARRIERS


def room(config: Config, parts: int) -> Config | None:
    """Fit a configuration to this process's GPU.

    Args:
        config: how the kernel is launched.
        parts: as for `shared_bytes`.

    Returns:
        It, with as many stages as shared memory holds; None if that is fewer than two.
    """
    has = device.current().shared_memory_per_block or SHARED
    while config.num_stages > 1 and shared_bytes(config, parts) > has:
        config = config._replace(num_stages=config.num_stages - 1)
    return config if config.num_stages > 1 else None


def config_for(task: Task, configs: Iterable[Config], parts: int) -> Config:
    """Choose how to launch a kernel: the first of those that should cost least.

    Args:
        task: the product.
        configs: to choose from.
        parts: as for `shared_bytes`.
    """
    fitted = [each for config in configs if (each := room(config, parts))]
    return min(fitted, key=lambda c: seconds(task, c))


def seconds(task: Task, config: Config) -> float:
    """Estimate how long a product takes; see `matmul.estimates.seconds`."""
    sides = (config.block_m, config.block_n, config.block_k)
    # Eight warps multiply, whoever else there is.
    return estimates.seconds(task, estimates.Tile(*sides, 8, config.num_stages, 1))


def describe(x: torch.Tensor, rows: int, columns: int, turn: bool) -> TensorDescriptor:
    """Make the copy engine's description of a matrix, swizzled as tensor cores read it.

    Args:
        x: the matrix.
        rows: of a tile.
        columns: of it.
        turn: whether to describe the transpose.
    """
    block = [columns, rows] if turn else [rows, columns]
    layout = gl.NVMMASharedLayout.get_default_for(block, DTYPES[x.dtype])
    return TensorDescriptor.from_tensor(x.t() if turn else x, block, layout)


def launch(which: Kernel, task: Task, config: Config) -> None:
    """Describe the matrices and launch a kernel.

    Args:
        which: the kernel.
        task: the product, one that `refusal` doesn't refuse.
        config: how.

    Raises:
        ValueError: the product is refused, or has more tiles than 32 bits count.
    """
    if reason := refusal(task):
        raise ValueError(reason)
    block_m, block_n, block_k = config[:3]
    rows = block_m // which.parts
    a_turned, b_turned = turned(task.a), turned(task.b)
    count = tiles(task, block_m, block_n)
    task.wrap(which.kernel)[(programs(count, 1),)](
        describe(task.a, rows, block_k, a_turned),
        describe(task.b, block_k, block_n, b_turned),
        describe(task.out, rows, block_n // config.pieces, False),
        *which.args, task.m, task.n, task.k,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        STAGES=config.num_stages, A_TURNED=a_turned, B_TURNED=b_turned,
        GROUP=config.group, **which.meta,
    )  # fmt: skip


def multiplied(
    launch: Callable[[Task], None], a: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """What every rung does: check, make room, launch if there is anything to do.

    Args:
        launch: the rung's.
        a: matrix (m, k).
        b: matrix (k, n), of the same dtype.

    Returns:
        The product (m, n), contiguous.

    Raises:
        HardwareError: this GPU has no such tensor cores.
        TypeError: not tensors, a dtype outside `operands.DTYPES`, or two of them.
        ValueError: not matrices, sides that don't meet, elements of another type than
            these kernels take, a matrix that can't be described, or a tensor where this
            process's kernels can't reach it.
    """
    task, any_work = task_of(a, b)
    if any_work:
        if reason := refusal(task):
            raise ValueError(f"{reason}; tilebook.matmul.ordered takes it")
        device.require("wgmma")
        with library.on(a):
            launch(task)
    return task.out
