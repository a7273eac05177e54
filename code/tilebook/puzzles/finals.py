"""Puzzles 25 to 27: kernels that people are paid for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import TILE, Puzzle, Shape, cdiv, whole
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

LAYOUTS = ("contiguous", "offset")
EPS = 1e-5


def _factors(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {"x": rng.standard_normal((m, k)), "y": rng.standard_normal((k, n))}


def _launch_split(kernel: Any, z: Any, x: Any, y: Any) -> None:
    m, n = z.shape
    k = x.shape[1]
    tile = {"BLOCK_M": 16 << m % 2, "BLOCK_N": 16 << n % 2, "BLOCK_K": 16}
    splits = 1 + k % 3
    grid = (cdiv(m, tile["BLOCK_M"]), cdiv(n, tile["BLOCK_N"]), splits)
    kernel[grid](x, y, z, m, n, k, SPLITS=splits, **tile)


def _layer(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n = shape
    return {
        "x": rng.standard_normal((m, n)),
        "w": rng.standard_normal(n),
        "dy": rng.standard_normal((m, n)),
        "eps": EPS,
    }


def layer_norm_gradients(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of a layer norm by its input, its weight and its bias.

    Args:
        x: (m, n), normalised along rows.
        w: weight (n,).
        dy: gradient by the output, (m, n).
        eps: added to the variance.

    Returns:
        Gradients (m, n), (n,), (n,).
    """
    centred = x - x.mean(axis=1, keepdims=True)
    rstd = 1.0 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    hat = centred * rstd
    g = dy * w
    mean = g.mean(axis=1, keepdims=True)
    along = (g * hat).mean(axis=1, keepdims=True)
    dx = (g - mean - hat * along) * rstd
    return dx, (dy * hat).sum(axis=0), dy.sum(axis=0)


def _launch_layer(
    kernel: Any, dx: Any, dw: Any, db: Any, x: Any, w: Any, dy: Any, eps: float
) -> None:
    m, n = x.shape
    if m:
        kernel[(m,)](x, w, dy, dx, dw, db, n, eps, BLOCK=whole(n))


