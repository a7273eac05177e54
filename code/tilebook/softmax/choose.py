"""Which rung takes which rows: one table of thresholds, and nothing for a single shape.

Every threshold is a number of bytes in a row, since it is bytes that registers, caches
and memory count. `softmax-crossovers` measures where the curves of the rungs cross.
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch

from tilebook import device
from tilebook.softmax import (
    backward,
    backward_long,
    fused,
    online,
    persistent,
    ragged,
    resident,
    several,
    split,
)
from tilebook.softmax.occupancy import PRETENDED
from tilebook.softmax.operands import divisor, starts_aligned

SEVERAL = 2 * 1024
"""Rows up to here are taken several at a time."""
PERSISTENT = 16 * 1024
"""From here on programs stay and ask for the next row ahead."""
RESIDENT = 16 * 1024
"""From here on, where there is a copy engine, it brings rows to shared memory."""
SPLIT = 32 * 1024
"""From here on a row may be shared out among programs, if rows are few."""
FEW = 2
"""Rows are few if there are this many multiprocessors for each, or more."""
MOST_PROGRAMS = 2**31 - 1

GRADIENT_WALKS = 4 * 1024
"""For the gradient: from here on programs stay."""
GRADIENT_TWICE = 32 * 1024
"""For the gradient: beyond this, rows are read twice."""


class Rows(NamedTuple):
    """What is to be known of a matrix's rows to choose."""

    m: int
    """How many there are."""
    n: int
    """Elements of each."""
    itemsize: int
    """Bytes of an element."""
    aligned: bool
    """Whether each row starts, and is, a multiple of 16 bytes."""
    even: bool
    """Whether a row and its result start equally far from one: see `ragged`."""
    engine: bool
    """Whether the copy engine can bring them: see `resident`."""

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return self.n * self.itemsize


def describe(x: torch.Tensor, out: torch.Tensor, *, engine: bool) -> Rows:
    """Describe a matrix's rows.

    Args:
        x: matrix (m, n), not empty, neighbours in its rows.
        out: the same shape, contiguous.
        engine: whether to think of the copy engine, which `torch.compile` can't follow.

    Returns:
        What there is to know of them.
    """
    m, n = map(int, x.shape)
    aligned = starts_aligned(x) and divisor(x, out) == 16 // x.itemsize
    even = ragged.uneven(x) is None
    engine = engine and device.has("tma") and resident.refusal(x) is None
    return Rows(m, n, x.itemsize, aligned, even, engine)


def choose(rows: Rows) -> tuple[ModuleType, Any]:
    """Choose a rung and how to launch it.

    Args:
        rows: what is to be known of the matrix.

    Returns:
        A module of the ladder, and its `Config`.
    """
    m, n, size = rows.m, rows.n, rows.itemsize
    sms = device.current().sms or PRETENDED
    if rows.nbytes >= SPLIT and FEW * m <= sms:
        return split, split.config_for(m, n, size)
    if rows.engine and rows.nbytes >= RESIDENT:
        return resident, resident.config_for(n, size)
    if n > fused.longest(size):
        return online, online.config_for(n, size)
    if rows.nbytes <= SEVERAL:
        config = several.config_for(n, size)
        if m <= MOST_PROGRAMS * config.rows:
            return several, config
    if m <= MOST_PROGRAMS:
        if rows.even and not rows.aligned and rows.nbytes > SEVERAL:
            return ragged, ragged.config_for(n, size)
        if rows.nbytes < PERSISTENT:
            return fused, fused.config_for(n, size)
    return persistent, persistent.config_for(n, size)


def choose_gradient(rows: Rows) -> tuple[ModuleType, Any]:
    """Choose how the gradient along rows is computed.

    Args:
        rows: what is to be known of the gradient that arrives.

    Returns:
        `backward` or `backward_long`, and a `Config` of it.
    """
    n, size = rows.n, rows.itemsize
    odd = rows.even and not rows.aligned and rows.nbytes > SEVERAL
    if odd or rows.nbytes > GRADIENT_TWICE or n > backward.longest(size):
        return backward_long, backward_long.config_for(n, size)
    walks = rows.nbytes >= GRADIENT_WALKS and size < 8
    config = backward.config_for(n, size, stages=2 if walks else 0)
    if not walks and rows.m > MOST_PROGRAMS * config.rows:
        config = backward.config_for(n, size, stages=2)
    return backward, config
