"""How `backward_fused` is launched: what fits, and how many heads at a time."""

from typing import NamedTuple

from tilebook.attention import configs, launching
from tilebook.attention.backward_blocks import PARTS
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.hopper.launching import BARRIERS, DTYPES

WIDTHS = (64, 128)
"""Columns of a head that the kernel is compiled for; fewer are filled up with zeros."""


class Config(NamedTuple):
    """How the kernel is launched."""

    stages: int
    """Blocks of queries that are on their way or in use, at least 2."""


PART, BLOCK_M = 64, 64
"""Keys of a group, and queries of a block: fewer tensor cores don't take, and for more
there are no registers."""
AT_ONCE = 128
"""Tiles of a round: about as many as a Hopper has multiprocessors."""
CONFIGS = {64: (Config(4), Config(3)), 128: (Config(2), Config(3))}
"""What to try on a card, by columns of a head; the first is what `config_for` takes."""


def refusal(gradient: Gradient, least: int, most: int) -> str | None:
    """Say why a kernel of one pass can't compute gradients.

    Args:
        gradient: what is wanted.
        least: columns of a head that the kernel takes.
        most: likewise.

    Returns:
        The first rule that is broken; None if none is.
    """
    task = gradient.task
    columns = task.q.shape[3]
    if task.q.dtype not in DTYPES:
        return f"q must be of bfloat16 or float16, got {task.q.dtype}"
    if columns % 8 or not least <= columns <= most:
        return (
            f"heads must have a multiple of 8 columns from {least} to {most}, "
            f"got {columns}"
        )
    if task.v.shape[3] != columns:
        return f"v must have the columns of q, {columns}, got {task.v.shape[3]}"
    if not task.fold or task.sinks is not None or task.threshold or task.packed:
        return "there must be no option but a causal mask"
    if task.left is not None or task.right not in (None, 0):
        return "queries see all keys, or no later ones"
    if task.right == 0 and task.bottom and task.q.shape[2] != task.k.shape[2]:
        return "under a causal mask first positions must be equal"
    if task.q.shape[0] * task.q.shape[1] * task.q.shape[2] > launching.LARGEST:
        return f"there must be at most {launching.LARGEST} rows of queries"
    if task.k.shape[2] > launching.LARGEST:
        return f"there must be at most {launching.LARGEST} keys"
    named = {"q": task.q, "k": task.k, "v": task.v, "do": gradient.do}
    named |= {"dk": gradient.dk, "dv": gradient.dv}
    for name, x in named.items():
        if reason := launching.unfit(x):
            return f"{name} can't be described: {reason}"
    return None


def width_of(task: Task) -> int:
    """Columns of a head as the kernel has them."""
    return next(width for width in WIDTHS if width >= task.q.shape[3])


def shared_bytes(config: Config, width: int) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
        width: columns of a head.
    """
    tiles = 2 * PARTS.value * PART + 2 * config.stages * BLOCK_M
    halves = 2 * PARTS.value * PART * BLOCK_M
    sums = BLOCK_M * (width + 2 * config.stages)
    return 2 * (tiles * width + halves) + 4 * sums + BARRIERS


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel: the first that this process's GPU has room for.

    Args:
        task: the attention.

    Raises:
        ValueError: there is room for none.
    """
    width = width_of(task)
    return configs.that_fits(CONFIGS[width], lambda each: shared_bytes(each, width))


def heads_at_a_time(task: Task, block_n: int = PART * PARTS.value) -> int:
    """How many heads of keys are worked on together: so few that what they read again
    and add to stays in L2, but under a causal mask so many that a round of tiles is
    theirs. A head's first tiles take the longest, and its last ones fill the gaps.

    Args:
        task: the attention.
        block_n: keys of a tile.
    """
    batch, heads, rows, columns = task.q.shape
    kv_heads, keys = task.k.shape[1:3]
    blocks = -(-keys // block_n)
    # Queries and what arrives have two bytes, sums four.
    each = 8 * rows * columns * heads // max(1, kv_heads)
    group = 1
    while (
        group < launching.MOST_HEADS
        and 2 * group <= batch * kv_heads
        and (
            2 * group * each <= launching.L2
            or (task.right == 0 and group * blocks < AT_ONCE)
        )
    ):
        group *= 2
    return group
