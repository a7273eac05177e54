"""Wrong solutions that a weak test accepts, and what our check says of each.

The weak test is the usual one: one friendly shape, numbers from -0.5 to 0.5, contiguous
tensors, equal within a thousandth. Each mistake is one that is easily made.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import starmap
from typing import Any

import numpy as np
import torch

from tilebook import device
from tilebook.puzzles import solutions
from tilebook.puzzles.declare import Puzzle
from tilebook.puzzles.drawing import on_device
from tilebook.puzzles.hinting import puzzle
from tilebook.testing import CheckFailed, check, mutants
from tilebook.testing.expect import as_arrays, copies
from tilebook.testing.precision import round_to

TOLERANCE = 1e-3
"""Of the weak test, absolute and relative."""

Values = dict[str, Any]


def _words(rng: np.random.Generator, values: Values) -> Values:
    # What the public test of puzzle 12 draws: 17 bits and a sign.
    drawn = {
        name: rng.integers(-100_000, 100_000, values[name].shape, dtype=np.int32)
        for name in ("w", "o")
    }
    return {**values, **drawn, "x": rng.random(values["x"].shape) - 0.5}


def _in_range(rng: np.random.Generator, values: Values) -> Values:
    x = rng.integers(0, values["bins"], values["x"].shape, dtype=np.int32)
    return {**values, "x": x}


def _about_zero(rng: np.random.Generator, values: Values) -> Values:
    return {
        name: rng.random(value.shape) - 0.5
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        else value
        for name, value in values.items()
    }


FRIENDLY: dict[str, Callable[[np.random.Generator, Values], Values]] = {
    "puzzle-12": _words,
    "puzzle-16": _in_range,
}
"""What a weak test makes of a puzzle's inputs, where that isn't `_about_zero`."""

MISTAKES: dict[str, dict[str, tuple[str, str]]] = {
    "puzzle-01": {
        "adds in float16": ("x + 10.0", "(x.to(tl.float16) + 10.0).to(tl.float32)"),
    },
    "puzzle-02": {"masks nothing": ("mask = offs < n", "mask = offs >= 0")},
    "puzzle-03": {"takes rows to be M apart": ("[:, None] * N", "[:, None] * M")},
    "puzzle-04": {
        "swaps the grid's axes": (
            "tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)\n"
            "    offs_n = tl.program_id(1)",
            "tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)\n"
            "    offs_n = tl.program_id(0)",
        ),
    },
    "puzzle-05": {
        "masks rows only": ("& mask_n[None, :]", "& (offs_n >= 0)[None, :]"),
    },
    "puzzle-06": {"lets dz pass at the corner": ("x * y > 0", "x * y >= 0")},
    "puzzle-07": {
        "takes columns to be neighbours": ("offs * stride_n", "offs"),
        "adds partial sums in x's dtype": (
            "tl.sum(acc, axis=0)",
            "tl.sum(acc.to(x_ptr.dtype.element_ty), axis=0)",
        ),
    },
    "puzzle-08": {
        "counts lanes that don't exist": (
            'tl.load(at, mask=offs < n, other=float("-inf"))',
            "tl.load(at, mask=offs < n, other=0.0)",
        ),
        "turns the factor round": (
            "tl.exp(m - new)",
            "tl.where(start == 0, 1.0, tl.exp(new - m))",
        ),
    },
    "puzzle-09": {
        "subtracts no maximum": (
            "tl.maximum(m, tl.max(s, axis=1))",
            "tl.zeros((BLOCK_M,), tl.float32)",
        ),
        "counts keys that don't exist": ("mask[None, :], q", "True, q"),
    },
    "puzzle-10": {
        "takes images to be square": ("* h * w", "* h * h"),
        "takes the filter to be square": ("a * kw + c", "a * kh + c"),
    },
    "puzzle-11": {
        "keeps sums in float16": (
            "tl.dot(x, y, acc)",
            "tl.dot(x, y, acc).to(tl.float16).to(tl.float32)",
        ),
        "takes x to be contiguous": (
            "offs_k[None, :] * stride_xk",
            "offs_k[None, :]",
        ),
    },
    "puzzle-12": {
        "reads the last three fields alike": (
            "(4 * (offs_k % 8))[None, :]",
            "tl.minimum(4 * (offs_k % 8), 20)[None, :]",
        ),
    },
    "puzzle-13": {
        "takes x to be contiguous": (
            "offs_m[:, None] * stride_m + offs_n[None, :] * stride_n",
            "offs_m[:, None] * n + offs_n[None, :]",
        ),
    },
    "puzzle-14": {
        "multiplies in float16": (
            "field.to(tl.float32) * s[:, None]",
            "(field.to(tl.float16) * s[:, None].to(tl.float16)).to(tl.float32)",
        ),
    },
    "puzzle-15": {
        "takes angles to be contiguous": (
            "position * stride_ct + offs * stride_ci",
            "position * half + offs",
        ),
    },
    "puzzle-16": {
        "counts lanes that don't exist": ("other=-1", "other=0"),
        "counts beyond the bins": ("(x >= 0) & (x < bins)", "offs < n"),
    },
    "puzzle-17": {
        "lets query i see keys to i": ("offs <= row + n - m", "offs <= row"),
        "forgets rows that see nothing": (
            'tl.where(top == float("-inf"), 0.0, top)',
            "top",
        ),
    },
    "puzzle-18": {"knows the last chunk only": ("carry += ", "carry = ")},
    "puzzle-19": {
        "carries over a flag": ("tl.where(begun != 0, 0.0, carry)", "carry"),
    },
    "puzzle-20": {"forgets earlier chunks": ("kept += ", "kept = ")},
    "puzzle-21": {"doesn't let the state decay": ("a * state + b", "state + b")},
    "puzzle-22": {"removes all that are equal": ("offs == place", "x == top")},
    "puzzle-23": {"pads with 0": ('float("inf")', "0.0")},
    "puzzle-24": {
        "compares bits as they are": ("bits ^ ((bits >> 31) & 0x7FFFFFFF)", "bits"),
    },
    "puzzle-25": {"stores where it should add": ("tl.atomic_add(z", "tl.store(z")},
    "puzzle-26": {"forgets eps": ("/ n + eps)", "/ n)")},
    "puzzle-27": {"lets query i see keys to i": ("offs_m + n - m", "offs_m")},
}
"""Puzzle to mistake to the edit of our solution that makes it."""


@dataclass(frozen=True)
class Refusal:
    """A wrong solution and what two tests say of it.

    Args:
        puzzle: what it is of.
        mistake: what it does, as words after "it".
        accepted: whether the weak test accepts it.
        said: our check's message by its labels, empty if it accepts, too.
    """

    puzzle: Puzzle
    mistake: str
    accepted: bool
    said: dict[str, str]

    @property
    def reason(self) -> str:
        """The first wrong element, or what was raised, or why else it is refused."""
        lines = (self.said.get(name) for name in ("first", "raised", "why"))
        return next(filter(None, lines), "")


def wrong_kernels() -> Iterator[tuple[Puzzle, str, Any]]:
    """Yield each mistake's puzzle, its words and its kernel."""
    for name, edits in MISTAKES.items():
        one = puzzle(name)
        for mistake, kernel in mutants(getattr(solutions, one.kernel), edits):
            yield one, mistake, kernel


