"""Claims about the world, marked with the tool and version they were checked against.

``{asof}`triton 3.7.1 2026-11``` says that the sentence before it was true of Triton
3.7.1 in November 2026. A test lists those older than what the book is built with.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from packaging.version import InvalidVersion, Version
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

log = logging.getLogger(__name__)
ROLE = re.compile(r"\{asof\}`([^`]*)`")
DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", re.M)


@dataclass(frozen=True)
class AsOf:
    """One dated claim: which tool, which version, which month."""

    tool: str
    version: Version
    date: str


def parse(text: str) -> AsOf:
    """Read ``TOOL VERSION YEAR-MONTH``.

    Args:
        text: the role's content.

    Returns:
        The claim's tool, version and month.

    Raises:
        ValueError: a part is missing or malformed; the message shows what came.
    """
    parts = text.split()
    try:
        tool, version, date = parts
        claim = AsOf(tool.lower(), Version(version), date)
    except (ValueError, InvalidVersion) as error:
        raise ValueError(
            f"asof wants 'TOOL VERSION YEAR-MONTH', got {text!r}"
        ) from error
    if not DATE.fullmatch(date):
        raise ValueError(f"asof wants a month such as 2026-11, got {date!r}")
    return claim


def found_in(path: Path) -> list[tuple[int, AsOf]]:
    """Return a page's dated claims with their line numbers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        (number, parse(match[1]))
        for number, line in enumerate(lines, 1)
        for match in ROLE.finditer(line)
    ]


def newest_pins(folder: Path) -> dict[str, Version]:
    """Return the newest version that any requirements file pins, by tool."""
    pins: dict[str, Version] = {}
    for path in sorted(folder.glob("*.txt")):
        for tool, text in PIN.findall(path.read_text(encoding="utf-8")):
            version = Version(text)
            pins[tool.lower()] = max(version, pins.get(tool.lower(), version))
    return pins


class AsOfRole(SphinxRole):
    """Show a dated claim's mark."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            claim = parse(self.text)
        except ValueError as error:
            log.warning("%s", error, location=self.get_location(), type="asof")
            return [nodes.problematic(self.text, self.text)], []
        text = f"as of {claim.tool} {claim.version}, {claim.date}"
        return [nodes.inline("", text, classes=["asof"])], []


def setup(app: Sphinx) -> None:
    """Register the role."""
    app.add_role("asof", AsOfRole())
