"""The microscope: accesses, shapes, races, and the same in the helper process."""

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import _ship, microscope
from tilebook.interpreter import OutOfBounds
from tilebook.microscope.run import record_elsewhere, tensors_by_name

pytestmark = pytest.mark.timeout(180)


@triton.jit
def square(x):
    y = x * x
    return y


@triton.jit
def square_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(
        x_ptr + offs,
        mask=mask,
        other=0.0,
    )
    wide = x[None, :] + tl.zeros((2, BLOCK), tl.float16)
    total = tl.sum(wide)
    tl.device_print("total", total)
    tl.store(out_ptr + offs, square(x), mask=mask)


@triton.jit
def rows_kernel(x_ptr, stride, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    row = x_ptr + tl.program_id(1) * stride
    tl.store(row + offs, tl.program_id(0) + 1.0, mask=offs < n)


@triton.jit
def shift_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def count_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr + tl.load(x_ptr + offs), 1)


@triton.jit
def tally_kernel(out_ptr):
    tl.atomic_add(out_ptr, 1)
    seen = tl.load(out_ptr)
    tl.store(out_ptr + 1 + tl.program_id(0), seen)


@triton.jit
def tile_kernel(x_desc, out_ptr):
    x = x_desc.load([0, 0])
    tl.device_assert(tl.max(x) < 100, "too large")
    tl.store(out_ptr, tl.sum(x))


@triton.jit
def loop_kernel(x_ptr, n, STEPS: tl.constexpr):
    total = 0.0
    for i in range(n):
        total += tl.load(x_ptr + i) * STEPS
    tl.store(x_ptr, total)


@gluon.jit
def gluon_kernel(x_ptr):
    pass


def steps(look: microscope.Look) -> dict[str, tuple]:
    return {step.name: (step.shape, step.dtype) for step in look.shapes}


def test_a_look_records_every_access_and_runs_the_kernel(device):
    x, out = torch.randn(10, device=device), torch.zeros(10, device=device)
    look = microscope.look(square_kernel, (3,), x, out, 9, BLOCK=4)
    torch.testing.assert_close(out[:9], x[:9] ** 2, rtol=1e-6, atol=0)
    assert out[9] == 0
    assert (look.kernel, look.grid, look.error) == ("square_kernel", (3, 1, 1), None)
    assert [a.op for a in look.accesses] == ["load", "store"] * 3
    last = look.accesses[-2]
    assert (last.argument, last.program) == ("x_ptr", (2, 0, 0))
    assert last.elements.tolist() == [8, 9, 10, 11]
    assert last.mask.tolist() == [True, False, False, False]
    assert last.values[0] == x[8].item()
    first = square_kernel.fn.__code__.co_firstlineno
    assert last.line == first + 5
    assert look.printed.count("total") == 3
    assert look.races() == ()


def test_ownership_counts_and_what_nobody_wrote(device):
    x, out = torch.randn(10, device=device), torch.zeros(10, device=device)
    look = microscope.look(square_kernel, (3,), x, out, 9, BLOCK=4)
    assert look.ownership("out_ptr").tolist() == [0] * 4 + [1] * 4 + [2, -1]
    assert look.unwritten("out_ptr").tolist() == [9]
    assert look.counts("x_ptr").tolist() == [1] * 9 + [0]
    assert look.counts("out_ptr", "store").tolist() == [1] * 9 + [0]
    assert look.counts("out_ptr").sum() == 0
    assert (look.ownership("x_ptr") == -1).all()
    with pytest.raises(ValueError, match=r"no tensor 'out', only x_ptr, out_ptr"):
        look.ownership("out")


def test_ownership_of_a_view_has_its_shape(device):
    base = torch.zeros(4, 12, device=device)
    view = base[:3, 2:7]
    look = microscope.look(rows_kernel, (2, 3), view, view.stride(0), 5, BLOCK=8)
    # Axis 0 of the grid runs fastest: program (1, row) has the last word on a row.
    assert look.ownership("x_ptr").tolist() == [[1] * 5, [3] * 5, [5] * 5]
    assert look.program((1, 2, 0)) == 5
    assert base.count_nonzero() == 15
    columns = microscope.look(rows_kernel, (1, 4), base.T, 12, 12, BLOCK=16)
    assert columns.ownership("x_ptr").shape == (12, 4)
    assert columns.ownership("x_ptr")[7].tolist() == [0, 1, 2, 3]


