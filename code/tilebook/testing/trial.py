"""One case of one attempt: place the inputs, call, and look at everything."""

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilebook.testing.backend import Backend, Read
from tilebook.testing.compare import (
    alike,
    allowed,
    apart,
    judged,
    root_mean_square,
    widen,
)
from tilebook.testing.declare import Case, Exercise
from tilebook.testing.describe import findings
from tilebook.testing.expect import as_arrays, copies, sensitivity
from tilebook.testing.hints import Difference
from tilebook.testing.precision import round_to
from tilebook.testing.source import python_function
from tilebook.testing.values import same_value


class Wrong(Exception):
    """A case failed.

    Args:
        lines: label to text of the message.
        when: which call it was, if not the first.
    """

    def __init__(self, lines: Mapping[str, str], when: str = "") -> None:
        super().__init__(str(lines))
        self.lines = lines
        self.when = when


class Trial:
    """One case of one attempt.

    Args:
        exercise: what was asked.
        attempt: kernel or function.
        backend: the tensor library.
        case: what is tried.
        earlier: what earlier calls should have returned; this one's are added.
    """

    def __init__(
        self,
        exercise: Exercise,
        attempt: Any,
        backend: Backend,
        case: Case,
        earlier: list[np.ndarray],
    ) -> None:
        self.exercise, self.attempt = exercise, attempt
        self.backend, self.case, self.earlier = backend, case, earlier
        self.rng = np.random.default_rng(case.seed)
        self.values: dict[str, Any] = {}

    def __str__(self) -> str:
        """Shape, dtypes, layout and numbers of the last inputs."""
        arrays = [v for v in self.values.values() if isinstance(v, np.ndarray)]
        words = []
        if arrays:
            dtypes = dict.fromkeys(map(self._dtype, arrays))
            words = [f"shape {self.case.shape}", *dtypes, self.case.layout]
        if self.case.scale != 1.0 and any(a.dtype.kind == "f" for a in arrays):
            words.append(f"inputs times {self.case.factor}")
        words += [
            f"{name} = {value!r}"
            for name, value in self.values.items()
            if not isinstance(value, np.ndarray)
        ]
        return ", ".join(words)

    def run(self) -> float:
        """Try the case.

        Returns:
            Largest error relative to what is allowed.

        Raises:
            Wrong: something is not as it should be.
        """
        values = self._inputs()
        placed = {name: self._place(value) for name, value in values.items()}
        worst, outputs = self._call(values, placed, "")
        if not self.case.again or not any(map(self.backend.is_tensor, placed.values())):
            return worst
        kept = [self.backend.read(out).bits for out in outputs]
        values = self._inputs()
        for name, value in values.items():
            if self._fits(placed[name], value):
                self.backend.overwrite(placed[name], value)
            else:
                placed[name] = self._place(value)
        when = "; second call, same tensors with new values"
        again, _ = self._call(values, placed, when)
        if not self.exercise.modifies and not self.exercise.may_alias:
            now = [self.backend.read(out).bits for out in outputs]
            if now != kept:
                why = "The second call changed what the first had returned: give every "
                raise Wrong({"why": why + "call its own output."}, when)
        return max(worst, again)

    def _inputs(self) -> dict[str, Any]:
        """Fresh inputs; floating arrays are exact in the case's dtype."""
        made = self.exercise.inputs(self.rng, self.case.shape)
        values = {}
        for name, value in made.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                value = round_to(value * self.case.scale, self.case.dtype)
            values[name] = value.item() if isinstance(value, np.generic) else value
        self.values = values
        return values

    def _dtype(self, array: np.ndarray) -> str:
        return self.case.dtype if array.dtype.kind == "f" else array.dtype.name

    def _place(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return self.backend.place(value, self._dtype(value), self.case.layout)

    def _fits(self, tensor: Any, value: Any) -> bool:
        return isinstance(value, np.ndarray) and tuple(tensor.shape) == value.shape

    def _call(
        self, values: dict[str, Any], placed: dict[str, Any], when: str
    ) -> tuple[float, list[Any]]:
        exercise, backend = self.exercise, self.backend
        before = {n: backend.read(t) for n, t in placed.items() if backend.is_tensor(t)}
        expected = exercise.reference(**copies(values))
        arrays = as_arrays(expected) if before else []
        outputs = [placed[name] for name in exercise.modifies]
        if exercise.kind == "kernel" and not outputs:
            dtypes = exercise.out_dtypes(arrays, self.case.dtype)
            for array, dtype in zip(arrays, dtypes, strict=True):
                outputs.append(backend.output(array.shape, dtype, exercise.initial))
        given = dict(placed)

        def launch() -> Any:
            if exercise.kind == "kernel":
                new = () if exercise.modifies else outputs
                return exercise.launch(self.attempt, *new, **given)
            return self.attempt(*given.values())

        try:
            empty = self._empty(values, arrays)
            result, complaint = backend.call(launch, exercise.only_triton, empty)
        except Exception as raised:
            raise Wrong(_raised(raised, self.attempt), when) from raised
        self._look_at_memory(placed, before, outputs, complaint, when)
        if not arrays:
            self._check_value(result, expected, when)
            return 0.0, []
        if not outputs:
            outputs = self._returned(result, placed, len(arrays), when)
        worst = self._check_arrays(outputs, arrays, values, when)
        self._check_invariants(outputs, values, when)
        return worst, outputs

    def _empty(self, values: dict[str, Any], arrays: list[np.ndarray]) -> bool:
        """Whether there is nothing to read, or nothing to write."""
        given = [v for v in values.values() if isinstance(v, np.ndarray)]
        return not (all(v.size for v in given) and any(a.size for a in arrays))

    def _look_at_memory(
        self,
        placed: dict[str, Any],
        before: dict[str, Read],
        outputs: list[Any],
        complaint: str | None,
        when: str,
    ) -> None:
        """Nothing outside the outputs may have been written."""
        named = {name: placed[name] for name in before}
        numbered = {self._called(at, outputs): out for at, out in enumerate(outputs)}
        for name, tensor in {**named, **numbered}.items():
            complaint = complaint or self.backend.trespass(tensor, name)
        if complaint:
            raise Wrong({"why": complaint}, when)
        for name, old in before.items():
            if name in self.exercise.modifies:
                continue
            if self.backend.read(placed[name]).bits != old.bits:
                raise Wrong({"why": f"The input {name} was changed."}, when)

    def _called(self, at: int, outputs: list[Any]) -> str:
        if self.exercise.modifies:
            return self.exercise.modifies[at]
        return "out" if len(outputs) == 1 else f"output {at}"

    def _check_value(self, result: Any, expected: Any, when: str) -> None:
        if not same_value(result, expected, 1e-9):
            raise Wrong({"first": f"got {result!r}, expected {expected!r}"}, when)

    def _returned(
        self, result: Any, placed: dict[str, Any], count: int, when: str
    ) -> list[Any]:
        """The tensors a function returned, if they are what was asked for."""
        found = list(result) if isinstance(result, tuple | list) else [result]
        wanted = "a tensor" if count == 1 else f"{count} tensors"
        for item in found:
            if not self.backend.is_tensor(item):
                end = " Is the return missing?" if item is None else ""
                got = "None" if item is None else type(item).__name__
                raise Wrong({"why": f"Returned {got}, expected {wanted}.{end}"}, when)
        if len(found) != count:
            raise Wrong({"why": f"Returned {len(found)}, expected {wanted}."}, when)
        for item in found:
            for name, tensor in placed.items():
                if self.exercise.may_alias or not self.backend.is_tensor(tensor):
                    continue
                if self.backend.overlap(item, tensor):
                    why = f"The result shares memory with the input {name}: whoever "
                    why += "changes one changes the other. Return a new tensor."
                    raise Wrong({"why": why}, when)
        return found

    def _check_arrays(
        self,
        outputs: list[Any],
        arrays: list[np.ndarray],
        values: dict[str, Any],
        when: str,
    ) -> float:
        dtypes = self.exercise.out_dtypes(arrays, self.case.dtype)
        scales = sensitivity(self.exercise, values, arrays, self.case.seed)
        worst = 0.0
        for at, (out, array, dtype, scale) in enumerate(
            zip(outputs, arrays, dtypes, scales, strict=True)
        ):
            name = self._called(at, outputs)
            if tuple(out.shape) != array.shape:
                why = f"{name} has shape {tuple(out.shape)}, expected {array.shape}."
                raise Wrong({"why": why}, when)
            read = self.backend.read(out)
            if read.dtype != dtype:
                raise Wrong({"why": f"{name} is {read.dtype}, expected {dtype}."}, when)
            worst = max(worst, self._compare(read, array, scale, name, values, when))
        return worst

    def _compare(
        self,
        read: Read,
        expected: np.ndarray,
        scale: np.ndarray,
        name: str,
        values: dict[str, Any],
        when: str,
    ) -> float:
        got, expected = alike(read.values, widen(expected))
        limit = self.exercise.limit(self.case.shape)
        size = np.maximum(root_mean_square(expected), scale)
        limits = allowed(expected, read.dtype, limit, size)
        bad, never = judged(got, expected, limits, read.never, read.dtype)
        if bad.any():
            arrays = {n: v for n, v in values.items() if isinstance(v, np.ndarray)}
            failed = Difference(
                got, expected, bad, never, read.dtype, arrays, self.earlier
            )
            raise Wrong(findings(failed, limits, name=name), when)
        self.earlier.append(expected)
        compared = np.isfinite(got) & np.isfinite(expected) & (limits > 0)
        if not compared.any():
            return 0.0
        gaps = apart(got[compared], expected[compared])
        return float((gaps / limits[compared]).max())

    def _check_invariants(
        self, outputs: list[Any], values: dict[str, Any], when: str
    ) -> None:
        found = [self.backend.read(out).values for out in outputs]
        for sentence, holds in self.exercise.invariants.items():
            if not holds(*found, **copies(values)):
                raise Wrong({"why": f"This does not hold: {sentence}"}, when)


def _raised(error: BaseException, attempt: Any) -> dict[str, str]:
    """What an exception says, and the line of the attempt that it comes from."""
    fn = python_function(attempt)
    here = fn.__code__.co_filename if fn else None
    where = ""
    chain: BaseException | None = error
    while chain is not None:
        for frame in traceback.extract_tb(chain.__traceback__):
            if frame.filename == here and frame.line:
                where = f"line {frame.lineno} of {frame.name}: {frame.line}"
        wrapped = type(chain).__name__ == "InterpreterError"
        error, chain = chain, chain.__cause__ if wrapped else None
    said = [line for line in str(error).splitlines() if line.strip()]
    text = " ".join(said[:1] + said[1:][-2:])
    lines = {"raised": f"{type(error).__name__}: {text}".rstrip(": ")}
    if where:
        lines["at"] = where
    if type(error).__name__ == "OutOfBounds":
        lines["why"] = (
            "The last block reaches past the end unless its loads and stores are "
            "masked; if they are, the offset is wrong, or a mask covers one of two "
            "dimensions, or a remainder is negative, as what was divided is."
        )
    return lines
