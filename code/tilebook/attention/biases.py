"""The gradient of a bias: that of the logits, summed over what shares an element.

It is as large as the bias and no larger: a bias that is the same for all heads, all
queries or all batches gets its sum in the program that owns the tile, in a fixed order.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.attention.choose import Config, bias_config
from tilebook.attention.gradients import Gradient, prepared, shared
from tilebook.attention.operands import common
from tilebook.attention.scores import kept, scored, tile


@triton.jit
def bias_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, dbias_ptr, lse_ptr, delta_ptr, bias_ptr,
    slopes_ptr, seed_ptr, cu_q_ptr, cu_k_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, do_b, do_h, do_m,
    lse_b, lse_h, bias_b, bias_h, bias_m, bias_n, slopes_b, slopes_h,
    sq, sk, heads, group, scale, cap, left, right, threshold, revive,
    own_h, own_m, own_n, sum_b, sum_h, sum_m, sum_n,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ROW: tl.constexpr,
    COLUMN: tl.constexpr, FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr,
    BIAS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM: tl.constexpr,
    DROP: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    tile_n, pid = pid % own_n, pid // own_n
    tile_m, pid = pid % own_m, pid // own_m
    first_h, first_b = pid % own_h, pid // own_h
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    shift = 0
    if BOTTOM:
        shift = sk - sq
    slope, seed = 0.0, 0
    if DROP:
        seed = tl.load(seed_ptr)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for turn in range(sum_b * sum_h * sum_m * sum_n):
        n0 = (tile_n + turn % sum_n) * BLOCK_N
        offs_n = n0 + tl.arange(0, BLOCK_N)
        turn = turn // sum_n
        m0 = (tile_m + turn % sum_m) * BLOCK_M
        offs_m = m0 + tl.arange(0, BLOCK_M)
        turn = turn // sum_m
        h = (first_h + turn % sum_h).to(tl.int64)
        b = (first_b + turn // sum_h).to(tl.int64)
        q = tile(
            q_ptr + b * q_b + h * q_h, q_m, m0, offs_d, sq, BLOCK_M, D, BLOCK_D, True
        )  # (BLOCK_M, BLOCK_D)
        k = tile(
            k_ptr + b * k_b + h // group * k_h, k_n, n0, offs_d, sk, BLOCK_N, D,
            BLOCK_D, True,
        )  # fmt: skip
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        if ALIBI:
            slope = tl.load(slopes_ptr + b * slopes_b + h * slopes_h)
        s, _ = scored(
            s, offs_m[:, None], offs_n[None, :], m0, n0,
            bias_ptr + b * bias_b + h * bias_h, bias_m, bias_n,
            slope, scale, cap, sq, sk, shift, left, right, FOLD, CAP, ALIBI, BIAS,
            LEFT, RIGHT, True,
        )  # fmt: skip
        row = b * lse_b + h * lse_h + offs_m
        lse = tl.load(lse_ptr + row, mask=offs_m < sq, other=float("inf"))
        delta = tl.load(delta_ptr + row, mask=offs_m < sq, other=0)
        p = tl.exp2(s - lse[:, None])
        do = tile(
            do_ptr + b * do_b + h * do_h,
            do_m,
            m0,
            offs_e,
            sq,
            BLOCK_M,
            E,
            BLOCK_E,
            True,
        )  # (BLOCK_M, BLOCK_E)
        v = tile(
            v_ptr + b * v_b + h // group * v_h, v_n, n0, offs_e, sk, BLOCK_N, E,
            BLOCK_E, True,
        )  # fmt: skip
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        if DROP:
            stream = b.to(tl.int32) * heads + h.to(tl.int32)
            keep = kept(seed, stream, offs_m[:, None], offs_n[None, :], threshold)
            dp = tl.where(keep, dp * revive, 0.0)
        acc += p * (dp - delta[:, None])
    # Of a dimension that all share the tile has one element, at its edge.
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    size_m, size_n = sq, sk
    if ROW:
        acc = tl.sum(acc, axis=0, keep_dims=True) + tl.zeros_like(acc)
        size_m = 1
    if COLUMN:
        acc = tl.sum(acc, axis=1, keep_dims=True) + tl.zeros_like(acc)
        size_n = 1
    first = (first_b * own_h + first_h).to(tl.int64) * size_m
    at = dbias_ptr + (first + rows[:, None]) * size_n + cols[None, :]
    mask = (rows < size_m)[:, None] & (cols < size_n)[None, :]
    tl.store(at, acc.to(dbias_ptr.dtype.element_ty), mask=mask)


class Share(NamedTuple):
    """How the gradient of a bias is cut into programs, and what each one adds up."""

    own: tuple[int, int, int, int]
    """Batches, heads, tiles of rows and of columns that have elements of their own."""
    sums: tuple[int, int, int, int]
    """Those that share them."""


def share(size: torch.Size, gradient: Gradient, config: Config) -> Share:
    """Say who adds up what.

    Args:
        size: of the bias, four dimensions, each 1 or that of the scores.
        gradient: what is wanted.
        config: the tiles.

    Returns:
        The numbers; the product of both sides is what there is to do.
    """
    batch, heads, rows, _ = gradient.task.q.shape
    columns = gradient.task.k.shape[2]
    all_of_it = (
        batch,
        heads,
        triton.cdiv(rows, config.block_m),
        triton.cdiv(columns, config.block_n),
    )
    full = (batch, heads, rows, columns)
    alone = [size[i] == full[i] for i in range(4)]
    return Share(
        tuple(n if own else 1 for n, own in zip(all_of_it, alone, strict=True)),
        tuple(1 if own else n for n, own in zip(all_of_it, alone, strict=True)),
    )


def launch(
    gradient: Gradient,
    dbias: torch.Tensor,
    config: Config | None = None,
) -> None:
    """Launch the kernel.

    Args:
        gradient: what is wanted of an attention that isn't packed.
        dbias: of the shape of the bias with four dimensions, contiguous; written.
        config: how; `choose.bias_config` chooses by default.
    """
    task = gradient.task
    config = config or bias_config(task)
    own, sums = share(dbias.shape, gradient, config)
    told = common(task, gradient=True) | shared(gradient, *prepared(gradient))
    task.wrap(bias_kernel)[(own[0] * own[1] * own[2] * own[3],)](
        **told, dbias_ptr=dbias, own_h=own[1], own_m=own[2], own_n=own[3],
        sum_b=sums[0], sum_h=sums[1], sum_m=sums[2], sum_n=sums[3],
        BLOCK_M=config.block_m, BLOCK_N=config.block_n,
        ROW=dbias.shape[2] != task.q.shape[2], COLUMN=dbias.shape[3] != task.k.shape[2],
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
