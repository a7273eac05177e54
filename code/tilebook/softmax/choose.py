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
    backward_cooperative,
    backward_long,
    cooperative,
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
RAGGED = 1024
"""Rows beyond this that start anywhere have their ends taken apart."""
PERSISTENT = 16 * 1024
"""Elements of a row beyond which programs stay, if an element takes two bytes: so many
are long in coming, and long in work."""
COOPERATIVE = 256 * 1024
"""Beyond this, a row of two bytes an element is held by several programs."""
SPLIT = 32 * 1024
"""From here on a row may be shared out among programs, if rows are few."""
FEW = 2
"""Rows are few if there are this many multiprocessors for each, or more."""
JOINT = 8 * 2**20
"""From so many bytes in all on, few rows are held by programs that wait for each other:
with fewer, the waiting takes as long as the second reading that it saves."""
MOST_PROGRAMS = 2**31 - 1

GRADIENT_RAGGED = 32 * 1024
"""For the gradient: rows of narrow elements that start anywhere are read twice up to
here, the second time from a cache, and beyond it held by several programs."""


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
    together: bool
    """Whether programs that wait for one another can hold them: see `cooperative`."""

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return self.n * self.itemsize


def describe(x: torch.Tensor, out: torch.Tensor, *, plain: bool) -> Rows:
    """Describe a matrix's rows.

    Args:
        x: matrix (m, n), not empty, neighbours in its rows.
        out: the same shape, contiguous.
        plain: whether kernels are launched as they are. `torch.compile`, when it looks
            into a launch, follows neither Gluon nor cooperative ones.

    Returns:
        What there is to know of them.
    """
    m, n = map(int, x.shape)
    # Where the result is narrower, what divides may be more than 16 bytes of `x`.
    aligned = starts_aligned(x) and divisor(x, out) >= 16 // x.itemsize
    even = ragged.uneven(x) is None
    engine = plain and device.has("tma") and resident.refusal(x) is None
    together = plain and device.has("sm80") and cooperative.refusal(x) is None
    return Rows(m, n, x.itemsize, aligned, even, engine, together)


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
        if rows.together and m * rows.nbytes >= JOINT:
            return cooperative, cooperative.config_for(n, size)
        return split, split.config_for(m, n, size)
    if n > fused.longest(size):
        if rows.together and (size == 4 or rows.nbytes > COOPERATIVE):
            return cooperative, cooperative.config_for(n, size)
        if rows.engine:
            return resident, resident.config_for(n, size)
        return online, online.config_for(n, size)
    apart = rows.even and not rows.aligned and rows.nbytes > RAGGED
    if rows.nbytes <= SEVERAL and not apart:
        config = several.config_for(n, size)
        if m <= MOST_PROGRAMS * config.rows:
            return several, config
    if m <= MOST_PROGRAMS:
        if apart:
            return ragged, ragged.config_for(n, size)
        if n <= PERSISTENT or size > 2:
            return fused, fused.config_for(n, size)
    return persistent, persistent.config_for(n, size)


def describe_gradient(
    y: torch.Tensor, grad: torch.Tensor, dx: torch.Tensor, *, plain: bool
) -> Rows:
    """Describe the rows of a gradient; see `describe`.

    Args:
        y: the result (m, n), contiguous, not empty.
        grad: what arrives for it, neighbours in its rows.
        dx: the same shape, contiguous.
        plain: as for `describe`.

    Returns:
        What there is to know of them.
    """
    rows = describe(grad, dx, plain=False)
    refusal = backward_cooperative.refusal(y, grad, dx)
    return rows._replace(together=plain and device.has("sm80") and refusal is None)


def choose_gradient(rows: Rows) -> tuple[ModuleType, Any]:
    """Choose how the gradient along rows is computed.

    Args:
        rows: what is to be known of the gradient that arrives.

    Returns:
        `backward`, `backward_cooperative` or `backward_long`, and a `Config` of it.
    """
    n, size = rows.n, rows.itemsize
    # Elements of four bytes are loaded one by one as fast as memory gives them.
    narrow = size < 4 and rows.nbytes > SEVERAL
    odd = narrow and rows.even and not rows.aligned
    if not odd and n <= backward.longest(size):
        config = backward.config_for(n, size)
        if rows.m > MOST_PROGRAMS * config.rows:
            config = backward.config_for(n, size, stages=2)
        return backward, config
    if rows.together and rows.nbytes > GRADIENT_RAGGED:
        return backward_cooperative, backward_cooperative.config_for(n, size)
    return backward_long, backward_long.config_for(n, size)
