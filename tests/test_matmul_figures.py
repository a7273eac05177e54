"""Pictures and counts show what the kernels read."""

import io

import matplotlib
import numpy as np
import pytest
import torch

from tilebook import microscope
from tilebook.matmul import figures, ordered
from tilebook.matmul.fitting import Config
from tilebook.matmul.operands import Task
from tilebook.matmul.shapes import Shape

LARGE = Shape(8192, 8192, 8192)


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@pytest.mark.parametrize("make", [figures.orders, figures.shares])
def test_draws_twice_alike_and_speaks(make):
    small = {"rows": 2, "columns": 3, "group": 2, "programs": 3}
    if make is figures.shares:
        small = {"tiles": 2, "steps": 2, "programs": 2}
    picture, again = make(**small), make(**small)
    assert drawn(picture) == drawn(again)
    assert b"<svg" in drawn(picture)
    assert len(picture.alt) > 60
    assert picture.alt.endswith(".")


@pytest.mark.parametrize(("group", "first", "programs"), [(1, 0, 5), (2, 3, 4)])
def test_counts_are_those_of_a_real_launch(group, first, programs):
    """Of a ragged product, whose last rows and columns are fewer."""
    side, shape = figures.SIDE, Shape(40, 56, 16)
    a, b = torch.zeros(shape.m, shape.k), torch.zeros(shape.k, shape.n)
    task = Task(a, b, torch.zeros(shape.m, shape.n))
    args, meta = ordered.constants(task, Config(side, side, side, 4, 1, group))
    look = microscope.look(
        ordered.matmul_kernel, (12,), *args, **meta, raise_error=True
    )
    rows, columns = set(), set()
    for access in look.accesses:
        if first <= look.program(access.program) < first + programs:
            if access.argument == "a_ptr":
                rows |= set((access.touched() // shape.k).tolist())
            if access.argument == "b_ptr":
                columns |= set((access.touched() % shape.n).tolist())
    counted = figures.touched(shape, side, side, group, programs=programs, first=first)
    assert counted == (len(rows), len(columns))


def test_what_132_programs_read_of_8192_squared():
    plain = figures.touched(LARGE, 128, 256, programs=132)
    strips = figures.touched(LARGE, 128, 256, 8, programs=132)
    assert plain == (5 * 128, 8192)
    assert strips == (8 * 128, 17 * 256)
    share = strips.elements(8192) / plain.elements(8192)
    assert share == pytest.approx(0.61, abs=0.005)
    assert strips.elements(3) == 3 * (1024 + 4352)


def test_traffic_adds_up_waves():
    shape = Shape(64, 64, 10)
    # Four programs at a time: a row of tiles and all columns, four times.
    assert figures.traffic(shape, 16, 16, programs=4) == 4 * (16 + 64) * 10 * 2
    assert figures.traffic(shape, 16, 16, 2, programs=4) == 4 * (32 + 32) * 10 * 2
    assert figures.traffic(shape, 16, 16, programs=16) == (64 + 64) * 10 * 2
    # Ten, and the six that are left.
    ten, six = (
        figures.touched(shape, 16, 16, programs=n, first=at)
        for n, at in ((10, 0), (6, 10))
    )
    both = ten.elements(10) + six.elements(10)
    assert figures.traffic(shape, 16, 16, programs=10, itemsize=4) == both * 4
    lone = figures.traffic(LARGE, 128, 256, programs=1)
    tiles = 64 * 32
    assert lone == tiles * (128 + 256) * 8192 * 2


@pytest.mark.parametrize(
    "wrong",
    [{"programs": 0}, {"programs": 17}, {"programs": 1, "first": 16}, {"group": 0}],
)
def test_more_programs_than_tiles_are_refused(wrong):
    with pytest.raises(ValueError, match=r"positive|tiles|at least|> 0"):
        figures.touched(Shape(64, 64, 1), 16, 16, **{"programs": 1} | wrong)


def test_each_tile_is_somebodys():
    rows, columns = figures.tile_of(np.arange(35), 7, 5, 3)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 35
    assert rows[:4].tolist() == [0, 1, 2, 0]
    assert rows.max() == 6
    # The strip at the end has one row.
    assert rows[30:].tolist() == [6] * 5


def test_orders():
    shown = texts(figures.orders(rows=3, columns=4, group=3, programs=6))
    board = 4 + 1 + 3 + 1 + 12 + 1
    plain, strips = shown[:board], shown[board:]
    assert plain[:5] == ["2", "2", "1", "1", "b: 4 columns of tiles"]
    assert plain[5:9] == ["4", "2", "", "a: 2 rows"]
    assert plain[9:-1] == [*"012345", *[""] * 6]
    assert strips[:5] == ["3", "3", "", "", "b: 2 columns of tiles"]
    assert strips[5:9] == ["2", "2", "2", "a: 3 rows"]
    assert "".join(strips[9:-1]) == "031425"
    assert strips[-1] == "the product, strips of 3 rows"


def test_orders_say_what_they_show():
    alt = figures.orders(rows=3, columns=4, group=3, programs=6).alt
    assert "row by row 2 rows of tiles of a and 4 columns" in alt
    assert "strips of 3 rows 3 rows of tiles of a and 2 columns" in alt


def test_shares():
    picture = figures.shares(tiles=3, steps=4, programs=2)
    shown = texts(picture)
    whole, halves, even = (shown[at : at + 12] for at in (0, 13, 26))
    assert "".join(whole) == "000011112222"
    assert "".join(halves) == "003311442255"
    assert "".join(even) == "000000111111"
    assert [title.rpartition(": ")[2] for title in shown[12::13]] == [
        *("3 programs, 8 steps of time", "6 programs, 6 steps of time"),
        "2 programs, 6 steps of time",
    ]
    assert "Stream-K: 2 programs of at most 6 steps" in picture.alt


def test_nothing_is_drawn_too_wide_for_a_telephone():
    """At 390 px a digit of 8 points has to stay 6 px high."""
    # As wide as the page's, but of fewer programs.
    for picture in (figures.orders(programs=1), figures.shares(tiles=1, programs=1)):
        points = 72 * picture.figure.get_size_inches()[0]
        assert 8 * 390 / points >= 6
