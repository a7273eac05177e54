"""`attention_fp8` for use: attention of codes, on whichever kernel serves."""

import math

import torch

from tilebook import check, device, library
from tilebook.attention import eight, eight_hopper
from tilebook.attention.eight_operands import Task, check_operands, task_of

FEWEST = 64
"""Queries from which on Hopper's kernel serves: so many a group of four warps has."""
RESULTS = (torch.bfloat16, torch.float16)
"""What results may be."""


def launch(task: Task) -> None:
    """Launch the kernel that serves: Hopper's own where it can.

    Args:
        task: has queries and keys.
    """
    own = device.has("wgmma") and task.q.shape[2] >= FEWEST
    if own and eight_hopper.refusal(task) is None:
        eight_hopper.launch(task)
    else:
        eight.launch(task)


@library.operator("tilebook::attention_fp8", opaque=True)
def attention_fp8_operator(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale_q: torch.Tensor,
    scale_k: torch.Tensor,
    scale_v: torch.Tensor,
    causal: bool,
    scale: float,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    task = task_of(q, k, v, scale_q, scale_k, scale_v, causal, scale, out_dtype)
    if not k.numel():
        # No keys: sums of nothing.
        task.out.zero_()
        task.lse.fill_(-math.inf)
    elif task.out.numel():
        with library.on(q):
            launch(task)
    return task.out, task.lse


@attention_fp8_operator.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale_q: torch.Tensor,
    scale_k: torch.Tensor,
    scale_v: torch.Tensor,
    causal: bool,
    scale: float,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*q.shape[:3], v.shape[2])
    out = torch.empty(shape, dtype=out_dtype, device=q.device)
    return out, torch.empty(shape[:3], dtype=torch.float32, device=q.device)


def attention_fp8(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale_q: torch.Tensor,
    scale_k: torch.Tensor,
    scale_v: torch.Tensor,
    causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
    out_dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attend to values by the softmax of scores, all of them products of eight bits.

    Args:
        q: codes of queries (b, h, s, d), float8_e4m3fn, any strides; d up to 256.
        k: codes of keys (b, hk, sk, d), where hk divides h.
        v: codes of values on their side, (b, hk, e, sk up to a multiple of 16), in the
            order that `eight_operands.quantize_values` lays them in; what there is
            past the last key must be zeros.
        scale_q: of queries, float32: a shape that expands to (b, h, ceil(s / 128)),
            positive, as `eight_operands.quantize_rows` gives it.
        scale_k: of keys: to (b, hk, ceil(sk / 128)).
        scale_v: of values: to (b, hk, e).
        causal: whether query i sees keys up to i only.
        scale: of scores, above 0; 1 / sqrt(d) by default.
        return_lse: whether to return the logarithms of the denominators, too.
        out_dtype: bfloat16 or float16.

    Returns:
        The result (b, h, s, e), contiguous, and with `return_lse` the logarithms
        (b, h, s) in float32. Without keys they are 0 and -inf.

    Raises:
        TypeError: not tensors, or another dtype.
        ValueError: shapes that don't meet, more than 256 features, a scale that isn't
            above 0, two devices, an operand that takes part in a gradient, or one where
            this process's kernels can't reach it.

    Notes:
        Weights are rounded to e4m3, too, as FlashAttention-3 does:
        `eight_errors` says what that costs. Deterministic. No gradients.
    """
    check_operands(q, k, v, scale_q, scale_k, scale_v)
    scale = q.shape[3] ** -0.5 if scale is None else check.number(scale, "scale")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be above 0 and finite, got {scale}")
    if out_dtype not in RESULTS:
        raise TypeError(f"out_dtype must be bfloat16 or float16, got {out_dtype}")
    out, lse = attention_fp8_operator(
        q, k, v, scale_q, scale_k, scale_v, bool(causal), scale, out_dtype
    )
    return (out, lse) if return_lse else out
