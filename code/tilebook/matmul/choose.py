"""Which kernel multiplies what: by a search where there can be one, else by sizes."""

import contextlib
from types import ModuleType

from tilebook import device, library
from tilebook.matmul import described, ordered, searching, split, vectors, ways
from tilebook.matmul.operands import Task

MOST_VECTORS = 4
"""Rows or columns up to which tensor cores have too little to do."""
LEAST_PARTS = 4
"""Parts of a sum from which on cutting it pays for adding them up."""


def choose(task: Task) -> ModuleType:
    """Choose a kernel for a product with elements.

    Args:
        task: the product.

    Returns:
        `vectors` for thin ones; `split` where there are too few tiles to fill the GPU
        and terms enough to share out, or no terms at all; else `described` where tensor
        descriptors can describe the operands, and `ordered` for all others.
    """
    if not task.k:
        return split
    if min(task.m, task.n) <= MOST_VECTORS:
        return vectors
    if split.config_for(task).parts >= LEAST_PARTS:
        return split
    if device.has("tma") and described.refusal(task) is None:
        return described
    return ordered


def product(task: Task, field: str = "matmul") -> None:
    """Multiply in the way that was the fastest here, and write the task's result.

    Args:
        task: the product; its operands have been checked.
        field: whose kernels may race; one of `ways.FIELDS`.

    Raises:
        ValueError: there are more tiles than a grid has programs.

    Notes:
        A new question is searched where a GPU is there and nothing forbids it (see
        `searching.may_search`), and answered by `choose` elsewhere.
    """
    if not task.out.numel():
        return
    with library.on(task.a):
        way = searching.way_for(task, field) if task.k else None
        if way is not None:
            # What was the fastest on a neighbouring shape may refuse this one.
            with contextlib.suppress(ValueError):
                ways.launch(task, way, field)
                return
        ways.FIELDS[field].rule(task, choose(task)).launch(task)
