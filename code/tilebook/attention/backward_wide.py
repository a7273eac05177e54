"""All gradients of wide heads in one kernel for Hopper: two groups, two trades (Gluon).

A program has BLOCK_N keys of one head, and values, and takes the queries that see them
block by block, of all heads that share them. Of wide heads the sums of either gradient
fill half of a thread's registers. So one group of four warps computes weights and the
gradient of values, the other the gradients of scores and of keys. Scores have keys as
rows, so that what becomes of them comes as tensor cores take it from registers:
transposed, for dv += p^T do and dk += ds^T q. Of dq = ds k each group computes half of
the columns; the group that weighs does so a block later, and never waits for ds of its
own block. The copy engine adds halves to memory, from where `do` and queries were:
there is no other room::

    | barrier | who arrives | who waits | what becomes safe |
    |---|---|---|---|
    | `kv_arrived[which]` | the producer, and the bytes | both groups | read them |
    | `q_arrived[place]` | the producer, and the bytes | both groups | queries, powers |
    | `do_arrived[place]` | the producer, and the bytes | both groups | `do`, deltas |
    | `free[place]` | both groups, halves of dq gone | the producer | overwrite both |
    | `p_there` | who weighs | who differentiates | read p; dq where queries were |
    | `p_free` | who differentiates | who weighs | overwrite p; dq where `do` was |
    | `ds_there[turn]` | who differentiates | who weighs | read ds |

Who weighs has multiplied a block's queries before p is there, who differentiates its
`do` before p has been read. Places for ds take turns: who writes one has waited for p,
and for that the last ds of that place had been multiplied. At last gradients leave
through the places of keys and values. Only who differentiates reads values; who weighs
waits for `free` of the last block: then nobody reads keys.
"""

from typing import NamedTuple

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)

from tilebook.attention import backward_fits, configs, launching
from tilebook.attention.backward_blocks import produce, span_of
from tilebook.attention.backward_trades import (
    WEIGHS,
    add_half,
    differentiate_block,
    halve,
    let_go,
    weigh_block,
)
from tilebook.attention.gradients import Gradient, prepared
from tilebook.attention.wgmma import nothing_yet, place_of, put, ring_of
from tilebook.hopper.launching import BARRIERS
from tilebook.hopper.wgmma import barriers

LEAST, WIDTH = 136, 256
"""Columns of a head: the fewest that the kernel takes, `backward_fused` has those of
fewer; and those that it is compiled for, which zeros fill up."""
BLOCK_M, BLOCK_N = 64, 64
"""Queries of a block, and keys of a tile: for more there is no shared memory."""


class Config(NamedTuple):
    """How the kernel is launched."""

    stages: int
    """Blocks of queries that are on their way or in use."""


CONFIGS = (Config(2),)
"""What to try on a card; the first that fits is what `config_for` takes."""


