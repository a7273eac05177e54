"""Ways to multiply, for `tools/tune.py` to choose from: all kernels, more of each."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import triton

from tilebook import device
from tilebook.matmul import (
    accuracy,
    described,
    fitting,
    layers,
    public,
    shapes,
    split,
    vectors,
    ways,
)
from tilebook.matmul.operands import Task, placed, tiles
from tilebook.matmul.shapes import Shape
from tilebook.matmul.ways import Way
from tilebook.measure import Bench, Provider

Case = tuple[Shape, str]

CASES: tuple[Case, ...] = (
    *((Shape(n, n, n), "NN") for n in (512, 1024, 2048, 4096, 8192)),
    *((Shape(8192, 8192, k), "NN") for k in (512, 2048)),
    *((shape, "NT") for shape in shapes.layers((64, 128, 512)) if shape.n < 50_000),
    *((Shape(4096, n, k), "NT") for n, k in ((10240, 8192), (4096, 11008))),
    *((shape, "NN") for shape in shapes.ODD),
)
"""What every way is tried on."""
FAR = 2.0
"""How many times the least that a way may cost by the estimate, and be tried."""
LARGE: tuple[Case, ...] = (
    (Shape(4096, 4096, 4096), "NN"),
    (Shape(8192, 8192, 8192), "NN"),
    (Shape(8192, 8192, 512), "NN"),
    (Shape(4096, 12288, 4096), "NT"),
    (Shape(512, 57344, 8192), "NT"),
)
"""What more tiles of described operands are tried on."""
THIN: tuple[Case, ...] = tuple(
    (Shape(m, n, k), "NT")
    for m in (1, 16, 64)
    for n, k in ((4096, 4096), (22016, 4096), (4096, 11008), (8192, 28672))
)
"""What more ways of cutting a sum are tried on."""
ENDS: tuple[tuple[Shape, str], ...] = (
    (Shape(512, 11008, 4096), "gelu"),
    (Shape(4096, 11008, 4096), "gelu"),
    (Shape(4096, 11008, 4096), "silu_and_mul"),
    (Shape(4096, 4096, 11008), "residual"),
)
"""Layers whose ways are tried: as `experiments_linear.ENDS`."""
GROUPS = (4, 8, 16)
SIDES = ((128, 256), (256, 128), (128, 128), (64, 256), (256, 64), (64, 128))


def named(way: Way) -> str:
    """A way as a table shows it."""
    return " ".join(map(str, (way.kernel, *(int(x) for x in way.config))))


def every_way(task: Task) -> list[Way]:
    """All ways that fit and may be near, not only those that a race would hold."""
    found = sorted(ways.fitting_ways(task), key=lambda pair: pair[0])
    return list(dict.fromkeys(way for cost, way in found if cost <= FAR * found[0][0]))


def more_tiles(task: Task) -> list[Way]:
    """Tiles of described operands beyond `described.CONFIGS`."""
    found = []
    for (block_m, block_n), stages, pieces, flatten, group in itertools.product(
        SIDES, (3, 4, 5), (1, 2), (True, False), GROUPS
    ):
        warps = 8 if block_m * block_n > 128 * 128 else 4
        sides = (block_m, block_n, 64)
        config = described.Config(*sides, warps, stages, pieces, flatten, group)
        found.append(described.room(task, config))
    return [Way("described", tuple(c)) for c in dict.fromkeys(found) if c is not None]


def more_parts(task: Task) -> list[Way]:
    """Other tiles, parts and pipelines of cut sums, and of few rows at a time."""
    found: list[tuple[str, Any]] = []
    block_m = split.block_for(task.m, 64)
    for block_n, block_k, per_sm, stages in itertools.product(
        (32, 64, 128), (64, 128, 256), (1, 2, 3, 4), (3, 5)
    ):
        room = (block_m + block_n) * block_k * task.a.itemsize * stages
        if room * min(per_sm, 2) > fitting.SHARED:
            continue
        count = tiles(task, block_m, block_n)
        most = max(triton.cdiv(task.k, block_k) // split.LEAST_STEPS, 1)
        parts = min(most, max(per_sm * (device.current().sms or 132) // count, 1))
        config = split.Config(block_m, block_n, block_k, parts, 4, stages)
        found.append(("split", config))
    if vectors.fits(task):
        for block_n, block_k, parts, stages in itertools.product(
            (4, 8, 16, 32), (128, 256, 512, 1024), (1, 2, 4, 8), (1, 3)
        ):
            if 512 <= block_n * block_k <= 8192:
                config = vectors.Config(block_n, block_k, parts, 4, stages)
                found.append(("vectors", config))
    return list(dict.fromkeys(Way(name, tuple(config)) for name, config in found))


def _launched(way: Way, field: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    task = placed(a, b)
    ways.launch(task, way, field)
    return task.out


def try_all(
    bench: Bench,
    cases: Iterable[Case],
    choose: Callable[[Task], Sequence[Way]],
    shipped: Callable[..., torch.Tensor] = public.matmul,
    field: str = "matmul",
) -> None:
    """Compare ways to multiply with what ships and with cuBLAS.

    Args:
        bench: gets the rows.
        cases: products and their layouts.
        choose: names the ways of a product.
        shipped: what ships.
        field: whose kernels the ways name; one of `ways.FIELDS`.
    """
    for shape, layout in cases:
        make = functools.partial(shapes.operands, shape, layout, torch.bfloat16)
        # Sides and strides decide, not what is in the memory.
        found = choose(placed(*shapes.operands(shape, layout, torch.bfloat16)))
        tried: Mapping[str, Provider] = {
            named(way): Provider(functools.partial(_launched, way, field), ours=True)
            for way in found
        }
        bench.compare(
            shape=shape._asdict() | {"turned": shapes.LAYOUTS.index(layout)},
            dtype=torch.bfloat16,
            providers={
                "shipped": Provider(shipped, ours=True),
                "cuBLAS": Provider(torch.matmul),
                **tried,
            },
            make_inputs=make,
            make_output=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
            reference=torch.matmul,
            flops=shape.flops,
            bytes=shape.moved(torch.bfloat16.itemsize),
            length=accuracy.length(shape.k),
        )


def every(bench: Bench) -> None:
    """All kernels with all their tiles, beside what ships and cuBLAS."""
    try_all(bench, CASES, every_way)


def large(bench: Bench) -> None:
    """More tiles of described operands."""
    try_all(bench, LARGE, more_tiles)


def thin(bench: Bench) -> None:
    """More ways to cut a sum, and few rows without tensor cores."""
    try_all(bench, THIN, more_parts)


def _ended(
    way: Way,
    ending: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor,
) -> torch.Tensor:
    ends: dict[str, Any] = {"bias": bias}
    ends |= {"residual": residual} if ending == "residual" else {"activation": ending}
    task = placed(x, weight.mT, **ends)
    ways.launch(task, way)
    return task.out


def _layer(
    ending: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor,
) -> torch.Tensor:
    y = torch.nn.functional.linear(x, weight, bias)
    return y + residual if ending == "residual" else layers.activated(y, ending)


def ended(bench: Bench) -> None:
    """All ways to a layer that ends in something."""
    for shape, ending in ENDS:
        m, n, k = shape
        residual = ending == "residual"

        def make(m: int = m, n: int = n, k: int = k) -> list[torch.Tensor]:
            made = functools.partial(torch.randn, device=device.torch_device())
            given = (made(m, k), made(n, k) * k**-0.5, made(n), made(m, n))
            return [x.to(torch.bfloat16) for x in given]

        x, weight, bias, rest = make()
        ends = {"residual": rest} if residual else {"activation": ending}
        task = placed(x, weight.mT, bias=bias, **ends)
        fn = functools.partial(_layer, ending)
        tried = {
            named(way): Provider(functools.partial(_ended, way, ending), ours=True)
            for way in every_way(task)
        }
        wide = task.out.shape[1]
        bench.compare(
            shape=shape._asdict() | {"end": [e for _, e in ENDS].index(ending)},
            dtype=torch.bfloat16,
            providers={
                "cuBLAS, then PyTorch": Provider(fn, bound=3 * 2.0**-8),
                **tried,
            },
            make_inputs=make,
            make_output=lambda x, *_, wide=wide: x.new_empty(x.shape[0], wide),
            reference=fn,
            flops=shape.flops,
            length=16 * accuracy.length(shape.k),
        )


CONTESTS: Mapping[str, Callable[[Bench], None]] = {
    "every": every,
    "large": large,
    "thin": thin,
    "ended": ended,
}
"""By name; see `tools/tune.py`."""
