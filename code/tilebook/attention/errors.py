"""How far a result and its gradients may be from the exact ones, derived.

Let u = 2^-24 be float32's unit roundoff, w that of the type that tiles have, 0 if that
is float32, and t what products are off by, relatively: with TF32 twice its unit
roundoff, with three of them in place of one twice what two such parts leave, and twice
the product of what one leaves. To first order, in the order of the kernels, and with
A_ij = scale sum of abs(q k):

* A logit is a sum of d products, each addition off by 2u, as tensor cores truncate,
  and up to twelve operations follow. A cap's power, quotient and difference are each
  off by a few u of 1, times the cap. So the logit is off by
  e_ij = ((2d + 12) u + t) A_ij + u (8 cap + 4 slope abs(i - j) + 4 abs(bias)).
* Its power is off relatively by r_ij = e_ij + u (4 + 3 abs(x_ij) + 3 abs(m_i - x_ij)),
  with 4u for the instruction, and the largest logit m_i.
* Each of the c blocks shrinks what was before: 6u each. Sums of n terms are off by n u
  of what is summed, weights are rounded by w before they multiply values, and the
  denominator is off by the mean r_i of its terms' errors. So

      error of o_i: sum of p_ij abs(v_j) (r_ij + r_i + w + t + (2n + 6c + 10) u),
      error of lse_i: r_i + (n + 6c + 6 + 4 abs(lse_i) + 3 abs(m_i)) u = l_i.

* Backward, weights come from the logarithm: they are off by rho_ij = r_ij + l_i
  relatively. dp_ij is off by ((2e + 4) u + t) sum of abs(g v), and delta_i by what o_i
  is off by, its rounding included, times abs(g_i), and (e + 2) u sum of abs(g o).
* dx_ij = p_ij (dp_ij - delta_i) is off by rho_ij of itself and by p_ij times what both
  are off by. Where weights were rounded before, it is off by w of itself, too. A cap's
  derivative 1 - t^2 adds 20u of what it multiplies. Rounding it by w for the last
  product, whose terms are n, ends it.

In float16 weights and dx_ij below 2^-14 lose more: 2^-25 each at most.
"""

from typing import Any, NamedTuple

import torch

from tilebook.attention import reference

U = 2.0**-24
ROUNDOFF = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
PRODUCTS = {"ieee": 0.0, "tf32": 2.0**-10, "tf32x3": 2.0**-20}
LOST = {torch.float16: 2.0**-25}


class Bound(NamedTuple):
    """For `testing.assert_close`: an error of `scale` times u is allowed."""

    scale: torch.Tensor
    length: int = 2


class Bounds(NamedTuple):
    """Of everything that forward and backward give."""

    out: Bound
    lse: Bound
    dq: Bound
    dk: Bound
    dv: Bound
    dx: torch.Tensor
    """Absolute error of the gradient of each logit (b, h, s, sk), before the cap's."""
    dx_size: torch.Tensor
    """Its magnitude."""
    dsink: torch.Tensor
    """Absolute error of the gradient of the sinks (h,)."""


