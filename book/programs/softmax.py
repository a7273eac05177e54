"""What the pages run beneath the kernels of ``softmax``; see `bookext.programs`."""

import numpy as np
import triton

from tilebook.browser.bench import cdiv, compare, empty, normal

MODULES = {
    "fused": "fused",
    "several": "several",
    "persistent": ("persistent", "staged"),
    "ragged": "ragged",
    "split": "partial",
    "backward": "tile",
    "bugs": ("padded", "turned", "infinite"),
    "solutions": ("rows", "log", "lse", "gradient", "argmax", "variance"),
}


def fused(softmax_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m, n)
    softmax_kernel[(m,)](
        x,
        out,
        n,
        x.stride(0),
        1.0,
        DIV=1,
        BLOCK=triton.next_power_of_2(n),
        LOG=False,
        POLICY="",
    )
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def several(softmax_kernel):
    m, n = 10, 20
    x, out = normal(m, n), empty(m, n)
    softmax_kernel[(cdiv(m, 4),)](
        x, out, m, n, x.stride(0), 1.0,
        DIV=1, ROWS=4, BLOCK=triton.next_power_of_2(n), LOG=False, POLICY="",
    )  # fmt: skip
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def persistent(softmax_kernel):
    m, n = 10, 100
    x, out = normal(m, n), empty(m, n)
    # Three programs for ten rows.
    softmax_kernel[(3,)](
        x,
        out,
        m,
        n,
        x.stride(0),
        1.0,
        DIV=1,
        BLOCK=triton.next_power_of_2(n),
        LOG=False,
        POLICY="",
    )
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def staged(staged_kernel):
    m, n = 10, 100
    x, out = normal(m, n), empty(m, n)
    staged_kernel[(3,)](
        x, out, m, n, x.stride(0), 1.0,
        DIV=1, BLOCK=triton.next_power_of_2(n), LOG=False, POLICY="", STAGES=2,
    )  # fmt: skip
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def ragged(softmax_kernel):
    m, n = 6, 101
    x, out = normal(m, n), empty(m, n)
    softmax_kernel[(m,)](
        x,
        out,
        n,
        x.stride(0),
        1.0,
        W=4,
        BLOCK=triton.next_power_of_2(n),
        LOG=False,
        POLICY="",
    )
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def partial(partial_kernel):
    # The first of two kernels: a maximum and a sum for each part of a row.
    m, n, parts, span = 3, 120, 2, 2
    x, partial = normal(m, n), empty(m, parts, 2)
    partial_kernel[(m * parts,)](
        x, partial, n, n, parts, span, 1.0, DIV=1, V=1, W=1, BLOCK=32, KEEP=""
    )
    row = x.astype(float).reshape(m, n)
    pieces = [row[:, :64], row[:, 64:]]
    tops = np.stack([piece.max(axis=1) for piece in pieces], axis=1)
    compare(partial[:, :, 0], tops, name="maxima")


def tile(tile_kernel):
    m, n = 10, 20
    y, grad, dx = normal(m, n), normal(m, n), empty(m, n)
    y[...] = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    tile_kernel[(cdiv(m, 4),)](
        y, grad, dx, m, n, grad.stride(0), 1.0,
        DIV=1, ROWS=4, BLOCK=triton.next_power_of_2(n), CHUNKS=1, LOG=False, POLICY="",
    )  # fmt: skip
    wide, arrived = y.astype(float), grad.astype(float)
    dot = (wide * arrived).sum(axis=1, keepdims=True)
    compare(dx, wide * (arrived - dot), roundings=2 * n, name="dx")


def padded(softmax_zero_kernel):
    m, n = 6, 100
    # Far below zero, where what the mask lets in is the largest.
    x, out = normal(m, n) - 200, empty(m, n)
    softmax_zero_kernel[(m,)](x, out, n, BLOCK=triton.next_power_of_2(n))
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def turned(online_turned_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m, n)
    online_turned_kernel[(m,)](x, out, n, BLOCK=32)
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def infinite(online_infinite_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m, n)
    # A row whose first block is masked off altogether, as in attention.
    x[2, :32] = -np.inf
    online_infinite_kernel[(m,)](x, out, n, BLOCK=32)
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def rows(rows_kernel):
    m, n = 10, 20
    x, out = normal(m, n), empty(m, n)
    rows_kernel[(cdiv(m, 4),)](x, out, m, n, ROWS=4, COLUMNS=triton.next_power_of_2(n))
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    compare(out, e / e.sum(axis=1, keepdims=True), roundings=n)


def log(log_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m, n)
    log_kernel[(m,)](x, out, n, BLOCK=triton.next_power_of_2(n))
    wide = x.astype(float)
    compare(out, wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)), roundings=n)


def lse(lse_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m)
    lse_kernel[(m,)](x, out, n, BLOCK=32)
    compare(out, np.log(np.exp(x.astype(float)).sum(axis=1)), roundings=n)


def gradient(backward_kernel):
    m, n = 6, 100
    y, dy, dx = normal(m, n), normal(m, n), empty(m, n)
    y[...] = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    backward_kernel[(m,)](y, dy, dx, n, BLOCK=triton.next_power_of_2(n))
    wide, arrived = y.astype(float), dy.astype(float)
    dot = (wide * arrived).sum(axis=1, keepdims=True)
    compare(dx, wide * (arrived - dot), roundings=2 * n, name="dx")


def argmax(argmax_kernel):
    m, n = 6, 100
    x, out = normal(m, n), empty(m, dtype="int64")
    argmax_kernel[(m,)](x, out, n, BLOCK=32)
    compare(out, x.argmax(axis=1))


def variance(variance_kernel):
    m, n = 6, 100
    x, out = normal(m, n) + 1000, empty(m)
    variance_kernel[(m,)](x, out, n, BLOCK=32)
    compare(out, x.astype(float).var(axis=1), roundings=1000 * n)
