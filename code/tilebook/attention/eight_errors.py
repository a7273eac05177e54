"""How far attention in eight bits may be from the exact one, derived.

What rounding queries, keys and values costs is seen beside the operands that they were;
this is about what the kernels add to it. With u = 2^-24, c blocks of keys, and products
of codes, which are exact:

* A logit's sum of d terms is off by 2du of the sum of magnitudes A_ij, if additions are
  float32's. Where tensor cores keep B bits behind the largest of 32 terms and the sum
  so far, each of these 33 loses up to 2^-B of that, in each of d / 32 steps: C_ij. So
  the logit is off by e_ij = (2d + 16) u A_ij + C_ij, and its power relatively by
  r_ij = e_ij + u (32 + 3 abs(x_ij) + 3 abs(m_i - x_ij)).
* A weight is rounded to three bits behind its first, by w = 2^-4 of itself at most. One
  below 2^-6 as it is stored, lifted by 2^8, is off by as much as half a step there,
  2^-18 of the largest weight e^(m_i - lse_i), which is what it stands beside.
* Products of weights and values lose 33 * 2^-B of the sum of magnitudes in each step of
  32 keys: those of a block of 128 at most where blocks are summed apart, else of all.

      error of o_i: sum of p_ij abs(v_j) (r_ij + r_i + w + t + (2n + 6c + 16) u)
                    + 2^-18 e^(m_i - lse_i) sum of abs(v_j),
      error of lse_i: r_i + (n + 6c + 16 + 4 abs(lse_i) + 3 abs(m_i)) u.
"""

import torch

from tilebook.attention import reference
from tilebook.attention.errors import Bound, U

ROUNDED = 2.0**-4
"""Of a weight, at most, where it has all its bits."""
SMALL = 2.0**-18
"""Half a step of the smallest weights, beside a weight of 1."""
STEP = 32
"""Terms that one instruction takes."""


def cut_off(q: torch.Tensor, k: torch.Tensor, bits: int) -> torch.Tensor:
    """What tensor cores may lose of products of rows.

    Args:
        q: (..., s, d) float64.
        k: (..., n, d).
        bits: kept behind the largest of a step's terms and the sum so far.

    Returns:
        (..., s, n).
    """
    off = torch.zeros_like(q @ k.mT)
    total = torch.zeros_like(off)
    for start in range(0, q.shape[-1], STEP):
        a, b = (x[..., start : start + STEP] for x in (q, k))
        largest = (a.abs().unsqueeze(-2) * b.abs().unsqueeze(-3)).amax(-1)
        off += (STEP + 1) * 2.0**-bits * torch.maximum(largest, total.abs())
        total += a @ b.mT
    return off


def bounds(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    chunk: int = 32,
    bits: int | None = None,
    apart: bool = True,
) -> tuple[Bound, Bound]:
    """Bound the errors of the result and of the logarithms, before their roundings.

    Args:
        q: what codes of queries stand for, (b, h, s, d).
        k: of keys (b, hk, sk, d).
        v: of values, upright (b, hk, sk, e).
        scale: what products are multiplied by.
        causal: whether query i sees keys up to i only.
        chunk: keys of a block, at least.
        bits: that tensor cores keep of a sum; None for float32's own additions.
        apart: whether blocks of 128 keys are summed apart.

    Returns:
        Of the result, and of the logarithms.
    """
    q, k, v = (x.double() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    (d, n), right = (q.shape[3], k.shape[2]), 0 if causal else None
    x = reference.logits(q, k, scale=scale, right=right)
    _, lse = reference.attention(q, k, v, scale=scale, right=right)
    there = x > -torch.inf
    top = x.amax(-1)
    x = x.masked_fill(~there, 0)
    weights = (x - lse[..., None]).exp().masked_fill(~there, 0)
    off = (2 * d + 16) * U * scale * (q.abs() @ k.abs().mT)
    lost = 0.0
    if bits is not None:
        off = off + scale * cut_off(q, k, bits)
        lost = (STEP + 1) * 2.0**-bits * (4 if apart else -(-n // STEP))
    away = (top[..., None] - x).abs()
    power = off + U * (32 + 3 * x.abs() + 3 * away)
    mean = (weights * power).sum(-1)
    chunks = n // chunk + 3
    fixed = ROUNDED + lost + (2 * n + 6 * chunks + 16) * U
    small = SMALL * (top - lse).exp()[..., None] * there
    out_off = (weights * (power + mean[..., None] + fixed) + small) @ v.abs()
    lse_off = mean + (n + 6 * chunks + 16 + 4 * lse.abs() + 3 * top.abs()) * U
    return Bound(out_off / U), Bound(lse_off / U)
