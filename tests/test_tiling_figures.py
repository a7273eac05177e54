"""The pictures show what the kernels did, and say it in words."""

import io

import matplotlib
import numpy as np
import pytest
import torch

from tilebook.memory import banks
from tilebook.tiling import bank_figures, counts, explicit, figures, layouts

ALL = (
    figures.ragged,
    figures.turned,
    figures.corner,
    figures.launch_orders,
    figures.hand,
    figures.orders,
    figures.halo,
    figures.collision,
    bank_figures.swizzles,
)


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@pytest.mark.parametrize("make", ALL)
def test_draws_twice_alike_and_speaks(make):
    picture = make(tiles=4, group=2) if make is figures.orders else make()
    assert drawn(picture) == drawn(picture)
    assert b"<svg" in drawn(picture)
    assert len(picture.alt) > 60
    assert picture.alt.endswith(".")


def test_a_ragged_tile():
    picture = figures.ragged()
    tile = texts(picture)[41:-1]
    assert tile == [str(8 * i + j) for i in range(4, 8) for j in range(4, 8)]
    hatched = [p.get_hatch() for p in picture.figure.axes[0].patches[-16:]]
    assert hatched == [None, None, *["///"] * 14]
    assert "2 of 16 are in x" in picture.alt


def test_turned():
    picture = figures.turned(m=2, n=4, block=2)
    shown = [t for t in texts(picture) if t.isdigit()]
    # The input row by row, then the output row by row.
    assert "".join(shown) == "00110011" + "00001111"
    assert "Program 1 reads 4 elements" in picture.alt


def test_hand():
    picture = figures.hand(size=4, block=2, program=1)
    shown = [t for t in texts(picture) if len(t) <= 1]
    a, b, c = ("".join(t or "." for t in shown[i : i + 16]) for i in (0, 16, 32))
    assert a == "00110011........"
    assert b == "..00..00..11..11"
    assert c == "..11..11........"
    assert "steps 0 to 1" in picture.alt


def test_a_corner_is_held_by_rows_then_columns_then_rows():
    shown = texts(figures.corner(size=4))
    parts = [shown[17 * at : 17 * at + 16] for at in range(3)]
    rows = [str(8 * row) for row in range(4) for _ in range(4)]
    assert parts == [rows, 4 * ["0", "8", "16", "24"], rows]


def test_launch_orders():
    shown = texts(figures.launch_orders())
    assert shown[:12] == [str(i) for i in range(12)]
    assert " ".join(shown[13:25]) == "0 2 4 6 1 3 5 7 8 9 10 11"


def test_a_halo_lies_round_the_middle_and_no_two_counts_share_a_colour():
    picture = figures.halo()
    axes = picture.figure.axes[0]
    shown = [text for text in texts(picture) if text.isdigit()]
    direct, rows = shown[:64], shown[64:]
    assert direct[8 * 3 + 2 : 8 * 3 + 6] == ["6", "9", "9", "6"]
    assert rows[8 + 1 : 8 + 7] == ["1", "2", "3", "3", "2", "1"]
    assert set(rows[:8]) == set(direct[:8]) == {"0"}
    fills = [p.get_facecolor() for p in axes.patches if p.get_fill()]
    colours = dict(zip(shown, fills, strict=True))
    assert len(set(colours.values())) == len(colours)


def test_a_collision_leaves_the_last():
    shown = texts(figures.collision())
    assert shown[-17:-1] == [
        *("30", "", "", "23"),
        *("", "21", "", "33"),
        *("20", "", "32", ""),
        *("", "31", "22", ""),
    ]


def test_orders_count_different_blocks():
    picture = figures.orders(tiles=4, group=2)
    shown = texts(picture)
    assert {"A: 4 different blocks", "B: 16 different blocks"} <= set(shown)
    assert shown.count("A: 8 different blocks") == 1
    assert "C, strips of 2" in shown
    assert "read 20 different blocks" in picture.alt
    assert picture.alt.endswith("own a square and read 16.")


def grids(picture):
    """The digits of each grid with the colours of its cells, and the titles."""
    (axes,) = picture.figure.axes
    cells = [p for p in axes.patches if p.get_fill()]
    fills = {p.get_xy(): p.get_facecolor() for p in cells}
    digits, titles = [], []
    for text in axes.texts:
        x, y = text.get_position()
        corner = (x - 0.5, y - 0.5)
        near = [fill for at, fill in fills.items() if np.allclose(at, corner)]
        if near:
            digits.append((int(text.get_text()), near[0]))
        elif "cycle" in text.get_text():
            titles.append(text.get_text())
    return [digits[i : i + 64] for i in range(0, len(digits), 64)], titles


def test_a_swizzle_sends_each_column_to_all_banks():
    shown, titles = grids(bank_figures.swizzles())
    columns = [[[n for n, _ in g[j::8]] for j in range(8)] for g in shown]
    alike = [[j] * 8 for j in range(8)]
    assert columns[0] == columns[2] == alike
    assert columns[1] == columns[3] == [[j ^ i for i in range(8)] for j in range(8)]
    assert titles == [
        *("as they come: 8 cycles", "g ^ (r % 8): 1 cycle"),
        *("g ^ (r % 8): 8 cycles", "g ^ (r // 8) % 8: 1 cycle"),
    ]
    colours = dict(cell for grid in shown for cell in grid)
    assert len(set(colours.values())) == 8
    assert {cell for grid in shown for cell in grid} == set(colours.items())


@pytest.mark.parametrize("dtype", counts.ELEMENTS.values(), ids=str)
def test_swizzles_are_counted_as_on_the_page(dtype):
    vector = 16 // dtype.itemsize
    rows = bank_figures.written(dtype)
    assert rows.tolist() == [lane * vector for lane in range(8)]
    block, _ = explicit.SIDES[dtype.itemsize]
    found = [
        bank_figures.cycles(bank_figures.words(lies, rows)[:, 0])
        for lies in (
            layouts.Shared(vector, 1, 1, block),
            layouts.Shared(vector, 1, 8, block),
            layouts.Shared(vector, vector, 8, block),
        )
    ]
    assert found == counts.waits().loc[f"V = {vector}"].tolist()
    _, titles = grids(bank_figures.swizzles(dtype))
    assert [int(t.rpartition(": ")[2].split()[0]) for t in titles[2:]] == found[1:]


def test_the_drawn_swizzle_is_the_kernels():
    """Groups of V, V rows to a phase, 8 phases: the layout that the page derives."""
    ttgir = figures.compiled(explicit).ttgir
    assert "vec = 8, perPhase = 8, maxPhase = 8" in ttgir
    lies = layouts.Shared(8, 8, 8, explicit.SIDES[torch.int16.itemsize][0])
    for first in range(0, 8):
        rows = np.arange(8) * 8 + first
        words = bank_figures.words(lies, rows)
        for column in words.T:
            each = (column[:, None] + np.arange(4)) % banks.BANKS
            assert sorted(each.ravel()) == list(range(banks.BANKS))
