"""The pictures show what the kernels touch."""

import itertools

import pytest
from matplotlib.colors import to_hex

from tilebook.memory import engine, figures, rehearsal
from tilebook.testing import mutants


def fills(axes):
    return [to_hex(p.get_facecolor()) for p in axes.patches if p.get_fill()]


def test_sectors_are_coloured_by_what_was_read():
    (axes,) = figures.sectors((1, 3, 8), lanes=8).axes
    seen = fills(axes)
    rows = [seen[i : i + 64] for i in range(0, len(seen), 64)]
    assert [row.count(figures.WANTED) for row in rows] == [8, 8, 8]
    assert [row.count(figures.CARRIED) for row in rows] == [0, 16, 56]
    assert [t.get_text() for t in axes.texts] == ["stride 1", "stride 3", "stride 8"]


def test_banks_are_numbered_in_each_layout():
    panels = figures.bank_of(4).axes
    numbers = [[t.get_text() for t in axes.texts] for axes in panels]
    assert numbers[0][::4] == ["0"] * 4
    assert numbers[1][::4] == numbers[2][::4] == ["0", "1", "2", "3"]
    assert [axes.get_title(loc="center") or axes.get_title() for axes in panels]


def test_places_are_drawn_to_scale():
    (axes,) = figures.scale().axes
    areas = [patch.get_width() ** 2 for patch in axes.patches]
    sizes = list(figures.PLACES.values())
    for i in (1, 2):
        assert areas[i] / areas[0] == pytest.approx(sizes[i] / sizes[0])
    across = (sizes[3] / sizes[2]) ** 0.5
    assert f"{across:.0f} times" in axes.texts[-1].get_text()


def test_the_ring_draws_each_step_of_the_kernel():
    (axes,) = figures.ring(tiles=5, stages=3).axes
    steps = rehearsal.rehearse(5, 3)
    bars = [(p.get_x(), p.get_width(), to_hex(p.get_facecolor())) for p in axes.patches]
    for step in steps:
        fill = figures.KINDS.get(step.what)
        found = [b for b in bars if b[:2] == (step.start, step.end - step.start)]
        assert any(fill in (None, colour) for *_, colour in found)
    shown = [t.get_text() for t in axes.texts]
    for tile in range(5):
        # Asked for, coming, sent and leaving; the moments 1 to 4 have numbers too.
        assert shown.count(str(tile)) == 4 + (0 < tile < 5)
    assert [t for t in shown if t.startswith("place")] == [
        f"place {i}" for i in range(3)
    ]


@pytest.mark.parametrize("stages", [2, 3, 4, engine.STAGES])
@pytest.mark.parametrize("tiles", [1, 2, 3, 7, 40])
def test_a_ring_rehearsed_moves_each_tile_once(stages, tiles):
    steps = rehearsal.rehearse(tiles, stages)
    for what in ("ask", "come", "send", "leave"):
        done = [step for step in steps if step.what == what]
        assert [step.tile for step in done] == list(range(tiles))
        assert all(step.place == step.tile % stages for step in done)
    program = [s for s in steps if s.what not in ("come", "leave")]
    # The program does one thing at a time and idles only in a wait.
    starts = [0, *(step.end for step in program)]
    assert [step.start for step in program] == starts[:-1]
    assert steps[-1].end == max(step.end for step in steps)
    moved = {(step.what, step.tile): step for step in steps}
    for tile in range(tiles):
        life = [moved[what, tile] for what in ("ask", "come", "send", "leave")]
        for before, after in itertools.pairwise(life):
            assert before.end <= after.start
        if tile >= stages:
            assert moved["leave", tile - stages].end <= moved["ask", tile].start
    coming = [step for step in steps if step.what == "come"]
    most = max(
        sum(c.start <= at < c.end for c in coming) for at in range(steps[-1].end)
    )
    assert most <= stages - 1


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("phase", "(turn // STAGES) & 1", "0", "sent before it has come"),
        ("other", "(turn // STAGES) & 1", "1 - (turn // STAGES) & 1", "before it has"),
        ("soon", "tma.store_wait(1)", "pass", "not free"),
        ("late", "tma.store_wait(1)", "tma.store_wait(2)", "not free"),
        ("unasked", "range(STAGES - 1)", "range(STAGES - 2)", "never flips again"),
        ("unexpected", "nbytes, pred=ahead", "0, pred=ahead", "doesn't expect"),
    ],
)
def test_a_rehearsal_finds_a_wrong_ring(name, old, new, says):
    ((_, kernel),) = mutants(engine.copy_kernel, {name: (old, new)})
    with pytest.raises(rehearsal.Stuck, match=says):
        rehearsal.rehearse(12, 3, kernel)


def test_a_rehearsal_needs_a_ring():
    with pytest.raises(ValueError, match="stages must be at least 2, got 1"):
        rehearsal.rehearse(4, 1)
    with pytest.raises(ValueError, match="tiles"):
        rehearsal.rehearse(0, 4)