def _heads(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, d = shape
    return {
        "q": rng.standard_normal((m, d)),
        "k": rng.standard_normal((n, d)),
        "v": rng.standard_normal((n, d)),
        "scale": d**-0.5,
    }


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Causal attention of the last m of n positions.

    Args:
        q: queries (m, d).
        k, v: keys and values (n, d), n at least m.
        scale: factor of the scores.

    Returns:
        (m, d).
    """
    m, n = len(q), len(k)
    sees = np.arange(n)[None, :] <= np.arange(m)[:, None] + n - m
    s = np.where(sees, q @ k.T * scale, -np.inf)
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) @ v


def _drawn_heads(rng: np.random.Generator) -> Shape:
    m, more = rng.integers(1, 40, 2)
    return int(m), int(m + more), 16


def _launch_heads(kernel: Any, z: Any, q: Any, k: Any, v: Any, scale: float) -> None:
    m, d = q.shape
    n = k.shape[0]
    size = {"D": d, "BLOCK_M": 16 << m % 2, "BLOCK_N": 16 << n % 2}
    kernel[(cdiv(m, size["BLOCK_M"]),)](q, k, v, z, m, n, scale, **size)


SPLIT_K = Puzzle(
    title="A long sum, shared",
    task=Exercise(
        name="puzzle-25",
        statement=(
            "Multiply two float16 matrices where k is long and the result small, by "
            "`tl.dot`: SPLITS programs share the sums of one tile, in float32, and "
            "each adds its part to z."
        ),
        inputs=_factors,
        reference=lambda x, y: x @ y,
        shapes=((16, 16, 48), (1, 1, 1), (17, 5, 100), (3, 20, 161)),
        extra_shape=lambda rng: (*rng.integers(1, 36, 2), rng.integers(1, 130)),
        initial=0.0,
        dtypes=("float16",),
        out_dtype="float32",
        layouts=LAYOUTS,
        launch=_launch_split,
        parameters=(
            "x_ptr",
            "y_ptr",
            "z_ptr",
            "m",
            "n",
            "k",
            *TILE,
            "BLOCK_K",
            "SPLITS",
        ),
        scales=(1.0, 8.0, 2.0**-4),
        required=("tl.dot",),
        length=lambda shape: max(2, shape[2]),
        hint="Which chunks of k does program s of SPLITS take, so that all are taken?",
    ),
    formula=r"z_{ij} = \sum_{l=0}^{k-1} x_{il}\, y_{lj}",
    data=(
        "`x` (m, k) float16",
        "`y` (k, n) float16",
        "`z` (m, n) float32, all 0 at the beginning",
    ),
    grid=(
        "(cdiv(m, BLOCK_M), cdiv(n, BLOCK_N), SPLITS): program (p, q, s) has part s "
        "of tile (p, q). You choose which part that is; SPLITS may be 1."
    ),
    hints=(
        "Which chunks of k does program s of SPLITS take, so that all are taken?",
        "From `s * BLOCK_K` on, in steps of `SPLITS * BLOCK_K`. Some get nothing.",
        "`tl.atomic_add` of the tile of sums, with the mask that its store would have.",
    ),
    kernels=("split_k_kernel",),
    sizes="(m, n, k)",
    friendly=(16, 16, 48),
    drawn=(20, 20, 40),
    shown=(0, 0, 1),
)

LAYER_NORM = Puzzle(
    title="Three gradients of one norm",
    task=Exercise(
        name="puzzle-26",
        statement=(
            "A layer norm made each row of y as w times (x - mean) / sqrt(variance + "
            "eps) plus a bias. You get dy, the gradient of a loss with respect to y; "
            "store those with respect to x, to w and to the bias. Mean and variance "
            "are not stored: compute them once more. The variance divides by n."
        ),
        inputs=_layer,
        reference=layer_norm_gradients,
        shapes=((4, 32), (1, 16), (3, 50), (7, 33), (5, 100), (0, 8)),
        extra_shape=lambda rng: (int(rng.integers(1, 8)), int(rng.integers(8, 70))),
        initial=0.0,
        layouts=LAYOUTS,
        launch=_launch_layer,
        parameters=(
            "x_ptr",
            "w_ptr",
            "dy_ptr",
            "dx_ptr",
            "dw_ptr",
            "db_ptr",
            "n",
            "eps",
            "BLOCK",
        ),
        length=lambda shape: 2 * (shape[0] + shape[1]),
        hint="Which sums along a row are needed before its first dx can be stored?",
    ),
    formula=(
        r"\begin{gathered} \hat x_{ji} = r_j (x_{ji} - \bar x_j) \\[4pt] "
        r"g_{ji} = w_i\, \mathrm{dy}_{ji} \\[4pt] "
        r"a_j = \tfrac{1}{n} \sum_k g_{jk} \\[4pt] "
        r"c_j = \tfrac{1}{n} \sum_k g_{jk} \hat x_{jk} \\[4pt] "
        r"\mathrm{dx}_{ji} = r_j (g_{ji} - a_j - c_j\, \hat x_{ji}) \\[4pt] "
        r"\mathrm{dw}_i = \sum_j \mathrm{dy}_{ji}\, \hat x_{ji} \\[4pt] "
        r"\mathrm{db}_i = \sum_j \mathrm{dy}_{ji} \end{gathered}"
    ),
    data=(
        "`x`, `dy` (m, n) float32",
        "`w` (n,) float32; eps is a number, and r[j] is 1 / sqrt(variance + eps) of "
        "row j",
        "`dx` (m, n) float32",
        "`dw`, `db` (n,) float32, all 0 at the beginning",
    ),
    grid="(m,): program j has row j. BLOCK is at least n.",
    hints=(
        "BLOCK is at least n, so x, w and dy are loaded once and every sum along the "
        "row is a `tl.sum` of a block: for the mean, the variance, a and c.",
        "Lanes that don't exist must be 0 once the mean is subtracted, not before: "
        "0 less the mean isn't 0.",
        "dx is a store, since a row has one program. dw and db are atomics, since each "
        "of their elements has m programs.",
    ),
    kernels=("layer_norm_gradient_kernel",),
    friendly=(4, 32),
    drawn=(5, 30),
    shown=(2, 0, 0),
)

ATTENTION = Puzzle(
    title="Attention",
    task=Exercise(
        name="puzzle-27",
        statement=(
            "Causal attention for the last m of n positions, in one pass over the keys "
            "and with `tl.dot` for scores and sums: query i sees the keys up to i + n "
            "- m. Maxima, denominators and sums are kept in float32. Exponentials must "
            "not overflow."
        ),
        inputs=_heads,
        reference=attention,
        shapes=((32, 32, 16), (1, 1, 16), (5, 40, 16), (20, 33, 32), (3, 70, 16)),
        extra_shape=_drawn_heads,
        dtypes=("float16",),
        scales=(1.0, 4.0, 0.25),
        layouts=LAYOUTS,
        launch=_launch_heads,
        parameters=("q_ptr", "k_ptr", "v_ptr", "z_ptr", "m", "n", "scale", "D", *TILE),
        required=("tl.dot",),
        length=lambda shape: 2 * (shape[1] + shape[2]),
        operand="float16",
        hint="Puzzle 9 with tiles for numbers, and the mask of puzzle 17.",
    ),
    formula=(
        r"z_i = \frac{\sum_{j \le i+n-m} e^{s\, q_i \cdot k_j}\, v_j}"
        r"{\sum_{j \le i+n-m} e^{s\, q_i \cdot k_j}}"
    ),
    data=(
        "`q` (m, D) float16, 1 to n queries; D is 16 or 32",
        "`k`, `v` (n, D) float16",
        "`z` (m, D) float16; scale is the number s",
    ),
    grid=(
        "(cdiv(m, BLOCK_M),): program p has the queries from `p * BLOCK_M` on, and "
        "reads keys and values BLOCK_N at a time."
    ),
    hints=(
        "Puzzle 9 with tiles for numbers, and the mask of puzzle 17.",
        "`tl.dot(q, tl.trans(k))` is the tile of scores. What masks turn off is -inf "
        "before the maximum.",
        "`tl.dot(p.to(tl.float16), v, acc * factor[:, None])` rescales and adds. "
        "Values of keys that don't exist must be 0: 0 times NaN is NaN.",
    ),
    kernels=("attention_kernel",),
    sizes="(m, n, D)",
    friendly=(32, 32, 16),
    drawn=(20, 28, 16),
    shown=(1, 0, 0),
)

PUZZLES = (SPLIT_K, LAYER_NORM, ATTENTION)
