"""What the chapter's page prints and draws."""

import re
from pathlib import Path

import numpy as np
import pytest

from tilebook import measure
from tilebook.attention import bugs, exercises, figures, selftest, show, solutions


@pytest.mark.parametrize("name", figures.DRAWN)
def test_drawn_blocks_are_those_that_are_counted(name):
    left, right, shift = figures.DRAWN[name]
    found = figures.kinds(left, right, shift)
    tall, wide, rows = figures.TALL, figures.WIDE, figures.LENGTH
    for tile, line in enumerate(found):
        # Keys before the first query's own are those that it sees besides.
        told = (rows + shift, rows + shift, left, right)
        want = solutions.spans(shift + tile * tall, tall, wide, *told)
        assert (int((line == 2).sum()), int((line == 1).sum())) == want
        there = np.flatnonzero(line)
        assert len(there) == there[-1] - there[0] + 1


def test_the_picture_says_what_it_shows():
    picture = figures.blocks()
    assert len(picture.figure.axes) == 3
    assert "56 left out, 16 with a mask, 56 without one" in picture.alt


def test_counted_blocks():
    table = show.seen()
    every = (show.LENGTH // exercises.TALL) * (show.LENGTH // exercises.WIDE)
    assert set(table.sum(axis=1)) == {every}
    own = solutions.blocks(show.LENGTH, exercises.TALL, exercises.WIDE)
    assert tuple(table.loc["causal"])[:2] == own


def test_work_of_a_block():
    """An eighth of a clock for each score's products, a sixteenth for its power."""
    table = show.work()
    assert tuple(table.loc[128]) == (1024, 512)
    assert tuple(table.loc[64]) == (512, 512)


def test_shapes_of_one_pass():
    table = show.trace()
    assert list(dict.fromkeys(table.index)) == [
        *("q", "acc", "k", "s", "highest", "p", "shrink", "v")
    ]
    assert table.loc["s", "shape"].iloc[0] == (16, 32)


@pytest.fixture(scope="module")
def lines():
    return show.lines().splitlines()


def test_every_rung_has_its_line_and_spills_nothing(lines):
    rungs = [*show.FIRST, "forward", *show.ON_HOPPER]
    assert [line.split()[0] for line in lines] == rungs
    for line in lines:
        assert "no spills" in line
        assert "ptxas" not in line
    assert all("TMA load" in line for line in lines[2:])
    assert all("async copies" in line for line in lines[:2])


def test_the_loop_waits_or_does_not():
    one_by_one = show.order(show.ON_HOPPER["cooperative"]).splitlines()
    names = [line[4:] for line in one_by_one]
    assert names.count("wait for all products") == 2
    assert "wait for all products but the last" not in names
    for rung in ("overlapped", "folded"):
        names = [line[4:] for line in show.order(show.ON_HOPPER[rung]).splitlines()]
        first, second = (i for i, each in enumerate(names) if each == "wgmma")
        powers = names.index("powers")
        # Scores and values are under way when the first powers are taken.
        assert first < second < powers < names.index("wait for all products")
        assert names.count("wait for all products but the last") == 1


def test_the_general_kernel_elsewhere():
    found = [line.split(":")[0] for line in show.elsewhere().splitlines()]
    assert found == ["sm_80", "sm_90", "sm_100", "gfx942"]
    for line, unit in zip(
        show.elsewhere().splitlines(),
        ("mma.sync", "wgmma", "tcgen05", "mfma"),
        strict=True,
    ):
        assert unit in line
        assert "no spills" in line


class TestPage:
    """What the page names is there."""

    TEXT = Path(__file__).parents[1] / "chapters" / "attention.md"

    @pytest.fixture
    def page(self):
        return self.TEXT.read_text(encoding="utf-8")

    def test_every_number_has_a_value_and_every_value_is_quoted(self, page):
        quoted = set(re.findall(r"\{measured\}`([\w-]+)\.(\w+)", page))
        declared = {
            (each.name, value)
            for each in measure.experiments()
            if each.name.startswith("attention-")
            for value in measure.values(each.name)
        }
        assert quoted == declared

    def test_every_claim_and_record_has_a_place(self, page):
        names = {
            each.name
            for each in measure.experiments()
            if each.name.startswith("attention-")
        }
        for kind in ("claims", "provenance"):
            assert set(re.findall(rf"^```\{{{kind}\}} (\S+)$", page, re.M)) == names

    def test_every_exercise_and_bug_has_a_place(self, page):
        labels = re.findall(r"^:label: ex-(\S+)$", page, re.M)
        assert labels == [each.name for each in exercises.EXERCISES]
        for each in exercises.EXERCISES:
            assert each.statement in page
            assert each.hint in page
        assert re.findall(r"^\(bug-(\S+)\)=$", page, re.M) == [*bugs.GALLERY]
        for bug in bugs.GALLERY.values():
            assert f"### {bug.title}\n" in page
            assert f'verdict("{bug.name}")' in page

    def test_the_questions_are_those_of_the_selftest(self, page):
        for question in selftest.QUESTIONS:
            assert question.text in page
            at = question.options.index(question.answer)
            assert f"**{'abcd'[at]}**. {question.explanation}" in page
