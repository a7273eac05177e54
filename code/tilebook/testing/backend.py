"""What the exercise checker needs of a tensor library (NumPy only)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Read:
    """A tensor's contents.

    Args:
        values: as float64, or int64 for integers and bool (uint64 as it is).
        dtype: name of its dtype.
        never: which elements still hold poison, bool.
        bits: its elements' bytes, to tell whether anything changed.
    """

    values: np.ndarray
    dtype: str
    never: np.ndarray
    bits: bytes


class Backend(Protocol):
    """What the checker needs of a tensor library."""

    def place(self, values: np.ndarray, dtype: str, layout: str) -> Any:
        """Tensor with these values, in guarded memory, laid out as asked."""

    def output(self, shape: tuple[int, ...], dtype: str, initial: float | None) -> Any:
        """Tensor in guarded memory, full of poison unless an initial value is given."""

    def overwrite(self, tensor: Any, values: np.ndarray) -> None:
        """Give a tensor new values, in place."""

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is one of the library's tensors."""

    def read(self, tensor: Any) -> Read:
        """A tensor's contents."""

    def overlap(self, one: Any, other: Any) -> bool:
        """Whether two tensors share memory."""

    def trespass(self, tensor: Any, name: str) -> str | None:
        """What was written outside a tensor made here, as a sentence."""

    def call(
        self, fn: Callable[[], Any], only_triton: bool, empty: bool
    ) -> tuple[Any, str | None]:
        """Result of a call whose own allocations are guarded, and a complaint.

        Args:
            fn: what is called.
            only_triton: complain if anything but a Triton kernel computes.
            empty: whether there is nothing that a kernel could do.
        """
