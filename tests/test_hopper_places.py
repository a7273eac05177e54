"""Where barriers and tiles lie, and what lies on barriers that nobody took down."""

import re

import pytest
import torch
import triton

from tilebook.hopper import automatic, elsewhere, places, show
from tilebook.hopper.launching import Config
from tilebook.matmul.evidence import first
from tilebook.matmul.versions import numbers

# From this version on the pass takes down what it made.
MENDED = numbers(triton.__version__) >= (3, 8)
TALL = Config(128, 64, 64, 5)
SHAPE = "!ttg.memdesc<2x8x8xbf16, #shared, #smem, mutable>"
BARRIERS = "!ttg.memdesc<4x1xi64, #shared1, #smem, mutable>"


def text(*lines):
    """TTGIR with four barriers at 0, and tiles of 256 bytes at 16."""
    return "\n".join(
        (
            f"%0 = ttg.local_alloc {{allocation.offset = 0 : i32}} : () -> {BARRIERS}",
            f"%1 = ttg.local_alloc {{allocation.offset = 16 : i32}} : () -> {SHAPE}",
            f"%2 = ttg.memdesc_index %0[%c0] : {BARRIERS} -> !ttg.memdesc<1xi64>",
            *lines,
        )
    )


INIT, END = "ttng.init_barrier %2, 1 : !m", "ttng.inval_barrier %2 : !m"
WAIT, USE = "ttng.wait_barrier %2, %c0 : !m", "%a = ttg.local_load %1 : !m"


def pairs(*lines):
    return [
        (barriers.name, other.name)
        for barriers, other in places.trodden(places.buffers(text(*lines)))
    ]


def test_what_stands_when_a_tile_is_used():
    assert pairs(INIT, USE) == [("%0", "%1")]
    assert pairs(INIT, WAIT, USE) == [("%0", "%1")]
    assert pairs(INIT, END, INIT, USE) == [("%0", "%1")]
    assert pairs(INIT, USE, END) == [("%0", "%1")]
    assert pairs(USE, INIT, WAIT) == []
    assert pairs(INIT, WAIT, END, USE) == []
    assert pairs(INIT, END) == []


def test_what_only_touches_is_apart():
    apart = text(INIT, USE).replace("offset = 16", "offset = 32")
    assert places.trodden(places.buffers(apart)) == []
    nearly = text(INIT, USE).replace("offset = 16", "offset = 31")
    assert len(places.trodden(places.buffers(nearly))) == 1


def test_names_that_partitions_use_again():
    again = "%1 = arith.addi %c0, %c0 : i32"
    found = places.buffers(text(INIT, again, USE))
    assert [each.uses for each in found] == [(), ()]
    view = f"%1 = ttg.memdesc_index %0[%c0] : {BARRIERS} -> !m"
    assert places.buffers(text(INIT, view, USE))[0].uses == (5,)


def test_bytes_and_sides():
    barriers, tiles = places.buffers(text(INIT))
    assert (barriers.bytes, barriers.sides) == ("0 to 31", "4 x 1")
    assert (tiles.begin, tiles.end, tiles.bits) == (16, 16 + 2 * 8 * 8 * 2, 16)


def inits(ptx):
    """Where PTX makes barriers, from the start of shared memory."""
    added = dict(re.findall(r"add\.s32\s+(%r\d+), %r\d+, (\d+);", ptx))
    made = re.findall(r"mbarrier\.init\S+ \[(%r\d+)\], (\d+)", ptx)
    return sorted((int(added.get(register, 0)), int(n)) for register, n in made)


@pytest.mark.parametrize("config", [TALL, Config(128, 128, 64, 4)], ids=str)
def test_places_are_those_of_ptx(config):
    artefact = places.compiled(config)
    found = places.buffers(places.placed(artefact))
    expected = [
        each.begin + 8 * slot for each in found for slot in range(len(each.inits))
    ]
    made = inits(artefact.ptx)
    assert sorted(expected) == [offset for offset, _ in made]
    assert len(made) == 11 * config.num_stages
    # Who has to arrive at what nobody uses: the engine alone.
    idle = {each.begin for each in found if each.inits and not each.uses}
    assert {count for offset, count in made if offset in idle} == {1}