def test_the_shape_trace_names_every_tile(device):
    x, out = torch.randn(8, device=device), torch.zeros(8, device=device)
    look = microscope.look(square_kernel, (2,), x, out, 8, BLOCK=4)
    assert steps(look) == {
        "pid": ((), "int32"),
        "offs": ((4,), "int32"),
        "mask": ((4,), "int1"),
        "x": ((4,), "fp32"),
        "wide": ((2, 4), "fp32"),
        "total": ((), "fp32"),
        "y": ((4,), "fp32"),
    }
    table = look.shape_table()
    assert list(table.columns) == ["function", "name", "shape", "dtype", "line", "code"]
    row = table[table["name"] == "x"].iloc[0]
    assert row["code"] == "x = tl.load(x_ptr + offs, mask=mask, other=0.0)"
    assert row["line"] == square_kernel.fn.__code__.co_firstlineno + 5
    assert table[table["name"] == "y"].iloc[0]["function"] == "square"
    plain = microscope.look(shift_kernel, (1,), x, out, BLOCK=8).shape_table()
    assert list(plain["name"]) == ["offs"]
    assert "function" not in plain.columns


def test_a_loops_counter_is_no_tile(device):
    x = torch.ones(4, device=device)
    look = microscope.look(loop_kernel, (1,), x, 4, STEPS=2, raise_error=True)
    assert x.tolist() == [8, 1, 1, 1]
    assert steps(look)["total"] == ((), "fp32")
    assert not {"x_ptr", "STEPS"} & set(steps(look))


def test_the_callers_trace_function_is_put_back(device):
    def mine(frame, event, arg):
        return None

    x, before = torch.zeros(4, device=device), sys.gettrace()
    try:
        sys.settrace(mine)
        microscope.look(shift_kernel, (1,), x, x, BLOCK=4)
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)


def test_a_step_out_of_bounds_is_the_looks_error(device):
    x, out = torch.randn(7, device=device), torch.zeros(8, device=device)
    look = microscope.look(shift_kernel, (2,), x, out, BLOCK=4)
    assert look.error.startswith("OutOfBounds: shift_kernel, program (1, 0, 0)")
    assert "load of x_ptr[7], which has 7 elements" in look.error
    assert len(look.accesses) == 2
    with pytest.raises(OutOfBounds) as caught:
        microscope.look(shift_kernel, (2,), x, out, BLOCK=4, raise_error=True)
    assert (caught.value.argument, caught.value.element) == ("x_ptr", 7)


def test_descriptors_and_failed_assertions(device):
    x = torch.arange(64.0, device=device).reshape(8, 8)
    out = torch.zeros(1, device=device)
    tile = TensorDescriptor.from_tensor(x, [4, 8])
    look = microscope.look(tile_kernel, (1,), tile, out)
    assert out.item() == sum(range(32))
    assert look.counts("x_desc").tolist() == [[1] * 8] * 4 + [[0] * 8] * 4
    x.fill_(100)
    look = microscope.look(tile_kernel, (1,), tile, out)
    assert look.error.startswith("AssertionError")
    assert "too large" in look.error
    assert out.item() == sum(range(32))


def test_two_writers_race(device):
    x = torch.zeros(3, 8, device=device)
    look = microscope.look(rows_kernel, (3, 2), x, 8, 5, BLOCK=8)
    (race,) = look.races()
    assert race.kind == "store/store"
    assert race.arguments == ("x_ptr", "x_ptr")
    assert race.elements.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert {p[1] for p in race.programs} == {0}
    assert race.programs[0] != race.programs[1]
    line = rows_kernel.fn.__code__.co_firstlineno + 4
    assert race.lines == (line, line)
    assert str(race).startswith("store/store race on 10 elements of x_ptr: x_ptr[0] by")


