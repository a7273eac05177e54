"""The exercise checker's core on NumPy alone, and the reasons it finds."""

import dataclasses
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tilebook import testing
from tilebook.testing.arrays import NumpyBackend
from tilebook.testing.compare import apart
from tilebook.testing.core import run
from tilebook.testing.declare import CheckFailed, Exercise
from tilebook.testing.describe import findings, layout
from tilebook.testing.hints import Difference, likely_reason
from tilebook.testing.places import extent
from tilebook.testing.precision import round_to

SUM = Exercise(
    name="practice-sum",
    statement="Add two arrays.",
    inputs=lambda rng, shape: {
        "x": rng.standard_normal(shape),
        "y": rng.standard_normal(shape),
    },
    reference=lambda x, y: x + y,
    shapes=((3,), (0,), (2, 5), (40,)),
    layouts=("contiguous", "strided", "transposed", "offset"),
    extra_shape=None,
)


class Kernel:
    """A stand-in for a jitted kernel: a Python function that is given a grid."""

    def __init__(self, fn):
        self.fn = fn

    def __getitem__(self, grid):
        return self.fn


def refusal(task, attempt):
    with pytest.raises(CheckFailed) as caught:
        run(task, attempt, NumpyBackend(), seed=1)
    return " ".join(str(caught.value).split())


