"""A program's text in; what it printed, where it failed and what it touched out."""

import contextlib
import io
import itertools
import json
import linecache
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tilebook.browser import bench
from tilebook.browser.tracing import Recorder
from tilebook.interpreter import observing
from tilebook.testing.declare import CheckFailed

NAME = "program"
_numbers = itertools.count(1)
# Kernels have to be in files, or else Python can't tell their source.
_folder = tempfile.TemporaryDirectory(prefix="tilebook-")


class Said(io.TextIOBase):
    """A stream that hands each piece of text on.

    Args:
        say: what takes it.
    """

    def __init__(self, say: Callable[[str], Any]) -> None:
        super().__init__()
        self._say = say

    def write(self, text: str) -> int:
        """Hand text on."""
        if text:
            self._say(text)
        return len(text)


def unwrapped(error: BaseException) -> BaseException:
    """Return what the interpreter wrapped, however often."""
    while type(error).__name__ == "InterpreterError" and error.__cause__ is not None:
        error = error.__cause__
    return error


def failure(error: BaseException, path: str) -> dict[str, Any]:
    """Describe an error.

    Args:
        error: what was raised.
        path: the program's file; lines of others are left out.

    Returns:
        Its kind, its message, and the program's lines on the way to it, each once.
    """
    cause = unwrapped(error)
    lines: list[int] = []
    chain: BaseException | None = error
    while chain is not None:
        for frame in traceback.extract_tb(chain.__traceback__):
            if frame.filename == path and frame.lineno and frame.lineno not in lines:
                lines.append(frame.lineno)
        chain = chain.__cause__
    if isinstance(cause, SyntaxError) and cause.filename == path and cause.lineno:
        lines = [cause.lineno]
    message = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    kind = "" if isinstance(cause, CheckFailed) else type(cause).__name__
    return {"kind": kind, "message": message, "lines": lines}


def run(
    source: str, say: Callable[[str], Any] = sys.stdout.write, trace: bool = True
) -> dict[str, Any]:
    """Run a program.

    Args:
        source: Python; it may define kernels and launch them.
        say: takes what it prints, piece by piece.
        trace: whether to note what its kernels touch.

    Returns:
        ``seconds``; ``error``, as by `failure`, or None; ``trace``, see
        `tilebook.browser.tracing`, or None.
    """
    path = str(Path(_folder.name, f"{NAME}_{next(_numbers)}.py"))
    Path(path).write_text(source, encoding="utf-8")
    linecache.checkcache(path)
    module = ModuleType(NAME)
    module.__file__ = path
    sys.modules[NAME] = module
    bench.begin()
    recorder, error = Recorder(), None
    began = time.perf_counter()
    stream = Said(say)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        if trace:
            stack.enter_context(observing(recorder))
        try:
            exec(compile(source, path, "exec"), module.__dict__)
        except (Exception, SystemExit) as raised:
            error = raised
    took = time.perf_counter() - began
    return {
        "seconds": took,
        "error": failure(error, path) if error else None,
        "trace": recorder.data(unwrapped(error) if error else None) if trace else None,
    }


def run_json(source: str, say: Callable[[str], Any], trace: bool = True) -> str:
    """Run a program and return what `run` does, as JSON."""
    return json.dumps(run(source, say, trace), separators=(",", ":"))
