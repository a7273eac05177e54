"""Replacing attributes of Triton's interpreter, so that it can be undone."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

_MISSING = object()
_applied: list[tuple[Any, str, Any, Any]] = []


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `make` builds from the one that is there.

    Args:
        owner: a class or a module.
        name: the attribute; it need not exist.
        make: gets the present value (None if there is none), returns the new one.
    """
    old = getattr(owner, name, _MISSING)
    new = make(None if old is _MISSING else old)
    setattr(owner, name, new)
    _applied.append((owner, name, old, new))


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Put everything back as Triton ships it, for as long as the context lasts."""
    for owner, name, old, _ in reversed(_applied):
        if old is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, old)
    try:
        yield
    finally:
        for owner, name, _, new in _applied:
            setattr(owner, name, new)
