"""``check``: the book's exercises, found by name and tried on this device."""

import difflib
import importlib.util
import pkgutil
from collections.abc import Iterator
from typing import Any

from tilebook.testing.backend import Backend
from tilebook.testing.core import run
from tilebook.testing.declare import Exercise, Report


def check(
    name: str | Exercise, attempt: Any, *, seed: int | None = None, quiet: bool = False
) -> Report:
    """Check an attempt at one of the book's exercises.

    Args:
        name: the exercise's, such as ``"parallel-scale"`` (or the exercise itself).
        attempt: what it asks for: a kernel, a function or an answer.
        seed: repeats a check that failed; its message says which seed it had.
        quiet: don't print that it is right.

    Returns:
        What was tried. An attempt that is wrong raises.

    Raises:
        CheckFailed: an AssertionError whose message has the first case that fails,
            the first wrong element, how many are wrong, and a likely reason.
        LookupError: there is no such exercise.
    """
    task = name if isinstance(name, Exercise) else exercise(name)
    report = run(task, attempt, _backend(), seed)
    if not quiet:
        print(report)
    return report


def _backend() -> Backend:
    """Tensors on this device; NumPy's arrays where there is no torch, as in a page."""
    if importlib.util.find_spec("torch") is None:
        from tilebook.testing.numpy_backend import NumpyBackend

        return NumpyBackend()
    from tilebook import device
    from tilebook.testing.torch_backend import TorchBackend

    return TorchBackend(device.torch_device())


def exercise(name: str) -> Exercise:
    """One of the book's exercises.

    Args:
        name: chapter and task, such as ``"parallel-scale"`` or ``"puzzle-08"``.

    Returns:
        Its declaration: statement, hint and so on.

    Raises:
        LookupError: there is none of that name; the message has similar ones.
    """
    known: dict[str, Exercise] = {}
    for chapter in _chapters():
        stem = chapter.replace("_", "-")
        # The plural of an exercise's first word will do: puzzle-08 is in puzzles.
        if name.startswith((f"{stem}-", f"{stem.removesuffix('s')}-")):
            known.update(exercises(chapter))
    if name in known:
        return known[name]
    known = exercises()
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    listed = ", ".join(close or sorted(known)) or "none"
    raise LookupError(f"no exercise is called {name!r}; there is: {listed}")


def exercises(chapter: str | None = None) -> dict[str, Exercise]:
    """The exercises of a chapter, or of the whole book.

    Args:
        chapter: module name, such as ``"parallel"``; None for all.

    Returns:
        Name to exercise, in the order of their declaration.
    """
    found: dict[str, Exercise] = {}
    for module in [chapter] if chapter else _chapters():
        space = vars(importlib.import_module(f"tilebook.{module}.exercises"))
        for value in space.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, Exercise):
                    found[item.name] = item
    return found


def _chapters() -> Iterator[str]:
    """Subpackages of the book that have an ``exercises`` module."""
    book = importlib.import_module("tilebook")
    for module in pkgutil.iter_modules(book.__path__):
        inside = [f"{path}/{module.name}" for path in book.__path__]
        if any(m.name == "exercises" for m in pkgutil.iter_modules(inside)):
            yield module.name
