"""Kernels that each give one pass something to do."""

import triton
import triton.language as tl


@triton.jit
def combine_kernel(a_ptr, b_ptr, c_ptr, SIDE: tl.constexpr):
    """A product, and then a sum with it."""
    offs = tl.arange(0, SIDE)
    at = offs[:, None] * SIDE + offs[None, :]
    product = tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at))
    tl.store(c_ptr + at, product + tl.load(c_ptr + at))


@triton.jit
def broadcast_kernel(x_ptr, out_ptr, SIDE: tl.constexpr):
    """An exponential of a column that has been stretched to a square."""
    offs = tl.arange(0, SIDE)
    column = tl.broadcast_to(tl.load(x_ptr + offs)[:, None], (SIDE, SIDE))
    tl.store(out_ptr + offs[:, None] * SIDE + offs[None, :], tl.exp(column))


@triton.jit
def invariant_kernel(x_ptr, scale_ptr, out_ptr, rounds, BLOCK: tl.constexpr):
    """A loop that asks for the same scale in each round."""
    offs = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(rounds):
        total += tl.load(x_ptr + i * BLOCK + offs) * tl.load(scale_ptr)
    tl.store(out_ptr + offs, total)


@triton.jit
def unroll_kernel(x_ptr, out_ptr, rounds, BLOCK: tl.constexpr):
    """A loop that is to be written out four times."""
    offs = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in tl.range(rounds, loop_unroll_factor=4):
        total += tl.load(x_ptr + i * BLOCK + offs)
    tl.store(out_ptr + offs, total)


@triton.jit
def transpose_kernel(x_ptr, out_ptr, stride, SIDE: tl.constexpr):
    """A square, read along rows and written along columns."""
    offs = tl.arange(0, SIDE)
    x = tl.load(x_ptr + offs[:, None] * stride + offs[None, :])
    tl.store(out_ptr + offs[:, None] + offs[None, :] * stride, x)


@triton.jit
def locality_kernel(x_ptr, out_ptr, rounds, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of rows, to which each round adds the sum of a part."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    x = x_ptr + rows[:, None] * (rounds * BLOCK) + columns[None, :]
    total = tl.zeros((ROWS,), tl.float32)
    for _ in range(rounds):
        total += tl.sum(tl.load(x), axis=1)
        x += BLOCK
    tl.store(out_ptr + rows, total)


@triton.jit
def product_kernel(
    a_ptr, b_ptr, out_ptr, k, stride, SIDE: tl.constexpr, PRECISION: tl.constexpr
):
    """A product of two bands, the second's rows as columns."""
    offs = tl.arange(0, SIDE)
    a = a_ptr + offs[:, None] * stride + offs[None, :]
    b = b_ptr + offs[None, :] * stride + offs[:, None]
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for _ in range(0, k, SIDE):
        total = tl.dot(tl.load(a), tl.load(b), total, input_precision=PRECISION)
        a += SIDE
        b += SIDE
    tl.store(out_ptr + offs[:, None] * SIDE + offs[None, :], total)


@triton.jit
def specialised_kernel(a, b, out, k, SIDE: tl.constexpr):
    """A product by tensor descriptors, whose warps are to share the work."""
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for i in tl.range(0, k, SIDE, warp_specialize=True):
        total = tl.dot(a.load([0, i]), b.load([0, i]).T, total)
    out.store([0, 0], total.to(tl.float16))


@triton.jit
def fence_kernel(a_ptr, b_ptr, out_ptr, SIDE: tl.constexpr):
    """A product of what threads have computed."""
    offs = tl.arange(0, SIDE)
    at = offs[:, None] * SIDE + offs[None, :]
    a = tl.exp(tl.load(a_ptr + at).to(tl.float32)).to(tl.float16)
    b = tl.exp(tl.load(b_ptr + at).to(tl.float32)).to(tl.float16)
    tl.store(out_ptr + at, tl.dot(a, b))
