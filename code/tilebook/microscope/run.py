"""Run a kernel under the interpreter and write down what it does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from triton.runtime.errors import InterpreterError

from tilebook import _ship, _worker, interpreter
from tilebook.interpreter import Access, Stray
from tilebook.microscope.arguments import Argument
from tilebook.microscope.trace import Step, tracing


@dataclass(frozen=True, eq=False)
class Log:
    """What one launch did."""

    arguments: dict[str, Argument]
    accesses: tuple[Access, ...]
    shapes: tuple[Step, ...]
    printed: str
    error: Exception | None
    strays: tuple[Stray, ...] = ()


def record(
    kernel: Any,
    grid: tuple[int, int, int],
    args: tuple[Any, ...],
    meta: Mapping[str, Any],
    poisoned: frozenset[str],
    expressions: bool = False,
    straying: bool = False,
) -> Log:
    """Launch an interpreted kernel and record it.

    Args:
        kernel: decorated for the interpreter.
        grid: number of programs along each axis.
        args: positional arguments.
        meta: keyword arguments.
        poisoned: names of the arguments whose contents are undefined.
        expressions: whether the shapes are also those of what has no name.
        straying: go on after an access outside every tensor, and log it.

    Returns:
        The log; an exception of the kernel is part of it.
    """
    accesses: list[Access] = []
    steps: dict[Step, None] = {}
    strays: list[Stray] = []
    printed = io.StringIO()
    error = None
    collecting = interpreter.straying(strays.append)
    arguments = {
        name: Argument.of(tensor, name in poisoned)
        for name, tensor in tensors_by_name(kernel, args, meta).items()
    }
    with (
        interpreter.observing(accesses.append),
        collecting if straying else contextlib.nullcontext(),
        contextlib.redirect_stdout(printed),
        tracing(steps, expressions),
    ):
        try:
            kernel[grid](*args, **meta)
        except Exception as raised:
            error = _innermost(raised)
    said = printed.getvalue()
    return Log(arguments, tuple(accesses), tuple(steps), said, error, tuple(strays))


def record_request(request: bytes) -> tuple[Log, bytes | None, list[bytes]]:
    """Record what `record_elsewhere` packed; runs in the interpreted worker."""
    storages: list[torch.UntypedStorage] = []
    log = record(*_ship.loads(request, storages))
    error = _worker.freeze(log.error) if log.error else None
    log = replace(log, error=None)
    return log, error, [_ship.contents(storage) for storage in storages]


def record_elsewhere(
    kernel: Any,
    grid: tuple[int, int, int],
    args: tuple[Any, ...],
    meta: Mapping[str, Any],
    poisoned: frozenset[str],
    expressions: bool = False,
    straying: bool = False,
) -> Log:
    """Record in the interpreted worker, for a process whose kernels are compiled.

    Args:
        kernel: decorated for the compiler; the rest as for `record`.
        grid: see `record`.
        args: see `record`; tensors of any device, changed as the kernel changes them.
        meta: see `record`.
        poisoned: see `record`.
        expressions: see `record`.
        straying: see `record`.

    Returns:
        The log.
    """
    storages: list[torch.UntypedStorage] = []
    request = _ship.dumps(
        (kernel, grid, args, meta, poisoned, expressions, straying), storages
    )
    log, error, after = _worker.call(
        "interpreted", "tilebook.microscope.run:record_request", request
    )
    for storage, content in zip(storages, after, strict=True):
        _ship.overwrite(storage, content)
    raised = _worker.thaw(error) if error else None
    return replace(log, error=raised)


def tensors_by_name(
    kernel: Any, args: tuple[Any, ...], meta: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Find the tensors among a launch's arguments, in tuples and descriptors too.

    Args:
        kernel: the kernel, for its parameters' names.
        args: positional arguments.
        meta: keyword arguments.

    Returns:
        The tensors by name: "x_ptr", or "xs[0]" for those in a tuple.
    """
    found: dict[str, torch.Tensor] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, tuple):
            for i, part in enumerate(value):
                add(f"{name}[{i}]", part)
        elif isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(base := getattr(value, "base", None), torch.Tensor):
            found[name] = base

    for name, value in {
        **dict(zip(kernel.arg_names, args, strict=False)),
        **meta,
    }.items():
        add(name, value)
    return found


def _innermost(error: BaseException) -> Exception:
    """Take off what the interpreter wraps around a kernel's exception."""
    while isinstance(error, InterpreterError) and error.__cause__ is not None:
        error = error.__cause__
    return error
