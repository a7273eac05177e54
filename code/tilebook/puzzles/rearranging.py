"""Puzzles 13 to 16: little arithmetic, much about where things go."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.puzzles.declare import TILE, Puzzle, Shape, block, blocks, cdiv, whole
from tilebook.testing import Exercise

Arrays = Mapping[str, Any]

STRIDED = ("contiguous", "strided", "sliced", "transposed")
STRIDES = tuple(f"stride_{axis}" for axis in ("t", "h", "d", "ct", "ci"))
PER_WORD = 8
WORDS = 4
"""Words of packed numbers that share a scale."""


def _matrix(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _launch_transpose(kernel: Any, z: Any, x: Any) -> None:
    m, n = x.shape
    tile = blocks(m, n)
    if m and n:
        grid = (cdiv(m, tile["BLOCK_M"]), cdiv(n, tile["BLOCK_N"]))
        kernel[grid](x, z, m, n, *x.stride(), **tile)


def _words(rng: np.random.Generator, shape: Shape) -> Arrays:
    (n,) = shape
    words = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    return {"w": words, "s": rng.standard_normal(cdiv(n, WORDS))}


def signed(w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Signed fields of four bits, times the scale that each group of them has.

    Args:
        w: integers (n,), of which the low 32 bits count.
        s: (ceil(n / 4),).

    Returns:
        float64 (8 n,).
    """
    fields = w[:, None] >> (4 * np.arange(PER_WORD)) & 15
    fields = np.where(fields > 7, fields - 16, fields)
    return (fields * np.repeat(s, WORDS)[: len(w), None]).reshape(-1)


def _launch_words(kernel: Any, z: Any, w: Any, s: Any) -> None:
    n = w.shape[0]
    if n:
        kernel[(cdiv(n, block(n)),)](w, s, z, n, BLOCK=block(n))


def _angles(rng: np.random.Generator, shape: Shape) -> Arrays:
    t, h, half = shape
    # Unlike cosines and sines, these are scaled; the rotation is then one and a
    # scaling, which makes no difference to who multiplies what.
    turn = rng.uniform(0.0, 2 * np.pi, (t, half))
    x = rng.standard_normal((t, h, 2 * half))
    return {"x": x, "c": np.cos(turn), "s": np.sin(turn)}


