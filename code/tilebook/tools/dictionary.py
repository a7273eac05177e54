"""What Triton's messages mean: each is provoked when it is looked up.

print(tools.dictionary.said("ragged-range"))
tools.dictionary.table()
tools.dictionary.look_up("Loop-carried variable acc has initial type ...")
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd
import triton

from tilebook.tools.messages import Entry
from tilebook.tools.messages_language import LANGUAGE
from tilebook.tools.messages_launch import LAUNCH

ENTRIES = (*LANGUAGE, *LAUNCH)

DICTIONARY = {entry.name: entry for entry in ENTRIES}
"""Entries by name."""


def said(name: str) -> str:
    """Provoke a message and return the line of it that tells.

    Args:
        name: of the entry.

    Returns:
        The line.

    Raises:
        LookupError: nothing was said: this Triton accepts it.
    """
    try:
        DICTIONARY[name].provoke()
    except Exception as error:
        return reason(error)
    raise LookupError(f"{name}: triton {triton.__version__} has nothing against it")


def reason(error: BaseException) -> str:
    """Find the line of an exception that says why.

    Args:
        error: of the compiler, of a launch, or of the interpreter.

    Returns:
        The last line that is more than a mark below a source line; if there is none,
        that of the first error of which this one is a consequence.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    shown = bool(lines) and re.match(r"at \d+:\d+:$", lines[0])
    marked = [number for number, line in enumerate(lines) if line.strip() == "^"]
    after = lines[marked[-1] + 1 :] if shown and marked else lines[-1:]
    if after:
        return _unwrapped(after[-1].strip())
    cause = error.__cause__
    if cause is None:
        return str(error).strip()
    # A traceback as text, where the compiler ran in another process.
    first = re.findall(r"^[\w.]*Error: (?!at \d+:\d+:)(.+)$", str(cause), re.M)
    return first[0] if first else reason(cause)


def _unwrapped(line: str) -> str:
    """Take off the class that the compiler's message repeats."""
    if match := re.fullmatch(r"\w+\((['\"])(.*)\1\)", line):
        return line if line.startswith("NameError('") else match[2]
    return line


def look_up(message: str) -> tuple[Entry, ...]:
    """Find the entries of a message.

    Args:
        message: any part of a traceback that contains the line.

    Returns:
        Those whose pattern it has: mostly one, none if it isn't known.
    """
    return tuple(entry for entry in ENTRIES if re.search(entry.pattern, message))


def table(entries: Iterable[Entry] = ENTRIES) -> pd.DataFrame:
    """Provoke every message that can be here and tabulate what was said.

    Args:
        entries: which; all by default.

    Returns:
        Columns message, cause, mend; a message that takes a GPU, where there is none,
        or that this Triton no longer has, is given as its pattern, in parentheses.
    """
    rows = []
    for entry in entries:
        message = said(entry.name) if entry.here else f"({_plain(entry.pattern)})"
        rows.append((entry.name, _short(message), entry.cause, entry.mend))
    frame = pd.DataFrame(rows, columns=["name", "message", "cause", "mend"])
    return frame.set_index("name")


def _short(message: str, most: int = 110) -> str:
    # Where a function lies in memory is nobody's business.
    message = re.sub(r" at 0x[0-9a-f]+", "", message).strip("'\"")
    return message if len(message) <= most else message[: most - 1] + "…"


def _plain(pattern: str) -> str:
    return re.sub(r"\\w\+|\\d\+?", "…", pattern).replace("\\", "").replace(".*", "…")
