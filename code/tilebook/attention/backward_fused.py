"""All gradients in one kernel for Hopper, in warps with parts of their own (Gluon).

A program has BLOCK_N keys of one head, and values, and takes the queries that see them
block by block, of all heads that share them. Two groups of four warps have half of the
keys each. Scores are computed with keys as rows, so that weights and their gradients
come out as tensor cores take them from registers: transposed, for dv = p^T do and
dk = ds^T q. The gradient of queries needs both groups' ds, which meet in shared memory;
of dq = ds k each group computes a half, and adds it to memory::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `k_arrived`, `v_arrived` | the producer, and the bytes | both groups | read them |
    | `q_arrived[place]` | the producer, and the bytes | both groups | queries, powers |
    | `do_arrived[place]` | the producer, and the bytes | both groups | `do`, deltas |
    | `free[place]` | both groups, a block done | the producer | overwrite both |
    | `ds_there[turn]` | both groups | both groups | read ds of all keys |

Places for ds take turns. Who writes one has waited for `ds_there` of the block before,
and for that both groups arrived after they had read what was here.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook.attention import backward_fits, launching
from tilebook.attention.backward_blocks import (
    NARROW,
    PARTS,
    produce,
    score,
    span_of,
    step,
)
from tilebook.attention.backward_fits import BLOCK_M, PART, WIDTHS, Config
from tilebook.attention.gradients import Gradient, prepared
from tilebook.attention.wgmma import nothing_yet, place_of, put, ring_of
from tilebook.hopper.wgmma import barriers


@gluon.jit
def consume(
    dq_desc, dk_desc, dv_desc, places, ring, ds_places, dq_places,
    lines, kv_arrived, q_arrived, do_arrived, free, ds_there,
    all_heads, heads, share, rows, keys, power, scale,
    PART: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """Compute the gradients of a part's keys and values, and store them."""
    KEYS: gl.constexpr = places.shape[3]
    COLUMNS: gl.constexpr = places.shape[4]
    BLOCK_M: gl.constexpr = ring.shape[3]
    BLOCK_N: gl.constexpr = PARTS * KEYS
    # Where registers are few, one loop masks all: two have more to hold.
    WHOLE: gl.constexpr = COLUMNS > NARROW or not (CAUSAL or RAGGED)
    head, key = place_of(gl.program_id(0), all_heads, keys, BLOCK_N, GROUP, False)
    batch, head = head // heads, head % heads
    begin, whole, end = span_of(key, rows, BLOCK_M, BLOCK_N, CAUSAL)
    if RAGGED:
        whole = gl.where(key + BLOCK_N > keys, end, whole)
    key += PART * KEYS
    total = share * (end - begin)
    dk, dv = nothing_yet(KEYS, COLUMNS), nothing_yet(KEYS, COLUMNS)
    scores = nothing_yet(KEYS, BLOCK_M)
    mbarrier.wait(kv_arrived.index(0), 0)
    if COLUMNS <= NARROW:
        scores = score(places, ring, q_arrived, 0, PART, total > 0)
        scores = warpgroup_mma_wait(0, deps=(scores,))
    mbarrier.wait(kv_arrived.index(1), 0)
    count = 0
    for each in range(share):
        which = head * share + each
        if not WHOLE:
            for block in range(begin, whole):
                row = block * BLOCK_M
                dk, dv, scores = step(
                    dq_desc, places, ring, ds_places, dq_places,
                    q_arrived, do_arrived, free, ds_there,
                    count, dk, dv, scores, lines,
                    batch, which, row, key, count + 1 < total, keys,
                    power, scale, PART, CAUSAL, RAGGED,
                )  # fmt: skip
                count += 1
            first = gl.maximum(begin, whole)
        else:
            first = begin
        for block in range(first, end):
            row = block * BLOCK_M
            dk, dv, scores = step(
                dq_desc, places, ring, ds_places, dq_places,
                q_arrived, do_arrived, free, ds_there,
                count, dk, dv, scores, lines,
                batch, which, row, key, count + 1 < total, keys,
                power, scale, PART, CAUSAL and WHOLE, RAGGED and WHOLE,
            )  # fmt: skip
            count += 1
    # Nobody but this group has read its values.
    place = places.index(PARTS + PART)
    DTYPE: gl.constexpr = ring.dtype
    put(dk.to(DTYPE), dk_desc, batch, head, key, 0, place)
    put(dv.to(DTYPE), dv_desc, batch, head, key, 0, place)
    tma.store_wait(0)


