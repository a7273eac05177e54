"""Planted mistakes in the kernels of `hopper`: an order that shows each is found."""

import pytest
import torch

from tilebook import schedules, testing
from tilebook.hopper import (
    cooperative,
    folded,
    launching,
    pingpong,
    pipelined,
    wgmma,
    widths,
)
from tilebook.matmul.evidence import launches
from tilebook.matmul.operands import task_of

SEEDS = range(12)
Config = launching.Config
# Tiles so small that a program has several, of several chunks, in fewer slots.
CONFIGS = {
    pipelined: (Config(32, 32, 16, 3, 2, group=2), Config(32, 32, 16, 2, group=2)),
    cooperative: (Config(32, 32, 16, 2, 2, group=2), Config(32, 32, 16, 3, group=2)),
    folded: (Config(32, 32, 16, 2, 2, group=2), Config(32, 32, 16, 3, group=2)),
    pingpong: (Config(32, 32, 16, 3, group=2), Config(32, 32, 16, 2, group=2)),
    widths: (
        widths.Config(32, 32, 16, 16, 2, group=2),
        widths.Config(32, 32, 32, 16, 3, group=2),
    ),
}
SHAPES = ((72, 80, 40), (72, 80, 8))
MISTAKES = {
    # Barriers: which phase, whose arrival, how many, how many bytes.
    "the producer waits for the other phase": (
        wgmma, "((chunk // STAGES) & 1) ^ 1", "(chunk // STAGES) & 1"),
    "the producer never waits": (
        wgmma, "((chunk // STAGES) & 1) ^ 1)",
        "((chunk // STAGES) & 1) ^ 1, pred=False)"),
    "the producer looks at one phase only": (
        wgmma, "((chunk // STAGES) & 1) ^ 1", "1"),
    "groups wait for the other phase": (
        wgmma, "arrived.index(slot), (chunk // STAGES) & 1",
        "arrived.index(slot), ((chunk // STAGES) & 1) ^ 1"),
    "groups never wait": (
        wgmma,
        "    mbarrier.wait(arrived.index(slot), (chunk // STAGES) & 1)\n    a, b",
        "    a, b"),
    "a slot is never given back": (
        wgmma, "arrive(free.index((chunk + STAGES - 1) % STAGES), pred=freed)",
        "arrive(free.index((chunk + STAGES - 1) % STAGES), pred=False)"),
    "a slot is given back before the first product, too": (
        wgmma, "pred=freed)", "pred=True)"),
    "the last slot is never given back": (
        wgmma, "    mbarrier.arrive(free.index(chunk % STAGES))\n", ""),
    "the last slot is given back before its product is done": (
        wgmma,
        "    found = warpgroup_mma_wait(0, deps=(acc,))\n"
        "    mbarrier.arrive(free.index(chunk % STAGES))\n",
        "    mbarrier.arrive(free.index(chunk % STAGES))\n"
        "    found = warpgroup_mma_wait(0, deps=(acc,))\n"),
    "nobody waits for the product before": (
        wgmma, "warpgroup_mma_wait(1, deps=(acc,))",
        "warpgroup_mma_wait(2, deps=(acc,))"),
    "the slot in use is given back": (
        wgmma, "free.index((chunk + STAGES - 1) % STAGES)",
        "free.index(chunk % STAGES)"),
    "the next slot is given back": (
        wgmma, "(chunk + STAGES - 1) % STAGES", "(chunk + 1) % STAGES"),
    "sums are read early": (
        wgmma, "warpgroup_mma_wait(0, deps=(acc,))",
        "warpgroup_mma_wait(1, deps=(acc,))"),
    "bytes of one part": (
        wgmma, "PARTS * a_desc.block_type.nbytes + b", "a_desc.block_type.nbytes + b"),
    "bytes of no second width": (
        wgmma, "b_desc.block_type.nbytes * WIDTH // BLOCK_N",
        "b_desc.block_type.nbytes"),
    "too many bytes": (
        wgmma, "mbarrier.expect(here, NBYTES)", "mbarrier.expect(here, NBYTES + 16)"),
    "no bytes": (wgmma, "mbarrier.expect(here, NBYTES)", "mbarrier.arrive(here)"),
    "a barrier for one arrival more": (
        wgmma, "count=ARRIVALS)", "count=ARRIVALS + 1)"),
    # Slots.
    "all parts in one slot": (
        wgmma, "a_ring.index(PARTS * slot + part)", "a_ring.index(PARTS * slot)"),
    "the slot before": (
        wgmma, "a, b = a_ring.index(PARTS * slot + PART), b_ring.index(slot)",
        "a, b = a_ring.index(PARTS * slot + PART), "
        "b_ring.index((chunk + STAGES - 1) % STAGES)"),
    "the other part": (
        wgmma, "a_ring.index(PARTS * slot + PART)",
        "a_ring.index(PARTS * slot + PARTS - 1 - PART)"),
    "the producer begins with another's tile": (
        wgmma, "    chunk = 0\n    for tile in range(gl.program_id(0), tiles",
        "    chunk = 0\n    for tile in range(1 - gl.program_id(0), tiles"),
    "all parts bring the same rows": (wgmma, "row + part * ROWS", "row"),
    "a chunk too few is brought": (
        wgmma, "gl.maximum(gl.cdiv(k, BLOCK_K), LEAST)",
        "gl.maximum(gl.cdiv(k, BLOCK_K) - 1, LEAST)"),
    "a chunk too many is brought": (
        wgmma, "gl.maximum(gl.cdiv(k, BLOCK_K), LEAST)",
        "gl.maximum(gl.cdiv(k, BLOCK_K) + 1, LEAST)"),
    "the ragged chunk is not brought": (
        wgmma, "gl.maximum(gl.cdiv(k, BLOCK_K), LEAST)",
        "gl.maximum(k // BLOCK_K, LEAST)"),
    # Stores.
    "no fence": (wgmma, "    fence_async_shared()\n", ""),
    "the fence before the write": (
        wgmma, "    place.store(tile)\n    fence_async_shared()\n",
        "    fence_async_shared()\n    place.store(tile)\n"),
    "the place is written while it is stored": (
        wgmma, "    tma.store_wait(0)\n    place", "    place"),
    "the place is written while the last store is under way": (
        wgmma, "    tma.store_wait(0)\n    place", "    tma.store_wait(1)\n    place"),
    "halves change places": (
        wgmma, "put_all(right, out_desc, row, column + COLUMNS // 2, place)",
        "put_all(right, out_desc, row, column, place)"),
    # One kernel's own.
    "the slot before is filled while it is read": (
        pipelined, "warpgroup_mma_wait(1, deps=(acc,))",
        "warpgroup_mma_wait(2, deps=(acc,))"),
    "a chunk too far ahead": (
        pipelined, "arrived, chunk + STAGES - 1,", "arrived, chunk + STAGES,"),
    "a chunk too many at first": (
        pipelined, "gl.static_range(STAGES - 1)", "gl.static_range(STAGES)"),
    "the last tile's chunks are asked for once more": (
        pipelined, "tile < tiles", "tile < tiles + gl.num_programs(0)"),
    "the chunks of a tile are asked for in another's place": (
        pipelined, "place_of(there,", "place_of(0 * there,"),
    "both groups store from one place": (
        cooperative, "place = places.index(PART)", "place = places.index(0)"),
    "a group walks another way": (
        cooperative, "place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP)",
        "place_of(tile, m, n, BLOCK_M, BLOCK_N, GROUP - 1)"),
    "both groups store the same rows": (cooperative, "row += PART * HALF", "row += 0"),
    "slots wait for one of two groups": (
        cooperative, "barriers(STAGES, 1), barriers(STAGES, 2)",
        "barriers(STAGES, 1), barriers(STAGES, 1)"),
    "the first product adds a slot given back": (
        cooperative, "settle(acc, free, chunk, step > 0, STAGES)",
        "settle(acc, free, chunk, True, STAGES)"),
    "nobody waits for the last store": (cooperative, "    tma.store_wait(0)\n", ""),
    "one chunk where there are two pieces": (
        folded, "2, PIECES, A_TURNED", "2, 1, A_TURNED"),
    "the last tile is never stored": (
        folded, "    put(left, out_desc, last_row, last_column, place)\n    if PIECES",
        "    if PIECES"),
    "the last tile's second piece is never stored": (
        folded,
        "    if PIECES == 2:\n"
        "        put(right, out_desc, last_row, last_column + BLOCK_N // 2, place)\n"
        "    tma", "    tma"),
    "a tile's place is known before the last is stored": (
        folded,
        "        put(left, out_desc, last_row, last_column, place)\n"
        "        chunk",
        "        put(left, out_desc, last_row - HALF, last_column, place)\n"
        "        chunk"),
    "the first chunk of two is not counted": (
        folded, "        chunk += 1\n        if PIECES", "        if PIECES"),
    "no turns": (
        pingpong,
        "        mbarrier.wait(handed.index(1 - WHICH), (turn & 1) ^ (1 - WHICH))\n",
        ""),
    "turns the wrong way round": (
        pingpong, "(turn & 1) ^ (1 - WHICH)", "(turn & 1) ^ WHICH"),
    "turns of one parity": (pingpong, "(turn & 1) ^ (1 - WHICH)", "1 - WHICH"),
    "a turn is not handed on": (
        pingpong, "        mbarrier.arrive(handed.index(WHICH))\n", ""),
    "a turn is handed on to oneself": (
        pingpong, "arrive(handed.index(WHICH))", "arrive(handed.index(1 - WHICH))"),
    "a turn is handed on at its beginning": (
        pingpong, "        chunk = (2 * turn + WHICH) * steps\n",
        "        chunk = (2 * turn + WHICH) * steps\n"
        "        mbarrier.arrive(handed.index(WHICH))\n"),
    "the other group's chunks are not counted": (
        pingpong, "(2 * turn + WHICH) * steps", "(turn + WHICH) * steps"),
    "a tile is left out": (
        pingpong, "gl.cdiv(tiles - first, 2 * each)", "(tiles - first) // (2 * each)"),
    "the other width's product is not waited for": (
        widths, "warpgroup_mma_wait(2, deps=(acc, more))",
        "warpgroup_mma_wait(3, deps=(acc, more))"),
    "the slot in use is given back, of two widths": (
        widths, "before = (chunk + STAGES - 1) % STAGES", "before = chunk % STAGES"),
    "the second width begins where the first does": (
        widths, "put(rest, out_desc, row, column + BLOCK_N, place)",
        "put(rest, out_desc, row, column, place)"),
    "sums of one width are waited for": (
        widths, "sums, rest = warpgroup_mma_wait(0, deps=(acc, more))",
        "sums, rest = warpgroup_mma_wait(1, deps=(acc, more))"),
}  # fmt: skip


