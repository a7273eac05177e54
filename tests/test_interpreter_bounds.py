"""Every access outside a kernel's arguments is an error; observers see every access."""

import re

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device, interpreter
from tilebook.interpreter import OutOfBounds

if not device.interpreting():
    pytest.skip("kernels are compiled here", allow_module_level=True)


@triton.jit
def copy_kernel(x, out, start, n, stride, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    where = start + lanes * stride
    value = tl.load(x + where, mask=lanes < n, other=0)
    tl.store(out + where, value, mask=lanes < n)


def copy(x, out, *, start=0, n=None, stride=1, block=8):
    n = x.numel() if n is None else n
    copy_kernel[(triton.cdiv(max(n, 1), block),)](x, out, start, n, stride, BLOCK=block)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool]
)
@pytest.mark.parametrize("n", [1, 7, 8, 9, 64])
def test_masked_lanes_are_no_error(dtype, n):
    x = torch.randn(n).to(dtype)
    out = torch.zeros_like(x)
    copy(x, out)
    assert torch.equal(out, x)


def test_message_says_who_did_what_where():
    x, out = torch.zeros(20), torch.zeros(20)
    with pytest.raises(OutOfBounds) as caught:
        copy(x, out, n=21)
    error = caught.value
    assert isinstance(error, IndexError)
    assert (error.kernel, error.op, error.argument) == ("copy_kernel", "load", "x")
    assert (error.program, error.element, error.elements) == ((2, 0, 0), 20, 20)
    source, start = triton.runtime.interpreter.inspect.getsourcelines(copy_kernel.fn)
    assert "tl.load" in source[error.line - start]
    assert str(error) == (
        f"copy_kernel, program (2, 0, 0), line {error.line}: "
        "load of x[20], which has 20 elements"
    )


def test_store_and_neighbour_are_named():
    both = torch.zeros(40)
    with pytest.raises(OutOfBounds, match=r"store of out\[20\].*20 elements"):
        copy(both, both[:20], n=21)
    with pytest.raises(OutOfBounds, match=r"load of x\[20\].*\(that memory is out\)"):
        copy(both[:20], both[20:], n=21)


def test_negative_index():
    x = torch.zeros(40)[20:]
    with pytest.raises(OutOfBounds, match=r"load of x\[-3\]"):
        copy(x, x, start=-3)


@pytest.mark.parametrize("name", ["x", "out"])
def test_empty_tensor(name):
    full, empty = torch.zeros(8), torch.zeros(0)
    copy(empty, empty, n=0)
    args = {"x": full, "out": full} | {name: empty}
    with pytest.raises(OutOfBounds, match=rf"of {name}\[0\], which has 0 elements"):
        copy(**args, n=8)


def test_extent_is_the_views_not_the_storages():
    storage = torch.arange(64.0).reshape(8, 8)
    column = storage[:, 3]
    out = torch.zeros(8, 8)[:, 3]
    copy(column, out, stride=8)
    assert torch.equal(out, column)
    with pytest.raises(OutOfBounds, match=r"load of x\[64\], which has 57 elements"):
        copy(column, out, n=9, stride=8)


def test_expanded_tensor_is_as_small_as_its_memory():
    one = torch.ones(1).expand(8)
    out = torch.zeros(8)
    with pytest.raises(OutOfBounds, match=r"load of x\[1\], which has 1 element$"):
        copy(one, out)


@given(
    n=st.integers(0, 40),
    start=st.integers(-40, 40),
    stride=st.integers(-3, 3),
    offset=st.integers(0, 5),
    length=st.integers(0, 40),
)
def test_agrees_with_index_arithmetic(n, start, stride, offset, length):
    x = torch.zeros(120)[offset : offset + length]
    touched = [start + i * stride for i in range(n)]
    bad = [i for i in touched if not 0 <= i < length]
    if not bad:
        copy(x, x, start=start, n=n, stride=stride)
        return
    with pytest.raises(OutOfBounds) as caught:
        copy(x, x, start=start, n=n, stride=stride)
    assert caught.value.element == bad[0]
    assert caught.value.elements == length


@triton.jit
def far_kernel(x, offset):
    tl.store(x + offset, 1.0)


@pytest.mark.parametrize("offset", [2**40, -(2**40), 2**61])
def test_addresses_far_away(offset):
    x = torch.zeros(4)
    with pytest.raises(OutOfBounds):
        far_kernel[(1,)](x, offset)


@triton.jit
def atomic_kernel(x, n):
    tl.atomic_add(x + tl.arange(0, 8), 1, mask=tl.arange(0, 8) < n)


@triton.jit
def cas_kernel(x, where):
    tl.atomic_cas(x + where, 0, 1)


def test_atomics():
    x = torch.zeros(4, dtype=torch.int32)
    atomic_kernel[(1,)](x, 4)
    assert x.tolist() == [1] * 4
    with pytest.raises(OutOfBounds, match=r"atomic of x\[4\]"):
        atomic_kernel[(1,)](x, 5)
    with pytest.raises(OutOfBounds, match=r"atomic of x\[4\]"):
        cas_kernel[(1,)](x, 4)


