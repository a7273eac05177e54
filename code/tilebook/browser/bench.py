"""What a program in a page uses: inputs, outputs, and a comparison (NumPy only).

Every array is a `Tensor`, which counts its strides in elements. Numbers come from one
generator that starts anew with each run, so a program prints the same each time.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tilebook.browser.arrays import Argument, Tensor
from tilebook.testing import marks
from tilebook.testing.compare import (
    Limit,
    alike,
    allowed,
    judged,
    root_mean_square,
    widen,
)
from tilebook.testing.declare import CheckFailed
from tilebook.testing.describe import findings, layout
from tilebook.testing.hints import Difference
from tilebook.testing.precision import dtype_name

__all__ = [
    "cdiv",
    "compare",
    "descriptor",
    "empty",
    "full",
    "integers",
    "normal",
    "shown",
    "uniform",
]

ALIGNED = 16
"""Bytes, of which a descriptor's memory begins at a multiple."""
SHOWN = 6
"""Elements of a result that are printed."""
_state = {"rng": np.random.default_rng(0)}


def begin(seed: int = 0) -> None:
    """Start the generator of all numbers anew."""
    _state["rng"] = np.random.default_rng(seed)


def cdiv(n: int, size: int) -> int:
    """Return how many blocks of a size hold n elements."""
    return -(-n // size)


def _room(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return memory that begins where a descriptor's has to."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = np.zeros(size + ALIGNED, dtype=np.uint8)
    skip = -memory.__array_interface__["data"][0] % ALIGNED
    return memory[skip : skip + size].view(kind).reshape(shape).view(Tensor)


def _tensor(values: Any, dtype: str) -> Tensor:
    values = np.asarray(values)
    made = _room(values.shape, dtype)
    made[...] = values
    return made


def normal(*shape: int, dtype: str = "float32") -> Tensor:
    """Return random numbers about zero.

    Args:
        shape: of the array.
        dtype: float16, float32 or float64.
    """
    return _tensor(_state["rng"].standard_normal(shape), dtype)


def uniform(*shape: int, dtype: str = "float32") -> Tensor:
    """Return random numbers from 0 to 1; arguments as for `normal`."""
    return _tensor(_state["rng"].random(shape), dtype)


def integers(low: int, high: int, *shape: int, dtype: str = "int32") -> Tensor:
    """Return random integers.

    Args:
        low: the least.
        high: one more than the greatest.
        shape: of the array.
        dtype: an integer type.
    """
    return _tensor(_state["rng"].integers(low, high, shape), dtype)


def full(value: float, *shape: int, dtype: str = "float32") -> Tensor:
    """Return an array that holds one value.

    Args:
        value: of each element.
        shape: of the array.
        dtype: of its elements.
    """
    return _tensor(np.full(shape, value), dtype)


def empty(*shape: int, dtype: str = "float32") -> Tensor:
    """Return an array for results: NaN, or -77 (179 unsigned), until it is stored to.

    Args:
        shape: of the array.
        dtype: of its elements.
    """
    made = _room(shape, dtype)
    if made.dtype.name in marks.NAN:
        _words(made)[...] = marks.NAN[made.dtype.name][0]
    else:
        made.view(np.uint8)[...] = 0xB3
    return made


def _words(array: np.ndarray) -> np.ndarray:
    """Return an array's bits as unsigned integers."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def descriptor(array: np.ndarray, *block: int) -> Any:
    """Return a tensor descriptor, which kernels load and store whole blocks by.

    Args:
        array: its rows begin at multiples of 16 bytes.
        block: the shape of a block.
    """
    from triton.tools.tensor_descriptor import TensorDescriptor

    base = Argument(array)
    return TensorDescriptor(base, list(array.shape), list(base.stride()), list(block))


def compare(
    got: np.ndarray, expected: Any, roundings: int = 1, name: str = "out"
) -> None:
    """Print whether a result is right, element by element.

    Args:
        got: what the kernel stored.
        expected: from NumPy, in float64 or in the result's own type.
        roundings: how many a result passes through; an element may be off by what
            these and its format account for.
        name: what to call it.

    Raises:
        CheckFailed: an element is wrong; the message says which, and why if it can.
    """
    got, expected = np.asarray(got), widen(np.asarray(expected))
    if got.shape != expected.shape:
        raise CheckFailed(f"{name} has shape {got.shape}, expected {expected.shape}.")
    dtype = dtype_name(got.dtype)
    limits = allowed(
        expected, dtype, Limit(roundings), np.float64(root_mean_square(expected))
    )
    never = np.zeros(got.shape, dtype=bool)
    if dtype in marks.NAN:
        never = _words(got).reshape(got.shape) == marks.NAN[dtype][0]
    values, expected = alike(widen(got), expected)
    bad, never = judged(values, expected, limits, never, dtype)
    if bad.any():
        lines = findings(
            Difference(values, expected, bad, never, dtype, {}, []), limits, name=name
        )
        raise CheckFailed(f"{name} is wrong.\n{layout(lines)}")
    print(f"{name} {got.shape}, {dtype}: right. {shown(got)}")


def shown(array: np.ndarray) -> str:
    """Return an array's first elements as text."""
    flat = array.reshape(-1)
    kept: Iterable[Any] = flat[:SHOWN].tolist()
    texts = [f"{x:.5g}" if isinstance(x, float) else str(x) for x in kept]
    return ", ".join(texts) + (", ..." if flat.size > SHOWN else "")
