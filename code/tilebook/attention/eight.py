"""Attention in eight bits: scores and weighted values are products of e4m3 codes.

As `causal`, with three things more. A block's scores have their own scale, part of the
factor that makes logits of them. Weights are at most 1, and are lifted by 2^8 before
they are rounded, which costs nothing: it is subtracted from what is subtracted from a
logit, and leaves with the denominator. And a block's weighted values are summed from
zero by tensor cores, which keep few bits of a sum, and added to the others by float32's
addition, as `tilebook.fp8.promoted` has it. `eight_operands` says how values lie.
"""

import triton
import triton.language as tl

from tilebook import device
from tilebook.attention.choose import Config, family
from tilebook.attention.eight_operands import GROUP, TURN, Task
from tilebook.attention.scores import LN2, LOG2E, columns, put
from tilebook.tiling.operands import check_grid

LIFT = tl.constexpr(8.0)
"""Weights are rounded as multiples of 2^-LIFT: 1 becomes 256, of 448 at most."""
SUMMED = 128
"""Features of values up to which registers hold a block's sums beside all others."""


@triton.jit
def codes(
    base, stride, start, rows, column, columns_, offs_m, offs_n, MASKED: tl.constexpr
):
    """Load a tile of codes from row `start` and column `column` on, 0 outside."""
    at = base + tl.cast(start, tl.int64) * stride + column
    at = at + (offs_m[:, None] * stride + offs_n[None, :])
    if MASKED:
        inside = (offs_m < rows - start)[:, None] & (offs_n < columns_ - column)[None]
        return tl.load(at, mask=inside, other=0.0)
    else:
        return tl.load(at)


