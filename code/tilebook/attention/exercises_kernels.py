"""Exercises whose kernels take a chapter's worth: gradients, and heads that share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.testing import Exercise

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]


def power(n: int) -> int:
    """The power of two that holds n."""
    return 1 << max(0, n - 1).bit_length()


def _given(rng: np.random.Generator, shape: Shape) -> Arrays:
    """Operands, what arrives, and what the forward pass has left."""
    m, n, d = shape
    q, do, k, v = (rng.standard_normal((rows, d)) for rows in (m, m, n, n))
    x = _logits(q, k, d**-0.5)
    top = x.max(1, keepdims=True)
    total = np.exp(x - top).sum(1, keepdims=True)
    p = np.exp(x - top) / total
    delta = (do * (p @ v)).sum(1)
    told = {"q": q, "k": k, "v": v, "do": do, "lse": (top + np.log(total))[:, 0]}
    return told | {"delta": delta, "scale": d**-0.5}


def _logits(q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
    m, n = len(q), len(k)
    seen = np.arange(n) <= np.arange(m)[:, None] + n - m
    return np.where(seen, q @ k.T * scale, -np.inf)


def _dq(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    do: np.ndarray,
    lse: np.ndarray,
    delta: np.ndarray,
    scale: float,
) -> np.ndarray:
    p = np.exp(_logits(q, k, scale) - lse[:, None])
    return scale * (p * (do @ v.T - delta[:, None])) @ k


def _launch_queries(
    kernel: Any,
    dq: Any,
    q: Any,
    k: Any,
    v: Any,
    do: Any,
    lse: Any,
    delta: Any,
    scale: float,
) -> None:
    m, d = q.shape
    n = len(k)
    tile = {"D": d, "BLOCK_M": 16 << m % 2, "BLOCK_N": 16 << n % 2}
    kernel[(-(-m // tile["BLOCK_M"]),)](
        q, k, v, do, lse.float(), delta.float(), dq, m, n, scale, **tile
    )


def _queries_shape(rng: np.random.Generator) -> Shape:
    m, more = rng.integers(1, 40, 2)
    return int(m), int(m + more), 16


QUERIES = Exercise(
    name="attention-queries",
    statement=(
        "Write the kernel of the gradient of the queries of a causal attention, query "
        "i of m seeing the keys up to i + n - m. q and do (m, D), k and v (n, D) are "
        "contiguous float16, lse and delta (m,) float32, dq (m, D) float32. With "
        "tl.dot."
    ),
    inputs=_given,
    reference=_dq,
    shapes=((32, 32, 16), (1, 1, 16), (5, 40, 32), (20, 33, 16), (40, 75, 16)),
    extra_shape=_queries_shape,
    dtypes=("float16",),
    out_dtype="float32",
    # Another scale would be another softmax, whose logarithm isn't this one.
    scales=(1.0,),
    launch=_launch_queries,
    parameters=(
        *("q_ptr", "k_ptr", "v_ptr", "do_ptr", "lse_ptr", "delta_ptr", "dq_ptr"),
        *("m", "n", "scale", "D", "BLOCK_M", "BLOCK_N"),
    ),
    required=("tl.dot",),
    length=lambda shape: 4 * (shape[1] + shape[2]),
    operand="float16",
    hint=(
        "Weights come from the logarithm, without a maximum. Two products give what "
        "the third takes."
    ),
)


def _shared(rng: np.random.Generator, shape: Shape) -> Arrays:
    heads, group, n, d = shape
    q = rng.standard_normal((heads * group, d))
    k, v = (rng.standard_normal((heads, n, d)) for _ in range(2))
    return {"q": q, "k": k, "v": v, "scale": d**-0.5}


def _grouped(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    heads, _, d = k.shape
    x = q.reshape(heads, -1, d) @ k.transpose(0, 2, 1) * scale
    e = np.exp(x - x.max(2, keepdims=True))
    return (e / e.sum(2, keepdims=True) @ v).reshape(q.shape)


def _launch_group(kernel: Any, out: Any, q: Any, k: Any, v: Any, scale: float) -> None:
    heads, n, d = k.shape
    group = len(q) // heads
    kernel[(heads,)](
        q, k, v, out, n, scale, GROUP=group, D=d, BLOCK_G=max(16, power(group)),
        BLOCK_N=16 << n % 2,
    )  # fmt: skip


GROUP = Exercise(
    name="attention-group",
    statement=(
        "A model writes its next word: each head has one query. GROUP heads of queries "
        "share a head of keys, and keys are all that is read. Write a kernel whose "
        "program reads a head's keys and values once, for all its queries: q (heads * "
        "GROUP, D), k and v (heads, n, D), contiguous float16. With tl.dot, which "
        "takes 16 rows or more: BLOCK_G of them."
    ),
    inputs=_shared,
    reference=_grouped,
    shapes=((2, 8, 32, 16), (1, 1, 1, 16), (3, 5, 40, 32), (2, 16, 33, 16)),
    extra_shape=lambda rng: (*rng.integers(1, 4, 1), *rng.integers(1, 20, 2), 16),
    dtypes=("float16",),
    scales=(1.0, 4.0, 0.25),
    launch=_launch_group,
    parameters=(
        *("q_ptr", "k_ptr", "v_ptr", "out_ptr", "n", "scale"),
        *("GROUP", "D", "BLOCK_G", "BLOCK_N"),
    ),
    required=("tl.dot", "BLOCK_G"),
    length=lambda shape: 2 * (shape[2] + shape[3]),
    operand="float16",
    hint="In a tile of queries nothing says that its rows are positions.",
)
