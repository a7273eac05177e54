"""What threads compute on tiles, and global memory that they write themselves."""

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton.experimental.gluon.language as gl

from tilebook.schedules.tiles import DTYPES, Pointer, Tile


def full(shape: Sequence[int], value: Any, dtype: gl.dtype, layout: Any = None) -> Tile:
    """A tile of one number."""
    return Tile(torch.full([*shape], value, dtype=DTYPES[dtype]))


def _either(
    numbers: Callable[..., Any], tiles: Callable[..., torch.Tensor]
) -> Callable[..., Any]:
    def choose(x: Any, y: Any) -> Any:
        if isinstance(x, Tile) and isinstance(y, Tile):
            return Tile(tiles(x.value, y.value))
        return numbers(x, y)

    return choose


maximum = _either(builtins.max, torch.maximum)
"""The greater of two numbers, or of each pair of elements of two tiles."""
minimum = _either(builtins.min, torch.minimum)
"""The lesser of two numbers, or of each pair of elements of two tiles."""


def _reduced(value: torch.Tensor) -> Any:
    # Of a vector one number is left, which the kernel's own Python may go on with.
    return Tile(value) if value.dim() else value.item()


def max(input: Tile, axis: int) -> Any:
    """The greatest element along a dimension."""
    return _reduced(input.value.amax(axis))


def sum(input: Tile, axis: int) -> Any:
    """The sum along a dimension."""
    return _reduced(input.value.sum(axis))


def exp2(x: Tile) -> Tile:
    """A power of two."""
    return Tile(x.value.exp2())


def log2(x: Tile) -> Tile:
    """The logarithm of which `exp2` is the inverse."""
    return Tile(x.value.log2())


def where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of one tile, or of another; of numbers, one."""
    if not isinstance(condition, Tile):
        return x if condition else y
    chosen = [value.value if isinstance(value, Tile) else value for value in (x, y)]
    return Tile(torch.where(condition.value, *chosen))


def convert_layout(value: Tile, layout: Any, assert_trivial: bool = False) -> Tile:
    """The same elements, in other threads."""
    return value


def store(pointer: Pointer, value: Any, mask: Any = None) -> None:
    """Write global memory."""
    pointer.write(value, mask)


def atomic_add(pointer: Pointer, val: Any, sem: str | None = None) -> Any:
    """Add to a number in global memory, or to a tile's; what was there before.

    Programs run one after another here, so nobody comes between.
    """
    before = pointer.read(None, math.nan)
    pointer.write(before + val, None)
    return before
