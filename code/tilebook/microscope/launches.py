"""What the microscope is given, taken apart: a kernel, its grid, its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from triton.runtime.interpreter import InterpretedFunction

from tilebook import _ship
from tilebook.microscope import options
from tilebook.microscope.run import Log, record, record_elsewhere

Grid = tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]]


class Launch(NamedTuple):
    """A launch that is about to be looked at."""

    kernel: Any
    """The bare jitted function."""
    grid: tuple[int, int, int]
    """Programs along each axis."""
    args: tuple[Any, ...]
    """Positional arguments."""
    meta: dict[str, Any]
    """Those given by keyword, without options."""

    def record(
        self,
        poisoned: frozenset[str] = frozenset(),
        expressions: bool = False,
        straying: bool = False,
    ) -> Log:
        """Run it, here or in the interpreted worker.

        Args:
            poisoned: see `run.record`.
            expressions: see `run.record`.
            straying: see `run.record`.

        Returns:
            What it did.
        """
        here = isinstance(self.kernel, InterpretedFunction)
        run = record if here else record_elsewhere
        return run(*self, poisoned, expressions, straying)


def prepare(
    kernel: Any, grid: Grid, args: tuple[Any, ...], meta: Mapping[str, Any]
) -> Launch:
    """Check a launch and take it apart.

    Args:
        kernel: as for `look`.
        grid: as for `look`.
        args: as for `look`.
        meta: as for `look`.

    Returns:
        The launch.

    Raises:
        TypeError: see `look`.
        ValueError: a grid of no axes, or of more than three.
    """
    kernel, meta = _ship.unwrap(kernel, args, meta)
    if not isinstance(kernel, InterpretedFunction) and kernel.is_gluon():
        raise TypeError(f"{kernel.__name__} is a Gluon kernel: it can't be interpreted")
    options.check(kernel, meta)
    names = set(kernel.arg_names)
    given = {name: value for name, value in meta.items() if name in names}
    bound = inspect.signature(kernel.fn).bind(*args, **given)
    bound.apply_defaults()
    size = grid(bound.arguments) if callable(grid) else grid
    if not 1 <= len(size) <= 3:
        raise ValueError(f"grid must have one to three axes, got {size!r}")
    programs = tuple(map(int, size)) + (1,) * (3 - len(size))
    return Launch(kernel, programs, args, given)
