"""Rung 4, the whole of it: one kernel, whose options cost nothing where none is used.

Queries and keys of different lengths, groups of heads that share keys, a window, linear
biases, a cap, any additive bias, dropout, sinks, packed sequences, any size of head up
to 256.
"""

import torch
import triton
import triton.language as tl

from tilebook.attention.choose import Config, forward_config
from tilebook.attention.descriptors import looped
from tilebook.attention.operands import Task, attended, common, programs
from tilebook.attention.scores import (
    LN2,
    LOG2E,
    block,
    columns,
    head,
    kept,
    place,
    put,
    scored,
    tile,
)


@triton.jit
def attend(
    acc, total, top, q, b, hk, k_base, k_n, v_base, v_n, begin, end, m0, offs_m, offs_d,
    offs_e,
    bias, bias_m, bias_n, slope, scale, cap, sq, sk, shift, left, right,
    seed, number, threshold,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr, FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr,
    BIAS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, DROP: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIBED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take blocks of keys into a tile's sums, with the mask of a window or without."""
    for start in tl.range(begin, end, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        k = block(
            k_base, b, hk, k_n, start, offs_d, sk, BLOCK_N, D, BLOCK_D, MASKED,
            DESCRIBED,
        )  # fmt: skip
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        s, _ = scored(
            s, offs_m[:, None], offs_n[None, :], m0, start, bias, bias_m, bias_n,
            slope, scale, cap, sq, sk, shift, left, right, FOLD, CAP, ALIBI, BIAS,
            LEFT, RIGHT, MASKED,
        )  # fmt: skip
        highest = tl.max(s, axis=1)
        if FOLD:
            highest *= scale * LOG2E
        highest = tl.maximum(top, highest)
        # A row that has seen nothing yet has no largest logit to be subtracted.
        safe = highest
        if MASKED or BIAS != "":
            safe = tl.where(highest == -float("inf"), 0.0, highest)
        if FOLD:
            p = tl.exp2(s * (scale * LOG2E) - safe[:, None])
        else:
            p = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(p, axis=1)
        if DROP:
            p = tl.where(
                kept(seed, number, offs_m[:, None], offs_n[None, :], threshold), p, 0.0
            )
        v = block(
            v_base, b, hk, v_n, start, offs_e, sk, BLOCK_N, E, BLOCK_E, MASKED,
            DESCRIBED,
        )  # fmt: skip
        acc = tl.dot(
            p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION
        )  # (BLOCK_M, BLOCK_E)
        top = highest
    return acc, total, top


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, bias_ptr, slopes_ptr, sinks_ptr, seed_ptr,
    ends_ptr, cu_q_ptr, cu_k_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, out_b, out_h, out_m, lse_b, lse_h,
    bias_b, bias_h, bias_m, bias_n, slopes_b, slopes_h,
    sq, sk, heads, group, tiles, sequences, scale, cap, left, right, threshold, revive,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr, BIAS: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM: tl.constexpr, DROP: tl.constexpr,
    SINKS: tl.constexpr, PACKED: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    number, b, h, sequence, start, start_k, sq, sk = place(
        tl.program_id(0), tiles, heads, ends_ptr, sequences, cu_q_ptr, cu_k_ptr,
        sq, sk, sq, sk, PACKED, BLOCK_M,
    )  # fmt: skip
    m0 = number * BLOCK_M
    offs_m = m0 + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    offs_e = tl.arange(0, BLOCK_E)
    h = h.to(tl.int64)
    q_base = q_ptr + b * q_b + h * q_h + start * q_m
    hk = h // group
    k_base = head(k_ptr, b, hk, start_k, k_b, k_h, k_n, DESCRIBED)
    v_base = head(v_ptr, b, hk, start_k, v_b, v_h, v_n, DESCRIBED)
    bias = bias_ptr + b * bias_b + h * bias_h
    shift = 0
    if BOTTOM:
        shift = sk - sq
    slope, seed = 0.0, 0
    if ALIBI:
        slope = tl.load(slopes_ptr + b * slopes_b + h * slopes_h)
    if DROP:
        seed = tl.load(seed_ptr)
    stream = sequence * heads + h.to(tl.int32)

    q = tile(q_base, q_m, m0, offs_d, sq, BLOCK_M, D, BLOCK_D, True)
    acc = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    if SINKS:
        # A logit more that has no value: the sum starts with it.
        top = tl.full((BLOCK_M,), 0.0, tl.float32) + tl.load(sinks_ptr + h) * LOG2E
        total = tl.full((BLOCK_M,), 1.0, tl.float32)
    else:
        top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
    low, full_low, full_high, high = columns(
        m0, sq, sk, shift, left, right, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    if LEFT:
        acc, total, top = attend(
            acc, total, top, q, b, hk, k_base, k_n, v_base, v_n, low, full_low,
            m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
            shift, left, right, seed, stream, threshold, D, E, BLOCK_D, BLOCK_E,
            BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, PRECISION, DESCRIBED,
            True,
        )  # fmt: skip
    acc, total, top = attend(
        acc, total, top, q, b, hk, k_base, k_n, v_base, v_n, full_low, full_high,
        m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
        shift, left, right, seed, stream, threshold, D, E, BLOCK_D, BLOCK_E,
        BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, PRECISION, DESCRIBED,
        False,
    )  # fmt: skip
    if RIGHT or not EVEN:
        acc, total, top = attend(
            acc, total, top, q, b, hk, k_base, k_n, v_base, v_n, full_high, high,
            m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
            shift, left, right, seed, stream, threshold, D, E, BLOCK_D, BLOCK_E,
            BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, PRECISION, DESCRIBED,
            True,
        )  # fmt: skip

    # Nobody's weights sum to 0, so the row is 0 and its logarithm -inf.
    total = tl.where(top == -float("inf"), 1.0, total)
    out = acc * (revive / total)[:, None]
    put(
        out_ptr + b * out_b + h * out_h + start * out_m, out_m, m0, offs_e, sq, out,
        BLOCK_M, E, BLOCK_E,
    )  # fmt: skip
    lse = (top + tl.log2(total)) * LN2
    lse_base = lse_ptr + b * lse_b + h * lse_h + start
    tl.store(lse_base + offs_m, lse, mask=offs_m < sq)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: has elements; its `out` and `lse` are written.
        config: how; `choose.forward_config` chooses by default.
    """
    block_m, block_n, num_warps, num_stages = config or forward_config(task)
    where, grid = programs(task, "q", block_m)
    even = not task.packed and task.k.shape[2] % block_n == 0
    task.wrap(forward_kernel)[grid](
        **(common(task) | where | looped(task, block_n, "k", "v")), BLOCK_M=block_m,
        BLOCK_N=block_n, EVEN=even, num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Attend with the general kernel; `tilebook.attention.attention` has the options.

    Args:
        q: queries (b, h, s, d), a type in `operands.DTYPES`, any strides.
        k: keys (b, hk, sk, d), where hk divides h.
        v: values (b, hk, sk, e).
        scale: 1 / sqrt(d) by default.
        causal: whether a query sees no key after its own position.

    Returns:
        The result (b, h, s, e).

    Raises:
        TypeError: not tensors, another dtype, or several.
        ValueError: shapes that don't meet, or a tensor where this process's kernels
            can't reach it.
    """
    return attended(launch, q, k, v, scale, right=0 if causal else None)
