"""Operands that lie where nobody reads them well: copied once, then described.

A row of 1023 numbers of bf16 starts at a multiple of 2 bytes, no more, and every load
of it is of one element. And Hopper's tensor cores read operands of 2 bytes in either
order, of all others only with the terms of a sum as neighbours: else every tile takes a
detour through registers, once for each tile of the result that it is a part of. A copy
whose rows begin at multiples of 16 bytes, with terms together where that matters, costs
a pass over the operand, which is little beside mnk terms.
"""

import torch

from tilebook import device
from tilebook.matmul import described, descriptors
from tilebook.matmul.operands import Task
from tilebook.tiling.described import LARGEST
from tilebook.tiling.public import transpose

ALIGNMENT = 16
"""Bytes that the copy engine wants rows to start at multiples of."""

Config = described.Config
config_for = described.config_for


def misplaced(x: torch.Tensor) -> bool:
    """Whether a matrix can't be described where it lies, neither way round."""
    return descriptors.unfit(x) is not None and descriptors.unfit(x.t()) is not None


def apart(task: Task) -> bool:
    """Whether tensor cores want terms together that lie apart, in `a` or in `b`.

    Args:
        task: the product.
    """
    along = task.a.stride(1) == 1 and task.b.stride(0) == 1
    return _only_along(task) and not along


def _only_along(task: Task) -> bool:
    if task.a.itemsize == 2 or not device.has("wgmma"):
        return False
    return task.a.dtype != torch.float32 or task.precision != "ieee"


def fits(task: Task) -> bool:
    """Whether a copy is possible and may help: on GPUs with a copy engine only."""
    aside = misplaced(task.a) or misplaced(task.b) or apart(task)
    small = max(task.m, task.n, task.k) <= LARGEST
    return aside and bool(task.k) and small and device.has("tma")


def room_for(x: torch.Tensor, along: bool, where: str | None = None) -> torch.Tensor:
    """Make room for a copy of a matrix, its rows or columns at multiples of
    `ALIGNMENT` bytes.

    Args:
        x: matrix, any strides.
        along: whether elements of a row are to be neighbours; by default they are
            unless those of a column are in `x`.
        where: the copy's device, that of `x` by default.

    Returns:
        A matrix of that shape, not yet written.
    """
    if not along and x.stride(0) == 1 != x.stride(1):
        return room_for(x.t(), True, where).t()
    unit = ALIGNMENT // x.itemsize
    rows, columns = x.shape
    wide = -(-columns // unit) * unit
    return x.new_empty(rows, wide, device=where or x.device)[:, :columns]


def aligned(x: torch.Tensor, along: bool = False) -> torch.Tensor:
    """The same matrix where the copy engine can read it.

    Args:
        x: matrix, any strides.
        along: whether elements of a row have to be neighbours.

    Returns:
        `x` if it can be described so, else a copy; see `room_for`.
    """
    if descriptors.unfit(x) is None if along else not misplaced(x):
        return x
    if along and x.stride(0) == 1 and x.shape[1] * x.itemsize % ALIGNMENT == 0:
        return transpose(x.t())
    return room_for(x, along).copy_(x)


def placed(task: Task, *, meta: bool = False) -> Task:
    """A product of operands that have been copied where that helps.

    Args:
        task: the product.
        meta: whether to give the copies no memory, for an estimate.
    """
    along = _only_along(task)
    a, b = task.a, task.b.t() if along else task.b
    if meta:
        a, b = (room_for(x, along, "meta") for x in (a, b))
    else:
        a, b = (aligned(x, along) for x in (a, b))
    return task._replace(a=a, b=b.t() if along else b)


def launch(task: Task, config: Config | None = None) -> None:
    """Copy what has to be copied, and multiply as `described` does.

    Args:
        task: the product, with elements and terms.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: the product has more tiles than 32 bits count.
    """
    ready = placed(task)
    described.launch(ready, config or described.config_for(ready))
