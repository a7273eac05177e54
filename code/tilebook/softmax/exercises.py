"""The chapter's exercises, from counting bytes to a softmax that no library has."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.softmax import solutions
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

# Rows of one block, of several, ragged, of one element; of a drawn shape besides.
SHAPES = ((4, 64), (1, 1), (3, 100), (2, 33), (5, 257), (0, 7))
PARAMETERS = ("x_ptr", "out_ptr", "n", "BLOCK")
USES_BLOCK = ("BLOCK",)


def block(n: int) -> int:
    """Columns of a chunk at a length of rows: another one for neighbouring lengths."""
    return 16 << n % 3


def whole(n: int) -> int:
    """The power of two that holds a row."""
    return 1 << max(1, n - 1).bit_length()


def _launch_chunks(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    if m:
        kernel[(m,)](x, out, n, BLOCK=block(n))


def _launch_whole(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    if m:
        kernel[(m,)](x, out, n, BLOCK=whole(n))


def _normal(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"x": rng.standard_normal(shape)}


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=1, keepdims=True)


def _logsumexp(x: np.ndarray) -> np.ndarray:
    m = x.max(axis=1, initial=-np.inf)
    base = np.where(np.isinf(m), 0.0, m)
    with np.errstate(divide="ignore"):
        return base + np.log(np.exp(x - base[:, None]).sum(axis=1))


M, N, SIZE = 4096, 8192, 4


def _explain_traffic(got: Any) -> str | None:
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    if got[0] == 8 * M * N * SIZE:
        return "The maxima and the sums are written and read again, too."
    if got[0] * SIZE == solutions.traffic(M, N, SIZE)[0]:
        return "These are elements, not bytes."
    return None


TRAFFIC = Exercise(
    name="softmax-traffic",
    statement=(
        f"A softmax of the rows of a {M} by {N} float32 matrix is made of five "
        "kernels: maximum of each row, difference, exponential, sum of each row, "
        "quotient. Each reads its operands from memory and writes its result there. "
        "Give two whole numbers: the bytes that cross the bus, and those of a single "
        "kernel."
    ),
    answer=lambda: solutions.traffic(M, N, SIZE),
    explain=_explain_traffic,
    rtol=0.0,
    hint="Write down for each of the five what has MN elements and what has M.",
)

GBPS, LATENCY, SMS, ROW = 3000.0, 700.0, 132, 4096

FLIGHT = Exercise(
    name="softmax-flight",
    statement=(
        f"Memory moves {GBPS:,.0f} GB/s and takes {LATENCY:.0f} ns to answer. Give two "
        "whole numbers: how many bytes must be on their way at any time, and how many "
        f"programs each of {SMS} multiprocessors must hold if a program requests a row "
        f"of {ROW:,} bytes at a time."
    ),
    answer=lambda: solutions.flight(GBPS, LATENCY, SMS, ROW),
    hint="What arrives in one nanosecond, and how many nanoseconds is it on its way?",
)

STATES = (2.0, 30.0, 5.0, 1.5)

MERGE = Exercise(
    name="softmax-merge",
    statement=(
        "One chunk of a row has left the state m = 2, d = 30, the next has m = 5, "
        "d = 1.5. Give two numbers: m and d of both together, d to within 1 %."
    ),
    answer=lambda: solutions.merge(*STATES),
    hint="Which of the two sums is of terms less the wrong maximum, and by how much?",
)

ROWS, WIDE = 4, 64


def _launch_rows(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    if m:
        kernel[(-(-m // ROWS),)](x, out, m, n, ROWS=ROWS, COLUMNS=whole(n))


SEVERAL = Exercise(
    name="softmax-rows",
    statement=(
        "Write a kernel that stores the softmax of each row of a contiguous (m, n) "
        f"matrix, n at most {WIDE}. It gets one program for every ROWS rows, and "
        "COLUMNS is the power of two that holds a row."
    ),
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape) - 3.0},
    reference=_softmax,
    shapes=((4, 64), (1, 1), (6, 33), (9, 5), (0, 7), (13, 50)),
    launch=_launch_rows,
    parameters=("x_ptr", "out_ptr", "m", "n", "ROWS", "COLUMNS"),
    required=("ROWS", "COLUMNS"),
    length=WIDE,
    hint="Two masks. Which axis do maximum and sum go along, and what must padding be?",
)

LOG = Exercise(
    name="softmax-log",
    statement=(
        "Write a kernel that stores the logarithm of the softmax of each row of a "
        "contiguous matrix. It gets one program a row, and BLOCK holds a row. Inputs "
        "may be in the thousands."
    ),
    inputs=_normal,
    reference=lambda x: x - _logsumexp(x)[:, None],
    shapes=SHAPES,
    launch=_launch_whole,
    parameters=PARAMETERS,
    required=USES_BLOCK,
    length=lambda shape: max(2, shape[1]),
    hint="The logarithm of a quotient is a difference; of e^x, x.",
)


def _left_padded(rng: np.random.Generator, shape: Shape) -> Arrays:
    x = rng.standard_normal(shape)
    x[::2, : shape[1] // 2] = -np.inf
    return {"x": x}


LSE = Exercise(
    name="softmax-lse",
    statement=(
        "Write a kernel that stores the logarithm of the sum of exponentials of each "
        "row of a contiguous matrix, in one pass: one program a row, BLOCK columns at "
        "a time. Of every second row the first half is -inf, and may be longer than "
        "BLOCK."
    ),
    inputs=_left_padded,
    reference=_logsumexp,
    shapes=SHAPES,
    launch=_launch_chunks,
    parameters=PARAMETERS,
    required=USES_BLOCK,
    length=lambda shape: max(2, shape[1]),
    hint="What is -inf less -inf, and what has to be subtracted instead?",
)


def _gradients(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {
        "y": _softmax(rng.standard_normal(shape)),
        "dy": rng.standard_normal(shape),
    }


def _launch_backward(kernel: Any, out: Any, y: Any, dy: Any) -> None:
    m, n = y.shape
    if m:
        kernel[(m,)](y, dy, out, n, BLOCK=whole(n))


BACKWARD = Exercise(
    name="softmax-backward",
    statement=(
        "y is the softmax of each row of a matrix, dy the gradient of a loss by y. "
        "Write a kernel that stores the gradient by the softmax's input. One program a "
        "row; BLOCK holds a row; all are contiguous."
    ),
    inputs=_gradients,
    reference=lambda y, dy: y * (dy - (y * dy).sum(axis=1, keepdims=True)),
    shapes=SHAPES,
    launch=_launch_backward,
    parameters=("y_ptr", "dy_ptr", "dx_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    length=lambda shape: max(2, shape[1]),
    hint="dy_i / dx_j is y_i (1 - y_i) for i = j and -y_i y_j else. Sum over i.",
)


def _tied(rng: np.random.Generator, shape: Shape) -> Arrays:
    # A few values, all negative: each occurs many times in a row. The largest begin
    # somewhere along it, in any chunk.
    x = rng.integers(-4, 0, shape).astype(np.float64)
    begin = rng.integers(0, max(shape[1], 1), (shape[0], 1))
    return {"x": np.where(np.arange(shape[1]) < begin, x - 8, x)}


ARGMAX = Exercise(
    name="softmax-argmax",
    statement=(
        "Write a kernel that stores the index of the largest element of each row, and "
        "of several equal ones that of the first, as int64. One program a row, BLOCK "
        "columns at a time; the matrix is contiguous and finite."
    ),
    inputs=_tied,
    reference=lambda x: x.argmax(axis=1) if x.size else np.zeros(len(x), np.int64),
    shapes=SHAPES,
    launch=_launch_chunks,
    parameters=PARAMETERS,
    required=USES_BLOCK,
    hint="Within a chunk the smallest index among the largest; between chunks, >.",
)

VARIANCE = Exercise(
    name="softmax-variance",
    statement=(
        "Write a kernel that stores the variance of each row, the mean square distance "
        "from the row's mean, in one pass: one program a row, BLOCK columns at a time. "
        "The mean is a thousand times the standard deviation, and everything is "
        "float32."
    ),
    inputs=lambda rng, shape: {"x": 1000.0 + rng.standard_normal(shape)},
    reference=lambda x: x.var(axis=1),
    shapes=((4, 64), (3, 100), (2, 33), (5, 257), (0, 7)),
    extra_shape=lambda rng: (3, int(rng.integers(40, 200))),
    launch=_launch_chunks,
    parameters=PARAMETERS,
    required=USES_BLOCK,
    length=lambda shape: max(2, shape[1]),
    hint=(
        "Count, mean and sum of squares of a chunk are easy. When two sets are put "
        "together, what do their means being apart add to the squares?"
    ),
)

TEMPERATURE = Exercise(
    name="softmax-temperature",
    statement=(
        "Write a function of x (m, n) and t (m,), all of it above 0, that returns the "
        "softmax of each row of x / t[:, None], of any length, any strides, in float32 "
        "and bfloat16, with all that is computed in Triton. Then find out from which "
        "length on a second pass over the row costs time on your card, and get rid of "
        "it."
    ),
    inputs=lambda rng, shape: {
        "x": rng.standard_normal(shape),
        # Powers of two: dividing by them is exact, whatever the order.
        "t": 2.0 ** rng.integers(-3, 4, shape[:1]),
    },
    reference=lambda x, t: _softmax(x / t[:, None]),
    shapes=((4, 64), (1, 1), (3, 100), (2, 1500), (0, 7)),
    dtypes=("float32", "bfloat16"),
    layouts=("contiguous", "strided", "sliced", "transposed"),
    scales=(1.0, 16.0),
    length=lambda shape: max(2, shape[1]),
    only_triton=True,
    hint="A row's temperature is one number: where does it go into the exponent?",
)

EXERCISES = (
    TRAFFIC,
    FLIGHT,
    MERGE,
    SEVERAL,
    LOG,
    LSE,
    BACKWARD,
    ARGMAX,
    VARIANCE,
    TEMPERATURE,
)
