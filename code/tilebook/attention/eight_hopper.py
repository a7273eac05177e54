"""Attention in eight bits by the schedule of `overlapped` (Gluon).

A producer brings queries, keys and values; two groups of four warps have 64 queries
each. A group asks for a block's scores, and for the values of the block before, and
weighs the scores while those are summed. Barriers are those of `wgmma`. What is
different with eight bits is in `eight_wgmma`.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook.attention import configs, launching
from tilebook.attention.eight_operands import GROUP, Task
from tilebook.attention.eight_wgmma import (
    LOG2E,
    add,
    bring,
    come,
    factor_of,
    held,
    nothing,
    read,
    released,
    rounded,
    score,
    weigh,
    weigh_more,
)
from tilebook.attention.launching import WIDTHS, Config
from tilebook.attention.wgmma import (
    bring_queries,
    finish,
    let_go,
    matrix,
    place_of,
    ring_of,
    scaled,
    span_of,
    unseen,
    weights_first,
)
from tilebook.fp8.warps import TYPES
from tilebook.hopper.launching import BARRIERS
from tilebook.hopper.wgmma import barriers

CONFIGS = {
    64: (Config(64, 2, 128, 4),),
    128: (Config(64, 2, 128, 4), Config(64, 2, 128, 2)),
    256: (Config(64, 2, 128, 2, pieces=2),),
}
"""What to try on a card, by columns of a head; the first is what `config_for` takes."""
APART = 128
"""Columns of values up to which registers hold a block's sums beside all others."""


@gluon.jit
def produce(
    q_desc, k_desc, v_desc, q_places, k_ring, v_ring, q_arrived, bars,
    all_heads, heads, share, rows, keys,
    PARTS: gl.constexpr, STRIP: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Bring a tile's queries, then its blocks from the last on, as there is room."""
    BLOCK_M: gl.constexpr = PARTS * q_desc.block_type.shape[2]
    BLOCK_N: gl.constexpr = k_desc.block_type.shape[2]
    k_arrived, v_arrived, k_free, v_free = bars
    head, row = place_of(gl.program_id(0), all_heads, rows, BLOCK_M, STRIP, CAUSAL)
    batch, head = head // heads, head % heads
    bring_queries(q_desc, batch, head, row, q_arrived.index(0), q_places, 0, PARTS)
    _, _, end = span_of(row, BLOCK_M, rows, keys, 0, BLOCK_N, CAUSAL, False)
    head //= share
    at = (end - 1) * BLOCK_N
    bring(k_desc, [batch, head, at, 0], k_ring, k_arrived, k_free, 0)
    for count in range(1, end):
        at = (end - 1 - count) * BLOCK_N
        bring(k_desc, [batch, head, at, 0], k_ring, k_arrived, k_free, count)
        at += BLOCK_N
        bring(v_desc, [batch, head, 0, at], v_ring, v_arrived, v_free, count - 1)
    bring(v_desc, [batch, head, 0, 0], v_ring, v_arrived, v_free, end - 1)


@gluon.jit
def step(
    queries, k_ring, v_ring, bars, count, acc, words, most, sums, shrink, factor,
    APART: gl.constexpr,
):  # fmt: skip
    """Weigh a block while the values of the one before are summed."""
    k_arrived, v_arrived, k_free, v_free = bars
    scores = score(queries, k_ring, k_arrived, count)
    part = nothing(acc.shape[0], acc.shape[1]) if APART else acc
    weights = released(words)
    part = add(part, weights, v_ring, v_arrived, count - 1, APART)
    scores = warpgroup_mma_wait(1, deps=(scores,))
    let_go(k_free, count)
    most, sums, fresh, after = weigh_more(scores, factor, most, sums)
    weights_first(sums)
    part = warpgroup_mma_wait(0, deps=(part,))
    read(weights)
    let_go(v_free, count - 1)
    acc = scaled(acc, shrink) + part if APART else scaled(part, after)
    return acc, held(rounded(fresh, acc, k_ring.dtype)), most, sums, after


@gluon.jit
def consume(
    out_desc, lse, scale_q, scale_k, scale_v, q_places, k_ring, v_ring, places,
    q_arrived, bars,
    scale_qb, scale_qh, scale_qs, scale_kb, scale_kh, scale_ks,
    scale_vb, scale_vh, scale_ve, all_heads, heads, share, rows, keys, columns, scale,
    PART: gl.constexpr, PARTS: gl.constexpr, STRIP: gl.constexpr, GROUP: gl.constexpr,
    CAUSAL: gl.constexpr, RAGGED: gl.constexpr, SAME: gl.constexpr,
    APART: gl.constexpr,
):  # fmt: skip
    """Compute a part of the tile, and store it."""
    k_arrived, v_arrived, k_free, v_free = bars
    ROWS: gl.constexpr = q_places.shape[3]
    COLUMNS: gl.constexpr = v_ring.shape[3]
    BLOCK_M: gl.constexpr = PARTS * ROWS
    BLOCK_N: gl.constexpr = k_ring.shape[3]
    head, row = place_of(gl.program_id(0), all_heads, rows, BLOCK_M, STRIP, CAUSAL)
    _, _, last = span_of(row, BLOCK_M, rows, keys, 0, BLOCK_N, CAUSAL, False)
    batch, own = head // heads, head % heads
    factor = scale * gl.load(
        scale_q + batch * scale_qb + own * scale_qh + row // GROUP * scale_qs
    )
    own //= share
    scale_k += batch * scale_kb + own * scale_kh
    row += PART * ROWS
    _, _, end = span_of(row, ROWS, rows, keys, 0, BLOCK_N, CAUSAL, False)
    count = last - end
    for other in range(count):
        # Only the other group needs these.
        come(k_ring, k_arrived, other)
        let_go(k_free, other)
        come(v_ring, v_arrived, other)
        let_go(v_free, other)
    mbarrier.wait(q_arrived.index(0), 0)
    queries = matrix(q_places.index(PART))
    begun = score(queries, k_ring, k_arrived, count)
    scores = warpgroup_mma_wait(0, deps=(begun,))
    let_go(k_free, count)
    column = (end - 1) * BLOCK_N
    scores = unseen(scores, row, column, keys, 0, CAUSAL, RAGGED, False)
    each = factor_of(scale_k, end - 1, scale_ks, factor, BLOCK_N)
    most, sums, weights = weigh(scores, each)
    acc = nothing(ROWS, COLUMNS)
    # Of the sums before the first block, which are 0.
    shrink = most - most
    words = held(rounded(weights, acc, k_ring.dtype))
    after = each
    if not SAME:
        after = factor_of(scale_k, gl.maximum(end - 2, 0), scale_ks, factor, BLOCK_N)
    for done in range(1, end):
        each = after
        if not SAME:
            # Of the block after this one: a load takes a while.
            block = gl.maximum(end - 2 - done, 0)
            after = factor_of(scale_k, block, scale_ks, factor, BLOCK_N)
        acc, words, most, sums, shrink = step(
            queries, k_ring, v_ring, bars, count + done, acc, words, most, sums, shrink,
            each, APART,
        )  # fmt: skip
    count += end - 1
    weights = released(words)
    part = nothing(ROWS, COLUMNS) if APART else acc
    part = add(part, weights, v_ring, v_arrived, count, APART)
    part = warpgroup_mma_wait(0, deps=(part,))
    read(weights)
    let_go(v_free, count)
    acc = scaled(acc, shrink) + part if APART else part
    at = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, acc.type.layout))
    values = gl.load(
        scale_v + batch * scale_vb + own * scale_vh + at * scale_ve,
        mask=at < columns, other=0.0,
    )  # fmt: skip
    acc = acc * gl.expand_dims(values, 0)
    finish(acc, most, sums, out_desc, lse, places.index(PART), head, heads, row, rows)
    tma.store_wait(0)


