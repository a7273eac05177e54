"""Rung 3: keys that nobody sees are skipped, and a mask is made at the diagonal alone.

Of query i only the keys j <= i count. A tile of queries from m0 on sees all keys up to
m0, none from m0 + BLOCK_M on, and some of those between: the loop over keys becomes
two, of which the first has no mask, and half the work is gone.
"""

import torch
import triton
import triton.language as tl

from tilebook.attention.onepass import Config
from tilebook.attention.operands import Task, attended, cover
from tilebook.attention.scores import LN2, LOG2E, columns, put, tile


@triton.jit
def step(
    acc, total, top, q, k_base, k_n, v_base, v_n, begin, end, offs_m, offs_d, offs_e,
    sk, factor,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take blocks of keys into a tile's sums."""
    for start in range(begin, end, BLOCK_N):
        k = tile(k_base, k_n, start, offs_d, sk, BLOCK_N, D, BLOCK_D, MASKED)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        if MASKED:
            offs_n = start + tl.arange(0, BLOCK_N)
            seen = (offs_n[None, :] <= offs_m[:, None]) & (offs_n < sk)[None, :]
            s = tl.where(seen, s, -float("inf"))
        # A positive factor may wait: then it is part of a multiply-add.
        highest = tl.maximum(top, tl.max(s, axis=1) * factor)
        p = tl.exp2(s * factor - highest[:, None])
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(p, axis=1)
        v = tile(v_base, v_n, start, offs_e, sk, BLOCK_N, E, BLOCK_E, MASKED)
        acc = tl.dot(
            p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION
        )  # (BLOCK_M, BLOCK_E)
        top = highest
    return acc, total, top


@triton.jit
def causal_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n,
    out_b, out_h, out_m, sq, sk, heads, group, scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(sq, BLOCK_M)
    # The last tile has the most to do: it starts first.
    m0 = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    b, h = pair // heads, pair % heads
    offs_m = m0 + tl.arange(0, BLOCK_M)
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    q = tile(
        q_ptr + b * q_b + h * q_h, q_m, m0, offs_d, sq, BLOCK_M, D, BLOCK_D, True
    )  # (BLOCK_M, BLOCK_D)
    k_base = k_ptr + b * k_b + h // group * k_h
    v_base = v_ptr + b * v_b + h // group * v_h
    acc = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    # Of a window that ends at the query itself: blocks all see, then the others.
    _, begin, middle, end = columns(m0, sq, sk, 0, 0, 0, BLOCK_M, BLOCK_N, False, True)
    acc, total, top = step(
        acc, total, top, q, k_base, k_n, v_base, v_n, begin, middle, offs_m, offs_d,
        offs_e, sk, scale * LOG2E, D, E, BLOCK_D, BLOCK_E, BLOCK_N, PRECISION, False,
    )  # fmt: skip
    acc, total, top = step(
        acc, total, top, q, k_base, k_n, v_base, v_n, middle,
        end, offs_m, offs_d,
        offs_e, sk, scale * LOG2E, D, E, BLOCK_D, BLOCK_E, BLOCK_N, PRECISION, True,
    )  # fmt: skip
    total = tl.where(total == 0, 1.0, total)
    put(
        out_ptr + b * out_b + h * out_h, out_m, m0, offs_e, sq, acc / total[:, None],
        BLOCK_M, E, BLOCK_E,
    )  # fmt: skip
    lse = (top + tl.log2(total)) * LN2
    tl.store(lse_ptr + pair * sq + offs_m, lse, mask=offs_m < sq)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: has elements, a positive scale, `right` of 0 and no other options; its
            `out` and `lse` are written.
        config: how.
    """
    q, k, v = task.q, task.k, task.v
    batch, heads, rows, d = q.shape
    block_m, block_n, num_warps, num_stages = config or Config()
    task.wrap(causal_kernel)[(batch * heads * triton.cdiv(rows, block_m),)](
        q, k, v, task.out, task.lse, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *task.out.stride()[:3], rows, k.shape[2], heads, heads // k.shape[1],
        task.scale, D=d, E=v.shape[3], BLOCK_D=cover(d), BLOCK_E=cover(v.shape[3]),
        BLOCK_M=block_m, BLOCK_N=block_n, PRECISION=task.precision,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """Attend to a query's own position and those before it.

    Args:
        q: queries (b, h, s, d), a type in `operands.DTYPES`, any strides.
        k: keys (b, hk, sk, d), where hk divides h.
        v: values (b, hk, sk, e).
        scale: positive; 1 / sqrt(d) by default.

    Returns:
        The result (b, h, s, e).

    Raises:
        TypeError: not tensors, another dtype, or several.
        ValueError: shapes that don't meet, a scale that isn't positive, or a tensor
            where this process's kernels can't reach it.
    """
    return attended(launch, q, k, v, scale, positive=True, right=0)
