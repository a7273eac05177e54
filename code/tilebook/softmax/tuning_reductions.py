"""Ways to launch reductions and `topk`, for `tools/tune.py`; see `tuning`."""

import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from tilebook.measure import Bench, Provider
from tilebook.softmax import axes, experiments_reductions, groups, reductions
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
    (axes, "WARP_BYTES"): (2048, 8192),
    (axes, "LINE_BYTES"): (256, 1024),
}
SPLITS: Knobs = {
    (axes, "WARP_BYTES"): (2048, 8192),
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
SORTS: Knobs = {
    (groups, "WARP_KEYS"): (512, 2048),
    (groups, "MANY"): (8, 512),
    (axes, "MOST_WARPS"): (4, 16),
    (axes, "WARP_BYTES"): (2048, 8192),
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


def reduced(bench: Bench) -> None:
    """Tiles, parts and edges of reductions."""
    for ops, (m, n, direction), knobs in CASES:
        dim = None if direction == ALL else direction
        outputs = 1 if dim is None else n if dim == 0 else m
        for op in ops:
            fn = functools.partial(REDUCTIONS[op].ours, dim=dim)
            theirs = functools.partial(REDUCTIONS[op].torch, dim=dim)
            bench.compare(
                # The tuner knows a case by its shape: numbers, as those of directions.
                shape={"m": m, "n": n, "dim": direction, "which": OPS.index(op)},
                dtype=DTYPE,
                providers={
                    name: Provider(way, ours=True) for name, way in settings(fn, knobs)
                },
                make_inputs=functools.partial(
                    experiments_reductions.inputs, op, m, n, direction, DTYPE
                ),
                make_output=lambda x, kept=outputs: x.new_empty(kept),
                reference=theirs,
                bytes=m * n * DTYPE.itemsize,
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


CONTESTS = {"reductions": reduced, "topk": sorted_out}
"""By name, what `tools/tune.py` runs."""
