"""Shared memory and the barriers in it."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from tilebook.schedules.machine import ScheduleError, here
from tilebook.schedules.tiles import DTYPES, Missing, Tile, extent

MOST = 2**20 - 1
"""What a barrier can count, of arrivals and of bytes."""


class Named(Missing):
    """Something in shared memory, called as the kernel calls it: by the parameter of a
    partition, or by the kernel's variable.

    Args:
        name: of a view, for messages.
    """

    def __init__(self, name: str = "") -> None:
        self._settled = bool(name)
        if not name:
            here().memories += 1
            name = f"memory {here().memories}"
        self.name = name

    def call(self, name: str) -> None:
        """Take a name for good; the first counts."""
        if not self._settled:
            self.name, self._settled = name, True

    def christen(self) -> None:
        """Take the name of the kernel's variable that holds it, if there is one yet."""
        frame = sys._getframe(2)
        # A kernel's translated functions have no module; the outermost one decides.
        while not self._settled and frame and "__name__" not in frame.f_globals:
            held = [name for name, x in frame.f_locals.items() if x is self]
            self.name = held[0] if held else self.name
            frame = frame.f_back


class Memory(Named):
    """Shared memory, or a view of some of it.

    Args:
        data: the tensor behind it; views share its storage.
        dtype: of its elements, as Gluon calls it.
        name: of a view, for messages.
    """

    def __init__(self, data: torch.Tensor, dtype: Any, name: str = "") -> None:
        super().__init__(name)
        self.data = data
        self.dtype = dtype

    @property
    def shape(self) -> list[int]:
        """Of the view."""
        return list(self.data.shape)

    def index(self, i: int) -> "Memory":
        """The i-th part along the first dimension."""
        self.christen()
        if not 0 <= i < self.data.shape[0]:
            raise ScheduleError(f"{self.name} has no part {i}")
        return Memory(self.data[i], self.dtype, f"{self.name}[{i}]")

    def slice(self, start: int, length: int, dim: int = 0) -> "Memory":
        """Some of it along a dimension.

        Raises:
            ScheduleError: it ends before that.
        """
        self.christen()
        if not 0 <= start <= start + length <= self.data.shape[dim]:
            raise ScheduleError(f"{self.name} has no part {start} to {start + length}")
        return Memory(self.data.narrow(dim, start, length), self.dtype, self.name)

    def permute(self, order: tuple[int, ...]) -> "Memory":
        """The same bytes, read in another order."""
        self.christen()
        return Memory(self.data.permute(order), self.dtype, self.name)

    def reshape(self, shape: Sequence[int]) -> "Memory":
        """The same bytes as a tile of another shape."""
        self.christen()
        return Memory(self.data.view(*shape), self.dtype, self.name)

    def seen_as(self, dtype: Any, shape: Sequence[int]) -> "Memory":
        """The same bytes as a tile of another type.

        Raises:
            ScheduleError: it has another number of bytes.
        """
        self.christen()
        found = self.data.view(DTYPES[dtype])
        if found.numel() != math.prod(shape):
            raise ScheduleError(f"{self.name} is {self.shape} of {self.dtype}")
        return Memory(found.view(*shape), dtype, self.name)

    def store(self, value: Tile) -> None:
        """Write from registers."""
        self.christen()
        machine = here()
        machine.say("write", self.name)
        self.check(value.shape, value.dtype)
        self.data.copy_(value.value)
        machine.unfenced.append((machine.current, self))
        machine.pause()

    def load(self, layout: Any = None) -> Tile:
        """Read into registers."""
        self.christen()
        machine = here()
        machine.say("read", self.name)
        found = Tile(self.data.clone())
        machine.pause()
        return found

    def check(self, shape: Any, dtype: Any) -> None:
        """See that a tile fits in here.

        Raises:
            ScheduleError: it has another shape or another dtype.
        """
        if (list(shape), dtype) != (self.shape, self.dtype):
            raise ScheduleError(
                f"{self.name} is {self.shape} of {self.dtype}, not {list(shape)} of "
                f"{dtype}"
            )

    def poison(self) -> None:
        """Fill it with what nobody may read."""
        floating = self.data.is_floating_point()
        self.data.fill_(float("nan") if floating else torch.iinfo(self.data.dtype).min)

    def seen_by_engines(self) -> None:
        """See that an engine finds here what threads wrote.

        Raises:
            ScheduleError: whoever wrote it has no fence between.
        """
        for writer, other in here().unfenced:
            if _overlap(self.data, other.data):
                raise ScheduleError(
                    f"{writer.name} wrote {other.name}, and an engine is sent there "
                    "with no fence between"
                )


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    # A slice's gaps count as its own: who writes between its rows needs a fence, too.
    ends = [(x.data_ptr(), x.data_ptr() + extent(x) * x.itemsize) for x in (one, other)]
    return max(begin for begin, _ in ends) < min(end for _, end in ends)