@gluon.jit
def eight_kernel(
    q_desc, k_desc, v_desc, out_desc, lse, scale_q, scale_k, scale_v,
    scale_qb, scale_qh, scale_qs, scale_kb, scale_kh, scale_ks,
    scale_vb, scale_vh, scale_ve, all_heads, heads, share, rows, keys, columns, scale,
    PARTS: gl.constexpr, STAGES: gl.constexpr, STRIP: gl.constexpr,
    GROUP: gl.constexpr, CAUSAL: gl.constexpr, RAGGED: gl.constexpr,
    SAME: gl.constexpr, APART: gl.constexpr,
):  # fmt: skip
    q_places, places = ring_of(q_desc, PARTS), ring_of(out_desc, PARTS)
    k_ring, v_ring = ring_of(k_desc, STAGES), ring_of(v_desc, STAGES)
    q_arrived = barriers(1, 1)
    k_arrived, v_arrived = barriers(STAGES, 1), barriers(STAGES, 1)
    k_free, v_free = barriers(STAGES, PARTS), barriers(STAGES, PARTS)
    bars = (k_arrived, v_arrived, k_free, v_free)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, lse, scale_q, scale_k, scale_v, q_places, k_ring, v_ring,
                places, q_arrived, bars,
                scale_qb, scale_qh, scale_qs, scale_kb, scale_kh, scale_ks,
                scale_vb, scale_vh, scale_ve,
                all_heads, heads, share, rows, keys, columns, scale,
                0, PARTS, STRIP, GROUP, CAUSAL, RAGGED, SAME, APART,
            )),
            (consume, (
                out_desc, lse, scale_q, scale_k, scale_v, q_places, k_ring, v_ring,
                places, q_arrived, bars,
                scale_qb, scale_qh, scale_qs, scale_kb, scale_kh, scale_ks,
                scale_vb, scale_vh, scale_ve,
                all_heads, heads, share, rows, keys, columns, scale,
                1, PARTS, STRIP, GROUP, CAUSAL, RAGGED, SAME, APART,
            )),
            (produce, (
                q_desc, k_desc, v_desc, q_places, k_ring, v_ring, q_arrived, bars,
                all_heads, heads, share, rows, keys, PARTS, STRIP, CAUSAL,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def refusal(task: Task) -> str | None:
    """Say why the kernel can't compute something.

    Args:
        task: what, checked.

    Returns:
        The first rule that is broken; None if none is.
    """
    for name, count in (("q", task.q.shape[3]), ("v", task.v.shape[2])):
        if count % 16:
            return f"{name} must have a multiple of 16 features, got {count}"
    if task.q.shape[0] * task.q.shape[1] * task.q.shape[2] > launching.LARGEST:
        return f"there must be at most {launching.LARGEST} rows of queries"
    if task.k.shape[2] > launching.LARGEST:
        return f"there must be at most {launching.LARGEST} keys"
    for name in ("q", "k", "v", "out"):
        if reason := launching.unfit(getattr(task, name)):
            return f"{name} can't be described: {reason}"
    for name in ("scale_q", "scale_k", "scale_v"):
        x = getattr(task, name)
        sizes = zip(x.shape, x.stride(), strict=True)
        if sum((size - 1) * stride for size, stride in sizes) >= 2**31:
            return f"{name} must lie within 2^31 elements"
    return None


def widths(task: Task) -> tuple[int, int]:
    """Columns of queries and keys, and of values, as the kernel has them."""
    d, e = task.q.shape[3], task.v.shape[2]
    return tuple(next(n for n in WIDTHS if n >= count) for count in (d, e))


def shared_bytes(config: Config, width: int, values: int) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
        width: columns of queries and keys.
        values: columns of values.
    """
    rows = config.part * config.parts
    rings = config.stages * config.block_n * (width + values)
    return rows * width + rings + 2 * rows * values // config.pieces + BARRIERS


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel: the first that this process's GPU has room for.

    Args:
        task: what is computed.

    Raises:
        ValueError: there is room for none.
    """
    sides = widths(task)
    return configs.that_fits(
        CONFIGS[max(sides)], lambda each: shared_bytes(each, *sides)
    )


def described(x: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Make the copy engine's description of a tensor with four dimensions, as
    `launching.described` does.

    Args:
        x: the tensor.
        rows: of a tile.
        columns: of it.
    """
    block = [1, 1, rows, columns]
    layout = gl.NVMMASharedLayout.get_default_for(block, TYPES[x.dtype])
    # Where one element has any stride, it gets one that 16 bytes divide.
    sizes = zip(x.shape, x.stride(), strict=True)
    *apart, _ = [16 if size == 1 else stride for size, stride in sizes]
    return TensorDescriptor(x, [*x.shape], [*apart, 1], block, layout)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel, a program for each tile.

    Args:
        task: has queries and keys; nothing that `refusal` refuses.
        config: how, two groups; by default what `config_for` chooses.

    Raises:
        ValueError: it is refused.
    """
    if reason := refusal(task):
        raise ValueError(reason)
    config = config or config_for(task)
    width, values = widths(task)
    (batch, heads, rows, _), (kv_heads, keys) = task.q.shape, task.k.shape[1:3]
    count = -(-rows // (config.part * config.parts)) * batch * heads
    covered = task.causal and rows <= keys
    # Counted as if they had two bytes: half as many are in L2 as might be.
    same = launching.Task(
        task.q, task.k, task.k, task.out, task.lse, task.scale,
        right=0 if task.causal else None,
    )  # fmt: skip
    scales = (task.scale_q, task.scale_k, task.scale_v)
    task.wrap(eight_kernel)[(count,)](
        described(task.q, config.part, width),
        described(task.k, config.block_n, width),
        described(task.v, values, config.block_n),
        described(task.out, config.part, values // config.pieces),
        task.lse, *scales, *(n for x in scales for n in x.stride()),
        batch * heads, heads, heads // kv_heads, rows, keys, task.v.shape[2],
        task.scale * LOG2E.value,
        PARTS=config.parts, STAGES=config.stages, GROUP=GROUP,
        STRIP=launching.heads_at_a_time(same),
        CAUSAL=task.causal, RAGGED=keys % config.block_n > 0 and not covered,
        SAME=task.scale_k.shape[2] == 1 or task.scale_k.stride(2) == 0,
        APART=values <= APART, num_warps=4,
    )  # fmt: skip
