"""How far a result may be from the exact one: a bound for each element, derived.

Let u = 2^-24 be half the distance from 1 to the next float32, and t_i = (m - x_i) / T,
which is 0 or more: how far an element lies below the maximum m of its row, over the
temperature. To first order in u, in the order of the kernel:

* x_i - m is rounded once, its factor log2(e) / T three times (1 / T, log2(e), their
  product), and the product of the two once: the exponent is off by at most 5 u t_i,
  and so is the power, relatively.
* The instruction for powers of two is off by 2^-22 = 4u at most (PTX manual, ex2).
* A sum of terms of one sign is off by at most k u of itself, where k counts the
  additions on the longest path through it: those within a lane, and a tree over lanes.
* With the online recurrence a term also shrinks each time that the maximum of its lane
  grows: 5u for a power and a product each time, at most c times for c chunks. What the
  maximum grew by in all these steps is part of t_i, which is counted already. Merging
  the lanes is one more such step.
* So the sum d is off, relatively, by the mean of the terms' errors, weighted with the
  terms: by (4 + 5 t + 5 (c + 1) + k) u with t = sum of p_i t_i.
* The reciprocal of d is off by 2u (PTX manual, div.full), and its product by u.

Together, with u_out for the final rounding to the result's type::

    abs(error of p_i) <= u_out p_i + u p_i (5 t_i + 5 t + 5 c + k + 16).

It grows with t_i, and so do those of all implementations that take the power of a
rounded difference. An element with t_i = 80 is off by 400u, 2e-5 of itself, when it is
e^-80 of the largest: in proportion to the row it is nothing.

For the logarithm, (x_i - m) / T is rounded three times, log d is off by the relative
error of d, and by 2u of itself, and the difference is rounded once:

    abs(error of y_i) <= u_out abs(y_i)
        + u (3 t_i + abs(y_i) + 2 log d + 5 t + 5 c + k + 9).

For the gradient y_i (g_i - s) / T with s = sum of y_i g_i, given y and g as they are, s
is off by (k + 1) u S, where S is the sum of the abs(y_i g_i); four roundings follow:

    abs(error of dx_i) <= u_out abs(dx_i) + u y_i / T (4 abs(g_i) + (k + 5) S).

In float64 the same holds with its u.
"""

import math
from typing import NamedTuple

import torch


class Bound(NamedTuple):
    """For `testing.assert_close`: `length` times u times `scale` is allowed."""

    scale: torch.Tensor
    length: int


def additions(n: int, lanes: int = 32) -> int:
    """Count the additions on the longest path through a sum.

    Args:
        n: its terms.
        lanes: what adds side by side: a warp at least.

    Returns:
        Those within a lane and those of a tree over lanes.
    """
    return -(-n // lanes) + math.ceil(math.log2(lanes))


def forward(
    x: torch.Tensor,
    dim: int = -1,
    *,
    log: bool = False,
    temperature: float = 1.0,
    chunks: int = 1,
    lanes: int = 32,
) -> Bound:
    """Bound the error of softmax, or of its logarithm, before the final rounding.

    Args:
        x: the operand, any dtype; what a mask leaves out is -inf.
        dim: the dimension.
        log: whether it is the logarithm.
        temperature: what `x` is divided by.
        chunks: at most so many are taken one after the other.
        lanes: see `additions`.

    Returns:
        The bound, float64, of the shape of `x`; 0 where there is nothing to bound.
    """
    wide = x.detach().double() / temperature
    if not x.numel():
        return Bound(wide, 1)
    t = wide.amax(dim, keepdim=True) - wide
    p = wide.softmax(dim)
    weighted = torch.where(p > 0, p * t, 0).sum(dim, keepdim=True)
    n = x.shape[dim] if x.ndim else 1
    fixed = 5 * chunks + additions(n, lanes) + 16
    if log:
        y = wide.log_softmax(dim)
        # Of the largest element t is 0, and the result is -log d.
        total = -y.amax(dim, keepdim=True)
        error = 3 * t + y.abs() + 2 * total.abs() + 5 * weighted + fixed - 7
    else:
        error = p * (5 * t + 5 * weighted + fixed)
    # At least one rounding is always allowed, hence one more in float32 itself.
    return Bound(error.nan_to_num(0, 0, 0) / fixed, fixed + 1)


def backward(
    y: torch.Tensor,
    grad: torch.Tensor,
    dim: int = -1,
    *,
    log: bool = False,
    temperature: float = 1.0,
    lanes: int = 32,
) -> Bound:
    """Bound the error of the gradient, given the result, before the final rounding.

    Args:
        y: the result of softmax, or of its logarithm, as it is.
        grad: what arrives for it.
        dim: the dimension.
        log: whether it is the logarithm.
        temperature: as for the result.
        lanes: see `additions`.

    Returns:
        The bound, float64, of the shape of `y`.
    """
    y, grad = y.detach().double(), grad.detach().double()
    if not y.numel():
        return Bound(y, 1)
    k = additions(y.shape[dim] if y.ndim else 1, lanes)
    if log:
        # e^y is off by (4 + 3 |y|) u.
        terms = grad.abs().sum(dim, keepdim=True)
        error = 4 * grad.abs() + y.exp() * terms * (k + 10 + 3 * y.abs())
    else:
        terms = (y * grad).abs().sum(dim, keepdim=True)
        error = y * (4 * grad.abs() + (k + 5) * terms)
    fixed = k + 10
    return Bound((error / temperature).nan_to_num(0, 0, 0) / fixed, fixed + 1)
