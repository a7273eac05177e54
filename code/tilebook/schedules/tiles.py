"""Tiles in registers."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton.experimental.gluon.language as gl


class Missing:
    """What stands for Gluon's objects and hasn't all of their methods."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = type(self).__name__
        raise NotImplementedError(f"{kind}.{name} is not modelled")


DTYPES = {
    gl.bfloat16: torch.bfloat16,
    gl.float16: torch.float16,
    gl.float32: torch.float32,
    gl.int8: torch.int8,
    gl.int32: torch.int32,
    gl.int64: torch.int64,
}
TYPES = {value: key for key, value in DTYPES.items()}


class Tile(Missing):
    """A tensor in registers.

    Args:
        value: its elements.
    """

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    @property
    def shape(self) -> list[int]:
        """Of the tile."""
        return list(self.value.shape)

    @property
    def dtype(self) -> gl.dtype:
        """Of its elements."""
        return TYPES[self.value.dtype]

    def to(self, dtype: gl.dtype) -> "Tile":
        """Convert."""
        return Tile(self.value.to(DTYPES[dtype]))

    def reshape(self, shape: Sequence[int]) -> "Tile":
        """Give it another shape."""
        return Tile(self.value.reshape(list(shape)))

    def permute(self, order: Sequence[int]) -> "Tile":
        """Reorder its dimensions."""
        return Tile(self.value.permute(tuple(order)))


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *args: Any) -> Any:
        raise NotImplementedError(f"Tile.{name} is not modelled")

    return refuse


for _name, _side in itertools.product(
    ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor"), ("", "r")
):
    setattr(Tile, f"__{_side}{_name}__", _refuse(f"__{_side}{_name}__"))
for _name in ("neg", "getitem", "lt", "le", "gt", "ge"):
    setattr(Tile, f"__{_name}__", _refuse(f"__{_name}__"))
