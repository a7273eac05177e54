"""Which group of warps weighs and which waits for a product, by `clocked`'s clocks."""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from tilebook import library
from tilebook.attention import clocked
from tilebook.attention.clocked import EVENT, WHO
from tilebook.attention.launching import Config, Task

SETTLED = 4
"""Blocks at the beginning that don't count: groups find their step meanwhile."""


class Block(NamedTuple):
    """What a group did for a block, and when, in clocks since its program began."""

    who: str
    """One of `WHO`."""
    block: int
    asked: float
    """Its scores and the last block's values have been asked for."""
    there: float
    """Scores are there."""
    weighed: float
    """Weights are."""
    added: float
    """The last block's values have been added up."""


class Shares(NamedTuple):
    """What a program's clocks come to; shares are of both groups, clocks medians."""

    beside: float
    """Of the time that a group weighs, in which the other one waits for a product."""
    waits: float
    """Of all time, in which a group waits for a product: what `beside` would be if
    groups took no notice of each other."""
    weighing: float
    """Clocks that weights of a block take."""
    waiting: float
    """Clocks that a group waits for values after it has weighed."""
    period: float
    """Clocks from a block to the next."""


def read(log: torch.Tensor, program: int = 0) -> list[Block]:
    """Read one program's log.

    Args:
        log: from a launch, `clocked.log_for`'s.
        program: which.

    Returns:
        A block after another, of each group. What several threads saw counts when the
        last of them has seen it.
    """
    mine = log[program].cpu().amax(-1)
    there = (mine > 0).all(-1)
    if not there.any():
        return []
    first = int(mine[there].min())
    return [
        Block(WHO[who], block, *(int(x) - first for x in mine[who, block]))
        for who in range(mine.shape[0])
        for block in range(mine.shape[1])
        if there[who, block]
    ]


def waits_of(blocks: Iterable[Block]) -> list[tuple[float, float]]:
    """When somebody waits for a product: for scores, and for values.

    Args:
        blocks: of one group.
    """
    found = [(b.asked, b.there) for b in blocks] + [
        (b.weighed, b.added) for b in blocks
    ]
    return sorted(found)


def covered(span: tuple[float, float], others: Iterable[tuple[float, float]]) -> float:
    """Count how much of a span others cover, which don't overlap.

    Args:
        span: from when to when.
        others: likewise.
    """
    begin, end = span
    return sum(max(0.0, min(end, b) - max(begin, a)) for a, b in others)


def shares(blocks: Sequence[Block]) -> Shares:
    """Sum up what one program's groups did beside each other.

    Args:
        blocks: from `read`, with more than `SETTLED` + 1 blocks of each group.
    """
    kept = [block for block in blocks if block.block >= SETTLED]
    beside = weighing = waits = time = 0.0
    for who in WHO:
        mine = [b for b in kept if b.who == who]
        theirs = waits_of(b for b in kept if b.who != who)
        # Where the other one isn't logged nobody knows what it did.
        first, last = theirs[0][0], theirs[-1][1]
        for b in mine:
            if first <= b.there and b.weighed <= last:
                beside += covered((b.there, b.weighed), theirs)
                weighing += b.weighed - b.there
        own = waits_of(mine)
        waits += sum(end - begin for begin, end in own)
        time += own[-1][1] - own[0][0]
    pairs = [
        after.asked - before.asked
        for before, after in itertools.pairwise(kept)
        if before.who == after.who
    ]
    return Shares(
        beside / weighing if weighing else 0.0,
        waits / time,
        statistics.median(b.weighed - b.there for b in kept),
        statistics.median(b.added - b.weighed for b in kept),
        statistics.median(pairs),
    )


def measured(task: Task, config: Config) -> torch.Tensor:
    """Attend twice, and return the log of the second time.

    Args:
        task: what `clocked.launch` takes.
        config: how.
    """
    log = clocked.log_for(task, config)
    with library.on(task.q):
        for _ in range(2):
            log.zero_()
            clocked.launch(task, config, log)
    return log


def typical(log: torch.Tensor, programs: int) -> tuple[int, Shares]:
    """Find what is in the middle.

    Args:
        log: from `measured`.
        programs: how many of the first to look at.

    Returns:
        The program whose `beside` is the median, and medians of all shares.
    """
    found = [shares(read(log, program)) for program in range(programs)]
    order = sorted(range(programs), key=lambda program: found[program].beside)
    middle = Shares(*(statistics.median(each) for each in zip(*found, strict=True)))
    return order[programs // 2], middle


def kept(blocks: Iterable[Block], first: int, last: int) -> list[Block]:
    """Keep some of the blocks, counted in clocks from the first of them.

    Args:
        blocks: from `read`.
        first: block that is kept.
        last: the first that isn't any more.
    """
    found = [block for block in blocks if first <= block.block < last]
    zero = min(block.asked for block in found)
    return [
        block._replace(**{name: getattr(block, name) - zero for name in EVENT})
        for block in found
    ]
