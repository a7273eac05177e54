"""Each chapter's notebook: valid, plain Markdown, and it runs in a plain kernel."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import ROOT, chapters

MYST = re.compile(r"\{[a-z:-]+\}`|^\s*(:::|```\{|\+\+\+|\([\w-]+\)=)", re.M)


def notebook(site: Path, stem: str) -> nbformat.NotebookNode:
    """Return a chapter's notebook as a reader downloads it."""
    return nbformat.read(site / "chapters" / f"{stem}.ipynb", as_version=4)


@pytest.mark.parametrize("stem", chapters())
def test_it_is_valid_and_holds_the_whole_chapter(site: Path, stem: str):
    book = notebook(site, stem)
    nbformat.validate(book)
    source = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(cells) == source.count("{code-cell}") + 1
    title = re.search(r"^# (.+)$", source, re.M)[1]
    assert any(title in x.source for x in book.cells if x.cell_type == "markdown")
    assert any(cell.outputs for cell in cells)


@pytest.mark.parametrize("stem", chapters())
def test_its_first_cell_installs_the_package(site: Path, stem: str):
    book = notebook(site, stem)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    assert 'find_spec("tilebook") is None' in first.source
    assert "git+https://" in first.source


@pytest.mark.parametrize("stem", chapters())
def test_its_text_is_plain_markdown(site: Path, stem: str):
    for cell in notebook(site, stem).cells:
        if cell.cell_type == "markdown":
            prose = re.sub(
                r"^((?:> )?`{3,})[^\n]*\n.*?^\1$", "", cell.source, flags=re.M | re.S
            )
            assert not MYST.search(prose), prose
            text = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "`code`", prose)
            links = re.findall(r"\]\(([^)]*)\)", text)
            assert all(link.startswith(("https://", "http://")) for link in links)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stem", chapters())
def test_it_runs_in_a_plain_kernel(
    site: Path, stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in list(os.environ):
        if name.startswith(("TILEBOOK_", "TRITON_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = notebook(site, stem)
    NotebookClient(
        book,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path}},
    ).execute()
