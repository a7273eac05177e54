"""What the chapter measures of attention in eight bits: rates, and what is lost."""

import functools
from collections.abc import Callable

import torch

from tilebook import device, measure
from tilebook.attention import (
    cases,
    conclusions_eight,
    eight_operands,
    eight_public,
    peers,
    reference,
)
from tilebook.attention.cases import Case
from tilebook.attention.eight_operands import GRANULARITIES, Eight
from tilebook.measure import Bench, Provider, Row

__all__ = ["attention_fp8", "conclusions_eight"]

BOUND = 2.0**-7
"""Relative error allowed in bfloat16."""
BOUND_EIGHT = 2.0**-3
"""The same in eight bits, which round operands to four bits, and weights."""
CASES = (
    *(Case(d, 4096, causal) for d in (64, 128, 256) for causal in cases.BOTH),
    *(Case(128, 16384, causal) for causal in cases.BOTH),
)
BRIEF = (Case(128, 4096, False),)
CUDNN = "SDPA, cuDNN"
KINDS = ("normal", "outliers", "features", "uneven")
"""Of operands whose errors are looked at; see `drawn`."""
TURNED = "head, turned"
"""Scales by heads, of queries and keys that were multiplied by a rotation."""
HEADS, LENGTH, D = 4, 4096, 128
ROWS = 256
"""Queries whose results are held against the definition."""

Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def quantized(given: Operands, granularity: str) -> tuple[Eight, Eight, Eight]:
    """Round queries, keys and values.

    Args:
        given: three tensors (b, h, s, d).
        granularity: one of `GRANULARITIES`.
    """
    q, k, v = given
    rows = eight_operands.quantize_rows
    values = eight_operands.quantize_values(v, granularity)
    return rows(q, granularity), rows(k, granularity), values


def attended(eights: tuple[Eight, Eight, Eight], causal: bool) -> torch.Tensor:
    """Attend in eight bits.

    Args:
        eights: from `quantized`.
        causal: whether query i sees keys up to i only.
    """
    q, k, v = eights
    return eight_public.attention_fp8(
        q.codes, k.codes, v.codes, scale_q=q.scale, scale_k=k.scale, scale_v=v.scale,
        causal=causal,
    )  # fmt: skip


def held(causal: bool) -> Callable[..., torch.Tensor]:
    """Make a function that attends in eight bits, and rounds only what is new to it.

    Args:
        causal: whether query i sees keys up to i only.

    Returns:
        A function of queries, keys and values.
    """
    kept: dict[int, tuple[Eight, Eight, Eight]] = {}

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.data_ptr() not in kept:
            kept[q.data_ptr()] = quantized((q, k, v), "head")
        return attended(kept[q.data_ptr()], causal)

    return call


def compare(bench: Bench, case: Case) -> None:
    """Compare rates with those of bfloat16.

    Args:
        bench: gets the rows.
        case: what is computed.
    """
    # Drawn for a moment: a peer is tried with them.
    tried = peers.working(
        {CUDNN: peers.sdpa(case, peers.BACKENDS[CUDNN])}, cases.operands(case)
    )
    providers = {
        "eight bits": Provider(held(case.causal), ours=True, bound=BOUND_EIGHT),
        "attention": Provider(peers.ours(case), ours=True, bound=BOUND),
        **{name: Provider(fn, bound=BOUND) for name, fn in tried.items()},
    }
    exact = functools.partial(cases.exact, left=None, right=0 if case.causal else None)
    bench.compare(
        shape=case.shape,
        dtype=torch.bfloat16,
        providers=providers,
        make_inputs=functools.partial(cases.operands, case),
        reference=cases.remembered(exact),
        # Of bfloat16: eight bits have half of it to read.
        bytes=case.moved,
        flops=case.flops,
        regimes=("cold",),
    )


