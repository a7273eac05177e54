"""Ways to quantise, for `tools/tune.py` to choose from."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from tilebook.fp8 import (
    both,
    experiments_quantizers,
    formats,
    groups,
    quantizing,
    rows,
    scaling,
    whole,
)
from tilebook.fp8.operands import Job
from tilebook.fp8.rows import Norm
from tilebook.measure import Bench, Provider

BOUND = 0.05
SCALE = 0.02
"""Of codes that are delayed: normal numbers stay below 448 times as much."""
SIDES = ((4096, 4096), (8192, 8192), (16384, 16384))
LONG = ((4096, 20480), (4096, 28672), (1024, 65536))
Call = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def job_for(x: torch.Tensor, granularity: str) -> Job:
    """Make room for what a matrix becomes in e4m3fn.

    Args:
        x: (m, k), on the device.
        granularity: one of `scaling.GRANULARITIES`.
    """
    found = scaling.place(*x.shape, granularity, formats.E4M3.dtype, x.device)
    return Job(x, *found, granularity, "down" if granularity == "mx" else "")


def turned_ways() -> Iterator[tuple[str, Call]]:
    """The transpose by 1 x 128, read along its columns."""
    for count, num_warps in itertools.product((32, 64, 128), (4, 8)):
        config = groups.Config(count, 1, num_warps)

        def call(x: torch.Tensor, config: groups.Config = config) -> Any:
            job = job_for(x.t(), "1x128")
            groups.launch(job, config)
            return job.codes.t(), job.scale

        yield str(tuple(config)), call


def both_ways(granularity: str) -> Iterator[tuple[str, Call]]:
    """A matrix and its transpose from one reading, of which the transpose is given.

    Args:
        granularity: "1x128" or "128x128".
    """
    for config in itertools.starmap(both.Config, ((8, 0), (8, 128), (16, 0), (16, 64))):

        def call(x: torch.Tensor, config: both.Config = config) -> Any:
            job = job_for(x, granularity)
            turned = job_for(x.t(), granularity)
            both.launch(job, scaling.Quantized(turned.codes, turned.scale), config)
            return turned.codes.t(), turned.scale

        yield str(tuple(config)), call


def delayed_ways() -> Iterator[tuple[str, Call]]:
    """A scale from outside: one reading."""
    for elements, columns, num_warps, waves in itertools.product(
        (2048, 4096, 8192), (1024, 2048), (4, 8), (4, 8, 32)
    ):
        config = whole.Config(elements // columns, columns, num_warps, waves)

        def call(x: torch.Tensor, config: whole.Config = config) -> Any:
            job = job_for(x, "tensor")
            job.scale.fill_(SCALE)
            whole.launch(job, config, torch.zeros((), device=x.device))
            return job.codes, job.scale

        yield str(tuple(config)), call


def row_ways(granularity: str, normed: bool) -> Iterator[tuple[str, Call]]:
    """Rows that are longer than `rows.LONGEST`.

    Args:
        granularity: "row" or "1x128".
        normed: whether they are normalised.
    """
    sizes = ((32768, (16, 32)), (16384, (8, 16, 32)), (8192, (8, 16)), (4096, (8, 16)))
    for block, counts in sizes:
        for num_warps in counts:
            config = rows.Config(1, block, num_warps)

            def call(x: torch.Tensor, config: rows.Config = config) -> Any:
                job = job_for(x, granularity)
                norm = Norm(torch.ones_like(x[0]), 0.0) if normed else None
                rows.launch(job, config, norm)
                return job.codes, job.scale

            yield str(tuple(config)), call


def try_all(
    bench: Bench,
    op: str,
    shapes: Iterable[tuple[int, int]],
    ways: Iterable[tuple[str, Call]],
    shipped: Call,
    reference: Call,
    bytes_each: int = 3,
) -> None:
    """Compare ways to quantise with what ships.

    Args:
        bench: gets the rows.
        op: what they are called.
        shapes: of matrices.
        ways: by name.
        shipped: launches as the package does today.
        reference: codes as numbers that aren't rounded, and scales.
        bytes_each: that have to move for an element.
    """
    tried = (("shipped", shipped), *ways)
    for m, k in shapes:
        bench.compare(
            op=op,
            shape={"m": m, "k": k},
            dtype=torch.bfloat16,
            providers={
                name: Provider(call, ours=True, bound=BOUND) for name, call in tried
            },
            make_inputs=functools.partial(experiments_quantizers.drawn, m, k),
            make_output=experiments_quantizers.codes,
            reference=reference,
            bytes=float(bytes_each * m * k),
        )


def transposed(x: torch.Tensor, granularity: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference of a transpose, seen as the matrix.

    Args:
        x: (m, k).
        granularity: of its transpose.
    """
    found, scale = experiments_quantizers.reference(x.t(), granularity)
    return found.t(), scale


def turned(bench: Bench) -> None:
    """Tiles of a transpose."""

    def shipped(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = quantizing.quantize(x.t(), "1x128")
        return found.codes.t(), found.scale

    reference = functools.partial(transposed, granularity="1x128")
    try_all(bench, "turned", SIDES, turned_ways(), shipped, reference)


def pairs(bench: Bench) -> None:
    """Warps and registers of what writes a matrix and its transpose."""
    for granularity in both.GRANULARITIES:

        def shipped(x: torch.Tensor, granularity: str = granularity) -> Any:
            _, found = quantizing.quantize_both(x, granularity)
            return found.codes.t(), found.scale

        reference = functools.partial(transposed, granularity=granularity)
        ways = both_ways(granularity)
        try_all(bench, f"both {granularity}", SIDES, ways, shipped, reference, 4)


def delayed(bench: Bench) -> None:
    """Tiles and programs where the scale is given."""

    def shipped(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found, _ = quantizing.quantize_delayed(x, x.new_full((1, 1), SCALE).float())
        return found.codes, found.scale

    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x / SCALE, x.new_full((1, 1), SCALE)

    try_all(bench, "delayed", SIDES, delayed_ways(), shipped, reference)


def long(bench: Bench) -> None:
    """Parts and warps of long rows."""
    for granularity, normed in (("row", False), ("row", True), ("1x128", True)):

        def shipped(
            x: torch.Tensor, name: str = granularity, normed: bool = normed
        ) -> Any:
            if not normed:
                return quantizing.quantize(x, name)
            return quantizing.rms_norm_quantize(
                x, torch.ones_like(x[0]), granularity=name, eps=0.0
            )

        def reference(
            x: torch.Tensor, name: str = granularity, normed: bool = normed
        ) -> Any:
            if normed:
                x = x * x.square().mean(1, keepdim=True).rsqrt()
            return experiments_quantizers.reference(x, name)

        op = f"{'norm ' * normed}{granularity}"
        try_all(bench, op, LONG, row_ways(granularity, normed), shipped, reference)


CONTESTS: Mapping[str, Callable[[Bench], None]] = {
    "turned": turned,
    "both": pairs,
    "delayed": delayed,
    "long": long,
}
"""By name; see `tools/tune.py`."""
