"""What the chapter measures of reductions: bandwidths, and errors of variances."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import device, measure, testing
from tilebook.measure import Bench, Provider, Row
from tilebook.softmax import conclusions_reductions, reductions

__all__ = ["conclusions_reductions", "softmax_reductions", "softmax_variance"]

ELEMENTS = 2**26
# Rows of these lengths are reduced, matrices of these widths along columns, and
# everything.
ROWS = (1024, 4096, 4097, 32768, 131072)
COLUMNS = (8192, 8193)
AWKWARD = ((1000, 1000, 1), (1000, 1000, 0))
DTYPES = (torch.float32, torch.bfloat16)
DTYPES_BRIEF = DTYPES[1:]
REGIMES = ("cold", "steady")
REGIMES_BRIEF = ("cold",)
SEARCHED_BRIEF = ("sum", "var")
"""Reductions of which torch.compile is a peer in a build, too, where its search is most
of what is waited for."""
K = 8

RATIOS = tuple(10**e for e in range(7))
RATIOS_BRIEF = (1, 10**3, 10**4, 10**6)
VARIANCES = (1024, 4096)
"""Rows of the matrix whose variances are compared, and their lengths."""

# The direction of a reduction is a number, as all of a case's shape is.
ALL = 2


class Reduction(NamedTuple):
    """A reduction, ours and PyTorch's."""

    ours: Callable[..., torch.Tensor]
    torch: Callable[..., torch.Tensor]
    out_bytes: int | None = None
    """Bytes of an output element; None for those of an input's."""
    roundings: int = 1
    """How often PyTorch rounds to the dtype on the way, the last time included."""


