"""Errata: what was wrong in pages that the book showed, made of ``errata.yaml``.

An entry says when it was mended, where it stood, what was wrong and what is right, and
which commit mended it. ``{errata}`` lists them, newest first.
"""

import datetime
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

NAME = "errata.yaml"
COMMIT = re.compile(r"[0-9a-f]{7,40}")
PLACE = re.compile(r"/(chapters|book)/[a-z-]+\.md(#[a-z0-9-]+)?")


@dataclass(frozen=True)
class Erratum:
    """One error that a page had.

    Attributes:
        date: the day on which it was mended.
        at: the page and section, such as ``/chapters/memory.md#sectors``.
        wrong: what the page said or the code did.
        right: what it says or does now.
        commit: what mended it.
    """

    date: datetime.date
    at: str
    wrong: str
    right: str
    commit: str


def load(path: Path) -> list[Erratum]:
    """Read the errata.

    Args:
        path: the file.

    Returns:
        The entries, newest first; those of one day in the file's order.

    Raises:
        ValueError: the file is damaged or an entry incomplete; the message says where.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if not isinstance(data, list):
        raise ValueError(f"{path}: wants a list of entries")
    found = [entry_of(item, f"{path}, entry {i}") for i, item in enumerate(data, 1)]
    return sorted(found, key=lambda x: x.date, reverse=True)


def entry_of(data: Any, where: str) -> Erratum:
    """Return an entry, or raise a ValueError that says what it lacks."""
    names = {item.name for item in fields(Erratum)}
    if not isinstance(data, dict) or data.keys() != names:
        raise ValueError(f"{where}: wants {', '.join(sorted(names))}, got {data!r}")
    if type(data["date"]) is not datetime.date:
        raise ValueError(f"{where}: date wants a day, got {data['date']!r}")
    for name in ("at", "wrong", "right", "commit"):
        if not isinstance(data[name], str) or not data[name].strip():
            raise ValueError(f"{where}: {name} wants a text, got {data[name]!r}")
    if not PLACE.fullmatch(data["at"]):
        raise ValueError(f"{where}: at wants /chapters/STEM.md#section")
    if not COMMIT.fullmatch(data["commit"]):
        raise ValueError(f"{where}: commit wants a hash, got {data['commit']!r}")
    return Erratum(**data)


def markdown(entries: list[Erratum]) -> str:
    """Return the entries as the page's source."""
    blocks = []
    for entry in entries:
        wrong, right = (" ".join(x.split()) for x in (entry.wrong, entry.right))
        page, mark, _ = entry.at.partition("#")
        places = [page, entry.at] if mark else [page]
        blocks.append(
            f"{entry.date}, {', '.join(f'[](<{place}>)' for place in places)}\n"
            f": **Was.** {wrong}\n\n"
            f"  **Is.** {right} {{mended}}`{entry.commit[:7]}`\n"
        )
    return "\n".join(blocks)


class Errata(SphinxDirective):
    """``{errata}``: the list."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, "book", NAME)
        self.env.note_dependency(str(path))
        try:
            entries = load(path)
        except ValueError as error:
            raise self.error(str(error)) from error
        result = self.parse_text_to_nodes(markdown(entries))
        for node in result:
            if isinstance(node, nodes.definition_list):
                node["classes"].append("errata")
        return result


def mended(
    name: str, raw: str, text: str, *args: Any, **kwargs: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Show which commit mended an error."""
    return [nodes.inline(raw, f"Commit {text}.", classes=["mended"])], []


def setup(app: Sphinx) -> None:
    """Register the directive and the role."""
    app.add_directive("errata", Errata)
    app.add_role("mended", mended)
