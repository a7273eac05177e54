"""How general kernels are launched, by size of head, type, options and hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton

from tilebook import device

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


HALVES = {
    "hopper": {
        "forward": {
            32: Config(128, 128, 8, 3),
            64: Config(128, 128, 8, 3),
            128: Config(128, 128, 8, 2),
            256: Config(128, 64, 8, 2),
        },
        "keys": {
            32: Config(64, 128, 8, 3),
            64: Config(64, 128, 8, 3),
            128: Config(32, 128, 8, 3),
            256: Config(64, 32, 8, 2),
        },
        "queries": {
            32: Config(128, 128, 8, 2),
            64: Config(128, 64, 8, 3),
            128: Config(128, 64, 8, 2),
            256: Config(64, 32, 4, 2),
        },
        "whole": {
            32: Config(64, 128, 8, 2),
            64: Config(64, 128, 8, 2),
            128: Config(32, 64, 8, 2),
            256: Config(32, 32, 8, 2),
        },
    },
    "ampere": {
        "forward": {
            32: Config(128, 64, 4, 3),
            64: Config(128, 64, 4, 3),
            128: Config(128, 64, 8, 2),
            256: Config(64, 32, 8, 2),
        },
        "keys": {
            32: Config(64, 128, 8, 2),
            64: Config(32, 128, 8, 2),
            128: Config(32, 64, 4, 2),
            256: Config(32, 32, 8, 1),
        },
        "queries": {
            32: Config(64, 64, 4, 2),
            64: Config(64, 64, 4, 2),
            128: Config(64, 32, 4, 2),
            256: Config(32, 32, 4, 1),
        },
        "whole": {
            32: Config(64, 64, 8, 2),
            64: Config(32, 64, 8, 2),
            128: Config(32, 32, 8, 2),
            256: Config(16, 16, 8, 1),
        },
    },
    "amd": {
        "forward": {
            32: Config(128, 64, 4, 1),
            64: Config(128, 64, 4, 1),
            128: Config(128, 32, 4, 1),
            256: Config(64, 32, 4, 1),
        },
        "keys": {
            32: Config(32, 64, 4, 1),
            64: Config(32, 64, 4, 1),
            128: Config(32, 64, 8, 1),
            256: Config(16, 32, 8, 1),
        },
        "queries": {
            32: Config(64, 64, 4, 1),
            64: Config(64, 64, 4, 1),
            128: Config(64, 32, 4, 1),
            256: Config(32, 32, 8, 1),
        },
        "whole": {
            32: Config(32, 64, 4, 1),
            64: Config(32, 64, 4, 1),
            128: Config(32, 32, 4, 1),
            256: Config(16, 32, 8, 1),
        },
    },
}
"""Tiles of two-byte types, by the features that a tile covers, at most."""
SINGLES = {
    "forward": {
        32: Config(64, 32, 4, 2),
        64: Config(32, 32, 8, 2),
        128: Config(32, 32, 8, 2),
        256: Config(16, 16, 4, 1),
    },
    "keys": {
        32: Config(32, 32, 8, 1),
        64: Config(32, 32, 8, 1),
        128: Config(16, 32, 8, 1),
        256: Config(16, 16, 8, 1),
    },
    "queries": {
        32: Config(32, 32, 4, 1),
        64: Config(32, 32, 4, 1),
        128: Config(16, 32, 4, 1),
        256: Config(16, 16, 4, 1),
    },
    "whole": {
        32: Config(32, 32, 8, 1),
        64: Config(32, 32, 8, 1),
        128: Config(16, 32, 8, 1),
        256: Config(16, 16, 8, 1),
    },
}
"""Tiles of float32."""


DROPPED, BIASED, OTHERS = 16, 32, 64
"""Scores of a thread at most: random numbers and pointers to a bias take registers."""
LIGHTER = {64: Config(64, 128, 8, 2), 128: Config(32, 64, 8, 2)}
"""Tiles of keys on a Hopper that loads by pointers, or has options at 128 features."""


def forward_config(task: Task, arch: str | None = None) -> Config:
    """Choose tiles for the forward kernel.

    Args:
        task: the attention.
        arch: for what, such as "sm_90"; by default what is here.

    Returns:
        The tiles: those of the table, or as high as there are queries.
    """
    return _config("forward", task, arch)


def keys_config(task: Task, arch: str | None = None) -> Config:
    """Choose tiles for the gradients of keys and values; see `forward_config`."""
    return _config("keys", task, arch)


def whole_config(task: Task, arch: str | None = None) -> Config:
    """Choose tiles for the kernel of all gradients; see `forward_config`."""
    return _config("whole", task, arch)


def queries_config(task: Task, arch: str | None = None) -> Config:
    """Choose tiles for the gradient of queries; see `forward_config`."""
    return _config("queries", task, arch)


def bias_config(task: Task, arch: str | None = None) -> Config:
    """Choose tiles for the gradient of a bias; see `forward_config`."""
    if task.q.itemsize == 4:
        return _config("queries", task, arch)._replace(num_warps=8)
    arch = device.current().arch if arch is None else arch
    wide = 64 if family(arch) == "hopper" else 32
    return _fitted(task, Config(64, wide, 8, 1))


def family(arch: str | None) -> str:
    """Whose table an architecture has: "hopper" from sm_90 on, "amd", else "ampere".

    Consumer cards are of the latter: they have 99 KiB of shared memory for a program.
    """
    if arch is None:
        return "ampere"
    if not arch.startswith("sm_"):
        return "amd"
    return "hopper" if int(arch[3:]) in (90, 100, 103) else "ampere"


def whole_pays(task: Task, arch: str | None = None) -> bool:
    """Whether one kernel for all gradients fits: elsewhere it would spill registers.

    Args:
        task: the attention.
        arch: for what; by default what is here.

    Returns:
        True of two-byte types and up to 128 features, loaded by descriptors, on a
        Hopper or later; and where kernels are interpreted.
    """
    arch = device.current().arch if arch is None else arch
    wide = max(task.q.shape[3], task.v.shape[3])
    modern = arch is None or (family(arch) == "hopper" and task.described)
    return modern and task.q.itemsize == 2 and wide <= 128


def _config(kernel: str, task: Task, arch: str | None) -> Config:
    wide = max(task.q.shape[3], task.v.shape[3])
    column = next(n for n in (32, 64, 128, 256) if wide <= n)
    if task.q.itemsize == 4:
        config = SINGLES[kernel][column]
    else:
        arch = device.current().arch if arch is None else arch
        config = HALVES[family(arch)][kernel][column]
        if kernel == "keys" and column in LIGHTER and family(arch) == "hopper":
            plain = task.fold and not task.threshold
            if not task.described or (column == 128 and not plain):
                config = LIGHTER[column]
    return _fitted(task, _lighter(kernel, task, config))


def _lighter(kernel: str, task: Task, config: Config) -> Config:
    """Halve tiles until a thread has no more scores than an option lets it have."""
    most = OTHERS
    if task.threshold:
        most = DROPPED
    elif task.bias is not None:
        most = BIASED if task.q.shape[3] <= 64 else DROPPED
    side = "block_n" if kernel in ("forward", "queries") else "block_m"
    while config.block_m * config.block_n > 32 * config.num_warps * most:
        half = getattr(config, side) // 2
        if half < 16:
            break
        config = config._replace(**{side: half})
    return config


def _fitted(task: Task, config: Config) -> Config:
    """No more rows or columns than there are, but for the power of two."""
    sizes = (task.q.shape[2], task.k.shape[2])
    block_m, block_n = (
        min(block, max(16, triton.next_power_of_2(max(size, 1))))
        for block, size in zip(config[:2], sizes, strict=True)
    )
    return config._replace(block_m=block_m, block_n=block_n)
