"""Puzzles 10 to 12: sums of products, a tile at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import TILE, Puzzle, Shape, cdiv
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

STRIDES = tuple(f"stride_{axes}" for axes in ("xb", "xm", "xk", "yb", "yk", "yn"))
PACK = 8
"""Four-bit numbers in a word of 32 bits."""
GROUP = 8
"""Neighbouring weights of a row that share a scale and a zero point."""
STEP = PACK * GROUP
"""Weights of a row whose zero points fill a word: columns come in multiples of it."""


def _images(rng: np.random.Generator, shape: Shape) -> Arrays:
    b, h, w, kh, kw = shape
    return {"x": rng.standard_normal((b, h, w)), "k": rng.standard_normal((kh, kw))}


def correlate(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Cross-correlation of images with one kernel, 0 beyond the bottom and the right.

    Args:
        x: (b, h, w).
        k: (kh, kw).

    Returns:
        Same shape and dtype as x.
    """
    (_, h, w), (kh, kw) = x.shape, k.shape
    wide = np.pad(x, ((0, 0), (0, kh - 1), (0, kw - 1)))
    parts = [
        k[a, c] * wide[:, a : a + h, c : c + w] for a in range(kh) for c in range(kw)
    ]
    return np.sum(parts, axis=0)


def _launch_images(kernel: Any, z: Any, x: Any, k: Any) -> None:
    b, h, w = x.shape
    tile = {"BLOCK_H": 8 >> h % 2, "BLOCK_W": 8 << w % 2}
    grid = (b, cdiv(h, tile["BLOCK_H"]), cdiv(w, tile["BLOCK_W"]))
    kernel[grid](x, k, z, h, w, *k.shape, **tile)


def _factors(rng: np.random.Generator, shape: Shape) -> Arrays:
    b, m, n, k = shape
    return {"x": rng.standard_normal((b, m, k)), "y": rng.standard_normal((b, k, n))}


def _launch_products(kernel: Any, z: Any, x: Any, y: Any) -> None:
    b, m, n = z.shape
    tile = {"BLOCK_M": 16 << m % 2, "BLOCK_N": 16 << n % 2, "BLOCK_K": 16}
    grid = (b, cdiv(m, tile["BLOCK_M"]), cdiv(n, tile["BLOCK_N"]))
    strides = (*x.stride(), *y.stride())
    kernel[grid](x, y, z, m, n, x.shape[2], *strides, **tile)


