"""What can be said of an attempt from its source alone (no torch, no Triton)."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

_ALIASES = {"tl": ("triton.language", "language")}


def python_function(target: Any) -> FunctionType | None:
    """The Python function inside a kernel, however often it is wrapped.

    Args:
        target: jitted kernel, autotuner, decorated or plain function.

    Returns:
        The function, or None if there is none.
    """
    seen = target
    while not isinstance(seen, FunctionType):
        inner = getattr(seen, "fn", None) or getattr(seen, "__wrapped__", None)
        if inner is None or inner is seen:
            return None
        seen = inner
    return seen


def is_kernel(target: Any) -> bool:
    """Whether something is a jitted kernel: it wraps a function and takes a grid."""
    return (
        not isinstance(target, FunctionType)
        and hasattr(type(target), "__getitem__")
        and isinstance(python_function(target), FunctionType)
    )


def signature_problem(kernel: Any, parameters: Sequence[str]) -> str | None:
    """What is wrong with a kernel's parameters.

    Args:
        kernel: what the reader handed in.
        parameters: names it must have, in order.

    Returns:
        A sentence, or None.
    """
    wanted = ", ".join(parameters)
    if not is_kernel(kernel):
        # kernel[grid] is a lambda of Triton's own.
        if isinstance(kernel, FunctionType) and kernel.__name__ != "<lambda>":
            what = f"{kernel.__name__} is a plain function: put @triton.jit above it."
        else:
            what = f"Got {type(kernel).__name__}: hand in the kernel, without a grid."
        return f"{what} Its parameters should be ({wanted})."
    names = list(inspect.signature(python_function(kernel)).parameters)
    if names == list(parameters):
        return None
    return (
        f"The kernel's parameters are ({', '.join(names)}); they should be ({wanted}), "
        "in this order."
    )


def name_problem(
    attempt: Any, required: Sequence[str], forbidden: Sequence[str]
) -> str | None:
    """Which names an attempt's source uses and shouldn't, or should and doesn't.

    Args:
        attempt: kernel or function.
        required: dotted names, such as ``tl.dot``; matched by their last parts, so
            ``triton.language.dot`` is one; a name without a dot is met by methods
            too. Functions it calls from its own module are looked into as well.
        forbidden: likewise.

    Returns:
        A sentence, or None; None also where the source can't be read.
    """
    if not required and not forbidden:
        return None
    used = set().union(*(_names(fn) for fn in _reachable(attempt)), set())
    if not used:
        return None
    for name in forbidden:
        if _matches(name, used):
            return f"It uses {name}, which this exercise does without."
    for name in required:
        if _matches(name, used):
            continue
        if name in inspect.signature(python_function(attempt)).parameters:
            return f"It does not use {name}: is a number in its place?"
        return f"It does not use {name}, which this exercise is about."
    return None


def _reachable(attempt: Any) -> Iterator[FunctionType]:
    """The function and those it calls that were defined beside it."""
    start = python_function(attempt)
    todo: list[Callable[..., Any]] = [start] if start else []
    seen: set[int] = set()
    while todo:
        fn = todo.pop()
        if id(fn) in seen:
            continue
        seen.add(id(fn))
        yield fn
        for name in fn.__code__.co_names:
            other = python_function(fn.__globals__.get(name))
            if other is not None and other.__module__ == fn.__module__:
                todo.append(other)


def _names(fn: FunctionType) -> set[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, SyntaxError, TypeError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            found.add("@")
    return found


def _matches(name: str, used: set[str]) -> bool:
    prefix, _, last = name.rpartition(".")
    if not prefix:
        return any(text.rpartition(".")[2] == last for text in used)
    prefixes = {prefix, *_ALIASES.get(prefix, ())}
    return any(f"{prefix}.{last}" in used for prefix in prefixes)
