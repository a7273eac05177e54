"""What the chapter measures of quantisers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import device, measure
from tilebook.fp8 import errors, quantizing, scaling
from tilebook.measure import Bench, Provider, Row

MATRICES = ((4096, 4096), (16384, 4096), (8192, 8192), (4096, 28672), (16384, 16384))
"""Rows and columns that are quantised."""
MATRICES_BRIEF = MATRICES[2:3]


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
                    "torch.compile": bounded(measure.compiled(peer), 0.05),
                },
                make_inputs=functools.partial(drawn, m, k),
                make_output=codes,
                reference=functools.partial(reference, granularity=granularity),
                bytes=3.0 * m * k,
            )
        _fused(bench, m, k)
    return bench.rows


def bounded(provider: Provider, bound: float) -> Provider:
    """Give what is built when it is measured a bound."""
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
