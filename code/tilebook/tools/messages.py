"""What an entry of the dictionary is."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import triton

from tilebook import compile_only, device

COUNT, BLOCK = 100, 64
"""Arguments of every mistake's launch."""


@dataclass(frozen=True)
class Entry:
    """One message.

    Args:
        name: key in the dictionary.
        pattern: regular expression of what is the same in it whoever meets it.
        cause: what was written.
        mend: what to write instead.
        provoke: runs into it.
        gpu: whether that takes one.
        since: the first version of Triton that accepts what was written, if any does.
        hides: whether the last line of the traceback says something else, or nothing.
    """

    name: str
    pattern: str
    cause: str
    mend: str
    provoke: Callable[[], object] = field(repr=False)
    gpu: bool = False
    since: str | None = None
    hides: bool = False

    @property
    def here(self) -> bool:
        """Whether it can be provoked in this process."""
        late = self.since is not None and _version(triton.__version__) >= _version(
            self.since
        )
        return not late and not (self.gpu and device.interpreting())

    @property
    def code(self) -> str:
        """The kernel that is refused, by its name in `mistakes`; empty for others."""
        kernel = getattr(self.provoke, "args", (None,))[0]
        return getattr(kernel, "__name__", "")


def _compiled(kernel: Any, **more: Any) -> None:
    """Compile with the arguments that all mistakes have."""
    x = torch.empty(4096, device="meta")
    meta = {"BLOCK": BLOCK} | more
    given = {name: value for name, value in meta.items() if value is not None}
    compile_only.compile(kernel, x, x, COUNT, **given)


def refused(
    name: str, kernel: Any, pattern: str, cause: str, mend: str, **more: Any
) -> Entry:
    """Make the entry of a kernel that the compiler refuses, given launch options."""
    options = {key: more.pop(key) for key in ("since", "hides") if key in more}
    provoke = functools.partial(_compiled, kernel, **more)
    return Entry(name, pattern, cause, mend, provoke, **options)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
