"""From the pattern of wrong elements to a likely reason (NumPy only).

Each rule looks for one mistake's fingerprint and returns a sentence or None; the
first that recognises something speaks. The rules for memory that was never written
come first, since nothing else can be concluded from such elements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilebook.testing.places import ordinal
from tilebook.testing.precision import FORMATS, format_of, round_to


@dataclass(frozen=True)
class Difference:
    """An output that failed, beside what it should be.

    Args:
        got: output, as float64, int64 or uint64.
        expected: reference, likewise.
        bad: which elements are wrong, bool.
        never: which of them still hold poison, bool.
        dtype: name of the output's dtype.
        inputs: the arrays the output was computed from, by name.
        earlier: what earlier calls on the same shape should have returned.
    """

    got: np.ndarray
    expected: np.ndarray
    bad: np.ndarray
    never: np.ndarray
    dtype: str
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    earlier: Sequence[np.ndarray] = ()


def likely_reason(diff: Difference) -> str:
    """A guess at why elements are wrong.

    Args:
        diff: at least one element is wrong.

    Returns:
        One or two sentences; empty if nothing is recognised.
    """
    rules = _UNWRITTEN if diff.never.any() else _WRONG
    for rule in rules:
        with np.errstate(all="ignore"):
            reason = rule(diff)
        if reason:
            return reason
    return ""


def _elements(count: int) -> str:
    return "element was" if count == 1 else f"{count} elements were"


def _block(start: int) -> bool:
    """Whether an index looks like a multiple of a block size."""
    return start > 0 and start % 16 == 0


def _nothing_written(d: Difference) -> str | None:
    if d.never.all():
        return (
            "Nothing was written to the output: does the kernel store to it, and is "
            "its mask ever true?"
        )
    return None


def _part_written(d: Difference) -> str | None:
    flat = np.flatnonzero(d.never)
    start, size = int(flat[0]), d.never.size
    if flat[-1] - start + 1 != flat.size:
        return None
    if start == 0:
        return f"The first {_elements(flat.size)} never written: do offsets start at 0?"
    if start + flat.size != size:
        return None
    if start <= size // 2 and _block(start):
        return (
            f"Only the first {start} elements were written: does the grid have "
            "a program for every block, and do the offsets grow with "
            "tl.program_id(0)?"
        )
    return (
        f"The last {_elements(flat.size)} never written: is the grid rounded up "
        "(triton.cdiv(n, BLOCK) programs, not n // BLOCK), and are blocks BLOCK apart?"
    )


def _columns_written(d: Difference) -> str | None:
    if d.never.ndim != 2:
        return None
    rows, columns = (d.never.all(axis=1), d.never.all(axis=0))
    for name, line, axis in (("rows", rows, 0), ("columns", columns, 1)):
        where = np.flatnonzero(line)
        if where.size == 0 or d.never.sum() != where.size * d.never.shape[1 - axis]:
            continue
        if where[-1] == line.size - 1 and where[-1] - where[0] + 1 == where.size:
            return (
                f"The last {where.size} of {line.size} {name} were never written: is "
                f"the grid rounded up along dimension {axis}?"
            )
    return None


def _every_nth_written(d: Difference) -> str | None:
    steps = np.unique(np.diff(np.flatnonzero(~d.never)))
    if steps.size == 1 and steps[0] > 1:
        return (
            f"Only every {ordinal(int(steps[0]))} element was written: are the "
            "offsets or strides multiplied by something once too often?"
        )
    return None


def _some_written(d: Difference) -> str | None:
    count = int(d.never.sum())
    return (
        f"{count} element{'s were' if count > 1 else ' was'} never written: a mask or "
        "an offset leaves them out."
    )


def _not_finite(d: Difference) -> str | None:
    if d.got.dtype.kind != "f":
        return None
    spoiled = np.isnan(d.got) & ~np.isnan(d.expected)
    if spoiled.any():
        if any(a.dtype.kind == "f" and np.isnan(a).any() for a in d.inputs.values()):
            return "NaN came out where the reference has none: where does it come from?"
        return (
            "NaN where a number is expected. The memory around each input holds NaN: "
            "was some of it read? Mask the load and give it a neutral other=."
        )
    if (np.isnan(d.expected) & ~np.isnan(d.got)).any():
        return (
            "A NaN of the input was lost: comparisons, tl.maximum and tl.minimum drop "
            "NaN unless they are told to propagate it."
        )
    if (np.isinf(d.got) & np.isfinite(d.expected)).any():
        return "Infinity where a number is expected: an intermediate result overflowed."
    return None


def _same(d: Difference, other: np.ndarray) -> bool:
    """Whether the output equals another array up to rounding."""
    if other.shape != d.got.shape or other.size == 0:
        return False
    target = format_of(d.dtype)
    if target is None:
        return bool(np.array_equal(d.got, other))
    slack = 4 * target.roundoff
    return bool(np.allclose(d.got, other, rtol=slack, atol=0.0, equal_nan=True))


def _gaps(d: Difference) -> np.ndarray:
    """Output minus reference; of integers as int64, which may have wrapped."""
    if d.got.dtype.kind == "f":
        return d.got - d.expected
    return d.got.astype(np.int64) - d.expected.astype(np.int64)


def _an_input(d: Difference) -> str | None:
    for name, array in d.inputs.items():
        if _same(d, np.asarray(array, d.got.dtype)):
            return f"The output equals the input {name}: nothing was computed with it."
    return None


def _remembered(d: Difference) -> str | None:
    if d.got.size and any(_same(d, earlier) for earlier in d.earlier):
        return (
            "This is the result for the values of an earlier call: a result is kept "
            "where it should be computed anew."
        )
    return None


def _constant(d: Difference) -> str | None:
    if d.got.size > 1 and (d.got == d.got.flat[0]).all():
        return (
            f"Every element is {d.got.flat[0]:g}: is the value stored that was loaded?"
        )
    return None


def _transposed(d: Difference) -> str | None:
    if d.expected.ndim != 2 or min(d.expected.shape) < 2:
        return None
    rows, columns = d.expected.shape
    if _same(d, d.expected.T.reshape(rows, columns)):
        return "This is the transpose: rows and columns, or their strides, are swapped."
    return None


def _shifted(d: Difference) -> str | None:
    got, expected = d.got.reshape(-1), d.expected.reshape(-1)
    if got.size < 4:
        return None
    for shift in (1, -1):
        part = slice(1, -1)
        moved = np.roll(expected, shift)[part]
        if np.array_equal(got[part], moved) and np.ptp(expected) > 0:
            side = "later" if shift > 0 else "earlier"
            return (
                f"Every value stands one element {side} than it should: an offset is "
                "off by one."
            )
    return None


def _constant_factor(d: Difference) -> str | None:
    target = format_of(d.dtype)
    if not d.bad.all() or target is None or d.got.size < 2:
        return None
    if _same(d, -d.expected):
        return "Every element has the wrong sign."
    ratios = d.got / d.expected
    if np.ptp(ratios) <= 8 * target.roundoff * abs(ratios.flat[0]):
        return f"Every element is {ratios.flat[0]:.4g} times what it should be."
    return None


def _constant_offset(d: Difference) -> str | None:
    gaps = _gaps(d).reshape(-1)
    if d.bad.all() and gaps.size > 1 and (gaps == gaps[0]).all():
        return f"Every element is {gaps[0]:+g} off."
    return None


def _wrapped(d: Difference) -> str | None:
    if format_of(d.dtype) is not None:
        return None
    gaps = _gaps(d)[d.bad]
    for bits in (32, 16, 8):
        if (gaps % (1 << bits) == 0).all():
            return (
                f"Wrong elements are off by multiples of 2**{bits}: arithmetic wrapped "
                f"around in {bits} bits. Convert to a wider type first."
            )
    if (np.abs(gaps) == 1).all():
        return (
            "Wrong elements are off by one: conversion to an integer truncates; is "
            "rounding asked for, or the other way round?"
        )
    return None


def _from_a_block_on(d: Difference) -> str | None:
    bad = d.bad.reshape(-1)
    start = int(np.argmax(bad))
    if _block(start) and bad[start:].mean() > 0.9:
        return (
            f"Right up to element {start - 1}, wrong from element {start} on: the "
            "first blocks are right. How do later programs, or later turns of a loop, "
            "find their offsets?"
        )
    if start > 0 and bad[start:].all() and (bad.size - start) < bad.size // 2:
        return (
            f"Only the last {bad.size - start} elements are wrong: what happens in the "
            "block that is not full?"
        )
    return None


def _relative(d: Difference) -> float:
    """Largest relative error among the wrong elements; infinite for integers."""
    if d.got.dtype.kind != "f":
        return float("inf")
    scale = np.maximum(np.abs(d.expected), 1e-3 * np.abs(d.expected).max())
    return float(np.max((np.abs(d.got - d.expected) / scale)[d.bad]))


def _last_bits(d: Difference) -> str | None:
    target = format_of(d.dtype)
    if target is None or not _relative(d) <= 8 * target.roundoff:
        return None
    gaps = (np.abs(d.got) - np.abs(d.expected))[d.bad]
    if (gaps < 0).all() and gaps.size > 2:
        return "Only last bits differ, always towards zero: truncated, not rounded."
    return (
        "Only last bits differ: there is a rounding that the reference doesn't have, "
        "or it rounds differently."
    )


def _low_precision(d: Difference) -> str | None:
    target = format_of(d.dtype)
    relative = _relative(d)
    if target is None:
        return None
    for name in ("bfloat16", "float16"):
        coarse = FORMATS[name]
        if coarse.digits < target.digits and relative <= 8 * coarse.roundoff:
            exact = round_to(d.got, name)
            if np.array_equal(exact, d.got, equal_nan=True):
                return (
                    f"Every result is a {name} number: it is rounded to {name} first."
                )
    for names, coarse in (("float16 or TF32", "tf32"), ("bfloat16", "bfloat16")):
        if FORMATS[coarse].digits >= target.digits:
            continue
        if relative <= 4 * FORMATS[coarse].roundoff:
            return (
                f"Errors are of the size of a rounding to {names}: is something kept "
                "in a narrower type than float32 on the way?"
            )
    return None


_UNWRITTEN = (
    _nothing_written,
    _columns_written,
    _part_written,
    _every_nth_written,
    _some_written,
)
_WRONG = (
    _not_finite,
    _last_bits,
    _remembered,
    _an_input,
    _constant,
    _transposed,
    _shifted,
    _constant_factor,
    _constant_offset,
    _wrapped,
    _low_precision,
    _from_a_block_on,
)
