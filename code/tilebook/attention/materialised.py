"""Rung 1, by the definition: products, softmax, products, and all scores in memory.

Scores and weights are s * sk numbers for each head. At s = sk = 16,384 and 16 heads
that is 17 GB in float32, written once and read twice for each of the three kernels,
where the operands and the result together have 0.27 GB.
"""

import torch
import triton
import triton.language as tl

from tilebook.attention.operands import Task, attended, cover
from tilebook.softmax import softmax

BLOCK = 64
"""Rows and columns of a tile of either product."""


@triton.jit
def scores_kernel(
    q_ptr, k_ptr, out_ptr, q_b, q_h, q_m, k_b, k_h, k_n, sq, sk, heads, group, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    b, h = pair // heads, pair % heads
    offs_m = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(2).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_d = tl.arange(0, BLOCK_D)
    in_m, in_n, in_d = offs_m < sq, offs_n < sk, offs_d < D
    q = tl.load(
        q_ptr + b * q_b + h * q_h + offs_m[:, None] * q_m + offs_d[None, :],
        mask=in_m[:, None] & in_d[None, :],
        other=0,
    )  # (BLOCK, BLOCK_D)
    k = tl.load(
        k_ptr + b * k_b + h // group * k_h + offs_n[:, None] * k_n + offs_d[None, :],
        mask=in_n[:, None] & in_d[None, :],
        other=0,
    )  # (BLOCK, BLOCK_D)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    at = out_ptr + (pair * sq + offs_m[:, None]) * sk + offs_n[None, :]
    tl.store(at, s, mask=in_m[:, None] & in_n[None, :])


@triton.jit
def values_kernel(
    p_ptr, v_ptr, out_ptr, v_b, v_h, v_n, out_b, out_h, out_m, sq, sk, heads, group,
    E: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    b, h = pair // heads, pair % heads
    offs_m = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_e = tl.arange(0, BLOCK_E)
    in_m, in_e = offs_m < sq, offs_e < E
    acc = tl.zeros((BLOCK, BLOCK_E), tl.float32)
    for start in range(0, sk, BLOCK):
        offs_n = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
        in_n = offs_n < sk
        p = tl.load(
            p_ptr + (pair * sq + offs_m[:, None]) * sk + offs_n[None, :],
            mask=in_m[:, None] & in_n[None, :],
            other=0,
        )  # (BLOCK, BLOCK)
        v = tl.load(
            v_ptr + b * v_b + h // group * v_h + offs_n[:, None] * v_n
            + offs_e[None, :],
            mask=in_n[:, None] & in_e[None, :],
            other=0,
        )  # (BLOCK, BLOCK_E)  # fmt: skip
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
    at = out_ptr + b * out_b + h * out_h + offs_m[:, None] * out_m + offs_e[None, :]
    tl.store(at, acc.to(out_ptr.dtype.element_ty), mask=in_m[:, None] & in_e[None, :])


def launch(task: Task) -> None:
    """Launch both products, and the softmax between them.

    Args:
        task: has elements and no options; its `out` and `lse` are written.

    Raises:
        ValueError: more tiles along a side than a grid takes.
    """
    q, k, v = task.q, task.k, task.v
    batch, heads, rows, d = q.shape
    columns, e = k.shape[2], v.shape[3]
    tiles = triton.cdiv(rows, BLOCK), triton.cdiv(columns, BLOCK)
    if max(tiles) > 65535:
        raise ValueError(f"q and k must have at most {65535 * BLOCK} rows")
    group = heads // k.shape[1]
    shape = (batch, heads, rows, columns)
    scores = torch.empty(shape, dtype=torch.float32, device=q.device)
    if columns:
        task.wrap(scores_kernel)[(batch * heads, *tiles)](
            q, k, scores, *q.stride()[:3], *k.stride()[:3], rows, columns, heads, group,
            task.scale, D=d, BLOCK_D=cover(d), BLOCK=BLOCK, PRECISION=task.precision,
        )  # fmt: skip
    weights = softmax(scores)
    task.wrap(values_kernel)[(batch * heads, tiles[0])](
        weights, v, task.out, *v.stride()[:3], *task.out.stride()[:3], rows, columns,
        heads, group, E=e, BLOCK_E=cover(e), BLOCK=BLOCK, PRECISION=task.precision,
    )  # fmt: skip
    task.lse.copy_(scores.logsumexp(-1))


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """Attend with all scores in memory.

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
