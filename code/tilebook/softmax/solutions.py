"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import math

import torch
import triton
import triton.language as tl

__all__ = [
    "argmax_kernel",
    "backward_kernel",
    "flight",
    "log_kernel",
    "lse_kernel",
    "merge",
    "rows_kernel",
    "temperature",
    "traffic",
    "variance_kernel",
]  # fmt: skip


def traffic(m: int, n: int, size: int) -> tuple[int, int]:
    """Bytes that a softmax of rows moves, in five kernels and in one.

    Args:
        m: rows.
        n: columns.
        size: bytes of an element.

    Returns:
        Bytes of maximum, difference, exponential, sum and quotient, each a kernel that
        reads and writes memory; and of one kernel.
    """
    read = m * n + (m * n + m) + m * n + m * n + (m * n + m)
    written = m + m * n + m * n + m + m * n
    return (read + written) * size, 2 * m * n * size


def flight(gbps: float, latency_ns: float, sms: int, row_bytes: int) -> tuple[int, int]:
    """What must be on its way for a bandwidth, and how many rows that is.

    Args:
        gbps: the bandwidth.
        latency_ns: from the request of a byte to its arrival.
        sms: multiprocessors that share the bytes.
        row_bytes: that a program requests at a time.

    Returns:
        Bytes on their way in all, and programs needed on each multiprocessor.
    """
    total = round(gbps * latency_ns)
    return total, math.ceil(total / sms / row_bytes)


def merge(m_a: float, d_a: float, m_b: float, d_b: float) -> tuple[float, float]:
    """The state of two chunks together.

    Args:
        m_a, d_a: maximum of one chunk, and its sum of exponentials less that.
        m_b, d_b: those of the other.

    Returns:
        The same of both.
    """
    m = max(m_a, m_b)
    return m, d_a * math.exp(m_a - m) + d_b * math.exp(m_b - m)


@triton.jit
def rows_kernel(x_ptr, out_ptr, m, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    offs_m = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offs_n = tl.arange(0, COLUMNS)
    offs = offs_m[:, None] * n + offs_n[None, :]
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(x_ptr + offs, mask=mask, other=float("-inf"))  # (ROWS, COLUMNS)
    top = tl.max(x, axis=1)
    # Rows that don't exist are -inf throughout; what becomes of them isn't stored.
    e = tl.exp(x - top[:, None])
    tl.store(out_ptr + offs, e / tl.sum(e, axis=1)[:, None], mask=mask)


@triton.jit
def log_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + row * n + offs, mask=mask, other=float("-inf"))  # (BLOCK,)
    z = x - tl.max(x, axis=0)
    # The logarithm of the softmax, without the softmax: that may be 0.
    out = z - tl.log(tl.sum(tl.exp(z), axis=0))
    tl.store(out_ptr + row * n + offs, out, mask=mask)


@triton.jit
def lse_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    m = tl.full((), float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + row * n + offs, mask=mask, other=float("-inf"))  # (BLOCK,)
        new = tl.maximum(m, tl.max(x, axis=0))
        base = tl.where(new == float("-inf"), 0.0, new)
        d = d * tl.exp(m - base) + tl.sum(tl.exp(x - base), axis=0)
        m = new
    base = tl.where(m == float("-inf"), 0.0, m)
    tl.store(out_ptr + row, base + tl.log(d))


@triton.jit
def backward_kernel(y_ptr, dy_ptr, dx_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = row * n + tl.arange(0, BLOCK)
    mask = tl.arange(0, BLOCK) < n
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    dy = tl.load(dy_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    dot = tl.sum(y * dy, axis=0)
    tl.store(dx_ptr + offs, y * (dy - dot), mask=mask)


@triton.jit
def argmax_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    best = tl.full((), float("-inf"), tl.float32)
    index = tl.full((), 0, tl.int64)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + row * n + offs, mask=mask, other=float("-inf"))  # (BLOCK,)
        top = tl.max(x, axis=0)
        at = tl.min(tl.where(x == top, offs, n), axis=0)
        # Only what is greater: an equal element comes later.
        index = tl.where(top > best, at.to(tl.int64), index)
        best = tl.maximum(best, top)
    tl.store(out_ptr + row, index)


@triton.jit
def variance_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    count = tl.full((), 0.0, tl.float32)
    mean = tl.full((), 0.0, tl.float32)
    m2 = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < n
        x = tl.load(x_ptr + row * n + offs, mask=mask, other=0.0)  # (BLOCK,)
        new = tl.sum(mask.to(tl.float32), axis=0)
        centre = tl.sum(x, axis=0) / new
        away = tl.where(mask, x - centre, 0.0)
        delta = centre - mean
        total = count + new
        m2 += tl.sum(away * away, axis=0) + delta * delta * (count * new / total)
        mean += delta * (new / total)
        count = total
    tl.store(out_ptr + row, m2 / n)


@triton.jit
def temperature_kernel(
    x_ptr, t_ptr, out_ptr, n, stride_m, stride_n, stride_t, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * stride_m
    scale = 1.0 / tl.load(t_ptr + row * stride_t).to(tl.float32)
    m = tl.full((), float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK).to(tl.int64)
        x = tl.load(x_ptr + offs * stride_n, mask=offs < n, other=float("-inf"))
        x = x.to(tl.float32)  # (BLOCK,)
        new = tl.maximum(m, tl.max(x, axis=0))
        d = d * tl.exp((m - new) * scale) + tl.sum(tl.exp((x - new) * scale), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK).to(tl.int64)
        x = tl.load(x_ptr + offs * stride_n, mask=offs < n, other=float("-inf"))
        out = tl.exp((x.to(tl.float32) - m) * scale) / d  # (BLOCK,)
        tl.store(out_ptr + row * n + offs, out, mask=offs < n)


def temperature(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Compute the softmax of each row over a temperature of its own.

    Args:
        x: matrix (m, n), finite, any strides.
        t: temperatures (m,), positive, of the dtype of `x`.

    Returns:
        The softmax of `x / t[:, None]`, contiguous, of the dtype of `x`.
    """
    m, n = x.shape
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    if out.numel():
        block = min(1024, triton.next_power_of_2(n))
        temperature_kernel[(m,)](
            x, t, out, n, *x.stride(), t.stride(0), BLOCK=block
        )  # fmt: skip
    return out
