"""Planted bugs of attention: of masks, ends and heads, each with who finds it.

They are used as those of `tilebook.parallel.bugs` are.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import triton

from tilebook.attention.bugs import kernels, tools
from tilebook.parallel.bugs import Bug, Case, Launch
from tilebook.parallel.bugs.inputs import normal

__all__ = ["GALLERY", "Bug"]

D, KEYS, LONG, RAGGED = 16, 16, 48, 41
HEADS, FEW = 4, 2


def launch(*tensors: torch.Tensor) -> Launch:
    """Say how a kernel of the gallery is launched: a program for each head.

    Args:
        tensors: queries (h, m, d), keys and values (hk, n, d), a mask (m, n).

    Returns:
        Grid, arguments and constants, and the result.
    """
    q, k, *_ = tensors
    out = torch.empty_like(q)
    (heads, m, d), (few, n, _) = q.shape, k.shape
    rows = max(16, triton.next_power_of_2(m))
    args = (*tensors, out, m, n, heads // few, d**-0.5)
    meta = {"D": d, "ROWS": rows, "KEYS": KEYS}
    return Launch((heads,), args, meta, out)


def drawn(rows: int, columns: int, few: int = HEADS) -> tuple[torch.Tensor, ...]:
    """Draw queries of `HEADS` heads, keys and values.

    Args:
        rows: queries.
        columns: keys.
        few: heads of keys.
    """
    x = normal(HEADS + 2 * few, max(rows, columns), D)
    q, k, v = x.split((HEADS, few, few))
    parts = (q[:, :rows], k[:, :columns], v[:, :columns])
    return tuple(x.contiguous() for x in parts)


def expected(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """What the kernels should compute, by PyTorch's own function."""
    given = (x[None] for x in (q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    mask = None if seen is None else seen != 0
    return attend(*given, mask, enable_gqa=True, **options)[0]


def last_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same, causal, where the queries are the last ones of the keys' positions."""
    m, n = q.shape[1], k.shape[1]
    seen = torch.ones(m, n, dtype=torch.bool, device=q.device).tril(n - m)
    return expected(q, k, v, seen)


def _loud() -> tuple[torch.Tensor, ...]:
    q, k, v = drawn(LONG, LONG)
    k[:, -1] *= 1000
    return q, k, v


def _masked(row: int | None) -> tuple[torch.Tensor, ...]:
    q, k, v = drawn(LONG, LONG)
    seen = (normal(LONG, LONG) > 0).to(torch.uint8)
    seen[:, 0] = 1
    if row is not None:
        seen[row] = 0
    return q, k, v, seen


LATE_MASK = Bug(
    name="late-mask",
    title="A mask after the maximum",
    symptom=(
        "Right in every test on random numbers. In a model whose delimiters have keys "
        "many times as large as all others, some rows before a delimiter are 0."
    ),
    source=(
        "The obvious order if a mask is thought of as one of weights: an exponential, "
        "then zeros. The row's maximum has seen what the row mustn't."
    ),
    tool=tools.FUTURE,
    wrong=Case(kernels.late_kernel, launch),
    mended=Case(kernels.causal_kernel, launch),
    expected=last_rows,
    friendly=lambda: drawn(LONG, LONG),
    inputs=_loud,
    length=4 * LONG,
)

PADDED_KEYS = Bug(
    name="padded-keys",
    title="Keys that nobody wrote",
    symptom=(
        "Right for all lengths of the benchmark. In service, where sequences have any "
        "length, results are a little too small, the more so the shorter they are."
    ),
    source=(
        "A load that fills up with zeros, taken for a mask. The official tutorial's "
        "kernel has neither, and asks for lengths that fill its blocks."
    ),
    tool=tools.LENGTHS,
    wrong=Case(kernels.padded_kernel, launch),
    mended=Case(kernels.full_kernel, launch),
    expected=expected,
    friendly=lambda: drawn(LONG, LONG),
    inputs=lambda: drawn(LONG, RAGGED),
    length=4 * LONG,
)

WRONG_CORNER = Bug(
    name="wrong-corner",
    title="The other corner",
    symptom=(
        "Training is right to the last digit. With a cache of keys every new token "
        "comes out as if the text consisted of its first word."
    ),
    source=(
        "Two conventions for a causal mask that isn't square. PyTorch's has the first "
        "query at the first key; FlashAttention's had until version 2.1, and has had "
        "the last one at the last key since."
    ),
    tool=tools.UNEQUAL,
    wrong=Case(kernels.corner_kernel, launch),
    mended=Case(kernels.causal_kernel, launch),
    expected=last_rows,
    friendly=lambda: drawn(LONG, LONG),
    inputs=lambda: drawn(7, LONG),
    length=4 * LONG,
)

MODULO_HEADS = Bug(
    name="modulo-heads",
    title="Somebody else's keys",
    symptom=(
        "Right for models with as many heads of keys as of queries, and for those with "
        "a single one. A model with eight loads without a complaint, and babbles."
    ),
    source=(
        "repeat in place of repeat_interleave: with the remainder neighbouring heads "
        "read different keys, with the quotient they share."
    ),
    tool=tools.WHOSE,
    wrong=Case(kernels.modulo_kernel, launch),
    mended=Case(kernels.full_kernel, launch),
    expected=expected,
    friendly=lambda: drawn(LONG, LONG),
    inputs=lambda: drawn(LONG, LONG, FEW),
    length=4 * LONG,
)

FINITE_INFINITY = Bug(
    name="finite-infinity",
    title="An infinity that is a million",
    symptom=(
        "Right as long as each query sees some key. Positions that only pad a batch "
        "hold what they would without a mask, padding's values among it, and whoever "
        "takes a mean over positions gets some of it."
    ),
    source=(
        "The official tutorial adds -1.0e6 where a key isn't to be seen, and those who "
        "took its kernel over kept the number."
    ),
    tool=tools.UNSEEN,
    wrong=Case(kernels.finite_kernel, launch),
    mended=Case(kernels.infinite_kernel, launch),
    expected=expected,
    friendly=lambda: _masked(None),
    inputs=lambda: _masked(5),
    length=4 * LONG,
)

_BUGS = (LATE_MASK, PADDED_KEYS, WRONG_CORNER, MODULO_HEADS, FINITE_INFINITY)
GALLERY: Mapping[str, Bug] = MappingProxyType({bug.name: bug for bug in _BUGS})
"""The chapter's bugs by name."""
