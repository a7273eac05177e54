"""What a task's result is exactly, and how far a kernel's may be from it: derived.

Let u = 2^-24. Products of bfloat16 and float16 are exact in float32, those of float32
are rounded once. A sum of k terms is off by at most k u S, where S is the sum of the
terms' magnitudes, in whatever order it is taken (Higham, section 3.1). So

    abs(error of z) <= (k + 2) u (abs(scale) S + abs(bias)),  z = scale (a @ b) + bias.

An activation multiplies that by at most its steepest slope, 1.13 for all of them, and
adds a few roundings of its own. Of a pair silu(g) h is off by 1.1 abs(h) times what g
is off by and abs(silu(g)) times what h is. The residual and the last addition follow.

Tensor cores don't round a sum, they cut it off (Fasi, Higham, Mikaitis and Pranesh,
Numerical behavior of NVIDIA tensor cores, PeerJ Computer Science 7:e330, 2021): a step
of 16 terms loses up to 2 u of the sum so far, always towards zero, and such losses add
up where roundings cancel. For k terms that is below the bound above. It is not below
one that grows with the root of k, as `tilebook.testing` has for sums whose terms'
magnitudes aren't given: see `length`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from tilebook import testing
from tilebook.matmul.operands import Task

OWN = 12
"""Roundings of an activation, its exponential counted as what it is off by."""
SLOPE = 1.2


STEP = 16
"""Terms that a tensor core adds at a time."""


class Bound(NamedTuple):
    """For `testing.assert_close`: `length` times u times `scale` is allowed."""

    scale: torch.Tensor
    length: int


def length(k: int) -> int:
    """How long a sum of k terms counts for a bound that grows with the root of it.

    Args:
        k: terms.

    Returns:
        What makes 4 sqrt(length) u, the limit of an element, 4 sqrt(k) u and 4 u for
        each step: room for steps of half as many terms, as older tensor cores have.
    """
    return math.ceil((k**0.5 + k / STEP) ** 2)


def exact(task: Task) -> torch.Tensor:
    """Compute in float64 what a task's result is.

    Args:
        task: the product.

    Returns:
        Of the result's shape, in float64.
    """
    z = _sums(task)
    if task.activation == "relu":
        z = F.relu(z)
    elif task.activation == "silu":
        z = F.silu(z)
    elif task.activation == "silu_and_mul":
        z = F.silu(z[:, 0::2]) * z[:, 1::2]
    elif task.activation:
        approximate = "tanh" if task.activation == "gelu_tanh" else "none"
        z = F.gelu(z, approximate=approximate)
    return z if task.residual is None else z + task.residual.double()


def bound(task: Task) -> Bound:
    """Derive how far each element may be off.

    Args:
        task: the product.

    Returns:
        A magnitude for each element, and how many u of it are allowed.
    """
    size = abs(task.scale) * (task.a.double().abs() @ task.b.double().abs())
    if task.bias is not None:
        size = size + task.bias.double().abs()
    if task.activation == "silu_and_mul":
        z = _sums(task)
        gate, up = z[:, 0::2], z[:, 1::2]
        size = size[:, 0::2] * up.abs() + F.silu(gate).abs() * size[:, 1::2]
    if task.activation:
        size = SLOPE * size
    if task.residual is not None:
        size = size + task.residual.double().abs()
    return Bound(
        size.nan_to_num(posinf=0), task.k + 3 + (OWN if task.activation else 0)
    )


def check(task: Task, operand: str | None = None) -> None:
    """Assert that each element of a task's result is within its bound.

    Args:
        task: the product, multiplied.
        operand: format that operands are rounded to before ("tf32").

    Raises:
        AssertionError: one isn't; the message says which.
    """
    scale, length = bound(task)
    testing.assert_close(
        task.out, exact(task), length=length, factor=length, scale=scale,
        operand=operand,
    )  # fmt: skip


def _sums(task: Task) -> torch.Tensor:
    z = task.scale * (task.a.double() @ task.b.double())
    return z if task.bias is None else z + task.bias.double()


def symmetric(out: np.ndarray, a: np.ndarray) -> bool:
    """Whether a @ a.T in bfloat16 is its own transpose, but for how sums are rounded.

    Args:
        out: (m, m), rounded to bfloat16.
        a: (m, k).

    Returns:
        Whether each pair of elements is as near as two orders of the same sum are.
    """
    out, magnitudes = np.asarray(out, np.float64), np.abs(np.asarray(a, np.float64))
    sums = 2 * (a.shape[1] + 2) * 2.0**-24 * (magnitudes @ magnitudes.T)
    rounded = 2.0**-8 * (np.abs(out) + np.abs(out.T))
    return bool((np.abs(out - out.T) <= sums + rounded).all())
