"""How an exercise is declared (NumPy only)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilebook.testing.compare import Limit
from tilebook.testing.precision import ELEMENT_FACTOR, dtype_name

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A task for the reader, with all that checking an attempt at it takes.

    What the reader hands in depends on what is declared: with ``answer`` a value; with
    ``launch`` a kernel; otherwise a Python function of the inputs, in their order.

    Args:
        name: ``"chapter-task"``; the chapter's part is how it is found.
        statement: what is asked, in a sentence or two.
        answer: computes the right answer: a number, string, bool or tuple of them.
        explain: for an answer: maps a wrong one to a remark about it, or None.
        rtol: for an answer that isn't an integer, relative deviation accepted.
        inputs: ``inputs(rng, shape)`` makes named arrays and Python scalars. Floating
            arrays are scaled, and rounded to the case's dtype.
        reference: the result, from the inputs by keyword: an array, a tuple of arrays,
            or where no input is an array a Python value. Gets float64 and int64 copies.
        shapes: shapes to try, the simplest first; ragged ones among them.
        extra_shape: draws one more shape; None for none. By default each size is
            drawn between 1 and the largest that ``shapes`` has there.
        launch: ``launch(kernel, *outputs, **inputs)`` launches the reader's kernel.
        parameters: names that the kernel's parameters must have, in order.
        initial: what outputs hold before the launch; None for poison.
        modifies: inputs that the attempt must change. They are its outputs then:
            the reference returns their new values and ``launch`` gets no others.
        dtypes: names of the floating dtypes to try.
        out_dtype: name of the output's dtype (or one for each output); by default
            the case's if the reference is floating-point, else the reference's own.
        layouts: how inputs lie in memory: ``contiguous``, ``offset``, ``strided``,
            ``sliced``, ``transposed`` (see `tilebook.testing.layouts`).
        scales: powers of two that floating inputs are multiplied by, in turn.
        length: roundings an output passes through (see `tilebook.testing.bound`), or
            a function of the shape; 1 demands a correctly rounded result.
        accumulate: format of intermediate results.
        operand: format that factors are rounded to before multiplication ("tf32").
        factor: multiple of sqrt(length) allowed for one element.
        atol: absolute error allowed besides, for integers too.
        invariants: sentence to ``predicate(*outputs, **inputs)`` over float64 arrays.
        required: dotted names that the attempt's source must use, such as ``tl.dot``.
        forbidden: dotted names that it must not use.
        only_triton: whether torch may only allocate, copy and view, not compute, and
            a Triton kernel must be launched wherever inputs and outputs have elements.
        may_alias: whether a returned tensor may share memory with an input.
        watch: what values don't show: maps an attempt whose results are all right to
            what is wrong with the way it takes, or None.
        hint: a push in the right direction.
    """

    name: str
    statement: str
    answer: Callable[[], Any] | None = None
    explain: Callable[[Any], str | None] | None = None
    rtol: float = 0.01
    inputs: Callable[[np.random.Generator, Shape], Mapping[str, Any]] | None = None
    reference: Callable[..., Any] | None = None
    shapes: Sequence[Shape] = ((),)
    extra_shape: Callable[[np.random.Generator], Shape] | str | None = "within"
    launch: Callable[..., None] | None = None
    parameters: Sequence[str] = ()
    initial: float | None = None
    modifies: Sequence[str] = ()
    dtypes: Sequence[str] = ("float32",)
    out_dtype: str | Sequence[str] | None = None
    layouts: Sequence[str] = ("contiguous",)
    scales: Sequence[float] = (1.0, 1024.0, 2.0**-10)
    length: int | Callable[[Shape], int] = 1
    accumulate: str = "float32"
    operand: str | None = None
    factor: float = ELEMENT_FACTOR
    atol: float = 0.0
    invariants: Mapping[str, Callable[..., bool]] = field(default_factory=dict)
    required: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    only_triton: bool = False
    may_alias: bool = False
    watch: Callable[[Any], str | None] | None = None
    hint: str = ""

    def __post_init__(self) -> None:
        if self.answer is None and (self.inputs is None or self.reference is None):
            raise ValueError(
                f"exercise {self.name}: give answer, or inputs and reference"
            )
        if self.launch is not None and not self.parameters:
            raise ValueError(f"exercise {self.name}: a kernel needs parameters")
        if not all(scale > 0 for scale in self.scales):
            raise ValueError(f"exercise {self.name}: scales must be positive")

    @property
    def kind(self) -> str:
        """What the reader hands in: ``answer``, ``kernel`` or ``function``."""
        if self.answer is not None:
            return "answer"
        return "kernel" if self.launch is not None else "function"

    def limit(self, shape: Shape) -> Limit:
        """What outputs may be off by at a shape."""
        length = self.length(shape) if callable(self.length) else self.length
        return Limit(length, self.accumulate, self.operand, self.factor, self.atol)

    def draw_shape(self, rng: np.random.Generator) -> Shape | None:
        """A shape that the declaration doesn't give away; None if there is none."""
        if callable(self.extra_shape):
            return tuple(int(n) for n in self.extra_shape(rng))
        ranks = [s for s in self.shapes if len(s) == len(self.shapes[-1]) and s]
        if self.extra_shape is None or not ranks:
            return None
        largest = np.max(ranks, axis=0)
        return tuple(int(n) for n in rng.integers(1, largest + 1))

    def out_dtypes(self, results: Sequence[np.ndarray], case_dtype: str) -> list[str]:
        """Dtype names of the outputs, from the declaration or the reference."""
        if isinstance(self.out_dtype, str):
            return [self.out_dtype] * len(results)
        if self.out_dtype is not None:
            return [str(name) for name in self.out_dtype]
        return [
            case_dtype if r.dtype.kind == "f" else dtype_name(r.dtype) for r in results
        ]


@dataclass(frozen=True)
class Case:
    """One trial of an attempt.

    Args:
        shape: as declared or drawn.
        dtype: name of the floating dtype.
        layout: how the inputs lie in memory.
        scale: what floating inputs are multiplied by.
        seed: of the inputs' values.
        again: whether a second call follows in which the same tensors hold new values.
    """

    shape: Shape
    dtype: str
    layout: str
    scale: float
    seed: int
    again: bool = False

    @property
    def factor(self) -> str:
        """The scale in words: a power of two, if it is one."""
        power = math.log2(self.scale)
        return f"2**{int(power)}" if power == int(power) else f"{self.scale:g}"


@dataclass(frozen=True)
class Report:
    """What a passed check found.

    Args:
        exercise: its name.
        cases: how many were tried.
        shapes: how many different shapes.
        worst: largest error relative to what was allowed; 0.0 if all was exact.
        seed: reproduces the check.
    """

    exercise: str
    cases: int = 1
    shapes: int = 0
    worst: float = 0.0
    seed: int | None = None

    def __str__(self) -> str:
        if not self.shapes:
            return f"{self.exercise}: right."
        text = f"{self.exercise}: right in {self.cases} cases, {self.shapes} shapes"
        if self.worst:
            text += f"; largest error {self.worst:.2g} of what is allowed"
        return text + "."

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        # `check` has printed it; a notebook would show a cell's last value once more.
        pass


class CheckFailed(AssertionError):
    """An attempt at an exercise is wrong; the message says where and why.

    Args:
        message: what is shown.
        case: the first case that failed, if it came to that.
    """

    def __init__(self, message: str, case: Case | None = None) -> None:
        super().__init__(message)
        self.case = case

    def _render_traceback_(self) -> list[str]:
        # IPython shows this instead of the checker's own stack.
        return str(self).splitlines()
