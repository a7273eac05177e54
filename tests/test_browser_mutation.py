"""Mistakes planted in what runs kernels in a page, each of which is noticed."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from triton._C import libtriton as library

from tilebook import testing
from tilebook.browser import libtriton, memory, tracing
from tilebook.testing import numpy_backend

NATIVE = library.interpreter


def where(array: np.ndarray, *bytes_: int) -> np.ndarray:
    """Addresses in an array, by their distance from its first byte."""
    start = array.__array_interface__["data"][0]
    return np.array([(start + x) % 2**64 for x in bytes_], dtype=np.uint64)


def refused(act: Callable, *args: object) -> None:
    """Assert that an address is refused."""
    try:
        act(*args)
    except memory.BadAddress:
        return
    raise AssertionError("nothing was raised")


def memories() -> None:
    """What a memory does to arrays, and what it refuses."""
    one, other = np.arange(4, dtype=np.int32), np.arange(8.0)
    made = memory.Memory()
    for array in (one, other):
        made.register(array)
    both = np.concatenate([where(one, 4), where(one, 12)])
    assert made.gather(both, one.dtype, "load").tolist() == [1, 3]
    made.scatter(both, np.array([7, 8], dtype=np.int32), "store")
    assert one.tolist() == [0, 7, 2, 8]
    assert made.gather(where(one, 3), np.dtype("<u2"), "load") == [0x0700]
    for place in (-1, 16, 13):
        refused(made.gather, where(one, place), one.dtype, "load")
    mixed = np.concatenate([where(one, 0), where(other, 56)])
    assert made.gather(mixed, np.dtype("u4"), "load")[0] == 0
    old = made.change(where(one, 8, 8, 8), np.full(3, 5, np.int32), np.add, "atomic")
    assert old.tolist() == [2, 7, 12]
    assert one[2] == 17
    low, high = memory.bounds_of(other[::-2])
    assert (high - low, low) == (56 + 0, where(other, 8)[0])
    made.forget()
    refused(made.gather, where(one, 0), one.dtype, "load")


def stand_ins() -> None:
    """What the stand-in does, against Triton's own library."""
    on = np.array([True, True, False, True])
    for op, value in (("UMAX", 2**31), ("UMIN", 5), ("ADD", 3), ("XCHG", 9)):
        found = []
        for part in (NATIVE, libtriton):
            array = np.array([4, 2**32 - 4], dtype=np.uint32)
            libtriton.memory.register(array)
            name, sem = getattr(NATIVE.RMW_OP, op), NATIVE.MEM_SEMANTIC.RELAXED
            values = np.full(4, value, np.uint32)
            old = part.atomic_rmw(name, where(array, 0, 4, 0, 0), values, on, sem)
            found.append((array.tolist(), old[on].tolist()))
            libtriton.memory.forget()
        assert found[0] == found[1]
    array = np.arange(4, dtype=np.float32)
    libtriton.memory.register(array)
    signed = libtriton.COMBINE["UMAX"](np.array([-1]), np.array([1]))
    assert signed.tolist() == [-1]
    got = libtriton.load(where(array, 0, 4, 8, 400), on & [1, 1, 1, 0], 7 * on, "f4")
    assert got.tolist() == [0, 1, 0, 7]
    swapped = libtriton.atomic_cas(
        where(array, 8, 8), *(np.array(x, np.float32) for x in ([2, 5], [6, 9])), None
    )
    assert (swapped.tolist(), array[2]) == ([2, 6], 6)
    libtriton.memory.forget()
    tie = [np.float32(x).reshape(1) for x in (1 + 2.0**-12, 1 + 2.0**-12, 2.0**-60)]
    assert libtriton.fma_fp32(*tie)[0] > np.float32(1 + 2.0**-11)
    kinds = [libtriton.native_specialize_impl(None, x, False, False, True)[0]
             for x in (True, 5, 2**31, 2**63, 0.5)]  # fmt: skip
    assert kinds == ["u1", "i32", "i64", "u64", "fp32"]


