"""A tracer: which program touched which address, and what is wrong with that.

    found = tools.trace(add_kernel)[(4,)](x, y, out, n, BLOCK=256)
    print(found.report())
    found.picture("out_ptr").figure

It stands on the microscope, which runs a kernel under the interpreter and writes down
each access, and asks questions of what is written there.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from triton.runtime import JITFunction
from triton.runtime.interpreter import InterpretedFunction

from tilebook import _ship, check, compile_only, microscope
from tilebook.microscope import Access, Look, Race, Stray
from tilebook.tools import agreement, launched, warps

_COLUMNS = (
    *("file", "line", "op", "argument", "vector"),
    *("requests", "sectors", "least", "used"),
)
WARPS = 4
"""Of a program, where a launch doesn't say."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of one tensor that a launch moved, and that it needed."""

    moved: int
    """By all lanes of all programs, whatever caches keep from memory."""
    needed: int
    """Bytes touched at least once."""

    @property
    def reuse(self) -> float:
        """How often each byte was touched."""
        return self.moved / self.needed if self.needed else 0.0


@dataclass(frozen=True, eq=False)
class Trace:
    """What one launch touched.

    Args:
        look: what the microscope saw.
        num_warps: of a program, for what is counted by warps.
        lanes: threads of a warp.
        source: the kernel's lines by file and number.
        launch: kernel, positional arguments and keywords.
        layouts: how each line's tile is dealt out to threads, by file, line, kind of
            access and rank, where that is known; elsewhere the rule is that of
            `warps.blocked`.
    """

    look: Look = field(repr=False)
    num_warps: int
    lanes: int
    source: Mapping[tuple[str, int], str] = field(repr=False)
    launch: tuple[Any, tuple[Any, ...], Mapping[str, Any]] = field(repr=False)
    layouts: Mapping[warps.Place, warps.Shape] = field(repr=False)

    def compiled(self, target: str = "sm_90") -> Trace:
        """Count by the layouts that the compiler chooses, instead of the best ones.

        Args:
            target: a GPU, as for `compile_only.compile`.

        Returns:
            The same launch; `warps`, `report` and `requests` differ where the compiler
            could not prove what the addresses show.
        """
        kernel, args, meta = self.launch
        bare, given = _ship.unwrap(kernel, args, dict(meta))
        values, options = launched.by_position(bare, args, given)
        made = compile_only.compile(bare, *values, target=target, **options)
        return replace(self, layouts=warps.compiled(made.ttgir))

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Loads, stores and atomics in the order in which they happened."""
        return self.look.accesses

    @property
    def strays(self) -> tuple[Stray, ...]:
        """Accesses outside every tensor: program, line, elements, tensor."""
        return self.look.strays

    @functools.cached_property
    def races(self) -> tuple[Race, ...]:
        """Elements whose value hangs on which program comes first."""
        return self.look.races()

    def agree(self, race: Race) -> bool:
        """Whether all that a race's programs store into its elements is the same.

        Args:
            race: one of `races`.

        Returns:
            True where whoever comes last leaves the same bytes. Still a race: it hangs
            on all programs having computed the same.
        """
        if race.kind != "store/store":
            return False
        return agreement.same_bytes(self.accesses, race)

    @functools.cached_property
    def unwritten(self) -> dict[str, np.ndarray]:
        """Elements that nobody wrote, by tensor, of those that somebody wrote to."""
        targets = {a.argument for a in self.accesses if a.op != "load"}
        named = [name for name in self.look.arguments if name in targets]
        found = {name: self.look.unwritten(name) for name in named}
        return {name: missed for name, missed in found.items() if missed.size}

    @functools.cached_property
    def traffic(self) -> dict[str, Traffic]:
        """Bytes moved and needed, by tensor."""
        found = {}
        for name in dict.fromkeys(access.argument for access in self.accesses):
            mine = [a for a in self.accesses if a.argument == name]
            moved = sum(int(a.mask.sum()) * a.width for a in mine)
            cells = [np.unique(a.cells(1)) for a in mine]
            found[name] = Traffic(moved, int(np.unique(np.concatenate(cells)).size))
        return found

    @functools.cached_property
    def warps(self) -> pd.DataFrame:
        """Requests and sectors of each line that touches memory.

        Columns line, op, argument, vector (elements that a thread takes at once),
        requests (a warp's, with one instruction), sectors (handed out to one request),
        least (sectors that would do), used (part of the bytes handed out). Lines of
        the same number in different files have rows of their own.
        """
        return self.by_file.drop(columns="file")

    @functools.cached_property
    def by_file(self) -> pd.DataFrame:
        """The same as `warps`, with a first column file."""
        rows: dict[tuple[str, int, str, str], list[warps.Requests]] = {}
        for access in self.accesses:
            file = launched.file_of(access.file)
            key = file, access.line, access.op, access.argument
            how = self.layout(access)
            asked = warps.requests(access, self.num_warps, self.lanes, how)
            rows.setdefault(key, []).append(asked)
        table = []
        for (file, line, op, argument), asked in rows.items():
            count = sum(one.count for one in asked)
            sectors = sum(one.sectors for one in asked)
            least = sum(one.least for one in asked)
            each = (sectors / count, least / count) if count else (0.0, 0.0)
            used = least / sectors if sectors else 1.0
            vector = min(one.vector for one in asked)
            table.append((file, line, op, argument, vector, count, *each, used))
        frame = pd.DataFrame(table, columns=_COLUMNS)
        order = ["line", "op", "argument", "file"]
        return frame.sort_values(order, ignore_index=True)

    def layout(self, access: Access) -> warps.Shape | None:
        """The layout with which an access is compiled, where that is known."""
        place = launched.file_of(access.file), access.line
        return self.layouts.get((*place, access.op, access.offsets.ndim))

    def problems(self) -> tuple[str, ...]:
        """Say what is wrong: accesses that stray, races, an exception.

        Returns:
            A sentence each; none for a launch that has nothing of the kind. Elements
            that nobody wrote aren't among them: a kernel may be asked for a part.
        """
        said = []
        for stray in _first_of_each(self.strays):
            said.append(f"out of bounds: {stray}")
        for race in self.races:
            same = ", the same value each time" if self.agree(race) else ""
            said.append(f"{race}{same}")
        if self.look.error:
            said.append(f"it ended with {self.look.error}")
        return tuple(said)

    def report(self) -> str:
        """Say in words what was touched, and what is wrong with it.

        Returns:
            Text: a line for each access, bytes by tensor, problems, what nobody wrote.
        """
        from tilebook.tools import reporting

        return reporting.report(self)

    def picture(self, argument: str, op: str = "store") -> Any:
        """Draw which program touches each element of a tensor.

        Args:
            argument: the kernel's parameter; a tensor of one or two dimensions.
            op: "load", "store" or "atomic".

        Returns:
            A figure and its text.

        Raises:
            ValueError: there is no such tensor, or it doesn't fit a page.
        """
        from tilebook.tools import drawing

        return drawing.programs(self, argument, op)

    def requests(self, line: int | None = None) -> Any:
        """Draw one warp's request: lanes, and the sectors that they need.

        Args:
            line: in the source, of a load, store or atomic; the first by default.

        Returns:
            A figure and its text.

        Raises:
            ValueError: nothing is touched at that line.
        """
        from tilebook.tools import drawing

        return drawing.sectors(self, line)


def _first_of_each(strays: tuple[Stray, ...]) -> list[Stray]:
    """The first program's of each line and tensor; a launch may have thousands."""
    return list({(s.line, s.op, s.argument): s for s in reversed(strays)}.values())[
        ::-1
    ]


class _Traced:
    """A kernel that waits for its grid and its arguments."""

    def __init__(self, kernel: Any, lanes: int) -> None:
        self.kernel, self.lanes = kernel, lanes

    def __getitem__(self, grid: Any) -> Callable[..., Trace]:
        def launch(*args: Any, **meta: Any) -> Trace:
            return look_at(self.kernel, grid, args, meta, self.lanes)[0]

        return launch


def trace(kernel: Any, *, lanes: int = 32) -> _Traced:
    """Trace a launch: `trace(kernel)[grid](...)` where `kernel[grid](...)` was.

    Args:
        kernel: decorated with @triton.jit; as for `microscope.look`.
        lanes: threads of a warp: 32, or 64 as on AMD's CDNA.

    Returns:
        What takes a grid and then the arguments and returns a `Trace`. The tensors are
        changed as the kernel changes them.

    Raises:
        TypeError: at the launch: `kernel` is no Triton kernel, or the arguments don't
            fit it.
        ValueError: `lanes` is neither 32 nor 64.
    """
    check.one_of(lanes, "lanes", (32, 64))
    return _Traced(kernel, lanes)


def look_at(
    kernel: Any, grid: Any, args: Any, meta: Any, lanes: int = 32
) -> tuple[Trace, Exception | None]:
    """Trace one launch, given in parts.

    Args:
        kernel: as for `trace`.
        grid: as for `microscope.look`.
        args: positional arguments.
        meta: keyword arguments.
        lanes: threads of a warp.

    Returns:
        The trace, and the kernel's exception if it ended with one.
    """
    bare, given = _ship.unwrap(kernel, tuple(args), dict(meta))
    launched.run_hook(kernel, tuple(args), meta)
    look, error = microscope.take(kernel, grid, tuple(args), meta, straying=True)
    count = int(given.get("num_warps", WARPS))
    launch = (kernel, tuple(args), dict(meta))
    source = launched.source(bare)
    return Trace(look, count, lanes, source, launch, layouts={}), error


@contextlib.contextmanager
def tracing(*, lanes: int = 32) -> Iterator[list[Trace]]:
    """Trace every launch of a Triton kernel inside, whoever makes it.

    Args:
        lanes: threads of a warp.

    Yields:
        The traces, which grow within the context. Kernels are interpreted, on a GPU
        too; Gluon's can't be.

    Raises:
        Exception: a kernel's own, at its launch; its trace is the last one.
    """
    found: list[Trace] = []
    busy = False

    def watching(original: Callable) -> Callable:
        @functools.wraps(original)
        def run(self: Any, /, *args: Any, grid: Any, warmup: bool, **meta: Any) -> Any:
            nonlocal busy
            if busy or warmup:
                return original(self, *args, grid=grid, warmup=warmup, **meta)
            busy = True
            try:
                trace, error = look_at(self, grid, args, meta, lanes)
            finally:
                busy = False
            found.append(trace)
            if error is not None:
                raise error
            return None

        return run

    with contextlib.ExitStack() as stack:
        for owner in (InterpretedFunction, JITFunction):
            patched = mock.patch.object(owner, "run", watching(owner.run))
            stack.enter_context(patched)
        yield found