def test_a_reader_and_a_writer_race_through_two_names(device):
    x = torch.arange(12.0, device=device)
    look = microscope.look(shift_kernel, (2,), x[:8], x[4:], BLOCK=4)
    (race,) = look.races()
    assert (race.kind, race.arguments) == ("load/store", ("x_ptr", "out_ptr"))
    assert race.elements.tolist() == [4, 5, 6, 7]
    assert race.programs == ((1, 0, 0), (0, 0, 0))
    assert "(which out_ptr overlaps)" in str(race)
    same = microscope.look(shift_kernel, (2,), x[:8], x[:8], BLOCK=4)
    assert same.races() == ()


def test_overlaps_of_different_sizes_race(device):
    x = torch.zeros(16, device=device, dtype=torch.uint8)
    words = x.view(torch.int32)
    look = microscope.look(shift_kernel, (2,), x[8:], words, BLOCK=2)
    # Program 0 reads bytes 8, 9 and writes 0-7; program 1 reads 10, 11, writes 8-15.
    (race,) = look.races()
    assert race.kind == "load/store"
    assert race.elements.tolist() == [0, 1]
    apart = microscope.look(shift_kernel, (2,), x[8:], words[:2], BLOCK=1)
    assert apart.races() == ()


def test_atomics_take_turns_but_not_with_the_rest(device):
    x = torch.tensor([0, 1, 1, 2, 2, 2, 3, 0], device=device)
    out = torch.zeros(4, dtype=torch.int32, device=device)
    look = microscope.look(count_kernel, (2,), x, out, BLOCK=4)
    assert out.tolist() == [2, 2, 3, 1]
    assert look.races() == ()
    assert look.counts("out_ptr", "atomic").sum() == 8
    tally = torch.zeros(4, dtype=torch.int32, device=device)
    (race,) = microscope.look(tally_kernel, (3,), tally).races()
    assert (race.kind, race.elements.tolist()) == ("load/atomic", [0])


def test_reads_of_what_nobody_wrote(device):
    x = torch.zeros(8, dtype=torch.int64, device=device)
    out = microscope.poison(torch.empty(4, dtype=torch.int32, device=device))
    (read, *_) = microscope.look(count_kernel, (2,), x, out, BLOCK=4).uninitialised()
    assert (read.op, read.argument, read.program) == ("atomic", "out_ptr", (0, 0, 0))
    assert read.elements[read.mask].tolist() == [0] * 4
    out.zero_()
    assert microscope.look(count_kernel, (2,), x, out, BLOCK=4).uninitialised() == ()
    halves = microscope.poison(torch.empty(8, dtype=torch.bfloat16, device=device))
    assert halves.isnan().all()
    halves[:6] = 1
    look = microscope.look(
        shift_kernel, (2,), halves, torch.empty_like(halves), BLOCK=4
    )
    (read,) = look.uninitialised()
    assert read.elements[read.mask].tolist() == [6, 7]
    written = microscope.poison(torch.empty(8, device=device))
    look = microscope.look(
        shift_kernel, (2,), torch.ones_like(written), written, BLOCK=4
    )
    assert look.uninitialised() == ()
    assert microscope.poison(torch.empty(2, dtype=torch.bool)).all()


def test_the_grid_may_be_a_function_and_nothing_may_run(device):
    x = torch.randn(10, device=device)

    def grid(given):
        return (triton.cdiv(given["n"], given["BLOCK"]),)

    out = torch.zeros(10, device=device)
    look = microscope.look(square_kernel, grid, x, out, n=10, BLOCK=4, num_warps=2)
    assert look.grid == (3, 1, 1)
    empty = torch.empty(0, device=device)
    look = microscope.look(square_kernel, (0,), empty, empty, 0, BLOCK=4)
    assert look.accesses == look.races() == look.uninitialised() == ()
    assert look.shape_table().empty
    assert look.ownership("x_ptr").shape == (0,)
    scalar = torch.tensor(2.0, device=device)
    look = microscope.look(shift_kernel, (1,), scalar, scalar, BLOCK=1)
    assert look.ownership("out_ptr").tolist() == 0


