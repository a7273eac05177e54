"""Whole turns of wide tiles, and what is left over in one turn of narrower ones.

A tile of 128 by 256 is the best one as long as all multiprocessors have one. 512 rows
by 22,016 columns are 344 of them, two turns of 132 programs and 80 tiles more, and for
the length of a tile 52 multiprocessors wait. So the columns are cut: as many as make
whole turns go to `folded`; the rest, 5,120 here, is one turn of tiles of 160 columns, a
launch of `widths` or of `cooperative`. The rest goes first: what it leaves idle at its
end the other launch's programs begin to use.
"""

import math
from typing import NamedTuple

import torch

from tilebook import device
from tilebook.hopper import cooperative, folded, launching, widths
from tilebook.matmul.operands import Task, tiles

BLOCK_M, BLOCK_N, BLOCK_K = 128, 256, 64
"""Sides of the wide tiles, and terms that are loaded at a time of all."""
STAGES, PIECES = 4, 2
"""Of the wide tiles."""
SMS = 132
"""Multiprocessors where kernels are only compiled."""


class Config(NamedTuple):
    """How both are launched."""

    first: int
    """Columns of a narrower tile, a power of two."""
    second: int
    """Columns that it has besides, a power of two or 0: see `widths`."""
    num_stages: int
    """Chunks of a narrower tile that are on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""


CONFIGS = (
    *(Config(128, 64, 4), Config(128, 32, 5), Config(128, 0, 5)),
    *(Config(64, 32, 6), Config(64, 16, 8), Config(64, 0, 8)),
)
"""What to try on a card, the widest first."""


def whole(task: Task) -> int:
    """Count the columns whose wide tiles make whole turns.

    Args:
        task: the product.

    Returns:
        A multiple of `BLOCK_N` less than n; 0 if all tiles are fewer than a turn, or
        make whole turns.
    """
    rows, columns = -(-task.m // BLOCK_M), -(-task.n // BLOCK_N)
    sms = device.current().sms or SMS
    turns, over = divmod(rows * columns, sms)
    return turns * sms // rows * BLOCK_N if over else 0


def refusal(task: Task, config: Config) -> str | None:
    """Say why a product isn't made in this way.

    Args:
        task: the product.
        config: how.

    Returns:
        The first reason; None if there is none.
    """
    if reason := launching.refusal(task):
        return reason
    if config[:2] not in {each[:2] for each in CONFIGS}:
        return f"no narrower tile has {config.first} and {config.second} columns"
    if not (columns := whole(task)):
        return "there is no turn of wide tiles, or nothing is left over"
    rest = -(-task.m // BLOCK_M) * math.ceil(
        (task.n - columns) / (config.first + config.second)
    )
    if rest > (device.current().sms or SMS):
        return f"{rest} narrower tiles are more than a turn"
    return None


def parts(task: Task) -> tuple[Task, Task]:
    """Cut a product into whole turns of wide tiles, and the rest.

    Args:
        task: the product, with columns in whole turns.
    """
    columns = whole(task)
    return (
        task._replace(b=task.b[:, :columns], out=task.out[:, :columns]),
        task._replace(b=task.b[:, columns:], out=task.out[:, columns:]),
    )


def wide(config: Config) -> launching.Config | None:
    """How the whole turns are launched; None where shared memory doesn't hold it."""
    sides = (BLOCK_M, BLOCK_N, BLOCK_K)
    return launching.room(launching.Config(*sides, STAGES, PIECES, config.group), 2)


def narrow(config: Config) -> launching.Config | widths.Config | None:
    """How the rest is launched; None where shared memory doesn't hold it."""
    if config.second:
        sides = (BLOCK_M, config.first, config.second, BLOCK_K)
        return widths.room(widths.Config(*sides, config.num_stages, config.group))
    plain = (BLOCK_M, config.first, BLOCK_K, config.num_stages)
    return launching.room(launching.Config(*plain, group=config.group), 2)


def room(task: Task, config: Config) -> Config | None:
    """Fit one of `CONFIGS` to a product and to this process's GPU.

    Args:
        task: the product.
        config: how.

    Returns:
        It; None where the product is refused, or where shared memory doesn't hold it.
    """
    held = wide(config) and narrow(config)
    return None if not held or refusal(task, config) else config


def seconds(task: Task, config: Config) -> float:
    """Estimate how long a product takes; see `matmul.estimates.seconds`.

    Args:
        task: the product, one that `room` has a configuration for.
        config: that one.
    """
    most, rest = parts(task)
    tile = narrow(config)
    # Neither kernel waits for the other's stores.
    first = widths if isinstance(tile, widths.Config) else launching
    return launching.seconds(most, wide(config)) + first.seconds(rest, tile)


def config_for(task: Task) -> Config:
    """Choose how to launch both: what should cost least.

    Args:
        task: the product.

    Raises:
        ValueError: the product isn't made in this way.
    """
    fitted = [each for config in CONFIGS if (each := room(task, config))]
    if not fitted:
        reason = refusal(task, CONFIGS[0])
        raise ValueError(reason or "shared memory doesn't hold the tiles")
    return min(fitted, key=lambda c: seconds(task, c))


def launch(task: Task, config: Config | None = None) -> None:
    """Launch both kernels, the rest's first.

    Args:
        task: the product, one that `refusal` doesn't refuse.
        config: how; what `config_for` chooses by default.

    Raises:
        ValueError: the product is refused, shared memory doesn't hold the tiles, or
            there are more of them than 32 bits count.
    """
    config = config or config_for(task)
    if reason := refusal(task, config):
        raise ValueError(reason)
    most_tile, tile = wide(config), narrow(config)
    if most_tile is None or tile is None:
        raise ValueError("shared memory doesn't hold the tiles")
    tiles(task, BLOCK_M, config.first)
    most, rest = parts(task)
    if isinstance(tile, widths.Config):
        widths.launch(rest, tile)
    else:
        cooperative.launch(rest, tile)
    folded.launch(most, most_tile)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in whole turns of wide tiles, the rest in narrower ones.

    Args:
        a: matrix (m, k) in bfloat16 or float16, rows or columns of neighbours that lie
            multiples of 16 bytes apart, as does its start.
        b: matrix (k, n), likewise, of the same dtype; n a multiple of 8.

    Returns:
        The product (m, n), contiguous, of the same dtype.

    Raises:
        HardwareError: this GPU has no such tensor cores.
        TypeError: not tensors, no dtype that any kernel multiplies, or two of them.
        ValueError: not matrices, sides that don't meet, elements of another type, a
            matrix that can't be described, no turn of wide tiles, nothing or too much
            that is left over, or a tensor where this process's kernels can't reach it.
    """
    return launching.multiplied(launch, a, b)
