"""Kernels that Triton refuses, each for one reason: what the dictionary provokes."""

import triton
import triton.language as tl

WIDTH = 64
"""A number that a kernel can't see."""


def helper(x):
    return tl.exp(x)


@triton.jit
def ragged_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, 100)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def running_range_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, n)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def two_widths_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    long, short = tl.arange(0, BLOCK), tl.arange(0, BLOCK // 2)
    tl.store(out_ptr + long, tl.load(x_ptr + short) + tl.load(x_ptr + long))


@triton.jit
def outer_number_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, WIDTH)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def plain_helper_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, helper(tl.load(x_ptr + offs)))


@triton.jit
def comprehension_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    parts = {k: tl.load(x_ptr + k * BLOCK + offs) for k in range(2)}
    tl.store(out_ptr + offs, parts[0] + parts[1])


@triton.jit
def between_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    inside = 0 <= offs < n
    tl.store(out_ptr + offs, tl.load(x_ptr + offs, inside, 0.0), inside)


@triton.jit
def tile_condition_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    if x > 0:
        tl.store(out_ptr + offs, x)


@triton.jit
def changing_type_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = 0
    for k in range(n):
        total += tl.load(x_ptr + k * BLOCK + offs)
    tl.store(out_ptr + offs, total)


@triton.jit
def small_dot_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.dot(x, x))


@triton.jit
def unfit_dot_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, 32)[:, None] * 64 + tl.arange(0, 64)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.dot(x, x))


@triton.jit
def mixed_dot_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.dot(x, x.to(tl.float16)))


@triton.jit
def offset_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(offs))


@triton.jit
def scalar_pointer_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr, tl.load(x_ptr + offs), mask=offs < n)


@triton.jit
def running_shape_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros((n,), tl.float32)
    tl.store(out_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def huge_tile_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    rows, columns = tl.arange(0, 2048)[:, None], tl.arange(0, 1024)[None, :]
    at = rows * 1024 + columns
    tl.store(out_ptr + at, tl.load(x_ptr + at))


@triton.jit
def asserting_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    tl.static_assert(BLOCK % 128 == 0, "BLOCK must be whole lines of 128")
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def element_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr, x[0])


@triton.jit
def regrouped_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    x = tl.reshape(tl.load(x_ptr + tl.arange(0, BLOCK)), (8, 4))
    tl.store(out_ptr + tl.arange(0, 8), tl.sum(x, 1))


@triton.jit
def bitwise_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, x & 1)


@triton.jit
def two_results_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    if n > 3:
        y = tl.load(x_ptr + offs)
    else:
        y = offs
        tl.store(out_ptr + BLOCK + offs, y)
    tl.store(out_ptr + offs, y)


@triton.jit
def branch_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    if n > 3:
        y = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, y)


@triton.jit
def thin_descriptor_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [n, 1], [32, 2])
    x = desc.load([0, 0])
    tl.store(out_ptr + tl.arange(0, 32), tl.sum(x, 1))


@triton.jit
def strided_descriptor_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    desc = tl.make_tensor_descriptor(x_ptr, [n, n], [1, n], [32, 32])
    tl.store(out_ptr + tl.arange(0, 32), tl.sum(desc.load([0, 0]), 1))


@triton.jit
def long_axis_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr, tl.sum(x, axis=1))


@triton.jit
def program_axis_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    tl.store(out_ptr + tl.program_id(3), 1.0)


@triton.jit
def unmasked_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, 2 * tl.load(x_ptr + offs))


tuned_kernel = triton.autotune(
    [triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 64})], key=[]
)(unmasked_kernel)


@triton.jit
def greedy_kernel(a_ptr, b_ptr, k, SIDE: tl.constexpr):
    at = tl.arange(0, SIDE)
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for first in range(0, k, SIDE):
        a = tl.load(a_ptr + at[:, None] * k + first + at[None, :])
        b = tl.load(b_ptr + (first + at)[:, None] * k + at[None, :])
        total = tl.dot(a, b, total)
    tl.store(b_ptr + at[:, None] * k + at[None, :], total.to(tl.float16))