@pytest.mark.parametrize(
    "config",
    [*automatic.CONFIGS, Config(128, 128, 64, 5), TALL, Config(128, 64, 64, 6)],
    ids=str,
)
def test_barriers_of_no_use_lie_under_tiles_until_they_are_taken_down(config):
    found = places.buffers(places.placed(places.compiled(config)))
    idle = [each for each in found if each.inits and not each.uses]
    assert [len(each.inits) for each in idle] == [config.num_stages] * 4
    trodden = places.trodden(found)
    if MENDED:
        assert not trodden
        assert all(each.ends for each in idle)
        return
    tiles = {other for _, other in trodden if not other.inits}
    assert {barriers for barriers, _ in trodden} == set(idle)
    (ring,) = tiles
    assert ring.begin == 0
    assert ring.shape[0] == config.num_stages
    # Its first tile alone is touched, in the first row of 128 bytes.
    assert all(each.end == 8 * config.num_stages <= 128 for each in idle)


@pytest.mark.parametrize("name", [name for name in show.RUNGS if name != "automatic"])
def test_no_other_kernel_has_a_tile_on_barriers(name):
    found = places.buffers(places.placed(show.compiled(name)))
    assert any(each.inits for each in found)
    assert places.trodden(found) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rung", "config"),
    [
        (show.RUNGS[name], config)
        for name in ("made", "pipelined", "cooperative", "folded", "pingpong", "widths")
        for config in show.RUNGS[name].CONFIGS
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).rpartition(".")[2],
)
def test_nor_has_any_of_its_configurations(rung, config):
    artefact = first(rung, config, layout="NT")
    assert places.trodden(places.buffers(places.placed(artefact))) == []


def test_the_table():
    table = places.table(places.SHOWN[1:3])
    assert table.index.tolist() == [
        "128 x 128 x 64, 4 stages",
        "128 x 128 x 64, 5 stages",
    ]
    assert table["barriers"].tolist() == [44, 55]
    assert table["of no use"].tolist() == [16, 20]
    below = [
        "none" if MENDED else f"{n} x 128 x 64 at 0 to {n * 2**14 - 1:,}"
        for n in (4, 5)
    ]
    assert table["tiles there"].tolist() == below
    if not MENDED:
        assert table["their bytes"].tolist() == ["0 to 31", "0 to 39"]


def test_a_fresh_barrier_is_no_number():
    numbers = places.fresh()
    assert numbers.isnan().tolist() == [True, False, False, True]
    (word,) = numbers.view(torch.int64).tolist()
    # 20 bits for who hasn't arrived, and the same for the next phase.
    assert word >> 43 & 0xFFFFF == word >> 1 & 0xFFFFF == 2**20 - 1
    sass = places.compiled(TALL).sass
    made = r"UIADD3 UR(\d+), -UR\d+, 0x100000, URZ ;.*\n(?:.*\n){0,12}?.*"
    assert re.search(made + r"USHF\.L\.U32 UR\d+, UR\1, 0xb,", sass)
    assert re.search(made + r"USHF\.L\.U32 UR\1, UR\1, 0x1,", sass)


class TestStages:
    def test_those_to_choose_from(self):
        assert all(c.num_stages <= automatic.MOST_STAGES for c in automatic.CONFIGS)
        assert len(set(automatic.CONFIGS)) == len(automatic.CONFIGS)

    @pytest.mark.parametrize("stages", [5, 6])
    def test_more_are_refused(self, stages):
        task = show.task_for(show.SQUARE, "NT", torch.bfloat16)
        config = Config(128, 64, 64, stages)
        with pytest.raises(ValueError, match=f"at most 4 stages, got {stages}: wi"):
            automatic.launch(task, config)

    def test_four_are_launched(self):
        config = Config(128, 64, 64, 4)
        (found,) = show.launches(
            lambda wrap: automatic.launch(
                show.task_for(show.SQUARE, "NT", torch.bfloat16)._replace(wrap=wrap),
                config,
            )
        )
        assert found.meta["num_stages"] == 4
        assert found.meta["SPECIALIZE"]
        assert elsewhere.PORTABLE["automatic"][1].num_stages <= 4
