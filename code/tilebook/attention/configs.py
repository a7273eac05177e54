"""How the chapter's kernels for Hopper are launched."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tilebook import device
from tilebook.hopper.launching import SHARED


class Config(NamedTuple):
    """How a kernel is launched."""

    part: int
    """Rows of a group of four warps, a power of two, no more than `block_n`."""
    parts: int
    """Groups that share a tile, 2 or 3."""
    block_n: int
    """Keys of a block, a power of two."""
    stages: int
    """Blocks of keys and values that are on their way or in use, at least 2."""
    q_stages: int = 1
    """Tiles whose queries are here or on their way."""
    pieces: int = 1
    """Pieces, a power of two, in which a part is stored."""
    dynamic: bool | None = None
    """Whether programs ask for their next tile, and don't know it beforehand; None for
    where tiles differ."""
    halved: bool = False
    """Under a causal mask: whether the first group makes scores of half a block where
    the other half is beyond the diagonal, see `folding.half`."""
    placed: bool = False
    """Whether programs that ask for their next tile are told where it is, too."""


def that_fits(configs: Iterable[Any], needed: Callable[[Any], int]) -> Any:
    """Return the first configuration that this process's GPU has room for.

    Args:
        configs: to choose from.
        needed: bytes of shared memory that one takes.

    Raises:
        ValueError: there is room for none.
    """
    room = device.current().shared_memory_per_block or SHARED
    for config in configs:
        if needed(config) <= room:
            return config
    raise ValueError(f"no configuration fits into {room} bytes of shared memory")