def quantizing(bench: Bench, case: Case) -> None:
    """Add a row of what rounding takes, all three operands of a case.

    Args:
        bench: gets it.
        case: what is rounded.
    """
    given = cases.operands(case)
    bench.row(
        impl="quantising",
        op="quantize",
        ours=True,
        shape=case.shape,
        dtype=torch.bfloat16,
        regime="cold",
        timing=bench.time_cold(functools.partial(quantized, given, "head")),
    )


def drawn(kind: str) -> Operands:
    """Draw operands, all normal numbers; and by kind

    * "outliers": of each thousand one has a normal number ten times as large added, as
      Shah et al. (2024) have them.
    * "features": two features of queries and keys are eight times as large.
    * "uneven": values are smaller from head to head, in all by 2^16.

    Args:
        kind: one of `KINDS`.
    """
    where = device.torch_device()
    generator = torch.Generator(device=where).manual_seed(KINDS.index(kind))
    told = {"generator": generator, "device": where}
    q, k, v = (torch.randn(1, HEADS, LENGTH, D, **told) for _ in range(3))
    if kind == "outliers":
        for x in (q, k, v):
            rare = torch.rand(x.shape, **told) < 1e-3
            x += 10 * rare * torch.randn(x.shape, **told)
    elif kind == "features":
        for x in (q, k):
            x[..., :: D // 2] *= 8
    elif kind == "uneven":
        v *= torch.logspace(0, -16, HEADS, base=2, device=where)[:, None, None]
    return q, k, v


def exact_rows(given: Operands) -> torch.Tensor:
    """Some rows of the result, by the definition in float64; `ROWS` or all."""
    q, k, v = (x.double() for x in given)
    return reference.attention(q[:, :, chosen(q)], k, v, scale=D**-0.5)[0]


def chosen(x: torch.Tensor) -> torch.Tensor:
    """Rows that are compared, spread over all."""
    count = min(ROWS, x.shape[2])
    return torch.linspace(0, x.shape[2] - 1, count, device=x.device).long()


def ways(given: Operands) -> dict[str, Callable[[], torch.Tensor]]:
    """What computes a result, by name.

    Args:
        given: operands in float32.
    """
    q, k, v = given
    generator = torch.Generator(device=q.device).manual_seed(0)
    turn = eight_operands.rotation(D, generator)
    found = {
        name: functools.partial(attended, quantized(given, name), False)
        for name in GRANULARITIES
    }
    turned = quantized((q @ turn, k @ turn, v), "head")
    found[TURNED] = functools.partial(attended, turned, False)
    halves = [x.bfloat16() for x in given]
    ours = peers.ours(Case(D, LENGTH, False))
    return found | {"bfloat16": functools.partial(ours, *halves)}


def errors(bench: Bench, kind: str) -> None:
    """Add rows of what is lost, of one kind of operands.

    Args:
        bench: gets them.
        kind: one of `KINDS`.
    """
    given = drawn(kind)
    want = exact_rows(given)
    for name, call in ways(given).items():
        out = call()[:, :, chosen(given[0])].double()
        each = (out - want)[0].flatten(1).norm(dim=1) / want[0].flatten(1).norm(dim=1)
        bench.row(
            impl=name,
            op=kind,
            ours=True,
            shape={"h": HEADS, "s": LENGTH, "d": D},
            dtype=torch.bfloat16 if name == "bfloat16" else torch.float8_e4m3fn,
            timing=bench.time_cold(call),
            relative_error=float(each.mean()),
            extra={"worst": float(each.max())},
        )


@measure.experiment(
    "attention-fp8",
    question="What do eight bits gain, and what do they cost?",
    op="attention_forward",
    modules=("attention.public", "attention.eight_public", "attention.eight_hopper"),
    needs="fp8",
)
def attention_fp8(bench: Bench) -> list[Row]:
    for case in bench.choose(CASES, BRIEF):
        compare(bench, case)
    quantizing(bench, BRIEF[0])
    for kind in KINDS:
        errors(bench, kind)
    return bench.rows
