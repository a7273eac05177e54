"""Puzzles 7 to 9: a program walks, and carries something with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import LEAST, Puzzle, Shape, block, cdiv
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

ROWS = ((4, 96), (1, 1), (3, 100), (2, 33), (3, 257))
STRIDED = ("contiguous", "strided", "sliced", "transposed")


def _matrix(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _shifted(rng: np.random.Generator, shape: Shape) -> Arrays:
    # Some rows lie below 0 altogether, where padding with 0 would win, and some rise,
    # so that each chunk brings a new maximum.
    x = rng.standard_normal(shape)
    x[::2] -= 6.0
    x[1::3].sort(axis=1)
    return {"x": x}


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax of each row of a matrix.

    Args:
        x: float64 (m, n).

    Returns:
        float64, same shape.
    """
    e = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=1, keepdims=True)


def _sums_to_one(z: np.ndarray, **_: Any) -> bool:
    return bool(np.allclose(z.sum(axis=1), 1.0, rtol=0.0, atol=2.0**-18))


def _queries(rng: np.random.Generator, shape: Shape) -> Arrays:
    (n,) = shape
    return {name: 2.0 * rng.standard_normal(n) for name in "qkv"}


def _launch_sums(kernel: Any, z: Any, x: Any) -> None:
    m, n = x.shape
    if m:
        kernel[(m,)](x, z, n, *x.stride(), BLOCK=block(n))


def _launch_softmax(kernel: Any, z: Any, x: Any) -> None:
    m, n = x.shape
    if m:
        kernel[(m,)](x, z, n, BLOCK=block(n))


def _launch_attention(kernel: Any, z: Any, q: Any, k: Any, v: Any) -> None:
    n = q.shape[0]
    size = {"BLOCK_M": 32 >> n % 2, "BLOCK_N": block(n)}
    if n:
        kernel[(cdiv(n, size["BLOCK_M"]),)](q, k, v, z, n, **size)


ROW_SUMS = Puzzle(
    title="Long rows",
    task=Exercise(
        name="puzzle-07",
        statement=(
            "Store the sum of each row of a matrix with any strides. Rows may be "
            "longer than a block, or empty. float16 is added up in float32, and "
            "rounded once, at the end."
        ),
        inputs=_matrix,
        reference=lambda x: x.sum(axis=1),
        shapes=(*ROWS, (2, 0)),
        dtypes=("float32", "float16"),
        layouts=STRIDED,
        launch=_launch_sums,
        parameters=("x_ptr", "z_ptr", "n", "stride_m", "stride_n", "BLOCK"),
        length=lambda shape: max(2, shape[1]),
        hint="What does a lane that doesn't exist have to hold, if all are added?",
    ),
    formula=r"z_j = \sum_{i=0}^{n-1} x_{ji}",
    data=(
        "`x` (m, n) float32 or float16, element [j, i] at "
        "`j * stride_m + i * stride_n`",
        "`z` (m,) of the dtype of x",
    ),
    grid="(m,): program j has row j, and reads it BLOCK columns at a time.",
    hints=(
        "`for start in range(0, n, BLOCK)` is a loop that Triton understands.",
        "What does a lane that doesn't exist have to hold, if all are added?",
        "Either add up one number per turn, or keep a block of partial sums and "
        "reduce it after the loop. In float32, whatever x is.",
    ),
    kernels=("row_sums_kernel",),
    friendly=(4, 96),
    drawn=(4, 36),
    shown=(2, 0, 0),
    chapter="softmax",
)

SOFTMAX = Puzzle(
    title="A softmax that never sees a whole row",
    task=Exercise(
        name="puzzle-08",
        statement=(
            "Store the softmax of each row, which may be longer than a block. "
            "Exponentials of large numbers must not overflow."
        ),
        inputs=_shifted,
        reference=softmax,
        shapes=ROWS,
        layouts=("contiguous", "offset"),
        launch=_launch_softmax,
        parameters=("x_ptr", "z_ptr", "n", "BLOCK"),
        length=lambda shape: max(LEAST, shape[1]),
        invariants={"each row sums to one": _sums_to_one},
        hint="When the maximum grows, what has the sum so far to be multiplied by?",
    ),
    formula=(
        r"\begin{gathered} m_j = \max_k x_{jk} \\[4pt]"
        r"z_{ji} = \frac{e^{x_{ji} - m_j}}{\sum_k e^{x_{jk} - m_j}} \end{gathered}"
    ),
    data=("`x` (m, n) float32, n at least 1", "`z` (m, n) float32"),
    grid="(m,): program j has row j, and reads it BLOCK columns at a time.",
    hints=(
        "Three loops are the straight way: maximum, sum, quotient. Two are enough.",
        "Carry a maximum m and a sum d of e^(x - m). When a chunk raises m to m', "
        "every term of d is e^(m' - m) too large.",
        "d e^(m - m') + sum(e^(x - m')), beginning with m = -inf and d = 0; and "
        "lanes that don't exist are -inf, which makes their terms 0.",
    ),
    kernels=("softmax_kernel",),
    friendly=(4, 202),
    drawn=(3, 36),
    shown=(1, 0, 0),
    chapter="softmax",
)

SCALAR_ATTENTION = Puzzle(
    title="Attention with heads of one feature",
    task=Exercise(
        name="puzzle-09",
        statement=(
            "Store for each query the mean of all values, weighted by the softmax of "
            "the products of query and keys, in one pass over the keys. Exponentials "
            "must not overflow."
        ),
        inputs=_queries,
        reference=lambda q, k, v: softmax(q[:, None] * k[None, :]) @ v,
        shapes=((64,), (1,), (33,), (200,), (101,)),
        launch=_launch_attention,
        parameters=("q_ptr", "k_ptr", "v_ptr", "z_ptr", "n", "BLOCK_M", "BLOCK_N"),
        layouts=("contiguous", "offset"),
        scales=(1.0, 2.0, 2.0**-10),
        # A score's rounding counts as often as the score is large: tens of times.
        length=lambda shape: max(LEAST, 16 * shape[0]),
        hint="The weighted sum is rescaled by the factor that the denominator gets.",
    ),
    formula=r"z_i = \frac{\sum_j e^{q_i k_j}\, v_j}{\sum_j e^{q_i k_j}}",
    data=("`q`, `k`, `v` (n,) float32, n at least 1", "`z` (n,) float32"),
    grid=(
        "(cdiv(n, BLOCK_M),): program p has the queries from `p * BLOCK_M` on, and "
        "reads keys and values BLOCK_N at a time."
    ),
    hints=(
        "Puzzle 8 for BLOCK_M rows at once: m and d are blocks, scores are a tile.",
        "A key that doesn't exist gets the score -inf. Loaded as 0 it would have the "
        "score 0, which counts, and loaded as -inf a negative query makes it +inf.",
        "Carry a third block, the sum of e^(s - m) v, and rescale it as you rescale "
        "the denominator. One division at the end.",
    ),
    kernels=("scalar_attention_kernel",),
    friendly=(192,),
    drawn=(38,),
    shown=(1, 0, 0),
)

PUZZLES = (ROW_SUMS, SOFTMAX, SCALAR_ATTENTION)