@gluon.jit
def fused_kernel(
    q_desc, k_desc, v_desc, do_desc, dq_desc, dk_desc, dv_desc,
    powers_desc, deltas_desc, all_heads, heads, share, rows, keys, power, scale,
    STAGES: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    BLOCK_M: gl.constexpr = q_desc.block_type.shape[2]
    KEYS: gl.constexpr = k_desc.block_type.shape[2]
    places, ring = ring_of(k_desc, 2 * PARTS), ring_of(q_desc, 2 * STAGES)
    dq_places = ring_of(dq_desc, PARTS)
    lines = gl.allocate_shared_memory(
        gl.float32, [2 * STAGES, 1, BLOCK_M], powers_desc.layout
    )
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for(
        [KEYS, BLOCK_M], q_desc.dtype
    )
    ds_places = gl.allocate_shared_memory(
        q_desc.dtype, [2 * PARTS, KEYS, BLOCK_M], layout
    )
    kv_arrived, ds_there = barriers(2, 1), barriers(2, PARTS)
    q_arrived, do_arrived = barriers(STAGES, 1), barriers(STAGES, 1)
    free = barriers(STAGES, PARTS)
    gl.warp_specialize(
        [
            (consume, (
                dq_desc, dk_desc, dv_desc, places, ring, ds_places, dq_places,
                lines, kv_arrived, q_arrived, do_arrived, free, ds_there,
                all_heads, heads, share, rows, keys, power, scale,
                0, GROUP, CAUSAL, RAGGED,
            )),
            (consume, (
                dq_desc, dk_desc, dv_desc, places, ring, ds_places, dq_places,
                lines, kv_arrived, q_arrived, do_arrived, free, ds_there,
                all_heads, heads, share, rows, keys, power, scale,
                1, GROUP, CAUSAL, RAGGED,
            )),
            (produce, (
                q_desc, k_desc, v_desc, do_desc, powers_desc, deltas_desc,
                places, ring, lines, kv_arrived, q_arrived, do_arrived, free,
                all_heads, heads, share, rows, keys, GROUP, CAUSAL,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def refusal(gradient: Gradient) -> str | None:
    """Say why the kernel can't compute gradients.

    Args:
        gradient: what is wanted.

    Returns:
        The first rule that is broken; None if none is.
    """
    return backward_fits.refusal(gradient, 8, WIDTHS[-1])


def launch(gradient: Gradient, config: Config | None = None) -> None:
    """Launch the kernel; not deterministic.

    Args:
        gradient: what is wanted, and where it goes; nothing that `refusal` refuses.
        config: how; by default what `backward_fits` chooses.

    Raises:
        ValueError: it is refused.
    """
    if reason := refusal(gradient):
        raise ValueError(reason)
    task = gradient.task
    config = config or backward_fits.config_for(task)
    powers, deltas = prepared(gradient, launching.ALIGNED)
    (batch, heads, rows, columns), (kv_heads, keys) = task.q.shape, task.k.shape[1:3]
    width, block_n = backward_fits.width_of(task), PART * PARTS.value
    sums = torch.zeros(
        (batch, heads, rows, width), dtype=torch.float32, device=task.q.device
    )
    count = -(-keys // block_n) * batch * kv_heads
    if count:
        task.wrap(fused_kernel)[(count,)](
            launching.described(task.q, BLOCK_M, width),
            launching.described(task.k, PART, width),
            launching.described(task.v, PART, width),
            launching.described(gradient.do, BLOCK_M, width),
            launching.described(sums, BLOCK_M, width // PARTS.value),
            launching.described(gradient.dk, PART, width),
            launching.described(gradient.dv, PART, width),
            launching.lines_of(powers, BLOCK_M), launching.lines_of(deltas, BLOCK_M),
            batch * kv_heads, kv_heads, heads // kv_heads, rows, keys,
            task.scale * launching.LOG2E, task.scale,
            STAGES=config.stages, GROUP=backward_fits.heads_at_a_time(task),
            CAUSAL=task.right == 0, RAGGED=keys % block_n > 0,
            num_warps=4,
        )  # fmt: skip
    gradient.dq.copy_(sums[..., :columns])
