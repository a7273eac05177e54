"""Ways to multiply on Hopper, for `tools/tune.py` to choose from."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tilebook.hopper import launching, public, widths
from tilebook.hopper.launching import Config
from tilebook.hopper.ways import GROUPS, TILED
from tilebook.matmul import shapes, tuning, ways
from tilebook.matmul.operands import Task
from tilebook.matmul.shapes import Shape
from tilebook.matmul.tuning import Case
from tilebook.matmul.ways import Way
from tilebook.measure import Bench

CASES: tuple[Case, ...] = (
    *((Shape(n, n, n), "NN") for n in (1024, 2048, 4096, 8192)),
    *((Shape(8192, 8192, k), "NN") for k in (512, 1024, 2048)),
    *((shape, "NT") for shape in shapes.layers((128, 512)) if shape.n < 50_000),
    *((Shape(4096, n, k), "NT") for n, k in ((10240, 8192), (4096, 11008))),
    (shapes.ODD[0], "NN"),
)
"""What every way is tried on."""
LARGE: tuple[Case, ...] = (
    (Shape(4096, 4096, 4096), "NT"),
    (Shape(8192, 8192, 8192), "NT"),
    (Shape(8192, 8192, 512), "NT"),
    (Shape(4096, 12288, 4096), "NT"),
    (Shape(512, 22016, 4096), "NT"),
    (Shape(512, 10240, 8192), "NT"),
)
"""What more tiles are tried on."""
SIDES = ((128, 256), (256, 128), (128, 128), (128, 64), (64, 256), (64, 128))
WIDE = (
    *((256, 128, 64), (256, 128, 32), (256, 128, 16), (256, 64, 32), (128, 256, 64)),
    *((128, 256, 32), (128, 128, 64), (128, 128, 32), (128, 64, 32), (128, 64, 16)),
)


def every_way(task: Task) -> list[Way]:
    """The chapter's own ways, and what the earlier chapter would race."""
    found = [
        way
        for _, way in ways.FIELDS["hopper"].fitting(task)
        if way.kernel in TILED or way.kernel == "widths"
    ]
    return list(dict.fromkeys([*found, *ways.entrants(task)]))


def more_tiles(task: Task) -> list[Way]:
    """Other tiles, depths and strips of the chapter's kernels."""
    found: list[tuple[str, Any]] = []
    for name in TILED:
        parts = GROUPS.get(name, 2)
        for config in _tiles():
            # A group has 64 rows at least, and registers for 128 columns of 128.
            rows = config.block_m // parts
            if rows < 64 or rows * config.block_n > 128 * 128:
                continue
            found.append((name, launching.room(config, parts)))
    for sides, block_k, stages, group in itertools.product(
        WIDE, (32, 64), (3, 4, 6), (8, 16)
    ):
        config = widths.Config(*sides, block_k, stages, group)
        found.append(("widths", widths.room(config)))
    return list(
        dict.fromkeys(Way(name, tuple(c)) for name, c in found if c is not None)
    )


def _tiles() -> Iterator[Config]:
    for sides, block_k, stages, pieces, group in itertools.product(
        SIDES, (64, 128), (3, 4, 6, 8), (1, 2), (4, 8, 16)
    ):
        yield Config(*sides, block_k, stages, pieces, group)


def every(bench: Bench) -> None:
    """All kernels with their own tiles, beside what ships and cuBLAS."""
    tuning.try_all(bench, CASES, every_way, public.matmul, "hopper")


def large(bench: Bench) -> None:
    """More tiles."""
    tuning.try_all(bench, LARGE, more_tiles, public.matmul, "hopper")


CONTESTS: Mapping[str, Callable[[Bench], None]] = {"every": every, "large": large}
"""By name; see `tools/tune.py`."""