def bounds(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad: torch.Tensor,
    grad_lse: torch.Tensor | None = None,
    *,
    scale: float,
    chunk: int = 16,
    precision: str = "ieee",
    handed: bool = False,
    **options: Any,
) -> Bounds:
    """Bound the errors of the kernels before their final roundings.

    Args:
        q: queries (b, h, s, d).
        k: keys (b, hk, sk, d).
        v: values (b, hk, sk, e).
        grad: what arrives for the result.
        grad_lse: what arrives for the logarithms; 0 by default.
        scale: what products are multiplied by.
        chunk: keys of a block, at least.
        precision: of products of float32, as `tilebook.matmul` names them.
        handed: whether gradients of logits are of rounded weights.
        options: as `reference.attention` names them.

    Returns:
        The bounds, float64.
    """
    w = ROUNDOFF[q.dtype]
    lost = LOST.get(q.dtype, 0.0)
    t = PRODUCTS[precision]
    q, k, v, g = (x.detach().double() for x in (q, k, v, grad))
    batch, heads, rows, d = q.shape
    columns, e = k.shape[2], v.shape[3]
    group = heads // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    plain = {
        name: x.detach() if isinstance(x, torch.Tensor) else x
        for name, x in options.items()
    }
    seen = {
        name: plain.get(name)
        for name in ("left", "right", "bias", "slopes")
        if plain.get(name) is not None
    }
    cap, bottom = plain.get("cap", 0.0), plain.get("bottom", False)
    x = reference.logits(q, k, scale=scale, cap=cap, bottom=bottom, **seen)
    _, lse = reference.attention(q, k, v, scale=scale, **plain)
    there = x > -torch.inf
    x = x.masked_fill(~there, 0)
    safe = lse.masked_fill(lse == -torch.inf, 0)
    top = x.masked_fill(~there, -torch.inf)
    top = top.amax(-1).nan_to_num(0, neginf=0) if columns else torch.zeros_like(lse)
    weights = (x - safe[..., None]).exp().masked_fill(~there, 0)

    size = abs(scale) * (q.abs() @ k.abs().transpose(-1, -2))
    off = ((2 * d + 12) * U + t) * size + 8 * cap * U
    if plain.get("slopes") is not None:
        shift = columns - rows if bottom else 0
        at, to = (torch.arange(n, device=q.device) for n in (rows, columns))
        apart = at[:, None] + shift - to[None]
        steep = plain["slopes"].double().abs().expand(batch, heads)
        off = off + 4 * U * steep[:, :, None, None] * apart.abs()
    bias = plain.get("bias")
    if bias is not None and bias.dtype != torch.bool:
        off = off + 4 * U * bias.double().abs().nan_to_num(posinf=0)
    away = (top[..., None] - x).abs()
    power = off + U * (4 + 3 * x.abs() + 3 * away)
    mean = (weights * power).sum(-1)
    sinks = plain.get("sinks")
    if sinks is not None:
        # The sink's own power, as exact as its difference to the largest logit.
        mean = mean + U * (4 + 6 * sinks.double().abs()[:, None] + 3 * top.abs())
    chunks = columns // chunk + 3
    fixed = (2 * columns + 6 * chunks + 10) * U
    kept = torch.ones_like(weights)
    if plain.get("dropout"):
        kept = reference.kept(
            int(plain["seed"]), batch, heads, rows, columns, plain["dropout"],
            plain.get("sequence", 0),
        ).to(weights)  # fmt: skip
        kept = kept / max(1 - round(plain["dropout"] * 2**24) / 2**24, 2.0**-24)
    z = weights * kept
    relative = power + mean[..., None] + w + t + fixed
    out_off = (z * relative + lost * kept) @ v.abs()
    out = z @ v
    lse_off = mean + (columns + 6 * chunks + 6 + 4 * safe.abs() + 3 * top.abs()) * U

    rho = power + lse_off[..., None] + U * (4 + 4 * safe.abs()[..., None])
    terms = 2 * rows * group
    dv_off = (z * (rho + w + t + terms * U) + lost * kept).transpose(-1, -2) @ g.abs()
    dp = (g @ v.transpose(-1, -2)) * kept
    dp_off = ((2 * e + 4) * U + t) * kept * (g.abs() @ v.abs().transpose(-1, -2))
    c = torch.zeros_like(lse) if grad_lse is None else grad_lse.detach().double()
    delta = (g * out).sum(-1) - c
    rounded = max(w, U) * out.abs() + out_off
    delta_off = (g.abs() * (rounded + (e + 2) * U * out.abs())).sum(-1) + U * c.abs()
    inner = dp - delta[..., None]
    dx_size = weights * inner.abs()
    dx_off = dx_size * (rho + 2 * U) + weights * (dp_off + delta_off[..., None])
    if handed:
        dx_off = dx_off + w * dx_size + lost * inner.abs() * there
    flat, flat_off = dx_size, dx_off
    if cap:
        raw = scale * (q @ k.transpose(-1, -2))
        slope = 1 - torch.tanh(raw / cap).square()
        # It moves with the logit that it is taken at, too.
        flat_off = dx_off * slope + dx_size * (20 * U + 2 * off / cap)
        flat = dx_size * slope
    last = flat_off + flat * (w + t + (2 * columns + terms) * U) + lost * there
    dq_off = abs(scale) * last @ k.abs()
    dk_off = abs(scale) * last.transpose(-1, -2) @ q.abs()
    dsink = q.new_zeros(heads)
    if sinks is not None:
        weight = (sinks.double()[:, None] - safe).exp() * (lse > -torch.inf)
        share = lse_off + U * (8 + 8 * safe.abs() + rows * batch)
        dsink = (weight * (delta.abs() * share + delta_off)).sum((0, 2))

    def gathered(error: torch.Tensor) -> torch.Tensor:
        return error.reshape(batch, heads // group, group, *error.shape[2:]).sum(2)

    return Bounds(
        Bound(out_off / U),
        Bound(lse_off / U),
        Bound(dq_off / U),
        Bound(gathered(dk_off) / U),
        Bound(gathered(dv_off) / U),
        dx_off,
        dx_size,
        dsink,
    )
