"""Ways to multiply in eight bits, for `tools/tune.py` to choose from."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from tilebook import device
from tilebook.fp8 import experiments, few, shapes, tiled, warps, ways
from tilebook.fp8.products import BLOCK, Product
from tilebook.fp8.ways import KERNELS
from tilebook.matmul import accuracy
from tilebook.matmul import ways as earlier
from tilebook.matmul.shapes import Shape
from tilebook.matmul.tuning import named
from tilebook.matmul.ways import Way
from tilebook.measure import Bench, Provider

Case = tuple[Shape, str, bool]
"""A product, how it is scaled, and whether its sums may be fast."""

SUMS = (("tensor", True), ("row", True), ("row", False), ("block", False))
"""Scalings and ways to sum that have a choice of their own."""
CASES: tuple[Case, ...] = tuple(
    (shape, *sums) for sums in SUMS for shape in (*shapes.LARGE, *shapes.DECODING)
)
"""What every way is tried on: all that "fp8-gemm" measures."""
LARGE: tuple[Case, ...] = tuple(
    (shape, *sums)
    for sums in SUMS[1:]
    for shape in (
        Shape(4096, 4096, 4096),
        Shape(8192, 8192, 8192),
        Shape(512, 8192, 28672),
        Shape(4096, 57344, 8192),
    )
)
"""What more tiles are tried on."""
THIN: tuple[Case, ...] = tuple(
    (Shape(m, n, k), *sums)
    for sums in SUMS[1:]
    for m in (1, 16, 64, 128)
    for n, k in ((4096, 4096), (8192, 28672), (28672, 8192))
)
"""What more ways of cutting a sum are tried on."""
FAR = 2.0
"""How many times the least that a way may cost by the estimate, and be tried."""
GROUPS = (4, 8, 16)
SIDES = ((128, 256), (256, 128), (128, 128), (128, 64), (128, 32))


def every_way(product: Product) -> list[Way]:
    """All ways that fit and may be near, not only those that a race would hold."""
    found = sorted(ways.fitting_ways(product), key=lambda pair: pair[0])
    return list(dict.fromkeys(way for cost, way in found if cost <= FAR * found[0][0]))


def more_tiles(product: Product) -> list[Way]:
    """Other tiles, depths and strips of the kernels for many rows."""
    found: list[tuple[str, Any]] = []
    for name in ways.GROUPS:
        if KERNELS[name].refusal(product) is not None:
            continue
        # A precise sum is in registers twice.
        most = 128 * 256 // (2 if name in ("promoted", "paired", "carried") else 1)
        for sides, stages, pieces, group in itertools.product(
            SIDES, (3, 4, 5, 6, 8), (1, 2), GROUPS
        ):
            if sides[0] * sides[1] <= most:
                config = warps.Config(*sides, stages, pieces, group)
                found.append((name, KERNELS[name].room(product, config)))
    for name in ("described", "tiled"):
        kernel = KERNELS[name]
        if name == "described" and kernel.refusal(product) is not None:
            continue
        for sides, stages, count, group in itertools.product(
            ((128, 256), (256, 128), (128, 128), (64, 256), (64, 128)),
            (2, 3, 4, 5), (4, 8), GROUPS,
        ):  # fmt: skip
            tile = (*sides, count, stages)
            options = [tile] if name == "tiled" else [(*tile, 1), (*tile, 2)]
            for option in options:
                config = kernel.Config(*option, group=group)
                found.append((name, kernel.room(product, config)))
    return list(
        dict.fromkeys(Way(name, tuple(c)) for name, c in found if c is not None)
    )


def more_parts(product: Product) -> list[Way]:
    """Other tiles, parts and depths of cut sums, and low tiles by pointers."""
    found: list[tuple[str, Any]] = []
    sms = device.current().sms or 132
    if few.refusal(product) is None:
        for block_n, block_k, stages, each in itertools.product(
            (64, 128), (BLOCK, 2 * BLOCK), (3, 4, 6, 8), (1, 2, 3, 4)
        ):
            count = -(-product.n // block_n)
            parts = max(1, each * sms // count)
            config = few.Config(block_n, block_k, parts, stages)
            found.append(("few", few.room(product, config)))
    for block_n, stages, count in itertools.product((32, 64, 128), (3, 4, 6), (2, 4)):
        config = tiled.Config(16, block_n, count, stages)
        found.append(("tiled", tiled.room(product, config)))
    return list(
        dict.fromkeys(Way(name, tuple(c)) for name, c in found if c is not None)
    )


def _made(fast: bool, operands: Sequence[torch.Tensor]) -> Product:
    a, b, scale_a, scale_b = operands
    shape = (a.shape[0], b.shape[1])
    out = torch.empty(shape, dtype=torch.bfloat16, device=a.device)
    return Product(a, b, scale_a, scale_b, out, fast=fast)


def _launched(way: Way, fast: bool, *operands: torch.Tensor) -> torch.Tensor:
    product = _made(fast, operands)
    earlier.launch(product, way, "fp8")
    return product.out


def try_all(
    bench: Bench, cases: Iterable[Case], choose: Callable[[Product], Sequence[Way]]
) -> None:
    """Compare ways to multiply with what ships and with the library.

    Args:
        bench: gets the rows.
        cases: products, their scalings and their sums.
        choose: names the ways of a product.
    """
    for shape, name, fast in cases:
        make = functools.partial(_operands, shape, name)
        operands = make()
        tried: Mapping[str, Provider] = {
            named(way): Provider(
                functools.partial(_launched, way, fast),
                ours=True,
                bound=experiments.BOUND,
            )
            for way in choose(_made(fast, operands))
        }
        peers = shapes.working({"_scaled_mm": shapes.theirs(name, fast)}, operands)
        bench.compare(
            shape=shape._asdict() | {"scaling": shapes.CODES[name], "fast": int(fast)},
            dtype=torch.float8_e4m3fn,
            providers={
                "shipped": Provider(
                    shapes.ours(fast), ours=True, bound=experiments.BOUND
                ),
                **{
                    key: Provider(fn, bound=experiments.BOUND)
                    for key, fn in peers.items()
                },
                **tried,
            },
            make_inputs=make,
            make_output=lambda a, b, *_: torch.empty(
                a.shape[0], b.shape[1], dtype=torch.bfloat16, device=a.device
            ),
            reference=shapes.exact,
            flops=shape.flops,
            bytes=shapes.moved(shape, name),
            length=accuracy.length(shape.k),
        )


def _operands(shape: Shape, name: str) -> shapes.Operands:
    return shapes.prepared(name, shapes.operands(shape, name))


def every(bench: Bench) -> None:
    """All kernels with all their tiles, on all that the chapter measures."""
    try_all(bench, CASES, every_way)


def large(bench: Bench) -> None:
    """More tiles for many rows."""
    try_all(bench, LARGE, more_tiles)


def thin(bench: Bench) -> None:
    """More ways to cut the sum of few rows."""
    try_all(bench, THIN, more_parts)


CONTESTS: Mapping[str, Callable[[Bench], None]] = {
    "every": every,
    "large": large,
    "thin": thin,
}
"""By name; see `tools/tune.py`."""
