"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl

from tilebook import device, measure

__all__ = [
    "affine_kernel",
    "copy_milliseconds",
    "count",
    "fused",
    "grid_stride_kernel",
    "luma_kernel",
    "measured_saturation",
    "microseconds",
    "relu6_kernel",
    "reverse_kernel",
    "saturation",
    "strided_kernel",
]


def count(n: int, block: int) -> tuple[int, int]:
    """Programs that cover n elements, and lanes that the mask keeps idle.

    Args:
        n: elements, at least one.
        block: elements per program.

    Returns:
        Number of programs, number of masked-off lanes in all of them together.
    """
    programs = triton.cdiv(n, block)
    return programs, programs * block - n


@triton.jit
def affine_kernel(x_ptr, out_ptr, a, b, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, a * x + b, mask=mask)


def microseconds(n: int, element_bytes: int, gbps: float) -> tuple[float, float]:
    """Least time of (x + y) * z, in one kernel and in two.

    Args:
        n: elements of each tensor.
        element_bytes: size of one element.
        gbps: bandwidth of the memory in 10^9 bytes per second.

    Returns:
        Microseconds of the fused kernel: three reads and a write; and of an addition
        followed by a multiplication: two reads and a write, twice.
    """
    one_pass = n * element_bytes / (gbps * 1e9) * 1e6
    return 4 * one_pass, 6 * one_pass


@triton.jit
def reverse_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    # A lane that would store past the end would load before the start.
    x = tl.load(x_ptr + (n - 1 - offs), mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


@triton.jit
def strided_kernel(x_ptr, out_ptr, stride, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    # The mask counts elements; only the address counts strides.
    x = tl.load(x_ptr + offs * stride, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, 2.0 * x, mask=mask)


@triton.jit
def luma_kernel(rgb_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    r = tl.load(rgb_ptr + 3 * offs, mask=mask, other=0).to(tl.int32)
    g = tl.load(rgb_ptr + 3 * offs + 1, mask=mask, other=0).to(tl.int32)
    b = tl.load(rgb_ptr + 3 * offs + 2, mask=mask, other=0).to(tl.int32)
    # Half the divisor turns rounding down into rounding to nearest.
    grey = (54 * r + 183 * g + 19 * b + 128) // 256  # (BLOCK,) int32
    tl.store(out_ptr + offs, grey.to(tl.uint8), mask=mask)


@triton.jit
def relu6_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    # Comparisons with NaN are false, so both lines leave NaN alone.
    x = tl.where(x < 0.0, 0.0, x)
    x = tl.where(x > 6.0, 6.0, x)
    tl.store(out_ptr + offs, x, mask=mask)


@triton.jit
def grid_stride_kernel(x_ptr, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    for first in range(start, n, step):
        offs = first + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
        tl.store(x_ptr + offs, x * x, mask=mask)


@triton.jit
def fused_kernel(x_ptr, y_ptr, z_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    # In float32, so that half precision is rounded once, at the store.
    x = tl.load(x_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + offs, (x + y) * z, mask=mask)


def fused(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Compute (x + y) * z in one pass over memory.

    Args:
        x: float32, float16 or bfloat16; any strides, which are copied away.
        y: same shape, dtype and device.
        z: same shape, dtype and device.

    Returns:
        A new contiguous tensor.
    """
    x, y, z = x.contiguous(), y.contiguous(), z.contiguous()
    out = torch.empty_like(x)
    n = out.numel()
    fused_kernel[(triton.cdiv(n, 1024),)](x, y, z, out, n, BLOCK=1024)
    return out


def saturation(
    overhead_us: float, gbps: float, element_bytes: int, fraction: float
) -> int:
    """Elements that a copy needs to reach a fraction of the bandwidth.

    A launch of n elements takes t = overhead + bytes / bandwidth, so it reaches
    (bytes / bandwidth) / t of the bandwidth. Solved for the bytes:
    fraction / (1 - fraction) * overhead * bandwidth.

    Args:
        overhead_us: time of a launch that moves nothing, in microseconds.
        gbps: bandwidth in 10^9 bytes per second.
        element_bytes: size of one element; each is read once and written once.
        fraction: of the bandwidth, below 1.

    Returns:
        The smallest number of elements.
    """
    in_flight = overhead_us * 1e-6 * gbps * 1e9
    return math.ceil(fraction / (1 - fraction) * in_flight / (2 * element_bytes))


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


def copy_milliseconds(n: int) -> float:
    """Measure a copy of n float32 elements whose source is in memory.

    Args:
        n: elements.

    Returns:
        Median time in milliseconds.

    Raises:
        HardwareError: there is no GPU.
    """
    x = torch.randn(n, device=device.torch_device())
    out = torch.empty_like(x)
    grid = (triton.cdiv(n, 1024),)
    return measure.time_cold(lambda: copy_kernel[grid](x, out, n, BLOCK=1024)).ms


def measured_saturation(
    fraction: float = 0.9,
    *,
    milliseconds: Callable[[int], float] = copy_milliseconds,
    longest: int = 2**28,
) -> int:
    """Find the length from which on a copy reaches a fraction of its best bandwidth.

    Args:
        fraction: of the best bandwidth seen.
        milliseconds: measures a copy of so many elements.
        longest: elements of the longest copy tried; powers of two up to it.

    Returns:
        The smallest power of two that reaches it, and all longer ones with it.

    Raises:
        HardwareError: there is no GPU.
    """
    lengths = [2**k for k in range(14, longest.bit_length())]
    speeds = [n / milliseconds(n) for n in lengths]
    enough = fraction * max(speeds)
    slow = [n for n, speed in zip(lengths, speeds, strict=True) if speed < enough]
    return 2 * max(slow, default=lengths[0] // 2)
