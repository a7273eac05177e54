"""The kernels that may multiply, what each can be tried with, and what it may cost."""

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch

from tilebook import device
from tilebook.matmul import (
    beside,
    described,
    estimates,
    fitting,
    ordered,
    padded,
    persistent,
    split,
    streamed,
    vectors,
)
from tilebook.matmul.operands import Task
from tilebook.matmul.shares import seams

KERNELS: Mapping[str, ModuleType] = {
    "ordered": ordered,
    "persistent": persistent,
    "described": described,
    "beside": beside,
    "padded": padded,
    "split": split,
    "streamed": streamed,
    "vectors": vectors,
}
"""By name; each has `config_for(task)` and `launch(task, config)`."""
CONFIGS: Mapping[str, type] = {
    **dict.fromkeys(("ordered", "persistent"), fitting.Config),
    **dict.fromkeys(("described", "padded"), described.Config),
    **{
        name: KERNELS[name].Config
        for name in ("beside", "split", "streamed", "vectors")
    },
}
"""What each is launched with."""
ENTRANTS, BEST = 9, 6
"""Ways that are compiled and timed for a new question, and how many of them are those
that should cost least, of whatever kernels."""
EXTRA = {
    **dict.fromkeys(("ordered", "persistent", "split"), 1.3),
    **dict.fromkeys(("beside", "streamed"), 1.15),
}
"""What a kernel costs beside one that loads by descriptors, as a factor."""
SHARES = (0.5, 1, 2)
"""Parts of a sum to try, as multiples of what `split` chooses."""
NEAR_FULL = 8
"""Turns of all multiprocessors up to which an incomplete last one is worth avoiding."""


class Way(NamedTuple):
    """A kernel's module by name, and its configuration as plain numbers."""

    kernel: str
    config: tuple[Any, ...]


class Field(NamedTuple):
    """Who may race."""

    kernels: Mapping[str, ModuleType]
    """By name; each has `launch(task, config)`."""
    configs: Mapping[str, type]
    """What each is launched with."""
    fitting: Callable[[Task], Iterator[tuple[float, Way]]]
    """Every way that fits, with seconds by the estimate."""
    entrants: int = ENTRANTS
    """Ways that are compiled and timed for a new question."""
    rule: Callable[[Task, ModuleType], ModuleType] = lambda task, chosen: chosen
    """Makes of the kernel that `choose` names the one to launch unmeasured."""


def launch(task: Task, way: Way, field: str = "matmul") -> None:
    """Launch a kernel as a way has it; raises what the kernel's `launch` does."""
    entered = FIELDS[field]
    entered.kernels[way.kernel].launch(task, entered.configs[way.kernel](*way.config))


def read(answer: Any, field: str = "matmul") -> Way | None:
    """Take a remembered answer, whoever wrote it.

    Args:
        answer: as it was kept: a kernel's name and its configuration.
        field: one of `FIELDS`.

    Returns:
        The way; None for what is none, or no longer one.
    """
    try:
        kernel, config = answer
        named = FIELDS[field].configs[kernel](*config)._asdict()
    except (KeyError, TypeError, ValueError):
        return None
    if not all(type(x) in (int, bool) and x >= 0 for x in named.values()):
        return None
    blocks = [
        x for name, x in named.items() if name.startswith("block_") or name == "more"
    ]
    known = ("num_warps", "num_stages", "parts", "programs", "pieces")
    counts = [named[name] for name in known if name in named]
    if any(x < 1 or x & (x - 1) for x in blocks) or min(counts) < 1:
        return None
    return Way(kernel, tuple(named.values()))


def entrants(task: Task, field: str = "matmul") -> list[Way]:
    """The ways that are worth a try.

    Args:
        task: the product, with elements and terms.
        field: one of `FIELDS`.

    Returns:
        As many as the field has room for, by what they may cost, the least first: the
        `BEST` of all, and of other kernels one each, for the estimate ranks tiles
        better than kernels.
    """
    ranked = sorted(FIELDS[field].fitting(task), key=lambda pair: pair[0])
    ways = list(dict.fromkeys(way for _, way in ranked))
    chosen = ways[:BEST]
    for way in ways[BEST:]:
        if way.kernel not in {each.kernel for each in chosen}:
            chosen.append(way)
    return chosen[: FIELDS[field].entrants]


def fitting_ways(task: Task) -> Iterator[tuple[float, Way]]:
    """Every way that fits, with seconds by the estimate."""
    wide = fitting.width(task)
    engine = device.has("tma") and described.refusal(task) is None
    # Who stays beside descriptors does so with them.
    for name in ("ordered",) if engine else ("ordered", "persistent"):
        rung = KERNELS[name]
        for config in rung.CONFIGS:
            if (fitted := rung.room(task, config, wide)) is not None:
                yield _tiled(task, name, fitted)
    if device.has("tma"):
        yield from _described(task)
    for own in split.configs(task):
        for share in SHARES:
            parts = max(2, int(own.parts * share))
            cost = EXTRA["split"] * estimates.seconds(task, fitting.tile(own), parts)
            yield cost, Way("split", tuple(own._replace(parts=parts)))
    for shared in streamed.configs(task):
        count = -(-task.m // shared.block_m) * -(-task.n // shared.block_n)
        if seams(task, shared) and count < NEAR_FULL * shared.programs:
            together = 1 if shared.num_warps >= 8 else 2
            tile = fitting.tile(shared, together)
            cost = estimates.streaming(task, tile, shared.programs)
            yield EXTRA["streamed"] * cost, Way("streamed", tuple(shared))
    if vectors.fits(task):
        thin = vectors.turned(task) if task.n < task.m else task
        # All that counts is to read the larger operand once.
        for config in vectors.configs(thin):
            yield estimates.reading(task), Way("vectors", tuple(config))


def _described(task: Task) -> Iterator[tuple[float, Way]]:
    name, before, placed = "described", 0.0, task
    if described.in_doubt(task):
        return
    if padded.fits(task):
        name, before = "padded", 2 * estimates.reading(task)
        placed = task._replace(
            **{key: _aligned_like(getattr(task, key)) for key in ("a", "b")}
        )
    elif described.refusal(task) is not None:
        return
    for config in described.CONFIGS:
        if (fitted := described.room(placed, config)) is not None:
            cost, way = _tiled(task, name, fitted)
            yield before + cost, way
    if name == "described" and beside.refusal(task) is None:
        for config in beside.CONFIGS:
            if (fitted := beside.room(task, config)) is not None:
                yield _tiled(task, "beside", fitted)


def _aligned_like(x: torch.Tensor) -> torch.Tensor:
    """What `padded.aligned` makes of a matrix, without memory."""
    return padded.aligned(
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    )


def _tiled(task: Task, name: str, config: Any) -> tuple[float, Way]:
    together = estimates.TOGETHER
    if name in ("described", "padded"):
        together = described.per_sm(task, config)
    elif name == "beside":
        together = 1
    cost = estimates.seconds(task, fitting.tile(config, together))
    return EXTRA.get(name, 1.0) * cost, Way(name, tuple(config))


FIELDS = {"matmul": Field(KERNELS, CONFIGS, fitting_ways)}
"""By name; a later chapter enters its own kernels beside these under its name."""
