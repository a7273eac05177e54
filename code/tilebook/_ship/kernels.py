"""Kernels as Triton decorates them: what is inside, and where it was written."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import ConstexprFunction, JITCallable


def is_kernel(obj: object) -> bool:
    """Whether `obj` is a function decorated by Triton or Gluon, in either mode."""
    return isinstance(obj, (JITCallable, InterpretedFunction))


def unwrap(
    kernel: Any, args: tuple[Any, ...], meta: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Take autotuners and heuristics off a kernel, applying what they decide.

    Args:
        kernel: a jitted function, perhaps under @triton.autotune, @triton.heuristics.
        args: the launch's positional arguments.
        meta: the launch's keyword arguments; these win over a single configuration.

    Returns:
        The bare jitted function and its keyword arguments.

    Raises:
        TypeError: `kernel` is no jitted function, or an autotuner with several
            configurations none of which is given in `meta`.
    """
    meta = dict(meta)
    while isinstance(kernel, (Autotuner, Heuristics)):
        if isinstance(kernel, Heuristics):
            given = {**dict(zip(kernel.arg_names, args, strict=False)), **meta}
            for name, decide in kernel.values.items():
                meta[name] = given[name] = decide(given)
        elif len(kernel.configs) == 1:
            meta = {**kernel.configs[0].all_kwargs(), **meta}
        else:
            chosen = {name for config in kernel.configs for name in config.kwargs}
            missing = sorted(chosen - set(meta))
            if missing:
                raise TypeError(
                    f"{kernel_name(kernel)} is autotuned over {len(kernel.configs)} "
                    f"configurations: say which by passing {', '.join(missing)}"
                )
        kernel = kernel.fn
    if not is_kernel(kernel) or isinstance(kernel, ConstexprFunction):
        raise TypeError(
            f"kernel must be decorated with @triton.jit or @gluon.jit, "
            f"got {type(kernel).__name__}"
        )
    return kernel, meta


def kernel_name(kernel: Any) -> str:
    """The Python name of a kernel, through any decorators."""
    while not hasattr(kernel, "__name__"):
        kernel = kernel.fn
    return kernel.__name__


def source_of(kernel: Any) -> tuple[str, int]:
    """Return a jitted function's source from its `def` on, and that line's number."""
    if isinstance(kernel, JITCallable):
        lines, first, text = kernel.raw_src, kernel.starting_line_number, kernel.src
    else:
        try:
            lines, first = inspect.getsourcelines(kernel.fn)
        except OSError as error:
            raise ValueError(
                f"the source of {kernel_name(kernel)} can't be found: kernels must be "
                "defined in a file or a notebook cell"
            ) from error
        text = textwrap.dedent("".join(lines))
        text = text[re.search(r"^def\s+\w+\s*\(", text, re.MULTILINE).start() :]
    above = next(i for i, line in enumerate(lines) if re.match(r"\s*def\s", line))
    return text, first + above