@triton.jit
def exchanged(p):
    """Weights under the numbers of the terms that a product takes from each thread."""
    rows: tl.constexpr = p.shape[0]
    size: tl.constexpr = p.shape[1]
    p = tl.reshape(p, (rows, size // 16, 2, 4, 2))
    return tl.reshape(tl.permute(p, (0, 1, 3, 2, 4)), (rows, size))


@triton.jit
def step(
    acc, total, top, q, k_base, k_n, v_base, v_e, scale_ptr, scale_s, begin, end,
    offs_m, offs_d, offs_e, sk, factor,
    D: tl.constexpr, E: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
    TURN: tl.constexpr, CAUSAL: tl.constexpr, APART: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take blocks of keys into a tile's sums."""
    FULL_D: tl.constexpr = q.shape[1] == D
    FULL_E: tl.constexpr = acc.shape[1] == E
    span = tl.arange(0, BLOCK_N)
    # Counted so, the compiler sees that bytes come by sixteen.
    for block in range(begin // BLOCK_N, tl.cdiv(end, BLOCK_N)):
        start = block * BLOCK_N
        k = codes(
            k_base, k_n, start, sk, 0, D, span, offs_d, MASKED or not FULL_D
        )  # (BLOCK_N, BLOCK_D)
        s = tl.dot(q, tl.trans(k))
        if MASKED:
            offs_n = start + span
            seen = (offs_n < sk)[None, :]
            if CAUSAL:
                seen = seen & (offs_n[None, :] <= offs_m[:, None])
            s = tl.where(seen, s, -float("inf"))
        each = factor * tl.load(scale_ptr + start // GROUP * scale_s)
        highest = tl.maximum(top, tl.max(s, axis=1) * each)
        p = tl.exp2(s * each - (highest - LIFT)[:, None])
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(p, axis=1)
        turned = tl.cdiv(sk, TURN) * TURN
        v = codes(
            v_base, v_e, 0, E, start, turned, offs_e, span, MASKED or not FULL_E
        )  # (BLOCK_E, BLOCK_N)
        p = exchanged(p.to(v.dtype))
        if APART:
            acc = acc * shrink[:, None] + tl.dot(p, tl.trans(v))
        else:
            acc = tl.dot(p, tl.trans(v), acc * shrink[:, None])
        top = highest
    return acc, total, top


@triton.jit
def eight_kernel(
    q_ptr, k_ptr, v_ptr, scale_q_ptr, scale_k_ptr, scale_v_ptr, out_ptr, lse_ptr,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_e, scale_qb, scale_qh, scale_qs,
    scale_kb, scale_kh, scale_ks, scale_vb, scale_vh, scale_ve, sq, sk, heads, group,
    scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
    TURN: tl.constexpr, CAUSAL: tl.constexpr, EVEN: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(sq, BLOCK_M)
    m0 = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    b, h = pair // heads, pair % heads
    hk = h // group
    offs = tl.arange(0, BLOCK_M)
    offs_m = m0 + offs
    offs_d, offs_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    q = codes(q_ptr + b * q_b + h * q_h, q_m, m0, sq, 0, D, offs, offs_d, True)
    k_base = k_ptr + b * k_b + hk * k_h
    v_base = v_ptr + b * v_b + hk * v_h
    at = scale_q_ptr + b * scale_qb + h * scale_qh + m0 // GROUP * scale_qs
    factor = scale * LOG2E * tl.load(at)
    scale_k_ptr += b * scale_kb + hk * scale_kh
    acc = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    _, begin, middle, end = columns(
        m0, sq, sk, 0, 0, 0, BLOCK_M, BLOCK_N, False, CAUSAL
    )
    acc, total, top = step(
        acc, total, top, q, k_base, k_n, v_base, v_e, scale_k_ptr, scale_ks,
        begin, middle, offs_m, offs_d, offs_e, sk, factor,
        D, E, BLOCK_N, GROUP, TURN, CAUSAL, APART, False,
    )  # fmt: skip
    if CAUSAL or not EVEN:
        acc, total, top = step(
            acc, total, top, q, k_base, k_n, v_base, v_e, scale_k_ptr, scale_ks,
            middle, end, offs_m, offs_d, offs_e, sk, factor,
            D, E, BLOCK_N, GROUP, TURN, CAUSAL, APART, True,
        )  # fmt: skip
    at = scale_v_ptr + b * scale_vb + hk * scale_vh + offs_e * scale_ve
    values = tl.load(at, mask=offs_e < E, other=0.0)
    out = acc * (1 / total)[:, None] * values[None, :]
    put(out_ptr + pair * sq * E, E, m0, offs_e, sq, out, BLOCK_M, E, BLOCK_E)
    lse = (top - LIFT + tl.log2(total)) * LN2
    tl.store(lse_ptr + pair * sq + offs_m, lse, mask=offs_m < sq)


CONFIGS = {
    "hopper": {
        64: Config(128, 128, 8, 3),
        128: Config(128, 128, 8, 3),
        256: Config(128, 64, 8, 3),
    },
    "ampere": {
        64: Config(128, 64, 4, 3),
        128: Config(128, 64, 8, 2),
        256: Config(64, 32, 8, 2),
    },
    "amd": {
        64: Config(128, 64, 4, 1),
        128: Config(128, 32, 4, 1),
        256: Config(64, 32, 4, 1),
    },
}
"""Tiles, by family and features; their sides divide `GROUP`."""


def cover(n: int) -> int:
    """The power of two from 32 on that covers n features: of eight bits products take
    no fewer."""
    return max(32, triton.next_power_of_2(n))


def config_for(task: Task, arch: str | None = None) -> Config:
    """Choose tiles.

    Args:
        task: what is computed.
        arch: for what, such as "sm_90"; by default what is here.

    Returns:
        Those of the table, or as high as there are queries or keys.
    """
    arch = device.current().arch if arch is None else arch
    wide = max(task.q.shape[3], task.v.shape[2])
    config = CONFIGS[family(arch)][next(n for n in (64, 128, 256) if wide <= n)]
    block_m = min(config.block_m, max(16, triton.next_power_of_2(task.q.shape[2])))
    block_n = min(config.block_n, max(32, triton.next_power_of_2(task.k.shape[2])))
    return config._replace(block_m=block_m, block_n=block_n)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel.

    Args:
        task: has queries and keys; its `out` and `lse` are written.
        config: how; `config_for` chooses by default.

    Raises:
        ValueError: there are more tiles than a grid has programs.
    """
    block_m, block_n, num_warps, num_stages = config or config_for(task)
    (batch, heads, length, d), e = task.q.shape, task.v.shape[2]
    keys = task.k.shape[2]
    count = batch * heads * triton.cdiv(length, block_m)
    strides = (x.stride()[:3] for x in (task.q, task.k, task.v))
    scales = (task.scale_q, task.scale_k, task.scale_v)
    task.wrap(eight_kernel)[(check_grid(count, "tiles", "q"),)](
        task.q, task.k, task.v, *scales, task.out, task.lse,
        *(n for each in strides for n in each),
        *(n for x in scales for n in x.stride()),
        length, keys, heads, heads // task.k.shape[1], task.scale,
        D=d, E=e, BLOCK_D=cover(d), BLOCK_E=cover(e), BLOCK_M=block_m, BLOCK_N=block_n,
        GROUP=GROUP, TURN=TURN, CAUSAL=task.causal, EVEN=keys % block_n == 0,
        APART=cover(e) <= SUMMED, num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
