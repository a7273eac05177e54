"""What the chapter measures of softmax: forward, gradient, crossovers and errors."""

import functools
from types import ModuleType

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.softmax import (
    backward,
    backward_cooperative,
    backward_long,
    conclusions,
    cooperative,
    derivative,
    experiments_policies,
    experiments_reductions,
    further_conclusions,
    fused,
    naive,
    online,
    peers,
    persistent,
    public,
    ragged,
    resident,
    several,
    split,
)
from tilebook.softmax.cases import (
    gradient_formula,
    matrix,
    operands_of_gradient,
    softmax_rows,
)
from tilebook.softmax.operands import PLAIN
from tilebook.testing.closeness import subnormal
from tilebook.testing.precision import format_of

__all__ = [
    "conclusions",
    "experiments_policies",
    "experiments_reductions",
    "further_conclusions",
    "softmax_backward",
    "softmax_crossovers",
    "softmax_error",
    "softmax_forward",
]

LENGTHS = (
    *(256, 512, 1000, 1024, 2048, 4096, 4097, 8192, 16384, 32768, 50257, 65536),
    *(131072, 262144),
)
ELEMENTS = 2**26
"""Of a matrix: more than any cache holds."""
FEW = ((1, 2**20), (4, 131072), (16, 131072), (32, 262144))
"""Fewer rows than there are multiprocessors."""
FEW_BRIEF = ((1, 2**20), (16, 131072))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DTYPES_BRIEF = (torch.bfloat16,)
QUOTED_BRIEF = {
    **{256: ("fused", "several"), 4096: ("naive", "fused"), 4097: ("fused", "ragged")},
    **{32768: ("fused", "persistent"), 50257: (), 131072: ("online",)},
    262144: ("online",),
}
"""Lengths that the text speaks of, and of which rungs beside what ships."""
QUOTED_FEW_BRIEF = ("online", "split")
PEERS_BRIEF = ("torch", "liger")
SEARCHED_BRIEF = (4096, 32768, 131072)
"""Lengths at which torch.compile is a peer, too: it searches for longer than all the
rest takes. flag-gems, which searches as well, is in records alone."""
GRADIENTS_BRIEF = (4096, 131072)
REGIMES = ("cold", "steady")
REGIMES_BRIEF = ("cold",)
CROSSING = (
    *(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144),
    *(2**19, 2**20),
    *(513, 1025, 2049, 4097, 8193, 16385),
)
CROSSING_BRIEF = (256, 4097, 32768, 131072)
# Powers of ten that inputs are scaled by, and shapes, for errors.
EXPONENTS = (-4, -2, 0, 1, 2, 3, 4)
EXPONENTS_BRIEF = (-4, 0, 4)
ERRORS = ((512, 1000), (64, 50257))
ERRORS_BRIEF = ERRORS[:1]
COMPARED_BRIEF = DTYPES[:2]

RUNGS = {
    "naive": naive,
    "fused": fused,
    "several": several,
    "persistent": persistent,
    "ragged": ragged,
    "online": online,
    "split": split,
    "resident": resident,
    "cooperative": cooperative,
}
NEEDS = {resident: "tma", cooperative: "sm80"}
"""What a rung can't do without."""
MODULES = tuple(
    f"softmax.{name}"
    for name in (*RUNGS, "letters", "words", "caches", "choose", "public")
)


