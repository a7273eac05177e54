"""Puzzles 17 to 21: what comes later depends on what came before."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import LEAST, Puzzle, Shape, block, whole
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

ROWS = ((4, 96), (1, 1), (3, 100), (2, 33), (3, 150), (2, 0))
LAYOUTS = ("contiguous", "offset")


def _length(shape: Shape) -> int:
    return max(2, shape[-1])


def _matrix(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _launch_rows(kernel: Any, z: Any, **inputs: Any) -> None:
    m, n = z.shape
    if m and n:
        kernel[(m,)](*inputs.values(), z, n, BLOCK=block(n))


def _launch_causal(kernel: Any, z: Any, x: Any) -> None:
    m, n = x.shape
    if m and n:
        kernel[(m,)](x, z, m, n, BLOCK=whole(n))


def causal(x: np.ndarray) -> np.ndarray:
    """Softmax of each row over the keys that its query may see; 0 elsewhere.

    Args:
        x: scores (m, n). Query i sees keys j up to i + n - m.

    Returns:
        Shape of x.
    """
    m, n = x.shape
    sees = np.arange(n)[None, :] <= np.arange(m)[:, None] + n - m
    top = np.where(sees, x, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    e = np.where(sees, np.exp(np.where(sees, x - top, 0.0)), 0.0)
    return e / np.maximum(e.sum(axis=1, keepdims=True), 1e-300)


def _one_or_none(z: np.ndarray, x: np.ndarray) -> bool:
    m, n = x.shape
    sees = (np.arange(m) + n - m >= 0) & (n > 0)
    return bool(np.allclose(z.sum(axis=1), sees, rtol=0.0, atol=2.0**-18))


def _segments(rng: np.random.Generator, shape: Shape) -> Arrays:
    # One long segment in every second row, so that one crosses chunks.
    often = np.where(np.arange(shape[0]) % 2, 0.02, 0.2)[:, None]
    f = (rng.random(shape) < often).astype(np.int32)
    return {"x": rng.standard_normal(shape), "f": f}


def segmented(x: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Running sums that begin again wherever a flag is set.

    Args:
        x: (m, n).
        f: flags (m, n), 0 or 1.

    Returns:
        Shape of x.
    """
    z, total = np.empty_like(x), np.zeros(x.shape[0])
    for i in range(x.shape[1]):
        total = np.where(f[:, i] != 0, 0.0, total) + x[:, i]
        z[:, i] = total
    return z


def _half_positive(rng: np.random.Generator, shape: Shape) -> Arrays:
    # Whole numbers, some of them 0, which is not positive.
    return {"x": rng.integers(-4, 5, shape).astype(np.float64)}


def _launch_kept(kernel: Any, z: Any, x: Any) -> None:
    n = x.shape[0]
    kernel[(1,)](x, z, n, BLOCK=block(n))


def _decaying(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"a": rng.uniform(0.3, 1.0, shape), "b": rng.standard_normal(shape)}


