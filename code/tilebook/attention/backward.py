"""The gradients, derived, by two kernels that write each element once.

With the weights p_ij = e^(x_ij - lse_i) and the result o_i = sum over j of p_ij v_j,
let g_i be what arrives for o_i, and c_i what arrives for lse_i. Then

    dv_j  = sum over i of p_ij g_i,            dp_ij = g_i . v_j,
    dx_ij = p_ij (dp_ij - delta_i),            delta_i = g_i . o_i - c_i,

because the derivative of p_ij by x_ik is p_ij (1 if j = k else 0) - p_ij p_ik, and the
sum over j of p_ij dp_ij is g_i . o_i, whatever the row's length. The derivative of
lse_i by x_ij is p_ij. With x_ij = scale q_i . k_j,

    dq_i = scale sum over j of dx_ij k_j,      dk_j = scale sum over i of dx_ij q_i.

A cap multiplies dx_ij by its own derivative. Dropout with the mask z_ij, which is 0 or
1 / (1 - dropout), puts z_ij p_ij for p_ij in dv_j and z_ij dp_ij for dp_ij; delta_i
stays g_i . o_i. A bias gets dx_ij, a slope the sum of -abs(i + shift - j) dx_ij, and a
sink, which is a logit whose value is 0, the sum of -e^(sink - lse_i) delta_i.

`keys_kernel` keeps a tile of keys and goes through the queries that see it, of all
heads that share it; `queries_kernel` keeps queries and goes through keys. Both make the
weights anew, which costs two products of seven, and neither needs an atomic addition.
"""

import triton
import triton.language as tl

from tilebook.attention.choose import Config, keys_config, queries_config
from tilebook.attention.gradients import Gradient, prepared, shared
from tilebook.attention.operands import common, programs
from tilebook.attention.scores import (
    LOG2E,
    block,
    columns,
    head,
    kept,
    place,
    put,
    rows,
    scored,
    tile,
)
from tilebook.attention.turned import gather


