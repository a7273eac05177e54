"""What the kernel for eight bits on Hopper computes of a block (Gluon).

As `wgmma` has it, but for three things: products take terms by 32, a block's values are
summed from zero and added to the others with the factor that those shrink by, and
weights are held under other numbers before a product takes them; see `eight_operands`.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma

from tilebook._gluon import async_load
from tilebook.attention import eight
from tilebook.attention.wgmma import matrix, partial_sums, scaled

LIFT = gl.constexpr(eight.LIFT.value)
GROUP = gl.constexpr(eight.GROUP)
LOG2E = gl.constexpr(eight.LOG2E.value)


@gluon.jit
def nothing(ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    """Zeros where a product of eight bits leaves its sums."""
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 32]
    )
    return gl.zeros([ROWS, COLUMNS], gl.float32, layout)


@gluon.jit
def bring(desc, where, ring, arrived, free, count):
    """Ask the copy engine for a tile, once there is room."""
    STAGES: gl.constexpr = ring.shape[0]
    at = count % STAGES
    mbarrier.wait(free.index(at), ((count // STAGES) & 1) ^ 1)
    mbarrier.expect(arrived.index(at), desc.block_type.nbytes)
    async_load(desc, where, arrived.index(at), ring.index(at))


@gluon.jit
def come(ring, arrived, count):
    """Wait for a tile; its matrix."""
    STAGES: gl.constexpr = ring.shape[0]
    at = count % STAGES
    mbarrier.wait(arrived.index(at), (count // STAGES) & 1)
    return matrix(ring.index(at))


@gluon.jit
def score(queries, k_ring, k_arrived, count):
    """Begin to multiply queries and a block's keys."""
    keys = come(k_ring, k_arrived, count)
    return warpgroup_mma(
        queries, keys.permute((1, 0)), nothing(queries.shape[0], keys.shape[0]),
        use_acc=False, is_async=True,
    )  # fmt: skip


@gluon.jit
def add(part, weights, v_ring, v_arrived, count, APART: gl.constexpr):
    """Begin to sum a block's values by weight: from zero, or beside the others."""
    values = come(v_ring, v_arrived, count)
    return warpgroup_mma(
        weights, values.permute((1, 0)), part, use_acc=not APART, is_async=True
    )


@gluon.jit
def weigh(scores, factor):
    """A tile's first block, as `wgmma.weigh`: weights and sums are lifted, and `most`
    is what was subtracted."""
    most = gl.max(scores, 1) * factor - LIFT
    weights = gl.exp2(scores * factor - gl.expand_dims(most, 1))
    return most, partial_sums(weights), weights


@gluon.jit
def weigh_more(scores, factor, most, sums):
    """Another block: as `weigh`, and by what everything before has to shrink."""
    now = gl.maximum(most, gl.max(scores, 1) * factor - LIFT)
    shrink = gl.exp2(most - now)
    weights = gl.exp2(scores * factor - gl.expand_dims(now, 1))
    sums = scaled(sums, shrink) + partial_sums(weights)
    return now, sums, weights, shrink


WORDS = 16
"""Registers of a thread that hold its weights, four to each: 64 queries by 128 keys."""
READ = gl.constexpr(
    "/* read */ { .reg .pred p; .reg .b32 all; mov.b32 all, 0; "
    + " ".join(f"or.b32 all, all, ${WORDS + i};" for i in range(WORDS))
    + " setp.lt.s32 p, all, 0; @p nanosleep.u32 0; }"
)
WEIGHTS = gl.constexpr(4 * WORDS)
CONSTRAINTS = gl.constexpr(",".join(["=r"] * WORDS + ["r"] * WORDS))


@gluon.jit
def read(weights):
    """Read weights once more, after the wait for the product that took them.

    ptxas doesn't know until when a product reads registers, and gives them to others.
    A wait takes 16 bits and more in its `deps`, so here a thread would sleep if one of
    its weights were below 0, which none is.
    """
    # Of fewer weights there are fewer registers, and nobody compiles that for a card.
    gl.inline_asm_elementwise(
        READ, CONSTRAINTS, [weights], dtype=gl.int8, is_pure=False, pack=WEIGHTS
    )


@gluon.jit
def held(weights):
    """Weights as they go from one turn of a loop to the next: four to the first of four
    registers. The others are never written, and so ptxas has none for them."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $4;", "=r,=r,=r,=r,r", [weights], dtype=gl.int32, is_pure=True,
        pack=4,
    )  # fmt: skip


@gluon.jit
def released(words):
    """What `held` held."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;",
        "=r,r,r,r,r",
        [words],
        dtype=gl.float8e4nv,
        is_pure=True,
        pack=4,
    )


@gluon.jit
def rounded(weights, like, DTYPE: gl.constexpr):
    """Round weights, and hold them as a product takes them: in the same threads, under
    the numbers that their values have."""
    ROWS: gl.constexpr = weights.shape[0]
    KEYS: gl.constexpr = weights.shape[1]
    layout: gl.constexpr = gl.DotOperandLayout(0, like.type.layout, k_width=4)
    found = weights.to(DTYPE).reshape([ROWS, KEYS // 16, 2, 4, 2])
    found = found.permute((0, 1, 3, 2, 4)).reshape([ROWS, KEYS])
    found = gl.convert_layout(found, layout)
    # Four to a register, now, as `hopper.wgmma.packed` has two.
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [found], dtype=found.dtype, is_pure=True, pack=4
    )


@gluon.jit
def factor_of(scale_ptr, block, stride, factor, BLOCK_N: gl.constexpr):
    """What makes logits of a block's scores, to the base of 2."""
    return factor * gl.load(scale_ptr + block * BLOCK_N // GROUP * stride)
