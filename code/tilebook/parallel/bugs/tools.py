"""The tools of the gallery: each looks at one case and says what it found."""

import contextlib
from typing import Any

from triton.compiler import CompilationError

from tilebook import compile_only, device, interpreter, testing
from tilebook.parallel.bugs.bug import Bug, Case, Launch, Tool


def _complaint(bug: Bug, case: Case, *inputs: Any) -> str | None:
    """What assert_close says of one call, against the truth."""
    out = case.run(*inputs)
    try:
        testing.assert_close(out, bug.truth(*inputs), length=bug.length)
    except AssertionError as error:
        return str(error)
    return None


def _poison(bug: Bug, case: Case) -> str | None:
    with testing.guarded():
        return _complaint(bug, case, *bug.inputs())


def _guards(bug: Bug, case: Case) -> str | None:
    inputs = bug.inputs()
    try:
        with testing.guarded():
            plan = case.launch(*inputs)
            with _guards_in_reach(plan):
                case.kernel[plan.grid](*plan.args, **plan.meta)
    except testing.GuardError as error:
        return str(error)
    return None


def _guards_in_reach(plan: Launch) -> contextlib.AbstractContextManager[None]:
    """Keep the interpreter's bounds check from speaking before the guards do."""
    if not device.interpreting():
        return contextlib.nullcontext()
    storage = plan.out.untyped_storage()
    count = storage.nbytes() // plan.out.element_size()
    return interpreter.allow(plan.out.new_empty(0).set_(storage, 0, (count,)))


def _bounds(bug: Bug, case: Case) -> str | None:
    return case.look(*bug.inputs()).error


def _ownership(bug: Bug, case: Case) -> str | None:
    owners = case.look(*bug.inputs()).ownership("out_ptr")
    missed = (owners < 0).nonzero()[0]
    if not len(missed):
        return None
    return (
        f"{len(missed)} of {owners.size} elements of out_ptr have no owner, the "
        f"first is {missed[0]}; program {owners[0]} owns element 0, program "
        f"{owners[1]} element 1, program {owners[2]} element 2"
    )


def _races(bug: Bug, case: Case) -> str | None:
    races = case.look(*bug.inputs()).races()
    return str(races[0]) if len(races) else None


def _lengths(bug: Bug, case: Case) -> str | None:
    data, *rest = bug.inputs()
    for n in testing.lengths():
        if 0 < n <= data.numel():
            complaint = _complaint(bug, case, data[:n], *rest)
            if complaint:
                return f"n = {n}: {complaint}"
    return None


def _float64(bug: Bug, case: Case) -> str | None:
    return _complaint(bug, case, *bug.inputs())


def _extremes(bug: Bug, case: Case) -> str | None:
    data, *rest = bug.inputs()
    special = testing.extremes(data.dtype).to(data.device)
    return _complaint(bug, case, special, *rest)


def _layouts(bug: Bug, case: Case) -> str | None:
    *first, last = bug.friendly()
    complaints = {
        name: complaint
        for name, variant in testing.layouts(last)
        if (complaint := _complaint(bug, case, *first, variant))
    }
    if not complaints:
        return None
    name, complaint = complaints.popitem()
    others = f" (and {', '.join(complaints)})" if complaints else ""
    return f"last input {name}{others}: {complaint}"


def _compiler(bug: Bug, case: Case) -> str | None:
    plan = case.launch(*bug.inputs())
    try:
        compile_only.compile(case.kernel, *plan.args, **plan.meta)
    except CompilationError as error:
        return str(error)
    return None


POISON = Tool("poisoned outputs, testing.guarded()", _poison)
GUARDS = Tool("guard bands, testing.guarded()", _guards)
BOUNDS = Tool("the interpreter's bounds check, microscope.look()", _bounds)
OWNERSHIP = Tool("who wrote what, Look.ownership()", _ownership)
RACES = Tool("shared elements, Look.races()", _races)
LENGTHS = Tool("ragged lengths, testing.lengths()", _lengths)
FLOAT64 = Tool("a float64 reference, testing.reference()", _float64)
EXTREMES = Tool("special values, testing.extremes()", _extremes)
LAYOUTS = Tool("every layout, testing.layouts()", _layouts)
COMPILER = Tool("the compiler, compile_only.compile()", _compiler)
