"""Planted bugs of the product: of what is summed, how narrowly, and how often."""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.matmul._bug_tools import BEHIND, GROWTH, OPERANDS, REPEATS, whole
from tilebook.parallel.bugs import Bug, Case, Launch
from tilebook.parallel.bugs.inputs import normal, uniform

BLOCK, BLOCK_K, PARTS = 16, 32, 4
TERMS = 320 * BLOCK_K


def _launch(a: torch.Tensor, b: torch.Tensor) -> Launch:
    (m, k), n = a.shape, b.shape[1]
    out = a.new_empty((m, n))
    grid = (triton.cdiv(m, BLOCK), triton.cdiv(n, BLOCK))
    meta = {"BLOCK": BLOCK, "BLOCK_K": BLOCK_K}
    return Launch(grid, (a, b, out, m, n, k), meta, out)


@triton.jit
def default_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc)
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


@triton.jit
def ieee_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


DEFAULT_PRECISION = Bug(
    name="default-precision",
    title="float32 that isn't",
    symptom=(
        "Right on the laptop, to the last digits. On a card too, with the whole "
        "numbers of the test; with anything else three digits are right where seven "
        "were expected."
    ),
    source=(
        "Triton's reference: the input_precision of tl.dot is tf32 unless something "
        "else is said. The interpreter multiplies float32 as it is."
    ),
    tool=OPERANDS,
    wrong=Case(default_kernel, _launch),
    mended=Case(ieee_kernel, _launch),
    expected=torch.matmul,
    friendly=lambda: (whole(20, 70), whole(70, 24)),
    inputs=lambda: (normal(20, 70), normal(70, 24)),
    length=70,
)


@dataclass(frozen=True)
class Tuned(Case):
    """A kernel under an autotuner, and how it is launched."""

    def source(self) -> str:
        """The kernel's source with its decorators, then the launching function's."""
        parts = (self.kernel.base_fn, self.launch)
        return "\n\n".join(textwrap.dedent(inspect.getsource(p)) for p in parts)


def _once(call: Callable[[], None], quantiles: tuple[float, ...]) -> list[float]:
    """Time nothing, but run what should be timed: an interpreter's milliseconds say
    nothing of a card."""
    call()
    return [1.0 for _ in quantiles]


# On a card it is the tuner's own, which calls each configuration many times.
BENCH = _once if device.interpreting() else None
CONFIGS = [triton.Config({"BLOCK_K": 16}), triton.Config({"BLOCK_K": 32})]


@triton.autotune(
    configs=CONFIGS,
    key=["k"],
    do_bench=BENCH,
)
@triton.jit
def parts_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(tl.program_id(2) * BLOCK_K, k, PARTS * BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.atomic_add(out_at, acc, mask=in_m & in_n)


@triton.autotune(
    configs=CONFIGS,
    key=["k"],
    do_bench=BENCH,
    reset_to_zero=["out_ptr"],
)
@triton.jit
def reset_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(tl.program_id(2) * BLOCK_K, k, PARTS * BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.atomic_add(out_at, acc, mask=in_m & in_n)


def parts_launch(a: torch.Tensor, b: torch.Tensor) -> Launch:
    """Make room for a split sum, zeros to add to, and say how to launch it.

    Args:
        a: matrix (m, k) in float32, contiguous.
        b: matrix (k, n), likewise.

    Returns:
        A grid, arguments and constants, and the result (m, n).
    """
    (m, k), n = a.shape, b.shape[1]
    out = a.new_zeros((m, n))
    grid = (triton.cdiv(m, BLOCK), triton.cdiv(n, BLOCK), PARTS)
    return Launch(grid, (a, b, out, m, n, k, PARTS), {"BLOCK": BLOCK}, out)


def _never_seen() -> tuple[torch.Tensor, torch.Tensor]:
    """Operands of a size that neither tuner has been asked about."""
    parts_kernel.cache.clear()
    reset_kernel.cache.clear()
    return whole(20, 100), whole(100, 24)


def _warmed_up() -> tuple[torch.Tensor, torch.Tensor]:
    """Operands of a size that a first call, whose result nobody looked at, has had."""
    a, b = _never_seen()
    plan = parts_launch(a, b)
    parts_kernel[plan.grid](*plan.args, **plan.meta)
    return a, b


TUNED_SUM = Bug(
    name="tuned-sum",
    title="A sum that was rehearsed",
    symptom=(
        "The first call with a new k returns a multiple of the product, on a card a "
        "large one. Every later one is right, and so is every one that comes after a "
        "warm-up."
    ),
    source=(
        "The autotuner calls the kernel with the caller's own arguments, and split-K "
        "with atomics adds to what is there. Triton's reference warns of it."
    ),
    tool=REPEATS,
    wrong=Tuned(parts_kernel, parts_launch),
    mended=Tuned(reset_kernel, parts_launch),
    expected=torch.matmul,
    friendly=_warmed_up,
    inputs=_never_seen,
    length=100,
)


@triton.jit
def one_mask_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        # Where a is 0, it doesn't matter what b is.
        b = tl.load(b_at, mask=in_n, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


def _cache(behind: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands of 40 terms, the second of which lies in a buffer of 64 rows."""
    b = whole(64, 24)
    b[40:] = behind
    return whole(20, 40), b


ONE_MASK = Bug(
    name="one-mask",
    title="Zero times what?",
    symptom=(
        "Right in every test, with ragged sizes too. In service, where b is the "
        "filled part of a longer buffer, the product is NaN now and then, and no "
        "operand holds a NaN."
    ),
    source=(
        "IEEE 754: zero times NaN is NaN, and so is zero times infinity. Caches of "
        "keys and values are longer than what they hold."
    ),
    tool=BEHIND,
    wrong=Case(one_mask_kernel, _launch),
    mended=Case(ieee_kernel, _launch),
    expected=lambda a, b: a @ b[: a.shape[1]],
    friendly=lambda: _cache(0.0),
    # What memory holds that nobody has written, at its worst.
    inputs=lambda: _cache(float("nan")),
    length=40,
)


@triton.jit
def narrow_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.bfloat16)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None] * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc += tl.dot(a, b).to(tl.bfloat16)
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


def _positive(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """bfloat16 operands of one sign: nothing cancels, and a step adds nearly 16."""
    a, b = uniform(16 * k, 0.6, 0.8), uniform(k * 16, 0.6, 0.8)
    return a.view(16, k).bfloat16(), b.view(k, 16).bfloat16()


NARROW_SUM = Bug(
    name="narrow-sum",
    title="A sum as narrow as its terms",
    symptom=(
        "Right where k is small. The longer the sums, the fewer digits are right, and "
        "sums of many terms of one sign stop growing."
    ),
    source=(
        "Loops that keep acc in the type of the result, and split-K kernels that add "
        "their parts to a half-precision result by atomics: both are in print."
    ),
    tool=GROWTH,
    wrong=Case(narrow_kernel, _launch),
    mended=Case(default_kernel, _launch),
    expected=torch.matmul,
    friendly=lambda: _positive(BLOCK_K),
    inputs=lambda: _positive(TERMS),
    length=TERMS,
)

GALLERY: Mapping[str, Bug] = MappingProxyType(
    {bug.name: bug for bug in (DEFAULT_PRECISION, TUNED_SUM, ONE_MASK, NARROW_SUM)}
)
"""The chapter's bugs by name."""
