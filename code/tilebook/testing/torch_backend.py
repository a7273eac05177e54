"""Exercises on torch tensors: how the checker places, reads and guards them."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from tilebook.testing import poison
from tilebook.testing.backend import Read
from tilebook.testing.cases import layouts
from tilebook.testing.closeness import widened
from tilebook.testing.guards import Guard, GuardError, allocate, guard, guarded
from tilebook.testing.precision import dtype_name
from tilebook.testing.spy import ComputeSpy, launches


class TorchBackend:
    """Torch tensors on a device, in guarded memory.

    Args:
        device: where they lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # By address of their storage, which lives as long as the guard.
        self._guards: dict[int, Guard] = {}

    def place(self, values: np.ndarray, dtype: str, layout: str) -> torch.Tensor:
        """Tensor with these values, in guarded memory, laid out as asked."""
        tensor = self._tensor(values, dtype)
        laid = dict(layouts(tensor)).get(layout, tensor)
        return self._keep(guard(laid))

    def output(
        self, shape: tuple[int, ...], dtype: str, initial: float | None
    ) -> torch.Tensor:
        """Tensor in guarded memory, full of poison unless an initial value is given."""
        plain = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        made = allocate(plain.shape, plain.stride(), plain.dtype, self._device)
        if initial is not None:
            made.tensor.fill_(initial)
        return self._keep(made)

    def overwrite(self, tensor: torch.Tensor, values: np.ndarray) -> None:
        """Give a tensor new values, in place."""
        tensor.copy_(self._tensor(values, dtype_name(tensor.dtype)))

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor."""
        return isinstance(value, torch.Tensor)

    def read(self, tensor: torch.Tensor) -> Read:
        """A tensor's contents."""
        tensor = tensor.detach()
        made = self._guards.get(_address(tensor))
        never = poison.untouched(tensor, made.unwritten if made else None)
        wide = widened(tensor)
        raw = poison.flat_bytes(tensor)
        return Read(
            wide.cpu().numpy(),
            dtype_name(tensor.dtype),
            never.cpu().numpy(),
            raw.cpu().numpy().tobytes(),
        )

    def overlap(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether two tensors share memory."""
        return bool(one.numel() and other.numel() and _address(one) == _address(other))

    def trespass(self, tensor: torch.Tensor, name: str) -> str | None:
        """What was written outside a tensor made here, as a sentence."""
        made = self._guards.get(_address(tensor))
        if made is None:
            return None
        try:
            made.check()
        except GuardError as error:
            return str(error).replace(made.name, name, 1)
        return None

    def call(
        self, fn: Callable[[], Any], only_triton: bool, empty: bool
    ) -> tuple[Any, str | None]:
        """Result of a call whose own allocations are guarded, and a complaint."""
        result = complaint = None
        spy = ComputeSpy()
        made: list[Guard] = []
        try:
            with guarded() as made, launches() as seen, ExitStack() as stack:
                if only_triton:
                    stack.enter_context(spy)
                result = fn()
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
        except GuardError as error:
            complaint = str(error)
        for item in made:
            self._guards[_address(item.memory)] = item
        if complaint is None and spy.seen is not None:
            complaint = f"torch computed ({spy.seen}): here the kernel should."
        if complaint is None and only_triton and not (empty or seen.count):
            complaint = "No Triton kernel was launched: here one should compute."
        return result, complaint

    def _tensor(self, values: np.ndarray, dtype: str) -> torch.Tensor:
        # By way of float64: NumPy has no bfloat16.
        array = torch.from_numpy(np.ascontiguousarray(values)).reshape(values.shape)
        return array.to(self._device, getattr(torch, dtype))

    def _keep(self, made: Guard) -> torch.Tensor:
        self._guards[_address(made.tensor)] = made
        return made.tensor


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
