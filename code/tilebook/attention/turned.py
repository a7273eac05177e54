"""The loop over queries that gathers the gradients of a tile of keys.

Scores lie the other way round here, (BLOCK_N, BLOCK_M), so that the weights are what
`tl.dot` takes first as they come out of the registers. Turning a tile in registers
for it went wrong on Hopper before Triton 3.7.1, and costs a trip through shared memory.
"""

import triton
import triton.language as tl

from tilebook.attention.scores import LOG2E, block, kept, scored


@triton.jit
def gather(
    dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base, dq_base, dq_d,
    begin, end, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n, slope,
    scale, cap, sq, sk, shift, left, right, seed, number, threshold, revive,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr,
    BIAS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, DROP: tl.constexpr,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr, DESCRIBED: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Take blocks of queries into the gradients of a tile of keys and values.

    With WHOLE the tile's part of the gradient of the queries is added to memory, too.
    """
    for start in tl.range(begin, end, BLOCK_M):
        offs_m = start + tl.arange(0, BLOCK_M)
        q = block(
            q_base, b, h, q_m, start, offs_d, sq, BLOCK_M, D, BLOCK_D, MASKED,
            DESCRIBED,
        )  # fmt: skip
        if MASKED:
            lse = tl.load(lse_base + offs_m, mask=offs_m < sq, other=float("inf"))
        else:
            lse = tl.load(lse_base + offs_m)
        s = tl.dot(k, tl.trans(q), input_precision=PRECISION)  # (BLOCK_N, BLOCK_M)
        s, steep = scored(
            s, offs_m[None, :], offs_n[:, None], start, n0, bias, bias_m, bias_n,
            slope, scale, cap, sq, sk, shift, left, right, FOLD, CAP, ALIBI, BIAS,
            LEFT, RIGHT, MASKED,
        )  # fmt: skip
        if FOLD:
            p = tl.exp2(s * (scale * LOG2E) - lse[None, :])
        else:
            p = tl.exp2(s - lse[None, :])
        do = block(
            do_base, b, h, do_m, start, offs_e, sq, BLOCK_M, E, BLOCK_E, MASKED,
            DESCRIBED,
        )  # fmt: skip
        if DROP:
            keep = kept(seed, number, offs_m[None, :], offs_n[:, None], threshold)
            left_over = tl.where(keep, p, 0.0)
            dv = tl.dot(left_over.to(do.dtype), do, dv, input_precision=PRECISION)
        else:
            dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)  # (BLOCK_N, BLOCK_M)
        if DROP:
            dp = tl.where(keep, dp * revive, 0.0)
        # What each thread needs of it are many registers: not before there are some.
        if MASKED:
            delta = tl.load(delta_base + offs_m, mask=offs_m < sq, other=0)
        else:
            delta = tl.load(delta_base + offs_m)
        ds = p * (dp - delta[None, :])
        if CAP:
            ds *= steep
        if WHOLE:
            # Weights of keys that aren't there may be infinite, and mustn't spread.
            ds = tl.where(offs_n[:, None] < sk, ds, 0.0)
        ds = ds.to(q.dtype)
        dk = tl.dot(ds, q, dk, input_precision=PRECISION)
        if WHOLE:
            dq = tl.dot(
                tl.trans(k), ds, input_precision=PRECISION
            )  # (BLOCK_D, BLOCK_M)
            offs = tl.arange(0, BLOCK_M)
            at = dq_base + start + (offs_d[:, None] * dq_d + offs[None, :])
            mask = (offs_m < sq)[None, :] & (offs_d < D)[:, None]
            tl.atomic_add(at, dq * scale, mask=mask, sem="relaxed")
    return dk, dv
