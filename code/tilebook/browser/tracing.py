"""What each program of a launch reads and writes, for a picture (NumPy only)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tilebook.browser import libtriton
from tilebook.interpreter import Access, OutOfBounds, bounds
from tilebook.microscope.races import Race, find

EVENTS = 4000
"""Accesses that are kept of a launch."""
RUNS = 60_000
"""Runs of elements that are kept of it."""
LAUNCHES = 8
"""Launches that are kept of a run."""


def runs(elements: np.ndarray) -> list[int]:
    """Write a list of numbers as arithmetic series.

    Args:
        elements: int64, in any order.

    Returns:
        First, step and count of each series, one after another.
    """
    flat = elements.reshape(-1)
    if flat.size == 0:
        return []
    steps = np.diff(flat)
    found, counts = np.unique(steps, return_counts=True)
    step = int(found[counts.argmax()]) if steps.size else 1
    starts = np.concatenate([[0], np.flatnonzero(steps != step) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    series = np.stack([flat[starts], np.full(starts.shape, step), lengths], axis=1)
    return series.reshape(-1).tolist()


class Places:
    """Which element of a tensor each place of its memory is.

    Args:
        array: the tensor.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        steps = [step // array.itemsize for step in array.strides]
        offsets = np.zeros(array.shape, dtype=np.int64)
        for axis, step in enumerate(steps):
            shape = [1] * array.ndim
            shape[axis] = -1
            offsets = offsets + (np.arange(array.shape[axis]) * step).reshape(shape)
        flat = offsets.reshape(-1)
        self.dense = bool(np.array_equal(flat, np.arange(flat.size)))
        self.first = int(flat.min(initial=0))
        self.numbers = np.full(int(flat.max(initial=-1)) - self.first + 1, -1)
        self.numbers[flat - self.first] = np.arange(flat.size)

    def of(self, elements: np.ndarray) -> np.ndarray:
        """Return the numbers of elements in a tensor's order, gaps left out."""
        if self.dense:
            return elements
        found = self.numbers[elements - self.first]
        return found[found >= 0]


class Launch:
    """What is kept of one launch.

    Args:
        kernel: its name.
    """

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.accesses: list[Access] = []
        self.programs: dict[tuple[int, int, int], int] = {}
        self.tensors: dict[str, tuple[int, Places]] = {}
        self.events: list[list[Any]] = []
        self.kept = 0
        self.cut = False

    def add(self, access: Access) -> None:
        """Keep an access, as long as there is room."""
        if len(self.events) >= EVENTS or self.kept >= RUNS:
            self.cut = True
            return
        program = self.programs.setdefault(access.program, len(self.programs))
        number, places = self.tensor(access)
        series = runs(places.of(access.touched()))
        self.kept += len(series) // 3
        self.accesses.append(access)
        self.events.append([program, access.op, number, access.line, series])

    def tensor(self, access: Access) -> tuple[int, Places]:
        """Return the number of an access's tensor, and its places."""
        if access.argument not in self.tensors:
            array = libtriton.memory.at(access.address)
            if array is None:
                array = np.empty(0, dtype=np.uint8)
            self.tensors[access.argument] = (len(self.tensors), Places(array))
        return self.tensors[access.argument]

    def races(self) -> Iterator[dict[str, Any]]:
        """Yield what two programs fight over, tensor by tensor."""
        found: tuple[Race, ...] = find(self.accesses, self.programs)
        for race in found:
            number, places = self.tensors[race.arguments[0]]
            series = runs(places.of(race.elements))
            yield {"tensor": number, "runs": series, "text": str(race)}

    def data(self) -> dict[str, Any]:
        """Return all of it, as lists and dictionaries."""
        tensors = [
            {"name": name.removesuffix("_ptr"), "shape": list(places.array.shape)}
            for name, (_, places) in self.tensors.items()
        ]
        return {
            "kernel": self.kernel,
            "tensors": tensors,
            "programs": [list(program) for program in self.programs],
            "events": self.events,
            "races": list(self.races()),
            "cut": self.cut,
        }


class Recorder:
    """Notes every access; to be given to `tilebook.interpreter.observing`."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.more = 0
        self._now: Any = None

    def __call__(self, access: Access) -> None:
        """Note an access of the launch that is running."""
        running = bounds.launches[-1]
        if running is not self._now:
            self._now = running
            if len(self.launches) < LAUNCHES:
                self.launches.append(Launch(running.kernel))
            else:
                self.more += 1
        if not self.more:
            self.launches[-1].add(access)

    def data(self, error: BaseException | None = None) -> dict[str, Any]:
        """Return what was noted, and where a launch ran out of bounds.

        Args:
            error: what ended the run, if anything did.
        """
        result: dict[str, Any] = {
            "launches": [launch.data() for launch in self.launches],
            "more": self.more,
        }
        if isinstance(error, OutOfBounds):
            result["outside"] = {
                "kernel": error.kernel,
                "program": list(error.program),
                "tensor": (error.argument or "").removesuffix("_ptr"),
                "element": error.element,
                "elements": error.elements,
                "op": error.op,
                "line": error.line,
            }
        return result
