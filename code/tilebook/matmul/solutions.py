"""Our solutions to the chapter's exercises, each under its exercise's last word."""

import triton
import triton.language as tl

__all__ = [
    "complex_kernel",
    "exact_kernel",
    "gelu_kernel",
    "parts_kernel",
    "room",
    "scales_kernel",
    "strips_kernel",
    "traffic",
    "triangle_kernel",
]  # fmt: skip


def traffic(m: int, n: int, k: int, size: int, rows: int, columns: int) -> int:
    """Bytes that the programs of a tiled product load together.

    Args:
        m: rows of the result.
        n: columns of it.
        k: terms of a sum.
        size: bytes of an element.
        rows: of a tile, which divide m.
        columns: of it, which divide n.

    Returns:
        Bytes, of which caches may serve most.
    """
    programs = (m // rows) * (n // columns)
    return programs * (rows + columns) * k * size


def room(
    rows: int, columns: int, terms: int, warps: int, registers: int, size: int
) -> tuple[int, int, int]:
    """What registers and shared memory of an SM leave to the programs on it.

    Args:
        rows: of a tile.
        columns: of it.
        terms: of a stage.
        warps: of a program.
        registers: of a thread.
        size: bytes of an element of the operands.

    Returns:
        Sums of a thread, programs on an SM, and stages of each.
    """
    threads = 32 * warps
    programs = 65_536 // (threads * registers)
    own = 228 * 1024 // programs - 1024
    stage = (rows + columns) * terms * size
    return rows * columns // threads, programs, own // stage


@triton.jit
def strips_kernel(x_ptr, out_ptr, tiles_m, tiles_n, GROUP: tl.constexpr):
    pid = tl.program_id(0)
    strip, within = pid // (GROUP * tiles_m), pid % (GROUP * tiles_m)
    first = strip * GROUP
    # Strips before this one are whole; this one may be the last.
    width = tl.minimum(tiles_n - first, GROUP)
    pid_m, pid_n = within // width, first + within % width
    tl.store(out_ptr + pid, tl.load(x_ptr + pid_m * tiles_n + pid_n))


@triton.jit
def gelu_kernel(
    a_ptr, b_ptr, bias_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None].to(tl.int64) * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc)
    bias = tl.load(bias_ptr + offs_n, mask=offs_n < n, other=0.0)  # (BLOCK_N,)
    x = acc + bias.to(tl.float32)[None, :]
    out = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, out, mask=in_m & in_n)


@triton.jit
def parts_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(2)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    span = tl.cdiv(tl.cdiv(k, BLOCK_K), PARTS) * BLOCK_K
    # A part that begins past the last term has no step, and stores its zeros.
    for start in range(part * span, tl.minimum(part * span + span, k), BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None].to(tl.int64) * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc)
    out_ptr += part.to(tl.int64) * m * n
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


@triton.jit
def scales_kernel(
    a_ptr, b_ptr, scale_a_ptr, scale_b_ptr, out_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_k[:, None].to(tl.int64) * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0)
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
    scale_a = tl.load(scale_a_ptr + offs_m, mask=offs_m < m, other=0.0)
    scale_b = tl.load(scale_b_ptr + offs_n, mask=offs_n < n, other=0.0)
    # Neither scale depends on k: once for a sum is enough.
    out = acc.to(tl.float32) * scale_a[:, None] * scale_b[None, :]
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, out, mask=in_m & in_n)


@triton.jit
def complex_kernel(
    ar_ptr, ai_ptr, br_ptr, bi_ptr, re_ptr, im_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    both = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    real = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    imag = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        in_a = in_m & (offs_k < k)[None, :]
        in_b = (offs_k < k)[:, None] & in_n
        a_at = offs_m[:, None] * k + offs_k[None, :]
        b_at = offs_k[:, None].to(tl.int64) * n + offs_n[None, :]
        ar = tl.load(ar_ptr + a_at, mask=in_a, other=0.0)  # (BLOCK_M, BLOCK_K)
        ai = tl.load(ai_ptr + a_at, mask=in_a, other=0.0)
        br = tl.load(br_ptr + b_at, mask=in_b, other=0.0)  # (BLOCK_K, BLOCK_N)
        bi = tl.load(bi_ptr + b_at, mask=in_b, other=0.0)
        real = tl.dot(ar, br, real, input_precision="ieee")
        imag = tl.dot(ai, bi, imag, input_precision="ieee")
        both = tl.dot(ar + ai, br + bi, both, input_precision="ieee")
    at, mask = offs_m[:, None] * n + offs_n[None, :], in_m & in_n
    tl.store(re_ptr + at, real - imag, mask=mask)
    tl.store(im_ptr + at, both - real - imag, mask=mask)


@triton.jit
def place(pid):
    """Row and column of a tile of the lower triangle, by its number."""
    row = ((tl.sqrt(8.0 * pid.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    # The root is rounded: it may be one off on either side.
    row -= (row * (row + 1) // 2 > pid).to(tl.int32)
    row += ((row + 1) * (row + 2) // 2 <= pid).to(tl.int32)
    return row, pid - row * (row + 1) // 2


@triton.jit
def triangle_kernel(
    a_ptr, out_ptr, m, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    row, column = place(tl.program_id(0))
    offs_m = row.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    offs_n = column.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        in_k = (offs_k < k)[None, :]
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = a_ptr + offs_n[:, None] * k + offs_k[None, :]
        a = tl.load(a_at, mask=(offs_m < m)[:, None] & in_k, other=0.0)
        b = tl.load(b_at, mask=(offs_n < m)[:, None] & in_k, other=0.0)
        acc = tl.dot(a, tl.trans(b), acc)
    out = acc.to(out_ptr.dtype.element_ty)  # (BLOCK, BLOCK)
    mask = (offs_m < m)[:, None] & (offs_n < m)[None, :]
    tl.store(out_ptr + offs_m[:, None] * m + offs_n[None, :], out, mask=mask)
    mirrored = out_ptr + offs_n[:, None] * m + offs_m[None, :]
    tl.store(mirrored, tl.trans(out), mask=tl.trans(mask))


@triton.jit
def thirds(x):
    """A float32 as the sum of three bfloat16."""
    high = x.to(tl.bfloat16)
    x -= high.to(tl.float32)
    middle = x.to(tl.bfloat16)
    low = (x - middle.to(tl.float32)).to(tl.bfloat16)
    return high, middle, low


@triton.jit
def exact_kernel(
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
        b_at = b_ptr + offs_k[:, None].to(tl.int64) * n + offs_n[None, :]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        a_high, a_middle, a_low = thirds(a)
        b_high, b_middle, b_low = thirds(b)
        # The three of nine that are left out are at most 2^-23 of a term.
        small = tl.dot(a_middle, b_middle)
        small = tl.dot(a_high, b_low, small)
        small = tl.dot(a_low, b_high, small)
        small = tl.dot(a_high, b_middle, small)
        small = tl.dot(a_middle, b_high, small)
        acc = tl.dot(a_high, b_high, acc)
        acc += small
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)
