"""What Stream-K's programs get: which tiles whole, and which share of the others."""

from typing import NamedTuple

import torch

from tilebook import device
from tilebook.matmul import described, fitting
from tilebook.matmul.operands import Task
from tilebook.matmul.split import LEAST_STEPS, PRETENDED, block_for


class Config(NamedTuple):
    """How the two kernels are launched."""

    block_m: int
    """Rows of a tile."""
    block_n: int
    """Columns of a tile."""
    block_k: int
    """Terms that are loaded at once."""
    programs: int
    """That share the work: as many as run at the same time."""
    num_warps: int = 8
    num_stages: int = 4
    """Blocks of terms on their way or in use."""
    group: int = 8
    """Rows of tiles in a strip."""
    longer: bool = False
    """Whether the last whole turn is shared out, too: longer shares, more seams."""
    engine: bool = True
    """Whether tensor descriptors bring the tiles, where they can describe them."""


SIDES = ((128, 256, 8), (128, 128, 8), (128, 128, 4), (128, 64, 8))
"""Rows, columns and warps of tiles, for products that are as high and as wide. The last
is for those whose registers hold no other, and fits always."""
SAVED = 10
"""What part of a turn has to be left idle for sharing to be worth while: a tenth."""
STAGES = 4
"""Blocks of terms on their way or in use, where there is room."""


class Schedule(NamedTuple):
    """Who does what."""

    whole: int
    """Stacks that are dealt out whole, as many to each team."""
    sharing: int
    """Teams that share the blocks of terms of all others; 0 where none are left."""


def schedule(count: int, steps: int, teams: int, longer: bool = False) -> Schedule:
    """Deal out the tiles of a product, in stacks to teams (see `stack`).

    Args:
        count: stacks.
        steps: blocks of terms of each, at least one.
        teams: that run at the same time.
        longer: whether the last whole turn is shared out with the incomplete one.

    Returns:
        Whole turns, and as many teams for what is left as have `LEAST_STEPS` blocks
        each, or a stack if that is less. A turn that is nearly complete isn't worth its
        seams: of its stacks each gets a team.
    """
    turns, left = divmod(count, teams)
    if (teams - left) * SAVED < teams:
        return Schedule(count - left, left)
    if not left:
        return Schedule(count, 0)
    whole = max(turns - longer, 0) * teams
    total = (count - whole) * steps
    return Schedule(whole, min(teams, total // min(LEAST_STEPS, steps)))


def stack(task: Task, config: Config) -> int:
    """Tiles above one another that a team of programs takes together, a tile each.

    Programs that walk along k side by side read the same columns of b, and L2 is asked
    for them once. Apart they would be read from memory by each.

    Args:
        task: the product.
        config: how it is launched.

    Returns:
        A strip's rows of tiles, where strips are whole and teams of so many use most of
        the programs; else 1.
    """
    rows = -(-task.m // config.block_m)
    high = min(config.group, rows)
    idle = config.programs % high
    return high if rows % high == 0 and idle * SAVED < config.programs else 1


def seams(task: Task, config: Config) -> bool:
    """Whether any tile of a product is shared.

    Args:
        task: the product.
        config: how it is launched.
    """
    high = stack(task, config)
    count = -(-task.m // config.block_m) * -(-task.n // config.block_n) // high
    steps = max(-(-task.k // config.block_k), 1)
    whole, sharing = schedule(count, steps, config.programs // high, config.longer)
    # As many teams as stacks share none of them.
    return sharing != count - whole


def engine(task: Task) -> bool:
    """Whether tensor descriptors may bring a product's tiles: past the registers.

    Args:
        task: the product.

    Returns:
        True where there is a copy engine (or no GPU at all) and tensor cores read the
        operands as they lie.
    """
    here = device.has("tma") or device.current().backend not in ("cuda", "hip")
    direct = task.a.itemsize == 2 or fitting.along_terms(task)
    exact = task.a.dtype == torch.float32 and task.precision != "tf32"
    return here and direct and not exact and described.refusal(task) is None


def configs(task: Task) -> list[Config]:
    """The few ways to launch the kernels that are worth a race.

    Args:
        task: the product.

    Returns:
        At least one; first what `config_for` chooses, with which tensor cores have most
        to do for what is read.
    """
    found = [each for sides in SIDES[:-1] if (each := _fitted(task, *sides))]
    found = [*dict.fromkeys(found)] or [_fitted(task, *SIDES[-1])]
    first = found[0]
    if -(-task.m // first.block_m) * -(-task.n // first.block_n) > first.programs:
        found.append(first._replace(longer=True))
    return found


def _fitted(task: Task, rows: int, columns: int, warps: int) -> Config | None:
    """A tile of `SIDES`, no higher or wider than the product; None if none fits."""
    block_m, block_n = block_for(task.m, rows), block_for(task.n, columns)
    warps = warps if block_m * block_n >= 128 * 64 else 4
    # The copy engine brings tiles for tensor cores that take 64 rows.
    brought = min(block_m, block_n) >= 64 and engine(task)
    tile = fitting.Config(block_m, block_n, 64, warps, STAGES)
    fitted = fitting.room(task, tile, 16 if brought else fitting.width(task))
    # Addresses beside as many sums as registers hold leave none for an activation.
    full = not brought and not task.plain and block_m * block_n > 64 * 32 * warps
    if fitted is None or full:
        return None
    # Programs of four warps leave room for a second, which works while one stores.
    per_sm = 1 if warps >= 8 else 2
    has = device.current().shared_memory_per_block or fitting.SHARED
    stage = (block_m + block_n) * fitted.block_k * task.a.itemsize
    # Barriers, and what lies between, take some of it.
    stages = min(fitted.num_stages, max(2, (has // per_sm - 1024) // stage))
    count = -(-task.m // block_m) * -(-task.n // block_n)
    steps = max(-(-task.k // fitted.block_k), 1)
    programs = min(per_sm * (device.current().sms or PRETENDED), max(count * steps, 1))
    return Config(
        block_m, block_n, fitted.block_k, programs, warps, stages, engine=brought
    )


def config_for(task: Task) -> Config:
    """Choose how to launch the kernels.

    Args:
        task: the product.

    Returns:
        Tiles of 128 by 256, or as low or narrow as the product or as registers ask for,
        and a program for each multiprocessor, but none without a block of terms.
    """
    return configs(task)[0]