def _largest(x: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.topk(x, K, dim=dim).values


def _every(x: torch.Tensor, dim: int | None) -> Any:
    return tuple(range(x.ndim)) if dim is None else dim


REDUCTIONS = {
    "sum": Reduction(reductions.sum, lambda x, dim: torch.sum(x, dim)),
    "mean": Reduction(reductions.mean, lambda x, dim: torch.mean(x, dim)),
    "var": Reduction(reductions.var, lambda x, dim: torch.var(x, dim)),
    "argmax": Reduction(reductions.argmax, lambda x, dim: torch.argmax(x, dim), 8),
    "logsumexp": Reduction(
        reductions.logsumexp,
        lambda x, dim: torch.logsumexp(x, _every(x, dim)),
        # Difference, exponential, sum, logarithm and sum again, each an operation.
        roundings=5,
    ),
    # Of equal elements PyTorch may name any: values are compared.
    "topk": Reduction(lambda x, dim: reductions.topk(x, K)[0], _largest),
}


def cases() -> list[tuple[int, int, int]]:
    """Matrices and what is reduced of them: 1 rows, 0 columns, 2 everything."""
    rows = [(ELEMENTS // n, n, 1) for n in ROWS]
    columns = [(ELEMENTS // n, n, 0) for n in COLUMNS]
    return [*rows, *columns, (1, ELEMENTS, ALL), *AWKWARD]


def sequences() -> list[tuple[str, int, int, int]]:
    """Reductions, and what each is measured on: `topk` along rows alone."""
    return [(op, *case) for op in REDUCTIONS for case in cases()
            if op != "topk" or case[2] == 1]  # fmt: skip


def quoted() -> list[tuple[str, int, int, int]]:
    """Those that the text speaks of: each reduction of rows, and ragged rows' sum."""
    shape, ragged = conclusions_reductions.SHAPE, conclusions_reductions.RAGGED
    rows = [(op, *shape.values()) for op in REDUCTIONS]
    return [*rows, ("sum", *ragged.values())]


def inputs(op: str, m: int, n: int, dim: int, dtype: torch.dtype) -> list:
    """An operand whose reduction is well defined, for one of `cases`."""
    x = torch.randn((m, n), device=device.torch_device())
    if op in ("sum", "mean"):
        # Terms that cancel would leave a result of any size, and no relative error.
        x += 1
    if op == "argmax":
        # One maximum in each sequence: peers may name any of several.
        x.clamp_(max=4)
        size = 1 if dim == ALL else x.shape[1 - dim]
        at = torch.randint(x.numel() // size, (size,), device=x.device)
        view = x.view(1, -1) if dim == ALL else x if dim else x.t()
        view.scatter_(1, at[:, None], 5)
    return [x.to(dtype)]


def _bound(reduction: Reduction, dtype: torch.dtype, length: int) -> float | None:
    if reduction.roundings == 1:
        return None
    return reduction.roundings * testing.bound(dtype, length)


@measure.experiment(
    "softmax-reductions",
    question="How near does each reduction come to the speed of reading, and to peers?",
    op="sum",
    modules=(
        "softmax.sums",
        "softmax.moments",
        "softmax.extremes",
        "softmax.exponentials",
        "softmax.topk",
    ),
)
def softmax_reductions(bench: Bench) -> list[Row]:
    searched = bench.choose(tuple(REDUCTIONS), SEARCHED_BRIEF)
    for op, m, n, direction in bench.choose(sequences(), quoted()):
        reduction, dim = REDUCTIONS[op], None if direction == ALL else direction
        outputs = 1 if dim is None else n if dim == 0 else m
        kept = outputs * (K if op == "topk" else 1)
        fn = functools.partial(reduction.torch, dim=dim)
        ours = functools.partial(reduction.ours, dim=dim)
        length = m * n // outputs
        for dtype in bench.choose(DTYPES, DTYPES_BRIEF):
            bound = _bound(reduction, dtype, length)
            compiled = dataclasses.replace(measure.compiled(fn), bound=bound)
            size = reduction.out_bytes or dtype.itemsize
            # Indices come with the values of topk, whoever makes them.
            beside = 8 * kept if op == "topk" else 0
            bench.compare(
                op=op,
                shape={"m": m, "n": n, "dim": direction},
                dtype=dtype,
                providers={
                    "tilebook": Provider(ours, ours=True),
                    "torch": Provider(fn, bound=bound),
                    **({"torch.compile": compiled} if op in searched else {}),
                },
                make_inputs=functools.partial(inputs, op, m, n, direction, dtype),
                make_output=lambda x, kept=kept: x.new_empty(kept),
                reference=fn,
                bytes=m * n * dtype.itemsize + kept * size + beside,
                regimes=bench.choose(REGIMES, REGIMES_BRIEF),
                length=length,
            )
    return bench.rows


def bounds(n: int, ratio: float) -> dict[str, float]:
    """What each formula's relative error may be, in float32.

    Args:
        n: elements of a row.
        ratio: of their mean to their standard deviation.

    Returns:
        Bounds by formula. With k^2 = 1 + ratio^2 and b what n roundings add: b for
        distances from an element of the row, k b for Welford's recurrence, b + (k b)^2
        for two passes and k^2 b for the difference of two squares (Chan, Golub and
        LeVeque 1983; PyTorch's is a recurrence).
    """
    b, k = testing.bound(torch.float32, n), math.sqrt(1 + ratio * ratio)
    return {
        "tilebook": b,
        "welford": k * b,
        "two passes": b + (k * b) ** 2,
        "difference of squares": k * k * b,
        "torch": k * b,
    }


def _away(ratio: float) -> list[torch.Tensor]:
    x = torch.randn(VARIANCES, device=device.torch_device())
    return [x + ratio]


@measure.experiment(
    "softmax-variance",
    question="What is left of a variance when the mean is large?",
    op="var",
    modules=("softmax.moments", "softmax.variances"),
)
def softmax_variance(bench: Bench) -> list[Row]:
    m, n = VARIANCES
    formulas = {
        "tilebook": functools.partial(reductions.var, dim=1),
        "welford": reductions.var_welford,
        "two passes": reductions.var_two_pass,
        "difference of squares": reductions.var_naive,
    }
    rowwise = functools.partial(torch.var, dim=1)
    for ratio in bench.choose(RATIOS, RATIOS_BRIEF):
        limits = bounds(n, ratio)
        providers = {
            name: Provider(fn, ours=True, bound=limits[name])
            for name, fn in formulas.items()
        }
        providers["torch"] = Provider(rowwise, bound=limits["torch"])
        bench.compare(
            shape={"m": m, "n": n, "ratio": ratio},
            dtype=torch.float32,
            providers=providers,
            make_inputs=functools.partial(_away, ratio),
            make_output=lambda x: x.new_empty(len(x)),
            reference=rowwise,
            bytes=4 * (m * n + m),
            regimes=("steady",),
            length=n,
        )
    return bench.rows
