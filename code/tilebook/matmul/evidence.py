"""The chapter's kernels, compiled for a named target as they would be launched."""

import functools
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import torch

from tilebook import _ship, _worker, compile_only
from tilebook.matmul import (
    batched,
    described,
    naive,
    ordered,
    outer,
    persistent,
    split,
    streamed,
    tile,
    vectors,
)
from tilebook.matmul.operands import Task, result_dtype
from tilebook.matmul.shapes import Shape

SQUARE = Shape(4096, 4096, 4096)
"""What the ladder is compiled for."""
RUNGS: dict[str, tuple[ModuleType, Shape, str]] = {
    **{
        rung.__name__.rpartition(".")[2]: (rung, SQUARE, "NN")
        for rung in (naive, outer, tile, ordered, persistent, described)
    },
    "split": (split, Shape(16, 4096, 4096), "NT"),
    "vectors": (vectors, Shape(1, 4096, 4096), "NT"),
    "streamed": (streamed, Shape(512, 10240, 8192), "NT"),
    "batched": (batched, Shape(512, 512, 512), "NN"),
}
"""Module, product and layout by name; the last is one of `BATCH` products."""
BATCH = 32


class Launch(NamedTuple):
    """A kernel, and what it was to be launched with."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any]


def matrix(
    rows: int, columns: int, dtype: torch.dtype, *, turned: bool = False
) -> torch.Tensor:
    """Describe a matrix that takes no memory.

    Args:
        rows: of the matrix.
        columns: of it.
        dtype: of its elements.
        turned: whether columns lie together, and not rows.

    Returns:
        A matrix (rows, columns) on the device "meta".
    """
    shape = (columns, rows) if turned else (rows, columns)
    x = torch.empty(shape, dtype=dtype, device="meta")
    return x.t() if turned else x


def task_for(
    shape: Shape, layout: str, dtype: torch.dtype, precision: str = "tf32"
) -> Task:
    """Describe a product without memory.

    Args:
        shape: of the product.
        layout: one of `shapes.LAYOUTS`, or "TT".
        dtype: of the operands.
        precision: of float32, one of `operands.PRECISIONS`.

    Returns:
        The task, its matrices on the device "meta".
    """
    m, n, k = shape
    a = matrix(m, k, dtype, turned=layout[0] == "T")
    b = matrix(k, n, dtype, turned=layout[1] == "T")
    return Task(a, b, matrix(m, n, result_dtype(dtype)), precision)


def launches(launch: Callable[[Callable[[Any], Any]], Any]) -> list[Launch]:
    """Record what a function launches instead of launching it.

    Args:
        launch: gets what wraps its kernels, as `Task.wrap`.

    Returns:
        Each launch, in order.
    """
    caught: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launched(*args: Any, **meta: Any) -> None:
                caught.append(Launch(self.kernel, grid, args, meta))

            return launched

    launch(Recorder)
    return caught


@functools.cache
def launched(
    rung: ModuleType,
    config: Any = None,
    *,
    shape: Shape = SQUARE,
    layout: str = "NN",
    dtype: torch.dtype = torch.bfloat16,
    precision: str = "tf32",
) -> tuple[Launch, ...]:
    """Record what a module of the chapter launches for a product.

    Args:
        rung: one of the modules in `RUNGS`.
        config: a `Config` of that module; its own choice by default.
        shape: of the product; for `batched` of one of `BATCH`.
        layout: one of `shapes.LAYOUTS`, or "TT".
        dtype: of the operands.
        precision: of float32, one of `operands.PRECISIONS`.

    Returns:
        Each launch, in order.
    """
    task = task_for(shape, layout, dtype, precision)
    if rung is not batched:
        more = () if config is None else (config,)
        return tuple(
            launches(lambda wrap: rung.launch(task._replace(wrap=wrap), *more))
        )
    a, b, out = (x.expand(BATCH, *x.shape) for x in (task.a, task.b, task.out))
    options = {"precision": precision, "config": config}
    return tuple(launches(lambda wrap: batched.launch(a, b, out, wrap=wrap, **options)))


@functools.cache
def compiled(
    rung: ModuleType, config: Any = None, *, target: str = "sm_90", **product: Any
) -> tuple[compile_only.Artefact, ...]:
    """Compile what a module of the chapter launches for a product.

    Args:
        rung: as for `launched`.
        config: likewise.
        target: as for `compile_only.compile`.
        product: as for `launched`.

    Returns:
        The compiled kernels, one for each launch.
    """
    return tuple(
        compile_only.compile(each.kernel, *each.args, target=target, **each.meta)
        for each in launched(rung, config, **product)
    )


def first(rung: ModuleType, config: Any = None, **more: Any) -> compile_only.Artefact:
    """Compile what a module of the chapter launches first for a product.

    Args:
        rung: as for `compiled`.
        config: likewise.
        more: likewise.

    Returns:
        The kernel.
    """
    return compiled(rung, config, **more)[0]


def ahead(wanted: Iterable[tuple[Launch, str]]) -> threading.Thread:
    """Compile what will be asked for later, in the background and a process of its own.

    What comes of it lies in Triton's cache, where `compiled` finds it.

    Args:
        wanted: launches, and the target of each.

    Returns:
        The thread that waits for the process.
    """
    requests = []
    for each, target in wanted:
        gpu = compile_only.target_of(target)
        kernel, meta = _ship.unwrap(each.kernel, each.args, each.meta)
        where = (gpu.backend, gpu.arch, gpu.warp_size)
        requests.append(_ship.dumps((kernel, each.args, meta, where)))
    second = _worker.Worker("compiled")

    def work() -> None:
        try:
            for request in requests:
                second.call("tilebook.compile_only.binaries:compile_request", request)
        except Exception:  # whoever asks for it is told what is wrong
            return
        finally:
            second.stop()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
