"""Puzzles 22 to 24: the largest, the k largest, and all in order."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import Puzzle, Shape, block, cdiv, whole
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

LAYOUTS = ("contiguous", "offset")
LOWEST = -(2.0**63)


def _tied(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {"x": rng.integers(-9, 9, (m, n)).astype(np.float64), "k": k}


def largest(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row and where they stand; of equal ones the first first.

    Args:
        x: (m, n).
        k: up to n.

    Returns:
        Values (m, k), and their columns, int32.
    """
    at = np.argsort(-x, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(x, at, axis=1), at.astype(np.int32)


def _descending(values: np.ndarray, at: np.ndarray, **_: Any) -> bool:
    return bool((np.diff(values, axis=1) <= 0).all())


def _launch_largest(kernel: Any, values: Any, at: Any, x: Any, k: int) -> None:
    m, n = x.shape
    kernel[(m,)](x, values, at, n, k, BLOCK=whole(n))


def _with_repeats(rng: np.random.Generator, shape: Shape) -> Arrays:
    x = rng.standard_normal(shape)
    some = rng.random(shape) < 0.25
    x = np.where(some, rng.integers(-3, 4, shape), x)
    x[rng.random(shape) < 0.02] = -np.inf
    return {"x": x + 0.0}


def _launch_sort(kernel: Any, z: Any, x: Any) -> None:
    m, n = x.shape
    log = whole(n).bit_length() - 1
    if m:
        kernel[(m,)](x, z, n, LOG=log)


def _lowered(rng: np.random.Generator, shape: Shape) -> Arrays:
    # All below 0, where bits alone would sort the wrong way; few values, so that the
    # largest occurs in several blocks.
    return {"x": -1.0 - rng.integers(0, 4, shape)}


def keys(x: np.ndarray) -> np.ndarray:
    """Numbers that compare as value first, then index: see puzzle 24.

    Args:
        x: (n,), rounded to float32.

    Returns:
        int64 (n,).
    """
    bits = x.astype(np.float32).view(np.int32)
    order = bits ^ (bits >> 31 & 0x7FFFFFFF)
    back = 0x7FFFFFFF - np.arange(len(x), dtype=np.int64)
    return order.astype(np.int64) << 32 | back


def _launch_argmax(kernel: Any, z: Any, x: Any) -> None:
    n = x.shape[0]
    kernel[(cdiv(n, block(n)),)](x, z, n, BLOCK=block(n))


TOP_K = Puzzle(
    title="The k largest",
    task=Exercise(
        name="puzzle-22",
        statement=(
            "Store the k largest elements of each row in descending order, and their "
            "columns. Of equal elements the one further left comes first."
        ),
        inputs=_tied,
        reference=largest,
        shapes=((4, 32, 4), (1, 1, 1), (3, 50, 7), (2, 9, 9), (2, 100, 5)),
        extra_shape=lambda rng: (3, int(rng.integers(8, 60)), int(rng.integers(1, 9))),
        layouts=LAYOUTS,
        launch=_launch_largest,
        parameters=("x_ptr", "v_ptr", "i_ptr", "n", "k", "BLOCK"),
        invariants={"no value is above the one before it": _descending},
        hint="Find the largest, store it, remove it: how is exactly one removed?",
    ),
    formula=(
        r"\begin{gathered} v_{j0} \ge v_{j1} \ge \dots \ge v_{j,k-1} \\[4pt]"
        r"v_{jl} = x_{j,\,i_{jl}} \end{gathered}"
    ),
    data=(
        "`x` (m, n) float32, finite, with many equal elements",
        "`v` (m, k) float32, k at most n",
        "`i` (m, k) int32, columns of x",
    ),
    grid="(m,): program j has row j. BLOCK is at least n; k is no constexpr.",
    hints=(
        "Find the largest, store it, remove it, k times: how is exactly one removed?",
        "Its column is the smallest among the lanes that equal the maximum.",
        "Remove by column, not by value, and by making it -inf.",
    ),
    kernels=("top_k_kernel",),
    sizes="(m, n, k)",
    friendly=(4, 32, 4),
    drawn=(3, 30, 4),
    shown=(1, 0, 0),
    chapter="softmax",
)

BITONIC = Puzzle(
    title="In order",
    task=Exercise(
        name="puzzle-23",
        statement=(
            "Sort each row in ascending order by comparing and exchanging lanes, "
            "without `tl.sort` and `tl.topk`. There are equal elements and -inf."
        ),
        inputs=_with_repeats,
        reference=lambda x: np.sort(x, axis=1),
        shapes=((4, 32), (1, 1), (3, 50), (2, 7), (2, 100)),
        extra_shape=lambda rng: (2, int(rng.integers(2, 64))),
        layouts=LAYOUTS,
        launch=_launch_sort,
        parameters=("x_ptr", "z_ptr", "n", "LOG"),
        forbidden=("tl.sort", "tl.topk"),
        hint="Lane i trades with lane i ^ s: the lower lane keeps the smaller element.",
    ),
    formula=r"z_{j0} \le z_{j1} \le \dots \le z_{j,n-1}",
    data=("`x` (m, n) float32", "`z` (m, n) float32, the same elements"),
    grid="(m,): program j has row j. `2**LOG` is at least n.",
    hints=(
        "Lane i trades with lane i ^ s: `tl.gather` of a block from itself fetches "
        "the partner. One of the two keeps the smaller element, one the larger.",
        "Bitonic: at stage t, for s = 2^t, 2^(t-1), ..., 1, runs of 2^(t+1) lanes "
        "are sorted, every other one in descending order.",
        "A lane keeps the smaller one if `((i & s) == 0) == ((i >> (t + 1)) % 2 == "
        "0)`. `tl.static_range` unrolls both loops. Lanes beyond n hold +inf.",
    ),
    kernels=("bitonic_kernel",),
    friendly=(4, 32),
    drawn=(3, 30),
    shown=(1, 0, 0),
    chapter="softmax",
)

ARGMAX = Puzzle(
    title="One number for two",
    task=Exercise(
        name="puzzle-24",
        statement=(
            "Find the largest element of a vector and its place, by programs that "
            "agree through `tl.atomic_max`. Value and place are one key of 64 bits; "
            "of equal elements the first wins. Store the largest key."
        ),
        inputs=_lowered,
        reference=lambda x: keys(x).max(keepdims=True),
        shapes=((96,), (1,), (50,), (200,), (257,)),
        initial=LOWEST,
        layouts=LAYOUTS,
        launch=_launch_argmax,
        parameters=("x_ptr", "z_ptr", "n", "BLOCK"),
        required=("tl.atomic_max",),
        hint="How must bits of a float32 be changed so that integers compare as it?",
    ),
    formula=(
        r"\begin{gathered} z = \max_i \bigl(2^{32}\, o(x_i) + 2^{31} - 1 - "
        r"i\bigr) \\[4pt]o(x) = \begin{cases} b & b \ge 0 \\ b \oplus (2^{31} - "
        r"1) & b < 0 \end{cases} \end{gathered}"
    ),
    data=(
        "`x` (n,) float32, finite, with many equal elements; b in the formula is the "
        "int32 that has the bits of x[i]",
        "`z` (1,) int64, the least int64 at the beginning",
    ),
    grid="(cdiv(n, BLOCK),): program p has the elements from `p * BLOCK` on.",
    hints=(
        "`x.to(tl.int32, bitcast=True)` is b. As integers, positive floats compare as "
        "they do as floats; negative ones the other way round, hence o.",
        "Widen o to int64 before you shift it by 32: an int32 has no upper half.",
        "What does a lane that doesn't exist load so that it never wins? Reduce the "
        "block with `tl.max`, so that each program has one atomic.",
    ),
    kernels=("argmax_kernel",),
    friendly=(96,),
    drawn=(39,),
    shown=(1, 0, 0),
    chapter="softmax",
)

PUZZLES = (TOP_K, BITONIC, ARGMAX)
