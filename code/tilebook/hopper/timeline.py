"""When each group of warps does what: clocks read inside the kernels."""

from types import ModuleType
from typing import NamedTuple

import torch

from tilebook import library
from tilebook.hopper import cooperative, folded, launching, pingpong
from tilebook.hopper.launching import Config
from tilebook.hopper.wgmma import EVENTS, LOGGED
from tilebook.matmul.operands import Task, tiles
from tilebook.softmax.occupancy import programs

SCHEDULES: dict[str, tuple[ModuleType, int]] = {
    "cooperative": (cooperative, 2),
    "folded": (folded, 2),
    "pingpong": (pingpong, 1),
}
"""By name, the module and how many groups share a tile."""
WHO = ("first group", "second group", "producer")
EVENT = ("begun", "summed", "storing", "stored")


class Moment(NamedTuple):
    """What a group did for a tile, and when."""

    who: str
    """One of `WHO`."""
    turn: int
    """Which of the program's tiles, from 0."""
    event: str
    """One of `EVENT`."""
    cycles: int
    """Since the first event of the program."""


def log_for(task: Task, config: Config) -> torch.Tensor:
    """Make an empty log for a launch.

    Args:
        task: the product.
        config: how it is launched.

    Returns:
        (programs, 3, LOGGED, EVENTS) int64 of zeros.
    """
    count = programs(tiles(task, config.block_m, config.block_n), 1)
    shape = (count, 3, LOGGED.value, EVENTS.value)
    return torch.zeros(shape, dtype=torch.int64, device=task.a.device)


def launch(name: str, task: Task, config: Config, log: torch.Tensor) -> None:
    """Launch a kernel that writes a log.

    Args:
        name: one of `SCHEDULES`.
        task: the product.
        config: how.
        log: from `log_for`.
    """
    module, parts = SCHEDULES[name]
    which = launching.Kernel(module.matmul_kernel, parts, module.META, (log,))
    launching.launch(which, task, config)


def moments(log: torch.Tensor, program: int = 0) -> list[Moment]:
    """Read one program's log.

    Args:
        log: from a launch.
        program: which.

    Returns:
        What happened, by time. `folded` notes a store beside the tile that follows.
    """
    mine = log[program].cpu()
    first = int(mine[mine > 0].min()) if (mine > 0).any() else 0
    found = [
        Moment(WHO[who], turn, EVENT[event], int(mine[who, turn, event]) - first)
        for who in range(mine.shape[0])
        for turn in range(mine.shape[1])
        for event in range(mine.shape[2])
        if mine[who, turn, event] > 0
    ]
    return sorted(found, key=lambda moment: moment.cycles)


def measured(
    name: str, a: torch.Tensor, b: torch.Tensor, config: Config
) -> list[Moment]:
    """Multiply twice and read the log of the second time.

    Args:
        name: one of `SCHEDULES`.
        a: matrix (m, k).
        b: matrix (k, n).
        config: how.

    Returns:
        The first program's moments.
    """
    task = Task(a, b, a.new_empty(a.shape[0], b.shape[1]))
    log = log_for(task, config)
    with library.on(a):
        for _ in range(2):
            log.zero_()
            launch(name, task, config, log)
    return moments(log)