def rotated(x: np.ndarray, c: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Rotate each pair of features (i, i + d/2) by its position's angle.

    Args:
        x: (t, h, d).
        c: cosines (t, d / 2).
        s: sines, likewise.

    Returns:
        Shape of x.
    """
    a, b = np.split(x, 2, axis=2)
    c, s = c[:, None, :], s[:, None, :]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=2)


def _launch_angles(kernel: Any, z: Any, x: Any, c: Any, s: Any) -> None:
    t, h, d = x.shape
    strides = (*x.stride(), *c.stride())
    kernel[(t, h)](x, c, s, z, h, d // 2, *strides, BLOCK=whole(d // 2))


def _values(rng: np.random.Generator, shape: Shape) -> Arrays:
    n, bins = shape
    return {"x": rng.integers(-2, bins + 2, n).astype(np.int32), "bins": bins}


def counted(x: np.ndarray, bins: int) -> np.ndarray:
    """How often each of the numbers 0 to bins - 1 occurs.

    Args:
        x: integers (n,).
        bins: how many numbers count.

    Returns:
        int32 (bins,).
    """
    return (x[None, :] == np.arange(bins)[:, None]).sum(axis=1).astype(np.int32)


def _all_there(z: np.ndarray, x: np.ndarray, bins: int) -> bool:
    return int(z.sum()) == int(((x >= 0) & (x < bins)).sum())


def _launch_values(kernel: Any, z: Any, x: Any, bins: int) -> None:
    n = x.shape[0]
    if n:
        kernel[(cdiv(n, block(n)),)](x, z, n, bins, BLOCK=block(n))


TRANSPOSE = Puzzle(
    title="Rows become columns",
    task=Exercise(
        name="puzzle-13",
        statement="Store the transpose of a matrix of any strides.",
        inputs=_matrix,
        reference=lambda x: x.T,
        shapes=((32, 64), (1, 1), (3, 50), (50, 3), (33, 65), (0, 5)),
        layouts=STRIDED,
        launch=_launch_transpose,
        parameters=("x_ptr", "z_ptr", "m", "n", "stride_m", "stride_n", *TILE),
        hint="A tile can be stored at addresses whose rows run along its columns.",
    ),
    formula=r"z_{ij} = x_{ji}",
    data=(
        "`x` (m, n) float32, element [j, i] at `j * stride_m + i * stride_n`",
        "`z` (n, m) float32, contiguous",
    ),
    grid=(
        "(cdiv(m, BLOCK_M), cdiv(n, BLOCK_N)): program (p, q) moves the tile of x "
        "with rows from `p * BLOCK_M` on and columns from `q * BLOCK_N` on."
    ),
    hints=(
        "A tile can be stored at addresses whose rows run along its columns: nothing "
        "needs to be turned.",
        "Element [j, i] of x goes to `i * m + j` in z.",
        "Both accesses have the same mask, of the tile of x.",
    ),
    kernels=("transpose_kernel",),
    friendly=(32, 64),
    drawn=(20, 36),
    shown=(1, 0, 0),
    chapter="tiling",
)

NIBBLES = Puzzle(
    title="Half a byte, with a sign",
    task=Exercise(
        name="puzzle-14",
        statement=(
            "Unpack signed numbers of four bits, eight in a word of 32, and multiply "
            "each with its scale, which four words in a row share."
        ),
        inputs=_words,
        reference=signed,
        shapes=((48,), (1,), (33,), (100,), (77,), (0,)),
        layouts=("contiguous", "offset"),
        launch=_launch_words,
        parameters=("w_ptr", "s_ptr", "z_ptr", "n", "BLOCK"),
        hint="What do two shifts in a row do to the sign: left, then right?",
    ),
    formula=(
        r"\begin{gathered} z_{8i+j} = s_{\lfloor i/4 \rfloor}\, f_{ij} \\[4pt]"
        r"-8 \le f_{ij} \le 7 \end{gathered}"
    ),
    data=(
        "`w` (n,) int32: field j of word i is its four bits from bit `4 * j` on, as "
        "two's complement",
        "`s` (cdiv(n, 4),) float32",
        "`z` (8 n,) float32",
    ),
    grid="(cdiv(n, BLOCK),): program p has the words from `p * BLOCK` on.",
    hints=(
        "Make a tile of BLOCK words and 8 fields; the first eight numbers of z are "
        "those of word 0.",
        "Four bits of two's complement from 8 on mean the number less 16.",
        "Or shift left until the field's sign is the word's, and then right by 28: "
        "shifting a signed number right copies its sign.",
    ),
    kernels=("nibbles_kernel",),
    friendly=(48,),
    drawn=(5,),
)

ROTARY = Puzzle(
    title="Pairs that turn",
    task=Exercise(
        name="puzzle-15",
        statement=(
            "Rotate each pair of features of each head by an angle that depends on "
            "the position and on the pair: rotary embedding. Feature i of the first "
            "half of a head is paired with feature i of the second. All inputs have "
            "any strides. Compute in float32, and round once, at the store."
        ),
        inputs=_angles,
        reference=rotated,
        shapes=((3, 2, 16), (1, 1, 1), (5, 3, 5), (2, 4, 33)),
        extra_shape=lambda rng: tuple(rng.integers(1, (5, 4, 24))),
        dtypes=("float32", "float16"),
        layouts=STRIDED,
        scales=(1.0, 8.0, 2.0**-4),
        launch=_launch_angles,
        parameters=("x_ptr", "c_ptr", "s_ptr", "z_ptr", "h", "half", *STRIDES, "BLOCK"),
        length=3,
        hint="Which two features does a program load for lane i, and which two angles?",
    ),
    formula=(
        r"\begin{gathered} z_{i} = x_{i} \cos\theta_{i} - x_{i+d/2} "
        r"\sin\theta_{i} \\[4pt]z_{i+d/2} = x_{i+d/2} \cos\theta_{i} + x_{i} "
        r"\sin\theta_{i} \end{gathered}"
    ),
    data=(
        "`x` (t, h, d) float32 or float16, element [p, j, i] at "
        "`p * stride_t + j * stride_h + i * stride_d`",
        "`c`, `s` (t, half) of the dtype of x: cosine and sine of position p and pair "
        "i, both at `p * stride_ct + i * stride_ci`; half is d / 2. The check scales "
        "them with x, so don't use that their squares add up to 1",
        "`z` (t, h, d) of the dtype of x, contiguous",
    ),
    grid="(t, h): program (p, j) has head j of position p. BLOCK is at least half.",
    hints=(
        "Which two features does a program load for lane i, and which two angles?",
        "Angles depend on the position, not on the head.",
        "Two loads from x, `half * stride_d` apart, and two stores, `half` apart: all "
        "with one mask.",
    ),
    kernels=("rotary_kernel",),
    sizes="(t, h, half)",
    friendly=(3, 2, 16),
    drawn=(3, 2, 6),
    shown=(1, 1, 0),
)

HISTOGRAM = Puzzle(
    title="Everybody counts",
    task=Exercise(
        name="puzzle-16",
        statement=(
            "Count how often each of the numbers 0 to bins - 1 occurs. Others occur, "
            "too, and count nowhere."
        ),
        inputs=_values,
        reference=counted,
        shapes=((96, 10), (1, 1), (50, 7), (200, 3), (257, 40), (0, 4)),
        initial=0.0,
        layouts=("contiguous", "offset"),
        launch=_launch_values,
        parameters=("x_ptr", "z_ptr", "n", "bins", "BLOCK"),
        invariants={"counts add up to the numbers in range": _all_there},
        hint="What if two programs, or two lanes, count the same number at once?",
    ),
    formula=(
        r"\begin{gathered} z_b = \#\{\, i : x_i = b \,\} \\[4pt]"
        r"0 \le b < \text{bins} \end{gathered}"
    ),
    data=(
        "`x` (n,) int32, some negative and some past the last bin",
        "`z` (bins,) int32, all 0 at the beginning; bins is any number",
    ),
    grid="(cdiv(n, BLOCK),): program p has the elements from `p * BLOCK` on.",
    hints=(
        "Load, add, store loses counts as soon as two lanes meet. There is an "
        "operation that does all three at once.",
        "`tl.atomic_add(z_ptr + x, 1, mask=...)`: every lane has an address.",
        "A lane counts if it exists and its number is neither negative nor too large.",
    ),
    kernels=("histogram_kernel",),
    sizes="(n, bins)",
    friendly=(96, 10),
    drawn=(39, 9),
    shown=(1, 0, 0),
)

PUZZLES = (TRANSPOSE, NIBBLES, ROTARY, HISTOGRAM)