def weak(one: Puzzle, kernel: Any, seed: int = 0) -> bool:
    """The weak test.

    Args:
        one: the puzzle.
        kernel: an attempt at it.
        seed: of the inputs.

    Returns:
        Whether it accepts the attempt.
    """
    task, rng = one.task, np.random.default_rng(seed)
    values = dict(task.inputs(rng, one.friendly))
    values = FRIENDLY.get(one.name, _about_zero)(rng, values)
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            values[name] = round_to(value, task.dtypes[0])
    arrays = as_arrays(task.reference(**copies(values)))
    dtypes = task.out_dtypes(arrays, task.dtypes[0])
    outputs = [
        torch.full(
            array.shape,
            task.initial or 0,
            dtype=getattr(torch, dtype),
            device=device.torch_device(),
        )
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]
    task.launch(kernel, *outputs, **on_device(values, task.dtypes[0]))
    return all(
        np.allclose(out.double().cpu().numpy(), array, TOLERANCE, TOLERANCE)
        for out, array in zip(outputs, arrays, strict=True)
    )


def said(message: str) -> dict[str, str]:
    """Take a message of `check` apart.

    Args:
        message: its lines have labels, two columns in.

    Returns:
        Text by label; what goes on in the next line is joined.
    """
    joined = re.sub(r"\n {3,}", " ", message)
    return dict(re.findall(r"^  (\w+) +(.+)$", joined, re.M))


def refusals(seed: int | None = None) -> Iterator[Refusal]:
    """Try every wrong solution with both tests.

    Args:
        seed: of our check; by default a secret one each time.

    Yields:
        What they say, in the order of the puzzles.
    """
    for one, mistake, kernel in wrong_kernels():
        accepted, lines = weak(one, kernel), {}
        try:
            check(one.task, kernel, seed=seed, quiet=True)
        except CheckFailed as failure:
            lines = said(str(failure))
        yield Refusal(one, mistake, accepted, lines)


@dataclass(frozen=True)
class Table:
    """What a notebook shows of wrong solutions.

    Args:
        html: a table.
        rows: what it shows.
    """

    html: str
    rows: tuple[Refusal, ...]

    def _repr_html_(self) -> str:
        return self.html


def _cell(above: str, below: str) -> str:
    return f"<td>{escape(above)}<br><span>{escape(below)}</span></td>"


def table(seed: int = 1) -> Table:
    """Tabulate the wrong solutions.

    Args:
        seed: of our check, so that the table is the same each time.

    Returns:
        The table; a notebook shows it.

    Raises:
        AssertionError: a test doesn't say what the table claims.
    """
    rows = tuple(refusals(seed))
    lines = []
    for found in rows:
        what = f"{found.puzzle.name}, {found.mistake}"
        assert found.accepted, f"{what}: not accepted"
        assert found.said, f"{what}: not refused"
        cells = (
            (f"{found.puzzle.number}: {found.mistake}", f"{found.puzzle.friendly}"),
            (found.said["case"], found.reason),
        )
        lines.append(f"<tr>{''.join(starmap(_cell, cells))}</tr>")
    heads = ("What it does, and where it is accepted", "Where it is refused")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    html = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return Table(f'<table class="wrong-solutions">{html}</table>', rows)
