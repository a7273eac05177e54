"""The shape trace: every tile a kernel makes, with its shape and dtype."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import linecache
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

# First and last line, first and last column.
Span = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True)
class Step:
    """One value that a kernel assigns to a name, or makes without a name.

    Args:
        name: the variable, or the expression as it is written.
        shape: the tile's shape; () for a scalar.
        dtype: as Triton writes it: "fp32", "int1", "pointer<fp32>".
        line: number in the source file of the statement.
        code: the statement, on one line.
        function: the kernel, or the helper it calls.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    line: int
    code: str
    function: str


@contextlib.contextmanager
def tracing(steps: dict[Step, None], expressions: bool = False) -> Iterator[None]:
    """Record the assignments of interpreted kernels that run inside.

    Args:
        steps: gets each new step as a key, in order of appearance.
        expressions: record what has no name as well.
    """
    tracer = _Tracer(steps, expressions)
    before = sys.gettrace()
    sys.settrace(tracer.enter)
    try:
        yield
    finally:
        sys.settrace(before)


class _Tracer:
    def __init__(self, steps: dict[Step, None], expressions: bool) -> None:
        self.steps = steps
        self.expressions = expressions
        self.known: dict[CodeType, bool] = {}
        self.nameless: dict[CodeType, dict[Span, tuple[str, int]]] = {}
        self.statements: dict[tuple[str, int], str] = {}

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Follow the frame if it runs a kernel (sys.settrace calls this for each)."""
        code = frame.f_code
        if code not in self.known:
            self.known[code] = _is_kernel(frame)
        if not self.known[code]:
            return self.await_result(frame) if self.expressions else None
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

    def await_result(self, frame: FrameType) -> Any:
        """Follow a function to its end if a kernel called it: an operator, mostly."""
        caller = frame.f_back
        if caller is None or not self.known.get(caller.f_code):
            return None
        frame.f_trace_lines = False

        def follow(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return" and (found := self.expression(caller)):
                text, line = found
                self.record(caller, line, text, arg)
            return follow

        return follow

    def expression(self, frame: FrameType) -> tuple[str, int] | None:
        """Say which expression without a name a kernel is at, and its statement."""
        code = frame.f_code
        if code not in self.nameless:
            self.nameless[code] = _nameless(code)
        # An instruction takes two bytes, and so does what it caches.
        positions = itertools.islice(code.co_positions(), frame.f_lasti // 2, None)
        return self.nameless[code].get(next(positions))

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


def _nameless(code: CodeType) -> dict[Span, tuple[str, int]]:
    """By place in the source: a kernel's expressions that no assignment names.

    Returns:
        For each its text and its statement's line.
    """
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
    tree = ast.parse(textwrap.dedent("".join(inspect.getblock(lines))))
    ast.increment_lineno(tree, code.co_firstlineno - 1)
    found, named = {}, set()
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt):
            continue
        value = getattr(statement, "value", None)
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            named |= {value, *getattr(value, "elts", ())}
        for field in ast.iter_child_nodes(statement):
            for node in [] if isinstance(field, ast.stmt) else ast.walk(field):
                if isinstance(node, ast.expr) and node not in named:
                    place = (
                        *(node.lineno, node.end_lineno),
                        *(node.col_offset, node.end_col_offset),
                    )
                    found[place] = ast.unparse(node), statement.lineno
    return found


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
    if isinstance(value, tl.tensor) and value.dtype != tl.void:
        shape = value.type.get_block_shapes() if value.type.is_block() else ()
        return tuple(int(n) for n in shape), str(value.dtype)
    if isinstance(value, tl.core.tensor_descriptor_base):
        shape = tuple(int(getattr(n, "value", n)) for n in value.block_shape)
        return shape, f"descriptor<{value.dtype}>"
    return None
