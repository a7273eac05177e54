"""All gradients in one kernel: five products instead of seven, and atomic additions.

A tile of keys knows its part of the gradient of each query that sees it, and adds it to
memory, in float32. Which tile comes first is nobody's to say, and so sums differ in
their last bits from call to call.
"""

import torch
import triton
import triton.language as tl

from tilebook.attention.choose import Config, whole_config
from tilebook.attention.gradients import Gradient, prepared, shared
from tilebook.attention.operands import Task, common, programs
from tilebook.attention.scores import head, place, put, rows, tile
from tilebook.attention.turned import gather


@triton.jit
def whole_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, dq_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, bias_ptr,
    slopes_ptr, seed_ptr, ends_ptr, cu_q_ptr, cu_k_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, do_b, do_h, do_m,
    dq_b, dq_h, dq_d, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, lse_b, lse_h,
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
        row = b * lse_b + h * lse_h + start
        lse_base, delta_base = lse_ptr + row, delta_ptr + row
        dq_base = dq_ptr + b * dq_b + h * dq_h + start
        bias = bias_ptr + b * bias_b + h * bias_h
        stream = sequence * heads + h.to(tl.int32)
        if ALIBI:
            slope = tl.load(slopes_ptr + b * slopes_b + h * slopes_h)
        if RIGHT:
            dk, dv = gather(
                dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
                dq_base, dq_d,
                low, full_low, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
                slope,
                scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
                revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
                RIGHT, DROP, True, PRECISION, DESCRIBED, True,
            )  # fmt: skip
        dk, dv = gather(
            dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
            dq_base, dq_d,
            full_low, full_high, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
            slope,
            scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
            revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
            RIGHT, DROP, True, PRECISION, DESCRIBED, False,
        )  # fmt: skip
        if LEFT or not EVEN:
            dk, dv = gather(
                dk, dv, k, v, b, h, q_base, q_m, do_base, do_m, lse_base, delta_base,
                dq_base, dq_d,
                full_high, high, n0, offs_n, offs_d, offs_e, bias, bias_m, bias_n,
                slope,
                scale, cap, sq, sk, shift, left, right, seed, stream, threshold,
                revive, D, E, BLOCK_D, BLOCK_E, BLOCK_M, FOLD, CAP, ALIBI, BIAS, LEFT,
                RIGHT, DROP, True, PRECISION, DESCRIBED, True,
            )  # fmt: skip
    put(
        dk_ptr + b * dk_b + hk * dk_h + start_k * dk_n, dk_n, n0, offs_d, sk,
        dk * scale, BLOCK_N, D, BLOCK_D,
    )  # fmt: skip
    put(
        dv_ptr + b * dv_b + hk * dv_h + start_k * dv_n, dv_n, n0, offs_e, sk,
        dv * revive, BLOCK_N, E, BLOCK_E,
    )  # fmt: skip


def refusal(task: Task) -> str | None:
    """Say why the kernel can't take an attention; None if it can."""
    if task.q.shape[2] * task.q.shape[3] >= 1 << 31:
        return "q must have heads of fewer than 2**31 numbers: offsets have 32 bits"
    return None


def launch(gradient: Gradient, config: Config | None = None) -> None:
    """Launch the kernel; not deterministic.

    Args:
        gradient: what is wanted, and where it goes; slopes aren't for this kernel.
        config: how; `choose.whole_config` chooses by default.

    Raises:
        ValueError: the gradient of slopes is wanted, or a head has 2^31 numbers.
    """
    if refusal(gradient.task):
        raise ValueError(refusal(gradient.task))
    if gradient.steps is not None:
        raise ValueError("gradient must not ask for slopes: `backward` has them")
    task = gradient.task
    lse, delta = prepared(gradient)
    told = common(task, gradient=True) | shared(gradient, lse, delta)
    # Features first: so they come out of the product, and so neighbours are added.
    batch, heads, length, d = task.q.shape
    shape = (batch, heads, d, length)
    sums = torch.zeros(shape, dtype=torch.float32, device=task.q.device)
    block_m, block_n, num_warps, num_stages = config or whole_config(task)
    where, grid = programs(task, "k", block_n)
    even = not task.packed and task.q.shape[2] % block_m == 0
    if grid[0]:
        task.wrap(whole_kernel)[grid](
            **(told | where | gradient.looped(block_m, "q", "do")),
            **gradient.places("dk", "dv"), dq_ptr=sums,
            dq_b=sums.stride(0), dq_h=sums.stride(1), dq_d=length, BLOCK_M=block_m,
            BLOCK_N=block_n, EVEN=even, num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
    gradient.dq.copy_(sums.transpose(2, 3))
    gradient.sink(delta)
