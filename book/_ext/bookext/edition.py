"""What a bound book, EPUB or PDF, says of itself: title, authors, licence, date, cover.

All of it is read from the repository, so that two builds of one state are the same.
"""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[3]
BASENAME = "thinking-in-tiles"
RECORDS = ROOT / "code" / "tilebook" / "records"

INK, QUIET, ACCENT, PALE = "#14171a", "#596168", "#d9692a", "#f3c9b0"
IDLE = "#d5d9dc"
# Blocks of the matrices on the cover, along M, N and K; which of C is computed, two by
# two blocks, and from which of A and B just now.
M, N, K = 8, 6, 4
ROW, COLUMN, STEP = 2, 1, 1


class Edition(NamedTuple):
    """A state of the book.

    Attributes:
        title: What it is called.
        subtitle: The rest of its title.
        authors: Their names.
        rights: The licences of text and code, in a sentence.
        about: What it is, in a sentence or two.
        url: Where its pages are.
        version: That of the package.
        date: When the source last changed, in UTC.
    """

    title: str
    subtitle: str
    authors: tuple[str, ...]
    rights: str
    about: str
    url: str
    version: str
    date: datetime


def changed(root: Path = ROOT) -> datetime:
    """Return when the source last changed, whatever the clock says now.

    Args:
        root: The repository.

    Returns:
        What ``SOURCE_DATE_EPOCH`` says, else the last commit's time, else, without
        version control, that of the newest record; in UTC.
    """
    if "SOURCE_DATE_EPOCH" in os.environ:
        return datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    if (root / ".git").exists():
        ask = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
        done = subprocess.run(ask, capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip():
            return datetime.fromtimestamp(int(done.stdout), UTC)
    return max(measured())


def measured() -> Iterator[datetime]:
    """Yield the days of the committed records."""
    for path in RECORDS.glob("*/*-*.json"):
        day = json.loads(path.read_text(encoding="utf-8"))["provenance"]["date"]
        yield datetime.fromisoformat(day[:10]).replace(tzinfo=UTC)


def edition(root: Path = ROOT) -> Edition:
    """Read what the repository says of the book.

    Args:
        root: The folder with CITATION.cff.
    """
    said = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    title, _, subtitle = said["title"].partition(": ")
    return Edition(
        title=title,
        subtitle=subtitle,
        authors=tuple(author["name"] for author in said["authors"]),
        rights="Text and figures under CC BY 4.0, code under the Apache License 2.0.",
        about=" ".join(said["abstract"].split()),
        url=said["url"],
        version=str(said["version"]),
        date=changed(root),
    )


def block(figure: Figure, row: float, column: float, colour: str) -> None:
    """Draw one block of a matrix; rows and columns count from the picture's corner."""
    width, height = figure.get_size_inches()
    side, gap = 0.45, 0.05
    left, top = 0.55 + column * side, 2.35 + row * side
    figure.add_artist(
        Rectangle(
            (left / width, 1 - (top + side - gap) / height),
            (side - gap) / width,
            (side - gap) / height,
            facecolor=colour,
            linewidth=0,
        )
    )


def product(figure: Figure) -> None:
    """Draw a matrix product: the tile of C, and the strips of A and B it is made of."""
    for i in range(M):
        for k in range(K):
            here = ACCENT if k == STEP else PALE
            block(figure, i + K + 0.4, k, here if i // 2 == ROW else IDLE)
    for k in range(K):
        for j in range(N):
            here = ACCENT if k == STEP else PALE
            block(figure, k, j + K + 0.4, here if j // 2 == COLUMN else IDLE)
    for i in range(M):
        for j in range(N):
            mine = i // 2 == ROW and j // 2 == COLUMN
            block(figure, i + K + 0.4, j + K + 0.4, ACCENT if mine else IDLE)


def drawn(book: Edition) -> Figure:
    """Draw the cover, 6 by 9 inches.

    Args:
        book: Whose.
    """
    figure = Figure(figsize=(6, 9), facecolor="white")
    lines = [
        (0.908, book.title, 35, "bold", INK),
        (0.852, book.subtitle, 15.5, "normal", QUIET),
        (0.052, ", ".join(book.authors), 11.5, "normal", QUIET),
    ]
    for height, text, size, weight, colour in lines:
        figure.text(
            0.55 / 6,
            height,
            text,
            size=size,
            weight=weight,
            color=colour,
            va="baseline",
        )
    product(figure)
    return figure


def cover(book: Edition, form: str) -> bytes:
    """Return the cover as a file.

    Args:
        book: Whose.
        form: "png", 1,600 by 2,400 pixels, or "svg".

    Raises:
        ValueError: it is neither.
    """
    if form not in ("png", "svg"):
        raise ValueError(f"form: got {form!r}; allowed: png, svg")
    figure, file = drawn(book), io.BytesIO()
    canvas = FigureCanvasAgg if form == "png" else FigureCanvasSVG
    stamp = {"Software": None} if form == "png" else {"Date": None}
    # matplotlib's own fonts: the cover is the same on every machine.
    canvas(figure)
    figure.savefig(file, format=form, dpi=1600 / 6, metadata=stamp)
    return file.getvalue()
