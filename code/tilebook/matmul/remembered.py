"""Choices that outlive the process: a small file for each question once answered."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

FOLDER = "TILEBOOK_CACHE"
"""The environment variable that names the folder; "" keeps choices in this process."""

MOST_AT_HAND = 4096
"""Answers of which a process keeps the keys; then it begins anew."""


def folder() -> Path | None:
    """Where choices are kept.

    Returns:
        ``$TILEBOOK_CACHE`` if it is set, else ``tilebook`` below the user's cache
        folder; None if the variable is empty, or if there is no home.
    """
    if FOLDER in os.environ:
        named = os.environ[FOLDER]
        return Path(named).expanduser() if named else None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(home) / "tilebook"


class Memory:
    """Answers by question, in this process and on disk.

    Args:
        subject: what the questions are about; a folder's name.
        circumstances: what an answer depends on besides its question, such as the GPU
            and the versions: answers found under others are not seen.
        kept: whether answers go to the disk, and are looked for there.
    """

    def __init__(self, subject: str, circumstances: str, *, kept: bool = True) -> None:
        self.subject = subject
        self.circumstances = circumstances
        self._kept = kept
        self._known: dict[str, Any] = {}
        self.at_hand: dict[Hashable, Any] = {}
        """What `keep_at_hand` got, by key."""

    def keep_at_hand(self, key: Hashable, answer: Any) -> None:
        """Keep an answer in this process, for who can't wait for a question's text."""
        if len(self.at_hand) >= MOST_AT_HAND:
            self.at_hand.clear()
        self.at_hand[key] = answer

    def get(self, question: str) -> Any:
        """The answer, as JSON gives it back; None where there is none."""
        if question not in self._known and (path := self._path(question)):
            # Whatever the file holds, it is no reason to fail.
            with contextlib.suppress(
                OSError, ValueError, KeyError, TypeError, RecursionError
            ):
                found = json.loads(path.read_text(encoding="utf-8"))
                # A copied or edited file may be about something else.
                if found == self._stamp(question) | {"answer": found["answer"]}:
                    self._known[question] = found["answer"]
        return self._known.get(question)

    def put(self, question: str, answer: Any, *, kept: bool = True) -> None:
        """Keep an answer that JSON can hold; no error where nothing can be written.

        Args:
            question: what was asked.
            answer: what `get` will return.
            kept: whether it goes to the disk, too.

        Others may read and write at the same time: a file appears whole or not at all.
        """
        self._known[question] = json.loads(json.dumps(answer))
        self.at_hand.clear()
        if not kept or (path := self._path(question)) is None:
            return
        text = json.dumps(self._stamp(question) | {"answer": answer}, indent=1)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=path.parent, suffix=".new")
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
                raise

    def forget(self) -> None:
        """Drop what this process knows and what the disk has of this subject."""
        self._known.clear()
        self.at_hand.clear()
        if self._kept and (top := folder()):
            for path in (top / self.subject).glob("*.json"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _stamp(self, question: str) -> dict[str, str]:
        return {"question": question, "circumstances": self.circumstances}

    def _path(self, question: str) -> Path | None:
        if not self._kept or (top := folder()) is None:
            return None
        text = json.dumps(self._stamp(question), sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return top / self.subject / f"{name}.json"
