"""The race of `tilebook.matmul`, with this chapter's kernels beside those."""

from collections.abc import Iterator, Mapping
from types import ModuleType

import torch

from tilebook import check, device
from tilebook.hopper import (
    cooperative,
    folded,
    launching,
    pingpong,
    pipelined,
    remainder,
    widths,
)
from tilebook.matmul import described, searching
from tilebook.matmul import ways as earlier
from tilebook.matmul.choose import choose
from tilebook.matmul.operands import Task, task_of
from tilebook.matmul.ways import Field, Way

TILED: Mapping[str, ModuleType] = {
    "pipelined": pipelined,
    "cooperative": cooperative,
    "folded": folded,
    "pingpong": pingpong,
}
"""Kernels that share `launching.Config`, by name."""
GROUPS = {"pingpong": 1}
"""Groups of warps that share a tile's rows, if not two."""
EXTRA = {"folded": 0.95, "cooperative": 1.0, "pipelined": 1.02, "pingpong": 1.0}
"""What a kernel costs beside `described`, as a factor."""
ENTRANTS = 15
"""Ways that are compiled and timed for a new question."""


def fitting_ways(task: Task) -> Iterator[tuple[float, Way]]:
    """Every way that fits, with seconds by the estimate.

    Args:
        task: the product, with elements and terms.
    """
    yield from earlier.fitting_ways(task)
    if not device.has("wgmma") or launching.refusal(task):
        return
    for name, rung in TILED.items():
        for config in rung.CONFIGS:
            if (fitted := launching.room(config, GROUPS.get(name, 2))) is not None:
                cost = EXTRA[name] * launching.seconds(task, fitted)
                yield cost, Way(name, tuple(fitted))
    for config in widths.CONFIGS:
        if (fitted := widths.room(config)) is not None:
            yield widths.seconds(task, fitted), Way("widths", tuple(fitted))
    for own in remainder.CONFIGS:
        if remainder.room(task, own) is not None:
            yield remainder.seconds(task, own), Way("remainder", tuple(own))


KERNELS = {**earlier.KERNELS, **TILED, "widths": widths, "remainder": remainder}
CONFIGS = {
    **earlier.CONFIGS,
    **dict.fromkeys(TILED, launching.Config),
    "widths": widths.Config,
    "remainder": remainder.Config,
}


def rule(task: Task, chosen: ModuleType) -> ModuleType:
    """Choose a kernel where nothing was measured.

    Args:
        task: the product.
        chosen: what `matmul.choose` names.

    Returns:
        `folded` in place of `described` where it can serve, else `chosen`.
    """
    serves = device.has("wgmma") and launching.refusal(task) is None
    return folded if chosen is described and serves else chosen


earlier.FIELDS["hopper"] = Field(KERNELS, CONFIGS, fitting_ways, ENTRANTS, rule)


def which(a: torch.Tensor, b: torch.Tensor) -> str:
    """Say which kernel serves a product of two matrices, and how it is launched.

    Args:
        a: matrix (m, k).
        b: matrix (k, n), of the same dtype.

    Returns:
        The kernel's name and configuration, or what the rule names where nothing was
        measured.

    Raises:
        TypeError: not tensors, another dtype, or two of them.
        ValueError: not matrices, sides that don't meet, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Where a GPU is there and the question is new, it is measured first.
    """
    check.tensor(a, "a")
    check.tensor(b, "b")
    task, any_work = task_of(a.detach(), b.detach())
    if not any_work:
        return "nothing to launch"
    way = searching.way_for(task, "hopper")
    if way is None:
        chosen = rule(task, choose(task))
        return chosen.__name__.rpartition(".")[2] + ", by a rule"
    named = CONFIGS[way.kernel](*way.config)._asdict()
    return way.kernel + ": " + ", ".join(f"{k}={v}" for k, v in named.items())