@triton.jit
def helper(where):
    return tl.load(where)


@triton.jit
def shaped_kernel(pointers, out, M: tl.constexpr, N: tl.constexpr, PICK: tl.constexpr):
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    tile = pointers[0] + rows[:, None] * N + columns[None, :]
    tile = tl.trans(tl.reshape(tl.trans(tile), (N, M)))
    other = tl.where(rows[:, None] < PICK, tile, tile + 1)
    tl.store(out + rows[:, None] * N + columns[None, :], helper(other))


def test_pointers_keep_their_origin_through_blocks_tuples_and_helpers():
    x = torch.arange(9.0)
    neighbour = torch.zeros(8)
    shaped_kernel[(1,)]((x, neighbour), torch.empty(8), M=2, N=4, PICK=1)
    with pytest.raises(OutOfBounds, match=r"load of pointers\[0\]\[8\]") as caught:
        shaped_kernel[(1,)]((x[:8], neighbour), torch.empty(8), M=2, N=4, PICK=1)
    source, start = triton.runtime.interpreter.inspect.getsourcelines(helper.fn)
    assert "tl.load" in source[caught.value.line - start]


@triton.jit
def bytes_kernel(x, out, n, N: tl.constexpr):
    lanes = tl.arange(0, N)
    narrow = x.to(tl.pointer_type(tl.uint8))
    tl.store(out + lanes, tl.load(narrow + lanes, mask=lanes < n, other=0), lanes < n)


def test_pointer_of_another_type_counts_bytes():
    x, out = torch.zeros(4), torch.zeros(32, dtype=torch.uint8)
    bytes_kernel[(1,)](x, out, 16, N=32)
    with pytest.raises(OutOfBounds, match=r"load of x\[4\], which has 4 elements"):
        bytes_kernel[(1,)](x, out, 17, N=32)


def test_reinterpreted_tensor():
    x = torch.zeros(8, dtype=torch.int16)
    out = torch.zeros(8, dtype=torch.int16)
    wrapped = [triton.reinterpret(t, tl.float16) for t in (x, out)]
    copy_kernel[(1,)](*wrapped, 0, 8, 1, BLOCK=8)
    with pytest.raises(OutOfBounds, match=r"load of x\[8\]"):
        copy_kernel[(1,)](*wrapped, 1, 8, 1, BLOCK=8)


@triton.jit
def descriptor_kernel(source, target, row):
    target.store([row, 0], source.load([row, 0]))


@triton.jit
def device_descriptor_kernel(x, m, N: tl.constexpr):
    desc = tl.make_tensor_descriptor(x, [m, N], [N, 1], [4, N])
    desc.store([0, 0], desc.load([0, 0]) + 1)


def test_descriptors_that_overstate_their_tensor():
    x, out = torch.ones(6, 16), torch.zeros(6, 16)
    honest = [TensorDescriptor.from_tensor(t, [4, 16]) for t in (x, out)]
    descriptor_kernel[(1,)](*honest, 4)
    assert torch.equal(out[4:], x[4:])
    lying = TensorDescriptor(x, [8, 16], [16, 1], [4, 16])
    with pytest.raises(OutOfBounds, match=r"load of source\[96\].*96 elements"):
        descriptor_kernel[(1,)](lying, honest[1], 4)
    device_descriptor_kernel[(1,)](x[:3], 3, N=16)
    with pytest.raises(OutOfBounds, match=r"load of x\[48\].*48 elements"):
        device_descriptor_kernel[(1,)](x[:3], 4, N=16)


