"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import math

import triton
import triton.language as tl

__all__ = [
    "WIDTHS",
    "bound",
    "checksum_kernel",
    "cycles",
    "flight",
    "interleave_kernel",
    "planes_kernel",
    "roll_kernel",
    "rows_kernel",
    "sectors",
]


def flight(gbps: float, ns: float, sms: int, threads: int) -> float:
    """Bytes that each thread must have on their way.

    Args:
        gbps: bandwidth in 10^9 bytes per second.
        ns: latency in nanoseconds.
        sms: multiprocessors.
        threads: threads on each.

    Returns:
        Bytes: Little's law, shared out.
    """
    return gbps * ns / sms / threads


def sectors(lanes: int, stride: int, itemsize: int) -> int:
    """Sectors of 32 bytes that a warp's load touches, from an aligned start.

    Args:
        lanes: threads that load an element each.
        stride: elements from one to the next.
        itemsize: bytes of an element, a power of two up to 32.

    Returns:
        How many different sectors.
    """
    return len({lane * stride * itemsize // 32 for lane in range(lanes)})


def bound(gbps: float, tflops: float, read: int, written: int) -> float:
    """FLOP for each element below which a kernel is bound by memory.

    Args:
        gbps: bandwidth in 10^9 bytes per second.
        tflops: rate in 10^12 operations per second.
        read: bytes read for each element.
        written: bytes written for each element.

    Returns:
        The ridge's intensity times the bytes.
    """
    return tflops * 1e3 / gbps * (read + written)


def cycles(stride: int) -> int:
    """Cycles of a warp that reads shared memory at a stride of 4-byte words.

    Args:
        stride: words from one thread's to the next's.

    Returns:
        How many different words share a bank: the greatest common divisor with 32; one
        where all threads want the same word.
    """
    return math.gcd(stride, 32) if stride else 1


# x[1:] is off every multiple of 16, so each load takes one number; bf16 has half the
# bytes, so that half as many wide loads do.
WIDTHS = ("b", "c", "a")


@triton.jit
def rows_kernel(
    x_ptr, out_ptr, m, n, stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    ptrs = x_ptr + offs_m[:, None] * stride + offs_n[None, :]
    x = tl.load(ptrs, mask=mask, other=0.0)  # (BLOCK_M, BLOCK_N)
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], x, mask=mask)


@triton.jit
def interleave_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    # Neighbours in the joined tile are neighbours in memory: one wide store.
    both = 2 * start + tl.arange(0, 2 * BLOCK)
    tl.store(out_ptr + both, tl.interleave(x, y), mask=both // 2 < n)


@triton.jit
def planes_kernel(rgb_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    for c in tl.static_range(3):
        plane = tl.load(rgb_ptr + 3 * offs + c, mask=mask, other=0)  # (BLOCK,)
        tl.store(out_ptr + offs, plane, mask=mask)
        # From plane to plane by the pointer: c * n might not fit into 32 bits.
        out_ptr += n


@triton.jit
def roll_kernel(x_ptr, out_ptr, shift, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    # C's remainder has the dividend's sign: add n before taking it.
    source = (offs - shift % n + n) % n
    x = tl.load(x_ptr + source, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


@triton.jit
def checksum_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0)  # (BLOCK,)
    # One atomic for each program, not for each element.
    tl.atomic_xor(out_ptr, tl.xor_sum(x, 0), sem="relaxed")
