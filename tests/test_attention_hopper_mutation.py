"""Planted mistakes in attention's kernels for Hopper: each is found in some order."""

import pytest
import torch

from tilebook import schedules, testing
from tilebook.attention import (
    cooperative,
    described,
    folded,
    folding,
    launching,
    overlapped,
    telling,
    wgmma,
)
from tilebook.attention.launching import Config, Task
from tilebook.matmul.evidence import launches

SEEDS = range(8)
# Tiles so small that a program has several, of several blocks, in fewer places.
CONFIGS = {
    cooperative: (Config(16, 2, 16, 2), Config(16, 3, 32, 2, 1, 2)),
    overlapped: (Config(16, 2, 16, 2), Config(16, 3, 32, 2, 1, 2)),
    folded: (
        *(
            Config(16, 2, 16, 2, 2),
            Config(16, 3, 32, 2, 1, 2, halved=True),
            Config(16, 2, 16, 3),
        ),
        Config(16, 2, 32, 3, 2, halved=True, placed=True),
    ),
    described: (described.Config(32, 16, 4, 2),),
}
# Heads, heads of keys, queries, keys; right and left.
CASES = (
    *((4, 2, 70, 70, 0, None), (2, 1, 40, 57, None, None)),
    *((2, 2, 70, 75, 0, 20), (4, 2, 70, 60, 0, None), (6, 1, 40, 12, 0, None)),
)
MISTAKES = {
    # Barriers: which phase, whose arrival, how many, how many bytes.
    "the producer waits for the other phase": (
        wgmma, "((count // STAGES) & 1) ^ 1)", "(count // STAGES) & 1)"),
    "the producer never waits": (
        wgmma, "((count // STAGES) & 1) ^ 1)", "((count // STAGES) & 1) ^ 1, False)"),
    "the producer looks at one phase only": (
        wgmma, "((count // STAGES) & 1) ^ 1)", "1)"),
    "groups wait for the other phase": (
        wgmma, "(count // STAGES) & 1, pred=there",
        "~(count // STAGES) & 1, pred=there"),
    "groups never wait": (wgmma, "& 1, pred=there", "& 1, pred=False"),
    "no bytes": (
        wgmma, "mbarrier.expect(arrived.index(at), desc.block_type.nbytes)",
        "mbarrier.arrive(arrived.index(at))"),
    "bytes of one part": (
        wgmma, "PARTS * q_desc.block_type.nbytes", "q_desc.block_type.nbytes"),
    "nothing is let go": (
        wgmma, "free.shape[0]), pred=there", "free.shape[0]), pred=False"),
    "the next place is let go": (
        wgmma, "free.index(count % free", "free.index((count + 1) % free"),
    "skipped blocks are not waited for": (
        wgmma, "        come(ring, k_arrived, count + more, 0)\n", ""),
    "skipped values are not let go": (
        wgmma, "        let_go(v_free, count + more)\n", ""),
    "nothing is skipped": (wgmma, "in range(blocks):", "in range(0):"),
    "queries are not waited for": (
        overlapped, "    mbarrier.wait(q_arrived.index(0), 0)\n", ""),
    "keys in the values' place": (
        wgmma, "keys = come(ring, k_arrived, count, 0",
        "keys = come(ring, k_arrived, count, 1"),
    "values of the block before": (
        wgmma, "come(ring, v_arrived, count, 1)\n    return",
        "come(ring, v_arrived, count - 1, 1)\n    return"),
    "all parts have the same queries": (
        cooperative, "q_places.index(PART)", "q_places.index(0)"),
    "scores are read early": (
        cooperative, "warpgroup_mma_wait(0, deps=(scores,))",
        "warpgroup_mma_wait(1, deps=(scores,))"),
    "keys are let go before they are multiplied": (
        overlapped,
        "    scores = warpgroup_mma_wait(1, deps=(scores,))\n"
        "    let_go(k_free, count)\n",
        "    let_go(k_free, count)\n"
        "    scores = warpgroup_mma_wait(1, deps=(scores,))\n"),
    "keys come after the values of their block": (
        wgmma, "ring, v_arrived, v_free, count + done - 1, 1)",
        "ring, v_arrived, v_free, count + done, 1)"),
    "sums are read early": (
        overlapped,
        "read until then.\n    acc, _ = warpgroup_mma_wait(0",
        "read until then.\n    acc, _ = warpgroup_mma_wait(1"),
    "values are let go before they are added": (
        overlapped,
        "    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))\n"
        "    let_go(v_free, count - 1)\n",
        "    let_go(v_free, count - 1)\n"
        "    acc, _ = warpgroup_mma_wait(0, deps=(acc, weights))\n"),
    "values of this block before they are waited for": (
        overlapped, "add(acc, weights, ring, v_arrived, count - 1)",
        "add(acc, weights, ring, v_arrived, count)"),
    "the last values are left out": (
        overlapped, "    count += end - begin - 1\n", "    count += end - begin - 2\n"),
    # Softmax.
    "sums are not scaled": (overlapped, "    acc = scaled(acc, shrink)\n", ""),
    "sums of weights are not scaled": (
        wgmma, "scaled(sums, shrink) + partial", "sums + partial"),
    "the old maximum": (
        wgmma, "gl.exp2(scores * scale - gl.expand_dims(now, 1))",
        "gl.exp2(scores * scale - gl.expand_dims(most, 1))"),
    "shrunk the wrong way": (wgmma, "exp2(most - now)", "exp2(now - most)"),
    "the first block's maximum is forgotten": (
        wgmma, "return now, sums, weights, shrink",
        "return most, sums, weights, shrink"),
    "the logarithm of another base": (
        wgmma, "(most + gl.log2(total)) * LN2", "most + gl.log2(total)"),
    "logarithms past the last row": (wgmma, ", mask=at < rows)", ")"),
    "logarithms of the first part": (
        wgmma, "head * rows + at", "head * rows + at - row"),
    # Masks and blocks.
    "a query doesn't see its own key": (
        wgmma, "gl.where(columns <= rows,", "gl.where(columns < rows,"),
    "what isn't there counts": (
        wgmma, "gl.where(columns < keys,", "gl.where(columns <= keys,"),
    "a window of one key more": (
        wgmma, "columns + left >= rows", "columns + left + 1 >= rows"),
    "a block of later keys": (
        wgmma, "gl.minimum(row + ROWS, rows), BLOCK_N)", "rows, BLOCK_N)"),
    "the diagonal's block is left out": (
        wgmma, "gl.minimum(row + ROWS, rows), BLOCK_N)",
        "gl.minimum(row + 1, rows), BLOCK_N)"),
    "a block too late": (
        wgmma, "gl.maximum(row - left, 0) // BLOCK_N, end",
        "gl.cdiv(gl.maximum(row - left, 0), BLOCK_N), end"),
    "blocks at the window's edge are not masked": (
        wgmma, "whole = gl.cdiv(gl.maximum(row + ROWS - 1 - left, 0), BLOCK_N)",
        "whole = gl.maximum(row - left, 0) // BLOCK_N"),
    "another head's keys": (cooperative, "    head //= share\n", ""),
    "another head's result": (
        wgmma, "head // heads, head % heads, row, 0", "head // heads, 0, row, 0"),
    # Stores.
    "no fence": (wgmma, "        fence_async_shared()\n", ""),
    "the place is written while it is stored": (
        wgmma, "        tma.store_wait(0)\n        matrix", "        matrix"),
    "halves change places": (
        wgmma, "put(right, out_desc, batch, head, row, column + COLUMNS // 2",
        "put(right, out_desc, batch, head, row, column"),
    # Tiles that follow one another.
    "queries are never given back": (
        folded, "        mbarrier.arrive(q_free.index(turn % TURNS))\n", ""),
    "queries are given back early": (
        folded, "        acc, weights, most, sums = steps(",
        "        mbarrier.arrive(q_free.index(turn % TURNS))\n"
        "        acc, weights, most, sums = steps("),
    "the next queries are not waited for": (
        folded, "            mbarrier.wait(q_arrived.index(turn % TURNS), "
        "(turn // TURNS) & 1)\n", "            pass\n"),
    "the last tile's queries": (
        folded,
        "        queries = matrix(q_places.index(PARTS * (turn % TURNS) + PART))\n"
        "        scores = score(", "        scores = score("),
    "the last tile's blocks in the next": (
        folded, "first = count + 1 + last - end", "first = count + last - end"),
    "the next tile's maximum": (
        folded, "finish(acc, most, sums,", "finish(acc, next_most, sums,"),
    "the next tile's place": (
        folded, "place, head, heads, row, rows)",
        "place, next_head, heads, row, rows)"),
    "a tile that isn't there is waited for": (
        folded, "queries, ring, k_arrived, first, FIRST, there)",
        "queries, ring, k_arrived, first, FIRST, True)"),
    "nobody is told": (
        telling, "    mbarrier.arrive(told_arrived.index(turn & 1))\n", ""),
    "who was told says nothing": (
        telling, "    mbarrier.arrive(told_free.index(turn & 1))\n", ""),
    "told before it is known": (
        telling,
        "    mbarrier.wait(told_arrived.index(turn & 1), (turn >> 1) & 1)\n", ""),
    "told where the tile before is": (
        telling, "write(told.index(at + 2), row)", "write(told.index(at + 1), row)"),
    "half of what is seen, too": (
        folding, "config.parts == 2 and 2 * config.part", "2 * config.part"),
    "half where keys end first": (
        folding, " and task.q.shape[2] <= task.k.shape[2]", ""),
    "half for every group": (folded, "HALVED and PART == 0", "HALVED"),
    "the other half": (wgmma, "keys.slice(0, KEYS, 0)", "keys.slice(KEYS, KEYS, 0)"),
    "the other half's weights": (
        wgmma, "gl.join(weights, nothing)",
        "gl.join(nothing, weights)"),
    "the counter counts from 1": (
        folded, "tile = each + gl.atomic_add(counter, 1)",
        "tile = each + 1 + gl.atomic_add(counter, 1)"),
    "the counter is not set back": (
        folded, "gl.store(counter, 0)", "gl.store(counter, tile)"),
    # In plain Triton.
    "a block on the diagonal is not masked": (
        described, "(row + 1) // BLOCK_N", "(row + BLOCK_N) // BLOCK_N"),
    "rows without a key leave no number": (
        described, 'tl.where(now == -float("inf"), 0.0, now)', "now"),
    "sums of values are not scaled": (
        described, "        acc *= shrink[:, None]\n", ""),
}  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Heads of 16 columns, as kernels for a card have no need of."""
    monkeypatch.setattr(launching, "WIDTHS", (16,))


def right(rung, config, case, seed):
    """Whether attention over small numbers is what it should be, to a few digits."""
    heads, kv, rows, keys, after, before = case
    luck = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(1, count, length, 16, generator=luck).half()
        for count, length in ((heads, rows), (kv, keys), (kv, keys))
    )
    out, lse = q.new_full(q.shape, torch.nan), torch.full(q.shape[:3], torch.nan)
    task = Task(q, k, v, out, lse, 0.5, before, after)
    if rung is described:
        described.launch(task, config)
    else:
        (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
        programs = 2 if rung is folded else found.grid[0]
        schedules.run(found.kernel, (programs,), *found.args, **found.meta, seed=seed)
        if rung is folded and found.args[-1].item():
            return False
    i, j = torch.arange(rows)[:, None], torch.arange(keys)
    seen = (j <= i) | (after is None)
    seen &= (j >= i - before) if before is not None else True
    keys, values = (x.repeat_interleave(heads // kv, 1).double() for x in (k, v))
    scores = (q.double() @ keys.mT * 0.5).masked_fill(~seen, -torch.inf)
    close = torch.allclose(out.double(), scores.softmax(-1) @ values, 0, 4e-3)
    return close and torch.allclose(lse.double(), scores.logsumexp(-1), 0, 1e-4)


def look(module, seeds=SEEDS):
    """The first sign of a mistake in a module."""
    for seed in seeds:
        for rung in (module,) if module in CONFIGS else tuple(CONFIGS)[:3]:
            for config in CONFIGS[rung]:
                for case in CASES:
                    try:
                        if not right(rung, config, case, seed):
                            return "wrong"
                    except (schedules.ScheduleError, IndexError) as error:
                        return type(error).__name__
    return None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_found(mistake):
    module, old, new = MISTAKES[mistake]
    with testing.mutated_module(module, old, new):
        assert look(module)


@pytest.mark.parametrize("rung", CONFIGS, ids=lambda rung: rung.__name__)
def test_without_a_mistake_nothing_is_found(rung):
    assert look(rung, range(2)) is None
