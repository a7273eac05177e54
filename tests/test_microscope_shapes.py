"""The table of a kernel's shapes: in order, each once, here and in the helper."""

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from tilebook import device as here
from tilebook import microscope, testing
from tilebook.interpreter import OutOfBounds
from tilebook.microscope import launches, trace

pytestmark = pytest.mark.timeout(180)


@triton.jit
def halved(x):
    half = x * 0.5
    return half


@triton.jit
def rows_kernel(x_ptr, out_ptr, m, n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    offs = tl.program_id(0) * 2
    offs = offs + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, 1), tl.float64 if WIDE else tl.float32)
    for start in range(0, n, 2):
        cols = start + tl.arange(0, 2)[None, :]
        x = tl.load(
            x_ptr + offs[:, None] * n + cols,
            mask=(offs < m)[:, None] & (cols < n),
            other=0.0,
        )
        acc += tl.sum(halved(x), axis=1)[:, None]
    low, high = tl.min(acc), tl.max(acc)
    tl.store(out_ptr + offs[:, None], acc + low - high, mask=(offs < m)[:, None])


@triton.jit
def two_ways_kernel(out_ptr, n):
    pid = tl.program_id(0)
    if pid == 1:
        late = tl.arange(0, 4)
        tl.store(out_ptr + late, n + late)


def table(device, *, rows=3, **options):
    x = torch.ones(rows, 5, device=device)
    out = torch.empty(3, device=device)
    return microscope.shapes(
        rows_kernel, (1,), x, out, 3, 5, BLOCK=4, WIDE=False, **options
    )


def listed(frame, *columns):
    return list(frame[list(columns)].itertuples(index=False, name=None))


def test_every_name_once_in_order(device):
    frame = table(device)
    assert list(frame.columns) == ["name", "shape", "dtype", "line"]
    assert listed(frame, "name", "shape", "dtype") == [
        ("offs", (), "int32"),
        ("offs", (4,), "int32"),
        ("acc", (4, 1), "fp32"),
        ("cols", (1, 2), "int32"),
        ("x", (4, 2), "fp32"),
        ("low", (), "fp32"),
        ("high", (), "fp32"),
    ]
    first = rows_kernel.fn.__code__.co_firstlineno
    # `acc` where it is made, not where the loop adds to it.
    assert list(frame["line"] - first) == [2, 3, 4, 6, 7, 13, 13]


def test_what_has_no_name_goes_by_its_text(device):
    frame = table(device, expressions=True)
    names = list(frame["name"])
    assert len(set(zip(names, frame["shape"], strict=True))) == len(names)
    shapes = dict(zip(names, frame["shape"], strict=True))
    assert shapes["tl.program_id(0)"] == ()
    assert shapes["tl.arange(0, 2)[None, :]"] == (1, 2)
    assert shapes["offs[:, None] * n"] == (4, 1)
    assert shapes["x_ptr + offs[:, None] * n + cols"] == (4, 2)
    assert shapes["(offs < m)[:, None] & (cols < n)"] == (4, 2)
    assert shapes["halved(x)"] == (4, 2)
    assert shapes["tl.sum(halved(x), axis=1)"] == (4,)
    assert shapes["tl.sum(halved(x), axis=1)[:, None]"] == (4, 1)
    assert shapes["acc + low - high"] == (4, 1)
    # What is assigned has a name, and a store makes no value.
    text = " ".join(names)
    for absent in ("tl.load", "tl.zeros", "tl.min", "tl.max", "tl.store", "void"):
        assert absent not in text
    # In the order in which they are computed, and a name after what it is made of.
    wanted = ["offs < m", "(offs < m)[:, None]", "cols < n"]
    wanted += ["(offs < m)[:, None] & (cols < n)", "x", "halved(x)"]
    assert [name for name in names if name in wanted] == wanted
    # A statement of several lines is known by its first.
    load = rows_kernel.fn.__code__.co_firstlineno + 7
    assert set(frame["line"][frame["name"].str.contains("cols < n")]) == {load}
    rest = frame[frame["name"].isin(table(device)["name"])].reset_index(drop=True)
    assert listed(rest, *rest.columns) == listed(table(device), *rest.columns)


def test_types_are_those_of_this_launch(device):
    x, out = torch.ones(3, 5, device=device), torch.empty(3, device=device)
    frame = microscope.shapes(rows_kernel, (1,), x, out, 3, 5, BLOCK=4, WIDE=True)
    assert listed(frame, "name", "dtype")[2] == ("acc", "fp64")
    half = microscope.shapes(
        rows_kernel, (1,), x.half(), out, 3, 5, BLOCK=8, WIDE=False, expressions=True
    )
    shapes = {name: rest for name, *rest in listed(half, "name", "shape", "dtype")}
    assert shapes["x"] == [(8, 2), "fp16"]
    assert shapes["x_ptr + offs[:, None] * n"] == [(8, 1), "pointer<fp16>"]


