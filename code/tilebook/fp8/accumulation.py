"""What tensor cores keep of a sum, found out from outside and modelled.

A product of two codes is exact. What happens to it in a tensor core's sum can be seen
from its results: 1 and 2^-n are added for each n, and where the result is 1 the last
n - 1 bits behind the first one were kept. In `probe` each row is another n. The small
term stands beside the large one in the same 32 terms, which one instruction takes; in
the next instruction's; or in the next block of 128, which a precise sum adds by itself.

The model, `modelled`, is what such results suggest (and what others report of Hopper):
a product's exponent is the sum of its operands', though the product of their
significands may be 2 or more. The largest exponent among 32 products and the sum so far
is taken, all are cut off `bits` bits behind it, towards zero, and added. Of the new sum
as many bits are kept behind its own first one.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.fp8.formats import E4M3
from tilebook.fp8.products import BLOCK

STEP = 32
"""Terms that one instruction takes."""
MOST = 18
"""The largest n: 2^-18 is the least product of two codes."""
PLACES = {"beside": 1, "next instruction": STEP, "next block": BLOCK}
"""Where the small term stands, by name."""
ROWS, COLUMNS = 64, 64
"""Of the products that are looked at: a tile."""
LOWEST = -200
"""An exponent below those of all products and sums."""
LIMITS = (None, 128, 64, 32)
"""Of `max_num_imprecise_acc`: terms that tensor cores may sum alone; None is all."""


class Probe(NamedTuple):
    """Operands that show what a sum keeps."""

    a: torch.Tensor
    """(ROWS, k) of float8_e4m3fn."""
    b: torch.Tensor
    """(k, COLUMNS), the terms together."""


def probe(place: str, device: torch.device | str = "cpu") -> Probe:
    """Make operands of which row n of the product is 1 + 2^-n, exactly.

    Args:
        place: where the small term stands, one of `PLACES`.
        device: where operands are.
    """
    k = 2 * BLOCK
    a, b = torch.zeros(ROWS, k), torch.zeros(COLUMNS, k)
    a[:, 0] = b[:, 0] = 1.0
    n = torch.arange(1, MOST + 1)
    a[n, PLACES[place]] = 2.0 ** (9 - n)
    b[:, PLACES[place]] = 2.0**-9
    a, b = (x.to(E4M3.dtype).to(device) for x in (a, b))
    return Probe(a, b.t())


def kept(out: torch.Tensor) -> int:
    """Count the bits behind the first that a sum kept.

    Args:
        out: what a product of `probe`'s operands gave, float32.

    Returns:
        The largest n for which all up to it came out as 1 + 2^-n; `MOST` if all did.

    Raises:
        ValueError: a row is neither 1 nor 1 + 2^-n, or columns differ.
    """
    rows = out[1 : MOST + 1].double().cpu()
    if bool((rows != rows[:, :1]).any()):
        raise ValueError("columns differ: the product is wrong")
    small = rows[:, 0] - 1
    whole = 2.0 ** -torch.arange(1, MOST + 1, dtype=torch.float64)
    if bool(((small != 0) & (small != whole)).any()):
        raise ValueError(f"a row is neither 1 nor 1 + 2^-n: {small.tolist()}")
    gone = torch.nonzero(small == 0)
    return int(gone[0]) if len(gone) else MOST


def modelled(
    a: torch.Tensor, b: torch.Tensor, bits: int, block: int | None = None
) -> torch.Tensor:
    """Multiply as the model has it.

    Args:
        a: (m, k) of an 8-bit type.
        b: (k, n) of an 8-bit type.
        bits: kept behind the largest term's first one.
        block: terms after which the sum is added to others, in float32; None for all
            in one sum.

    Returns:
        (m, n) float32.
    """
    x, y = a.double(), b.double()
    k = x.shape[1]
    sums = torch.zeros(x.shape[0], y.shape[1], dtype=torch.float64, device=a.device)
    total = torch.zeros_like(sums, dtype=torch.float32)
    for first in range(0, k, STEP):
        if block and first % block == 0:
            total, sums = total + sums.float(), torch.zeros_like(sums)
        last = min(first + STEP, k)
        left, right = x[:, first:last, None], y[None, first:last, :]
        terms = torch.cat([left * right, sums[:, None, :]], 1)
        exponents = [_exponent(left) + _exponent(right), _exponent(sums)[:, None, :]]
        highest = torch.cat(exponents, 1).amax(1, keepdim=True)
        sums = _cut(terms, highest - bits).sum(1)
        sums = _cut(sums, _exponent(sums) - bits)
    return total + sums.float()


def _exponent(x: torch.Tensor) -> torch.Tensor:
    # frexp's significand is from 1/2 on: its exponent is one more. Zero has none.
    return torch.where(x == 0, LOWEST, torch.frexp(x).exponent - 1)


def _cut(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    step = torch.ldexp(torch.ones_like(x), exponent)
    return torch.trunc(x / step) * step


@triton.jit
def sums_kernel(
    a_ptr, b_ptr, out_ptr, k, n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    LIMIT: tl.constexpr,
):  # fmt: skip
    """Multiply whole tiles; a (m, k) and b's transpose (n, k) are contiguous."""
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        # (BLOCK_M, BLOCK_K) and (BLOCK_K, BLOCK_N)
        a = tl.load(a_ptr + offs_m[:, None] * k + (start + offs_k)[None, :])
        b = tl.load(b_ptr + offs_n[None, :] * k + (start + offs_k)[:, None])
        acc = tl.dot(a, b, acc, max_num_imprecise_acc=LIMIT)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], acc)


def summed(a: torch.Tensor, b: torch.Tensor, limit: int | None = None) -> torch.Tensor:
    """Multiply with tensor cores summing no more than so many terms alone, as Triton's
    `max_num_imprecise_acc` has it.

    Args:
        a: (m, k) of an 8-bit type, contiguous; ROWS divides m, BLOCK divides k.
        b: (k, n) of an 8-bit type, its transpose contiguous; COLUMNS divides n.
        limit: one of `LIMITS`.

    Returns:
        (m, n) float32.

    Raises:
        ValueError: an operand isn't contiguous, or a side isn't whole tiles.
    """
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    if not (a.is_contiguous() and b.t().is_contiguous()):
        raise ValueError("a and b's transpose must be contiguous")
    if m % ROWS or n % COLUMNS or k % BLOCK:
        raise ValueError(
            f"sides must be multiples of {ROWS}, {COLUMNS} and {BLOCK}, got {m}, {n} "
            f"and {k}"
        )
    out = torch.empty(m, n, dtype=torch.float32, device=a.device)
    sums_kernel[(m // ROWS, n // COLUMNS)](
        a, b.t(), out, k, n,
        BLOCK_M=ROWS, BLOCK_N=COLUMNS, BLOCK_K=BLOCK, LIMIT=limit, num_warps=4,
    )  # fmt: skip
    return out


def operands(kind: str, k: int, generator: torch.Generator) -> Probe:
    """Draw operands of long sums.

    Args:
        kind: "signed", normal numbers, whose sums grow as the root of k; or "positive",
            their magnitudes, whose sums grow as k.
        k: terms.
        generator: draws, on its own device.
    """
    told = {"generator": generator, "device": generator.device}
    a, b = torch.randn(ROWS, k, **told), torch.randn(COLUMNS, k, **told)
    if kind == "positive":
        a, b = a.abs(), b.abs()
    return Probe(a.to(E4M3.dtype), b.to(E4M3.dtype).t())