@triton.jit
def indirect_kernel(table, out, N: tl.constexpr):
    where = tl.load(table + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    lanes = tl.arange(0, N)
    tl.store(out + lanes, tl.load(where + lanes))


def test_pointers_in_memory_need_leave():
    hidden, out = torch.arange(8.0), torch.zeros(8)
    table = torch.tensor([hidden.data_ptr()])
    with pytest.raises(OutOfBounds, match="inside no argument"):
        indirect_kernel[(1,)](table, out, N=8)
    with interpreter.allow(hidden):
        indirect_kernel[(1,)](table, out, N=8)
    assert torch.equal(out, hidden)
    with interpreter.allow(hidden[:7]), pytest.raises(OutOfBounds):
        indirect_kernel[(1,)](table, out, N=8)


def test_pointers_in_memory_may_lead_to_an_argument():
    out = torch.arange(8.0)
    indirect_kernel[(1,)](torch.tensor([out.data_ptr()]), out, N=8)
    assert torch.equal(out, torch.arange(8.0))


def test_a_failed_launch_leaves_nothing_behind():
    x = torch.zeros(4)
    with pytest.raises(OutOfBounds):
        copy(x, x, n=5)
    with pytest.raises(triton.runtime.errors.InterpreterError, match="boom"):
        failing_kernel[(1,)](x)
    copy(x, x)


@triton.jit
def failing_kernel(x):
    tl.device_assert(tl.load(x) > 0, "boom")


@triton.jit
def masked_assert_kernel(x, N: tl.constexpr):
    lanes = tl.arange(0, N)
    tl.device_assert(tl.load(x + lanes) > 0, "boom", mask=lanes < 2)


def test_device_assertion_heeds_its_mask():
    masked_assert_kernel[(1,)](torch.tensor([1.0, 1.0, 0.0, 0.0]), N=4)


def observe(launch):
    seen = []
    with interpreter.observing(seen.append):
        launch()
    return seen


def test_observer_sees_each_access():
    x, out = torch.arange(10).to(torch.bfloat16) + 0.5, torch.zeros(10).bfloat16()
    seen = observe(lambda: copy(x, out))
    ops = [(a.op, a.argument, a.program) for a in seen]
    first, second = (0, 0, 0), (1, 0, 0)
    assert ops == [
        ("load", "x", first),
        ("store", "out", first),
        ("load", "x", second),
        ("store", "out", second),
    ]
    load = seen[2]
    assert load.elements.dtype == np.int64
    assert load.elements.tolist() == list(range(8, 16))
    assert load.mask.tolist() == [True, True] + [False] * 6
    assert load.values[:2].tolist() == [8.5, 9.5]
    assert seen[3].line == load.line + 1
    assert observe(lambda: None) == []


def test_observer_sees_atomics_and_views():
    x = torch.zeros(16, dtype=torch.int32)[4:]
    (access,) = observe(lambda: atomic_kernel[(1,)](x, 3))
    assert (access.op, access.argument) == ("atomic", "x")
    assert access.elements[access.mask].tolist() == [0, 1, 2]


def test_observer_gets_unknown_pointers_by_argument():
    hidden, out = torch.arange(8.0), torch.zeros(8)
    table = torch.tensor([hidden.data_ptr()])
    with interpreter.allow(hidden, "hidden"):
        seen = observe(lambda: indirect_kernel[(1,)](table, out, N=8))
    assert [a.argument for a in seen] == ["table", "hidden", "out"]
    assert seen[1].elements.tolist() == list(range(8))


def test_an_unknown_pointer_to_a_tensor_of_two_names_is_seen_once():
    out = torch.arange(8.0)
    table = torch.tensor([out.data_ptr()])
    with interpreter.allow(out, "again"):
        seen = observe(lambda: indirect_kernel[(1,)](table, out, N=8))
    assert [a.argument for a in seen] == ["table", "out", "out"]


def test_an_access_is_seen_where_it_ends_up():
    x, hidden = torch.zeros(8), torch.zeros(8)
    distance = (hidden.data_ptr() - x.data_ptr()) // 4
    with interpreter.allow(hidden, "hidden"):
        (off,) = observe(lambda: copy_kernel[(1,)](x, x, 0, 0, 1, BLOCK=8))[1:]
        (far,) = observe(lambda: far_kernel[(1,)](x, distance))
    assert (off.argument, off.mask.any()) == ("out", False)
    assert (far.argument, far.elements.item()) == ("hidden", 0)


def test_observers_nest_and_end():
    outer, inner = [], []
    x = torch.zeros(4)
    with interpreter.observing(outer.append):
        with interpreter.observing(inner.append):
            copy(x, x)
        copy(x, x)
    copy(x, x)
    assert (len(outer), len(inner)) == (4, 2)


def test_checking_costs_little():
    from tilebook.interpreter import bounds

    pointers = np.arange(4096, dtype=np.uint64) * 4 + 4096
    whole = bounds.Extent("x", 4096, 4096 + 4 * 4096, 4)
    mask = np.ones(4096, dtype=bool)
    best = min(_seconds(bounds.check, pointers, mask, whole) for _ in range(20))
    # An interpreted add takes about a millisecond a program.
    assert best < 1e-3


def _seconds(check, pointers, mask, origin):
    import time

    start = time.perf_counter()
    check("load", pointers, mask, 4, origin, (0, 0, 0))
    return time.perf_counter() - start


def test_message_pattern_is_stable():
    error = OutOfBounds(
        kernel="k",
        op="store",
        argument="x",
        program=(1, 2, 3),
        element=-1,
        elements=1,
        line=9,
        inside="y",
    )
    pattern = r"k, program \(1, 2, 3\), line 9: store of x\[-1\], which has 1 element "
    assert re.fullmatch(pattern + r"\(that memory is y\)", str(error))


def test_who_collects_strays_is_told_and_the_kernel_goes_on():
    x, out, strays = torch.arange(1.0, 21.0), torch.zeros(18), []
    with interpreter.straying(strays.append):
        copy(x, out, n=21)
    assert torch.equal(out, x[:18])
    assert [(s.op, s.argument, s.elements.tolist()) for s in strays] == [
        ("load", "x", [20]),
        ("store", "out", [18, 19, 20]),
    ]
    message = "program (2, 0, 0), line 25: load of x[20], which has 20 elements"
    assert str(strays[0]) == message
    with pytest.raises(OutOfBounds, match=re.escape(message)):
        copy(x, out, n=21)


def test_strays_do_not_read():
    x, out, strays = torch.ones(4), torch.ones(8), []
    with interpreter.straying(strays.append):
        copy(x, out, n=8)
    assert out.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert len(strays) == 1
