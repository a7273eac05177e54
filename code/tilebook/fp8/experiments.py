"""What the chapter measures: products and quantisers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import device, measure
from tilebook.fp8 import (
    conclusions,
    conclusions_errors,
    errors,
    experiments_errors,
    quantizing,
    scaling,
    shapes,
    ways,
)
from tilebook.fp8.products import Product
from tilebook.matmul import accuracy
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Provider, Row

__all__ = [
    "conclusions",
    "conclusions_errors",
    "experiments_errors",
    "fp8_compiled",
    "fp8_gemm",
    "fp8_ladder",
    "fp8_quantize",
]

BOUND = 2.0**-6
"""Relative error allowed in products: sums that tensor cores cut off, and their result
in bfloat16. Random signs keep it far below."""
REGIMES = ("cold", "steady")
MATRICES = ((4096, 4096), (16384, 4096), (8192, 8192), (4096, 28672), (16384, 16384))
"""Rows and columns that are quantised."""
MATRICES_BRIEF = MATRICES[2:3]
LADDER = tuple(Shape(n, n, n) for n in (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192))
LADDER_BRIEF = LADDER[3::4]
SEARCHED = (*shapes.SQUARES[1:2], *shapes.DECODING[4:5])
"""Where torch.compile is a peer: it searches for longer than all else takes."""
SEARCHED_SCALINGS = ("tensor", "row")
"""Scalings that it has kernels of its own for."""


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
        label: _bounded(measure.compiled(shapes.theirs(name, fast)), BOUND)
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
        for shape in bench.choose(SEARCHED, SEARCHED[:1]):
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


def reference(x: torch.Tensor, granularity: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes as numbers, not rounded, and scales, in the operand's precision.

    Args:
        x: the matrix.
        granularity: one of `scaling.GRANULARITIES` but "mx".
    """
    amax = scaling.largest(x, granularity)
    scale = amax / 448
    return x / _spread(scale, granularity, x.shape), scale


def _spread(scale: torch.Tensor, granularity: str, shape: Any) -> torch.Tensor:
    m, k = shape
    rows, columns, _ = scaling.GRANULARITIES[granularity]
    scale = scale.repeat_interleave(rows or m, 0)[:m]
    return scale.repeat_interleave(columns or k, 1)[:, :k]


def eagerly(x: torch.Tensor, granularity: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise with PyTorch's own operations: what torch.compile gets.

    Args:
        x: (m, k), sides whole groups.
        granularity: one of `scaling.GRANULARITIES` but "mx".
    """
    m, k = x.shape
    rows, columns, _ = scaling.GRANULARITIES[granularity]
    rows, columns = rows or m, columns or k
    groups = x.float().view(m // rows, rows, k // columns, columns)
    amax = groups.abs().amax((1, 3), keepdim=True).clamp(min=448 * scaling.SMALLEST)
    scale = amax / 448
    codes = (groups * (1 / scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes.view(m, k), scale[:, 0, :, 0]


@measure.experiment(
    "fp8-quantize",
    question="How near to the memory's limit is a quantiser?",
    op="quantize",
    modules=("fp8.quantizing",),
)
def fp8_quantize(bench: Bench) -> list[Row]:
    for m, k in bench.choose(MATRICES, MATRICES_BRIEF):
        for granularity in ("tensor", "row", "1x128", "128x128"):
            peer = functools.partial(eagerly, granularity=granularity)
            own = functools.partial(quantizing.quantize, granularity=granularity)
            bench.compare(
                op=f"quantize {granularity}",
                shape={"m": m, "k": k},
                dtype=torch.bfloat16,
                providers={
                    "quantize": Provider(own, ours=True, bound=0.05),
                    "torch.compile": _bounded(measure.compiled(peer), 0.05),
                },
                make_inputs=functools.partial(drawn, m, k),
                make_output=codes,
                reference=functools.partial(reference, granularity=granularity),
                bytes=3.0 * m * k,
                regimes=REGIMES,
            )
        _fused(bench, m, k)
    return bench.rows


def _bounded(provider: Provider, bound: float) -> Provider:
    return Provider(build=provider.build, bound=bound)


def drawn(m: int, k: int) -> tuple[torch.Tensor]:
    """Make a matrix of normal numbers.

    Args:
        m: rows.
        k: columns.
    """
    return (torch.randn(m, k, device=device.torch_device()).bfloat16(),)


def codes(x: torch.Tensor, *_: Any) -> torch.Tensor:
    """Make room for the codes of a matrix."""
    return torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)


LOST = 0.05
"""How much of a matrix's norm eight bits may cost, of values from a normal
distribution."""


class Fused(NamedTuple):
    """What quantises something on the way."""

    call: Callable[[], Any]
    bytes: int
    """For each element, that have to move."""
    lost: Callable[[Any], float]
    """Of what the call returns, the share of the norm that it is off."""


def _fused(bench: Bench, m: int, k: int) -> None:
    """Check what else quantises, and time it by the bytes that it has to move."""
    (x,), (up,) = drawn(m, k), drawn(m, k)
    weight = torch.ones(k, device=x.device, dtype=x.dtype)
    scale = torch.full((1, 1), 0.01, device=x.device)

    def normed() -> torch.Tensor:
        wide = x.double()
        return wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt()

    def both(name: str) -> Fused:
        return Fused(
            lambda: quantizing.quantize_both(x, name), 4,
            lambda pair: max(
                errors.lost(pair[0], x, name), errors.lost(pair[1], x.t(), name)
            ),
        )  # fmt: skip

    def norm(name: str) -> Fused:
        return Fused(
            lambda: quantizing.rms_norm_quantize(x, weight, granularity=name), 3,
            lambda found: errors.lost(found, normed(), name),
        )  # fmt: skip

    cases = {
        "delayed": Fused(
            lambda: quantizing.quantize_delayed(x, scale), 3,
            lambda found: errors.lost(found[0], x, "tensor"),
        ),
        "mx": Fused(
            lambda: quantizing.quantize(x, "mx"), 3,
            lambda found: errors.lost(found, x, "mx"),
        ),
        "1x128 of the transpose": Fused(
            lambda: quantizing.quantize(x.t(), "1x128"), 3,
            lambda found: errors.lost(found, x.t(), "1x128"),
        ),
        "both 1x128": both("1x128"),
        "both 128x128": both("128x128"),
        "silu 1x128": Fused(
            lambda: quantizing.silu_and_mul_quantize(x, up, "1x128"), 5,
            lambda found: errors.lost(
                found, torch.nn.functional.silu(x.double()) * up.double(), "1x128"
            ),
        ),
        "norm row": norm("row"),
        "norm 1x128": norm("1x128"),
    }  # fmt: skip
    off = {name: case.lost(case.call()) for name, case in cases.items()}
    if wrong := {name: share for name, share in off.items() if not share <= LOST}:
        raise measure.WrongResult(f"{m} x {k}: over {LOST} of the norm lost: {wrong}")
    timers = {
        name: functools.partial(bench.time_cold, case.call)
        for name, case in cases.items()
    }
    for name, timing in bench.interleaved(timers).items():
        bench.row(
            impl="quantize",
            op=name,
            ours=True,
            shape={"m": m, "k": k},
            dtype=torch.bfloat16,
            regime="cold",
            timing=timing,
            bytes=float(cases[name].bytes * m * k),
            relative_error=off[name],
            error_bound=LOST,
        )
