"""Tiles in registers."""

import itertools
import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
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
    gl.float8e4nv: torch.float8_e4m3fn,
    gl.float8e5: torch.float8_e5m2,
    gl.int1: torch.bool,
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

    @property
    def type(self) -> SimpleNamespace:
        """Of the tile; layouts are none."""
        return SimpleNamespace(shape=self.shape, layout=None)

    def __rtruediv__(self, one: float) -> "Tile":
        return Tile(one / self.value)

    def to(self, dtype: gl.dtype) -> "Tile":
        """Convert."""
        return Tile(self.value.to(DTYPES[dtype]))

    def reshape(self, shape: Sequence[int]) -> "Tile":
        """Give it another shape."""
        return Tile(self.value.reshape(list(shape)))

    def permute(self, order: Sequence[int]) -> "Tile":
        """Reorder its dimensions."""
        return Tile(self.value.permute(tuple(order)))


class Pointer(Missing):
    """An address in global memory, or a tile of them.

    Args:
        base: the tensor that was passed.
        offset: elements from its first one: an integer, or a tile of them.
    """

    def __init__(self, base: torch.Tensor, offset: Any = 0) -> None:
        self.base = base
        self.offset = offset

    def __add__(self, more: Any) -> "Pointer":
        return Pointer(self.base, self.offset + more)

    def read(self, mask: Any, other: Any) -> Any:
        """Load what is there, and nothing where the mask is off.

        Args:
            mask: a truth, a tile of them, or None.
            other: what lanes get that are off.

        Raises:
            IndexError: a lane that is on lies outside the tensor.
        """
        flat = self.base.as_strided((extent(self.base),), (1,))
        if not isinstance(self.offset, Tile):
            if mask is not None and not mask:
                return other
            return _inside(flat, torch.tensor(self.offset)).item()
        at = self.offset.value
        on = _lanes(at, mask)
        found = _inside(flat, torch.where(on, at, 0))
        return Tile(torch.where(on, found, torch.tensor(other, dtype=found.dtype)))

    def write(self, value: Any, mask: Any) -> None:
        """Store there, and nothing where the mask is off.

        Args:
            value: a number, or a tile of them.
            mask: a truth, a tile of them, or None.

        Raises:
            IndexError: a lane that is on lies outside the tensor.
        """
        flat = self.base.as_strided((extent(self.base),), (1,))
        if isinstance(self.offset, Tile):
            at = self.offset.value
            on = _lanes(at, mask)
            _inside(flat, at[on])
            flat[at[on]] = value.value[on].to(flat.dtype)
        elif mask is None or mask:
            _inside(flat, torch.tensor(self.offset))
            flat[self.offset] = value


def _lanes(at: torch.Tensor, mask: Any) -> torch.Tensor:
    """Which lanes are on."""
    return torch.ones_like(at, dtype=torch.bool) if mask is None else mask.value


def extent(x: torch.Tensor) -> int:
    """Elements from a tensor's first one to the end of its last."""
    sizes = zip(x.shape, x.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in sizes)


def _inside(flat: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    if bool(((at < 0) | (at >= len(flat))).any()):
        raise IndexError(f"a load outside of a tensor of {len(flat)} elements")
    return flat[at]


def _raw(x: Any) -> Any:
    if isinstance(x, Tile):
        return x.value
    # Of sums whose products are under way this asks too soon, and says so.
    return x if isinstance(x, int | float) else x.shape


def _operation(name: str) -> Callable[..., Tile]:
    def operate(self: Tile, other: Any) -> Tile:
        return Tile(getattr(operator, f"__{name}__")(self.value, _raw(other)))

    return operate


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *args: Any) -> Any:
        raise NotImplementedError(f"Tile.{name} is not modelled")

    return refuse


for _name, _side in itertools.product(("mod", "or", "xor"), ("", "r")):
    setattr(Tile, f"__{_side}{_name}__", _refuse(f"__{_side}{_name}__"))
for _name in ("rsub", "truediv", "neg", "getitem", "gt"):
    setattr(Tile, f"__{_name}__", _refuse(f"__{_name}__"))
# What finds places in memory, what scales sums, and what makes weights of scores.
for _name in ("add", "sub", "mul", "floordiv", "lt", "le", "ge", "and"):
    setattr(Tile, f"__{_name}__", _operation(_name))
for _name in ("add", "mul", "and"):
    setattr(Tile, f"__r{_name}__", _operation(_name))
