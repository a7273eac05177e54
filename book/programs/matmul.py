"""What the pages run beneath the kernels of ``matmul``; see `bookext.programs`."""

import math

import numpy as np
import triton.language as tl

from tilebook.browser.bench import cdiv, compare, empty, full, integers, normal

MODULES = {
    "naive": "naive",
    "outer": "outer",
    "tile": "tile",
    "ordered": "ordered",
    "persistent": "persistent",
    "bugs": "one_mask",
    "solutions": ("strips", "gelu", "parts", "scales", "complex_", "exact"),
}


def naive(matmul_kernel):
    m, n, k = 4, 6, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    strides = (*a.stride(), *b.stride(), *out.stride())
    matmul_kernel[(m * n,)](a, b, out, m, n, k, *strides, ACC=tl.float32, BLOCK=16)
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def outer(matmul_kernel):
    m, n, k = 20, 30, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    strides = (*a.stride(), *b.stride(), *out.stride())
    grid = (cdiv(m, 16) * cdiv(n, 16),)
    matmul_kernel[grid](
        a, b, out, m, n, k, *strides, ACC=tl.float32, BLOCK_M=16, BLOCK_N=16
    )
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def tile(matmul_kernel):
    m, n, k = 20, 50, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    strides = (*a.stride(), *b.stride(), *out.stride())
    grid = (cdiv(m, 16) * cdiv(n, 32),)
    matmul_kernel[grid](
        a, b, out, m, n, k, *strides, ACC=tl.float32, PRECISION="ieee",
        BLOCK_M=16, BLOCK_N=32, BLOCK_K=16,
    )  # fmt: skip
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def ordered(matmul_kernel):
    m, n, k = 40, 50, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    strides = (*a.stride(), *b.stride(), *out.stride())
    # No bias, no residual, and sizes that are multiples of nothing.
    after = (1.0, None, 0, None, 0, 0)
    divisors = dict.fromkeys(
        ("M", "N", "K", "A_M", "A_K", "B_K", "B_N", "OUT_M", "OUT_N"), 1
    )
    grid = (cdiv(m, 16) * cdiv(n, 16),)
    matmul_kernel[grid](
        a, b, out, m, n, k, *strides, *after,
        **{f"{name}_DIV": size for name, size in divisors.items()},
        ACC=tl.float32, PRECISION="ieee", EVEN_K=False, WITHIN=tl.int32,
        ACTIVATION=None,
        BLOCK_M=16, BLOCK_N=16, BLOCK_K=16, GROUP=2,
    )  # fmt: skip
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def persistent(matmul_kernel):
    m, n, k = 40, 50, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    strides = (*a.stride(), *b.stride(), *out.stride())
    after = (1.0, None, 0, None, 0, 0)
    divisors = dict.fromkeys(
        ("M", "N", "K", "A_M", "A_K", "B_K", "B_N", "OUT_M", "OUT_N"), 1
    )
    # Three programs for twelve tiles.
    matmul_kernel[(3,)](
        a, b, out, m, n, k, *strides, *after,
        **{f"{name}_DIV": size for name, size in divisors.items()},
        ACC=tl.float32, PRECISION="ieee", EVEN_K=False, WITHIN=tl.int32,
        ACTIVATION=None,
        BLOCK_M=16, BLOCK_N=16, BLOCK_K=16, GROUP=2,
    )  # fmt: skip
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def one_mask(one_mask_kernel):
    m, n, k = 20, 30, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    one_mask_kernel[cdiv(m, 16), cdiv(n, 16)](a, b, out, m, n, k, BLOCK=16, BLOCK_K=16)
    compare(out, a.astype(float) @ b.astype(float), roundings=2 * k)


def strips(strips_kernel):
    m, n, group = 4, 7, 3
    x, out = integers(0, 100, m, n), empty(m * n, dtype="int32")
    strips_kernel[(m * n,)](x, out, m, n, GROUP=group)
    walk = [x[:, first : first + group].reshape(-1) for first in range(0, n, group)]
    compare(out, np.concatenate(walk))


def gelu(gelu_kernel):
    m, n, k = 20, 30, 40
    a, b, bias = normal(m, k), normal(k, n), normal(n)
    out = empty(m, n)
    gelu_kernel[cdiv(m, 16), cdiv(n, 16)](
        a, b, bias, out, m, n, k, BLOCK_M=16, BLOCK_N=16, BLOCK_K=16
    )
    x = a.astype(float) @ b.astype(float) + bias
    phi = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    compare(out, x * phi, roundings=4 * k)


def parts(parts_kernel):
    m, n, k, parts = 20, 30, 40, 2
    a, b, out = normal(m, k), normal(k, n), empty(parts, m, n)
    grid = cdiv(m, 16), cdiv(n, 16), parts
    parts_kernel[grid](
        a, b, out, m, n, k, BLOCK_M=16, BLOCK_N=16, BLOCK_K=16, PARTS=parts
    )
    compare(out.sum(axis=0), a.astype(float) @ b.astype(float), roundings=2 * k)


def scales(scales_kernel):
    m, n, k = 20, 30, 40
    a = integers(-100, 100, m, k, dtype="int8")
    b = integers(-100, 100, k, n, dtype="int8")
    scale_a, scale_b, out = full(0.5, m), full(0.25, n), empty(m, n)
    scales_kernel[cdiv(m, 16), cdiv(n, 16)](
        a, b, scale_a, scale_b, out, m, n, k, BLOCK_M=16, BLOCK_N=16, BLOCK_K=16
    )
    compare(out, (a.astype(int) @ b.astype(int)) * 0.125, roundings=3)


def complex_(complex_kernel):
    m, n, k = 20, 30, 40
    ar, ai = normal(m, k), normal(m, k)
    br, bi = normal(k, n), normal(k, n)
    re, im = empty(m, n), empty(m, n)
    complex_kernel[cdiv(m, 16), cdiv(n, 16)](
        ar, ai, br, bi, re, im, m, n, k, BLOCK_M=16, BLOCK_N=16, BLOCK_K=16
    )
    product = (ar + 1j * ai).astype(complex) @ (br + 1j * bi).astype(complex)
    compare(re, product.real, roundings=8 * k, name="re")
    compare(im, product.imag, roundings=8 * k, name="im")


def exact(exact_kernel):
    m, n, k = 20, 30, 40
    a, b, out = normal(m, k), normal(k, n), empty(m, n)
    exact_kernel[cdiv(m, 16), cdiv(n, 16)](
        a, b, out, m, n, k, BLOCK_M=16, BLOCK_N=16, BLOCK_K=16
    )
    compare(out, a.astype(float) @ b.astype(float), roundings=4 * k)
