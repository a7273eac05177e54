"""What the chapter measures of rungs of gradients, and of who adds them to memory."""

import functools
from collections.abc import Callable
from types import ModuleType

import torch

from tilebook import device, library, measure
from tilebook.attention import (
    adding,
    backward,
    backward_fused,
    backward_whole,
    cases,
    conclusions_backward,
    gradients,
    operator,
    peers,
)
from tilebook.attention.cases import Case
from tilebook.measure import Bench, Provider, Row

__all__ = ["attention_backward_ladder", "conclusions_backward"]

BOUND = 2.0**-6
"""Relative error allowed in gradients."""
CASES = tuple(Case(d, 4096, causal) for d in (64, 128) for causal in cases.BOTH)
BRIEF = CASES[-1:]
RUNGS = {
    "backward": backward,
    "backward_whole": backward_whole,
    "backward_fused": backward_fused,
}
NONDETERMINISTIC = "parts of dq are added in any order"
HEADS, TILES, ROWS = 16, 64, 4096
"""Of what is added: a head of 4,096 rows, which as many keys see."""

Function = Callable[..., tuple[torch.Tensor, ...]]


def function_of(rung: ModuleType, case: Case) -> Function:
    """Make of a rung a function that only computes gradients.

    Args:
        rung: one of `RUNGS`.
        case: an attention without a window.

    Returns:
        A function of queries, keys, values and what arrives for the result. It attends
        at the first call with some queries, and remembers what that leaves.
    """
    held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    right = 0 if case.causal else None

    def call(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grad: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        if q.data_ptr() not in held:
            held[q.data_ptr()] = peers.ours(case, return_lse=True)(q, k, v)
        options = (q.shape[3] ** -0.5, None, right, False, 0.0, 0.0)
        tensors = (q, k, v, *[None] * 6)
        task = operator.task_of(tensors, options, held[q.data_ptr()])
        asked = gradients.wanted(task, grad)
        with library.on(q):
            rung.launch(asked)
        return asked.dq, asked.dk, asked.dv

    return call


def compare_rungs(bench: Bench, case: Case) -> None:
    """Compare the rungs of gradients.

    Args:
        bench: gets the rows.
        case: what is computed.
    """
    providers = {
        name: Provider(
            function_of(rung, case), ours=True, bound=BOUND,
            nondeterministic="" if rung is backward else NONDETERMINISTIC,
        )
        for name, rung in RUNGS.items()
    }  # fmt: skip
    exact = functools.partial(
        cases.exact_gradients, left=None, right=0 if case.causal else None
    )
    bench.compare(
        shape=case.shape,
        dtype=torch.bfloat16,
        providers=providers,
        make_inputs=functools.partial(cases.operands, case, gradient=True),
        reference=cases.remembered(exact),
        bytes=2 * case.moved,
        flops=cases.GRADIENTS * case.flops,
        regimes=("cold",),
    )


def integers() -> tuple[torch.Tensor]:
    """Draw tiles whose sums are exact in whatever order."""
    shape = (HEADS, TILES, adding.SIDE, adding.SIDE)
    return (torch.randint(-8, 9, shape, device=device.torch_device()).bfloat16(),)


def compare_adding(bench: Bench) -> None:
    """Compare who adds tiles to memory.

    Args:
        bench: gets the rows. Their bytes are those added, which L2 takes: sums are few.
    """
    providers = {
        way: Provider(functools.partial(adding.added, rows=ROWS, way=way), ours=True)
        for way in adding.WAYS
    }
    bench.compare(
        op="add",
        shape={"h": HEADS, "s": ROWS, "sk": TILES * adding.SIDE, "d": adding.SIDE},
        dtype=torch.bfloat16,
        providers=providers,
        make_inputs=integers,
        reference=functools.partial(adding.reference, rows=ROWS),
        # Counted as traffic these would be more than memory can move.
        extra={"added": 4.0 * HEADS * TILES * ROWS * adding.SIDE},
        regimes=("cold",),
    )


@measure.experiment(
    "attention-backward-ladder",
    question="Which rung of gradients is the fastest, and who adds the fastest?",
    op="attention_backward",
    modules=(
        "attention.public",
        "attention.adding",
        *(f"attention.{n}" for n in RUNGS),
    ),
    needs="wgmma",
)
def attention_backward_ladder(bench: Bench) -> list[Row]:
    for case in bench.choose(CASES, BRIEF):
        compare_rungs(bench, case)
    compare_adding(bench)
    return bench.rows
