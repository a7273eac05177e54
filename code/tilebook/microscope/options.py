"""What a launch may be given by keyword: parameters, and options of Triton's."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from typing import Any

from triton.backends import backends

from tilebook import _ship


def check(kernel: Any, keywords: Iterable[str]) -> None:
    """Refuse what a compiled launch would refuse; the interpreter drops it silently.

    Args:
        kernel: a bare jitted function.
        keywords: the names that a launch is given.

    Raises:
        TypeError: one of them is neither a parameter nor an option.
    """
    allowed = set(kernel.arg_names) | launch_options()
    unknown = [name for name in keywords if name not in allowed]
    if unknown:
        names, parameters = map(", ".join, (map(repr, unknown), kernel.arg_names))
        plural = "s" * (len(unknown) > 1)
        raise TypeError(
            f"{_ship.kernel_name(kernel)} got unexpected keyword argument{plural} "
            f"{names}: neither a parameter ({parameters}) nor a launch option of Triton"
        )


@functools.cache
def launch_options() -> frozenset[str]:
    """Name the options that this Triton takes at a launch, such as num_warps.

    Returns:
        Those of every GPU it compiles for, as a look is at none in particular: the
        fields of the options classes beside its backends' compilers.
    """
    found: set[str] = set()
    for backend in backends.values():
        for value in vars(sys.modules[backend.compiler.__module__]).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                names = {field.name for field in dataclasses.fields(value)}
                # Other records lie there too, the compiler's target for one.
                found |= names if "num_warps" in names else set()
    return frozenset(found)
