"""`attention`, `attention_varlen`, and PyTorch's call for the same: any options."""

from typing import Any

import torch

from tilebook import check, library
from tilebook.attention import packed, reference, ways
from tilebook.attention.arguments import (
    ALIGNMENTS,
    EVERY,
    Window,
    bias_of,
    options_of,
)
from tilebook.attention.operands import check_meeting
from tilebook.attention.operator import attention_operator, computed, task_of

__all__ = [
    "ALIGNMENTS",
    "attention",
    "attention_varlen",
    "scaled_dot_product_attention",
    "which",
]


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    align: str = "top-left",
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    slopes: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int | torch.Tensor | None = None,
    return_lse: bool = False,
    deterministic: bool | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Weigh values by the softmax of the products of queries and keys.

    Args:
        q: queries (b, h, s, d), float32, bfloat16, float16 or float64; any strides, any
            numbers of positions, up to 256 features.
        k: keys (b, hk, sk, d) of the same dtype, where hk divides h: heads 0 to
            h / hk - 1 of the queries share the first one of the keys, and so on.
        v: values (b, hk, sk, e).
        causal: whether a query sees no key after its own position.
        align: whose positions are equal: "top-left", of the first query and the first
            key, as PyTorch has it, or "bottom-right", of the last ones, as
            FlashAttention has it.
        window: how many keys before and after its own position a query sees, None for
            all.
        scale: what products are multiplied by; 1 / sqrt(d) by default.
        softcap: what logits tend to, positive: cap * tanh(logit / cap).
        slopes: (h,) or (b, h), floating-point: times the distance of positions, they
            are subtracted from the logits (ALiBi).
        bias: broadcasts to (b, h, s, sk). Of the dtype of `q` or float32 it is added to
            the logits; bool, it says which keys may be seen.
        sinks: (h,), floating-point: a logit for each head that takes part in the
            denominator, and has no value.
        dropout: probability of dropping a weight, rounded to 24 bits.
        seed: of dropout, 64 bits; by default drawn from the device's generator.
        return_lse: whether to return the logarithms of the denominators, too.
        deterministic: whether gradients have the same bits each time; by default what
            `torch.use_deterministic_algorithms` was told. If not, one kernel with
            additions in any order takes the place of two, where that is faster.

    Returns:
        The result (b, h, s, e), and with `return_lse` the logarithms (b, h, s) of the
        denominators, sinks included, in float32. Differentiable once, by all that is
        floating-point. Where a query sees no key the result is 0, as
        `scaled_dot_product_attention` has it, and the logarithm is -inf or the sink.

    Raises:
        TypeError: an argument of another type, or dtypes that aren't allowed.
        ValueError: shapes that don't meet, a value that isn't allowed, or a tensor
            where this process's kernels can't reach it.

    Notes:
        Online softmax after Milakov and Gimelshein (2018), tiles and gradients after
        Dao (2023). Sums are kept in float32; weights are rounded to the dtype of `v`
        before they multiply it. `errors` derives the bounds. float64 goes by the
        definition, in memory of b h s sk.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=EVERY, ndim=4)
    check_meeting(q, k, v)
    if bias is not None:
        bias = bias_of(bias, "bias", q, k)
    options = options_of(
        q, causal, align, window, scale, softcap, slopes, sinks, dropout, seed
    )
    check.one_of(return_lse, "return_lse", (False, True))
    check.one_of(deterministic, "deterministic", (None, False, True))
    out, lse = _apply(q, k, v, bias, options, None, deterministic)
    return (out, lse) if return_lse else out


