"""The shapes of a kernel's values, as a chapter shows them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tilebook.microscope import launches


def shapes(
    kernel: Any,
    grid: launches.Grid,
    *args: Any,
    expressions: bool = False,
    helpers: bool = False,
    **meta: Any,
) -> pd.DataFrame:
    """Run a kernel under the interpreter and tabulate what it computes.

    Args:
        kernel: as for `look`.
        grid: as for `look`.
        args: as for `look`; tensors are changed as the kernel changes them.
        expressions: list what has no name as well, under its text.
        helpers: list the values of the functions that the kernel calls as well.
        meta: as for `look`.

    Returns:
        Columns name, shape, dtype and line, and function before them with `helpers`.
        A row for each name when it is first assigned, and when it is assigned another
        shape or dtype; so a loop shows its first round. What is known when compiling,
        a constexpr or a Python number, is no tile and has no row.

    Raises:
        TypeError: see `look`.
        Exception: the kernel's own.
    """
    launch = launches.prepare(kernel, grid, args, meta)
    log = launch.record(expressions=expressions)
    if log.error is not None:
        raise log.error
    own = launch.kernel.fn.__name__
    rows: dict[tuple[Any, ...], int] = {}
    for step in log.shapes:
        if helpers or step.function == own:
            row = (step.function, step.name, step.shape, step.dtype)
            rows.setdefault(row, step.line)
    frame = pd.DataFrame(
        [(*row, line) for row, line in rows.items()],
        columns=["function", "name", "shape", "dtype", "line"],
    )
    return frame if helpers else frame.drop(columns="function")