class Barriers(Named):
    """Barriers in shared memory.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._found = [Barrier(self, i) for i in range(count)]

    @property
    def shape(self) -> list[int]:
        """As in Gluon."""
        return [len(self._found), 1]

    def index(self, i: int) -> "Barrier":
        """The i-th."""
        self.christen()
        if not 0 <= i < len(self._found):
            raise ScheduleError(f"{self.name} has no part {i}")
        return self._found[i]


class Barrier(Missing):
    """An mbarrier: a phase is over when all have arrived and all bytes have come.

    Args:
        group: where it is.
        i: which of them.
    """

    def __init__(self, group: Barriers, i: int) -> None:
        self._group = group
        self._i = i
        self._count = 0
        self._phase = 0
        self._missing = 0
        self._bytes = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self._group.name}[{self._i}]"

    def init(self, count: int) -> None:
        """Begin the first phase.

        Raises:
            ScheduleError: it is under way, or the count isn't from 1 to `MOST`.
        """
        if self._count:
            raise ScheduleError(f"{self.name} is initialised already")
        if not 1 <= count <= MOST:
            raise ScheduleError(f"{self.name} can't wait for {count} arrivals")
        self._count = self._missing = count

    def ready(self) -> "Barrier":
        """It, once it is initialised.

        Raises:
            ScheduleError: it isn't.
        """
        if not self._count:
            raise ScheduleError(f"{self.name} was not initialised")
        return self

    def arrive(self, count: int = 1) -> None:
        """Take arrivals.

        Raises:
            ScheduleError: the phase has had its arrivals.
        """
        if not 1 <= count <= self._missing:
            raise ScheduleError(
                f"{self.name}: {count} more of {self._count} arrivals, and "
                f"{self._missing} are missing"
            )
        self._missing -= count
        self._turn()

    def more(self) -> None:
        """Expect one more arrival in this phase.

        Raises:
            ScheduleError: more than it can count.
        """
        self._missing += 1
        if self._missing > MOST:
            raise ScheduleError(f"{self.name} can't wait for {self._missing} arrivals")

    def come(self, nbytes: int) -> None:
        """Take bytes; a negative number is of those to come.

        Raises:
            ScheduleError: more than it can count.
        """
        self._bytes -= nbytes
        if abs(self._bytes) > MOST:
            raise ScheduleError(f"{self.name} can't count {self._bytes} bytes")
        if nbytes > 0:
            self._turn()

    def _turn(self) -> None:
        if not self._missing and not self._bytes:
            self._phase += 1
            self._missing = self._count

    def passed(self, parity: int) -> bool:
        """Whether the phase before the one that goes on has a parity."""
        return (self._phase - 1) & 1 == parity

    def state(self) -> str:
        """How far it is, for messages."""
        lacks = []
        if self._missing:
            lacks.append(f"{self._missing} of {self._count} arrivals missing")
        if self._bytes:
            wrong = "missing" if self._bytes > 0 else "too many"
            lacks.append(f"{abs(self._bytes)} bytes {wrong}")
        return f"phase {self._phase} goes on, {', '.join(lacks)}"
