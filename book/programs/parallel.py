"""What the pages run beneath the kernels of ``parallel``; see `bookext.programs`."""

import numpy as np

from tilebook.browser.bench import cdiv, compare, empty, integers, normal

MODULES = {
    "single": "single",
    "grid": "grid",
    "masked": "masked",
    "strided": "strided",
    "wide": "masked",
    "whole": "whole",
    "greyscale": "grey",
    "bugs.bounds": ("floor_grid", "one_more", "padding"),
    "bugs.sharing": ("thread_index", "moved_back"),
    "bugs.values": "swallowed",
    "solutions": (
        "affine",
        "reversed_",
        "every_other",
        "luma",
        "relu6",
        "grid_stride",
        "fused",
    ),
}


def single(add_kernel):
    x, y = normal(128), normal(128)
    out = empty(128)
    add_kernel[(1,)](x, y, out, BLOCK=128)
    compare(out, x + y)


def grid(add_kernel):
    x, y = normal(1024), normal(1024)
    out = empty(1024)
    add_kernel[(8,)](x, y, out, BLOCK=128)
    compare(out, x + y)


def masked(add_kernel):
    n = 1000
    x, y = normal(n), normal(n)
    out = empty(n)
    add_kernel[(cdiv(n, 128),)](x, y, out, n, BLOCK=128)
    compare(out, x + y)


def strided(add_kernel):
    n = 1000
    x, y = normal(n), normal(n)
    out = empty(n)
    # Three programs for eight tiles.
    add_kernel[(3,)](x, y, out, n, BLOCK=128)
    compare(out, x + y)


def whole(add_kernel):
    n = 1000
    x, y = normal(n), normal(n)
    out = empty(n)
    add_kernel[(cdiv(n, 256),)](x, y, out, n, BLOCK=256, TAIL=64)
    compare(out, x + y)


def grey(integer_kernel):
    h, w = 20, 50
    rgb = integers(0, 256, h, w, 3, dtype="uint8")
    out = empty(h, w, dtype="uint8")
    grid = (cdiv(h, 8) * cdiv(w, 32),)
    integer_kernel[grid](rgb, out, h, w, *rgb.stride(), BLOCK_H=8, BLOCK_W=32)
    compare(out, (rgb.astype(int) @ [299, 587, 114] + 500) // 1000)


def floor_grid(double_kernel):
    # One of the bugs: a division that rounds down loses the last block.
    n = 1000
    x, out = normal(n), empty(n)
    double_kernel[(n // 256,)](x, out, n, BLOCK=256)
    compare(out, 2 * x)


def one_more(negate_one_more_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    negate_one_more_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, -x)


def padding(minimum_padded_kernel):
    n = 1000
    x, out = 1 + abs(normal(n)), empty(cdiv(n, 256))
    minimum_padded_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, [x[i : i + 256].min() for i in range(0, n, 256)])


def thread_index(thread_style_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    thread_style_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, x + 1)


def moved_back(scale_moved_back_kernel):
    n = 1000
    x = normal(n)
    tripled = 3 * x
    scale_moved_back_kernel[(cdiv(n, 256),)](x, n, 3.0, BLOCK=256)
    compare(x, tripled, name="x")


def swallowed(relu_swallowing_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    x[7] = np.nan
    relu_swallowing_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, np.maximum(x, 0))


def affine(affine_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    affine_kernel[(cdiv(n, 256),)](x, out, 2.0, 3.0, n, BLOCK=256)
    compare(out, 2.0 * x + 3.0, roundings=2)


def reversed_(reverse_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    reverse_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, x[::-1])


def every_other(strided_kernel):
    n = 500
    x, out = normal(2 * n)[::2], empty(n)
    strided_kernel[(cdiv(n, 256),)](x, out, x.stride(0), n, BLOCK=256)
    compare(out, 2 * x)


def luma(luma_kernel):
    n = 1000
    rgb = integers(0, 256, n, 3, dtype="uint8")
    out = empty(n, dtype="uint8")
    luma_kernel[(cdiv(n, 256),)](rgb, out, n, BLOCK=256)
    compare(out, (rgb.astype(int) @ [54, 183, 19] + 128) // 256)


def relu6(relu6_kernel):
    n = 1000
    x, out = 5 * normal(n), empty(n)
    relu6_kernel[(cdiv(n, 256),)](x, out, n, BLOCK=256)
    compare(out, np.clip(x, 0, 6))


def grid_stride(grid_stride_kernel):
    n = 1000
    x = normal(n)
    squares = x * x
    grid_stride_kernel[(3,)](x, n, BLOCK=128)
    compare(x, squares, name="x")


def fused(fused_kernel):
    n = 1000
    x, y, z = normal(n), normal(n), normal(n)
    out = empty(n)
    fused_kernel[(cdiv(n, 256),)](x, y, z, out, n, BLOCK=256)
    compare(out, (x + y) * z, roundings=2)