@triton.jit
def keys_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, bias_ptr,
    slopes_ptr, seed_ptr, ends_ptr, cu_q_ptr, cu_k_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, do_b, do_h, do_m,
    dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, lse_b, lse_h,
    bias_b, bias_h, bias_m, bias_n, slopes_b, slopes_h,
    sq, sk, heads, group, tiles, sequences, scale, cap, left, right, threshold, revive,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr, BIAS: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM: tl.constexpr, DROP: tl.constexpr,
    PACKED: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    DESCRIBED: tl.constexpr,
):  # fmt: skip
    number, b, hk, sequence, start_k, start, sk, sq = place(
        tl.program_id(0), tiles, heads // group, ends_ptr, sequences, cu_k_ptr,
        cu_q_ptr, sk, sq, sk, sq, PACKED, BLOCK_N,
    )  # fmt: skip
    n0 = number * BLOCK_N
    offs_n = n0 + tl.arange(0, BLOCK_N)
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    hk = hk.to(tl.int64)
    k_base = k_ptr + b * k_b + hk * k_h + start_k * k_n
    v_base = v_ptr + b * v_b + hk * v_h + start_k * v_n
    shift = 0
    if BOTTOM:
        shift = sk - sq
    slope, seed = 0.0, 0
    if DROP:
        seed = tl.load(seed_ptr)

    k = tile(k_base, k_n, n0, offs_d, sk, BLOCK_N, D, BLOCK_D, True)
    v = tile(v_base, v_n, n0, offs_e, sk, BLOCK_N, E, BLOCK_E, True)
    dk = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    low, full_low, full_high, high = rows(
        n0, sq, sk, shift, left, right, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    for g in range(group):
        h = hk * group + g
        q_base = head(q_ptr, b, h, start, q_b, q_h, q_m, DESCRIBED)
        do_base = head(do_ptr, b, h, start, do_b, do_h, do_m, DESCRIBED)
        lse_base = lse_ptr + b * lse_b + h * lse_h + start
        delta_base = delta_ptr + b * lse_b + h * lse_h + start
        bias = bias_ptr + b * bias_b + h * bias_h
        stream = sequence * heads + h.to(tl.int32)
        if ALIBI:
            slope = tl.load(slopes_ptr + b * slopes_b + h * slopes_h)
        if RIGHT:
            dk, dv = gather(
                dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
                lse_base, sq,
                low, full_low, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
                slope,
                scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
                revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
                RIGHT, DROP, False, PRECISION, DESCRIBED, True,
            )  # fmt: skip
        dk, dv = gather(
            dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
            lse_base, sq,
            full_low, full_high, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
            slope,
            scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
            revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
            RIGHT, DROP, False, PRECISION, DESCRIBED, False,
        )  # fmt: skip
        if LEFT or not EVEN:
            dk, dv = gather(
                dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
                lse_base, sq,
                full_high, high, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
                slope,
                scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
                revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
                RIGHT, DROP, False, PRECISION, DESCRIBED, True,
            )  # fmt: skip
    put(
        dk_ptr + b * dk_b + hk * dk_h + start_k * dk_n, dk_n, n0, offs_d, sk,
        dk * scale, BLOCK_N, D, BLOCK_D,
    )  # fmt: skip
    put(
        dv_ptr + b * dv_b + hk * dv_h + start_k * dv_n, dv_n, n0, offs_e, sk,
        dv * revive, BLOCK_N, E, BLOCK_E,
    )  # fmt: skip


@triton.jit
def collect(
    dq, steps, q, do, lse, delta, b, hk, k_base, k_n, v_base, v_n, begin, end,
    m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
    shift, left, right, seed, number, threshold, revive,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr, FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr,
    BIAS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, DROP: tl.constexpr,
    STEPS: tl.constexpr, PRECISION: tl.constexpr, DESCRIBED: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Take blocks of keys into the gradient of a tile of queries, and of slopes."""
    for start in tl.range(begin, end, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        k = block(
            k_base, b, hk, k_n, start, offs_d, sk, BLOCK_N, D, BLOCK_D, MASKED,
            DESCRIBED,
        )  # fmt: skip
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        s, steep = scored(
            s, offs_m[:, None], offs_n[None, :], m0, start, bias, bias_m, bias_n,
            slope, scale, cap, sq, sk, shift, left, right, FOLD, CAP, ALIBI, BIAS,
            LEFT, RIGHT, MASKED,
        )  # fmt: skip
        if FOLD:
            p = tl.exp2(s * (scale * LOG2E) - lse[:, None])
        else:
            p = tl.exp2(s - lse[:, None])
        v = block(
            v_base, b, hk, v_n, start, offs_e, sk, BLOCK_N, E, BLOCK_E, MASKED,
            DESCRIBED,
        )  # fmt: skip
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)  # (BLOCK_M, BLOCK_N)
        if DROP:
            keep = kept(seed, number, offs_m[:, None], offs_n[None, :], threshold)
            dp = tl.where(keep, dp * revive, 0.0)
        ds = p * (dp - delta[:, None])
        if STEPS:
            away = tl.abs(offs_m[:, None] + shift - offs_n[None, :]).to(tl.float32)
            steps -= tl.sum(ds * away, axis=1)
        if CAP:
            ds *= steep
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq, steps


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, dq_ptr, steps_ptr, lse_ptr, delta_ptr, bias_ptr,
    slopes_ptr, seed_ptr, ends_ptr, cu_q_ptr, cu_k_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, do_b, do_h, do_m, dq_b, dq_h, dq_m,
    lse_b, lse_h, bias_b, bias_h, bias_m, bias_n, slopes_b, slopes_h,
    sq, sk, heads, group, tiles, sequences, scale, cap, left, right, threshold, revive,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    FOLD: tl.constexpr, CAP: tl.constexpr, ALIBI: tl.constexpr, BIAS: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM: tl.constexpr, DROP: tl.constexpr,
    STEPS: tl.constexpr, PACKED: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    number, b, h, sequence, start, start_k, sq, sk = place(
        tl.program_id(0), tiles, heads, ends_ptr, sequences, cu_q_ptr, cu_k_ptr,
        sq, sk, sq, sk, PACKED, BLOCK_M,
    )  # fmt: skip
    m0 = number * BLOCK_M
    offs_m = m0 + tl.arange(0, BLOCK_M)
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    h = h.to(tl.int64)
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

    q_base = q_ptr + b * q_b + h * q_h + start * q_m
    q = tile(q_base, q_m, m0, offs_d, sq, BLOCK_M, D, BLOCK_D, True)
    do_base = do_ptr + b * do_b + h * do_h + start * do_m
    do = tile(do_base, do_m, m0, offs_e, sq, BLOCK_M, E, BLOCK_E, True)
    row_base = b * lse_b + h * lse_h + start
    lse = tl.load(lse_ptr + row_base + offs_m, mask=offs_m < sq, other=float("inf"))
    delta = tl.load(delta_ptr + row_base + offs_m, mask=offs_m < sq, other=0)
    dq = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    steps = tl.zeros((BLOCK_M,), tl.float32)
    low, full_low, full_high, high = columns(
        m0, sq, sk, shift, left, right, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    if LEFT:
        dq, steps = collect(
            dq, steps, q, do, lse, delta, b, hk, k_base, k_n, v_base, v_n, low,
            full_low,
            m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
            shift, left, right, seed, stream, threshold, revive, D, E, BLOCK_D,
            BLOCK_E, BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, STEPS,
            PRECISION, DESCRIBED, True,
        )  # fmt: skip
    dq, steps = collect(
        dq, steps, q, do, lse, delta, b, hk, k_base, k_n, v_base, v_n, full_low,
        full_high,
        m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
        shift, left, right, seed, stream, threshold, revive, D, E, BLOCK_D,
        BLOCK_E, BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, STEPS,
        PRECISION, DESCRIBED, False,
    )  # fmt: skip
    if RIGHT or not EVEN:
        dq, steps = collect(
            dq, steps, q, do, lse, delta, b, hk, k_base, k_n, v_base, v_n, full_high,
            high,
            m0, offs_m, offs_d, offs_e, bias, bias_m, bias_n, slope, scale, cap, sq, sk,
            shift, left, right, seed, stream, threshold, revive, D, E, BLOCK_D,
            BLOCK_E, BLOCK_N, FOLD, CAP, ALIBI, BIAS, LEFT, RIGHT, DROP, STEPS,
            PRECISION, DESCRIBED, True,
        )  # fmt: skip
    put(
        dq_ptr + b * dq_b + h * dq_h + start * dq_m, dq_m, m0, offs_d, sq,
        dq * scale, BLOCK_M, D, BLOCK_D,
    )  # fmt: skip
    if STEPS:
        tl.store(steps_ptr + row_base + offs_m, steps, mask=offs_m < sq)


def launch(
    gradient: Gradient,
    config: Config | None = None,
    config_queries: Config | None = None,
) -> None:
    """Launch the kernels.

    Args:
        gradient: what is wanted, and where it goes.
        config: how `keys_kernel` is launched; `choose.keys_config` chooses by default.
        config_queries: how `queries_kernel` is; `choose.queries_config` likewise.
    """
    task = gradient.task
    lse, delta = prepared(gradient)
    told = common(task, gradient=True) | shared(gradient, lse, delta)
    block_m, block_n, num_warps, num_stages = config or keys_config(task)
    where, grid = programs(task, "k", block_n)
    even = not task.packed and task.q.shape[2] % block_m == 0
    if grid[0]:
        task.wrap(keys_kernel)[grid](
            **(told | where | gradient.looped(block_m, "q", "do")),
            **gradient.places("dk", "dv"), BLOCK_M=block_m, BLOCK_N=block_n, EVEN=even,
            num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
    block_m, block_n, num_warps, num_stages = config_queries or queries_config(task)
    where, grid = programs(task, "q", block_m)
    even = not task.packed and task.k.shape[2] % block_n == 0
    steps = gradient.steps
    task.wrap(queries_kernel)[grid](
        **(told | where | gradient.looped(block_n, "k", "v")),
        **gradient.places("dq"), steps_ptr=delta if steps is None else steps,
        STEPS=steps is not None, BLOCK_M=block_m, BLOCK_N=block_n, EVEN=even,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
    gradient.sink(delta)
