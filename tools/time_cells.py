"""Execute chapters, each by itself, and print how long their slowest cells take.

    python tools/time_cells.py softmax
    python tools/time_cells.py --cold        # compile everything again, too

What a build does besides, reading and writing pages, is left out. With a GPU nothing
that an earlier run measured is used again.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"


class Cell(NamedTuple):
    """One that ran: its seconds, and how its source begins."""

    seconds: float
    source: str


def timed(notebook: nbformat.NotebookNode, folder: Path) -> Iterator[Cell]:
    """Execute a notebook.

    Args:
        notebook: the chapter.
        folder: where it runs.

    Yields:
        Its code cells in order.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for cell in notebook.cells:
        marks = cell.metadata.get("execution", {})
        if cell.cell_type == "code" and "shell.execute_reply" in marks:
            began, ended = (
                datetime.fromisoformat(marks[name])
                for name in ("iopub.status.busy", "shell.execute_reply")
            )
            source = " | ".join(cell.source.strip().splitlines())
            yield Cell((ended - began).total_seconds(), source)


def report(path: Path, most: int) -> str:
    """Execute a chapter as a live build does, and say what took how long.

    Args:
        path: the chapter's page.
        most: how many cells to name, the slowest first.

    Returns:
        The report, a line for the chapter and one for each cell.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TILEBOOK_LIVE"] = str(Path(folder, "live"))
        notebook = read_myst_markdown_notebook(path.read_text(encoding="utf-8"))
        began = time.monotonic()
        cells = list(timed(notebook, Path(folder)))
        taken = time.monotonic() - began
    lines = [
        f"{path.stem}: {taken:.1f} s, {sum(c.seconds for c in cells):.1f} in cells"
    ]
    slowest = sorted(cells, key=lambda cell: -cell.seconds)[:most]
    lines += [f"{cell.seconds:8.2f}  {cell.source[:100]}" for cell in slowest]
    return "\n".join(lines)


def main() -> int:
    """Time what the command line names; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="*", help="stems (default: all)")
    parser.add_argument("--most", type=int, default=12, help="cells to name (12)")
    parser.add_argument(
        "--cold", action="store_true", help="with no compiled kernel in a cache"
    )
    options = parser.parse_args()
    os.environ |= {"TILEBOOK_BUILD": "1", "PYTHONHASHSEED": "0"}
    paths = [CHAPTERS / f"{stem}.md" for stem in options.chapters]
    for path in paths or sorted(CHAPTERS.glob("*.md")):
        with tempfile.TemporaryDirectory() as cache:
            if options.cold:
                os.environ["TRITON_CACHE_DIR"] = f"{cache}/triton"
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
            print(report(path, options.most), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
