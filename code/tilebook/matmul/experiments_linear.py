"""What the chapter measures of layers, and of a first call."""

import dataclasses
import functools
from collections.abc import Sequence

import torch

from tilebook import device, measure
from tilebook.matmul import accuracy, first_call
from tilebook.matmul.layers import linear
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Provider, Row
from tilebook.measure.timing import Timing

__all__ = ["matmul_autotune_cost", "matmul_epilogue"]

STEPWISE = 3 * 2.0**-8
"""Relative error of a peer that rounds product, activation and sum, a half unit each,
of results up to twice as large as what they are the difference of."""
REGIMES = ("cold", "steady")
REGIMES_BRIEF = ("steady",)
ENDS: dict[str, dict[str, bool]] = {
    "": {"bias": True},
    "relu": {"bias": True},
    "gelu": {"bias": True},
    "silu_and_mul": {"bias": False},
    "residual": {"bias": True},
}
"""What is done to a layer's product: activations by name, or a residual added."""
ENDED = (
    *(Shape(m, 11008, 4096) for m in (512, 4096)),
    *(Shape(m, 4096, 11008) for m in (512, 4096)),
    *(Shape(m, 28672, 8192) for m in (512, 4096)),
)
ENDED_BRIEF = ENDED[1:2]
FRESH = (
    *(Shape(n, n, n) for n in (1024, 4096, 8192)),
    *(Shape(m, 4096, 4096) for m in (1, 16, 512)),
)
FRESH_BRIEF = FRESH[1:2]
COMPARED = FRESH[1:2]
"""Where torch.compile is asked as well, whose search takes longer than all of ours."""


def layer(
    ending: str, x: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor
) -> torch.Tensor:
    """A layer in PyTorch's own operations, for one of `ENDS`."""
    bias = rest[0] if ENDS[ending]["bias"] else None
    y = torch.nn.functional.linear(x, weight, bias)
    if ending == "relu":
        return torch.relu(y)
    if ending == "gelu":
        return torch.nn.functional.gelu(y)
    if ending == "silu_and_mul":
        return torch.nn.functional.silu(y[:, ::2]) * y[:, 1::2]
    return y + rest[-1] if ending == "residual" else y


def _ours(
    ending: str, x: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor
) -> torch.Tensor:
    bias = rest[0] if ENDS[ending]["bias"] else None
    if ending == "residual":
        return linear(x, weight, bias, residual=rest[-1])
    return linear(x, weight, bias, activation=ending)


def _given(shape: Shape, ending: str) -> Sequence[torch.Tensor]:
    m, n, k = shape
    made = functools.partial(torch.randn, device=device.torch_device())
    # As a trained layer's: so that results are of the size of the operands.
    given = [made(m, k), made(n, k) * k**-0.5]
    given += [made(n)] if ENDS[ending]["bias"] else []
    given += [made(m, n)] if ending == "residual" else []
    return [x.to(torch.bfloat16) for x in given]


@measure.experiment(
    "matmul-epilogue",
    question="What is it worth to end a product in what comes next?",
    op="linear",
    modules=("matmul.layers",),
)
def matmul_epilogue(bench: Bench) -> list[Row]:
    for shape in bench.choose(ENDED, ENDED_BRIEF):
        for ending in ENDS:
            columns = shape.n // 2 if ending == "silu_and_mul" else shape.n
            fn = functools.partial(layer, ending)
            bench.compare(
                op=f"linear, {ending or 'bias'}",
                shape=shape._asdict(),
                dtype=torch.bfloat16,
                providers={
                    "linear": Provider(functools.partial(_ours, ending), ours=True),
                    "cuBLAS, then PyTorch": Provider(fn, bound=STEPWISE),
                    "torch.compile": dataclasses.replace(
                        measure.compiled(fn), bound=STEPWISE
                    ),
                },
                make_inputs=functools.partial(_given, shape, ending),
                make_output=lambda x, *_, columns=columns: x.new_empty(
                    x.shape[0], columns
                ),
                reference=fn,
                flops=shape.flops,
                regimes=bench.choose(REGIMES, REGIMES_BRIEF),
                # A sum of one size with the residual may nearly cancel.
                length=16 * accuracy.length(shape.k),
            )
    return bench.rows


@measure.experiment(
    "matmul-autotune-cost",
    question="How long does the first call of a new shape take?",
    op="first call",
    modules=("matmul.public", "matmul.first_call"),
)
def matmul_autotune_cost(bench: Bench) -> list[Row]:
    compared = bench.choose(COMPARED, ())
    for shape in bench.choose(FRESH, FRESH_BRIEF):
        for name, provider in first_call.PROVIDERS.items():
            if not provider.ours and shape not in compared:
                continue
            found = first_call.in_fresh_processes(shape, provider=name)
            for call, seconds in found.items():
                ms = 1e3 * seconds
                bench.row(
                    impl=name,
                    op=call,
                    ours=provider.ours,
                    shape=shape._asdict(),
                    dtype=torch.bfloat16,
                    regime="host",
                    timing=Timing(ms, ms, ms, (ms,)),
                )
    return bench.rows
