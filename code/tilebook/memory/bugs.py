"""Slow and right: kernels whose answers no test faults, and who finds them out."""

import difflib
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import compile_only, microscope
from tilebook.memory import banks, coalescing

BLOCK_M, BLOCK_N = 32, 64


@triton.jit
def scattered_kernel(
    x_ptr, out_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    # The tile's elements, numbered down the columns: neighbours lie n apart.
    lanes = tl.arange(0, BLOCK_M * BLOCK_N)
    offs_m = tl.program_id(0) * BLOCK_M + lanes % BLOCK_M
    offs_n = tl.program_id(1) * BLOCK_N + lanes // BLOCK_M
    offs = offs_m.to(tl.int64) * n + offs_n
    mask = (offs_m < m) & (offs_n < n)
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK_M * BLOCK_N,)
    tl.store(out_ptr + offs, 2 * x, mask=mask)


@triton.jit
def ordered_kernel(x_ptr, out_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    # The tile's elements, numbered along the rows, as they lie.
    lanes = tl.arange(0, BLOCK_M * BLOCK_N)
    offs_m = tl.program_id(0) * BLOCK_M + lanes // BLOCK_N
    offs_n = tl.program_id(1) * BLOCK_N + lanes % BLOCK_N
    offs = offs_m.to(tl.int64) * n + offs_n
    mask = (offs_m < m) & (offs_n < n)
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK_M * BLOCK_N,)
    tl.store(out_ptr + offs, 2 * x, mask=mask)


@triton.jit
def swapped_kernel(x_ptr, out_ptr, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    # Rows along the tile's last dimension: its neighbours lie n elements apart.
    offs = offs_m[None, :].to(tl.int64) * n + offs_n[:, None]
    mask = (offs_m < m)[None, :] & (offs_n < n)[:, None]  # (BLOCK_N, BLOCK_M)
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, 2 * x, mask=mask)


@triton.jit(do_not_specialize=["start"])
def unpromised_kernel(x_ptr, out_ptr, start, BLOCK: tl.constexpr):
    # A page of BLOCK elements; whoever calls knows that pages start at multiples of it.
    offs = start + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, 2 * tl.load(x_ptr + offs))


@triton.jit(do_not_specialize=["start"])
def promised_kernel(x_ptr, out_ptr, start, BLOCK: tl.constexpr):
    # On the argument itself the promise has no effect, on what is computed it has.
    first = tl.multiple_of(start + tl.program_id(0) * BLOCK, 16)
    offs = first + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, 2 * tl.load(x_ptr + offs))


def layout_of(kernel: Any) -> str:
    """How the compiler shares a matrix's tile out among threads.

    Args:
        kernel: of the matrix ones above.

    Returns:
        The layout's line of the TTGIR, and the evidence line.
    """
    x = torch.empty(4096, 4096, device="meta")
    made = compile_only.compile(
        kernel, x, x, 4096, 4096, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, target="sm_90"
    )
    (first, *_) = re.findall(r"#ttg\.blocked<\{.*?\}>", made.ttgir)
    return f"{first}\n{made.evidence.line()}"


def _matrix(kernel: Any) -> str:
    x = torch.arange(64 * 128, dtype=torch.float32).view(64, 128)
    look = microscope.look(
        kernel,
        (triton.cdiv(64, BLOCK_M), triton.cdiv(128, BLOCK_N)),
        *(x, torch.empty_like(x), 64, 128),
        BLOCK_M=BLOCK_M,
        BLOCK_N=BLOCK_N,
        raise_error=True,
    )
    seen = coalescing.traffic(look, "x_ptr")
    return (
        f"{seen.sectors:,} sectors handed out where {seen.least:,} would do: "
        f"{seen.share:.0%} of the bytes are wanted"
    )


def _pages(kernel: Any) -> str:
    vectors = [torch.empty(2**20, device="meta") for _ in range(2)]
    made = compile_only.compile(kernel, *vectors, 4096, BLOCK=1024, target="sm_90")
    return made.evidence.line()


def _tile(layout: Callable[[int, int], int]) -> str:
    rows, columns = banks.cycles(layout)
    return f"a row takes {rows} cycle(s), a column {columns}"


@dataclass(frozen=True)
class Slow:
    """A kernel that is right and slow, or a layout, and its mend.

    Args:
        title: in a few words.
        symptom: what is noticed.
        tool: which tool tells.
        wrong: the slow kernel or layout.
        right: its mend.
        tell: what the tool says of either.
    """

    title: str
    symptom: str
    tool: str
    wrong: Any
    right: Any
    tell: Callable[[Any], str]

    def diff(self) -> str:
        """The lines that the mend changes."""
        sources = [
            textwrap.dedent(inspect.getsource(getattr(it, "fn", it))).splitlines()
            for it in (self.wrong, self.right)
        ]
        changed = difflib.unified_diff(*sources, lineterm="", n=0)
        return "\n".join(
            line for line in changed if not line.startswith(("---", "+++", "@@"))
        )

    def verdicts(self) -> tuple[str, str]:
        """What the tool says of the slow one, and of the mend."""
        return self.tell(self.wrong), self.tell(self.right)


GALLERY = {
    "scattered": Slow(
        "Neighbours that are none",
        "Slower than the same bytes moved by the next kernel.",
        "coalescing.traffic",
        scattered_kernel,
        ordered_kernel,
        _matrix,
    ),
    "no-promise": Slow(
        "A multiple that nobody promised",
        "Slower than the kernel it was copied from, at the same addresses.",
        "the evidence line",
        unpromised_kernel,
        promised_kernel,
        _pages,
    ),
    "bank-conflict": Slow(
        "All in one bank",
        "A tile is fast by rows and 32 times as slow by columns.",
        "banks.cycles",
        banks.plain,
        banks.swizzled,
        _tile,
    ),
}
"""The slow ones, by name."""
