"""Other shapes of the same: sequences one after another, and PyTorch's dimensions."""

import math
from typing import Any

import torch

from tilebook import check
from tilebook.attention import reference

INDICES = (torch.int32, torch.int64)


def starts(
    q: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check where sequences start, and return both in int32, contiguous."""
    given = (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k))
    for name, x in given:
        check.tensor(x, name, dtype=INDICES, ndim=1)
        check.same_device(q=q, **{name: x})
        if not x.numel():
            raise ValueError(f"{name} must have an element or more, got none")
    check.same_shape(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    ready = [x.clamp(0, 2**31 - 1).to(torch.int32).contiguous() for _, x in given]
    return ready[0], ready[1]


def by_definition(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu: tuple[torch.Tensor, torch.Tensor],
    options: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend within each sequence by `reference`.

    Args:
        q: queries (1, h, t, d).
        k: keys (1, hk, tk, d).
        v: values (1, hk, tk, e).
        cu: where sequences start in queries and in keys.
        options: as `reference.attention` names them.

    Returns:
        The result (1, h, t, e) and its logarithms (1, h, t).
    """
    ends = [
        [min(max(at, 0), x.shape[2]) for at in each.tolist()]
        for each, x in zip(cu, (q, k), strict=True)
    ]
    heads, length = q.shape[1:3]
    out, lse, done = [], [], 0
    for i in range(len(ends[0]) - 1):
        (a, b), (c, d) = ((each[i], max(each[i : i + 2])) for each in ends)
        out.append(v.new_zeros(1, heads, max(a - done, 0), v.shape[3]))
        lse.append(q.new_full((1, heads, max(a - done, 0)), -torch.inf))
        found = reference.attention(
            q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], sequence=i, **options
        )
        out.append(found[0])
        lse.append(found[1])
        done = max(done, b)
    out.append(v.new_zeros(1, heads, length - done, v.shape[3]))
    lse.append(q.new_full((1, heads, length - done), -torch.inf))
    return torch.cat(out, 2), torch.cat(lse, 2)


def flattened(
    names: tuple[str, ...], given: tuple[torch.Tensor, ...], grouped: bool
) -> tuple[tuple[int, ...], list[torch.Tensor]]:
    """Give queries, keys and values four dimensions.

    Args:
        names: what the caller calls them.
        given: two dimensions or more each.
        grouped: whether numbers of heads may differ.

    Returns:
        The dimensions of the result but for the last two, and the tensors.

    Raises:
        ValueError: leading dimensions that don't broadcast, or numbers of heads that
            mustn't differ.
    """
    wide = [x.reshape((1,) * (4 - x.ndim) + tuple(x.shape)) for x in given]
    leads = [tuple(x.shape[:-3]) for x in wide]
    heads = [x.shape[-3] for x in wide]
    if not grouped:
        leads = [tuple(x.shape[:-2]) for x in wide]
    try:
        lead = torch.broadcast_shapes(*leads)
    except RuntimeError:
        shapes = ", ".join(
            f"{name} {tuple(x.shape)}" for name, x in zip(names, given, strict=True)
        )
        why = "" if grouped else "; enable_gqa lets heads differ"
        raise ValueError(
            f"{names[1]} and {names[2]} must have leading dimensions that broadcast "
            f"with those of {names[0]}, got {shapes}{why}"
        ) from None
    full = [(*lead, n) for n in heads] if grouped else [tuple(lead)] * 3
    ready = [
        x.expand(*dims, *x.shape[-2:]).reshape(
            math.prod(dims[:-1]), *dims[-1:], *x.shape[-2:]
        )
        if x.ndim != 4 or tuple(x.shape[:-2]) != dims
        else x
        for x, dims in zip(wide, full, strict=True)
    ]
    shown = max(x.ndim for x in given) - 2
    return full[0][len(full[0]) - shown :], ready


def mask(
    x: torch.Tensor, lead: tuple[int, ...], q: torch.Tensor, k: torch.Tensor
) -> torch.Tensor:
    """Give a mask four dimensions; with several batches it is expanded to them all.

    Args:
        x: broadcasts to the scores of what was given.
        lead: their dimensions but for the last two.
        q: queries with four dimensions.
        k: keys likewise.

    Returns:
        The mask; what doesn't broadcast comes back as it is, to be refused.
    """
    check.tensor(x, "attn_mask")
    if x.ndim <= 4 and len(lead) <= 2:
        return x
    scores = (q.shape[2], k.shape[2])
    try:
        full = x.expand(*lead, *scores)
    except RuntimeError:
        return x
    return full.reshape(math.prod(lead[:-1]), lead[-1], *scores)
