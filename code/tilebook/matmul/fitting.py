"""Which tiles fit a product, and which of those are done first.

What is refused here spilled registers when compiled for an H100, or asks for more
shared memory than there is; which tiles are done first is an estimate.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from tilebook import device
from tilebook.matmul import estimates
from tilebook.matmul.operands import Task, divisor
from tilebook.softmax.operands import starts_aligned


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Rows of a tile of the product, a power of two from 16 on."""
    block_n: int
    """Columns of it, likewise."""
    block_k: int
    """Terms that are loaded at a time, a power of two from 32 on."""
    num_warps: int
    """Warps that share a tile."""
    num_stages: int
    """Steps of the loop whose loads are on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 256, 64, 8, 3), Config(256, 128, 64, 8, 3)),
    *(Config(128, 256, 64, 8, 4), Config(128, 128, 64, 8, 4)),
    *(Config(128, 128, 64, 4, 4), Config(128, 64, 64, 4, 5)),
    *(Config(64, 128, 64, 4, 5), Config(64, 64, 64, 4, 6)),
    *(Config(32, 128, 64, 4, 5), Config(128, 32, 64, 4, 5)),
    *(Config(32, 64, 64, 4, 6), Config(64, 32, 64, 4, 6)),
    *(Config(16, 128, 64, 4, 6), Config(128, 16, 64, 4, 6)),
    *(Config(16, 64, 64, 4, 6), Config(64, 16, 64, 4, 6)),
    *(Config(128, 128, 64, 8, 6), Config(64, 128, 128, 4, 4)),
    *(Config(128, 64, 128, 4, 4), Config(64, 64, 128, 4, 6)),
    *(Config(64, 32, 128, 4, 8), Config(32, 64, 128, 4, 8)),
)
"""What to try on a card, for operands of two bytes; of two equals `config_for` takes
the first."""
SHARED = 227 * 1024
"""Bytes of shared memory of a program where kernels are only compiled."""


def width(task: Task) -> int:
    """Bytes of the operands that a copy into shared memory moves, 1 to 16.

    Args:
        task: the product.
    """
    widths = []
    for x in (task.a, task.b):
        most = 16 // x.itemsize
        across, along = x.shape
        if x.stride(1) == 1:
            vector = math.gcd(divisor(x)[0], along)
        elif x.stride(0) == 1:
            vector = math.gcd(divisor(x)[1], across)
        else:
            vector = 1
        # Of a start the compiler knows whether 16 bytes divide it, and no more.
        vector = min(vector, most) if starts_aligned(x) else 1
        widths.append(vector * x.itemsize)
    return min(widths)


def along_terms(task: Task) -> bool:
    """Whether the terms of a sum lie together in both operands."""
    return task.a.stride(1) == 1 and task.b.stride(0) == 1


def room(task: Task, config: Config, wide: int) -> Config | None:
    """Fit one of `CONFIGS` to a product's dtype and to this process's GPU.

    Args:
        task: the product.
        config: for operands of two bytes.
        wide: `width` of the product.

    Returns:
        As many bytes of terms in as many stages as shared memory holds; None for tiles
        that registers or shared memory don't.
    """
    itemsize = task.a.itemsize
    exact = itemsize == 4 and task.precision != "tf32"
    # Past the registers go only pieces of rows of `a` and of columns of `b`, but for
    # two bytes an element, which tensor cores read either way.
    along = itemsize == 2 or along_terms(task)
    residual = task.residual
    short = residual is None and task.activation != "gelu"
    rough = residual is not None and any(s % 16 for s in residual.stride() if s != 1)
    # Sums that a thread holds.
    if exact:
        most = 64 if wide == 16 and config.num_warps == 8 else 32
    elif wide >= 8 and along and short:
        most = 128
    else:
        most = 64 if wide >= (4 if short else 8) and not rough else 32
    if config.block_m * config.block_n > most * 32 * config.num_warps:
        return None
    block_k = config.block_k * 2 // itemsize
    if exact and task.precision == "ieee":
        # Terms come out of shared memory into registers, all of a step at once.
        block_k = min(block_k // 2, 16)
    elif wide < 8:
        block_k //= 2
    block_k = max(block_k, 32 if itemsize == 1 else 16)
    stage = (config.block_m + config.block_n) * block_k * itemsize
    has = device.current().shared_memory_per_block or SHARED
    stages = min(config.num_stages, has // stage)
    return config._replace(block_k=block_k, num_stages=stages) if stages > 1 else None


def cheapest(task: Task, configs: Iterable[Any]) -> Any:
    """Choose among launches by their tiles; see `config_for`.

    Args:
        task: the product, with elements.
        configs: launches; None stands for one that doesn't fit.

    Returns:
        The first of those that cost least.
    """
    fitting = [config for config in configs if config is not None]
    if not fitting:
        return None
    return min(fitting, key=lambda each: estimates.seconds(task, tile(each)))


def tile(config: Any, together: int = estimates.TOGETHER) -> estimates.Tile:
    """How a launch cuts a product up, for an estimate.

    Args:
        config: of any kernel with tiles for tensor cores.
        together: programs that are launched for a multiprocessor, at most.
    """
    columns = config.block_n + getattr(config, "more", 0)
    sides = (config.block_m, columns, config.block_k)
    return estimates.Tile(*sides, config.num_warps, config.num_stages, together)


def reach(task: Task, config: Config) -> int:
    """Elements from the first that a step reads of an operand to the farthest.

    Args:
        task: the product.
        config: the tiles.
    """
    a_m, a_k, b_k, b_n = (*task.a.stride(), *task.b.stride())
    sides = (config.block_m, config.block_n, config.block_k)
    rows, columns, terms = (side - 1 for side in sides)
    return max(rows * a_m + terms * a_k, terms * b_k + columns * b_n)
