"""The chapter's kernels, compiled for a named target as they would be launched."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from tilebook import compile_only
from tilebook.softmax import (
    backward,
    backward_columns,
    backward_cooperative,
    backward_long,
    choose,
    columns,
    masked,
    split,
)
from tilebook.softmax.operands import Task

GRADIENTS = (backward, backward_cooperative, backward_long)


def _meta(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(launch: Callable[[Task], Any], *, log: bool = False) -> list[tuple]:
    """Record what a function launches instead of launching it.

    Args:
        launch: gets the task whose kernels are recorded.
        log: whether the task is the logarithm.

    Returns:
        Kernel, arguments, and constants with options, of each launch.
    """
    caught = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *args, **meta: caught.append((self.kernel, args, meta))

    launch(Task(log=log, wrap=Recorder))
    return caught


def config_of(rung: ModuleType, m: int, n: int, dtype: torch.dtype) -> Any:
    """The configuration that a rung chooses for itself."""
    if rung is split:
        return rung.config_for(m, n, dtype.itemsize)
    return rung.config_for(n, dtype.itemsize)


@functools.cache
def compiled(
    rung: ModuleType,
    m: int = 8192,
    n: int = 8192,
    dtype: torch.dtype = torch.bfloat16,
    target: str = "sm_90",
    *,
    config: Any = None,
    log: bool = False,
) -> tuple[compile_only.Artefact, ...]:
    """Compile a rung, or a gradient, as it would be launched on a contiguous matrix.

    Args:
        rung: a module of the ladder but `naive`, or one of `GRADIENTS`.
        m: rows.
        n: elements of a row.
        dtype: of the elements.
        target: as for `compile_only.compile`.
        config: a `Config` of that module; its own choice by default.
        log: whether the logarithm is computed.

    Returns:
        The compiled kernels, one for each launch.
    """
    config = config or config_of(rung, m, n, dtype)
    x, out = _meta((m, n), dtype), _meta((m, n), dtype)
    if rung in GRADIENTS:
        grad = _meta((m, n), dtype)
        found = launches(
            lambda task: rung.launch_as(config, x, grad, out, task), log=log
        )
    else:
        found = launches(lambda task: rung.launch_as(config, x, out, task), log=log)
    return _all(found, target)


def compiled_columns(
    outer: int,
    n: int,
    inner: int,
    dtype: torch.dtype = torch.bfloat16,
    target: str = "sm_90",
    *,
    gradient: bool = False,
) -> tuple[compile_only.Artefact, ...]:
    """Compile the softmax over a middle dimension, or its gradient; see `compiled`."""
    x, out = (_meta((outer, n, inner), dtype) for _ in range(2))
    if gradient:
        way = backward_columns.config_for(n, inner, dtype.itemsize)
        found = launches(lambda t: backward_columns.launch_as(way, x, out, out, t))
    else:
        way = columns.config_for(n, inner, dtype.itemsize)
        found = launches(lambda t: columns.launch_as(way, x, out, t))
    return _all(found, target)


def compiled_masked(
    m: int,
    n: int,
    dtype: torch.dtype = torch.bfloat16,
    target: str = "sm_90",
    *,
    mask: bool = True,
    causal: bool = False,
) -> tuple[compile_only.Artefact, ...]:
    """Compile the softmax of masked rows; see `compiled`."""
    x = _meta((m, n), dtype)
    keep = _meta((1, n), torch.bool).expand(m, n) if mask else None
    way = masked.config_for(n, dtype.itemsize)
    found = launches(lambda t: masked.launch_as(way, x, keep, x, causal, t))
    return _all(found, target)


def chosen(
    m: int, n: int, dtype: torch.dtype = torch.bfloat16, *, engine: bool = True
) -> tuple[ModuleType, Any]:
    """What `softmax` chooses for a contiguous matrix on a GPU with a copy engine.

    Args:
        m: rows.
        n: elements of a row.
        dtype: of the elements.
        engine: whether there is such an engine.

    Returns:
        A rung, and its configuration.
    """
    x = _meta((m, n), dtype)
    rows = choose.describe(x, x, plain=False)
    together = choose.cooperative.refusal(x) is None
    engine = engine and choose.resident.refusal(x) is None
    rows = rows._replace(engine=engine, together=together)
    return choose.choose(rows)


def _all(found: list[tuple], target: str) -> tuple[compile_only.Artefact, ...]:
    # A cap on registers is an option of the compiler for NVIDIA alone.
    unknown = {"maxnreg"} if target.startswith("gfx") else set()
    return tuple(
        compile_only.compile(
            kernel, *args, target=target, **{k: meta[k] for k in meta.keys() - unknown}
        )
        for kernel, args, meta in found
    )


__all__ = [
    "GRADIENTS",
    "chosen",
    "compiled",
    "compiled_columns",
    "compiled_masked",
    "config_of",
    "launches",
]
