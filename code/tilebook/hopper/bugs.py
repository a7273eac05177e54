"""Planted bugs of who waits for whom: a hang, and a slot given away too early."""

import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook import schedules, testing
from tilebook.hopper.launching import describe
from tilebook.hopper.wgmma import (
    barriers,
    begin,
    place_of,
    produce,
    put,
    ring_of,
    settle,
    total,
)
from tilebook.parallel.bugs import Bug, Case, Launch, Tool

BLOCK_M, BLOCK_N, BLOCK_K, STAGES = 64, 32, 16, 2
PROGRAMS = 1
SEEDS = range(16)
"""Orders that the tool tries."""


@gluon.jit
def kept(
    out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = b_ring.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
    )
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout)
        acc = warpgroup_mma_init(acc)
        for step in range(gl.cdiv(k, BLOCK_K)):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0,
                0, 1, False, False,
            )  # fmt: skip
            acc = settle(acc, free, chunk, step > 0, STAGES)
            chunk += 1
        sums = total(acc, free, chunk - 1, STAGES).to(out_desc.dtype)
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, 1)
        put(sums, out_desc, row, column, place)
    tma.store_wait(0)


@gluon.jit
def restarted(
    out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = b_ring.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
    )
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        chunk = 0
        acc = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout)
        acc = warpgroup_mma_init(acc)
        for step in range(gl.cdiv(k, BLOCK_K)):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0,
                0, 1, False, False,
            )  # fmt: skip
            acc = settle(acc, free, chunk, step > 0, STAGES)
            chunk += 1
        sums = total(acc, free, chunk - 1, STAGES).to(out_desc.dtype)
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, 1)
        put(sums, out_desc, row, column, place)
    tma.store_wait(0)


@gluon.jit
def hasty(
    out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = b_ring.shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
    )
    tiles = gl.cdiv(m, BLOCK_M) * gl.cdiv(n, BLOCK_N)
    chunk = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout)
        acc = warpgroup_mma_init(acc)
        for step in range(gl.cdiv(k, BLOCK_K)):
            acc = begin(
                acc, a_ring, b_ring, arrived, chunk, step > 0,
                0, 1, False, False,
            )  # fmt: skip
            acc = warpgroup_mma_init(warpgroup_mma_wait(1, deps=(acc,)))
            mbarrier.arrive(free.index(chunk % STAGES))
            chunk += 1
        sums = warpgroup_mma_wait(0, deps=(acc,)).to(out_desc.dtype)
        row, column = place_of(tile, m, n, BLOCK_M, BLOCK_N, 1)
        put(sums, out_desc, row, column, place)
    tma.store_wait(0)