def shapes() -> tuple[tuple[int, int], ...]:
    """Rows and their length: as many rows as make `ELEMENTS`, then the few."""
    return (*((ELEMENTS // n, n) for n in LENGTHS), *FEW)


def takes(rung: ModuleType, shape: tuple[int, int], dtype: torch.dtype) -> bool:
    """Whether a rung takes a contiguous matrix, here and in earnest."""
    if rung in NEEDS and not device.has(NEEDS[rung]):
        return False
    # Sharing out what fills the GPU anyway is nobody's plan.
    if rung is split and shape not in FEW:
        return False
    # The refusals look at sizes and strides alone: no memory is needed.
    like = torch.empty(shape, dtype=dtype, device="meta")
    return getattr(rung, "refusal", lambda x: None)(like) is None


def ladder(shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Provider]:
    """The rungs that take a matrix."""
    loose = peers.stepwise(dtype)
    return {
        name: Provider(rung.softmax, ours=True, bound=loose if rung is naive else None)
        for name, rung in RUNGS.items()
        if takes(rung, shape, dtype)
    }


@measure.experiment(
    "softmax-forward",
    question="How near does each rung of softmax come to a copy, and to its peers?",
    op="softmax",
    modules=MODULES,
)
def softmax_forward(bench: Bench) -> list[Row]:
    quoted = [*((ELEMENTS // n, n) for n in QUOTED_BRIEF), *FEW_BRIEF]
    for dtype in bench.choose(DTYPES, DTYPES_BRIEF):
        for shape in bench.choose(shapes(), quoted):
            m, n = shape
            providers = {
                **ladder(shape, dtype),
                "softmax": Provider(public.softmax, ours=True),
                **peers.forward(n, dtype),
            }
            brief = ["softmax", *PEERS_BRIEF, *QUOTED_BRIEF.get(n, ())]
            brief += ["torch.compile"] * (n in SEARCHED_BRIEF)
            names = bench.choose(
                [*providers], QUOTED_FEW_BRIEF if shape in FEW else brief
            )
            bench.compare(
                shape={"m": m, "n": n},
                dtype=dtype,
                providers={
                    name: provider
                    for name, provider in providers.items()
                    if name in names
                },
                make_inputs=functools.partial(matrix, shape, dtype),
                reference=softmax_rows,
                bytes=2 * m * n * dtype.itemsize,
                regimes=bench.choose(REGIMES, REGIMES_BRIEF),
                length=n,
                along=0,
            )
    return bench.rows


def gradient(y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """What autograd calls for softmax along rows."""
    return derivative.gradient(PLAIN, grad, y, y.ndim - 1, y.dtype)


def _by(
    way: ModuleType, stages: int | None, y: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    dx = torch.empty_like(y)
    more = {} if stages is None else {"stages": stages}
    way.launch_as(way.config_for(y.shape[1], y.itemsize, **more), y, grad, dx)
    return dx


@measure.experiment(
    "softmax-backward",
    question="How near does the gradient come to a copy's bandwidth, and to its peers?",
    op="softmax_backward",
    modules=(
        "softmax.backward",
        "softmax.backward_long",
        "softmax.backward_cooperative",
        "softmax.letters",
        "softmax.words",
        "softmax.caches",
        "softmax.derivative",
    ),
)
def softmax_backward(bench: Bench) -> list[Row]:
    for dtype in bench.choose(DTYPES, DTYPES_BRIEF):
        for n in bench.choose(LENGTHS, GRADIENTS_BRIEF):
            m = ELEMENTS // n
            ours = {"long": functools.partial(_by, backward_long, None)}
            if n <= backward.longest(dtype.itemsize):
                ours["tile"] = functools.partial(_by, backward, 0)
                ours["walk"] = functools.partial(_by, backward, 2)
            elif device.has("sm80"):
                ours["cooperative"] = functools.partial(_by, backward_cooperative, None)
            ours["gradient"] = gradient
            bench.compare(
                shape={"m": m, "n": n},
                dtype=dtype,
                providers={
                    **{name: Provider(fn, ours=True) for name, fn in ours.items()},
                    **peers.backward(n, dtype),
                },
                make_inputs=functools.partial(operands_of_gradient, (m, n), dtype),
                reference=gradient_formula,
                bytes=3 * m * n * dtype.itemsize,
                regimes=bench.choose(REGIMES, REGIMES_BRIEF),
                # The terms of a difference that nearly cancels are larger than it.
                length=16 * n,
                along=0,
            )
    return bench.rows


@measure.experiment(
    "softmax-crossovers",
    question="From which length of a row on is which rung the best?",
    op="softmax",
    modules=MODULES,
)
def softmax_crossovers(bench: Bench) -> list[Row]:
    dtype = torch.bfloat16
    for n in bench.choose(CROSSING, CROSSING_BRIEF):
        shape = (ELEMENTS // n, n)
        rungs = ladder(shape, dtype)
        del rungs["naive"]
        bench.compare(
            shape={"m": shape[0], "n": n},
            dtype=dtype,
            providers=rungs | {"softmax": Provider(public.softmax, ours=True)},
            make_inputs=functools.partial(matrix, shape, dtype),
            reference=softmax_rows,
            bytes=2 * shape[0] * n * dtype.itemsize,
            length=n,
            along=0,
            regimes=("cold",),
        )
    return bench.rows


def worst(out: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest error of an element, in units of float32's 2^-24 of itself.

    Args:
        out: a result.
        exact: the same in float64.

    Returns:
        Over the elements that are at least 2^-24 of their row's largest, and whose
        neighbours `out`'s dtype tells apart at full precision.
    """
    least = max(2.0**-14, torch.finfo(out.dtype).tiny) if out.dtype.itemsize == 2 else 0
    large = (exact >= exact.amax(-1, keepdim=True) * 2.0**-24) & (exact >= least)
    error = (out.double() - exact).abs()[large] / exact[large]
    return float(error.max()) * 2**24 if error.numel() else 0.0


def rounding(exact: torch.Tensor, dtype: torch.dtype) -> float:
    """What rounding a result once costs at most, relatively, in the Frobenius norm.

    Args:
        exact: the result in float64.
        dtype: what it is rounded to.

    Returns:
        The dtype's unit roundoff, and what numbers below its normal ones add.
    """
    target, small = format_of(dtype), int(subnormal(exact, dtype).sum())
    return target.roundoff + target.underflow * small**0.5 / float(exact.norm())


@measure.experiment(
    "softmax-error",
    question="How far from exact are ours and the peers, by scale and dtype?",
    op="softmax",
    modules=MODULES,
)
def softmax_error(bench: Bench) -> list[Row]:
    for dtype in bench.choose(DTYPES, COMPARED_BRIEF):
        for m, n in bench.choose(ERRORS, ERRORS_BRIEF):
            torch.compiler.reset()
            providers = {
                **ladder((m, n), dtype),
                "softmax": Provider(public.softmax, ours=True),
                **peers.forward(n, dtype),
            }
            names = bench.choose([*providers], ("naive", "softmax", "torch"))
            providers = {name: providers[name] for name in names}
            fns = {name: p.fn or p.build() for name, p in providers.items()}
            for exponent in bench.choose(EXPONENTS, EXPONENTS_BRIEF):
                x = matrix((m, n), torch.float32)[0] * 10.0**exponent
                x = x.to(dtype)
                exact = torch.softmax(x.double(), -1)
                once = rounding(exact, dtype)
                for name, provider in providers.items():
                    more = {"out": torch.empty_like(x)} if provider.out else {}
                    call = functools.partial(fns[name], x, **more)
                    out = call()
                    error = (out.double() - exact).norm() / exact.norm()
                    bench.row(
                        impl=name,
                        ours=provider.ours,
                        shape={"m": m, "n": n, "exponent": exponent},
                        dtype=dtype,
                        timing=bench.time_cold(call),
                        relative_error=float(error),
                        extra={"worst": worst(out, exact), "rounding": once},
                    )
    return bench.rows
