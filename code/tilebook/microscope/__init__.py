"""Look at what every program of a launch touches, on any machine.

    look = microscope.look(add_kernel, (4,), x, y, out, n, BLOCK=256)
    look.ownership("out_ptr")    # which program wrote each element
    look.races()                 # elements that two programs fight over
    look.shape_table()           # every tile in the kernel, with its shape
    microscope.shapes(...)       # the same, shorter, and on demand of what has no name

The kernel runs under the interpreter: in this process if its kernels are interpreted,
otherwise in a helper process. Its results end up in the tensors either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tilebook import _ship
from tilebook.interpreter import Access, Stray
from tilebook.microscope import launches, races, uninitialised
from tilebook.microscope.arguments import Argument, is_poisoned, poison
from tilebook.microscope.listing import shapes
from tilebook.microscope.races import Race
from tilebook.microscope.run import tensors_by_name
from tilebook.microscope.trace import Step

__all__ = [
    "Access",
    "Argument",
    "Look",
    "Race",
    "Step",
    "Stray",
    "look",
    "poison",
    "shapes",
]


@dataclass(frozen=True, eq=False)
class Look:
    """What one launch did.

    Args:
        kernel: the kernel's name.
        grid: number of programs along each axis.
        arguments: the tensors it was given, by parameter name.
        accesses: its loads, stores and atomics, in the order they happened.
        shapes: every value it assigned, in order of appearance.
        printed: what it printed (tl.device_print).
        error: the exception that ended it, as "Type: message"; None if it finished.
        strays: its accesses outside every tensor, if these were to be gone past.
    """

    kernel: str
    grid: tuple[int, int, int]
    arguments: Mapping[str, Argument] = field(repr=False)
    accesses: tuple[Access, ...] = field(repr=False)
    shapes: tuple[Step, ...] = field(repr=False)
    printed: str
    error: str | None
    strays: tuple[Stray, ...] = field(default=(), repr=False)

    def ownership(self, argument: str) -> np.ndarray:
        """Say which program wrote each element of a tensor last.

        Args:
            argument: the kernel's parameter; writes through another one to the same
                memory don't count.

        Returns:
            int64 array of the tensor's shape: the program's number, axis 0 running
            fastest, or -1 where none wrote. Who writes a part of an element, through
            a narrower pointer, owns it.
        """
        return self._accumulate(argument, ("store", "atomic"), -1, _assign)

    def counts(self, argument: str, op: str = "load") -> np.ndarray:
        """Count how often each element of a tensor was touched.

        Args:
            argument: the kernel's parameter; what goes through another one to the same
                memory doesn't count.
            op: "load", "store" or "atomic".

        Returns:
            int64 array of the tensor's shape: how many lanes touched the element, in
            whole or in part.
        """
        return self._accumulate(argument, (op,), 0, _add_one)

    def unwritten(self, argument: str) -> np.ndarray:
        """List the elements of a tensor that no program wrote.

        Args:
            argument: the kernel's parameter; as for `ownership`.

        Returns:
            int64 array of flat indices, row by row, ascending. An element of which
            only some bytes were written is among them.
        """
        tensor = self._tensor(argument)
        written = np.zeros(tensor.extent() * tensor.itemsize, dtype=bool)
        for access in self.accesses:
            if access.argument == argument and access.op != "load":
                written[access.cells(1)] = True
        whole = written.reshape(-1, tensor.itemsize).all(axis=1)
        return np.flatnonzero(~whole[tensor.positions()])

    def uninitialised(self) -> tuple[Access, ...]:
        """List the reads of elements that nobody had written.

        Returns:
            Loads and atomics of tensors marked by `poison`, their masks narrowed to
            the lanes that read a byte which no earlier access had written, through
            this parameter or another one to the same memory.
        """
        return uninitialised.find(self.accesses, self.arguments)

    def races(self) -> tuple[Race, ...]:
        """Find the elements whose value depends on which program comes first.

        Two programs touch the same byte, at least one of them writes, and not both
        atomically. Programs that take turns by other means (a lock, a counter) are
        reported too: the order that these impose is not understood.

        Returns:
            One race per pair of operations and arguments, with its elements.
        """
        numbers = {a.program: self.program(a.program) for a in self.accesses}
        return races.find(self.accesses, numbers)

    def shape_table(self) -> pd.DataFrame:
        """Tabulate the shape trace: one row per value the kernel assigns.

        Returns:
            Columns name, shape, dtype, line, code; function too if there are several.
        """
        frame = pd.DataFrame(
            [vars(step) for step in self.shapes],
            columns=["function", "name", "shape", "dtype", "line", "code"],
        )
        if frame["function"].nunique() <= 1:
            frame = frame.drop(columns="function")
        return frame

    def program(self, index: tuple[int, int, int]) -> int:
        """Number a program: axis 0 runs fastest, as in `ownership`."""
        x, y, z = index
        return x + self.grid[0] * (y + self.grid[1] * z)

    def _accumulate(
        self,
        name: str,
        ops: tuple[str, ...],
        start: int,
        change: Callable[[np.ndarray, np.ndarray, int], None],
    ) -> np.ndarray:
        argument = self._tensor(name)
        memory = np.full(argument.extent(), start, dtype=np.int64)
        for access in self.accesses:
            if access.argument == name and access.op in ops:
                change(memory, access.touched(), self.program(access.program))
        return np.asarray(memory[argument.positions()])

    def _tensor(self, name: str) -> Argument:
        if name not in self.arguments:
            have = ", ".join(self.arguments)
            raise ValueError(f"{self.kernel} has no tensor {name!r}, only {have}")
        return self.arguments[name]


def look(
    kernel: Any,
    grid: launches.Grid,
    /,
    *args: Any,
    raise_error: bool = False,
    straying: bool = False,
    **meta: Any,
) -> Look:
    """Run a kernel under the interpreter and record everything it touches.

    Args:
        kernel: decorated with @triton.jit; @triton.heuristics are applied, an autotuned
            kernel needs the configuration's values in `meta`.
        grid: as for a launch: up to three numbers of programs, or a function of the
            arguments.
        args: as for a launch; tensors are changed as the kernel changes them.
        raise_error: raise the kernel's exception instead of returning it in the look.
        straying: at an access outside every tensor turn its lanes off, write it down
            and go on, instead of ending with the interpreter's error.
        meta: as for a launch: parameters, and options such as num_warps (those of any
            GPU), which change nothing here.

    Returns:
        The look.

    Raises:
        TypeError: `kernel` is no Triton kernel, or the arguments don't fit it; that
            includes an unknown keyword, for which a compiled launch raises KeyError.
        Exception: the kernel's own, with `raise_error`.
    """
    seen, error = take(kernel, grid, args, meta, straying=straying)
    if raise_error and error is not None:
        raise error
    return seen


def take(
    kernel: Any,
    grid: launches.Grid,
    args: tuple[Any, ...],
    meta: Mapping[str, Any],
    *,
    straying: bool = False,
) -> tuple[Look, Exception | None]:
    """Do what `look` does, for a launch given in parts: any parameter's name will do.

    Args:
        kernel: as for `look`.
        grid: as for `look`.
        args: positional arguments.
        meta: keyword arguments.
        straying: as for `look`.

    Returns:
        The look, and the kernel's exception if it ended with one.
    """
    launch = launches.prepare(kernel, grid, args, dict(meta))
    tensors = tensors_by_name(launch.kernel, args, launch.meta)
    poisoned = frozenset(n for n, t in tensors.items() if is_poisoned(t))
    log = launch.record(poisoned, straying=straying)
    seen = Look(
        kernel=_ship.kernel_name(launch.kernel),
        grid=launch.grid,
        arguments=log.arguments,
        accesses=log.accesses,
        shapes=log.shapes,
        printed=log.printed,
        error=log.error and f"{type(log.error).__name__}: {log.error}",
        strays=log.strays,
    )
    return seen, log.error


def _assign(memory: np.ndarray, elements: np.ndarray, program: int) -> None:
    memory[elements] = program


def _add_one(memory: np.ndarray, elements: np.ndarray, program: int) -> None:
    np.add.at(memory, elements, 1)