@gluon.jit
def consume(
    out_desc, a_ring, b_ring, place, arrived, free, m, n, k, HOW: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
):  # fmt: skip
    if HOW == "kept":
        kept(
            out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
            BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
    elif HOW == "restarted":
        restarted(
            out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
            BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
    else:
        hasty(
            out_desc, a_ring, b_ring, place, arrived, free, m, n, k,
            BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip


@gluon.jit
def product_kernel(
    a_desc, b_desc, out_desc, m, n, k, HOW: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    a_ring, b_ring = ring_of(a_desc, STAGES), ring_of(b_desc, STAGES)
    place = ring_of(out_desc, 1).index(0)
    arrived, free = barriers(STAGES, 1), barriers(STAGES, 1)
    gl.warp_specialize(
        [
            (consume, (
                out_desc, a_ring, b_ring, place, arrived, free, m, n, k, HOW,
                BLOCK_M, BLOCK_N, BLOCK_K,
            )),
            (produce, (
                a_desc, b_desc, b_desc, a_ring, b_ring, b_ring, arrived, free, None,
                m, n, k, BLOCK_M, BLOCK_N, 0, BLOCK_K, 1, 1, False, False, 1,
            )),
        ],
        [1],
        [24],
    )  # fmt: skip


def described(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> tuple[Any, ...]:
    """Describe a product's matrices in this module's tiles.

    Args:
        a: (m, k) in bfloat16, rows a multiple of 16 bytes apart.
        b: (k, n), likewise.
        out: (m, n), likewise.

    Returns:
        Three descriptors, and m, n and k.
    """
    return (
        describe(a, BLOCK_M, BLOCK_K, False),
        describe(b, BLOCK_K, BLOCK_N, False),
        describe(out, BLOCK_M, BLOCK_N, False),
        *(*out.shape, a.shape[1]),
    )


def _launch(a: torch.Tensor, b: torch.Tensor, seed: int = 0) -> Launch:
    a, b = a.cpu(), b.cpu()
    out = a.new_full((a.shape[0], b.shape[1]), float("nan"))
    meta = {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K}
    meta |= {"STAGES": STAGES, "seed": seed}
    return Launch((PROGRAMS,), described(a, b, out), meta, out)


@dataclass(frozen=True)
class Scheduled(Case):
    """A kernel whose partitions are run one after another, on the CPU.

    Args:
        consume: the partition that multiplies.
    """

    consume: Any = field(kw_only=True)

    def run(self, *inputs: Any) -> torch.Tensor:
        """Run in one of the possible orders, and return the answer."""
        plan = self.launch(*inputs)
        how = self.consume.fn.__name__
        schedules.run(self.kernel, plan.grid, *plan.args, how, **plan.meta)
        return plan.out

    def source(self) -> str:
        """The partition's source."""
        return textwrap.dedent(inspect.getsource(self.consume.fn))


def _tried(bug: Bug, case: Case) -> str | None:
    """What schedules.run() says of the first order that it has something against."""
    a, b, _ = bug.inputs()
    wrong, first = [], None
    for seed in SEEDS:
        try:
            out = case.run(a, b, seed)
        except schedules.ScheduleError as error:
            return f"with seed {seed}, {error}"
        try:
            testing.assert_close(out, bug.truth(a, b, seed).cpu(), length=bug.length)
        except AssertionError as error:
            wrong.append(seed)
            # Its guess is about masks, of which there are none here.
            first = first or str(error).partition("\n  why")[0]
    if first is None:
        return None
    return (
        f"{len(wrong)} of {len(SEEDS)} orders are wrong; with seed {wrong[0]}\n{first}"
    )


ORDERS = Tool("other orders, schedules.run(seed=...)", _tried)


def _operands(m: int, n: int, k: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Zeros and ones of both signs, whose sums are exact in bfloat16; and a seed."""
    luck = torch.Generator().manual_seed(20261127)
    a, b = (
        torch.randint(-1, 2, shape, generator=luck).bfloat16()
        for shape in ((m, k), (k, n))
    )
    return a, b, seed


def _expected(a: torch.Tensor, b: torch.Tensor, seed: int) -> torch.Tensor:
    return a @ b


MENDED = Scheduled(product_kernel, _launch, consume=kept)

RESTARTED = Bug(
    name="restarted-count",
    title="A count that starts again",
    symptom=(
        "Right for k = 64, 128, 256, for every k that was tried. With k = 48 the "
        "launch doesn't return, and neither does anything after it."
    ),
    source=(
        "Chunks counted by the loop along k, where the ring goes on from tile to "
        "tile: the form in which a kernel for one tile becomes a persistent one."
    ),
    tool=ORDERS,
    wrong=Scheduled(product_kernel, _launch, consume=restarted),
    mended=MENDED,
    expected=_expected,
    friendly=lambda: _operands(2 * BLOCK_M, BLOCK_N, 4 * BLOCK_K, 0),
    inputs=lambda: _operands(2 * BLOCK_M, BLOCK_N, 3 * BLOCK_K, 0),
    length=3 * BLOCK_K,
)

HASTY = Bug(
    name="freed-early",
    title="A slot that is still being read",
    symptom=(
        "Right, in every test. After a day of training one loss is NaN, or a little "
        "off, and with the same inputs it isn't again."
    ),
    source=(
        "A product that has been started taken for one that is done: wgmma reads "
        "shared memory until it has been waited for."
    ),
    tool=ORDERS,
    wrong=Scheduled(product_kernel, _launch, consume=hasty),
    mended=MENDED,
    expected=_expected,
    # As many chunks as slots: none is used twice.
    friendly=lambda: _operands(BLOCK_M, BLOCK_N, STAGES * BLOCK_K, 0),
    inputs=lambda: _operands(BLOCK_M, BLOCK_N, 8 * BLOCK_K, 3),
    length=8 * BLOCK_K,
)

GALLERY: Mapping[str, Bug] = MappingProxyType(
    {bug.name: bug for bug in (RESTARTED, HASTY)}
)
"""The chapter's bugs by name."""