def traces() -> None:
    """Series of elements, and elements of tensors with strides."""
    for listed in ([], [3], [0, 1, 2, 10, 11, 12], [5, 5], [4, 2, 0, 9]):
        series = tracing.runs(np.array(listed, dtype=np.int64))
        found: list[int] = []
        for first, step, count in zip(*[iter(series)] * 3, strict=True):
            found += [first + step * i for i in range(count)]
        assert found == listed
    rows = tracing.runs(np.arange(8)[:, None] * 64 + np.arange(4))
    assert len(rows) == 3 * 8
    turned = tracing.Places(np.zeros((3, 5)).T)
    assert turned.of(np.array([0, 1, 5])).tolist() == [0, 3, 1]
    spread = tracing.Places(np.zeros((4, 8))[:, ::2])
    assert spread.of(np.array([0, 1, 2, 8])).tolist() == [0, 1, 4]


LAYOUTS = {
    "contiguous": (4, 1),
    "offset": (4, 1),
    "strided": (9, 2),
    "sliced": (9, 1),
    "transposed": (1, 5),
}


def judgements() -> None:
    """What the checker of exercises sees of NumPy's arrays, and of what is around."""
    backend = numpy_backend.NumpyBackend()
    values = np.arange(20.0).reshape(5, 4)
    for layout, strides in LAYOUTS.items():
        x = backend.place(values, "float32", layout)
        assert x.stride() == strides
        assert backend.read(x).values.tolist() == values.tolist()
        assert not backend.read(x).never.any()
        assert backend.trespass(x, "x") is None
        x[...] = 1
        assert backend.trespass(x, "x") is None
        end = x.strides[0] * 4 + x.strides[1] * 3
        for at, said in ((-4, "before its start"), (end + 4, "past its end")):
            reached = np.asarray(memory._Span(where(x, at)[0].item(), 4))
            reached[...] = 3
            assert said in backend.trespass(x, "x"), layout
            x = backend.place(values, "float32", layout)
    x = backend.place(values, "float32", "strided")
    np.asarray(memory._Span(where(x, 4)[0].item(), 4))[...] = 3
    assert "between its elements" in backend.trespass(x, "x")
    output = backend.output((6,), "float32", None)
    assert backend.read(output).never.all()
    output[2] = np.nan
    assert backend.read(output).never.tolist() == [x != 2 for x in range(6)]
    assert (backend.output((3,), "int32", 4.0) == 4).all()


MISTAKES = [
    (memory, "addresses.max()) + width", "addresses.max())", memories),
    (memory, "room = stop - start - width", "room = stop - start", memories),
    (memory, "left &= ~here", "left &= here", memories),
    (memory, "if left.any():", "if False:", memories),
    (memory, "if not (offsets % width).any():", "if True:", memories),
    (memory, "np.flatnonzero(turn == number)", "np.arange(turn.size)", memories),
    (memory, "low + min(reach, 0)", "low", memories),
    (memory, "self._extents.clear()", "pass", memories),
    (libtriton, '"UMAX": _unsigned(np.maximum)', '"UMAX": np.maximum', stand_ins),
    (libtriton, "result[on] = found", "result[on] = brought", stand_ins),
    (libtriton, "np.broadcast_to(other, pointers.shape), dtype",
     "np.broadcast_to(0, pointers.shape), dtype", stand_ins),
    (libtriton, 'if found[at] == pairs["old"][at]:', "if True:", stand_ins),
    (libtriton, "(bits & 1 == 0)", "(bits & 1 == 2)", stand_ins),
    (libtriton, "-(2**31) <= value < 2**31", "-(2**31) <= value <= 2**31", stand_ins),
    (tracing, "(steps != step) + 1", "(steps != step)", traces),
    (tracing, "return found[found >= 0]", "return found", traces),
    (tracing, "array.shape[axis]) * step", "array.shape[axis])", traces),
    (numpy_backend, "& ~self.own", "& self.own", judgements),
    (numpy_backend, "never = plain.view", "never = ~plain.view", judgements),
    (numpy_backend, "return (*rows, 2 * columns + 1), (..., slice(1, None, 2)), False",
     "return (*rows, columns), ..., False", judgements),
    (numpy_backend, "if initial is not None:", "if False:", judgements),
]  # fmt: skip


@pytest.mark.parametrize("suite", [memories, stand_ins, traces, judgements])
def test_nothing_is_found_where_nothing_was_planted(suite):
    suite()


@pytest.mark.parametrize(("module", "old", "new", "suite"), MISTAKES)
def test_a_mistake_is_found(module: ModuleType, old: str, new: str, suite):
    assert testing.caught(module, old, new, suite), f"{old!r} -> {new!r}"
