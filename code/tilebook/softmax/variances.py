"""Other formulas of the variance, for comparing errors: a row per program, no more."""

from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, library

BLOCK = 1024


@triton.jit
def naive_kernel(x_ptr, out_ptr, n, stride_m, stride_n, divisor, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + lanes.to(tl.int64)
        ptrs = x_ptr + row * stride_m + offs * stride_n
        x = tl.load(ptrs, mask=offs < n, other=0.0)  # (BLOCK,)
        first += x
        second += x * x
    # Two numbers of the size of the mean's square, and a difference of the variance's.
    mean = tl.sum(first, axis=0) / n
    spread = tl.sum(second, axis=0) / n - mean * mean
    tl.store(out_ptr + row, spread * n / divisor)


@triton.jit
def two_pass_kernel(
    x_ptr, out_ptr, n, stride_m, stride_n, divisor, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + lanes.to(tl.int64)
        ptrs = x_ptr + row * stride_m + offs * stride_n
        acc += tl.load(ptrs, mask=offs < n, other=0.0)  # (BLOCK,)
    mean = tl.sum(acc, axis=0) / n
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + lanes.to(tl.int64)
        ptrs = x_ptr + row * stride_m + offs * stride_n
        # Lanes beyond the end are at the mean: no distance from it.
        x = tl.load(ptrs, mask=offs < n, other=0.0)  # (BLOCK,)
        delta = tl.where(offs < n, x - mean, 0.0)
        acc += delta * delta
    tl.store(out_ptr + row, tl.sum(acc, axis=0) / divisor)


@triton.jit
def welford_kernel(
    x_ptr, out_ptr, n, stride_m, stride_n, divisor, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    mean = tl.zeros((BLOCK,), tl.float32)
    m2 = tl.zeros((BLOCK,), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + lanes.to(tl.int64)
        inside = offs < n
        ptrs = x_ptr + row * stride_m + offs * stride_n
        x = tl.load(ptrs, mask=inside, other=0.0)  # (BLOCK,)
        count += tl.where(inside, 1.0, 0.0)
        delta = tl.where(inside, x - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        m2 += tl.where(inside, delta * (x - mean), 0.0)
    centre = tl.sum(count * mean, axis=0) / n
    apart = mean - centre
    squares = tl.sum(m2 + count * apart * apart, axis=0)
    tl.store(out_ptr + row, squares / divisor)


def var_naive(x: torch.Tensor, *, correction: int = 1) -> torch.Tensor:
    """Compute the variances of rows as the mean of squares less the mean's square.

    Args:
        x: float32 matrix (m, n), any strides.
        correction: taken off the number of elements in the divisor.

    Returns:
        float32 (m,), negative where rounding wants it so; NaN of rows without elements.

    Raises:
        TypeError: `x` isn't a float32 tensor, or `correction` is no int.
        ValueError: not a matrix, a negative `correction`, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Kept to be compared with. Relative error up to n k^2 u, where k^2 is 1 plus the
        square of mean over standard deviation and u is 2^-24 (Chan, Golub and LeVeque,
        "Algorithms for computing the sample variance", 1983).
    """
    return _rows(naive_kernel, x, correction)


def var_two_pass(x: torch.Tensor, *, correction: int = 1) -> torch.Tensor:
    """Compute the variances of rows from distances to a mean computed before.

    Args:
        x: float32 matrix (m, n), any strides.
        correction: taken off the number of elements in the divisor.

    Returns:
        float32 (m,); NaN of rows without elements.

    Raises:
        TypeError: `x` isn't a float32 tensor, or `correction` is no int.
        ValueError: not a matrix, a negative `correction`, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Kept to be compared with. Relative error up to n u + (n k u)^2, with the names
        of `var_naive`: the error of the mean comes in by its square. Reads rows twice.
    """
    return _rows(two_pass_kernel, x, correction)


def var_welford(x: torch.Tensor, *, correction: int = 1) -> torch.Tensor:
    """Compute the variances of rows by Welford's recurrence on the elements themselves.

    Args:
        x: float32 matrix (m, n), any strides.
        correction: taken off the number of elements in the divisor.

    Returns:
        float32 (m,); NaN of rows without elements.

    Raises:
        TypeError: `x` isn't a float32 tensor, or `correction` is no int.
        ValueError: not a matrix, a negative `correction`, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Kept to be compared with: `var` without its shift. Relative error up to n k u,
        with the names of `var_naive` (Welford 1962; Chan, Golub and LeVeque 1983).
    """
    return _rows(welford_kernel, x, correction)


def _rows(kernel: Any, x: torch.Tensor, correction: int) -> torch.Tensor:
    check.tensor(x, "x", dtype=torch.float32, ndim=2)
    check.runs_here(x, "x")
    check.natural_number(correction, "correction")
    m, n = x.shape
    out = torch.full((m,), float("nan"), device=x.device)
    if x.numel():
        divisor = float(max(0, n - correction))
        with library.on(x):
            kernel[(m,)](x, out, n, *x.stride(), divisor, BLOCK=BLOCK)
    return out
