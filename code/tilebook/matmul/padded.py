"""Rows that start anywhere: copied once to where they start aligned, then described.

A row of 1023 numbers of bf16 starts at a multiple of 2 bytes, no more, and every load
of it is of one element. A copy of both operands, whose rows begin 16 bytes apart or a
multiple of that, costs two passes over them, which is little beside mnk terms.
"""

import torch

from tilebook import device
from tilebook.matmul import described, descriptors
from tilebook.matmul.operands import Task
from tilebook.tiling.described import LARGEST

ALIGNMENT = 16
"""Bytes that the copy engine wants rows to start at multiples of."""

Config = described.Config
config_for = described.config_for


def misplaced(x: torch.Tensor) -> bool:
    """Whether a matrix can't be described where it lies, neither way round."""
    return descriptors.unfit(x) is not None and descriptors.unfit(x.t()) is not None


def fits(task: Task) -> bool:
    """Whether a copy is possible and would help: on GPUs with a copy engine only."""
    aside = misplaced(task.a) or misplaced(task.b)
    small = max(task.m, task.n, task.k) <= LARGEST
    return aside and bool(task.k) and small and device.has("tma")


def aligned(x: torch.Tensor) -> torch.Tensor:
    """The same matrix, its rows at multiples of `ALIGNMENT` bytes.

    Args:
        x: matrix, any strides.

    Returns:
        `x` if it can be described, else a copy, in rows or in columns as `x` is.
    """
    if not misplaced(x):
        return x
    if x.stride(0) == 1 != x.stride(1):
        return aligned(x.t()).t()
    unit = ALIGNMENT // x.itemsize
    rows, columns = x.shape
    place = x.new_empty(rows, -(-columns // unit) * unit)
    return place[:, :columns].copy_(x)


def launch(task: Task, config: Config | None = None) -> None:
    """Copy what has to be copied, and multiply as `described` does.

    Args:
        task: the product, with elements and terms.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than 32 bits count.
    """
    placed = task._replace(a=aligned(task.a), b=aligned(task.b))
    described.launch(placed, config or described.config_for(placed))
