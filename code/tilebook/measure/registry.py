"""Experiments, the numbers that prose quotes from them, and what it claims of them.

All three are declared in a chapter's ``experiments.py`` and found by name: experiment
``"softmax-bandwidth"`` lives in ``tilebook.softmax.experiments``.
"""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tilebook

from . import digest
from .errors import UnknownExperiment

if TYPE_CHECKING:
    from .record import Record

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of a chapter, as a predicate over a record.

    Attributes:
        name: the predicate's name.
        text: the sentence, as the page says it.
        holds: takes the record; returns whether it holds, or that and a detail.
    """

    name: str
    text: str
    holds: Callable[["Record"], bool | tuple[bool, str]]

    def broken(self, record: "Record") -> str | None:
        """Say why the claim doesn't hold for a record.

        Args:
            record: a record of the claim's experiment.

        Returns:
            None where the claim holds, else a detail (possibly empty).
        """
        try:
            answer = self.holds(record)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            return f"cannot be told from this record: {error}"
        holds, detail = answer if isinstance(answer, tuple) else (answer, "")
        return None if holds else detail


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What to measure, and the code whose change makes a measurement stale.

    Attributes:
        name: ``chapter-name``.
        question: the question it answers, in one line.
        op: the operator measured, the default for its rows.
        modules: dotted names below ``tilebook`` of the modules measured.
        needs: a feature that `tilebook.device.has` knows.
        function: takes a `Bench` and returns or yields rows.
    """

    name: str
    question: str
    op: str
    modules: tuple[str, ...]
    needs: str
    function: Callable[..., Any]

    def digest(self) -> dict[str, str]:
        """Hash the code that decides what this experiment would measure today.

        Returns:
            Digest by module, imports of other chapter modules included, and under
            ``"experiment"`` that of the function that measures.
        """
        source = Path(inspect.getfile(self.function)).read_text(encoding="utf-8")
        own = digest.of_function(source, self.function.__name__)
        return {"experiment": own} | digest.of_modules(self.modules)


_experiments: dict[str, Experiment] = {}
_values: dict[str, dict[str, Callable[["Record"], float | int | str]]] = {}
_claims: dict[str, dict[str, Claim]] = {}


def experiment(
    name: str,
    *,
    question: str,
    op: str,
    modules: Iterable[str],
    needs: str = "gpu",
) -> Callable[[Function], Function]:
    """Declare an experiment: a function that takes a `Bench` and gives its rows.

    Args:
        name: ``chapter-name``: the chapter's stem, a dash, and what is measured.
        question: the question it answers, in one line.
        op: the operator measured.
        modules: dotted names below ``tilebook`` of the modules measured. When the code
            of one of them changes, or of a chapter module that one imports, the record
            is stale. At least one.
        needs: the feature it needs (see `tilebook.device.has`).

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        ValueError: the name is malformed or taken, or no module is named.
    """
    names = (modules,) if isinstance(modules, str) else tuple(modules)
    if not re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)+", name):
        raise ValueError(f"name must be like 'chapter-what-is-measured', got {name!r}")
    if not names:
        raise ValueError(f"modules must name what {name!r} measures, got none")

    def declare(function: Function) -> Function:
        taken = _experiments.get(name)
        if taken and _origin(taken.function) != _origin(function):
            raise ValueError(
                f"name {name!r} is taken by {'.'.join(_origin(taken.function))}"
            )
        _experiments[name] = Experiment(name, question, op, names, needs, function)
        return function

    return declare


def value(name: str) -> Callable[[Function], Function]:
    """Declare a number (or word) that prose quotes from an experiment's record.

    Args:
        name: the experiment's name. The value's name is the function's.

    Returns:
        A decorator for a function that takes a `Record` and returns a finite number or
        a string, and that it leaves as it is.
    """

    def declare(function: Function) -> Function:
        _values.setdefault(name, {})[function.__name__] = function
        return function

    return declare


def claim(name: str, text: str) -> Callable[[Function], Function]:
    """Declare what a chapter concludes from an experiment's record.

    Args:
        name: the experiment's name.
        text: the conclusion as the page says it.

    Returns:
        A decorator for a predicate: it takes a `Record` and returns whether the claim
        holds, or a pair of that and a detail. It is left as it is.
    """

    def declare(function: Function) -> Function:
        held = Claim(function.__name__, text, function)
        _claims.setdefault(name, {})[held.name] = held
        return function

    return declare


def find(name: str) -> Experiment:
    """Find an experiment by its name, importing its chapter if need be.

    Args:
        name: ``chapter-name``.

    Returns:
        The experiment.

    Raises:
        UnknownExperiment: no chapter declares it; near names are listed.
    """
    if name not in _experiments:
        module = f"tilebook.{name.split('-')[0]}.experiments"
        if module in _homes():
            importlib.import_module(module)
    if name not in _experiments:
        known = sorted(_experiments.keys() | {e.name for e in experiments()})
        near = difflib.get_close_matches(name, known)
        hint = f"; is it {' or '.join(near)}?" if near else ""
        if known and not near:
            hint = f"; there are {', '.join(known)}"
        raise UnknownExperiment(f"no chapter declares an experiment {name!r}{hint}")
    return _experiments[name]


def experiments() -> list[Experiment]:
    """Import every chapter's experiments.

    Returns:
        All experiments, by name.
    """
    for module in _homes():
        importlib.import_module(module)
    return [_experiments[name] for name in sorted(_experiments)]


def values(name: str) -> dict[str, Callable[["Record"], float | int | str]]:
    """The functions that derive an experiment's quoted values.

    Args:
        name: the experiment's name.

    Returns:
        Function by value name.

    Raises:
        UnknownExperiment: no chapter declares the experiment.
    """
    return dict(_values.get(find(name).name, {}))


def claims(name: str) -> list[Claim]:
    """What the chapter concludes from an experiment.

    Args:
        name: the experiment's name.

    Returns:
        Its claims in the order they are declared in.

    Raises:
        UnknownExperiment: no chapter declares the experiment.
    """
    return list(_claims.get(find(name).name, {}).values())


def _homes() -> list[str]:
    """The modules that declare experiments: every chapter's ``experiments``."""
    found = []
    for info in pkgutil.iter_modules(tilebook.__path__, "tilebook."):
        if info.ispkg and info.name.split(".")[1] not in digest.FOUNDATION:
            folder = Path(info.module_finder.path) / info.name.split(".")[1]
            if (folder / "experiments.py").is_file():
                found.append(f"{info.name}.experiments")
    return found


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
