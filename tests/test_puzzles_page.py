"""The puzzles' pictures, their page and their notebook."""

import ast
import inspect
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tilebook.puzzles import PUZZLES, drawing, notebook, puzzle, solutions
from tilebook.testing.source import python_function

ROOT = Path(__file__).resolve().parent.parent
BUILT = ("https://example.org/book", "abc123", "https://example.org/puzzles.html")
every_puzzle = pytest.mark.parametrize("one", PUZZLES, ids=lambda p: p.name)


@every_puzzle
def test_a_picture_fits_a_phone_and_says_what_it_shows(one):
    picture = drawing.draw(one.name)
    html = picture._repr_html_()
    assert f'viewBox="0 0 {drawing.WIDTH} ' in html
    right = [float(x) for x in re.findall(r"M([\d.]+) ", html)]
    assert max(right) <= drawing.WIDTH
    assert 'role="img" aria-label="Program (' in html
    assert " id=" not in html
    assert len(html) < 30_000
    pointers = [n for n in one.task.parameters if n.endswith("_ptr")]
    assert [f"{t.name}_ptr" for t in picture.tensors] == pointers
    assert any(tensor.reads.any() for tensor in picture.tensors)
    assert any(tensor.writes.any() for tensor in picture.tensors)


def test_a_picture_is_that_of_the_kernels_offsets():
    x, y, z = drawing.draw("puzzle-04").tensors
    m, n = puzzle("puzzle-04").drawn
    tile = np.zeros((m, n), dtype=bool)
    tile[16:, 32:] = True
    assert (z.writes == tile).all()
    assert (x.reads == tile.any(axis=0)).all()
    assert (y.reads == tile.any(axis=1)).all()
    assert (z.others[:16, :32] == 1).all()
    assert (z.others[:16, 32:] == 2).all()
    assert not z.others[tile].any()


def test_a_run_of_cells_is_drawn_as_one():
    grid = drawing.Grid((2, 3), 0.0, 10.0)
    mask = np.array([[True, True, False], [False, False, True]])
    assert grid.runs(mask) == "M1.0 0.0h20.0v10.0h-20.0zM21.0 10.0h10.0v10.0h-10.0z"
    assert grid.dots(mask).count("M") == 3
    assert grid.bottom == 20.0
    wide = drawing.Grid((3, 2, 20), 0.0, 10.0)
    assert wide.corner(1) == (1.0, 26.0)


def test_tensors_lie_side_by_side_while_a_line_has_room():
    x, y, z = drawing.placed(drawing.draw("puzzle-03").tensors, drawing.CELL)
    assert x.top == y.top < z.top
    assert (x.left, z.left) == (0.0, 0.0)
    assert x.right < y.left < y.right <= drawing.WIDTH
    assert z.top == max(x.bottom, y.bottom) + drawing.GAP + drawing.LABEL


@every_puzzle
def test_nothing_overlaps_and_everything_is_inside(one):
    tensors = drawing.draw(one.name).tensors
    for size in (drawing.FINE, 7.0):
        if size * max(t.reads.shape[-1] for t in tensors) + 1 > drawing.WIDTH:
            continue
        grids = list(drawing.placed(tensors, size))
        assert all(grid.right <= drawing.WIDTH for grid in grids)
        for at, first in enumerate(grids):
            for other in grids[at + 1 :]:
                beside = first.right < other.left
                assert beside or first.bottom + drawing.LABEL <= other.top


def test_grey_is_explained_where_there_is_some():
    assert "grey" in drawing.draw("puzzle-02").html
    assert "grey" not in drawing.draw("puzzle-01").html
    assert "grey" not in drawing.draw("puzzle-24").html


@every_puzzle
def test_a_shape_that_no_tensor_has_is_spelt_out(one):
    values = one.task.inputs(np.random.default_rng(0), one.friendly)
    shapes = {np.shape(value) for value in values.values()}
    results = one.task.reference(**values)
    results = results if isinstance(results, tuple) else (results,)
    shapes |= {np.shape(value) for value in results}
    assert bool(one.sizes) == (tuple(one.friendly) not in shapes)
    if one.sizes:
        assert len(one.sizes.split(",")) == len(one.friendly)
        assert one.sizes in notebook.described(one)