def product(rung, config, shape, seed):
    """A product of small whole numbers, exact in any order, and what it should be."""
    m, n, k = shape
    luck = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(-2, 3, sides, generator=luck).to(torch.bfloat16)
        for sides in ((m, k), (k, n))
    )
    task, _ = task_of(a, b)
    task.out.fill_(float("nan"))
    (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
    schedules.run(found.kernel, (2,), *found.args, **found.meta, seed=seed)
    return task.out.double(), a.double() @ b.double()


def rungs_of(module):
    return (module,) if module in CONFIGS else tuple(CONFIGS)


def look(module, seeds=SEEDS):
    """The first sign of a mistake in a module, and the runs it took."""
    runs = 0
    for seed in seeds:
        for rung in rungs_of(module):
            for config in CONFIGS[rung]:
                for shape in SHAPES:
                    runs += 1
                    try:
                        out, expected = product(rung, config, shape, seed)
                    except schedules.ScheduleError as error:
                        return type(error).__name__, runs, str(error)
                    if not torch.equal(out, expected):
                        return "wrong", runs, ""
    return None, runs, ""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_found(mistake):
    module, old, new = MISTAKES[mistake]
    with testing.mutated_module(module, old, new):
        found, *_ = look(module)
    assert found


@pytest.mark.parametrize("rung", CONFIGS, ids=lambda rung: rung.__name__)
def test_without_a_mistake_nothing_is_found(rung):
    assert look(rung, range(3))[0] is None
