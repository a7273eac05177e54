"""The tensors that a kernel is given, as the microscope remembers them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_POISONED = "_tilebook_poisoned"


@dataclass(frozen=True, eq=False)
class Argument:
    """A tensor that the kernel was given.

    Args:
        shape: in elements.
        strides: in elements.
        itemsize: bytes per element.
        address: of the first element, where the kernel ran.
        undefined: bool, which elements from the first to the last in memory were
            still poisoned before the launch; None if the tensor isn't marked.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    address: int
    undefined: np.ndarray | None

    @classmethod
    def of(cls, tensor: torch.Tensor, poisoned: bool) -> Argument:
        """Describe a tensor before the launch.

        Args:
            tensor: the argument.
            poisoned: whether it is marked by `poison`.

        Returns:
            The description.
        """
        shape, strides = tuple(tensor.shape), tuple(tensor.stride())
        argument = cls(
            shape, strides, tensor.element_size(), tensor.data_ptr(), undefined=None
        )
        if not poisoned:
            return argument
        memory = tensor.as_strided((argument.extent(),), (1,))
        undefined = (
            memory.float().isnan() if _has_nan(memory) else memory == _rubbish(memory)
        )
        return cls(
            shape,
            strides,
            argument.itemsize,
            argument.address,
            undefined.cpu().numpy(),
        )

    def positions(self) -> np.ndarray:
        """Say where each element lies in memory, in elements from the first.

        Returns:
            int64 array of the tensor's shape.
        """
        positions = np.zeros(self.shape, dtype=np.int64)
        for axis, stride in enumerate(self.strides):
            shape = [1] * len(self.shape)
            shape[axis] = -1
            positions += (np.arange(self.shape[axis]) * stride).reshape(shape)
        return positions

    def extent(self) -> int:
        """Count the elements of memory from the tensor's first to its last."""
        positions = self.positions()
        return int(positions.max()) + 1 if positions.size else 0


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with rubbish and mark it, so that a look reports reads of it.

    What is written afterwards counts as initialised. The mark is on this tensor
    object: a view or a copy made of it has none.

    Args:
        tensor: any dtype and device; changed in place.

    Returns:
        The tensor itself: all NaN, or the largest integer of its dtype.
    """
    tensor.fill_(_rubbish(tensor))
    setattr(tensor, _POISONED, True)
    return tensor


def is_poisoned(tensor: torch.Tensor) -> bool:
    """Whether `poison` marked this tensor."""
    return hasattr(tensor, _POISONED)


def _has_nan(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point


def _rubbish(tensor: torch.Tensor) -> float | int | bool:
    if _has_nan(tensor):
        return float("nan")
    return True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max
