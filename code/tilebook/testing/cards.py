"""Which GPU comes first for which process, where a machine has several.

The order is for processes not yet begun: CUDA looks at its environment once.
"""

import os
from collections.abc import Sequence
from pathlib import Path

NODES = Path("/proc/driver/nvidia/gpus")
"""The driver's folder for each GPU."""


def order(turn: int, cards: Sequence[str]) -> str | None:
    """List all GPUs, beginning with another one for each turn.

    Args:
        turn: any number from 0 on.
        cards: their names for CUDA.

    Returns:
        What `CUDA_VISIBLE_DEVICES` is to be, or None where there is nothing to share.
    """
    if len(cards) < 2:
        return None
    first = turn % len(cards)
    return ",".join((*cards[first:], *cards[:first]))


def share(turn: int) -> dict[str, str]:
    """Give a process its first GPU.

    Args:
        turn: which process it is, from 0 on.

    Returns:
        What to add to its environment: the same GPUs as here, in another order.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        found = order(turn, given.split(","))
    else:
        count = len(list(NODES.iterdir())) if NODES.is_dir() else 0
        found = order(turn, [str(i) for i in range(count)])
    return {"CUDA_VISIBLE_DEVICES": found} if found else {}
