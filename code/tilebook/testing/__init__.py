"""How the book's code is tested, and how readers check their exercises.

What declares and checks exercises on arrays needs NumPy only (`core` and what it
imports); what needs torch is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilebook.testing.cases import expanded, extremes, layouts, lengths, shapes
    from tilebook.testing.closeness import assert_close, error, reference, sensitivity
    from tilebook.testing.declare import Case, CheckFailed, Exercise, Report
    from tilebook.testing.edge import check, exercise, exercises
    from tilebook.testing.guards import Guard, GuardError, guard, guarded
    from tilebook.testing.mutation import caught, mutants, mutated_module
    from tilebook.testing.precision import bound
    from tilebook.testing.repeat import deterministic, opcheck

__all__ = [
    "Case",
    "CheckFailed",
    "Exercise",
    "Guard",
    "GuardError",
    "Report",
    "assert_close",
    "bound",
    "caught",
    "check",
    "deterministic",
    "error",
    "exercise",
    "exercises",
    "expanded",
    "extremes",
    "guard",
    "guarded",
    "layouts",
    "lengths",
    "mutants",
    "mutated_module",
    "opcheck",
    "reference",
    "sensitivity",
    "shapes",
]

_HOMES = {
    "cases": ("expanded", "extremes", "layouts", "lengths", "shapes"),
    "closeness": ("assert_close", "error", "reference", "sensitivity"),
    "declare": ("Case", "CheckFailed", "Exercise", "Report"),
    "edge": ("check", "exercise", "exercises"),
    "guards": ("Guard", "GuardError", "guard", "guarded"),
    "mutation": ("caught", "mutants", "mutated_module"),
    "precision": ("bound",),
    "repeat": ("deterministic", "opcheck"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
