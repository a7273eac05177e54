"""Which kernel makes a product: raced once where there is a GPU, else by a rule."""

import contextlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from tilebook import device, library
from tilebook.fp8 import (
    carried,
    cooperative,
    described,
    few,
    folded,
    paired,
    products,
    promoted,
    tiled,
    warps,
)
from tilebook.fp8.products import BLOCK, Product
from tilebook.matmul import estimates, searching
from tilebook.matmul import ways as earlier
from tilebook.matmul.ways import Field, Way

KERNELS: Mapping[str, ModuleType] = {
    "tiled": tiled,
    "described": described,
    "few": few,
    "cooperative": cooperative,
    "promoted": promoted,
    "paired": paired,
    "carried": carried,
    "folded": folded,
}
"""By name; each has `launch(product, config)`."""
GROUPS = ("cooperative", "promoted", "paired", "carried", "folded")
"""Those whose warps have parts of their own; they share a configuration's form."""
CONFIGS: Mapping[str, type] = {
    **{name: KERNELS[name].Config for name in ("tiled", "described", "few")},
    **dict.fromkeys(GROUPS, warps.Config),
}
"""What each is launched with."""
EXTRA = {"tiled": 1.3, "described": 1.1, "folded": 0.95}
"""What a kernel costs beside one whose warps are in groups, as a factor."""
ENTRANTS = 13
"""Ways that are compiled and timed for a new question."""
LONG = 2**20
"""Elements of `b` from which on reading it is what a product of few rows costs."""


def fitting_ways(product: Product) -> Iterator[tuple[float, Way]]:
    """Every way that fits, with seconds by the estimate.

    Args:
        product: the product, with elements and terms.
    """
    yield from _tiles(product, "tiled", tiled.CONFIGS)
    if not device.has("tma"):
        return
    if described.refusal(product) is None:
        yield from _tiles(product, "described", described.CONFIGS)
    if few.refusal(product) is None:
        for config in few.configs(product):
            tile = estimates.Tile(
                few.rows(product), config.block_n, config.block_k,
                few.warps(product, config), config.num_stages,
            )  # fmt: skip
            cost = products.seconds(product, tile, config.parts)
            yield cost, Way("few", tuple(config))
    if device.has("wgmma"):
        for name in GROUPS:
            if KERNELS[name].refusal(product) is None:
                yield from _tiles(product, name, KERNELS[name].CONFIGS)


def _tiles(
    product: Product, name: str, configs: tuple[Any, ...]
) -> Iterator[tuple[float, Way]]:
    for each in configs:
        if (config := KERNELS[name].room(product, each)) is not None:
            warps_ = getattr(config, "num_warps", 8)
            sides = (config.block_m, config.block_n, BLOCK)
            tile = estimates.Tile(*sides, warps_, config.num_stages, 8 // warps_)
            cost = EXTRA.get(name, 1.0) * products.seconds(product, tile)
            yield cost, Way(name, tuple(config))


def rule(product: Product) -> ModuleType:
    """Choose a kernel where nothing was measured.

    Args:
        product: the product, with elements and terms.

    Returns:
        `few` for few rows of a large `b`; `folded`, or for sums in two levels
        `carried` or `paired`, on Hopper; `described` where the copy engine can bring
        the operands, and `tiled` for all others.
    """
    if device.has("tma"):
        large = product.n * product.k >= LONG
        if large and few.refusal(product) is None:
            return few
        if device.has("wgmma"):
            for kernel in (folded, carried, paired):
                if kernel.refusal(product) is None:
                    return kernel
        if described.refusal(product) is None:
            return described
    return tiled


def make(product: Product) -> None:
    """Make a product in the way that was the fastest here, and write its result.

    Args:
        product: the product, with elements and terms; its operands have been checked.

    Raises:
        ValueError: there are more tiles than a grid has programs.
    """
    with library.on(product.a):
        way = searching.way_for(product, "fp8")
        if way is not None:
            # What was the fastest on a neighbouring shape may refuse this one.
            with contextlib.suppress(ValueError):
                earlier.launch(product, way, "fp8")
                return
        rule(product).launch(product)


def told(product: Product) -> str:
    """Say which kernel serves a product, and how it is launched.

    Args:
        product: the product, with elements and terms.

    Notes:
        Where a GPU is there and the question is new, it is measured first.
    """
    way = searching.way_for(product, "fp8")
    if way is None:
        return rule(product).__name__.rpartition(".")[2] + ", by a rule"
    named = CONFIGS[way.kernel](*way.config)._asdict()
    return way.kernel + ": " + ", ".join(f"{k}={v}" for k, v in named.items())


earlier.FIELDS["fp8"] = Field(KERNELS, CONFIGS, fitting_ways, ENTRANTS)
