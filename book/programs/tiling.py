"""What the pages run beneath the kernels of ``tiling``; see `bookext.programs`."""

import numpy as np

from tilebook.browser.bench import (
    cdiv,
    compare,
    descriptor,
    empty,
    full,
    integers,
    normal,
)

MODULES = {
    "naive": "naive",
    "tiled": "tiled",
    "described": "described",
    "descriptors": "descriptors",
    "stencil": ("direct", "rows", "packed"),
    "indexed": "gather",
    "scattering": "ordered",
    "demos": "halves",
    "by_hand": "by_hand",
    "bugs": ("swapped", "half_masked", "unturned"),
    "solutions": ("outer", "flip", "sums", "stack", "pool", "pool_wide"),
}


def naive(transpose_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(n, m)
    grid = (m * cdiv(n, 16),)
    transpose_kernel[grid](x, out, m, n, *x.stride(), BLOCK=16)
    compare(out, x.T)


def tiled(transpose_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(n, m)
    grid = (cdiv(m, 8) * cdiv(n, 16),)
    transpose_kernel[grid](x, out, m, n, *x.stride(), BLOCK_M=8, BLOCK_N=16)
    compare(out, x.T)


def described(transpose_kernel):
    m, n = 20, 52
    x, out = normal(m, n), empty(n, m)
    grid = (cdiv(m, 8) * cdiv(n, 16),)
    x_desc, out_desc = descriptor(x, 8, 16), descriptor(out, 16, 8)
    transpose_kernel[grid](x_desc, out_desc, m, n, BLOCK_M=8, BLOCK_N=16, GROUP=2)
    compare(out, x.T)


def descriptors(copy_kernel):
    m, n = 20, 52
    x, out = normal(m, n), empty(m, n)
    grid = (cdiv(m, 8) * cdiv(n, 16),)
    copy_kernel[grid](x, out, m, n, n, n, BLOCK_M=8, BLOCK_N=16)
    compare(out, x)


def direct(direct_kernel):
    h, w = 20, 50
    image = integers(0, 256, h, w, dtype="uint8")
    out = empty(h, w, dtype="uint8")
    weights = (1, 2, 1)
    grid = (cdiv(h, 8) * cdiv(w, 32),)
    direct_kernel[grid](
        image, out, h, w, *image.stride(), 8, RADIUS=1, WEIGHTS=weights,
        BORDER="reflect", BLOCK_H=8, BLOCK_W=32,
    )  # fmt: skip
    edged = np.pad(image.astype(int), 1, mode="reflect")
    rows = edged[:-2] + 2 * edged[1:-1] + edged[2:]
    compare(out, (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4)


def rows(rows_kernel):
    h, w = 20, 50
    image = integers(0, 256, h, w, dtype="uint8")
    out = empty(h, w, dtype="uint8")
    grid = (cdiv(h, 8) * cdiv(w, 32),)
    rows_kernel[grid](
        image, out, h, w, *image.stride(), 8, RADIUS=1, WEIGHTS=(1, 2, 1),
        BORDER="reflect", ROWS=8, BLOCK_W=32,
    )  # fmt: skip
    edged = np.pad(image.astype(int), 1, mode="reflect")
    rows = edged[:-2] + 2 * edged[1:-1] + edged[2:]
    compare(out, (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4)


def packed(packed_kernel):
    h, w = 20, 64
    image = integers(0, 256, h, w, dtype="uint8")
    out = empty(h, w, dtype="uint8")
    # Words of four pixels: 16 of them in a row.
    grid = (cdiv(h, 8) * cdiv(w // 4, 8),)
    packed_kernel[grid](
        image, out, h, w // 4, w // 4, RADIUS=1, BORDER="reflect", ROWS=8, BLOCK=8
    )
    edged = np.pad(image.astype(int), 1, mode="reflect")
    rows = edged[:-2] + 2 * edged[1:-1] + edged[2:]
    compare(out, (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4)


def gather(gather_kernel):
    size, m, n = 12, 20, 30
    x = normal(size, n)
    index = integers(0, size, m, n, dtype="int64")
    out = empty(m, n)
    strides = (*x.stride(), *index.stride(), *out.stride())
    grid = (cdiv(m, 8) * cdiv(n, 16),)
    gather_kernel[grid](
        x, index, out, size, m, n, *strides, BLOCK_M=8, BLOCK_N=16
    )  # fmt: skip
    compare(out, np.take_along_axis(x, index, axis=0))


def ordered(ordered_kernel):
    size, m, n = 6, 20, 30
    out = full(0, size, n)
    index = integers(0, size, m, n, dtype="int64")
    src = normal(m, n)
    strides = (*out.stride(), *index.stride(), *src.stride())
    ordered_kernel[(cdiv(n, 16),)](
        out, index, src, size, m, n, *strides, ADD=True, BLOCK=16
    )
    expected = np.zeros((size, n))
    for row in range(m):
        expected[index[row], np.arange(n)] += src[row]
    compare(out, expected, roundings=m)


def halves(halves_kernel):
    n = 16
    x, out = normal(n), empty(n // 2)
    halves_kernel[(1,)](x, out, N=n)
    compare(out, x[: n // 2] - x[n // 2 :])


def by_hand(matmul_kernel):
    m, n, k = 20, 30, 40
    a, b, c = normal(m, k), normal(k, n), empty(m, n)
    grid = (cdiv(m, 16) * cdiv(n, 16),)
    matmul_kernel[grid](a, b, c, m, n, k, BLOCK=16, GROUP=2)
    compare(c, a.astype(float) @ b.astype(float), roundings=2 * k, name="c")


def swapped(turn_swapped_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(n, m)
    turn_swapped_kernel[cdiv(m, 16), cdiv(n, 16)](x, out, m, n, BLOCK=16)
    compare(out, x.T)


def half_masked(scale_half_masked_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(m, n)
    grid = cdiv(m, 16), cdiv(n, 16)
    scale_half_masked_kernel[grid](x, out, m, n, BLOCK=16)
    compare(out, x + np.arange(m, dtype="float32")[:, None])


def unturned(turn_unturned_mask_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(n, m)
    turn_unturned_mask_kernel[cdiv(m, 16), cdiv(n, 16)](x, out, m, n, BLOCK=16)
    compare(out, x.T)


def outer(outer_kernel):
    m, n = 20, 50
    x, y, out = normal(m), normal(n), empty(m, n)
    grid = cdiv(m, 8), cdiv(n, 16)
    outer_kernel[grid](x, y, out, m, n, BLOCK_M=8, BLOCK_N=16)
    compare(out, x[:, None] + y[None, :])


def flip(flip_kernel):
    m, n = 20, 50
    x, out = normal(m, n), empty(m, n)
    grid = cdiv(m, 8), cdiv(n, 16)
    flip_kernel[grid](x, out, m, n, *x.stride(), BLOCK_M=8, BLOCK_N=16)
    compare(out, x[:, ::-1])


def sums(sums_kernel):
    m, n = 50, 40
    x, out = normal(m, n), empty(n)
    sums_kernel[(cdiv(n, 16),)](x, out, m, n, BLOCK_M=16, BLOCK_N=16)
    compare(out, x.sum(axis=0, dtype=float), roundings=m)


def stack(stack_kernel):
    b, m, n = 3, 12, 20
    x, out = normal(b, m, n), empty(b, n, m)
    x_desc, out_desc = descriptor(x, 1, 8, 16), descriptor(out, 1, 16, 8)
    stack_kernel[b, cdiv(m, 8), cdiv(n, 16)](x_desc, out_desc, BLOCK_M=8, BLOCK_N=16)
    compare(out, x.swapaxes(1, 2))


def pool(pool_kernel):
    h, w = 20, 50
    x, out = normal(2 * h, 2 * w), empty(h, w)
    grid = cdiv(h, 8), cdiv(w, 32)
    pool_kernel[grid](x, out, h, w, *x.stride(), BLOCK_H=8, BLOCK_W=32)
    quarters = x.reshape(h, 2, w, 2).astype(float)
    compare(out, quarters.mean(axis=(1, 3)), roundings=4)


def pool_wide(pool_wide_kernel):
    h, w = 20, 50
    x, out = normal(2 * h, 2 * w), empty(h, w)
    grid = cdiv(h, 8), cdiv(w, 32)
    pool_wide_kernel[grid](x, out, h, w, x.stride(0), BLOCK_H=8, BLOCK_W=32)
    quarters = x.reshape(h, 2, w, 2).astype(float)
    compare(out, quarters.mean(axis=(1, 3)), roundings=4)
