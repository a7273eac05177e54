"""Small kernels that show one thing each, and what they make of a few numbers."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
import triton
import triton.language as tl

from tilebook import compile_only, device, microscope
from tilebook.tiling import by_hand, recipes


@triton.jit
def third_kernel(x_ptr, out_ptr):
    x = tl.load(x_ptr + tl.arange(0, 8))  # (8,)
    tl.store(out_ptr, x[3])


@triton.jit
def halves_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))  # (N,)
    rows = tl.reshape(x, (2, N // 2))
    columns = tl.trans(rows)
    low, high = tl.split(columns)
    tl.store(out_ptr + tl.arange(0, N // 2), low - high)


@triton.jit
def step_kernel(
    a_ptr, b_ptr, c_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):  # fmt: skip
    offs_m, offs_n, offs_k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(a_ptr + offs_m[:, None] * K + offs_k[None, :])  # (M, K)
    b = tl.load(b_ptr + offs_k[:, None] * N + offs_n[None, :])  # (K, N)
    left = a[:, :, None]
    right = b[None, :, :]
    terms = left * right
    c = tl.sum(terms, axis=1)
    tl.store(c_ptr + offs_m[:, None] * N + offs_n[None, :], c)


@triton.jit
def _itself(x):
    return x


@triton.jit
def _element(x):
    return recipes.element(x, 3)


@triton.jit
def _row(x):
    return recipes.row(tl.reshape(x, (2, x.shape[0] // 2)), 1)


@triton.jit
def _with_element(x):
    return recipes.with_element(x, 3, 9)


@triton.jit
def _high(x):
    return recipes.halves(x)[1]


@triton.jit
def _odds(x):
    return recipes.evens_and_odds(x)[1]


@triton.jit
def _quarter(x):
    return recipes.quarter(x, 2)


@triton.jit
def _swapped(x):
    low, high = recipes.halves(x)
    return recipes.concatenated(high, low)


@triton.jit
def _shuffled(x):
    low, high = recipes.halves(x)
    return recipes.interleaved(low, high)


@triton.jit
def _reversed(x):
    return recipes.reversed_(x)


@triton.jit
def _flipped(x):
    return tl.flip(x, 0)


@triton.jit
def _rolled(x):
    # The interpreter takes no remainder of a Python number by a constexpr.
    return recipes.rolled(x, tl.full((), 3, tl.int32))


@triton.jit
def apply_kernel(
    x_ptr, out_ptr, HOW: tl.constexpr, N: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    x = tl.load(x_ptr + tl.arange(0, N))  # (N,)
    tl.store(out_ptr + tl.arange(0, SIZE), HOW(x))


CALLS: dict[str, tuple[Any, Callable[[int], int]]] = {
    "x, loaded and stored": (_itself, lambda n: n),
    "element(x, 3)": (_element, lambda n: 1),
    "row(x as (2, n / 2), 1)": (_row, lambda n: n // 2),
    "with_element(x, 3, 9)": (_with_element, lambda n: n),
    "halves(x)[1]": (_high, lambda n: n // 2),
    "evens_and_odds(x)[1]": (_odds, lambda n: n // 2),
    "quarter(x, 2)": (_quarter, lambda n: n // 4),
    "concatenated(high, low)": (_swapped, lambda n: n),
    "interleaved(low, high)": (_shuffled, lambda n: n),
    "rolled(x, 3)": (_rolled, lambda n: n),
    "reversed_(x)": (_reversed, lambda n: n),
    "tl.flip(x, 0)": (_flipped, lambda n: n),
}
"""Calls of recipes on a vector x of n elements, and how many elements they make."""


def calls(n: int = 8, large: int = 1024) -> pd.DataFrame:
    """Call each recipe once, and compile it for a long vector.

    Args:
        n: elements of the vector 0, 1, 2, ... that is shown.
        large: elements of the one that is compiled for, float32.

    Returns:
        A row per call: its result, and instructions, barriers and bytes of shared
        memory of a kernel that does nothing else on an sm_90.
    """
    where = device.torch_device()
    rows = {}
    for call, (how, size) in CALLS.items():
        x = torch.arange(n, dtype=torch.float32, device=where)
        out = torch.empty(size(n), device=where)
        apply_kernel[(1,)](x, out, HOW=how, N=n, SIZE=size(n))
        wide = torch.empty(large, device="meta")
        evidence = compile_only.compile(
            apply_kernel, wide, wide, HOW=how, N=large, SIZE=size(large)
        ).evidence
        shown = " ".join(f"{value:.0f}" for value in out.tolist())
        counts = evidence.instructions, evidence.barriers, evidence.shared_bytes
        rows[call] = [shown, *counts]
    columns = ["gives", "instructions", "barriers", "shared bytes"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def factors(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Make two matrices of small whole numbers.

    Args:
        size: rows and columns of both.

    Returns:
        A and B, float32.
    """
    at = torch.arange(size)
    a, b = at[:, None] + 2 * at[None, :], 3 * at[:, None] + at[None, :]
    return (a % 4).float(), (b % 5).float()


def steps(
    a: torch.Tensor, b: torch.Tensor, block: int = 2, program: int = 5
) -> list[tuple[torch.Tensor, ...]]:
    """Follow one program of `by_hand` through its loop.

    Args:
        a: square matrix, float32.
        b: another one of its size.
        block: side of a tile.
        program: the one that is followed.

    Returns:
        For each step the block of A and that of B, as they were loaded, and the sum of
        their products so far.
    """
    size = len(a)
    tiles = -(-size // block)
    look = microscope.look(
        by_hand.matmul_kernel,
        (tiles * tiles,),
        *(a, b, torch.empty(size, size), size, size, size),
        **{"BLOCK": block, "GROUP": 1},
        raise_error=True,
    )
    loaded = {
        name: [
            torch.as_tensor(access.values)
            for access in look.accesses
            if access.argument == name and look.program(access.program) == program
        ]
        for name in ("a_ptr", "b_ptr")
    }
    found, total = [], torch.zeros(block, block)
    for left, right in zip(loaded["a_ptr"], loaded["b_ptr"], strict=True):
        total = total + left @ right
        found.append((left, right, total))
    return found


def written(*matrices: torch.Tensor) -> str:
    """Write matrices of whole numbers down side by side.

    Args:
        matrices: of as many rows each.

    Returns:
        A line per row.
    """
    width = max(len(f"{value:.0f}") for m in matrices for value in m.flatten())
    return "\n".join(
        "    ".join(" ".join(f"{v:{width}.0f}" for v in row) for row in rows)
        for rows in zip(*matrices, strict=True)
    )