@gluon.jit
def weigh(
    dq_desc, dv_desc, places, ring, p_place, ds_places, lines,
    kv_arrived, q_arrived, do_arrived, free, p_there, p_free, ds_there,
    all_heads, heads, share, rows, keys, power,
    GROUP: gl.constexpr, CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """Compute weights, the gradient of a tile's values, and half of that of queries."""
    BLOCK_N: gl.constexpr = places.shape[3]
    COLUMNS: gl.constexpr = places.shape[4]
    BLOCK_M: gl.constexpr = ring.shape[3]
    STAGES: gl.constexpr = ring.shape[0] // 2
    head, key = place_of(gl.program_id(0), all_heads, keys, BLOCK_N, GROUP, False)
    batch, head = head // heads, head % heads
    begin, _, end = span_of(key, rows, BLOCK_M, BLOCK_N, CAUSAL)
    dv = nothing_yet(BLOCK_N, COLUMNS)
    mbarrier.wait(kv_arrived.index(0), 0)
    before, row_before = head * share, begin * BLOCK_M
    count = 0
    for each in range(share):
        for block in range(begin, end):
            row = block * BLOCK_M
            dv = weigh_block(
                dq_desc, places, ring, p_place, ds_places, lines,
                q_arrived, do_arrived, free, p_there, p_free, ds_there,
                count, dv, batch, row, before, row_before, key, keys, power,
                CAUSAL, RAGGED,
            )  # fmt: skip
            before, row_before = head * share + each, row
            count += 1
    if count > 0:
        last = count - 1
        at, turn = last % STAGES, last & 1
        mbarrier.wait(ds_there.index(turn), (last >> 1) & 1)
        half = halve(places, ds_places, turn, WEIGHS)
        let_go(free, last)
        half = warpgroup_mma_wait(0, deps=(half,))
        add_half(half, dq_desc, batch, before, row_before, ring, 2 * at + 1, WEIGHS)
        mbarrier.wait(free.index(at), (last // STAGES) & 1)
    put(dv.to(dv_desc.dtype), dv_desc, batch, head, key, 0, places.index(0))
    tma.store_wait(0)


@gluon.jit
def differentiate(
    dq_desc, dk_desc, places, ring, p_place, ds_places, lines,
    kv_arrived, q_arrived, do_arrived, free, p_there, p_free, ds_there,
    all_heads, heads, share, rows, keys, scale,
    GROUP: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Compute gradients of scores and of a tile's keys, and half of that of queries."""
    BLOCK_N: gl.constexpr = places.shape[3]
    COLUMNS: gl.constexpr = places.shape[4]
    BLOCK_M: gl.constexpr = ring.shape[3]
    head, key = place_of(gl.program_id(0), all_heads, keys, BLOCK_N, GROUP, False)
    batch, head = head // heads, head % heads
    begin, _, end = span_of(key, rows, BLOCK_M, BLOCK_N, CAUSAL)
    dk = nothing_yet(BLOCK_N, COLUMNS)
    mbarrier.wait(kv_arrived.index(0), 0)
    mbarrier.wait(kv_arrived.index(1), 0)
    count = 0
    for each in range(share):
        for block in range(begin, end):
            dk = differentiate_block(
                dq_desc, places, ring, p_place, ds_places, lines,
                q_arrived, do_arrived, free, p_there, p_free, ds_there,
                count, dk, batch, head * share + each, block * BLOCK_M, scale,
            )  # fmt: skip
            count += 1
    if count > 0:
        let_go(free, count - 1)
    put(dk.to(dk_desc.dtype), dk_desc, batch, head, key, 0, places.index(1))
    tma.store_wait(0)


@gluon.jit
def wide_kernel(
    q_desc, k_desc, v_desc, do_desc, dq_desc, dk_desc, dv_desc,
    powers_desc, deltas_desc, all_heads, heads, share, rows, keys, power, scale,
    STAGES: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    BLOCK_M: gl.constexpr = q_desc.block_type.shape[2]
    BLOCK_N: gl.constexpr = k_desc.block_type.shape[2]
    DTYPE: gl.constexpr = q_desc.dtype
    places, ring = ring_of(k_desc, 2), ring_of(q_desc, 2 * STAGES)
    lines = gl.allocate_shared_memory(
        gl.float32, [2 * STAGES, 1, BLOCK_M], powers_desc.layout
    )
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for(
        [BLOCK_N, BLOCK_M], DTYPE
    )
    p_place = gl.allocate_shared_memory(DTYPE, [BLOCK_N, BLOCK_M], layout)
    ds_places = gl.allocate_shared_memory(DTYPE, [2, BLOCK_N, BLOCK_M], layout)
    kv_arrived, q_arrived = barriers(2, 1), barriers(STAGES, 1)
    do_arrived, free = barriers(STAGES, 1), barriers(STAGES, 2)
    p_there, p_free, ds_there = barriers(1, 1), barriers(1, 1), barriers(2, 1)
    gl.warp_specialize(
        [
            (weigh, (
                dq_desc, dv_desc, places, ring, p_place, ds_places, lines,
                kv_arrived, q_arrived, do_arrived, free,
                p_there, p_free, ds_there,
                all_heads, heads, share, rows, keys, power, GROUP, CAUSAL, RAGGED,
            )),
            (differentiate, (
                dq_desc, dk_desc, places, ring, p_place, ds_places, lines,
                kv_arrived, q_arrived, do_arrived, free,
                p_there, p_free, ds_there,
                all_heads, heads, share, rows, keys, scale, GROUP, CAUSAL,
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


def shared_bytes(config: Config) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
    """
    tiles = 2 * BLOCK_N + 2 * config.stages * BLOCK_M
    both = 2 * (tiles * WIDTH + 3 * BLOCK_N * BLOCK_M)
    return both + 8 * BLOCK_M * config.stages + BARRIERS


def config_for() -> Config:
    """Choose how to launch the kernel: the first that this process's GPU has room for.

    Raises:
        ValueError: there is room for none.
    """
    return configs.that_fits(CONFIGS, shared_bytes)


def refusal(gradient: Gradient) -> str | None:
    """Say why the kernel can't compute gradients.

    Args:
        gradient: what is wanted.

    Returns:
        The first rule that is broken; None if none is.
    """
    return backward_fits.refusal(gradient, LEAST, WIDTH)


def launch(gradient: Gradient, config: Config | None = None) -> None:
    """Launch the kernel; not deterministic.

    Args:
        gradient: what is wanted, and where it goes; nothing that `refusal` refuses.
        config: how; by default what `config_for` chooses.

    Raises:
        ValueError: it is refused.
    """
    if reason := refusal(gradient):
        raise ValueError(reason)
    task = gradient.task
    config = config or config_for()
    powers, deltas = prepared(gradient, launching.ALIGNED)
    (batch, heads, rows, columns), (kv_heads, keys) = task.q.shape, task.k.shape[1:3]
    sums = torch.zeros(
        (batch, heads, rows, WIDTH), dtype=torch.float32, device=task.q.device
    )
    count = -(-keys // BLOCK_N) * batch * kv_heads
    if count:
        task.wrap(wide_kernel)[(count,)](
            launching.described(task.q, BLOCK_M, WIDTH),
            launching.described(task.k, BLOCK_N, WIDTH),
            launching.described(task.v, BLOCK_N, WIDTH),
            launching.described(gradient.do, BLOCK_M, WIDTH),
            launching.described(sums, BLOCK_M, WIDTH // 2),
            launching.described(gradient.dk, BLOCK_N, WIDTH),
            launching.described(gradient.dv, BLOCK_N, WIDTH),
            launching.lines_of(powers, BLOCK_M), launching.lines_of(deltas, BLOCK_M),
            batch * kv_heads, kv_heads, heads // kv_heads, rows, keys,
            task.scale * launching.LOG2E, task.scale,
            STAGES=config.stages,
            GROUP=backward_fits.heads_at_a_time(task, BLOCK_N),
            CAUSAL=task.right == 0, RAGGED=keys % BLOCK_N > 0,
            num_warps=4,
        )  # fmt: skip
    gradient.dq.copy_(sums[..., :columns])
