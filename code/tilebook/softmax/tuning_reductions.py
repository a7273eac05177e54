"""Ways to launch reductions and `topk`, for `tools/tune.py`; see `tuning`."""

import functools
import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from tilebook.measure import Bench, Provider
from tilebook.softmax import axes, experiments_reductions, groups, reductions
from tilebook.softmax.compiled import launches
from tilebook.softmax.experiments_reductions import ALL, ELEMENTS, REDUCTIONS
from tilebook.tiling.tuning import setting

DTYPE = torch.bfloat16
OPS = ("sum", "var", "argmax", "logsumexp")
Knobs = dict[tuple[ModuleType, str], tuple[int, ...]]
# What follows from these constants, for rows, columns, everything and short rows: other
# values than those of today.
TILES: Knobs = {
    (axes, "MOST_WARPS"): (4, 16),
    (axes, "WARP_BYTES"): (2048, 8192),
    (axes, "LANE_REGISTERS"): (16, 64),
}
LINES: Knobs = {
    (axes, "MOST_WARPS"): (4, 16),
    (axes, "WARP_BYTES"): (1024, 2048),
    (axes, "COLUMNS"): (64, 128),
}
SPLITS: Knobs = {
    (axes, "MOST_BYTES"): (2048, 8192),
    (axes, "IN_FLIGHT_BYTES"): (2**22, 2**24),
    (axes, "LEAST_STEPS"): (2, 8),
}
EDGES: Knobs = {(axes, "LEAST_VECTORS"): (4, 64)}
CASES: tuple[tuple[tuple[str, ...], tuple[int, int, int], Knobs], ...] = (
    (OPS, (ELEMENTS // 4096, 4096, 1), TILES),
    (OPS, (8192, 8192, 0), LINES),
    (OPS, (1, ELEMENTS, ALL), SPLITS),
    (("sum",), (ELEMENTS // 4097, 4097, 1), TILES),
    (("sum", "argmax"), (ELEMENTS // 65, 65, 1), EDGES),
    (("sum", "argmax"), (ELEMENTS // 257, 257, 1), EDGES),
)
ALONG: Knobs = {
    (axes, "ROW_BYTES"): (1024, 4096, 8192, 16384),
    (axes, "WARP_BYTES"): (512, 1024, 2048, 4096),
}
ACROSS: Knobs = {
    (axes, "WARP_BYTES"): (512, 1024, 4096),
    (axes, "MOST_WARPS"): (8, 16),
    (axes, "LINE_BYTES"): (128, 512),
    (axes, "COLUMNS"): (32, 64, 256),
    (axes, "LEAST_STEPS"): (1, 4),
}
"""All together, for rows and for the rest: what one is worth depends on the others."""
PLANNED: tuple[tuple[torch.dtype, tuple[int, int, int]], ...] = tuple(
    (dtype, case)
    for dtype in (torch.bfloat16, torch.float32)
    for case in (
        *((ELEMENTS // n, n, 1) for n in (1024, 4096, 4097, 32768)),
        *((ELEMENTS // n, n, 0) for n in (8192, 8193)),
        *((1, ELEMENTS, ALL), (1000, 1000, 1), (1000, 1000, 0)),
    )
)
PLANNED_OPS = ("sum", "var")
SORTS: Knobs = {
    (groups, "WARP_KEYS"): (512, 2048),
    (groups, "MANY"): (8, 512),
    (axes, "MOST_WARPS"): (4, 16),
    (axes, "MOST_BYTES"): (2048, 8192),
}
LARGEST = (8, 64, 128)
"""How many elements are looked for."""
LENGTHS = (1024, 32768, 131072)
"""Elements of the rows that they are looked for in."""


def settings(fn: Any, knobs: Knobs) -> Iterator[tuple[str, Any]]:
    """A function as it is, and as it were with one constant at a time changed.

    Args:
        fn: looks the constants up when it is called.
        knobs: other values by module and name.

    Yields:
        What is different, and the function.
    """
    yield "shipped", fn
    for (module, name), values in knobs.items():
        for value in values:
            yield f"{name}={value}", setting(module, fn, **{name: value})


def plans(
    op: str, m: int, n: int, direction: int, dtype: torch.dtype
) -> dict[str, Any]:
    """A reduction under every combination of constants that launches another thing.

    Args:
        op: its name.
        m, n: of the matrix.
        direction: what is reduced of it: 1 rows, 0 columns, 2 everything.
        dtype: of its elements.

    Returns:
        Functions of the matrix by name; first, the reduction as it is.
    """
    dim = None if direction == ALL else direction
    x = torch.empty((m, n), dtype=dtype, device="meta")

    def launched() -> str:
        # What merges parts reads next to nothing, however it is launched.
        _, args, meta = launches(op, x, dim)[0]
        numbers = [arg for arg in args if not isinstance(arg, torch.Tensor)]
        return str((numbers, meta))

    fn = functools.partial(REDUCTIONS[op].ours, dim=dim)
    found, known = {"shipped": fn}, {launched()}
    knobs = ALONG if direction == 1 else ACROSS
    for values in itertools.product(*knobs.values()):
        constants = {name: v for (_, name), v in zip(knobs, values, strict=True)}
        told = setting(axes, launched, **constants)()
        if told not in known:
            known.add(told)
            name = " ".join(map(str, values))
            found[name] = setting(axes, fn, **constants)
    return found


def planned(bench: Bench) -> None:
    """Tiles, warps and parts of reductions, in every combination."""
    for dtype, case in PLANNED:
        for op in PLANNED_OPS:
            _compare(bench, op, case, dtype, plans(op, *case, dtype))


def reduced(bench: Bench) -> None:
    """Tiles, parts and edges of reductions."""
    for ops, case, knobs in CASES:
        dim = None if case[2] == ALL else case[2]
        for op in ops:
            fn = functools.partial(REDUCTIONS[op].ours, dim=dim)
            _compare(bench, op, case, DTYPE, dict(settings(fn, knobs)))


def _compare(
    bench: Bench,
    op: str,
    case: tuple[int, int, int],
    dtype: torch.dtype,
    ways: dict[str, Any],
) -> None:
    m, n, direction = case
    dim = None if direction == ALL else direction
    outputs = 1 if dim is None else n if dim == 0 else m
    bench.compare(
        # The tuner knows a case by its shape: numbers, as those of directions.
        shape={"m": m, "n": n, "dim": direction, "which": OPS.index(op)},
        dtype=dtype,
        providers={name: Provider(way, ours=True) for name, way in ways.items()},
        make_inputs=functools.partial(
            experiments_reductions.inputs, op, m, n, direction, dtype
        ),
        make_output=lambda x: x.new_empty(outputs),
        reference=functools.partial(REDUCTIONS[op].torch, dim=dim),
        bytes=m * n * dtype.itemsize,
        length=m * n // outputs,
        regimes=("cold",),
    )


def _values(x: torch.Tensor, k: int) -> torch.Tensor:
    return reductions.topk(x, k)[0]


def sorted_out(bench: Bench) -> None:
    """Keys, warps and tiles of `topk`."""
    for n in LENGTHS:
        m = max(1, ELEMENTS // n)
        for k in LARGEST:
            fn = functools.partial(_values, k=k)
            bench.compare(
                shape={"m": m, "n": n, "k": k},
                dtype=DTYPE,
                providers={
                    name: Provider(way, ours=True) for name, way in settings(fn, SORTS)
                },
                make_inputs=functools.partial(
                    experiments_reductions.inputs, "topk", m, n, 1, DTYPE
                ),
                make_output=lambda x, kept=m * k: x.new_empty(kept),
                reference=lambda x, k=k: torch.topk(x, k, dim=1).values,
                bytes=m * n * DTYPE.itemsize,
                along=0,
                regimes=("cold",),
            )


CONTESTS = {"reductions": reduced, "plans": planned, "topk": sorted_out}
"""By name, what `tools/tune.py` runs."""