def test_bad_calls_are_refused(device):
    x = torch.zeros(4, device=device)
    with pytest.raises(TypeError, match="missing a required argument: 'BLOCK'"):
        microscope.look(shift_kernel, (1,), x, x)
    with pytest.raises(TypeError, match=r"@triton\.jit or @gluon\.jit, got function"):
        microscope.look(steps, (1,), x)
    with pytest.raises(TypeError, match="Gluon kernel: it can't be interpreted"):
        microscope.look(gluon_kernel, (1,), x)
    with pytest.raises(ValueError, match="one to three axes"):
        microscope.look(shift_kernel, (), x, x, BLOCK=4)


def test_the_helper_process_sees_the_same():
    """What a GPU's process gets, compared with what an interpreted one does."""
    base = torch.randn(12)
    args = base[:8], base[4:]
    here = base.clone()
    grid, meta = (2, 1, 1), {"BLOCK": 4}
    there = record_elsewhere(shift_kernel, grid, args, meta, frozenset())
    # Programs run in order, so the first one's stores reach the second one's loads.
    assert torch.equal(base[4:8], here[:4])
    assert torch.equal(base[8:], here[:4])
    assert [a.op for a in there.accesses] == ["load", "store"] * 2
    gap = there.arguments["out_ptr"].address - there.arguments["x_ptr"].address
    assert gap == 16
    assert there.error is None
    failed = record_elsewhere(shift_kernel, (3, 1, 1), args, meta, frozenset())
    assert isinstance(failed.error, OutOfBounds)
    assert failed.error.argument == "x_ptr"


def test_tensors_are_found_by_name():
    x = torch.zeros(8, 8)
    tile = TensorDescriptor.from_tensor(x, [4, 8])
    found = tensors_by_name(square_kernel, ((x, (x, 3)), tile), {"n": x, "BLOCK": 4})
    assert list(found) == ["x_ptr[0]", "x_ptr[1][0]", "out_ptr", "n"]


def test_storages_travel_whole_and_keep_their_views():
    base = torch.arange(12.0)
    packed: list = []
    views = base[2:6], base.reshape(3, 4).T, torch.empty(0), base
    data = _ship.dumps(views, packed)
    assert len(packed) == 2
    unpacked: list = []
    a, b, empty, whole = _ship.loads(data, unpacked)
    assert torch.equal(a, views[0])
    assert b.stride() == (1, 4)
    assert empty.numel() == 0
    a[0] = 99
    assert whole[2] == b.flatten()[6] == 99
    assert base[2] == 2


COMPILED = """
import linecache, sys
import torch, triton, triton.language as tl
import tilebook
from tilebook import compile_only, microscope
source = '''
import triton, triton.language as tl
TWO = tl.constexpr(2)

@triton.jit
def twice(x):
    return x * TWO

@triton.jit
def twice_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    tl.store(out_ptr + offs, twice(x), mask=offs < n)
'''
linecache.cache["cell.py"] = (1, None, source.splitlines(keepends=True), "cell.py")
scope = {"__name__": "__main__"}
exec(compile(source, "cell.py", "exec"), scope)
kernel = scope["twice_kernel"]
assert type(kernel).__name__ == "JITFunction"
x = torch.randn(10).to(torch.bfloat16)
out = microscope.poison(torch.empty_like(x))
look = microscope.look(kernel, (3,), x, out, 9, BLOCK=4)
assert look.error is None, look.error
assert torch.equal(out[:9], 2 * x[:9]) and out[9].isnan()
assert look.unwritten("out_ptr").tolist() == [9]
assert [s.line for s in look.shapes] == [11, 12]
assert look.shapes[0].code.startswith("offs = tl.program_id(0)")
look = microscope.look(kernel, (4,), x, out, 99, BLOCK=4)
assert look.error.startswith("OutOfBounds: twice_kernel, program (2, 0, 0), line 12")
try:
    microscope.look(kernel, (4,), x, out, 99, BLOCK=4, raise_error=True)
except tilebook.interpreter.OutOfBounds as error:
    assert error.element == 10
evidence = compile_only.compile(kernel, x, out, 9, BLOCK=128).evidence
print(evidence.line())
"""


def test_a_process_with_compiled_kernels_looks_and_compiles_too():
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sm_90: 1 16-bit load")
