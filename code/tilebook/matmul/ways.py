"""The kernels that may multiply, what each can be tried with, and what it may cost."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from tilebook import device
from tilebook.matmul import (
    beside,
    described,
    estimates,
    fitting,
    limits,
    ordered,
    padded,
    persistent,
    split,
    streamed,
    vectors,
)
from tilebook.matmul.limits import Limits, powers
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
LIMITS: Mapping[str, Limits] = {
    **{
        name: {"block_m": powers(64, 256)} for name in ("described", "padded", "beside")
    },
    # Of the pairs of an activation both halves belong to one program.
    "vectors": {"block_n": powers(2, 128), "block_k": powers(8, 2048)},
}
"""What an answer may be made of, where that is other than `limits.LIMITS`."""
ENTRANTS, BEST = 9, 6
"""Ways that are compiled and timed for a new question, and how many of them are those
that should cost least, of whatever kernels."""
EXTRA = {
    **dict.fromkeys(("ordered", "persistent", "split"), 1.3),
    **dict.fromkeys(("beside", "streamed"), 1.15),
}
"""What a kernel costs beside one that loads by descriptors, as a factor."""
APART = 4.0
"""What multiplying costs where every tile goes through registers, as a factor; see
`padded`."""
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
    limits: Mapping[str, Limits] = MappingProxyType({})
    """By kernel: what an answer may be made of, where that is other than
    `limits.LIMITS`."""


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
        The way; None for what is none, or no longer one, or beyond the limits of what
        any product is raced with.
    """
    entered = FIELDS[field]
    try:
        kernel, config = answer
        named = entered.configs[kernel](*config)._asdict()
    except (KeyError, TypeError, ValueError):
        return None
    if not limits.sound(named, entered.limits.get(kernel, {})):
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
            yield _detour(task, cost), Way("split", tuple(own._replace(parts=parts)))
    for shared in streamed.configs(task):
        count = -(-task.m // shared.block_m) * -(-task.n // shared.block_n)
        if seams(task, shared) and count < NEAR_FULL * shared.programs:
            together = 1 if shared.num_warps >= 8 else 2
            tile = fitting.tile(shared, together)
            cost = estimates.streaming(task, tile, shared.programs)
            cost = _detour(task, EXTRA["streamed"] * cost)
            yield cost, Way("streamed", tuple(shared))
    if vectors.fits(task):
        thin = vectors.turned(task) if task.n < task.m else task
        # All that counts is to read the larger operand once.
        for config in vectors.configs(thin):
            yield estimates.reading(task), Way("vectors", tuple(config))


def _described(task: Task) -> Iterator[tuple[float, Way]]:
    if padded.fits(task):
        before, ready = 2 * estimates.reading(task), padded.placed(task, meta=True)
        for config in described.CONFIGS:
            if (fitted := described.room(ready, config)) is not None:
                cost, way = _tiled(ready, "padded", fitted)
                yield before + cost, way
    if described.refusal(task) is not None:
        return
    for config in described.CONFIGS:
        if (fitted := described.room(task, config)) is not None:
            yield _tiled(task, "described", fitted)
    if beside.refusal(task) is None:
        for other in beside.CONFIGS:
            if (narrow := beside.room(task, other)) is not None:
                yield _tiled(task, "beside", narrow)


def _tiled(task: Task, name: str, config: Any) -> tuple[float, Way]:
    together = estimates.TOGETHER
    if name in ("described", "padded"):
        together = described.per_sm(task, config)
    elif name == "beside":
        together = 1
    cost = EXTRA.get(name, 1.0) * estimates.seconds(
        task, fitting.tile(config, together)
    )
    return _detour(task, cost), Way(name, tuple(config))


def _detour(task: Task, cost: float) -> float:
    """What it costs besides if tiles go through registers: memory waits for nobody."""
    if not padded.apart(task):
        return cost
    return cost + (APART - 1) * max(0.0, cost - estimates.reading(task))


FIELDS = {"matmul": Field(KERNELS, CONFIGS, fitting_ways, limits=LIMITS)}
"""By name; a later chapter enters its own kernels beside these under its name."""
