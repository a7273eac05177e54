"""The pictures show what the kernels touch."""

import pytest
from matplotlib.colors import to_hex

from tilebook.memory import figures


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
