"""Rung 2: a program keeps a tile of queries, and goes through the keys once.

After some keys a row knows the largest logit m so far, the sum l of e^(x_j - m), and
the sum a of e^(x_j - m) v_j. A block more, whose largest logit is m', makes

    m_new = max(m, m'),    r = e^(m - m_new),
    l_new = r l + sum of e^(x_j - m_new),    a_new = r a + sum of e^(x_j - m_new) v_j,

and in the end the result is a / l. That is the recurrence of `tilebook.softmax.online`
with a sum more: if l and a are right for the old maximum, they are for the new one,
since e^(x_j - m_new) = e^(m - m_new) e^(x_j - m).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.attention.operands import Task, attended, cover
from tilebook.attention.scores import LN2, LOG2E


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int = 128
    """Queries of a tile."""
    block_n: int = 64
    """Keys of a tile."""
    num_warps: int = 8
    num_stages: int = 2


@triton.jit
def onepass_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n,
    out_b, out_h, out_m, sq, sk, heads, group, scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(sq, BLOCK_M)
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    b, h = pair // heads, pair % heads
    offs_m = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    in_m, in_d, in_e = offs_m < sq, offs_d < D, offs_e < E
    q = tl.load(
        q_ptr + b * q_b + h * q_h + offs_m[:, None] * q_m + offs_d[None, :],
        mask=in_m[:, None] & in_d[None, :],
        other=0,
    )  # (BLOCK_M, BLOCK_D)
    k_base = k_ptr + b * k_b + h // group * k_h
    v_base = v_ptr + b * v_b + h // group * v_h
    acc = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    for start in range(0, sk, BLOCK_N):
        offs_n = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_N)
        in_n = offs_n < sk
        k = tl.load(
            k_base + offs_n[:, None] * k_n + offs_d[None, :],
            mask=in_n[:, None] & in_d[None, :],
            other=0,
        )  # (BLOCK_N, BLOCK_D)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        # The powers are of 2, and one factor makes both of them right.
        s = tl.where(in_n[None, :], s * (scale * LOG2E), -float("inf"))
        highest = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp2(s - highest[:, None])  # (BLOCK_M, BLOCK_N)
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(p, axis=1)
        v = tl.load(
            v_base + offs_n[:, None] * v_n + offs_e[None, :],
            mask=in_n[:, None] & in_e[None, :],
            other=0,
        )  # (BLOCK_N, BLOCK_E)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        top = highest
    # With no keys at all the sum is 0, and so is the result.
    total = tl.where(total == 0, 1.0, total)
    tl.store(
        out_ptr + b * out_b + h * out_h + offs_m[:, None] * out_m + offs_e[None, :],
        (acc / total[:, None]).to(out_ptr.dtype.element_ty),
        mask=in_m[:, None] & in_e[None, :],
    )
    tl.store(lse_ptr + pair * sq + offs_m, (top + tl.log2(total)) * LN2, mask=in_m)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: has elements and no options; its `out` and `lse` are written.
        config: how.
    """
    q, k, v = task.q, task.k, task.v
    batch, heads, rows, d = q.shape
    block_m, block_n, num_warps, num_stages = config or Config()
    task.wrap(onepass_kernel)[(batch * heads * triton.cdiv(rows, block_m),)](
        q, k, v, task.out, task.lse, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *task.out.stride()[:3], rows, k.shape[2], heads, heads // k.shape[1],
        task.scale, D=d, E=v.shape[3], BLOCK_D=cover(d), BLOCK_E=cover(v.shape[3]),
        BLOCK_M=block_m, BLOCK_N=block_n, PRECISION=task.precision,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """Attend in one pass over the keys.

    Args:
        q: queries (b, h, s, d), a type in `operands.DTYPES`, any strides.
        k: keys (b, hk, sk, d), where hk divides h.
        v: values (b, hk, sk, e).
        scale: 1 / sqrt(d) by default.

    Returns:
        The result (b, h, s, e).

    Raises:
        TypeError: not tensors, another dtype, or several.
        ValueError: shapes that don't meet, or a tensor where this process's kernels
            can't reach it.
    """
    return attended(launch, q, k, v, scale)
