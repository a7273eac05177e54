"""The shape trace: every tile a kernel makes, with its shape and dtype."""

from __future__ import annotations

import ast
import contextlib
import linecache
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


@dataclass(frozen=True)
class Step:
    """One value that a kernel assigns to a name.

    Args:
        name: the variable.
        shape: the tile's shape; () for a scalar.
        dtype: as Triton writes it: "fp32", "int1", "pointer<fp32>".
        line: number in the source file.
        code: that line's text.
        function: the kernel, or the helper it calls.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    line: int
    code: str
    function: str


@contextlib.contextmanager
def tracing(steps: dict[Step, None]) -> Iterator[None]:
    """Record the assignments of interpreted kernels that run inside.

    Args:
        steps: gets each new step as a key, in order of appearance.
    """
    tracer = _Tracer(steps)
    before = sys.gettrace()
    sys.settrace(tracer.enter)
    try:
        yield
    finally:
        sys.settrace(before)


class _Tracer:
    def __init__(self, steps: dict[Step, None]) -> None:
        self.steps = steps
        self.known: dict[CodeType, bool] = {}
        self.statements: dict[tuple[str, int], str] = {}

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Follow the frame if it runs a kernel (sys.settrace calls this for each)."""
        code = frame.f_code
        if code not in self.known:
            self.known[code] = _is_kernel(frame)
        if not self.known[code]:
            return None
        seen = dict(frame.f_locals)
        line = frame.f_lineno

        def follow(frame: FrameType, event: str, arg: Any) -> Any:
            # What changed since the last event, the line of that event assigned.
            nonlocal line
            for name, value in frame.f_locals.items():
                if seen.get(name) is not value:
                    seen[name] = value
                    self.record(frame, line, name, value)
            line = frame.f_lineno
            return follow

        return follow

    def record(self, frame: FrameType, line: int, name: str, value: Any) -> None:
        described = _describe(value)
        if described is None:
            return
        code = frame.f_code
        where = code.co_filename, line
        if where not in self.statements:
            self.statements[where] = _statement(*where)
        text = self.statements[where]
        self.steps.setdefault(Step(name, *described, line, text, code.co_name))


def _is_kernel(frame: FrameType) -> bool:
    """Whether a frame runs a kernel of the user's, rather than one of Triton's."""
    if frame.f_globals.get("__name__", "").partition(".")[0] == "triton":
        return False
    rewritten = InterpretedFunction.rewritten_fn.values()
    return any(fn.__code__ is frame.f_code for fn in rewritten)


def _statement(filename: str, line: int) -> str:
    """Return the statement that begins at a line, on one line."""
    lines = linecache.getlines(filename)[line - 1 :]
    for end in range(1, len(lines) + 1):
        try:
            return ast.unparse(ast.parse(textwrap.dedent("".join(lines[:end]))))
        except SyntaxError:
            continue
    return lines[0].strip() if lines else ""


def _describe(value: Any) -> tuple[tuple[int, ...], str] | None:
    if isinstance(value, tl.tensor):
        shape = value.type.get_block_shapes() if value.type.is_block() else ()
        return tuple(int(n) for n in shape), str(value.dtype)
    if isinstance(value, tl.core.tensor_descriptor_base):
        shape = tuple(int(getattr(n, "value", n)) for n in value.block_shape)
        return shape, f"descriptor<{value.dtype}>"
    return None
