"""The chapter's kernels, compiled for a named target as they would be launched."""

from typing import Any

import torch

from tilebook import compile_only
from tilebook.attention import backward, backward_whole, biases, choose, forward
from tilebook.attention.choose import Config
from tilebook.attention.gradients import wanted
from tilebook.attention.operands import Task, room
from tilebook.matmul.evidence import launches

KERNELS = ("forward", "keys", "queries", "whole")
"""Kernels that `compiled` knows, and "bias"."""


def task_for(
    d: int = 128,
    dtype: torch.dtype = torch.bfloat16,
    *,
    e: int | None = None,
    length: int = 4096,
    heads: int = 16,
    shared: int = 1,
    precision: str | None = None,
    described: bool = True,
    **options: Any,
) -> Task:
    """Describe an attention without memory.

    Args:
        d: features of queries and keys.
        dtype: of all.
        e: features of values; `d` by default.
        length: positions of both sides.
        heads: of queries.
        shared: heads of queries to one of keys.
        precision: of float32, "tf32x3" by default, as `tilebook.matmul` names them.
        described: whether loops load by descriptors.
        options: fields of `Task`.

    Returns:
        The task, its tensors on the device "meta".
    """
    told = {"dtype": dtype, "device": "meta"}
    if precision is None:
        precision = "tf32x3" if dtype == torch.float32 else "ieee"
    q = torch.empty(4, heads, length, d, **told)
    k = torch.empty(4, heads // shared, length, d, **told)
    v = torch.empty(4, heads // shared, length, d if e is None else e, **told)
    out, lse = room(q, v)
    return Task(
        q, k, v, out, lse, d**-0.5, precision=precision, described=described, **options
    )


def compiled(
    kernel: str, task: Task, config: Config | None = None, target: str = "sm_90"
) -> compile_only.Artefact:
    """Compile one kernel for a task.

    Args:
        kernel: one of `KERNELS`, or "bias" for a task that has one.
        task: from `task_for`.
        config: how it is launched; the chapter's choice by default.
        target: as for `compile_only.compile`.

    Returns:
        The compiled kernel.
    """
    if config is None:
        config = getattr(choose, f"{kernel}_config")(task, target)
    if kernel == "forward":
        found = launches(lambda wrap: forward.launch(task._replace(wrap=wrap), config))
        return _compiled(found[0], target)
    asked = wanted(task, torch.empty_like(task.out), slopes=False)

    def launch(wrap: Any) -> None:
        gradient = asked._replace(task=task._replace(wrap=wrap))
        if kernel == "whole":
            backward_whole.launch(gradient, config)
        elif kernel == "bias":
            biases.launch(gradient, task.bias, config)
        elif kernel == "keys":
            backward.launch(gradient, config)
        else:
            backward.launch(gradient, None, config)

    # The first launch of each is that of delta_kernel.
    return _compiled(launches(launch)[2 if kernel == "queries" else 1], target)


def _compiled(found: Any, target: str) -> compile_only.Artefact:
    return compile_only.compile(found.kernel, *found.args, target=target, **found.meta)
