"""Hopper's kernels as they ship, compiled: nothing spills, nothing is serialised."""

import re

import pytest

from tilebook import compile_only, testing
from tilebook.hopper import (
    cooperative,
    folded,
    launching,
    pingpong,
    pipelined,
    wgmma,
    widths,
)
from tilebook.matmul import described, evidence
from tilebook.matmul.shapes import Shape

RUNGS = (pipelined, cooperative, folded, pingpong, widths)
TURNS = ("NN", "NT", "TN", "TT")
BF16, FP16 = launching.DTYPES
SQUARE = Shape(4096, 4096, 4096)
# Products wait for each other, since something else reads registers of their sums.
SERIALISED = "C7514"


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def compiled(rung, config, turn, dtype=BF16):
    return evidence.first(rung, config, layout=turn, dtype=dtype, shape=SQUARE)


def shared(rung, config):
    """The shared memory that the host side counts with."""
    if rung is not widths:
        return launching.shared_bytes(config, 1 if rung is pingpong else 2)
    sides = config.block_m + config.block_n + config.more
    tiles = config.num_stages * sides * config.block_k + config.block_m * config.more
    return 2 * tiles + launching.BARRIERS


def assert_clean(rung, config, found):
    assert found.spill_store_bytes == found.spill_load_bytes == found.stack_bytes == 0
    assert not found.warnings
    assert set(found.mma) == {"wgmma"}
    assert found.tma_loads
    assert found.tma_stores
    # Nothing goes by way of registers but the tile that is stored.
    assert not found.async_copies
    assert not found.global_loads
    assert not found.global_stores
    assert found.shared_bytes <= shared(rung, config) <= launching.SHARED


def cases():
    """Every configuration in one of the orders of memory, now and then in float16."""
    for at, rung in enumerate(RUNGS):
        for number, config in enumerate(rung.CONFIGS):
            dtype = FP16 if number % 5 == 1 else BF16
            marks = [pytest.mark.slow] if number else []
            yield pytest.param(
                rung, config, TURNS[(at + number) % 4], dtype, marks=marks,
                id=f"{name(rung)}-{'-'.join(map(str, config))}",
            )  # fmt: skip


@pytest.mark.parametrize(("rung", "config", "turn", "dtype"), [*cases()])
def test_compiles_clean(rung, config, turn, dtype):
    assert_clean(rung, config, compiled(rung, config, turn, dtype).evidence)


@pytest.mark.parametrize("rung", RUNGS[1:], ids=name)
def test_groups_of_warps_are_there_and_registers_are_shared_out(rung):
    config, turn = rung.CONFIGS[0], TURNS[RUNGS.index(rung) % 4]
    artefact = compiled(rung, config, turn)
    (found,) = evidence.launched(rung, config, layout=turn, shape=SQUARE)
    counts = re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", artefact.ptx)
    # Who multiplies has more than a fair share of the registers, who loads has fewer.
    assert {found.meta["REGISTERS"], 40} < {int(count) for count in counts}
    assert artefact.evidence.registers == 65536 // (3 * 128) // 8 * 8


def test_without_packing_products_wait_for_the_tile_that_is_stored():
    """Why `folded` rounds and packs a tile before the next one's products begin."""
    config = folded.CONFIGS[0]
    old = '"mov.b32 $0, $1;", "=r,r", [tile], dtype=tile.dtype, is_pure=True, pack=2'
    with testing.mutated_module(
        wgmma, f"return gl.inline_asm_elementwise(\n        {old}\n    )", "return tile"
    ):
        (found,) = evidence.launches(
            lambda wrap: folded.launch(
                evidence.task_for(SQUARE, "NT", BF16)._replace(wrap=wrap), config
            )
        )
        artefact = compile_only.compile(
            found.kernel, *found.args, target="sm_90", **found.meta
        )
    assert SERIALISED in [notice.code for notice in artefact.evidence.warnings]


def test_only_the_last_step_of_a_tile_divides():
    """Reciprocals in the loop over chunks, which all other steps jump over."""

    def steps(rung):
        lines = compiled(rung, None, "NT").sass.splitlines()
        labels = {}
        for at, line in enumerate(lines):
            if label := re.match(r"(\.L\S+):", line):
                labels[label[1]] = at
            jump = re.search(r"BRA `\((\.L\S+)\)", line)
            if jump and jump[1] in labels:
                loop = "\n".join(lines[labels[jump[1]] : at])
                if "HGMMA" in loop and "UTMALDG" in loop:
                    return loop
        raise AssertionError("no loop multiplies and loads")

    # All warps wait for one another around the orders, and for each chunk.
    assert steps(pipelined).count("BAR.SYNC") == 3
    for rung in (pipelined, described):
        whole = steps(rung)
        before = whole[: whole.index("MUFU.RCP")]
        skipped = re.findall(r"BRA `\((\.L\S+)\)", before)[-1]
        assert whole.index(skipped + ":") > whole.rindex("MUFU.RCP")
