"""Products of MX formats by `tl.dot_scaled`: for Blackwell, and emulated elsewhere.

A group of 32 terms shares a power of two. Blackwell's tensor cores take codes and
scales, and shift as they add; there is nothing to promote. On Hopper the compiler
multiplies codes by their scales in bfloat16 first, which holds both without rounding,
and has nothing of eight bits left but the bytes that it reads.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.fp8 import formats, scaling
from tilebook.fp8.operands import DTYPES
from tilebook.matmul.operands import itself
from tilebook.tiling.operands import check_grid

GROUP = scaling.GRANULARITIES["mx"].columns
BLOCK_M, BLOCK_N, BLOCK_K = 128, 128, 128
"""Of a tile, and terms that are loaded at a time."""
NAMES = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}
"""What `tl.dot_scaled` calls the types."""


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, scale_a_ptr, scale_b_ptr, m, n, k,
    scale_am, scale_ak, scale_bn, scale_bk,
    A: tl.constexpr, B: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    pid_m, pid_n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(k, BLOCK_K)):
        offs_k = tl.cast(step, tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
        offs_g = tl.cast(step, tl.int64) * (BLOCK_K // GROUP)
        offs_g += tl.arange(0, BLOCK_K // GROUP)
        in_k, in_g = (offs_k < k)[None, :], (offs_g < tl.cdiv(k, GROUP))[None, :]
        a = tl.load(
            a_ptr + offs_m[:, None] * k + offs_k[None, :], mask=in_m & in_k, other=0.0
        )  # (BLOCK_M, BLOCK_K)
        b = tl.load(
            b_ptr + offs_n[:, None] * k + offs_k[None, :], mask=in_n & in_k, other=0.0
        )  # (BLOCK_N, BLOCK_K)
        # Of terms that aren't there the power is 1.
        scale_a = tl.load(
            scale_a_ptr + offs_m[:, None] * scale_am + offs_g[None, :] * scale_ak,
            mask=in_m & in_g,
            other=127,
        )  # (BLOCK_M, BLOCK_K // GROUP)
        scale_b = tl.load(
            scale_b_ptr + offs_n[:, None] * scale_bn + offs_g[None, :] * scale_bk,
            mask=in_n & in_g,
            other=127,
        )  # (BLOCK_N, BLOCK_K // GROUP)
        acc = tl.dot_scaled(a, scale_a, A, b.T, scale_b, B, acc)
    tl.store(
        out_ptr + offs_m[:, None] * n + offs_n[None, :],
        acc.to(out_ptr.dtype.element_ty),
        mask=in_m & (offs_n < n)[None, :],
    )


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """Multiply two matrices that were quantised as "mx".

    Args:
        a: codes (m, k) of an 8-bit type, contiguous.
        b: codes (n, k) of the second matrix's transpose, contiguous.
        scale_a: (m, ceil(k / 32)) float8_e8m0fnu, any strides.
        scale_b: (n, ceil(k / 32)) float8_e8m0fnu, any strides.
        out_dtype: the result's: bfloat16, float16 or float32.

    Returns:
        (m, n), contiguous.

    Raises:
        TypeError: not tensors, or a dtype that isn't allowed.
        ValueError: other shapes, memory that isn't contiguous, or a tensor where this
            process's kernels can't reach it.

    Notes:
        Triton's interpreter has `tl.dot_scaled` from 3.8 on.
    """
    check.tensor(a, "a", dtype=DTYPES, ndim=2, contiguous=True)
    check.tensor(b, "b", dtype=DTYPES, shape=("n", a.shape[1]), contiguous=True)
    (m, k), n = a.shape, b.shape[0]
    kind, groups = torch.float8_e8m0fnu, -(-k // GROUP)
    check.tensor(scale_a, "scale_a", dtype=kind, shape=(m, groups))
    check.tensor(scale_b, "scale_b", dtype=kind, shape=(n, groups))
    check.same_device(a=a, b=b, scale_a=scale_a, scale_b=scale_b)
    check.runs_here(a, "a")
    out = torch.zeros(m, n, dtype=out_dtype, device=a.device)
    if out.numel() and k:
        launch(a, b, out, scale_a, scale_b)
    return out


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    wrap: Callable[[Any], Any] = itself,
) -> None:
    """Launch the kernel; see `matmul`.

    Args:
        a: (m, k).
        b: (n, k).
        out: (m, n), contiguous.
        scale_a: of `a`.
        scale_b: of `b`.
        wrap: makes of a kernel what is launched.
    """
    (m, k), n = a.shape, b.shape[0]
    powers = [x.view(torch.uint8) for x in (scale_a, scale_b)]
    count = check_grid(-(-m // BLOCK_M) * -(-n // BLOCK_N), "tiles", "the product")
    wrap(matmul_kernel)[(count,)](
        a, b, out, *powers, m, n, k, *powers[0].stride(), *powers[1].stride(),
        A=NAMES[a.dtype], B=NAMES[b.dtype], BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N,
        BLOCK_K=BLOCK_K, GROUP=GROUP, num_warps=8,
    )  # fmt: skip


def emulated(
    a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor
) -> torch.Tensor:
    """Multiply what codes and powers stand for, in float64.

    Args:
        a: as for `matmul`.
        b: likewise.
        scale_a: likewise.
        scale_b: likewise.

    Returns:
        (m, n) float64.
    """
    wide = {"dtype": torch.float64}
    left = scaling.dequantize(a, scale_a, "mx", **wide)
    return left @ scaling.dequantize(b, scale_b, "mx", **wide).t()


def fp4(x: torch.Tensor) -> torch.Tensor:
    """What MXFP4 makes of a matrix: e2m1 codes, 32 of a row with a power of two.

    Args:
        x: (m, k) of a type in `scaling.DTYPES`.

    Returns:
        (m, k) float32, as it comes back.
    """
    check.tensor(x, "x", dtype=scaling.DTYPES, ndim=2)
    amax = scaling.largest(x.float(), "mx")
    # The power of two below amax, divided by that below 6.
    codes = formats.encode_scale(amax / 4, "down").view(torch.float8_e8m0fnu)
    scale = scaling.spread(codes, "mx", *x.shape)
    return formats.round_to(x.float() / scale, formats.E2M1) * scale
