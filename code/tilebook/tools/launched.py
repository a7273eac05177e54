"""What a launch does besides running the kernel, and where the kernel's lines are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from triton.runtime.autotuner import Autotuner, Heuristics


def run_hook(kernel: Any, args: tuple[Any, ...], meta: Mapping[str, Any]) -> None:
    """Call the hook that an autotuner's configuration has before each launch.

    Args:
        kernel: perhaps under @triton.autotune and @triton.heuristics.
        args: positional arguments.
        meta: keyword arguments.

    Notes:
        Of several configurations it is that whose values are given. What is reset or
        restored around each measurement is not touched by a launch, nor here.
    """
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **meta}
    while isinstance(kernel, (Autotuner, Heuristics)):
        if isinstance(kernel, Heuristics):
            for name, decide in kernel.values.items():
                given[name] = decide(given)
        else:
            fitting = [
                config
                for config in kernel.configs
                if len(kernel.configs) == 1
                or all(given.get(k) == v for k, v in config.kwargs.items())
            ]
            if fitting:
                given = {**fitting[0].all_kwargs(), **given}
                if fitting[0].pre_hook is not None:
                    fitting[0].pre_hook(given)
        kernel = kernel.fn


def by_position(
    kernel: Any, args: tuple[Any, ...], meta: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give parameters by position, so that their names can't collide with others'.

    Args:
        kernel: a bare jitted function.
        args: positional arguments.
        meta: keyword arguments and options.

    Returns:
        All arguments, and the options.
    """
    signature = inspect.signature(kernel.fn)
    named = {name: v for name, v in meta.items() if name in signature.parameters}
    bound = signature.bind(*args, **named)
    bound.apply_defaults()
    return bound.args, {name: v for name, v in meta.items() if name not in named}


def file_of(path: str) -> str:
    """Name a source file briefly, here and where a kernel was sent to alike.

    Args:
        path: as Python or the compiler names it.

    Returns:
        Its last part; of a package's own file the package's name.
    """
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}.py" if name == "__init__.py" else name


def source(kernel: Any) -> dict[tuple[str, int], str]:
    """Read a kernel's lines.

    Args:
        kernel: a bare jitted function.

    Returns:
        Each line's text by file and number.
    """
    lines, first = inspect.getsourcelines(kernel.fn)
    file = file_of(kernel.fn.__code__.co_filename)
    return {(file, first + i): line.strip() for i, line in enumerate(lines)}
