"""Memory only read, only written, or both: what each kind of traffic can reach."""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory.layout import written

BLOCK = 2048
NUM_WARPS = 4


@triton.jit
def sum_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    offs = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)  # (BLOCK,)
    # One number for each tile: next to nothing is written.
    tl.store(out_ptr + pid, tl.sum(x, 0))


@triton.jit
def fill_kernel(out_ptr, value, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.full((BLOCK,), value, tl.float32), mask=offs < n)


@triton.jit
def triad_kernel(x_ptr, y_ptr, out_ptr, a, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + a * y, mask=mask)


def block_sums(x: torch.Tensor) -> torch.Tensor:
    """Sum each tile of a vector: memory is read and hardly written.

    Args:
        x: (n,) float32, contiguous.

    Returns:
        (cdiv(n, BLOCK),) float32, the sums.

    Raises:
        TypeError: `x` isn't a float32 tensor.
        ValueError: another rank, not contiguous, or where no kernel can reach it.
    """
    check.tensor(x, "x", dtype=torch.float32, ndim=1, contiguous=True)
    check.runs_here(x, "x", current=True)
    tiles = triton.cdiv(x.numel(), BLOCK)
    out = x.new_empty(tiles)
    if tiles:
        sum_kernel[(tiles,)](x, out, x.numel(), BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out


def fill(out: torch.Tensor, value: float) -> torch.Tensor:
    """Fill a vector: memory is written and not read.

    Args:
        out: (n,) float32, contiguous; changed in place.
        value: what every element becomes.

    Returns:
        `out`.

    Raises:
        TypeError: `out` isn't a float32 tensor.
        ValueError: another rank, not contiguous, or where no kernel can reach it.
    """
    check.tensor(out, "out", dtype=torch.float32, ndim=1, contiguous=True)
    check.runs_here(out, "out", current=True)
    value = check.number(value, "value")
    written(out)
    if n := out.numel():
        grid = (triton.cdiv(n, BLOCK),)
        fill_kernel[grid](out, value, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out


def triad(
    x: torch.Tensor, y: torch.Tensor, a: float, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute `x + a * y`: two vectors are read for each one written.

    Args:
        x: (n,) float32, contiguous.
        y: the same.
        a: the factor.
        out: the same; receives the result.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or isn't float32.
        ValueError: ranks, lengths or devices differ, or a tensor isn't contiguous.
    """
    operands = {"x": x, "y": y} | ({} if out is None else {"out": out})
    for name, tensor in operands.items():
        check.tensor(tensor, name, dtype=torch.float32, ndim=1, contiguous=True)
    check.same_shape(**operands)
    check.same_device(**operands)
    check.runs_here(x, "x", current=True)
    a = check.number(a, "a")
    if out is None:
        out = torch.empty_like(x)
    else:
        written(out, x, y)
    if n := x.numel():
        grid = (triton.cdiv(n, BLOCK),)
        triad_kernel[grid](x, y, out, a, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out
