"""Attention by its definition, in any precision: what the kernels are compared with.

All scores are in memory at once. It also computes in float64 for `public`, which lets
`torch.autograd.gradcheck` look at every option.
"""

import numpy as np
import torch


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    left: int | None = None,
    right: int | None = None,
    bottom: bool = False,
    cap: float = 0.0,
    bias: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: torch.Tensor | None = None,
    sequence: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend by the formulas, differentiably.

    Args:
        q: queries (b, h, s, d), of any floating dtype; float64 for a reference.
        k: keys (b, hk, sk, d), where hk divides h.
        v: values (b, hk, sk, e).
        scale: what products are multiplied by.
        left: keys before its own that a query sees; None for all.
        right: keys after its own.
        bottom: whether the last query stands at the last key.
        cap: what logits tend to; 0 for no cap.
        bias: broadcasts to (b, h, s, sk); bool for what may be seen.
        slopes: (h,) or (b, h).
        sinks: (h,).
        dropout: probability of dropping a weight.
        seed: one integer.
        sequence: which of several packed ones this is; it draws other numbers.

    Returns:
        The result (b, h, s, e) and the logarithm of its denominator (b, h, s).
    """
    x = logits(
        q, k, scale=scale, left=left, right=right, bottom=bottom, cap=cap, bias=bias,
        slopes=slopes,
    )  # fmt: skip
    batch, heads, rows, columns = x.shape
    if sinks is not None:
        sink = sinks.to(x.dtype)[:, None, None].expand(batch, heads, rows, 1)
        x = torch.cat([sink, x], -1)
    lse = x.logsumexp(-1) if x.shape[-1] else x.new_full(x.shape[:-1], -torch.inf)
    # A row that sees nothing has the logarithm -inf, and weights of 0.
    safe = torch.where(lse == -torch.inf, 0, lse)
    weights = (x - safe[..., None]).exp()[..., x.shape[-1] - columns :]
    if dropout:
        keep = kept(int(seed), batch, heads, rows, columns, dropout, sequence)
        share = 1 - round(dropout * 2**24) / 2**24
        weights = weights * keep.to(x.device) / max(share, 2.0**-24)
    values = v.repeat_interleave(heads // max(v.shape[1], 1), 1)
    return weights @ values, lse


def logits(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    scale: float,
    left: int | None = None,
    right: int | None = None,
    bottom: bool = False,
    cap: float = 0.0,
    bias: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """The logits (b, h, s, sk) of `attention`; -inf where a key isn't seen."""
    batch, heads, rows, _ = q.shape
    columns = k.shape[2]
    keys = k.repeat_interleave(heads // max(k.shape[1], 1), 1)
    x = q @ keys.transpose(-1, -2) * scale
    if cap:
        x = cap * torch.tanh(x / cap)
    shift = columns - rows if bottom else 0
    at = torch.arange(rows, device=q.device)[:, None] + shift
    to = torch.arange(columns, device=q.device)[None, :]
    if slopes is not None:
        wide = slopes.to(x.dtype).expand(batch, heads)[:, :, None, None]
        x = x - wide * (at - to).abs()
    seen = torch.ones(rows, columns, dtype=torch.bool, device=q.device)
    if right is not None:
        seen = seen & (to <= at + right)
    if left is not None:
        seen = seen & (to >= at - left)
    if bias is not None and bias.dtype == torch.bool:
        seen = seen & bias
    elif bias is not None:
        x = x + bias.to(x.dtype)
    return x.masked_fill(~seen, -torch.inf)


def kept(
    seed: int,
    batch: int,
    heads: int,
    rows: int,
    columns: int,
    dropout: float,
    sequence: int = 0,
) -> torch.Tensor:
    """What dropout leaves: Philox of ten rounds, by NumPy (Salmon et al., 2011).

    Args:
        seed: the key, 64 bits.
        batch: of the weights.
        heads: likewise.
        rows: likewise.
        columns: likewise.
        dropout: probability, rounded to 24 bits.
        sequence: number of a packed sequence.

    Returns:
        bool (batch, heads, rows, columns).
    """
    low = np.uint64(0xFFFFFFFF)
    stream = (np.arange(batch)[:, None] + sequence) * heads + np.arange(heads)[None]
    c = [np.arange(rows)[:, None], np.arange(columns), stream[:, :, None, None], 0]
    shape = (batch, heads, rows, columns)
    c0, c1, c2, c3 = (np.broadcast_to(np.uint64(x), shape) for x in c)
    key = seed & 0xFFFFFFFFFFFFFFFF
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c2 = (b >> np.uint64(32)) ^ c1 ^ k0, (a >> np.uint64(32)) ^ c3 ^ k1
        c1, c3 = b & low, a & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return torch.from_numpy((c0 >> np.uint64(8)) >= np.uint64(round(dropout * 2**24)))
