"""How `folded` is launched: what to try, and what was the fastest."""

from tilebook.attention import launching
from tilebook.attention.launching import Config, Task

CONFIGS = {
    64: (
        *(Config(64, 3, 128, 3, 2), Config(64, 2, 128, 3, 2, halved=True)),
        Config(64, 2, 128, 3, 2, dynamic=True, halved=True, placed=True),
        *(Config(64, 3, 128, 3), Config(64, 2, 128, 4, 2), Config(64, 2, 64, 6, 2)),
    ),
    128: (
        Config(64, 2, 128, 2, 2, dynamic=True, halved=True, placed=True),
        Config(64, 2, 128, 2, 2, dynamic=True),
        *(Config(64, 2, 128, 2), Config(64, 2, 64, 4, 2), Config(64, 3, 64, 3)),
    ),
    256: tuple(Config(64, 2, 64, 2, pieces=n, dynamic=True) for n in (4, 2)),
}
"""What to try on a card, by columns of a head; by the contest that was held on an H100
`config_for` chooses among them. Of 256 columns a group that is told its next tile has a
register more."""
LONG, LONGER = 2048, 8192
"""Queries from which on a third group pays where heads are narrow and all is seen, and
it doesn't pay any more to be told where a tile is; and from which on a third group pays
under a causal mask, too, and a second place for queries doesn't."""


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel.

    Args:
        task: what is computed.

    Returns:
        What was the fastest in its kind; if there is no room for that, the first of
        `CONFIGS` that there is room for.

    Raises:
        ValueError: there is room for none.
    """
    width = launching.width_of(task)
    listed = CONFIGS[width]
    rows, causal = task.q.shape[2], task.right == 0
    best = listed[0]
    if width == 64:
        if rows < LONG:
            best = listed[2]
        elif task.left is not None or (causal and rows < LONGER):
            # With a window three groups have too few registers.
            best = listed[1]
        elif rows >= LONGER and not causal:
            best = listed[3]
    elif width == 128 and rows >= LONGER:
        best = listed[1 if causal else 2]
    several = [each for each in listed if each.parts <= best.parts]
    return launching.config_for(task, {width: (best, *several)})


def half(task: Task, config: Config) -> bool:
    """Whether half of a tile's last block is beyond the diagonal for its first group:
    where there are two, of half a block's rows each, and each query has its own key.

    Args:
        task: what is computed.
        config: how.
    """
    alike = config.parts == 2 and 2 * config.part == config.block_n
    return alike and task.right == 0 and task.q.shape[2] <= task.k.shape[2]
