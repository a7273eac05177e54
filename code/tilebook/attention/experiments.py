"""What the chapter measures of results and gradients; `experiments_variants` and
`experiments_errors` have the rest."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from tilebook import measure
from tilebook.attention import (
    cases,
    causal,
    conclusions,
    conclusions_more,
    cooperative,
    described,
    experiments_errors,
    experiments_variants,
    folded,
    forward,
    materialised,
    onepass,
    overlapped,
    peers,
)
from tilebook.attention.cases import Case
from tilebook.measure import Bench, Provider, Row

__all__ = [
    "attention_backward",
    "attention_forward",
    "attention_ladder",
    "conclusions",
    "conclusions_more",
    "experiments_errors",
    "experiments_variants",
]

BOUND = 2.0**-7
"""Relative error allowed in results: weights and the result are rounded to 8 bits."""
BOUND_GRADIENTS = 2.0**-6
"""The same of gradients, which have a rounded result and rounded logits in them."""
SAME_BITS = conclusions.SAME_BITS
RUNGS = (
    *("materialised", "onepass", "causal", "forward"),
    *("described", "cooperative", "overlapped", "folded"),
)
FORWARD = ("cold", "steady")
BACKWARD = ("cold",)
"""Regimes. Of an autograd engine's threads no graph can be recorded."""


def seen(case: Case) -> dict[str, int | None]:
    """Which keys are seen, as `reference.attention` names it."""
    return {"left": case.window, "right": 0 if case.causal else None}


def compare(
    bench: Bench,
    case: Case,
    own: dict[str, Callable[..., torch.Tensor]],
    others: dict[str, Provider],
    regimes: tuple[str, ...] = FORWARD,
) -> None:
    """Compare results.

    Args:
        bench: gets the rows.
        case: what is computed.
        own: functions of queries, keys and values, by name.
        others: peers.
        regimes: as for `Bench.compare`.
    """
    providers = {name: Provider(fn, ours=True, bound=BOUND) for name, fn in own.items()}
    bench.compare(
        op="attention_forward",
        shape=case.shape,
        dtype=torch.bfloat16,
        providers=providers | peers.bounded(others, BOUND),
        make_inputs=functools.partial(cases.operands, case),
        reference=cases.remembered(functools.partial(cases.exact, **seen(case))),
        bytes=case.moved,
        flops=case.flops,
        regimes=regimes,
    )


@measure.experiment(
    "attention-forward",
    question="How does attention compare with what PyTorch can be made to use?",
    op="attention_forward",
    modules=("attention.public",),
)
def attention_forward(bench: Bench) -> list[Row]:
    for case in bench.choose(cases.FORWARD, cases.QUOTED):
        searched = case in cases.SEARCHED and not bench.budget.brief
        others = peers.forward(case, cases.operands(case), searched=searched)
        compare(bench, case, {"attention": peers.ours(case)}, others)
    return bench.rows


@measure.experiment(
    "attention-backward",
    question="And its gradients?",
    op="attention_backward",
    modules=("attention.public",),
)
def attention_backward(bench: Bench) -> list[Row]:
    for case in bench.choose(cases.BACKWARD, cases.QUOTED):
        searched = case in cases.SEARCHED_BACKWARD and not bench.budget.brief
        draw = functools.partial(cases.operands, case, gradient=True)
        others = peers.backward(case, draw(), searched=searched)
        same = peers.ours(case, deterministic=True)
        providers = {
            "attention": Provider(
                peers.gradients(peers.ours(case)), ours=True, bound=BOUND_GRADIENTS,
                nondeterministic="parts of dq are added in any order",
            ),
            SAME_BITS: Provider(
                peers.gradients(same), ours=True, bound=BOUND_GRADIENTS
            ),
        }  # fmt: skip
        exact = functools.partial(cases.exact_gradients, **seen(case))
        bench.compare(
            shape=case.shape,
            dtype=torch.bfloat16,
            providers=providers | peers.bounded(others, BOUND_GRADIENTS),
            make_inputs=draw,
            reference=cases.remembered(exact),
            # Result and what arrives for it are read, three gradients are written.
            bytes=2 * case.moved,
            flops=cases.GRADIENTS * case.flops,
            regimes=BACKWARD,
        )
    return bench.rows


def rungs(case: Case) -> dict[str, Callable[..., torch.Tensor]]:
    """The rungs of the ladder that take a case, as functions of its operands.

    Args:
        case: without a window.
    """
    first = {"causal": causal} if case.causal else {
        "materialised": materialised, "onepass": onepass,
    }  # fmt: skip
    found = {name: rung.attention for name, rung in first.items()}
    found["forward"] = functools.partial(forward.attention, causal=case.causal)
    on_hopper = {"described": described, "cooperative": cooperative}
    on_hopper |= {"overlapped": overlapped, "folded": folded}

    def result(rung: Any) -> Callable[..., torch.Tensor]:
        return lambda q, k, v: rung.attention(q, k, v, causal=case.causal)[0]

    return found | {name: result(rung) for name, rung in on_hopper.items()}


@measure.experiment(
    "attention-ladder",
    question="What is each rung worth?",
    op="attention_forward",
    modules=("attention.public", *(f"attention.{name}" for name in RUNGS)),
    needs="wgmma",
)
def attention_ladder(bench: Bench) -> list[Row]:
    for case in bench.choose(cases.LADDER, cases.QUOTED):
        others = peers.forward(case, cases.operands(case), searched=False)
        others.pop("SDPA", None)
        compare(bench, case, rungs(case), others, ("cold",))
    return bench.rows
