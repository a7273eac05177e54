"""Wrong solutions: a weak test accepts each, and ours names the case."""

import re

import pytest

from tilebook.puzzles import PUZZLES, solutions, wrong
from tilebook.testing import CheckFailed, check

WRONG = list(wrong.wrong_kernels())
TAKEN = [pytest.param(*one, id=f"{one[0].name}: {one[1]}") for one in WRONG]


def test_every_puzzle_has_a_wrong_solution():
    assert {one.name for one, _, _ in WRONG} == {one.name for one in PUZZLES}
    assert len(WRONG) >= 12


@pytest.mark.parametrize("one", PUZZLES, ids=lambda p: p.name)
def test_the_weak_test_accepts_what_is_right(one):
    assert wrong.weak(one, getattr(solutions, one.kernel))


@pytest.mark.parametrize(("one", "mistake", "kernel"), TAKEN)
def test_the_weak_test_accepts_it_and_ours_names_a_case(one, mistake, kernel):
    assert wrong.weak(one, kernel)
    with pytest.raises(CheckFailed) as caught:
        check(one.name, kernel, seed=1, quiet=True)
    message = str(caught.value)
    assert re.match(rf"{one.name}: not yet. Case \d+ of \d+ fails.", message)
    lines = wrong.said(message)
    assert lines["case"].startswith(f"shape {caught.value.case.shape}")
    assert "first" in lines or "raised" in lines or "why" in lines
    assert "seed=1" in lines["again"]


def test_the_weak_test_is_not_blind():
    one = PUZZLES[1]
    refused = next(
        kernel
        for _, kernel in wrong.mutants(
            solutions.add_ten_blocks_kernel, {"nine": ("x + 10.0", "x + 9.0")}
        )
    )
    assert not wrong.weak(one, refused)


def test_a_message_is_taken_apart():
    message = "puzzle-01: not yet.\n  case    shape (1,), float32,\n          offset\n"
    message += "  first   out[0] = 1, expected 2\n"
    assert wrong.said(message) == {
        "case": "shape (1,), float32, offset",
        "first": "out[0] = 1, expected 2",
    }


def test_the_table_stops_the_build_where_it_would_lie(monkeypatch):
    rows = wrong.MISTAKES["puzzle-03"]
    edits = {"puzzle-02": {"adds 9": ("x + 10.0", "x + 9.0")}}
    monkeypatch.setattr(wrong, "MISTAKES", edits)
    with pytest.raises(AssertionError, match="not accepted"):
        wrong.table()
    edits = {"puzzle-02": {"adds from the left": ("x + 10.0", "10.0 + x")}}
    monkeypatch.setattr(wrong, "MISTAKES", edits)
    with pytest.raises(AssertionError, match="not refused"):
        wrong.table()
    monkeypatch.setattr(wrong, "MISTAKES", {"puzzle-03": rows})
    shown = wrong.table()
    (row,) = shown.rows
    assert row.mistake == "takes rows to be M apart"
    html = shown._repr_html_()
    assert "<td>3: takes rows to be M apart<br><span>(32, 32)</span></td>" in html
    assert f"<td>{row.said['case']}<br><span>{row.reason}</span></td>" in html