def recurrence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The linear recurrence h = a h + b along each row, from 0.

    Args:
        a, b: (m, n).

    Returns:
        (m, n).
    """
    h, now = np.empty_like(b), np.zeros(b.shape[0])
    for i in range(b.shape[1]):
        now = a[:, i] * now + b[:, i]
        h[:, i] = now
    return h


CAUSAL = Puzzle(
    title="No looking ahead",
    task=Exercise(
        name="puzzle-17",
        statement=(
            "Store the softmax of each row over the keys that its query may see, and 0 "
            "for the others. Query i sees the keys up to i + n - m, so the last one "
            "sees every key; a query that sees none gets a row of zeros. Exponentials "
            "must not overflow."
        ),
        inputs=_matrix,
        reference=causal,
        shapes=((8, 8), (1, 1), (5, 12), (12, 5), (7, 33), (3, 100)),
        extra_shape=lambda rng: tuple(rng.integers(1, (12, 60))),
        layouts=LAYOUTS,
        launch=_launch_causal,
        parameters=("x_ptr", "z_ptr", "m", "n", "BLOCK"),
        length=lambda shape: max(LEAST, shape[1]),
        invariants={
            "a row sums to one, or to zero if its query sees no key": _one_or_none
        },
        hint="What is the maximum of a row of -inf, and what is -inf less that?",
    ),
    formula=(
        r"\begin{gathered} z_{ij} = \frac{e^{x_{ij}}}{\sum_{k \le i + n - m} "
        r"e^{x_{ik}}} \\[4pt] \text{for } j \le i + n - m, \text{ else } 0 "
        r"\end{gathered}"
    ),
    data=(
        "`x` (m, n) float32: scores of m queries and n keys, m may be greater than n",
        "`z` (m, n) float32",
    ),
    grid="(m,): program i has row i. BLOCK is at least n.",
    hints=(
        "Which is the last key that query 0 sees, and which the last one's?",
        "A score that isn't seen becomes -inf before the maximum: its term is then 0.",
        "A row of -inf has the maximum -inf, and -inf - -inf is NaN. Subtract 0 "
        "there, and divide by 1.",
    ),
    kernels=("causal_kernel",),
    friendly=(8, 8),
    drawn=(6, 9),
    shown=(2, 0, 0),
    chapter="softmax",
)

PREFIX_SUM = Puzzle(
    title="The sum so far",
    task=Exercise(
        name="puzzle-18",
        statement="Store the running sums of each row, which may be longer than a "
        "block.",
        inputs=_matrix,
        reference=lambda x: np.cumsum(x, axis=1),
        shapes=ROWS,
        layouts=LAYOUTS,
        launch=_launch_rows,
        parameters=("x_ptr", "z_ptr", "n", "BLOCK"),
        length=_length,
        hint="What does a chunk have to know of all chunks before it?",
    ),
    formula=r"z_{ji} = \sum_{k \le i} x_{jk}",
    data=("`x` (m, n) float32", "`z` (m, n) float32"),
    grid="(m,): program j has row j, and reads it BLOCK columns at a time.",
    hints=(
        "`tl.cumsum` does it within a block.",
        "What does a chunk have to know of all chunks before it? One number.",
        "That number is added to the chunk, and then the chunk's sum to it.",
    ),
    kernels=("prefix_sum_kernel",),
    friendly=(4, 30),
    drawn=(3, 38),
    shown=(1, 0, 0),
)

SEGMENTED = Puzzle(
    title="Sums that begin again",
    task=Exercise(
        name="puzzle-19",
        statement=(
            "Store running sums of each row that begin again at every element whose "
            "flag is set. Rows, and stretches without a flag, may be longer than a "
            "block."
        ),
        inputs=_segments,
        reference=segmented,
        shapes=ROWS,
        layouts=LAYOUTS,
        launch=_launch_rows,
        parameters=("x_ptr", "f_ptr", "z_ptr", "n", "BLOCK"),
        length=_length,
        hint="Join two stretches that are done: when does the first one's sum count?",
    ),
    formula=(
        r"\begin{gathered} z_{ji} = \sum_{k = s_{ji}}^{i} x_{jk} \\[4pt] s_{ji} = "
        r"\text{last } k \le i \text{ with } f_{jk} = 1, \\[4pt] \text{or } 0 "
        r"\end{gathered}"
    ),
    data=("`x` (m, n) float32", "`f` (m, n) int32, 0 or 1", "`z` (m, n) float32"),
    grid="(m,): program j has row j, and reads it BLOCK columns at a time.",
    hints=(
        "Join two stretches that are done: when does the first one's sum count, and "
        "when has the whole a flag?",
        "`tl.associative_scan((f, x), 0, combine)` with a jitted combine(fa, xa, fb, "
        "xb) that returns the pair of the joined stretch. Not all operations will do: "
        "yours has to be associative.",
        "The carry from earlier chunks is one more stretch on the left: it counts for "
        "lanes that no flag of this chunk has reached.",
    ),
    kernels=("joined_segments", "segmented_sum_kernel"),
    friendly=(4, 32),
    drawn=(3, 38),
    shown=(1, 0, 0),
)

COMPACTION = Puzzle(
    title="Only what is positive",
    task=Exercise(
        name="puzzle-20",
        statement=(
            "Store the positive elements of a vector one after the other, in their "
            "order. The output has room for exactly these."
        ),
        inputs=_half_positive,
        reference=lambda x: x[x > 0],
        shapes=((32,), (1,), (50,), (200,), (257,), (0,)),
        layouts=LAYOUTS,
        launch=_launch_kept,
        parameters=("x_ptr", "z_ptr", "n", "BLOCK"),
        hint="How does a lane learn how many before it are positive?",
    ),
    formula=(
        r"\begin{gathered} z_{p(i)} = x_i \text{ for } x_i > 0 \\[4pt]"
        r"p(i) = \#\{k < i: x_k > 0\} \end{gathered}"
    ),
    data=(
        "`x` (n,) float32, with zeros in it",
        "`z` (k,) float32, where k of them are positive",
    ),
    grid="(1,): one program walks along x, BLOCK elements at a time.",
    hints=(
        "Turn the comparison into 0 and 1, and `tl.cumsum` counts along the block.",
        "It counts the element itself, too, so the place is one less. What went to z "
        "from earlier chunks is carried from turn to turn, as one number.",
        "Every lane has an address in z then, and the mask of the store is x > 0.",
    ),
    kernels=("compaction_kernel",),
    friendly=(32,),
    drawn=(38,),
)

RECURRENCE = Puzzle(
    title="A state with a memory",
    task=Exercise(
        name="puzzle-21",
        statement=(
            "Store all states of a linear recurrence along each row, as state-space "
            "models have it. Rows may be longer than a block. Take a chunk at a time, "
            "not an element."
        ),
        inputs=_decaying,
        reference=recurrence,
        shapes=ROWS,
        layouts=LAYOUTS,
        scales=(1.0, 0.5, 0.25),
        launch=_launch_rows,
        parameters=("a_ptr", "b_ptr", "h_ptr", "n", "BLOCK"),
        length=lambda shape: 2 * _length(shape),
        hint="Two steps one after the other are one step: with which a and b?",
    ),
    formula=(
        r"\begin{gathered} h_{ji} = a_{ji}\, h_{j,i-1} + b_{ji} \\[4pt]"
        r"h_{j,-1} = 0 \end{gathered}"
    ),
    data=("`a` (m, n) float32, 0 to 1", "`b` (m, n) float32", "`h` (m, n) float32"),
    grid="(m,): program j has row j, and reads it BLOCK columns at a time.",
    hints=(
        "Two steps one after the other are one step: with which a and b?",
        "That joining is associative: `tl.associative_scan((a, b), 0, combine)`.",
        "The scan gives for each lane the step from the chunk's beginning to there. "
        "Apply it to the state that the chunk began with; the last lane's is the next.",
    ),
    kernels=("joined_steps", "recurrence_kernel"),
    friendly=(4, 16),
    drawn=(3, 38),
    shown=(1, 0, 0),
)

PUZZLES = (CAUSAL, PREFIX_SUM, SEGMENTED, COMPACTION, RECURRENCE)
