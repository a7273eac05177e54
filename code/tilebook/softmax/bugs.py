"""Planted bugs of the softmax: of infinities, and of which exponent has which sign."""

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
import torch
import triton
import triton.language as tl

from tilebook import device, testing
from tilebook.parallel.bugs import Bug, Case, Launch, Tool
from tilebook.parallel.bugs.inputs import normal

BLOCK = 32
SHIFTS = (0.0, 100.0, -200.0)
NONE = float("-inf")


def _complaint(bug: Bug, case: Case, x: torch.Tensor) -> str | None:
    try:
        testing.assert_close(case.run(x), bug.truth(x), length=bug.length)
    except AssertionError as error:
        return str(error)
    return None


def _shifts(bug: Bug, case: Case) -> str | None:
    (x,) = bug.friendly()
    for shift in SHIFTS:
        complaint = _complaint(bug, case, x + shift)
        if complaint:
            return f"x + {shift:g}: {complaint}"
    return None


def _sums(bug: Bug, case: Case) -> str | None:
    (x,) = bug.inputs()
    sums = case.run(x).double().sum(dim=-1)
    away = (sums - 1).abs() > testing.bound(x.dtype, bug.length)
    if not bool(away.any()):
        return None
    row = int(away.nonzero()[0])
    count = int(away.sum())
    return f"{count} of {len(x)} rows don't sum to 1: row {row} to {sums[row]}"


def _windows(bug: Bug, case: Case) -> str | None:
    (x,) = bug.friendly()
    n = x.shape[1]
    # At either end, in the middle, and everywhere.
    for start, stop in ((n - BLOCK, n), (BLOCK, 2 * BLOCK), (0, BLOCK), (0, n)):
        masked = x.clone()
        masked[:, start:stop] = NONE
        complaint = _complaint(bug, case, masked)
        if complaint:
            return f"columns {start} to {stop - 1} are -inf: {complaint}"
    return None


SHIFTED = Tool("inputs far from zero on either side", _shifts)
INVARIANT = Tool("an invariant: each row of a softmax sums to 1", _sums)
WINDOWS = Tool("a window of -inf at each place in the row", _windows)


def _launch(x: torch.Tensor) -> Launch:
    m, n = x.shape
    out = torch.empty_like(x)
    return Launch((m,), (x, out, n), {"BLOCK": BLOCK}, out)


def _one_block(x: torch.Tensor) -> Launch:
    m, n = x.shape
    out = torch.empty_like(x)
    meta = {"BLOCK": triton.next_power_of_2(n)}
    return Launch((m,), (x, out, n), meta, out)


@triton.jit
def softmax_zero_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + row * n + offs, mask=mask, other=0.0)  # (BLOCK,)
    e = tl.where(mask, tl.exp(x - tl.max(x, axis=0)), 0.0)
    out = e / tl.sum(e, axis=0)
    tl.store(out_ptr + row * n + offs, out, mask=mask)


@triton.jit
def softmax_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    # The neutral element of the maximum, and e to it that of the sum.
    x = tl.load(x_ptr + row * n + offs, mask=mask, other=float("-inf"))
    e = tl.exp(x - tl.max(x, axis=0))
    out = e / tl.sum(e, axis=0)
    tl.store(out_ptr + row * n + offs, out, mask=mask)


ZERO_MAXIMUM = Bug(
    name="zero-maximum",
    title="The maximum that is never below zero",
    symptom=(
        "Right on normally distributed rows of every length. Rows of log-probabilities "
        "lose digits, and where all are below about -100 the row is NaN."
    ),
    source=(
        "The row maximum of a published answer to Triton Puzzle 8 starts at 0, and its "
        "padded lanes are 0."
    ),
    tool=SHIFTED,
    wrong=Case(softmax_zero_kernel, _one_block),
    mended=Case(softmax_kernel, _one_block),
    expected=lambda x: torch.softmax(x, dim=-1),
    friendly=lambda: (normal(4, 100),),
    inputs=lambda: (normal(4, 100) - 200.0,),
    length=100,
)


