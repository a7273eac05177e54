"""Who adds a tile to memory: the same sums, whoever does; on a card, and modelled."""

import pytest
import torch

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import adding
from tilebook.attention.adding import ENGINE, LEFT, LINES, SIDE, WAYS, Sums
from tilebook.matmul.evidence import launches

HEADS, TILES, ROWS = 2, 3, 3 * SIDE


def drawn(*, device="cpu", heads=HEADS, tiles=TILES):
    """Integers, whose sums are exact in any order."""
    shape = (heads, tiles, SIDE, SIDE)
    return torch.randint(-8, 9, shape, device=device).bfloat16()


def modelled(parts, way, seed=0):
    """What a kernel of Gluon adds, without a GPU."""
    sums = torch.zeros(1, parts.shape[0], ROWS, SIDE)
    (found,) = launches(lambda wrap: adding.launch(way, Sums(parts, sums, wrap)))
    schedules.run(found.kernel, found.grid, *found.args, **found.meta, seed=seed)
    return sums[0]


def exact(parts, rows=ROWS):
    return adding.reference(parts.double(), rows).float()


def test_the_reference_is_a_sum_over_tiles_of_keys():
    parts = drawn()
    found = exact(parts).view(HEADS, 3, SIDE, SIDE)
    for head in range(HEADS):
        want = sum(parts[head, tile].float() for tile in range(TILES))
        for row in range(3):
            assert torch.equal(found[head, row], want)


def test_threads_by_lines(interpreted):
    parts = drawn()
    assert torch.equal(adding.added(parts, ROWS, LINES), exact(parts))
    turned = drawn().mT
    assert torch.equal(adding.added(turned, ROWS, LINES), exact(turned))


@pytest.mark.parametrize("way", [LEFT, ENGINE])
def test_what_a_product_leaves(way):
    parts = drawn()
    for seed in range(3):
        assert torch.equal(modelled(parts, way, seed), exact(parts))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("head = gl.program_id(0) // tiles", "head = gl.program_id(0) % 2"),
        ("gl.program_id(0) * (SIDE * SIDE)", "gl.program_id(0) * SIDE"),
        ("    tma.store_wait(0)\n", "    pass\n"),
        ("to = sums + (head * rows + start)", "to = sums + (head * rows)"),
        ("place, 0, head, start, 0", "place, 0, head, 0, 0"),
    ],
)
def test_each_mistake_is_noticed(old, new):
    def both():
        for way in (LEFT, ENGINE):
            test_what_a_product_leaves(way)

    wrong = (AssertionError, schedules.ScheduleError)
    with testing.mutated_module(adding, old, new), pytest.raises(wrong):
        both()


@pytest.mark.parametrize("nothing", [{"heads": 0}, {"tiles": 0}])
def test_nothing_to_add(interpreted, nothing):
    parts = drawn(**nothing)
    found = adding.added(parts, ROWS, LINES)
    assert found.shape == (parts.shape[0], ROWS, SIDE)
    assert not found.any()
    assert adding.added(drawn(), 0, LINES).shape == (HEADS, 0, SIDE)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"rows": 100}, ValueError, "rows must be a multiple of 64"),
        ({"rows": 1 << 30}, ValueError, "rows must make fewer than"),
        ({"rows": 64.0}, TypeError, "rows must be an int"),
        ({"way": "DMA"}, ValueError, "way must be"),
        ({"parts": torch.zeros(1, 1, 64, 64)}, TypeError, "parts must"),
        ({"parts": torch.zeros(1, 64, 64).bfloat16()}, ValueError, "parts must"),
        ({"way": ENGINE}, here.HardwareError, "Hopper"),
    ],
)
def test_what_is_refused(interpreted, more, error, words):
    told = {"parts": drawn(), "rows": ROWS, "way": LINES} | more
    with pytest.raises(error, match=words):
        adding.added(**told)


ADDED = {
    LINES: "REDG.E.ADD.F32x4",
    LEFT: "REDG.E.ADD.F32x2",
    ENGINE: "UTMAREDG",
}


@pytest.mark.parametrize("way", WAYS)
def test_compiles_clean(way):
    parts = torch.empty(16, 64, SIDE, SIDE, dtype=torch.bfloat16, device="meta")
    sums = torch.empty(1, 16, 4096, SIDE, device="meta")
    (found,) = launches(lambda wrap: adding.launch(way, Sums(parts, sums, wrap)))
    made = compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)
    assert not made.evidence.warnings
    assert not made.evidence.spill_store_bytes
    assert ADDED[way] in made.sass
    assert sum(name in made.sass for name in ADDED.values()) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_on_a_card(way, device):
    if way != LINES and not here.has("wgmma"):
        pytest.skip("needs a Hopper")
    parts = drawn(device=device, heads=5, tiles=7)
    for rows in (SIDE, 7 * SIDE):
        found = adding.added(parts, rows, way)
        assert torch.equal(found, exact(parts, rows))