def part(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    return pytest.importorskip(f"bookext.{name}")


def test_the_page_has_every_puzzle_once_and_in_order(monkeypatch):
    made = part("puzzles", monkeypatch)
    page = (ROOT / "book" / "puzzles.md").read_text(encoding="utf-8")
    names = [one.name for one in PUZZLES]
    assert made.FENCE.findall(page) == names
    content = [page]
    made.write_out(None, "book/puzzles", content)
    text = content[0]
    assert "{puzzle}" not in text
    assert re.findall(r"^\((puzzle-\d+)\)=$", text, re.M) == names
    assert text.count("```{dropdown} Hint") == sum(len(one.hints) for one in PUZZLES)
    for one in PUZZLES:
        assert one.stub in text
        assert f'check("{one.name}", solutions.{one.kernel})' in text
        assert all(hint in text for hint in one.hints)
    untouched = [page]
    made.write_out(None, "book/preface", untouched)
    assert untouched == [page]


def test_the_pages_fences_and_cells_are_seen_by_the_digest(monkeypatch):
    made, inputs = part("puzzles", monkeypatch), part("inputs", monkeypatch)
    content = [(ROOT / "book" / "puzzles.md").read_text(encoding="utf-8")]
    made.write_out(None, "book/puzzles", content)
    cells = inputs.cells_of(content[0])
    assert len(cells) == 2 + 2 * len(PUZZLES)
    assert all(ast.parse(cell) for cell in cells)


@pytest.fixture(scope="module")
def book():
    return json.loads(notebook.build(*BUILT))


def test_the_notebook_is_valid_and_the_same_each_time(book):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(book))
    assert notebook.build(*BUILT) == notebook.build(*BUILT)
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    assert all(cell["execution_count"] is None for cell in cells)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert all(ast.parse("".join(cell["source"])) for cell in cells)


def test_the_notebook_installs_first_and_has_every_stub(book):
    cells = {cell["id"]: "".join(cell["source"]) for cell in book["cells"]}
    assert list(cells)[:3] == ["about", "install", "start"]
    assert "tilebook @ git+https://example.org/book@abc123" in cells["install"]
    assert BUILT[2] in cells["about"]
    for one in PUZZLES:
        assert cells[one.name] == notebook.attempt(one)
        assert one.task.statement in cells[f"{one.name}-text"]


def put_in(source, one):
    """The stub's cell with our solution in the stub's place."""
    written = (python_function(getattr(solutions, name)) for name in one.kernels)
    return source.replace(one.stub, "\n\n".join(map(inspect.getsource, written)))


def test_the_first_four_are_solved_in_the_notebook_alone(book, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in list(os.environ):
        if name.startswith(("TILEBOOK_", "TRITON_")):
            monkeypatch.delenv(name)
    path = os.pathsep.join([str(ROOT / "code"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    wanted = ["install", "start"]
    for one in PUZZLES[:5]:
        wanted += [f"{one.name}-text", f"{one.name}-picture", one.name]
    cells = [cell for cell in book["cells"] if cell["id"] in wanted]
    for one in PUZZLES[:4]:
        cell = next(cell for cell in cells if cell["id"] == one.name)
        cell["source"] = put_in("".join(cell["source"]), one)
        assert "pass  # your lines" not in cell["source"]
    run = nbformat.reads(json.dumps({**book, "cells": cells}), as_version=4)
    nbclient.NotebookClient(
        run,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    done = {cell["id"]: cell.get("outputs", []) for cell in run.cells}
    for one in PUZZLES[:4]:
        said = "".join(output.get("text", "") for output in done[one.name])
        assert said.startswith(f"{one.name}: right in"), done[one.name]
        (shown,) = done[f"{one.name}-picture"]
        assert "<svg" in shown["data"]["text/html"]
    (failed,) = done[PUZZLES[4].name]
    assert failed["ename"] == "CheckFailed"
    assert failed["evalue"].startswith("puzzle-05: not yet.")
    assert len(failed["traceback"]) < 12
