"""The online softmax recurrence, on the host: states, how they merge, and their errors.

A softmax needs the largest term of a row and the sum of exponentials of all terms less
that. The recurrence gets both in one pass, chunk by chunk, and what it carries along
may be split and merged in any way: over lanes, over programs, over GPUs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch

from tilebook import testing

__all__ = ["State", "bound", "empty", "logarithm", "merge", "online", "state", "trace"]


class State(NamedTuple):
    """What a set of terms leaves behind."""

    m: torch.Tensor
    """The largest term; -inf where there is none."""
    d: torch.Tensor
    """The sum of exponentials of the terms less m (less 0 where m is infinite)."""


def _base(m: torch.Tensor) -> torch.Tensor:
    """What is subtracted: m where it is finite, for inf - inf is NaN."""
    return torch.where(m.isinf(), torch.zeros_like(m), m)


def empty(like: torch.Tensor) -> State:
    """The state of no terms, the neutral element of `merge`.

    Args:
        like: tensor (..., n) whose rows the state is for.

    Returns:
        m = -inf and d = 0, each (...), of the tensor's dtype.
    """
    zeros = like.new_zeros(like.shape[:-1])
    return State(zeros - math.inf, zeros)


def state(x: torch.Tensor) -> State:
    """The state of all terms of each row, by its definition.

    Args:
        x: floating-point tensor (..., n).

    Returns:
        m and d, each (...), of the dtype of `x`. With NaN among the terms d is NaN.
    """
    if not x.shape[-1]:
        return empty(x)
    # As a GPU's maximum does, this one passes NaN over; d has it all the same.
    m = torch.where(x.isnan(), -math.inf, x).amax(dim=-1)
    return State(m, (x - _base(m)[..., None]).exp().sum(dim=-1))


def merge(a: State, b: State) -> State:
    """The state of two sets of terms together.

    Args:
        a: state of one set.
        b: state of the other, of the same shape.

    Returns:
        The state of all their terms.

    Notes:
        Let m be the larger of both maxima. A term that entered one sum as e^(x - m_a)
        is to enter the joint one as e^(x - m), which is e^(x - m_a) e^(m_a - m): so a
        sum is made right by one factor, e^(m_a - m), never above 1. The factor has old
        minus new maximum in its exponent. Turned round it is at least 1, and the sum
        grows where it should shrink.

        The result is the state of the union, whatever the two sets are. Hence merging
        is associative and commutative, with `empty` as neutral element, and a row may
        be cut anywhere, its pieces merged in any order. In floating-point arithmetic
        that holds up to `bound`.
    """
    m = torch.maximum(a.m, b.m)
    base = _base(m)
    # A state without terms has m = -inf: its factor is 0, never NaN.
    return State(m, a.d * (a.m - base).exp() + b.d * (b.m - base).exp())


def online(x: torch.Tensor, cuts: Sequence[int]) -> State:
    """Run the recurrence along each row.

    Args:
        x: floating-point tensor (..., n).
        cuts: where a chunk ends and the next begins, increasing, from 0 to n.

    Returns:
        The state of each row, each (...).

    Notes:
        By induction: after k chunks, m is the largest of their terms and d the sum of
        e^(x - m) over them. For k = 0 there are no terms, m = -inf and d = 0. If it
        holds for k chunks, then one merge with the state of chunk k + 1 gives the
        largest of both maxima, which is that of all k + 1 chunks, and multiplies each
        sum by the factor that turns its e^(x - m_old) into e^(x - m_new); so it holds
        for k + 1. After the last chunk m and d are those of the row, and e^(x - m) / d
        is its softmax.
    """
    found = empty(x)
    for start, stop in zip((0, *cuts), (*cuts, x.shape[-1]), strict=True):
        found = merge(found, state(x[..., start:stop]))
    return found


def logarithm(found: State) -> torch.Tensor:
    """The logarithm of the sum of exponentials that a state stands for.

    Args:
        found: the state.

    Returns:
        Tensor of the shape of m: -inf of no terms, inf if a term is, NaN if one is.
    """
    return _base(found.m) + found.d.log()


def bound(n: int, merges: int, dtype: torch.dtype) -> float:
    """Largest relative error of d after a row went through merges.

    Args:
        n: terms of the row.
        merges: that a term goes through at most.
        dtype: in which everything is computed.

    Returns:
        The error, to first order in the unit roundoff u.

    Notes:
        A term enters as e^(x - m_1) and is multiplied by e^(m_1 - m_2), e^(m_2 - m_3)
        and so on. Rounding the exponents costs at most u times their sizes, which add
        up to m - x, since maxima only grow. Weighted by its share p of the sum, and
        added up, that is u times the sum of p (m - x), at most u log n. Each
        exponential is taken as right to 2 u, each product and each of at most n +
        merges additions adds u.
    """
    u = testing.bound(dtype)
    return u * (math.log(max(n, 1)) + n + 2 + 4 * merges)


def trace(row: Sequence[float] | torch.Tensor, chunk: int) -> pd.DataFrame:
    """Follow the recurrence through a row.

    Args:
        row: the terms.
        chunk: how many are taken in at a time.

    Returns:
        A line per chunk: its number ("chunk"), the largest of its own terms
        ("largest"), "m" and "d" after it, and "rescale", the factor by which it made
        the sum so far smaller; 1 where it brought no new maximum.
    """
    x = torch.as_tensor(row, dtype=torch.float64)
    found = empty(x)
    lines = []
    for number, part in enumerate(x.split(chunk)):
        new = state(part)
        after = merge(found, new)
        factor = (found.m - _base(after.m)).exp()
        lines.append((number, *map(float, (new.m, after.m, after.d, factor))))
        found = after
    return pd.DataFrame(lines, columns=["chunk", "largest", "m", "d", "rescale"])