def test_the_core_runs_where_there_is_neither_torch_nor_triton():
    script = """
        import sys, types
        for name in ("torch", "triton", "pandas", "rich"):
            sys.modules[name] = None
        book = types.ModuleType("tilebook")
        book.__path__ = [sys.argv[1]]
        sys.modules["tilebook"] = book
        from tilebook.testing import CheckFailed, Exercise, bound
        from tilebook.testing.arrays import NumpyBackend
        from tilebook.testing.core import run
        task = Exercise(
            name="practice-double",
            statement="",
            inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
            reference=lambda x: 2 * x,
            shapes=((4,), (9,)),
        )
        print(run(task, lambda x: 2 * x, NumpyBackend()))
        try:
            run(task, lambda x: 3 * x, NumpyBackend())
        except CheckFailed as failure:
            print(failure)
        print(bound("bfloat16"))
    """
    package = Path(testing.__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(script), str(package)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "practice-double: right in" in done.stdout
    assert "Every element is 1.5 times what it should be." in done.stdout


def test_numpy_attempts():
    report = run(SUM, lambda x, y: x + y, NumpyBackend())
    assert report.shapes == 4
    assert report.worst <= 1
    assert "shares memory" in refusal(SUM, lambda x, y: x)
    assert "x was changed" in refusal(SUM, lambda x, y: np.add(x, y, out=x).copy())
    assert "Returned None" in refusal(SUM, lambda x, y: None)
    assert "Returned int" in refusal(SUM, lambda x, y: 3)

    def forgets_one(x, y):
        out = np.empty_like(x)
        np.add(x[1:], y[1:], out=out[1:])
        return out

    assert "never written" in refusal(SUM, forgets_one)


def test_numpy_integers_are_compared_exactly():
    task = Exercise(
        name="practice-successor",
        statement="The next number.",
        inputs=lambda rng, shape: {
            "x": rng.integers(2**63, 2**64 - 2, shape, dtype=np.uint64)
        },
        reference=lambda x: x + np.uint64(1),
        shapes=((300,), (1,)),
    )
    run(task, lambda x: x + np.uint64(1), NumpyBackend())
    assert "equals the input x" in refusal(task, lambda x: x.copy())
    assert "Every element is +1 off" in refusal(task, lambda x: x + np.uint64(2))
    slack = dataclasses.replace(task, atol=1.0)
    report = run(slack, lambda x: x.copy(), NumpyBackend())
    assert report.worst == 1.0
    refusal(slack, lambda x: x + np.uint64(3))
    assert (apart(np.array([-1]), np.array([2**64 - 1], np.uint64)) == 2.0**64).all()


def test_numpy_kernels_and_their_trespasses():
    def add(x, y, out, n):
        out.flat[:n] = x.flat[:n] + y.flat[:n]

    def spill(x, y, out, n):
        out[...] = x + y
        np.lib.stride_tricks.as_strided(out, (n + 1,))[n] = 0.0

    task = Exercise(
        name="practice-kernel",
        statement="",
        inputs=SUM.inputs,
        reference=SUM.reference,
        shapes=((8,), (3,)),
        launch=lambda kernel, out, x, y: kernel[(1,)](x, y, out, x.size),
        parameters=("x", "y", "out", "n"),
    )
    run(task, Kernel(add), NumpyBackend())
    assert "1 element written outside out" in refusal(task, Kernel(spill))
    assert "parameters are (x, y, n)" in refusal(task, Kernel(lambda x, y, n: None))


def test_numpy_has_no_bfloat16():
    task = Exercise(
        name="x",
        statement="",
        inputs=SUM.inputs,
        reference=SUM.reference,
        shapes=((2,),),
        dtypes=("bfloat16",),
    )
    with pytest.raises(TypeError, match="bfloat16"):
        run(task, lambda x, y: x, NumpyBackend())


def different(got, expected, dtype="float32", never=None, **more):
    got, expected = np.asarray(got), np.asarray(expected)
    if got.dtype.kind != "i":
        got, expected = got.astype(float), expected.astype(float)
    never = np.zeros(got.shape, bool) if never is None else np.asarray(never)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    return Difference(got, expected, ~same | never, never, dtype, **more)


X = np.random.default_rng(0).standard_normal(256).astype(np.float32).astype(float)
GRID = X.reshape(16, 16)
TALL = X[:240].reshape(24, 10)


def with_nan(at, values=X):
    values = values.copy()
    values[at] = np.nan
    return values


def unwritten(where, shape=(256,)):
    never = np.zeros(shape, bool)
    never[where] = True
    return different(np.zeros(shape), np.ones(shape), never=never)


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (unwritten(slice(None)), "Nothing was written"),
        (unwritten(slice(250, None)), "last 6 elements were never written"),
        (unwritten(slice(255, None)), "last element was never written"),
        (unwritten(slice(64, None)), "Only the first 64 elements were written"),
        (unwritten(slice(0, 5)), "first 5 elements were never written"),
        (unwritten(slice(1, None, 2)), "Only every second element was written"),
        (unwritten(slice(40, 43)), "3 elements were never written"),
        (unwritten((..., slice(7, None)), (24, 10)), "last 3 of 10 columns"),
        (unwritten(slice(20, None), (24, 10)), "last 4 of 24 rows"),
        (different(with_nan(3), X), "NaN where a number"),
        (different(with_nan(3), X, inputs={"x": with_nan(4)}), "where does it come"),
        (different(X, with_nan(3)), "NaN of the input was lost"),
        (different(np.where(X > 2, np.inf, X), X), "overflowed"),
        (different(X, X + 1, inputs={"y": X}), "equals the input y"),
        (different(X, X + 1, earlier=[X]), "earlier call"),
        (different(X * 0, X), "Every element is 0"),
        (different(GRID.T, GRID), "transpose"),
        (different(TALL.T.reshape(24, 10), TALL), "transpose"),
        (different(np.roll(X, 1), X), "one element later"),
        (different(np.roll(X, -1), X), "one element earlier"),
        (different(-X, X), "wrong sign"),
        (different(X / 3, X), "0.3333 times"),
        (different(np.floor(X * 8) + 2, np.floor(X * 8)), r"\+2 off"),
        (different([300, 1], [44, 1], "int32"), r"2\*\*8"),
        (different([70000, 1], [4464, 1], "int32"), r"2\*\*16"),
        (different([3, 1], [4, 1], "int32"), "off by one"),
        (different(np.where(np.arange(256) < 64, X, 9.0), X), "up to element 63"),
        (different(np.where(np.arange(256) < 250, X, 9.0), X), "last 6 elements"),
        (different(round_to(X, "bfloat16"), X), "rounded to bfloat16 first"),
        (different(round_to(X, "float16"), X), "rounded to float16 first"),
        (different(X * (1 + 2.0**-11 * np.sign(X)), X), "float16 or TF32"),
        (different(X * (1 + 2.0**-9 * np.sign(X)), X), "narrower type than float32"),
        (different(X * (1 - 2.0**-23), X), "truncated"),
        (different(X * (1 + 2.0**-23 * np.sign(X)), X), "Only last bits differ"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reasons(difference, said):
    reason = likely_reason(difference)
    assert re.search(said, reason), reason


def test_no_reason_is_made_up():
    noise = np.random.default_rng(1).standard_normal(256)
    assert likely_reason(different(noise, X)) == ""


@pytest.mark.parametrize(
    ("where", "shape", "said"),
    [
        (slice(963, None), (1000,), "963 to 999"),
        (7, (10,), "7"),
        (slice(1, None, 4), (16,), "1 to 13, every 4th"),
        ([0, 3, 4], (9,), "0, 3, 4, ..."),
        ((slice(None), slice(6, None)), (4, 8), "columns 6 to 7"),
        ((2, slice(None)), (4, 8), "rows 2"),
        (slice(None), (4, 8), "all of them"),
        (([0, 1], [1, 0]), (4, 8), "(0, 1), (1, 0)"),
        ((0, slice(None), 1), (2, 2, 2), "dimension 0: 0, dimension 2: 1"),
    ],
)
def test_extent_in_words(where, shape, said):
    bad = np.zeros(shape, bool)
    bad[where] = True
    assert extent(bad) == said


def test_findings_and_their_layout():
    found = findings(different([1.0, 5.0], [1.0, 2.0]), np.array([0.0, 1e-7]))
    assert found["first"] == "out[1] = 5, expected 2"
    assert found["wrong"] == "1 of 2 elements: 1"
    assert found["bound"] == "off by at most 1e-07; this is off by 3"
    near = findings(different(1 + 2.0**-22, 1.0), np.array(0.0))
    assert near["first"].startswith("out = 1.00000024, expected 1")
    assert near["bound"].endswith("2 ulp of float32")
    text = layout({"a": "word " * 40, "longer": "b"})
    assert max(map(len, text.splitlines())) <= 78
    assert text.splitlines()[-1] == "  longer  b"
