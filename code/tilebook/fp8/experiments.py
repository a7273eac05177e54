"""What the chapter measures of products; `experiments_quantizers` and
`experiments_errors` have the rest."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from tilebook import measure
from tilebook.fp8 import (
    conclusions,
    conclusions_errors,
    experiments_errors,
    experiments_quantizers,
    shapes,
    ways,
)
from tilebook.fp8.experiments_quantizers import bounded
from tilebook.fp8.products import Product
from tilebook.matmul import accuracy
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Provider, Row

__all__ = [
    "conclusions",
    "conclusions_errors",
    "experiments_errors",
    "experiments_quantizers",
    "fp8_compiled",
    "fp8_gemm",
    "fp8_ladder",
]

BOUND = 2.0**-6
"""Relative error allowed in products: sums that tensor cores cut off, and their result
in bfloat16. Random signs keep it far below."""
REGIMES = ("cold", "steady")
LADDER = tuple(Shape(n, n, n) for n in (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192))
LADDER_BRIEF = LADDER[3::4]
SEARCHED = shapes.SQUARES[1:2]
"""Where torch.compile is a peer: it searches a hundred kernels for most of a minute,
and again for fast sums."""
SEARCHED_SCALINGS = ("row",)
"""Of the scalings that it has kernels of its own for, the one that layers use."""


def _place(a: torch.Tensor, b: torch.Tensor, *_: Any) -> torch.Tensor:
    shape = (a.shape[0], b.shape[1])
    return torch.empty(shape, dtype=torch.bfloat16, device=a.device)


def compare(
    bench: Bench,
    shape: Shape,
    name: str,
    ours: dict[str, Callable[..., Any]],
    more: dict[str, Provider] | None = None,
) -> None:
    """Compare products of ours with the library's, on one scaling.

    Args:
        bench: gets the rows.
        shape: of the product.
        name: one of `shapes.SCALINGS`.
        ours: by name.
        more: further peers.
    """
    make = functools.partial(_operands, shape, name)
    peers = {
        "_scaled_mm": shapes.theirs(name, False),
        "_scaled_mm, fast": shapes.theirs(name, True),
    }
    peers = shapes.working(peers, make())
    providers = {
        **{key: Provider(fn, ours=True, bound=BOUND) for key, fn in ours.items()},
        **{key: Provider(fn, bound=BOUND) for key, fn in peers.items()},
        **(more or {}),
    }
    bench.compare(
        op="matmul_fp8",
        shape=shape._asdict() | {"scaling": shapes.CODES[name]},
        dtype=torch.float8_e4m3fn,
        providers=providers,
        make_inputs=make,
        make_output=_place,
        reference=shapes.exact,
        bytes=shapes.moved(shape, name),
        flops=shape.flops,
        regimes=REGIMES,
        length=accuracy.length(shape.k),
    )


def searched(name: str) -> dict[str, Provider]:
    """What torch.compile makes of the library's calls, which it may replace by kernels
    of its own; compiled when it is measured."""
    return {
        label: bounded(measure.compiled(shapes.theirs(name, fast)), BOUND)
        for label, fast in (("torch.compile", False), ("torch.compile, fast", True))
    }


def _operands(shape: Shape, name: str) -> shapes.Operands:
    return shapes.prepared(name, shapes.operands(shape, name))


@measure.experiment(
    "fp8-gemm",
    question="How near does scaled_matmul come to the library, scaling by scaling?",
    op="matmul_fp8",
    modules=("fp8.public",),
)
def fp8_gemm(bench: Bench) -> list[Row]:
    cases = (
        *bench.choose(shapes.LARGE, shapes.LARGE_BRIEF),
        *bench.choose(shapes.DECODING, shapes.DECODING_BRIEF),
    )
    for name in shapes.SCALINGS:
        own = {"scaled_matmul": shapes.ours(False)}
        if name != "block":
            own["scaled_matmul, fast"] = shapes.ours(True)
        for shape in cases:
            compare(bench, shape, name, own)
    return bench.rows


@measure.experiment(
    "fp8-compiled",
    question="Does torch.compile find a better kernel for the library's call?",
    op="matmul_fp8",
    modules=("fp8.public",),
)
def fp8_compiled(bench: Bench) -> list[Row]:
    own = {
        "scaled_matmul": shapes.ours(False),
        "scaled_matmul, fast": shapes.ours(True),
    }
    for name in SEARCHED_SCALINGS:
        for shape in SEARCHED:
            compare(bench, shape, name, own, searched(name))
    return bench.rows


def rung(kernel: str, fast: bool) -> Callable[..., torch.Tensor]:
    """A rung of the ladder, as a function of operands.

    Args:
        kernel: one of `ways.KERNELS`.
        fast: whether tensor cores may sum all of k.
    """

    def call(a: Any, b: Any, scale_a: Any, scale_b: Any) -> torch.Tensor:
        out = _place(a, b)
        made = Product(a, b, scale_a, scale_b, out, fast=fast)
        ways.KERNELS[kernel].launch(made)
        return out

    return call


RUNGS = {
    "row": {
        **{f"{name}, fast": rung(name, True) for name in ("tiled", "described")},
        **{f"{name}, fast": rung(name, True) for name in ("cooperative", "folded")},
        "described": rung("described", False),
        "promoted": rung("promoted", False),
        "paired": rung("paired", False),
    },
    "block": {
        name: rung(name, False)
        for name in ("tiled", "described", "promoted", "paired", "carried")
    },
}
"""By scaling."""


@measure.experiment(
    "fp8-ladder",
    question="What is each rung worth, with scales at the end and by blocks?",
    op="matmul_fp8",
    modules=("fp8.public",),
)
def fp8_ladder(bench: Bench) -> list[Row]:
    for name, rungs in RUNGS.items():
        for shape in bench.choose(LADDER, LADDER_BRIEF):
            compare(bench, shape, name, rungs)
    return bench.rows
