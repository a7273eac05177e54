"""Rung 4, tensor descriptors: a copy engine brings blocks, the compiler orders them.

Plain Triton. A descriptor of four dimensions says where heads lie; what is past the
last row or column of one comes as zeros, and is never written. Blocks that every query
of a tile sees whole are taken without a mask: only those at the diagonal, at the end of
the keys, or at the window's edge have one.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.attention import launching
from tilebook.attention.launching import LOG2E, Task
from tilebook.tiling.grouped import grouped


class Config(NamedTuple):
    """How the kernel is launched."""

    block_m: int
    """Queries of a tile, a power of two."""
    block_n: int
    """Keys of a block, a power of two."""
    num_warps: int
    """Warps that share a tile."""
    num_stages: int
    """Blocks whose loads are on their way or in use."""


CONFIGS = {
    64: (Config(128, 128, 8, 3), Config(128, 64, 4, 3)),
    128: (Config(128, 128, 8, 2), Config(128, 64, 8, 3)),
    256: (Config(128, 64, 8, 2),),
}
"""What to try on a card, by columns of a head; the first is what `launch` takes."""
LN2 = tl.constexpr(launching.LN2)


@triton.jit
def walk(
    q, acc, most, sums, k_desc, v_desc, batch, head, begin, end,
    row, keys, left, scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr, RAGGED: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Attend to blocks from `begin` on, up to `end`; masks are for what is named."""
    rows = row + tl.arange(0, BLOCK_M)[:, None]
    for block in range(begin, end):
        column = block * BLOCK_N
        k = k_desc.load([batch, head, column, 0]).reshape(BLOCK_N, COLUMNS)
        scores = tl.dot(q, k.T)
        if CAUSAL or RAGGED or WINDOW:
            columns = column + tl.arange(0, BLOCK_N)[None, :]
            seen = columns < keys
            if CAUSAL:
                seen &= columns <= rows
            if WINDOW:
                seen &= columns + left >= rows
            scores = tl.where(seen, scores, -float("inf"))
        now = tl.maximum(most, tl.max(scores, 1) * scale)
        shift = now
        if CAUSAL or RAGGED or WINDOW:
            # Of a row that has seen no key yet: infinities would leave no number.
            shift = tl.where(now == -float("inf"), 0.0, now)
        shrink = tl.exp2(most - shift)
        weights = tl.exp2(scores * scale - shift[:, None])
        sums = sums * shrink + tl.sum(weights, 1)
        acc *= shrink[:, None]
        v = v_desc.load([batch, head, column, 0]).reshape(BLOCK_N, COLUMNS)
        acc = tl.dot(weights.to(v.dtype), v, acc)
        most = now
    return acc, most, sums


@triton.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out_desc, lse_ptr, all_heads, heads, share,
    rows, keys, left, scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    CAUSAL: tl.constexpr, RAGGED: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(rows, BLOCK_M)
    index, block = grouped(tl.program_id(0), all_heads, blocks, GROUP)
    if CAUSAL:
        # The longest first: short ones fill the gaps.
        block = blocks - 1 - block
    batch, head = index // heads, index % heads
    row = block * BLOCK_M
    # [begin, whole) begin outside a window, [whole, clear) are seen whole.
    begin, whole, end = 0, 0, tl.cdiv(keys, BLOCK_N)
    clear = keys // BLOCK_N if RAGGED else end
    if CAUSAL:
        end = tl.minimum(end, tl.cdiv(tl.minimum(row + BLOCK_M, rows), BLOCK_N))
        clear = tl.minimum(clear, (row + 1) // BLOCK_N)
    if WINDOW:
        begin = tl.maximum(row - left, 0) // BLOCK_N
        whole = tl.cdiv(tl.maximum(row + BLOCK_M - 1 - left, 0), BLOCK_N)
        whole = tl.minimum(whole, clear)
    q = q_desc.load([batch, head, row, 0]).reshape(BLOCK_M, COLUMNS)
    most = tl.full([BLOCK_M], -float("inf"), tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, COLUMNS], tl.float32)
    if WINDOW:
        acc, most, sums = walk(
            q, acc, most, sums, k_desc, v_desc, batch, head // share, begin, whole,
            row, keys, left, scale, BLOCK_M, BLOCK_N, COLUMNS, False, False, True,
        )  # fmt: skip
    acc, most, sums = walk(
        q, acc, most, sums, k_desc, v_desc, batch, head // share,
        tl.maximum(begin, whole), clear,
        row, keys, left, scale, BLOCK_M, BLOCK_N, COLUMNS, False, False, False,
    )  # fmt: skip
    if CAUSAL or RAGGED:
        acc, most, sums = walk(
            q, acc, most, sums, k_desc, v_desc, batch, head // share,
            tl.maximum(begin, clear), end,
            row, keys, left, scale, BLOCK_M, BLOCK_N, COLUMNS, CAUSAL, RAGGED, WINDOW,
        )  # fmt: skip
    at = row + tl.arange(0, BLOCK_M)
    logarithms = (most + tl.log2(sums)) * LN2
    tl.store(lse_ptr + (index * rows + at), logarithms, mask=at < rows)
    acc = (acc * (1.0 / sums)[:, None]).to(q.dtype)
    out_desc.store([batch, head, row, 0], acc.reshape(1, 1, BLOCK_M, COLUMNS))


def launch(task: Task, config: Config | None = None) -> None:
    """Describe the tensors and launch a program for each tile.

    Args:
        task: what is computed.
        config: how.

    Raises:
        ValueError: `launching.refusal` says why.
    """
    if reason := launching.refusal(task):
        raise ValueError(reason)
    width = launching.width_of(task)
    block_m, block_n, num_warps, num_stages = config or CONFIGS[width][0]
    (_, heads, rows, _), (kv_heads, keys) = task.q.shape, task.k.shape[1:3]

    def described(x: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, width]
        return TensorDescriptor(x, [*x.shape], launching.strides_of(x), block)

    task.wrap(attention_kernel)[(-(-rows // block_m) * launching.heads_of(task),)](
        described(task.q, block_m), described(task.k, block_n),
        described(task.v, block_n), described(task.out, block_m),
        task.lse, launching.heads_of(task), heads, heads // kv_heads,
        rows, keys, task.left or 0, task.scale * LOG2E,
        BLOCK_M=block_m, BLOCK_N=block_n, COLUMNS=width,
        GROUP=launching.heads_at_a_time(task), CAUSAL=task.right == 0,
        RAGGED=launching.ragged(task, block_n), WINDOW=task.left is not None,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend, with blocks by the copy engine.

    See `launching.attended` for arguments, results and errors.
    """
    return launching.attended(launch, q, k, v, causal, window, scale, None)
