"""Every access of an interpreted kernel, checked against the tensors it was given.

A pointer remembers the argument it came from, so that running off the end of one
tensor is an error even where another happens to lie behind it. A pointer of unknown
origin (loaded from memory, or made from an integer) may touch any argument, and any
tensor named with `allow`.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilebook.interpreter.access import Access, Stray

_HERE = os.path.dirname(__file__) + os.sep
# The key under which a Triton handle's attributes name the argument it points into.
ORIGIN = "tilebook.argument"


class OutOfBounds(IndexError):
    """A kernel touched memory outside every tensor it was given.

    Attributes are what the message says: `kernel`, `op` ("load", "store" or "atomic"),
    `argument` (None if unknown), `program`, `element` (the first bad index, counted in
    elements from the tensor's first), `elements` (how many there are), `line`.
    """

    def __init__(
        self,
        *,
        kernel: str,
        op: str,
        argument: str | None,
        program: tuple[int, int, int],
        element: int,
        elements: int,
        line: int,
        inside: str | None = None,
    ) -> None:
        self.kernel, self.op, self.argument = kernel, op, argument
        self.program, self.line = program, line
        self.element, self.elements = element, elements
        first = np.array([element], dtype=object)
        stray = Stray(op, argument, program, line, first, elements, inside)
        super().__init__(f"{kernel}, {stray}")


@dataclasses.dataclass(frozen=True)
class Extent:
    """The memory from a tensor's lowest to its highest element, in byte addresses."""

    name: str
    start: int
    stop: int
    itemsize: int

    @property
    def elements(self) -> int:
        return (self.stop - self.start) // self.itemsize

    def holds(self, low: int, high: int) -> bool:
        return self.start <= low and high <= self.stop


def extent(tensor: Any, name: str) -> Extent:
    """Measure a tensor's extent: of the view itself, not of the storage under it."""
    tensor = getattr(tensor, "base", tensor)  # of a tensor that Triton reinterprets
    start, itemsize = tensor.data_ptr(), tensor.element_size()
    span = 0
    if tensor.numel() > 0:
        steps = zip(tensor.size(), tensor.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in steps)
    return Extent(name, start, start + span * itemsize, itemsize)


@dataclasses.dataclass
class Launch:
    """What the check knows of the kernel that is running."""

    kernel: str
    arguments: list[Extent] = dataclasses.field(default_factory=list)
    # The launched objects' identities; the launch keeps them alive.
    origins: dict[int, Extent] = dataclasses.field(default_factory=dict)
    # Names of the language's modules that stand replaced while it runs.
    patched: set[str] = dataclasses.field(default_factory=set)

    def add(self, tensor: Any, name: str) -> None:
        found = extent(tensor, name)
        self.arguments.append(found)
        self.origins[id(tensor)] = found


launches: list[Launch] = []
_allowed: list[Extent] = []
_observers: list[Callable[[Access], None]] = []
_collectors: list[Callable[[Stray], None]] = []


@contextlib.contextmanager
def allow(tensor: Any, name: str = "allowed tensor") -> Iterator[None]:
    """Let kernels reach a tensor that they aren't given, through pointers in memory.

    Args:
        tensor: a CPU tensor whose address a kernel loads from memory or computes.
        name: what messages and observers call it.
    """
    found = extent(tensor, name)
    _allowed.append(found)
    try:
        yield
    finally:
        _allowed.remove(found)


@contextlib.contextmanager
def observing(callback: Callable[[Access], None]) -> Iterator[None]:
    """Call back for every load, store and atomic of the kernels launched inside.

    Args:
        callback: gets an `Access` after a load, and before a store or an atomic. Lanes
            that reach different arguments come as one `Access` for each.
    """
    _observers.append(callback)
    try:
        yield
    finally:
        _observers.remove(callback)


@contextlib.contextmanager
def straying(callback: Callable[[Stray], None]) -> Iterator[None]:
    """Report accesses outside every tensor instead of stopping at the first.

    Args:
        callback: gets a `Stray` for each access with lanes that would leave. These are
            turned off and the kernel goes on: loads give zero there.
    """
    _collectors.append(callback)
    try:
        yield
    finally:
        _collectors.remove(callback)


def observed() -> bool:
    """Whether anybody watches, so that what nobody sees need not be prepared."""
    return bool(_observers)


def check(
    op: str,
    pointers: np.ndarray,
    mask: np.ndarray,
    width: int,
    origin: Extent | None,
    program: tuple[int, int, int],
) -> np.ndarray | None:
    """Raise `OutOfBounds` unless all active lanes stay inside what they may touch.

    Args:
        op: "load", "store" or "atomic".
        pointers: uint64 byte addresses, any shape.
        mask: bool, same shape; lanes that are off are not looked at.
        width: bytes that each lane touches.
        origin: the argument that the pointers came from, if known.
        program: the running program's indices.

    Returns:
        None, or if somebody collects what strays: bool, the lanes that may go on.
    """
    active = pointers if mask.all() else pointers[mask]
    if active.size == 0 or not launches:
        return None
    low, high = int(active.min()), int(active.max()) + width
    if origin is not None and origin.holds(low, high):
        return None
    launch = launches[-1]
    permitted = [origin] if origin is not None else launch.arguments
    permitted = permitted + _allowed
    if any(e.holds(low, high) for e in permitted):
        return None
    good = np.zeros(active.shape, dtype=bool)
    for e in permitted:
        # Compared by distance: an address past the end of memory wraps around.
        room = e.stop - e.start - width
        if room >= 0:
            good |= (active - np.uint64(e.start)) <= np.uint64(room)
    if good.all():
        return None
    bad = [int(address) for address in np.ravel(active[~good])]
    inside = next(
        (e.name for e in launch.arguments if e.holds(bad[0], bad[0] + width)), None
    )
    if origin is not None:
        signed = [(b - origin.start + 2**63) % 2**64 - 2**63 for b in bad]
        bad = [distance // origin.itemsize for distance in signed]
    name, line = (origin.name if origin else None), _kernel_place()[1]
    count = origin.elements if origin else 0
    if not _collectors:
        raise OutOfBounds(
            kernel=launch.kernel,
            op=op,
            argument=name,
            program=program,
            element=bad[0],
            elements=count,
            line=line,
            inside=inside,
        )
    elements = np.array(bad, dtype=np.int64 if origin else np.uint64)
    for callback in _collectors:
        callback(Stray(op, name, program, line, elements, count, inside))
    lanes = mask.copy()
    lanes[mask] = np.ravel(good)
    return lanes


def report(
    op: str,
    pointers: np.ndarray,
    mask: np.ndarray,
    width: int,
    origin: Extent | None,
    program: tuple[int, int, int],
    values: np.ndarray,
) -> None:
    """Tell the observers of an access that `check` let pass; arguments as there."""
    if not launches:
        return
    file, line = _kernel_place()
    values = np.broadcast_to(values, pointers.shape).copy()
    left = mask.copy()
    targets = ([origin] if origin else launches[-1].arguments) + _allowed
    for target in targets:
        offsets = (pointers - np.uint64(target.start)).view(np.int64)
        reach = target.stop - target.start - width
        here = left & (offsets >= 0) & (offsets <= reach)
        left &= ~here
        # An access whose lanes are all off is still one through its argument.
        if not here.any() and (target is not origin or mask.any()):
            continue
        access = Access(
            op,
            target.name,
            program,
            target.start,
            target.itemsize,
            offsets,
            width,
            here,
            line,
            values,
            file,
        )
        for callback in _observers:
            callback(access)


def _kernel_place() -> tuple[str, int]:
    """The source file and line at which the running kernel, or its helper, stands."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        module = frame.f_globals.get("__name__", "")
        if not file.startswith(_HERE) and module.partition(".")[0] != "triton":
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0