def attention_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    *,
    causal: bool = False,
    align: str = "top-left",
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int | torch.Tensor | None = None,
    return_lse: bool = False,
    deterministic: bool | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attend within each of several sequences that follow one another.

    Args:
        q: queries (t, h, d) of all sequences, as for `attention`.
        k: keys (tk, hk, d).
        v: values (tk, hk, e).
        cu_seqlens_q: where each sequence starts in `q` and the last one ends, in order,
            int32 or int64 (sequences + 1,).
        cu_seqlens_k: the same of `k` and `v`.
        causal: as for `attention`, within each sequence; so are the other options.
        align: as for `attention`.
        window: as for `attention`.
        scale: as for `attention`.
        softcap: as for `attention`.
        slopes: (h,).
        sinks: as for `attention`.
        dropout: as for `attention`.
        seed: as for `attention`.
        return_lse: as for `attention`.
        deterministic: as for `attention`.

    Returns:
        The result (t, h, e), and with `return_lse` the logarithms (h, t). Positions
        that belong to no sequence have 0 and -inf, and get no gradient.

    Raises:
        TypeError: as `attention`.
        ValueError: as `attention`, or other numbers of sequences.

    Notes:
        The longest sequence need not be told. Where sequences start is read by the
        kernels alone, so nothing waits for the GPU, and it can't be checked: starts
        outside the tensors count as their ends, a sequence that ends before it starts
        is empty.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=EVERY, ndim=3)
    cu = packed.starts(q, cu_seqlens_q, cu_seqlens_k)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    check_meeting(q, k, v)
    options = options_of(
        q, causal, align, window, scale, softcap, slopes, sinks, dropout, seed
    )
    check.one_of(return_lse, "return_lse", (False, True))
    check.one_of(deterministic, "deterministic", (None, False, True))
    out, lse = _apply(q, k, v, None, options, cu, deterministic)
    out, lse = out[0].transpose(0, 1), lse[0]
    return (out, lse) if return_lse else out


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Stand in for the function of this name in `torch.nn.functional`.

    Args:
        query: (..., h, l, d), two dimensions or more.
        key: (..., hk, s, d).
        value: (..., hk, s, e).
        attn_mask: broadcasts to (..., h, l, s); bool for what may be seen, else added.
        dropout_p: probability of dropping a weight.
        is_causal: as `causal` of `attention`.
        scale: likewise.
        enable_gqa: whether heads of `query` may share those of `key`.

    Returns:
        (..., h, l, e). Leading dimensions broadcast.

    Raises:
        TypeError: as `attention`.
        ValueError: as `attention`; a mask besides `is_causal`; heads that differ
            without `enable_gqa`.

    Notes:
        Dropout draws other numbers than PyTorch does.
    """
    names = ("query", "key", "value")
    given = (query, key, value)
    for name, x in zip(names, given, strict=True):
        check.tensor(x, name, dtype=EVERY)
        if x.ndim < 2:
            raise ValueError(f"{name} must have 2 dimensions or more, got {x.ndim}")
    check.one_of(is_causal, "is_causal", (False, True))
    check.one_of(enable_gqa, "enable_gqa", (False, True))
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask must be None with is_causal, got both")
    lead, (q, k, v) = packed.flattened(names, given, enable_gqa)
    check_meeting(q, k, v, names)
    bias = None
    if attn_mask is not None:
        bias = packed.mask(attn_mask, lead, q, k)
        bias = bias_of(bias, "attn_mask", q, k)
    options = options_of(
        q, is_causal, "top-left", None, scale, None, None, None, dropout_p, None,
        dropout_name="dropout_p",
    )  # fmt: skip
    out, _ = _apply(q, k, v, bias, options, None, None)
    return out.reshape(*lead, *out.shape[-2:])


def _apply(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    options: dict[str, Any],
    cu: tuple[torch.Tensor, torch.Tensor] | None,
    deterministic: bool | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result and its logarithms, by kernels or, in float64, by the definition."""
    if q.dtype == torch.float64:
        if cu is None:
            return reference.attention(q, k, v, bias=bias, **options)
        return packed.by_definition(q, k, v, cu, options)
    seen, told = _arguments(q, k, v, bias, options, cu)
    if library.eager(*(x for x in seen if x is not None)):
        return computed(seen, told)
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    return attention_operator(*seen, *told, deterministic)


def _arguments(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    options: dict[str, Any],
    cu: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[tuple, tuple]:
    """The operator's tensors, and what else it is told."""
    check.runs_here(q, "q")
    slopes, sinks = options["slopes"], options["sinks"]
    if slopes is not None:
        slopes = slopes.float() if slopes.ndim == 2 else slopes.float()[None]
    sinks = None if sinks is None else sinks.float()
    seen = (q, k, v, bias, slopes, sinks, options["seed"], *(cu or (None, None)))
    names = ("scale", "left", "right", "bottom", "cap", "dropout")
    return seen, tuple(options[name] for name in names)


def which(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    align: str = "top-left",
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    slopes: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> str:
    """Say which kernel serves an attention, and how it is launched.

    Args:
        q: as for `attention`, whose errors these are, too.
        k: likewise.
        v: likewise.
        causal: likewise.
        align: likewise.
        window: likewise.
        scale: likewise.
        softcap: likewise.
        slopes: likewise.
        bias: likewise.
        sinks: likewise.
        dropout: likewise.

    Returns:
        The kernel's rung and configuration; of the general kernel also why on this
        device it isn't a faster one.

    Raises:
        TypeError: as `attention`.
        ValueError: likewise.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=EVERY, ndim=4)
    check_meeting(q, k, v)
    if bias is not None:
        bias = bias_of(bias, "bias", q, k)
    options = options_of(
        q, causal, align, window, scale, softcap, slopes, sinks, dropout, 0
    )
    if q.dtype == torch.float64:
        return "reference: float64 goes by the definition"
    if not q.numel() or not v.shape[3]:
        return "nothing to launch"
    return ways.told(task_of(*_arguments(q, k, v, bias, options, None)))
