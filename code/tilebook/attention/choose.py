"""How general kernels are launched, by size of head, type, options and hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton

if TYPE_CHECKING:
    from tilebook.attention.operands import Task


class Config(NamedTuple):
    """How a kernel is launched."""

    block_m: int
    """Queries of a tile, a power of two from 16 on."""
    block_n: int
    """Keys of a tile, likewise."""
    num_warps: int
    num_stages: int


def forward_config(task: Task) -> Config:
    """Choose tiles for the forward kernel.

    Args:
        task: the attention.

    Returns:
        The tiles: those of the table, or as high as there are queries.
    """
    return _fitted(task, Config(128, 64, 4, 2))


def keys_config(task: Task) -> Config:
    """Choose tiles for the gradients of keys and values; see `forward_config`."""
    return _fitted(task, Config(64, 64, 4, 2))


def whole_config(task: Task) -> Config:
    """Choose tiles for the kernel of all gradients; see `forward_config`."""
    return _fitted(task, Config(64, 64, 8, 2))


def queries_config(task: Task) -> Config:
    """Choose tiles for the gradient of queries; see `forward_config`."""
    return _fitted(task, Config(64, 64, 4, 2))


def bias_config(task: Task) -> Config:
    """Choose tiles for the gradient of a bias; see `forward_config`."""
    return _fitted(task, Config(64, 64, 4, 1))


def _fitted(task: Task, config: Config) -> Config:
    """No more rows or columns than there are, but for the power of two."""
    sizes = (task.q.shape[2], task.k.shape[2])
    block_m, block_n = (
        min(block, max(16, triton.next_power_of_2(max(size, 1))))
        for block, size in zip(config[:2], sizes, strict=True)
    )
    return config._replace(block_m=block_m, block_n=block_n)