@triton.jit
def online_turned_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    out_ptr += row * n
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=float("-inf"))
    m = tl.max(x, axis=0)
    d = tl.sum(tl.exp(x - m), axis=0)
    for start in range(BLOCK, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        new = tl.maximum(m, tl.max(x, axis=0))
        d = d * tl.exp(new - m) + tl.sum(tl.exp(x - new), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        tl.store(out_ptr + start + offs, tl.exp(x - m) / d, mask=mask)


@triton.jit
def online_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    out_ptr += row * n
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=float("-inf"))
    m = tl.max(x, axis=0)
    d = tl.sum(tl.exp(x - m), axis=0)
    for start in range(BLOCK, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        new = tl.maximum(m, tl.max(x, axis=0))
        d = d * tl.exp(m - new) + tl.sum(tl.exp(x - new), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        tl.store(out_ptr + start + offs, tl.exp(x - m) / d, mask=mask)


TURNED_FACTOR = Bug(
    name="turned-factor",
    title="The factor turned round",
    symptom=(
        "Right on every row that fits into one chunk, and on every row whose maximum "
        "is in the first. Others come out too small, each by a factor of its own."
    ),
    source=(
        "A published answer to Triton Puzzle 8, which multiplies the sum so far by "
        "e^(new - old) at a new maximum."
    ),
    tool=INVARIANT,
    wrong=Case(online_turned_kernel, _launch),
    mended=Case(online_kernel, _launch),
    expected=lambda x: torch.softmax(x, dim=-1),
    friendly=lambda: (normal(4, BLOCK),),
    inputs=lambda: (normal(4, 100),),
    length=100,
)


@triton.jit
def online_infinite_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    out_ptr += row * n
    offs = tl.arange(0, BLOCK)
    m = tl.full((), float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        new = tl.maximum(m, tl.max(x, axis=0))
        d = d * tl.exp(m - new) + tl.sum(tl.exp(x - new), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        tl.store(out_ptr + start + offs, tl.exp(x - m) / d, mask=mask)


@triton.jit
def online_based_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    out_ptr += row * n
    offs = tl.arange(0, BLOCK)
    m = tl.full((), float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        new = tl.maximum(m, tl.max(x, axis=0))
        # Nothing but -inf so far: there is nothing to subtract.
        base = tl.where(new == float("-inf"), 0.0, new)
        d = d * tl.exp(m - base) + tl.sum(tl.exp(x - base), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        mask = start + offs < n
        x = tl.load(x_ptr + start + offs, mask=mask, other=float("-inf"))
        tl.store(out_ptr + start + offs, tl.exp(x - m) / d, mask=mask)


def _left_padded() -> tuple[torch.Tensor]:
    x = normal(4, 100)
    x[2, :BLOCK] = NONE
    return (x,)


MASKED_CHUNK = Bug(
    name="masked-chunk",
    title="A chunk with nothing in it",
    symptom=(
        "Right on every finite row, and on rows whose end is masked. A row that begins "
        "with a chunk of -inf, as left padding and sliding windows make them, is NaN "
        "from end to end, although its other chunks are finite."
    ),
    source=(
        "(-inf) - (-inf) is NaN, in both exponents. Attention kernels have met it "
        "wherever a block of keys is masked before the first that isn't."
    ),
    tool=WINDOWS,
    wrong=Case(online_infinite_kernel, _launch),
    mended=Case(online_based_kernel, _launch),
    expected=lambda x: torch.softmax(x, dim=-1),
    friendly=lambda: (normal(4, 100),),
    inputs=_left_padded,
    length=100,
)

GALLERY: Mapping[str, Bug] = MappingProxyType(
    {bug.name: bug for bug in (ZERO_MAXIMUM, TURNED_FACTOR, MASKED_CHUNK)}
)
"""The chapter's bugs by name."""


def wholly_masked() -> pd.DataFrame:
    """What PyTorch returns where a row is all -inf, or attention has nothing to see.

    Returns:
        A line per function, with its "value" for every element.
    """
    row = torch.full((1, 4), NONE, device=device.torch_device())
    key = torch.ones(1, 1, 4, 8, device=row.device)
    seen = torch.zeros(1, 4, dtype=torch.bool, device=row.device)
    attention = torch.nn.functional.scaled_dot_product_attention
    found = {
        "softmax": torch.softmax(row, dim=-1),
        "log_softmax": torch.log_softmax(row, dim=-1),
        "logsumexp": torch.logsumexp(row, dim=-1),
        "attention, mask of bools": attention(key[:, :, :1], key, key, seen),
        "attention, mask of -inf": attention(key[:, :, :1], key, key, row),
    }
    values = {name: float(out.flatten()[0]) for name, out in found.items()}
    return pd.DataFrame.from_dict(values, orient="index", columns=["value"])
