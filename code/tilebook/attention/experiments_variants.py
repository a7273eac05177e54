"""What the chapter measures of options: what each costs beside an attention without.

`experiments_backward` has the rungs of gradients, `experiments_eight` eight bits, and
`experiments_timeline` clocks.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from tilebook import device, measure
from tilebook.attention import (
    cases,
    experiments_backward,
    experiments_eight,
    experiments_timeline,
    peers,
    public,
    reference,
)
from tilebook.attention.cases import Case
from tilebook.attention.peers import bounded
from tilebook.measure import Bench, Provider, Row

__all__ = [
    "attention_variants",
    "experiments_backward",
    "experiments_eight",
    "experiments_timeline",
]

BOUND = 2.0**-7
"""Relative error allowed, as of all results in bfloat16."""
BASE = Case(128, 4096, True)
WINDOW = BASE._replace(window=1024)
GROUPED = BASE._replace(shared=8)
ODD = BASE._replace(d=96)
"""Features that no power of two is."""
CAP = 30.0
DROPPED = 0.1
LENGTHS = (8192, 4096, 2048, 1024, 512, 512)
"""Of sequences that are packed, together as long as all of `BASE`."""
PER_HEAD = ("slopes", "sinks")
QUOTED = ("plain", "softcap", "packed")


class Variant(NamedTuple):
    """An option, and how others ask for it."""

    case: Case
    options: dict[str, Any]
    """Of `attention`, besides what is seen."""
    score: Callable[..., Any] | None = None
    """flex_attention's score_mod; `flexible` says whether it has a name for this."""
    flexible: bool = True


def slopes_of(heads: int) -> torch.Tensor:
    """ALiBi's slopes: a geometric sequence that ends at 2^-8.

    Args:
        heads: how many.
    """
    steps = torch.arange(1, heads + 1, device=device.torch_device())
    return torch.exp2(-8.0 * steps / heads)


def variants() -> dict[str, Variant]:
    """Everything but dropout and packed sequences, by name."""
    slopes = slopes_of(BASE.heads)
    sinks = torch.linspace(-1, 1, BASE.heads, device=slopes.device)
    bias = torch.randn(BASE.s, BASE.s, device=slopes.device).bfloat16()

    def capped(score: Any, b: Any, h: Any, row: Any, column: Any) -> Any:
        return CAP * torch.tanh(score / CAP)

    def sloping(score: Any, b: Any, h: Any, row: Any, column: Any) -> Any:
        return score - slopes[h] * (row - column)

    def added(score: Any, b: Any, h: Any, row: Any, column: Any) -> Any:
        return score + bias[row, column]

    return {
        "plain": Variant(BASE, {}),
        "softcap": Variant(BASE, {"softcap": CAP}, capped),
        "slopes": Variant(BASE, {"slopes": slopes}, sloping),
        "bias": Variant(BASE, {"bias": bias}, added),
        "sinks": Variant(BASE, {"sinks": sinks}, flexible=False),
        "window": Variant(WINDOW, {}),
        "grouped": Variant(GROUPED, {}),
        "96 features": Variant(ODD, {}, flexible=False),
    }


def exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, case: Case, **options: Any
) -> torch.Tensor:
    """Attend by the definition, a head at a time.

    Args:
        q: queries (b, h, s, d), float64.
        k: keys (b, hk, sk, d).
        v: values (b, hk, sk, e).
        case: which keys are seen, and how heads are shared.
        options: of `attention`.
    """
    told = {"cap" if name == "softcap" else name: x for name, x in options.items()}
    heads = []
    for h in range(q.shape[1]):
        own = {
            name: x[h : h + 1] if name in PER_HEAD else x for name, x in told.items()
        }
        for b in range(q.shape[0]):
            parts = (q[b, h], k[b, h // case.shared], v[b, h // case.shared])
            found, _ = reference.attention(
                *(x[None, None] for x in parts), scale=case.d**-0.5, left=case.window,
                right=0 if case.causal else None, **own,
            )  # fmt: skip
            heads.append(found[0, 0])
    return torch.stack(heads).view(q.shape[1], q.shape[0], *q.shape[2:]).transpose(0, 1)


def starts(lengths: Sequence[int]) -> torch.Tensor:
    """Where packed sequences start, and the last one ends."""
    ends = torch.tensor((0, *lengths), device=device.torch_device()).cumsum(0)
    return ends.to(torch.int32)


def packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu: torch.Tensor
) -> torch.Tensor:
    """Attend within sequences that lie one after another in a batch of one.

    Args:
        q: queries (1, h, t, d).
        k: keys, likewise.
        v: values, likewise.
        cu: see `starts`.
    """
    told = (x[0].transpose(0, 1) for x in (q, k, v))
    return public.attention_varlen(*told, cu, cu, causal=True).transpose(0, 1)[None]


def exact_packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same by the definition, of `LENGTHS`."""
    parts = zip(*(x.split(LENGTHS, 2) for x in (q, k, v)), strict=True)
    return torch.cat([cases.exact(*part, right=0) for part in parts], 2)


def documents(case: Case) -> Callable[..., torch.Tensor]:
    """flex_attention of packed sequences.

    Args:
        case: one sequence of all positions.
    """
    which = torch.repeat_interleave(
        torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)
    ).to(device.torch_device())

    def seen(b: Any, h: Any, row: Any, column: Any) -> Any:
        return (column <= row) & (which[row] == which[column])

    return peers.flex(case, seen=seen)


def compare_packed(bench: Bench) -> None:
    """Compare packed sequences with flex_attention's mask of documents."""
    case = Case(BASE.d, sum(LENGTHS), True)
    pairs = sum(n**2 / 2 for n in LENGTHS)
    ours = functools.partial(packed, cu=starts(LENGTHS))
    providers = {"attention": Provider(ours, ours=True)}
    if not bench.budget.brief:
        build = functools.partial(documents, case)
        providers[peers.FLEX] = Provider(build=build)
    bench.compare(
        op="packed",
        shape=case.shape | {"sequences": len(LENGTHS)},
        dtype=torch.bfloat16,
        providers=bounded(providers, BOUND),
        make_inputs=functools.partial(cases.operands, case),
        reference=cases.remembered(exact_packed),
        bytes=case.moved,
        flops=4.0 * case.heads * pairs * case.d,
        regimes=("cold",),
    )


@measure.experiment(
    "attention-variants",
    question="What does each option cost?",
    op="attention_forward",
    modules=("attention.public",),
)
def attention_variants(bench: Bench) -> list[Row]:
    told = variants()
    for name in bench.choose(tuple(told), QUOTED[:2]):
        case, options, score, flexible = told[name]
        providers = {"attention": Provider(peers.ours(case, **options), ours=True)}
        if flexible and not bench.budget.brief:
            build = functools.partial(peers.flex_for, case, score)
            providers[peers.FLEX] = Provider(build=build)
        bench.compare(
            op=name,
            shape=case.shape,
            dtype=torch.bfloat16,
            providers=bounded(providers, BOUND),
            make_inputs=functools.partial(cases.operands, case),
            reference=cases.remembered(functools.partial(exact, case=case, **options)),
            bytes=case.moved,
            flops=case.flops,
            regimes=("cold",),
        )
    compare_packed(bench)
    # What random numbers drop no reference of this size is quick to follow: tests
    # compare small ones.
    inputs = cases.operands(BASE)
    dropping = peers.ours(BASE, dropout=DROPPED, seed=1)
    bench.row(
        impl="attention",
        op="dropout",
        ours=True,
        shape=BASE.shape,
        dtype=torch.bfloat16,
        regime="cold",
        timing=bench.time_cold(functools.partial(dropping, *inputs)),
    )
    return bench.rows
