"""Pictures are drawn from layouts and lives, and what the page says of them holds."""

import io
import re
from pathlib import Path

import matplotlib
import pytest

from tilebook.compiler import (
    catalogue,
    figures,
    flow,
    kinds,
    layouts,
    selftest,
    sharing,
)
from tilebook.compiler.exercises import CODE, EXERCISES

PAGE = Path(__file__).parents[1] / "chapters" / "compiler.md"
SWIZZLED = kinds.swizzled(4, 1, 8, (1, 0), (8, 32))
MMA = kinds.mma(2, (1, 1), (16, 16), 8)


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: figures.owners(figures.BLOCKED),
        lambda: figures.owners(MMA),
        lambda: figures.owners(kinds.operand(0, 2, 2, (1, 1), (16, 16))),
        lambda: figures.offsets(SWIZZLED, vector=4),
        lambda: figures.matrix(figures.BLOCKED),
        lambda: figures.lives(catalogue.allocated("product described")),
    ],
    ids=["owners", "mma", "operand", "offsets", "matrix", "lives"],
)
def test_draws_twice_alike_and_speaks(make):
    picture = make()
    assert drawn(picture) == drawn(picture)
    assert len(picture.alt) > 60
    assert picture.alt.endswith(".")


def test_owners_are_the_layouts():
    shown = texts(figures.owners(MMA))
    assert shown[:8] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert shown[16:18] == ["4", "4"]
    assert "Lane 0 of warp 0 holds 8 cells" in figures.owners(MMA).alt


def test_a_matrix_has_its_ones():
    shown = [text for text in texts(figures.matrix(SWIZZLED)) if text == "1"]
    assert len(shown) == SWIZZLED.matrix.sum() == 11
    # The last three columns of the page's figure have two ones each.
    assert SWIZZLED.matrix.sum(0).tolist() == [1, 1, 1, 1, 1, 2, 2, 2]
    assert (figures.BLOCKED.matrix.sum(0) == 1).all()
    assert (figures.BLOCKED.matrix.sum(1) == 1).all()


def test_what_is_read_is_drawn():
    text = "#ttg.swizzled_shared<{vec = 4, perPhase = 1, maxPhase = 8, order = [1, 0]}>"
    assert texts(figures.read(text, (8, 32))) == texts(figures.offsets(SWIZZLED))
    text = (
        "#ttg.nvidia_mma<{versionMajor = 2, versionMinor = 0, warpsPerCTA = [1, 1], "
        "instrShape = [16, 8]}>"
    )
    assert texts(figures.read(text, (16, 16))) == texts(figures.owners(MMA))


def test_buffers_of_the_figure():
    alt = figures.lives(catalogue.allocated("product described")).alt
    places = [int(x) for x in re.findall(r"from (\d+) on", alt)]
    # Two large ones, and one that ends before at the place of the larger.
    assert sorted(places)[:2] == [0, 0]


def test_what_buffers_of_the_figure_hold():
    module = catalogue.allocated("product described")
    shown = texts(figures.lives(module))
    assert {"%a: 4 x 128 x 64 bf16", "%b: 4 x 64 x 256 bf16"} <= set(shown)
    assert shown.count("128 x 128 bf16") == 2
    assert shown.count("4 x 1 i64") == 1
    # The first of the two tiles is of a loop without a product.
    pieces = sorted(sharing.buffers(module), key=lambda piece: piece.start)
    products = [
        op.number
        for block in flow.read(module)
        for op in block.operations
        if op.name.endswith("_dot")
    ]
    assert products
    assert pieces[0].end <= min(products)
    assert figures._tile(module, "ttg.convert_layout %1") == "ttg.convert_layout"


def test_an_operand_has_rows_as_its_sums():
    operand = kinds.operand(0, 2, 2, (1, 1), (16, 16))
    shown, sums = (layout.owners("lane") for layout in (operand, MMA))
    assert (shown // 4 == sums // 4).all()
    assert all(len(set(row)) == 4 for row in shown.tolist())


def test_what_the_page_computes_of_layouts():
    rows = figures.BLOCKED
    register, lane, warp = rows.inverse()(dim0=5, dim1=9)
    assert rows(register=register, lane=lane, warp=warp) == (5, 9)
    along = kinds.blocked((2, 1), (8, 4), (2, 2), (0, 1), (16, 32))
    assert layouts.reach(rows, along) == "warp"
    # Three bits of the lane and the lowest of the warp make copies of a row's sums.
    copies = kinds.sliced(rows, 1).kernel()
    assert sorted(copies) == [(0, 0, 1), (0, 1, 0), (0, 2, 0), (0, 4, 0)]
    # Of the tile's two bits of registers, of which r0 is a column's, a slice has one.
    assert rows(register=1, lane=0, warp=0) == (0, 1)
    assert dict(kinds.sliced(rows, 1).inputs)["register"] == 1


# The page has what exercises and questions have.


def test_the_page_has_the_exercises():
    page = PAGE.read_text(encoding="utf-8")
    for task in EXERCISES:
        assert f":label: ex-{task.name}\n" in page
        assert f'check("{task.name}"' in page
        assert task.hint in page
    assert CODE in page


def test_the_page_has_the_questions():
    page = PAGE.read_text(encoding="utf-8")
    for number, question in enumerate(selftest.QUESTIONS, 1):
        assert f"**{number}.** {question.text}\n" in page
        letter = "abcd"[question.options.index(question.answer)]
        assert f"**{letter}**. {question.explanation}\n" in page
        assert len(set(question.options)) == 4
        for option in question.options:
            assert option in page
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 2
