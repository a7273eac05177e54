"""The table beside a stream, and what registers leave room for."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.memory import flight, table

LENGTHS = (0, 1, 1023, 1024, 5000)


@pytest.mark.sanitize
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("hints", [False, True])
def test_each_tile_gets_its_own(n, hints, device):
    x = testing.guard(torch.randn(n, device=device)).tensor
    tiles = testing.guard(torch.randn(3, table.BLOCK, device=device)).tensor
    with testing.guarded():
        out = table.add_table(x, tiles, hints=hints)
        into = table.add_table(x, tiles, hints=hints, out=torch.empty_like(x))
    exact = table.added(x.double(), tiles.double())
    testing.assert_close(out, exact, scale=x.abs() + 5)
    assert torch.equal(out, into)


def test_every_tile_of_the_table_is_read_before_one_is_again():
    for tiles in (7, 512, 4096, 16_384):
        assert len({pid * table.STEP % tiles for pid in range(tiles)}) == tiles


@pytest.mark.parametrize(
    ("x", "tiles", "message"),
    [
        ((5,), (0, 1024), "table must have at least one tile"),
        ((5,), (2, 1000), "table must have shape"),
        ((5, 1), (2, 1024), "x must have 1 dimension"),
    ],
)
def test_unfit(x, tiles, message, device):
    with pytest.raises(ValueError, match=message):
        table.add_table(
            torch.zeros(x, device=device), torch.zeros(tiles, device=device)
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pid * STEP % tiles * BLOCK", "pid % tiles * BLOCK"),
        ("x + entry", "x"),
        ("mask=mask, cache_modifier", "cache_modifier"),
    ],
)
def test_planted_mistakes_are_found(old, new, device):
    found = pytest.raises((AssertionError, IndexError))
    with testing.mutated_module(table, old, new), found:
        test_each_tile_gets_its_own(5000, False, device)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_hints_change_no_width(target):
    x = torch.empty(2**20, device="meta")
    tiles = torch.empty(64, table.BLOCK, device="meta")
    lines = [
        compile_only.compile(
            table.table_kernel, x, tiles, x, 2**20, 64, STEP=table.STEP, KEEP=keep,
            STREAM=stream, STORE=store, BLOCK=table.BLOCK, num_warps=table.NUM_WARPS,
            target=target,
        ).evidence
        for keep, stream, store in (("", "", ""), ("evict_last", "evict_first", ".cs"))
    ]  # fmt: skip
    assert {128} == set(lines[0].global_loads) == set(lines[1].global_loads)
    assert not any(line.spill_store_bytes for line in lines)


def test_registers_decide_how_many_threads_live(monkeypatch):
    card = here.current()
    room = card.registers_per_sm or 2**16
    most = card.threads_per_sm or 2048
    assert flight.threads(16, 4) == min(most, room // 16)
    assert flight.threads(64, 4) == room // 64
    # Dealt out by eights, and a program lives whole or not at all.
    assert flight.threads(65, 4) == room // (72 * 128) * 128
    assert flight.kib(2048, 1) == 32
