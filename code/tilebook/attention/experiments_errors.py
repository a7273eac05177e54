"""What the chapter measures of errors: of lengths, and of the size of logits."""

import functools
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend

from tilebook import device, measure
from tilebook.attention import peers, reference
from tilebook.attention.cases import Case
from tilebook.measure import Bench, Row

LENGTHS = (1024, 4096, 16384, 65536)
LENGTHS_BRIEF = LENGTHS[::2]
TIMES = (1, 4, 16, 64)
"""What queries are multiplied by, and so logits, whose standard deviation is 1."""
TIMES_BRIEF = TIMES[::3]
LENGTH = 4096
"""Where logits grow."""
D, HEADS = 128, 2
ROWS = 256
"""Queries whose results are held against the definition."""
TYPES = (torch.bfloat16, torch.float16, torch.float32)
FORCED = {
    **{name: each for name, each in peers.BACKENDS.items() if each},
    "SDPA, efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA, math": SDPBackend.MATH,
}
LARGEST_MATH = 16384
"""Keys beyond which scores, all in memory, would be too many."""


def drawn(length: int, times: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Draw operands, the same for each type but for its rounding.

    Args:
        length: positions.
        times: what queries are multiplied by.
        dtype: the type.
    """
    where = device.torch_device()
    generator = torch.Generator(device=where).manual_seed(length + times)
    shape = (1, HEADS, length, D)
    q, k, v = (torch.randn(shape, generator=generator, device=where) for _ in range(3))
    return (times * q).to(dtype), k.to(dtype), v.to(dtype)


def chosen(length: int) -> torch.Tensor:
    """Rows that are compared, spread over all.

    Args:
        length: positions.
    """
    count = min(ROWS, length)
    spread = torch.linspace(0, length - 1, count, dtype=torch.float64)
    return spread.long().to(device.torch_device())


def off(
    out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[float, float]:
    """How far a result is from the definition in float64.

    Args:
        out: the result (b, h, s, e).
        q: its queries.
        k: its keys.
        v: its values.

    Returns:
        Relative error, and the largest of one row.
    """
    rows = chosen(q.shape[2])
    q = q[:, :, rows].double()
    want, _ = reference.attention(q, k.double(), v.double(), scale=D**-0.5)
    wrong = out[:, :, rows].double() - want
    each = wrong.norm(dim=-1) / want.norm(dim=-1)
    return float(wrong.norm() / want.norm()), float(each.max())


def measured(bench: Bench, kind: str, length: int, times: int) -> None:
    """Add rows of all implementations and types.

    Args:
        bench: gets them.
        kind: "length" or "logits", what the case is about.
        length: positions.
        times: what logits are multiplied by.
    """
    case = Case(D, length, False)
    shape = case.shape | {"b": 1, "h": HEADS, "hk": HEADS, "times": times}
    for dtype in TYPES:
        inputs = drawn(length, times, dtype)
        others = {
            name: peers.sdpa(case, each)
            for name, each in FORCED.items()
            if each != SDPBackend.MATH or length <= LARGEST_MATH
        }
        found: dict[str, Callable[..., torch.Tensor]] = {"attention": peers.ours(case)}
        for name, fn in (found | peers.working(others, inputs)).items():
            call = functools.partial(fn, *inputs)
            relative, worst = off(call(), *inputs)
            bench.row(
                impl=name,
                op=kind,
                ours=name in found,
                shape=shape,
                dtype=dtype,
                timing=bench.time_cold(call),
                relative_error=relative,
                extra={"worst": worst},
            )


@measure.experiment(
    "attention-error",
    question="How far off are results, for long sequences and large logits?",
    op="attention_forward",
    modules=("attention.public",),
)
def attention_error(bench: Bench) -> list[Row]:
    for length in bench.choose(LENGTHS, LENGTHS_BRIEF):
        measured(bench, "length", length, 1)
    for times in bench.choose(TIMES, TIMES_BRIEF):
        measured(bench, "logits", LENGTH, times)
    return bench.rows
