"""NumPy arrays as arguments of interpreted kernels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tilebook.browser import libtriton


class Tensor(np.ndarray):
    """An array that counts its strides in elements, as kernels do."""

    def stride(self, axis: int | None = None) -> Any:
        """Return the distance between neighbours along an axis, or along each."""
        steps = tuple(step // self.itemsize for step in self.strides)
        return steps if axis is None else steps[axis]

    def numel(self) -> int:
        """Return how many elements there are."""
        return int(np.prod(self.shape, dtype=np.int64))


class Argument:
    """An array as Triton's interpreter and the bounds check see it.

    Args:
        array: of any strides that are multiples of its element's size.
        dtype: of its elements, where NumPy has none of that name.
    """

    def __init__(self, array: np.ndarray, dtype: str | None = None) -> None:
        if any(step % array.itemsize for step in array.strides):
            raise ValueError("the strides of an argument are whole elements")
        self.array = array
        self.dtype = dtype or array.dtype
        self.shape = array.shape

    def data_ptr(self) -> int:
        """Return the address of the first element."""
        return int(self.array.__array_interface__["data"][0])

    def element_size(self) -> int:
        """Return an element's bytes."""
        return self.array.itemsize

    def numel(self) -> int:
        """Return how many elements there are."""
        return self.array.size

    def size(self) -> tuple[int, ...]:
        """Return the shape."""
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        """Return the strides, in elements."""
        return tuple(step // self.array.itemsize for step in self.array.strides)


def _argument(value: Any) -> Any:
    """Return what a kernel gets for a value, registered if it is an array."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        value = Argument(value)
    if isinstance(value, Argument):
        libtriton.memory.register(value.array)
    elif isinstance(value, tuple):
        # Named tuples are made of their fields.
        parts = map(_argument, value)
        plain = type(value) is tuple
        return tuple(parts) if plain else type(value)(*parts)
    elif isinstance(value, TensorDescriptor):
        _argument(value.base)
    return value


def _take(original: Callable) -> Callable:
    def init_args(self: Any, args: Any, kwargs: Any) -> Any:
        libtriton.memory.forget()
        taken = [_argument(value) for value in args]
        return taken, {name: _argument(value) for name, value in kwargs.items()}

    return init_args


def _leave(original: Callable) -> Callable:
    def restore_args(self: Any, *args: Any) -> None:
        """Do nothing: kernels have worked on the arrays themselves."""

    return restore_args


def install() -> None:
    """Let interpreted kernels take NumPy arrays in place of tensors."""
    from triton.runtime import interpreter as upstream

    from tilebook.interpreter.patches import replace

    replace(upstream.GridExecutor, "_init_args_hst", _take)
    replace(upstream.GridExecutor, "_restore_args_dev", _leave)