def _packed(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, steps = shape
    k = steps * STEP
    words = (np.iinfo(np.int32).min, np.iinfo(np.int32).max + 1)
    # Seven significant bits, so that scale times difference is exact in float16.
    scale = rng.integers(64, 128, (m, k // GROUP)) * 2.0**-10
    return {
        "w": rng.integers(*words, (m, k // PACK), dtype=np.int32, endpoint=False),
        "s": scale,
        "o": rng.integers(*words, (m, steps), dtype=np.int32, endpoint=False),
        "x": rng.standard_normal((k, n)),
    }


def unpack(words: np.ndarray) -> np.ndarray:
    """The eight fields of four bits in each word, the lowest first.

    Args:
        words: integers (m, c), of which the low 32 bits count.

    Returns:
        int64 (m, 8 c), each from 0 to 15.
    """
    fields = words[:, :, None] >> (4 * np.arange(PACK)) & 15
    return fields.reshape(words.shape[0], -1)


def dequantise(w: np.ndarray, s: np.ndarray, o: np.ndarray) -> np.ndarray:
    """Weights from packed fields, scales and packed zero points.

    Args:
        w: integers (m, k / 8).
        s: (m, k / 8), a scale for each group.
        o: integers (m, k / 64), a zero point for each group.

    Returns:
        float64 (m, k).
    """
    zeros = np.repeat(unpack(o), GROUP, axis=1)
    return (unpack(w) - zeros) * np.repeat(s, GROUP, axis=1)


def _launch_packed(kernel: Any, z: Any, w: Any, s: Any, o: Any, x: Any) -> None:
    m, n = z.shape
    tile = {"BLOCK_M": 16, "BLOCK_N": 16 << n % 2, "BLOCK_K": STEP}
    grid = (cdiv(m, tile["BLOCK_M"]), cdiv(n, tile["BLOCK_N"]))
    kernel[grid](w, s, o, x, z, m, n, x.shape[0], **tile)


CORRELATION = Puzzle(
    title="A window that slides",
    task=Exercise(
        name="puzzle-10",
        statement=(
            "Store the cross-correlation of each image of a batch with one small "
            "filter k. Beyond its last row and its last column an image is 0."
        ),
        inputs=_images,
        reference=correlate,
        shapes=((2, 8, 8, 3, 3), (1, 1, 1, 1, 1), (2, 5, 9, 2, 3), (1, 9, 20, 3, 1)),
        extra_shape=lambda rng: (2, *rng.integers(3, 12, 2), *rng.integers(1, 4, 2)),
        launch=_launch_images,
        parameters=(
            "x_ptr",
            "k_ptr",
            "z_ptr",
            "h",
            "w",
            "kh",
            "kw",
            "BLOCK_H",
            "BLOCK_W",
        ),
        layouts=("contiguous", "offset"),
        length=lambda shape: 2 * shape[3] * shape[4],
        hint="A loop over the filter's elements, each of which moves the whole tile.",
    ),
    formula=(
        r"\begin{gathered} z_{bij} = \sum_{a=0}^{k_h-1} \sum_{c=0}^{k_w-1} k_{ac}\, "
        r"x_{b,\,i+a,\,j+c} \\[4pt] x = 0 \text{ outside} \end{gathered}"
    ),
    data=("`x` (b, h, w) float32", "`k` (kh, kw) float32", "`z` (b, h, w) float32"),
    grid=(
        "(b, cdiv(h, BLOCK_H), cdiv(w, BLOCK_W)): program (b, p, q) makes tile (p, q) "
        "of image b."
    ),
    hints=(
        "A loop over the filter's elements, each of which moves the whole tile.",
        "Nothing needs padding: a masked load gives the 0 beyond the border.",
        "Row i + a must be below h and column j + c below w, each with a mask of its "
        "own: beyond the end of a row begins the next one.",
    ),
    kernels=("correlation_kernel",),
    sizes="(b, h, w, kh, kw)",
    friendly=(2, 8, 8, 3, 3),
    drawn=(2, 12, 12, 3, 3),
    shown=(1, 0, 0),
)

PRODUCTS = Puzzle(
    title="Many matrices at once",
    task=Exercise(
        name="puzzle-11",
        statement=(
            "Multiply the matrices of two batches, of any strides, tile by tile with "
            "`tl.dot`. Sums are kept in float32 and rounded once, at the store."
        ),
        inputs=_factors,
        reference=lambda x, y: x @ y,
        shapes=((2, 32, 32, 32), (1, 1, 1, 1), (2, 17, 20, 33), (1, 40, 5, 100)),
        extra_shape=lambda rng: (2, *rng.integers(1, 40, 3)),
        dtypes=("float16",),
        layouts=("contiguous", "transposed", "sliced", "strided"),
        scales=(1.0, 8.0, 2.0**-4),
        launch=_launch_products,
        parameters=(
            "x_ptr",
            "y_ptr",
            "z_ptr",
            "m",
            "n",
            "k",
            *STRIDES,
            *TILE,
            "BLOCK_K",
        ),
        required=("tl.dot",),
        length=lambda shape: max(2, shape[3]),
        hint="Puzzle 7 with tiles: the loop goes over k, and carries a tile of sums.",
    ),
    formula=r"z_{bij} = \sum_{l=0}^{k-1} x_{bil}\, y_{blj}",
    data=(
        "`x` (b, m, k) float16, element [b, i, l] at "
        "`b * stride_xb + i * stride_xm + l * stride_xk`",
        "`y` (b, k, n) float16, element [b, l, j] at "
        "`b * stride_yb + l * stride_yk + j * stride_yn`",
        "`z` (b, m, n) float16, contiguous",
    ),
    grid=(
        "(b, cdiv(m, BLOCK_M), cdiv(n, BLOCK_N)): program (b, p, q) makes tile (p, q) "
        "of product b. Blocks are at least 16, as tl.dot asks."
    ),
    hints=(
        "Puzzle 7 with tiles: the loop goes over k, and carries a tile of sums.",
        "Columns of x and rows of y that don't exist must be 0: both loads need a "
        "mask along k.",
        "`acc = tl.dot(x, y, acc)` with a float32 acc; it becomes float16 once, at the "
        "store. z is contiguous: product b begins at `b * m * n`.",
    ),
    kernels=("products_kernel",),
    sizes="(b, m, n, k)",
    friendly=(2, 32, 32, 32),
    drawn=(1, 24, 24, 32),
    shown=(0, 1, 0),
    chapter="tiling",
)

PACKED_PRODUCT = Puzzle(
    title="Eight weights in a word",
    task=Exercise(
        name="puzzle-12",
        statement=(
            "Multiply a matrix of packed four-bit weights with a float16 matrix, by "
            "`tl.dot` and with sums in float32. Eight weights of a row share a scale "
            "and a zero point, and zero points are packed, too."
        ),
        inputs=_packed,
        reference=lambda w, s, o, x: dequantise(w, s, o) @ x,
        shapes=((32, 32, 1), (1, 1, 1), (17, 20, 1), (20, 5, 3)),
        extra_shape=lambda rng: (*rng.integers(1, 36, 2), rng.integers(1, 3)),
        dtypes=("float16",),
        scales=(1.0, 4.0, 0.25),
        layouts=("contiguous", "offset"),
        launch=_launch_packed,
        parameters=(
            "w_ptr",
            "s_ptr",
            "o_ptr",
            "x_ptr",
            "z_ptr",
            "m",
            "n",
            "k",
            *TILE,
            "BLOCK_K",
        ),
        required=("tl.dot",),
        length=lambda shape: STEP * shape[2],
        hint="Which word holds weight l of a row, and which of its bits?",
    ),
    formula=(
        r"z_{ij} = \sum_{l=0}^{k-1} s_{i,\lfloor l/8 \rfloor}\, \bigl(w_{il} - "
        r"o_{i,\lfloor l/8 \rfloor}\bigr)\, x_{lj}"
    ),
    data=(
        "`w` (m, k / 8) int32: weight [i, l], from 0 to 15, is the four bits from bit "
        "`4 * (l % 8)` on of word [i, l // 8]",
        "`s` (m, k / 8) float16: the scale of group g = l // 8. It has seven "
        "significant bits, so `s * (w - o)` is exact in float16",
        "`o` (m, k / 64) int32: the zero point of group g, from 0 to 15, is the four "
        "bits from bit `4 * (g % 8)` on of word [i, g // 8]",
        "`x` (k, n) float16, k a multiple of 64",
        "`z` (m, n) float16",
    ),
    grid=(
        "(cdiv(m, BLOCK_M), cdiv(n, BLOCK_N)): program (p, q) makes tile (p, q), and "
        "reads BLOCK_K = 64 weights of a row at a time."
    ),
    hints=(
        "Which word holds weight l of a row, and which of its bits? Let several lanes "
        "load the same word: a tile of weights is loaded from a tile of addresses.",
        "Shift right by `4 * (l % 8)`, then keep four bits with `& 15`: words are "
        "signed, and a shift drags the sign along.",
        "Zero points are the same trick once more, for g = l // 8. Then "
        "`((w - o) * s).to(tl.float16)` is one factor of tl.dot.",
    ),
    kernels=("packed_product_kernel",),
    sizes="(m, n, k / 64)",
    friendly=(32, 32, 1),
    drawn=(24, 24, 1),
    shown=(0, 1, 0),
)

PUZZLES = (CORRELATION, PRODUCTS, PACKED_PRODUCT)
