"""The picture shows what the kernels store, and curves leave few rows out."""

import dataclasses

import numpy as np
import pytest

from tilebook.measure import Record
from tilebook.softmax import figures


@pytest.fixture(scope="module")
def owners():
    return figures.owners()


def test_who_writes_what(owners):
    rows = np.arange(figures.M)[:, None].repeat(figures.N, axis=1)
    right = np.arange(figures.N)[None, :] >= figures.N // 2
    assert (owners["a row"] == rows).all()
    assert (owners["several rows"] == rows // 2).all()
    assert (owners["taking turns"] == rows % 2).all()
    # The second kernel takes the parts in reverse.
    last = 2 * figures.M - 1
    assert (owners["parts of a row"] == last - (2 * rows + right)).all()


def test_each_run_of_cells_has_its_number(owners):
    panels = figures.ownership().axes
    assert [len(axes.patches) for axes in panels] == [figures.M * figures.N] * 4
    assert [len(axes.texts) for axes in panels] == [6, 6, 6, 12]
    assert [t.get_text() for t in panels[2].texts] == ["0", "1"] * 3


def test_matrices_of_few_rows_are_left_out():
    rows = [{"shape": {"m": m, "n": 4}} for m in (1, 131, 132, 4096)]
    wanted = {"rows": rows}
    blank = {f.name: wanted.get(f.name) for f in dataclasses.fields(Record)}
    left = figures.many(Record(**blank)).rows
    assert [row["shape"]["m"] for row in left] == [132, 4096]


def test_a_row_is_about_aligned_lengths_or_about_ragged_ones():
    rows = [{"shape": {"m": 132, "n": n}} for n in (8, 9, 1000, 4096, 4097, 4100)]
    wanted = {"rows": rows}
    record = Record(**{f.name: wanted.get(f.name) for f in dataclasses.fields(Record)})
    found = [figures.aligned(record).rows, figures.ragged_lengths(record).rows]
    lengths = [[row["shape"]["n"] for row in rows] for rows in found]
    assert lengths == [[8, 1000, 4096], [9, 4097, 4100]]
