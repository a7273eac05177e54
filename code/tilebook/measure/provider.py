"""Implementations to be compared: the book's kernels and their peers."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .timing import Call


@dataclasses.dataclass(frozen=True)
class Provider:
    """One implementation, ours or a peer's.

    Attributes:
        fn: takes the case's inputs, returns a tensor or several.
        ours: whether it is this book's.
        out: whether ``fn`` also takes ``out=``, and writes there. A peer that can,
            should: it saves it the allocation.
        build: makes ``fn`` when the case comes up, for what has to be compiled per
            shape; give this or ``fn``.
        nondeterministic: why repeats may differ in their bits; empty if they may not.
        bound: relative error allowed, where it isn't what the dtype and the length of
            the sum imply (`tilebook.testing.bound`).
    """

    fn: Callable[..., Any] | None = None
    ours: bool = False
    out: bool = False
    build: Callable[[], Callable[..., Any]] | None = None
    nondeterministic: str = ""
    bound: float | None = None

    def __post_init__(self) -> None:
        if (self.fn is None) == (self.build is None):
            raise ValueError("give fn or build, one of the two")


def compiled(fn: Callable[..., Any], **options: Any) -> Provider:
    """A peer: what torch.compile makes of a function, at full strength.

    Args:
        fn: in PyTorch's own operations.
        **options: for torch.compile, beside or instead of the defaults.

    Returns:
        A provider that compiles for one shape when that comes up, and that fails
        rather than fall back to eager mode.
    """
    asked = {
        "dynamic": False,
        "fullgraph": True,
        "mode": "max-autotune-no-cudagraphs",
    } | options

    def build() -> Callable[..., Any]:
        # A wrapper, because a built-in function has no code to compile.
        def call(*args: Any) -> Any:
            return fn(*args)

        return torch.compile(call, **asked)

    return Provider(build=build)


def calls(
    provider: Provider,
    sets: Sequence[tuple[Any, ...]],
    outputs: Sequence[torch.Tensor],
) -> list[Call]:
    """What is timed: a provider applied to each set of inputs.

    Args:
        provider: the implementation; built now if it has to be.
        sets: inputs, one tuple per set.
        outputs: a buffer per set, for a provider that takes ``out=``.

    Returns:
        One call per set.
    """
    fn = provider.fn or provider.build()
    if provider.out:
        pairs = zip(sets, outputs, strict=True)
        return [functools.partial(_into, fn, inputs, out) for inputs, out in pairs]
    return [functools.partial(fn, *inputs) for inputs in sets]


def _into(fn: Callable[..., Any], inputs: Sequence[Any], out: torch.Tensor) -> Any:
    result = fn(*inputs, out=out)
    return out if result is None else result
