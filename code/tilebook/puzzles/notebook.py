"""A notebook of all stubs, for a laptop or Colab, with or without a GPU."""

import json
from collections.abc import Iterator
from typing import Any

from tilebook.puzzles.declare import Puzzle
from tilebook.puzzles.listing import OURS, PUBLIC

INSTALL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tilebook") is None:
    source = "tilebook @ git+{repository}@{revision}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)\
"""
START = """\
from tilebook import device
from tilebook.puzzles import drawing, hint
from tilebook.testing import check

import triton
import triton.language as tl

print(device.describe())\
"""
ABOUT = """\
# Puzzles

The stubs of the [puzzles]({page}) of *Thinking in Tiles*, each with its check. Run the
next two cells first: they install the book's package where it is missing. Without a GPU
Triton's interpreter runs your kernels; Triton itself needs Linux.

A stub does nothing, and its check says so. `hint("puzzle-01")` gives the next hint at
each call. The page has our solutions, folded.

`check` allocates all tensors, chooses the block sizes, which are powers of two, and
launches your kernel on the grid that the puzzle names. Tensors are contiguous unless
strides are parameters. Offsets and strides count elements. `cdiv(n, b)` is n / b,
rounded up.\
"""


def described(one: Puzzle) -> str:
    """A puzzle in plain Markdown, below its title.

    Args:
        one: the puzzle.

    Returns:
        What is asked, the formula, the data, the grid and what a case's shape lists.
    """
    data = "\n".join(f"* {line}" for line in one.data)
    formula = f"$$\n{one.formula}\n$$"
    parts = [one.task.statement, formula, data, f"**Grid** {one.grid}"]
    if one.sizes:
        parts.append(f"**Shape** in a message: {one.sizes}.")
    return "\n\n".join(parts)


def attempt(one: Puzzle) -> str:
    """The stub of a puzzle and the line that checks it.

    Args:
        one: the puzzle.

    Returns:
        Python that runs as it is, and fails politely.
    """
    return f'{one.stub}\n\ncheck("{one.name}", {one.kernel})'


def text(name: str, source: str) -> dict[str, Any]:
    """A cell of Markdown."""
    lines = source.splitlines(keepends=True)
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": lines}


def code(name: str, source: str) -> dict[str, Any]:
    """A code cell that hasn't run."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


def cells(repository: str, revision: str, page: str) -> Iterator[dict[str, Any]]:
    """Yield all cells; arguments as for `build`."""
    yield text("about", ABOUT.format(page=page))
    install = INSTALL.format(repository=repository, revision=revision)
    yield code("install", install)
    yield code("start", START)
    for title, group in (("The public twelve", PUBLIC), ("Our own", OURS)):
        yield text(title.replace(" ", "-").lower(), f"## {title}")
        for one in group:
            yield text(
                f"{one.name}-text", f"### {one.number}. {one.title}\n\n{described(one)}"
            )
            yield code(f"{one.name}-picture", f'drawing.draw("{one.name}")')
            yield code(one.name, attempt(one))


def build(repository: str, revision: str, page: str) -> bytes:
    """Make the notebook.

    Args:
        repository: address that pip installs from.
        revision: branch or commit of it.
        page: address of the puzzles' page.

    Returns:
        The file: format 4.5, the same bytes each time.
    """
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": list(cells(repository, revision, page)),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
