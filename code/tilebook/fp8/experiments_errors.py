"""What the chapter measures of errors: of granularities, and of sums."""

import functools
from collections.abc import Callable

import torch

from tilebook import device, measure
from tilebook.fp8 import (
    accumulation,
    conclusions,
    errors,
    products,
    quantizing,
    scaling,
    shapes,
    tiled,
)
from tilebook.fp8.products import Product
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Row

SIDES = Shape(2048, 2048, 2048)
"""Of products whose errors are taken."""
TERMS = tuple(2**e for e in range(7, 17))
TERMS_BRIEF = TERMS[::3]
SUMS = ("signed", "positive")
MODELLED = {"modelled, fast": "fast", "modelled": "precise"}
"""What the model computes, and the sum that it stands for."""
LONGEST_MODELLED = 2**12
"""Terms beyond which the model takes too long."""


def _generator() -> torch.Generator:
    return torch.Generator(device=device.torch_device()).manual_seed(8)


@measure.experiment(
    "fp8-error",
    question="What does a granularity cost, and on which inputs?",
    op="quantize",
    modules=("fp8.quantizing", "fp8.errors"),
)
def fp8_error(bench: Bench) -> list[Row]:
    cases = [("gaussian", 1.0), ("student", 1.0)]
    for kind, larger in (*cases, *(("outliers", x) for x in errors.LARGER)):
        generator = _generator()
        x = errors.drawn(kind, SIDES.m, SIDES.k, generator, larger=larger)
        w = errors.drawn("gaussian", SIDES.n, SIDES.k, generator)
        product = x.double() @ w.double().t()
        for granularity in scaling.GRANULARITIES:
            call = functools.partial(quantizing.quantize, x, granularity)
            left = call()
            other = "128x128" if granularity == "1x128" else granularity
            right = quantizing.quantize(w, other)
            back = [
                scaling.dequantize(*each, how, dtype=torch.float64)
                for each, how in ((left, granularity), (right, other))
            ]
            bench.row(
                impl=granularity,
                op=kind,
                ours=True,
                shape=SIDES._asdict() | {"larger": int(larger)},
                dtype=torch.float8_e4m3fn,
                timing=bench.time_cold(call),
                relative_error=errors.lost(left, x, granularity),
                extra={
                    "small": errors.small_lost(left, x, granularity),
                    "product": errors.relative(back[0] @ back[1].t(), product),
                },
            )
    return bench.rows


def _ours(fast: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The product without scales, in float32."""

    def call(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        one = torch.ones(1, 1, device=a.device)
        out = torch.empty(a.shape[0], b.shape[1], device=a.device)
        tiled.launch(Product(a, b, one, one, out, fast=fast))
        return out

    return call


def _theirs(fast: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def call(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        one = torch.ones((), device=a.device)
        return torch._scaled_mm(
            a, b, one, one, out_dtype=torch.float32, use_fast_accum=fast
        )

    return call


SUMMED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "fast": _ours(True),
    "precise": _ours(False),
    **{
        f"max_num_imprecise_acc={limit}": functools.partial(
            accumulation.summed, limit=limit
        )
        for limit in accumulation.LIMITS
        if limit
    },
    "_scaled_mm, fast": _theirs(True),
    "_scaled_mm": _theirs(False),
    "modelled, fast": functools.partial(
        accumulation.modelled, bits=conclusions.MODEL_BITS
    ),
    "modelled": functools.partial(
        accumulation.modelled, bits=conclusions.MODEL_BITS, block=products.BLOCK
    ),
}
"""Ways to sum, by name; the last two compute what the model says."""


@measure.experiment(
    "fp8-accumulate",
    question="What do tensor cores keep of a sum, and what does promotion mend?",
    op="sum",
    modules=("fp8.tiled", "fp8.accumulation"),
)
def fp8_accumulate(bench: Bench) -> list[Row]:
    where = device.torch_device()
    first = accumulation.probe("beside", where)
    summed = shapes.working(SUMMED, tuple(first))
    for place, at in accumulation.PLACES.items():
        found = accumulation.probe(place, where)
        for name, call in summed.items():
            _sum(
                bench, name, f"bits {place}", functools.partial(call, *found),
                {"k": found.a.shape[1], "place": at},
                lambda out: {"kept": accumulation.kept(out)},
            )  # fmt: skip
    for kind in SUMS:
        generator = _generator()
        for k in bench.choose(TERMS, TERMS_BRIEF):
            found = accumulation.operands(kind, k, generator)
            exact = found.a.double() @ found.b.double()
            for name, call in summed.items():
                like = MODELLED.get(name)
                if like and k > LONGEST_MODELLED:
                    continue
                other = summed[like](*found) if like else None
                _sum(
                    bench, name, kind, functools.partial(call, *found), {"k": k},
                    functools.partial(_off, exact, other),
                )  # fmt: skip
    return bench.rows


def _off(
    exact: torch.Tensor, other: torch.Tensor | None, out: torch.Tensor
) -> dict[str, float]:
    found = {"off": errors.relative(out, exact)}
    if other is not None:
        found["alike"] = float((out == other).double().mean())
    return found


def _sum(
    bench: Bench,
    name: str,
    op: str,
    call: Callable[[], torch.Tensor],
    shape: dict[str, int],
    read: Callable[[torch.Tensor], dict[str, float]],
) -> None:
    found = read(call())
    bench.row(
        impl=name,
        op=op,
        ours=not name.startswith("_"),
        shape=shape,
        dtype=torch.float8_e4m3fn,
        timing=bench.time_cold(call),
        relative_error=found.pop("off", None),
        extra=found,
    )
