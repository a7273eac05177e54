"""Sums in Triton's interpreter as tensor cores are taken to keep them.

The interpreter adds in float32 what `tl.dot` multiplies, so that a kernel whose sums
tensor cores would cut off is right there to the last digits. Inside of `tensor_cores`,
products of eight bits are summed as `accumulation.modelled` does it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from triton import language as tl
from triton.runtime import interpreter as upstream

from tilebook import _ship, _worker, device
from tilebook.fp8 import conclusions
from tilebook.fp8.accumulation import LOWEST, STEP
from tilebook.interpreter.handles import Handle, values_of


def added(sums: np.ndarray, a: np.ndarray, b: np.ndarray, bits: int) -> np.ndarray:
    """Add a product to sums, and cut off what lies too far behind.

    Args:
        sums: (m, n) float64.
        a: (m, k) float64, numbers of an 8-bit type.
        b: (k, n) float64, likewise.
        bits: kept behind the first one of the largest term.

    Returns:
        (m, n) float64.
    """
    for first in range(0, a.shape[1], STEP):
        part = slice(first, first + STEP)
        left, right = a[:, part, None], b[None, part, :]
        terms = np.concatenate([left * right, sums[:, None, :]], 1)
        exponents = [_exponent(left) + _exponent(right), _exponent(sums)[:, None, :]]
        highest = np.concatenate(exponents, 1).max(1, keepdims=True)
        sums = _cut(terms, highest - bits).sum(1)
        sums = _cut(sums, _exponent(sums) - bits)
    return sums


def _exponent(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, LOWEST, np.frexp(x)[1] - 1)


def _cut(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    step = np.ldexp(1.0, exponent)
    return np.trunc(x / step) * step


@contextlib.contextmanager
def tensor_cores(bits: int = conclusions.MODEL_BITS) -> Iterator[None]:
    """Have `tl.dot` of two 8-bit operands cut off its sums, in interpreted kernels.

    Args:
        bits: kept behind the first one of the largest term.

    Notes:
        `max_num_imprecise_acc` is heeded: no more terms than that are summed so, from
        zero, and what comes out is added in float32.
    """
    original = upstream.InterpreterBuilder.create_dot

    def create_dot(
        self: Any, a: Any, b: Any, acc: Any, precision: Any, limit: int
    ) -> Any:
        if not (a.dtype.scalar.is_fp8() and b.dtype.scalar.is_fp8()):
            return original(self, a, b, acc, precision, limit)
        left, right = (values_of(x).astype(np.float64) for x in (a, b))
        sums = acc.data.astype(np.float64)
        if not limit:
            return Handle(added(sums, left, right, bits).astype(np.float32), tl.float32)
        found = acc.data
        for first in range(0, left.shape[1], limit):
            part = slice(first, first + limit)
            some = added(np.zeros_like(sums), left[:, part], right[part], bits)
            found = found + some.astype(np.float32)
        return Handle(found, tl.float32)

    upstream.InterpreterBuilder.create_dot = create_dot
    try:
        yield
    finally:
        upstream.InterpreterBuilder.create_dot = original


def run(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Run a kernel in the interpreter, with sums as tensor cores keep them.

    Args:
        kernel: a jitted kernel.
        grid: programs along each axis.
        args: its positional arguments; tensors of any device, changed as it changes
            them.
        meta: its constants, by name.
    """
    if device.interpreting():
        with tensor_cores():
            kernel[grid](*args, **meta)
        return
    storages: list[torch.UntypedStorage] = []
    request = _ship.dumps((kernel, grid, args, meta), storages)
    after = _worker.call("interpreted", "tilebook.fp8.emulated:run_request", request)
    for storage, content in zip(storages, after, strict=True):
        _ship.overwrite(storage, content)


def run_request(request: bytes) -> list[bytes]:
    """Run what `run` packed, in the interpreted worker."""
    storages: list[torch.UntypedStorage] = []
    kernel, grid, args, meta = _ship.loads(request, storages)
    with tensor_cores():
        kernel[grid](*args, **meta)
    return [_ship.contents(storage) for storage in storages]