def test_helpers_have_rows_of_their_own(device):
    frame = table(device, helpers=True)
    assert list(frame.columns) == ["function", "name", "shape", "dtype", "line"]
    (half,) = listed(frame[frame["function"] == "halved"], "name", "shape")
    assert half == ("half", (4, 2))
    own = frame[frame["function"] == "rows_kernel"]
    assert listed(own, "name", "line") == listed(table(device), "name", "line")


def test_a_program_that_goes_another_way_is_seen(device):
    out = torch.zeros(4, dtype=torch.int32, device=device)
    one = microscope.shapes(two_ways_kernel, (1,), out, 5)
    two = microscope.shapes(two_ways_kernel, (2,), out, 5)
    assert list(one["name"]) == ["pid"]
    assert list(two["name"]) == ["pid", "late"]
    assert out.tolist() == [5, 6, 7, 8]


def test_a_kernel_inside_a_function_and_a_mutant(device):
    @triton.jit
    def inner_kernel(out_ptr, BLOCK: tl.constexpr):
        offs = tl.arange(0, BLOCK)
        tl.store(out_ptr + offs, offs[:, None] + tl.zeros((BLOCK, 1), tl.int32))

    ((_, mutant),) = testing.mutants(
        two_ways_kernel, {"shorter": ("tl.arange(0, 4)", "tl.arange(0, 2)")}
    )
    out = torch.zeros(8, 8, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match=r"broadcast|shape|rank"):
        microscope.shapes(inner_kernel, (1,), out, BLOCK=8)
    frame = microscope.shapes(mutant, (2,), out, 1, expressions=True)
    assert dict(zip(frame["name"], frame["shape"], strict=True))["n + late"] == (2,)


def test_errors_are_raised(device):
    with pytest.raises(OutOfBounds, match="rows_kernel"):
        table(device, rows=2)
    with pytest.raises(TypeError, match="missing a required argument"):
        microscope.shapes(rows_kernel, (1,))
    with pytest.raises(TypeError, match="unexpected keyword argument 'typo'"):
        table(device, typo=3)


def test_an_empty_grid_makes_an_empty_table(device):
    x = torch.zeros(4, dtype=torch.int32, device=device)
    frame = microscope.shapes(two_ways_kernel, (0,), x, 4)
    assert frame.empty
    assert list(frame.columns) == ["name", "shape", "dtype", "line"]


def test_a_look_is_as_it_was(device):
    x, out = torch.ones(3, 5, device=device), torch.empty(3, device=device)
    look = microscope.look(rows_kernel, (1,), x, out, 3, 5, BLOCK=4, WIDE=False)
    assert {step.name for step in look.shapes} == {
        *("offs", "acc", "cols", "x", "half", "low", "high"),
    }


def test_the_helper_process_makes_the_same_table():
    x, out = torch.ones(3, 5), torch.zeros(3)
    launch = launches.prepare(
        rows_kernel, (1,), (x, out, 3, 5), {"BLOCK": 4, "WIDE": False}
    )
    here = launch.record(expressions=True).shapes
    there = launches.record_elsewhere(*launch, frozenset(), True).shapes
    assert [(s.name, s.shape, s.dtype) for s in here] == [
        (s.name, s.shape, s.dtype) for s in there
    ]


COMPILED = """
import sys
sys.path.append(sys.argv[1])
import torch, triton
import tilebook
from tilebook import microscope
from test_microscope_shapes import rows_kernel
assert type(rows_kernel).__name__ == "JITFunction"
x, out = torch.ones(3, 5), torch.zeros(3)
frame = microscope.shapes(
    rows_kernel, (1,), x, out, 3, 5, BLOCK=4, WIDE=False, expressions=True
)
print("|".join(frame["name"]))
print(*frame["line"])
"""


def test_a_process_with_compiled_kernels_makes_the_same_table(device):
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, os.path.dirname(__file__)],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )
    assert done.returncode == 0, done.stderr
    frame = table(device, expressions=True)
    names, lines = done.stdout.splitlines()[-2:]
    assert names.split("|") == list(frame["name"])
    assert lines == " ".join(map(str, frame["line"]))


MISTAKES = [
    ("frame.f_lasti // 2", "frame.f_lasti // 2 + 1"),
    ("named |= {value,", "named |= {"),
    ("named |= {value, *getattr(value, \"elts\", ())}", "named |= {value}"),
    ("value.dtype != tl.void", "True"),
    ("if event == \"return\" and", "if event == \"call\" and"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    if not here.interpreting():
        pytest.skip("compiled kernels are looked at in a process that has no mistake")
    error = (AssertionError, KeyError)
    with testing.mutated_module(trace, old, new), pytest.raises(error):
        test_what_has_no_name_goes_by_its_text(device)
