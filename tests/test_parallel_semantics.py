"""The tables of semantics: what is defined must come out so, on any machine."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tilebook import device as here
from tilebook.parallel import scoping, semantics

INTS = st.integers(-(2**31), 2**31 - 1)


@given(pairs=st.lists(st.tuples(INTS, INTS.filter(bool)), min_size=1, max_size=16))
def test_division_cuts_towards_zero(pairs):
    pairs = [(a, b) for a, b in pairs if (a, b) != (-(2**31), -1)] or [(7, -2)]
    table = semantics.division(pairs)
    for (a, b), (_, row) in zip(pairs, table.iterrows(), strict=True):
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        assert row["triton //"] == quotient
        assert row["triton %"] == a - b * quotient
        assert (row["torch //"], row["torch %"]) == divmod(a, b)
        assert row["agree"] == (quotient == a // b)


def test_division_shows_a_difference():
    assert not semantics.division()["agree"].all()


def test_promotion():
    table = semantics.promotion().set_index(["a", "b"])
    assert len(table) == 45
    assert (table["triton"] != "").all()
    differ = table[~table["agree"]]
    # Documented: bfloat16 gives way to any other type, and float16 wins over it.
    integers = ["uint8", "int8", "int16", "int32", "int64"]
    assert set(differ.index) == {
        ("uint8", "int8"),
        ("float16", "bfloat16"),
        *((name, "bfloat16") for name in integers),
    }
    assert table.loc[("uint8", "int8"), "triton"] == "uint8"
    assert table.loc[("float16", "bfloat16"), "triton"] == "float16"
    assert (
        differ.loc[[(i, "bfloat16") for i in integers], "triton"] == "float32"
    ).all()


def test_casting_agrees_wherever_it_is_defined():
    table = semantics.casting()
    assert table.loc[table["defined"], "agree"].all()
    assert not table.loc[~table["defined"], "agree"].all()
    inside = table[(table["value"] == -2.9) & (table["to"] == "int8")].iloc[0]
    assert inside["triton"] == -2
    for dtype in ("uint8", "int8", "int32"):
        limits = torch.iinfo(getattr(torch, dtype))
        rows = table[table["to"] == dtype]
        inside = [
            math.isfinite(v) and limits.min <= int(v) <= limits.max
            for v in rows["value"]
        ]
        assert list(rows["defined"]) == inside


def test_extremes():
    table = semantics.extremes()
    assert np.array_equal(table["torch.fmax"], table["tl.maximum"], equal_nan=True)
    strict = table["propagate_nan=ALL"]
    assert np.array_equal(table["torch.maximum"], strict, equal_nan=True)
    assert not np.array_equal(strict, table["tl.maximum"], equal_nan=True)


def test_constants_divide_as_python_does():
    table = semantics.constants().set_index("n")
    assert list(table["-7 // 2"]) == [-4, -4]
    assert list(table["tile -7 // 2"]) == [-3, -3]
    assert table.loc[3, "-n // 2"] == table.loc[3, "c"] == -1
    # Only compiled is an argument of 1 a constant.
    column = "c" if here.interpreting() else "python"
    assert table.loc[1, "-n // 2"] == table.loc[1, column]


def test_offsets_wrap_round_at_32_bits():
    table = semantics.offsets()
    assert list(table["int64"]) == [pid * 2**29 for pid in range(9)]
    wrapped = (table["int64"] + 2**31) % 2**32 - 2**31
    assert list(table["int32"]) == list(wrapped)
    assert list(table["agree"]) == [True] * 4 + [False] * 5


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("born in a branch", "scale is not defined"),
        ("born in a loop", "last is not defined"),
        ("int becomes float in a loop", "int32 but is re-assigned to fp32"),
        ("tile becomes scalar in a branch", "x"),
        ("born in a constant branch", "compiles"),
        ("born before the branch", "compiles"),
    ],
)
def test_scoping_as_the_compiler_sees_it(case, words):
    assert words in scoping.compiler_says(case)


def test_scoping_as_the_interpreter_sees_it():
    table = scoping.table()
    assert list(table["case"]) == list(scoping.CASES)
    assert (table["interpreter"] == "runs").all()
    assert list(table["compiler"] == "compiles") == [False] * 4 + [True] * 2
