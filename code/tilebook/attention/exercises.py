"""The chapter's exercises, from counting bytes to gradients of queries."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.attention import solutions
from tilebook.attention.exercises_kernels import GROUP, QUERIES, power
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

S, D = 16384, 128

TRAFFIC = Exercise(
    name="attention-traffic",
    statement=(
        f"A head has {S:,} queries, as many keys and values, and {D} features, in "
        "bfloat16, as its result is. Give two numbers of bytes: what has to move if "
        "one kernel writes scores in float32, a second one reads them and writes "
        "weights in bfloat16, and a third one reads those; and what has to move in one "
        "pass."
    ),
    answer=lambda: solutions.traffic(S, D),
    explain=lambda got: (
        "What one kernel writes the next one reads."
        if isinstance(got, tuple | list)
        and len(got) == 2
        and got[0] == 4 * S * D * 2 + S * S * 6
        else None
    ),
    rtol=0.0,
    hint="Each of s squared numbers crosses the bus twice, in four bytes or in two.",
)

LONG, TALL, WIDE = 4096, 128, 64

BLOCKS = Exercise(
    name="attention-blocks",
    statement=(
        f"A causal attention of {LONG:,} positions has tiles of {TALL} queries and "
        f"goes through keys by {WIDE}. Give two numbers for all of a head's tiles: the "
        "blocks that need no mask, and those that do."
    ),
    answer=lambda: solutions.blocks(LONG, TALL, WIDE),
    explain=lambda got: (
        "The tile's last queries see keys that its first ones don't: in two blocks."
        if isinstance(got, tuple | list) and len(got) == 2 and got[1] == LONG // TALL
        else None
    ),
    rtol=0.0,
    hint="Which blocks has the first tile, and how many more the next?",
)

ONE, OTHER = (1.0, 4.0), (2.0, 1.0)

MERGE = Exercise(
    name="attention-merge",
    statement=(
        "One program has seen half of the keys, another one the rest. The logarithms "
        f"of their denominators are {ONE[0]:g} and {OTHER[0]:g}, a feature of their "
        f"results is {ONE[1]:g} and {OTHER[1]:g}. Give the logarithm and the feature "
        "of all keys, to within 0.1 %."
    ),
    answer=lambda: solutions.merge(ONE, OTHER),
    rtol=0.001,
    hint="What was each result divided by?",
)

LOGITS, VALUES, GRAD, LOGS = (0.0, math.log(3)), (2.0, 6.0), 1.0, 2.0

BACKWARD = Exercise(
    name="attention-backward",
    statement=(
        "A query's logits are 0 and ln 3, the values are the numbers 2 and 6, and 1 "
        "arrives for the result. Give four numbers: the gradients of both logits, and "
        "the same if 2 arrives for the logarithm of the denominator besides."
    ),
    answer=lambda: (
        *solutions.backward(LOGITS, VALUES, GRAD, 0.0),
        *solutions.backward(LOGITS, VALUES, GRAD, LOGS),
    ),
    rtol=0.001,
    hint="The weights are a quarter and three quarters. What is the result?",
)


def _windows(rng: np.random.Generator, shape: Shape) -> Arrays:
    sq, sk = shape
    block_m, block_n = (int(rng.choice((2, 4, 8))) for _ in range(2))
    left, right = (int(rng.integers(0, 20)) for _ in range(2))
    m0 = int(rng.integers(0, -(-sq // block_m))) * block_m
    told = {"m0": m0, "block_m": block_m, "block_n": block_n, "sq": sq, "sk": sk}
    return told | {"left": left, "right": right}


def _counted(
    m0: int, block_m: int, block_n: int, sq: int, sk: int, left: int, right: int
) -> tuple[int, int]:
    i = np.arange(m0, min(m0 + block_m, sq))[:, None]
    j = np.arange(-(-sk // block_n) * block_n)
    seen = (j >= i - left) & (j <= i + right) & (j < sk)
    each = seen.reshape(len(i), -1, block_n)
    needed, plain = each.any((0, 2)), each.all((0, 2))
    return int(plain.sum()), int((needed & ~plain).sum())


SPANS = Exercise(
    name="attention-spans",
    statement=(
        "Write a Python function of m0, block_m, block_n, sq, sk, left and right. "
        "Queries m0 to m0 + block_m - 1, of sq in all, go through sk keys by blocks of "
        "block_n, the first at key 0; query i sees the keys from i - left to i + "
        "right. Return two counts, without a loop: the blocks in which all of the "
        "tile's queries see all block_n keys, and the others in which some query sees "
        "some key."
    ),
    inputs=_windows,
    reference=_counted,
    shapes=((16, 16), (1, 1), (40, 33), (17, 64), (64, 9), (50, 50), (33, 70)),
    extra_shape=lambda rng: (*rng.integers(1, 80, 2),),
    forbidden=("range", "while"),
    hint=(
        "Four ends: where the first query's window begins and where the last one's "
        "does, and the same of ends. Which two are rounded inwards?"
    ),
)


def _parts(rng: np.random.Generator, shape: Shape) -> Arrays:
    splits, m, e = shape
    log = rng.standard_normal((splits, m))
    log[rng.random((splits, m)) < 0.3] = -np.inf
    part = rng.standard_normal((splits, m, e))
    return {"part": np.where(np.isinf(log)[..., None], 0.0, part), "log": log}


def _merged(part: np.ndarray, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top = log.max(0, initial=-np.inf)
    weights = np.exp(log - np.where(np.isinf(top), 0.0, top))
    total = weights.sum(0)
    seen = np.where(total == 0, 1.0, total)
    out = (weights[..., None] * part).sum(0) / seen[:, None]
    return out, top + np.log(seen)


def _launch_split(kernel: Any, out: Any, lse: Any, part: Any, log: Any) -> None:
    splits, m, e = part.shape
    if m:
        kernel[(m,)](part, log, out, lse, splits, m, E=e, BLOCK_E=power(e))


SPLIT = Exercise(
    name="attention-split",
    statement=(
        "Keys were split among programs. Write the kernel that puts their results "
        "together: part (splits, m, E) has each one's result, log (splits, m) the "
        "logarithms of its denominators, -inf where it saw no key. Store the result "
        "(m, E) of all keys and its logarithm (m,), 0 and -inf where nobody saw one. "
        "All is contiguous float32; a program has a row."
    ),
    inputs=_parts,
    reference=_merged,
    shapes=((2, 4, 16), (1, 1, 1), (5, 3, 20), (8, 6, 33), (3, 0, 8), (4, 9, 5)),
    launch=_launch_split,
    parameters=(
        *("part_ptr", "log_ptr", "out_ptr", "lse_ptr", "splits", "m"),
        *("E", "BLOCK_E"),
    ),
    scales=(1.0, 64.0),
    length=lambda shape: 4 * shape[0],
    factor=16.0,
    required=("BLOCK_E",),
    hint="What is (-inf) - (-inf), and where does it come up?",
)


def _heads(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, d = shape
    q, k, v = (rng.standard_normal((rows, d)) for rows in (m, n, n))
    return {"q": q, "k": k, "v": v, "scale": d**-0.5, "sink": float(rng.normal(0, 2))}


def _sunk(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, sink: float
) -> np.ndarray:
    x = q @ k.T * scale
    top = np.maximum(x.max(1, initial=-np.inf), sink)[:, None]
    e = np.exp(x - top)
    return e @ v / (e.sum(1, keepdims=True) + np.exp(sink - top))


def _launch_sink(
    kernel: Any, out: Any, q: Any, k: Any, v: Any, scale: float, sink: float
) -> None:
    m, d = q.shape
    tile = {"D": d, "BLOCK_M": 16 << m % 2, "BLOCK_N": 16 << len(k) % 2}
    if m:
        kernel[(-(-m // tile["BLOCK_M"]),)](
            q, k, v, out, m, len(k), scale, sink, **tile
        )


def _terms(shape: Shape) -> int:
    return 2 * (shape[1] + shape[2])


SINK = Exercise(
    name="attention-sink",
    statement=(
        "Write attention with a sink: beside the n keys stands a logit `sink`, which "
        "has a share of the denominator and no value. q (m, D), k and v (n, D) are "
        "contiguous float16, D is 16 or 32. In one pass, with tl.dot; nothing may "
        "overflow. n may be 0."
    ),
    inputs=_heads,
    reference=_sunk,
    shapes=((32, 32, 16), (1, 1, 16), (5, 40, 32), (20, 33, 16), (3, 0, 16)),
    extra_shape=lambda rng: (*rng.integers(1, 40, 2), 16),
    dtypes=("float16",),
    scales=(1.0, 4.0, 0.25),
    launch=_launch_sink,
    parameters=(
        *("q_ptr", "k_ptr", "v_ptr", "out_ptr", "m", "n", "scale", "sink"),
        *("D", "BLOCK_M", "BLOCK_N"),
    ),
    required=("tl.dot",),
    length=_terms,
    operand="float16",
    hint="It was there before the first key: what are the maximum and the sum then?",
)


def _arriving(rng: np.random.Generator, shape: Shape) -> Arrays:
    told = {name: rng.standard_normal(shape) for name in ("do", "o")}
    return told | {"dlse": rng.standard_normal(shape[0])}


def _launch_delta(kernel: Any, out: Any, do: Any, o: Any, dlse: Any) -> None:
    m, e = do.shape
    if m:
        rows = 4 << m % 3
        kernel[(-(-m // rows),)](
            do, o, dlse, out, m, E=e, BLOCK_E=power(e), BLOCK_M=rows
        )


DELTA = Exercise(
    name="attention-delta",
    statement=(
        "Write the kernel that the gradients begin with: from do and o (m, E) and dlse "
        "(m,), what arrives for the logarithms, it stores for each row the number that "
        "is subtracted from dp. All is contiguous float32; E is any number of features."
    ),
    inputs=_arriving,
    reference=lambda do, o, dlse: (do * o).sum(1) - dlse,
    shapes=((8, 16), (1, 1), (5, 20), (13, 33), (0, 4)),
    launch=_launch_delta,
    parameters=(
        *("do_ptr", "o_ptr", "dlse_ptr", "out_ptr", "m"),
        *("E", "BLOCK_E", "BLOCK_M"),
    ),
    # Products grow as the square of what is scaled, and dlse doesn't.
    scales=(1.0,),
    length=lambda shape: 2 * shape[1],
    required=("BLOCK_E", "BLOCK_M"),
    hint="Step 4 of the derivation, with what arrives for the logarithm.",
)

EXERCISES = (
    *(TRAFFIC, BLOCKS, MERGE, BACKWARD, SPANS),
    *(SPLIT, SINK, DELTA, QUERIES, GROUP),
)
