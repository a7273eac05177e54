"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import triton
import triton.language as tl

__all__ = [
    "blocks_kernel",
    "codes",
    "floor",
    "powers_kernel",
    "promoted_kernel",
    "ranges",
    "round_kernel",
    "split_kernel",
    "turned_kernel",
]  # fmt: skip


def codes(code: int) -> tuple[float, float]:
    """Read a positive, normal code of eight bits.

    Args:
        code: less than 128.

    Returns:
        What it stands for in e4m3fn, and in e5m2.
    """
    found = []
    for mantissa, bias in ((3, 7), (2, 15)):
        exponent, fraction = divmod(code, 1 << mantissa)
        found.append((1 + fraction / (1 << mantissa)) * 2.0 ** (exponent - bias))
    return found[0], found[1]


def ranges() -> tuple[float, float, float]:
    """How far below a group's largest magnitude numbers lose what they have.

    Returns:
        The ratio from which on e4m3fn's numbers are subnormal, that from which on they
        are rounded to zero, and the latter for int8.
    """
    smallest = 2.0**-9
    # What lies in the middle of zero and the smallest number is rounded to zero, whose
    # code is even.
    return 448 / 2.0**-6, 448 / (smallest / 2), 127 / 0.5


def floor(m: int, n: int, k: int, gbps: float, tflops: float) -> tuple[int, float, int]:
    """What a product of few rows has to move, and how long that takes.

    Args:
        m: rows.
        n: columns.
        k: terms of a sum, a multiple of 128 as n is.
        gbps: bandwidth of the memory.
        tflops: what tensor cores do.

    Returns:
        Bytes of codes, of scales by 1 x 128 and 128 x 128, and of a result in bf16;
        microseconds; and the least number of rows whose operations take longer.
    """

    def moved(rows: int) -> int:
        codes = rows * k + n * k
        scales = 4 * (rows * k // 128 + n * k // 128 // 128)
        return codes + scales + 2 * rows * n

    rows = 1
    while 2 * rows * n * k / tflops < moved(rows) / gbps * 1e3:
        rows += 1
    return moved(m), moved(m) / gbps / 1e3, rows


@triton.jit
def round_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # Half a step of 20 bits, less one unless the last bit that stays is odd.
    half = 0x7FFFF + ((size >> 20) & 1)
    normal = ((size + half) >> 20) - (120 << 3)
    # Beside 2^14 neighbours of float32 are 2^-9 apart, as subnormal numbers are.
    magic = tl.full((), 16384.0, tl.float32)
    near = (tl.abs(x) + magic).to(tl.int32, bitcast=True)
    subnormal = near - magic.to(tl.int32, bitcast=True)
    code = tl.where(tl.abs(x) < 2.0**-6, subnormal, normal)
    code = tl.minimum(code, 0x7E)
    code = tl.where(size > 0x7F800000, 0x7F, code)
    code |= (bits >> 24) & 0x80
    tl.store(out_ptr + offs, code.to(tl.uint8), mask=offs < n)


@triton.jit
def powers_kernel(x_ptr, out_ptr, m, k, groups, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs_g, offs = tl.arange(0, BLOCK // 32), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    # As integers magnitudes are in their order, NaN above all.
    size = tl.reshape(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, (BLOCK // 32, 32))
    amax = tl.max(size, axis=1)
    # The exponent field, 8 octaves down; what is below 2^-119 has none left.
    code = tl.maximum((amax >> 23) - 8, 0)
    code = tl.where(amax >= 0x7F800000, 255, code)
    tl.store(out_ptr + row * groups + offs_g, code.to(tl.uint8), mask=offs_g < groups)


@triton.jit
def turned_kernel(
    x_ptr, codes_ptr, scale_ptr, m, k, BLOCK_K: tl.constexpr
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * 128 + tl.arange(0, 128)
    offs_k = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    in_m, in_k = offs_m < m, offs_k < k
    mask = in_m[:, None] & in_k[None, :]
    x_at = x_ptr + offs_m[:, None] * k + offs_k[None, :]
    x = tl.load(x_at, mask=mask, other=0.0)  # (128, BLOCK_K)
    # A column of x is a row of its transpose: the group lies along m.
    amax = tl.maximum(tl.max(tl.abs(x), axis=0), 448 * 2.0**-120)
    scale = tl.div_rn(amax, 448.0)
    y = (x * tl.div_rn(1.0, scale)[None, :]).to(tl.float8e4nv)
    codes_at = codes_ptr + offs_k[:, None] * m + offs_m[None, :]
    tl.store(codes_at, tl.trans(y), mask=tl.trans(mask))
    scale_at = scale_ptr + offs_k * tl.num_programs(0) + tl.program_id(0)
    tl.store(scale_at, scale, mask=in_k)


@triton.jit
def blocks_kernel(
    a_ptr, b_ptr, scale_a_ptr, scale_b_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = offs_m < m, offs_n < n
    blocks = tl.cdiv(k, 128)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        in_k = offs_k < k
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_n[None, :] * k + offs_k[:, None]
        a = tl.load(a_at, mask=in_m[:, None] & in_k[None, :], other=0.0)
        b = tl.load(b_at, mask=in_k[:, None] & in_n[None, :], other=0.0)
        # Several steps may be of one block, several columns of one group.
        left_at = scale_a_ptr + offs_m * blocks + start // 128
        left = tl.load(left_at, mask=in_m, other=0.0)  # (BLOCK_M,)
        right_at = scale_b_ptr + offs_n // 128 * blocks + start // 128
        right = tl.load(right_at, mask=in_n, other=0.0)  # (BLOCK_N,)
        acc += tl.dot(a, b) * left[:, None] * right[None, :]
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m[:, None] & in_n[None, :])


@triton.jit
def promoted_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_n[None, :] * k + offs_k[:, None]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc += tl.dot(a, b)
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


@triton.jit
def halves(x):
    """Two numbers of e4m3fn whose sum is x, the second one 16 times too large."""
    high = x.to(tl.float8e4nv)
    low = (x.to(tl.float32) - high.to(tl.float32)) * 16.0
    return high, low.to(tl.float8e4nv)


@triton.jit
def split_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_n[None, :] * k + offs_k[:, None]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        a_high, a_low = halves(a)
        b_high, b_low = halves(b)
        # The fourth product is a 256th of these two at most.
        small = tl.dot(a_low, b_high) + tl.dot(a_high, b_low)
        acc += tl.dot(a_high, b_high) + small * 0.0625
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)
