"""The microscope, byte by byte: cast pointers, one tensor under several names."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import microscope
from tilebook.interpreter import Access, allow
from tilebook.microscope import Argument, Look
from tilebook.microscope.run import record_elsewhere

pytestmark = pytest.mark.timeout(180)


@triton.jit
def cast_store_kernel(x_ptr, start, n, step, KIND: tl.constexpr, N: tl.constexpr):
    """Program p stores n numbers of another type, from the p-th step on."""
    offs = tl.arange(0, N)
    x = x_ptr.to(tl.pointer_type(KIND)) + start + tl.program_id(0) * step
    tl.store(x + offs, tl.zeros((N,), KIND), mask=offs < n)


@triton.jit
def cast_load_kernel(x_ptr, out_ptr, n, KIND: tl.constexpr, N: tl.constexpr):
    offs = tl.arange(0, N)
    x = tl.load(x_ptr.to(tl.pointer_type(KIND)) + offs, mask=offs < n, other=0)
    tl.store(out_ptr + offs, x, mask=offs < n)


@triton.jit
def low_bytes_kernel(x_ptr, out_ptr, SIZE: tl.constexpr, N: tl.constexpr):
    """Write the lowest byte of each number and read the numbers."""
    offs = tl.arange(0, N)
    tl.store(x_ptr.to(tl.pointer_type(tl.int8)) + offs * SIZE, 1)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def straddling_kernel(x_ptr, LOW: tl.constexpr):
    x = x_ptr.to(tl.pointer_type(tl.int8)) + LOW + 4 * tl.program_id(0)
    tl.store(x.to(tl.pointer_type(tl.int32)), 1)


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)
    total = tl.load(x_ptr + offs) + tl.load(y_ptr + offs)
    tl.store(out_ptr + offs, total)


@triton.jit
def pair_kernel(pair, out_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)
    total = tl.load(pair[0] + offs) + tl.load(pair[1] + offs)
    tl.store(out_ptr + offs, total)


@triton.jit
def tiles_kernel(x_desc, y_desc, out_ptr, N: tl.constexpr):
    total = x_desc.load([0]) + tl.load(out_ptr + tl.arange(0, N))
    y_desc.store([0], total)


@triton.jit
def write_then_read_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)
    tl.store(y_ptr + offs, 1.0)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def far_kernel(x_ptr, y_ptr, distance, N: tl.constexpr):
    """Reach y through x where lanes 2 and up are concerned."""
    offs = tl.arange(0, N)
    tl.store(x_ptr + offs + tl.where(offs < 2, 0, distance), 1.0)


def touches(look: Look) -> list[tuple[str, str]]:
    return [(access.op, access.argument) for access in look.accesses]


# Cast pointers.


def test_a_wide_store_owns_every_element_it_covers(device):
    x = torch.ones(8, device=device)
    look = microscope.look(cast_store_kernel, (2,), x, 0, 1, 2, KIND=tl.int64, N=1)
    assert x.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert look.ownership("x_ptr").tolist() == [0, 0, -1, -1, 1, 1, -1, -1]
    assert look.unwritten("x_ptr").tolist() == [2, 3, 6, 7]
    assert look.counts("x_ptr", "store").tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert look.races() == ()
    access = look.accesses[1]
    assert (access.width, access.itemsize) == (8, 4)
    assert access.offsets.tolist() == [16]
    assert access.elements.tolist() == [4]
    assert access.touched().tolist() == [4, 5]
    assert access.cells(1).tolist() == list(range(16, 24))


def test_elements_and_mask_mean_what_they_meant(device):
    x = torch.ones(4, dtype=torch.int32, device=device)
    look = microscope.look(cast_store_kernel, (1,), x, 0, 6, 0, KIND=tl.int8, N=8)
    (access,) = look.accesses
    assert access.elements.dtype == np.int64
    assert access.elements.tolist() == [0] * 4 + [1] * 4
    assert access.mask.tolist() == [True] * 6 + [False] * 2
    assert access.touched().tolist() == [0] * 4 + [1] * 2
    nowhere = dataclasses.replace(access, mask=np.zeros(8, dtype=bool))
    assert nowhere.touched().size == nowhere.cells(1).size == 0


def test_a_narrow_store_writes_a_part_of_an_element(device):
    x = torch.ones(3, dtype=torch.int32, device=device)
    look = microscope.look(cast_store_kernel, (1,), x, 0, 6, 0, KIND=tl.int8, N=8)
    assert look.counts("x_ptr", "store").tolist() == [4, 2, 0]
    # It owns the second one, and leaves half of it unwritten.
    assert look.ownership("x_ptr").tolist() == [0, 0, -1]
    assert look.unwritten("x_ptr").tolist() == [1, 2]
    whole = microscope.look(cast_store_kernel, (3,), x, 0, 4, 4, KIND=tl.int8, N=4)
    assert whole.ownership("x_ptr").tolist() == [0, 1, 2]
    assert whole.unwritten("x_ptr").size == 0


def test_a_store_may_straddle_elements(device):
    x = torch.zeros(4, dtype=torch.int32, device=device)
    look = microscope.look(straddling_kernel, (1,), x, LOW=6)
    assert x.tolist() == [0, 1 << 16, 0, 0]
    assert look.ownership("x_ptr").tolist() == [-1, 0, 0, -1]
    assert look.unwritten("x_ptr").tolist() == [0, 1, 2, 3]
    look = microscope.look(straddling_kernel, (3,), x, LOW=2)
    assert look.ownership("x_ptr").tolist() == [0, 1, 2, 2]
    assert look.races() == ()


def test_wide_stores_through_a_view_have_its_shape(device):
    base = torch.ones(3, 8, device=device)
    view = base[:, 2:6]
    look = microscope.look(cast_store_kernel, (3,), view, 0, 2, 4, KIND=tl.int64, N=2)
    assert look.ownership("x_ptr").tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert base.sum() == 12


def test_different_bytes_of_an_element_are_no_race(device):
    x = torch.ones(2, device=device)
    apart = microscope.look(cast_store_kernel, (4,), x, 0, 2, 2, KIND=tl.int8, N=2)
    assert apart.ownership("x_ptr").tolist() == [1, 3]
    assert apart.races() == ()
    # Each program's second byte is the next one's first.
    shared = microscope.look(cast_store_kernel, (4,), x, 0, 2, 1, KIND=tl.int8, N=2)
    (race,) = shared.races()
    assert race.kind == "store/store"
    assert race.elements.tolist() == [0]
    across = microscope.look(cast_store_kernel, (3,), x, 2, 2, 1, KIND=tl.int8, N=2)
    assert across.races()[0].elements.tolist() == [0, 1]


def test_wide_stores_race_where_they_overlap(device):
    x = torch.ones(8, device=device)
    apart = microscope.look(cast_store_kernel, (3,), x, 0, 1, 1, KIND=tl.int64, N=1)
    assert apart.races() == ()
    twice = microscope.look(cast_store_kernel, (2,), x, 0, 2, 1, KIND=tl.int64, N=2)
    (race,) = twice.races()
    assert race.elements.tolist() == [2, 3]
    assert "race on 2 elements of x_ptr: x_ptr[2] by" in str(race)


def test_a_wide_load_reads_every_element_it_covers(device):
    x = microscope.poison(torch.empty(8, dtype=torch.int32, device=device))
    out = torch.zeros(4, dtype=torch.int64, device=device)
    x[:5] = 1
    look = microscope.look(cast_load_kernel, (1,), x, out, 4, KIND=tl.int64, N=4)
    (read,) = look.uninitialised()
    # Lane 2 reads elements 4 and 5, of which only one was written.
    assert read.mask.tolist() == [False, False, True, True]
    assert look.counts("x_ptr").tolist() == [1] * 8
    x[5:] = 1
    look = microscope.look(cast_load_kernel, (1,), x, out, 4, KIND=tl.int64, N=4)
    assert look.uninitialised() == ()


def test_an_element_written_in_part_is_read_too_early(device):
    x = microscope.poison(torch.empty(4, dtype=torch.int32, device=device))
    out = torch.zeros(4, dtype=torch.int32, device=device)
    look = microscope.look(low_bytes_kernel, (1,), x, out, SIZE=4, N=4)
    (read,) = look.uninitialised()
    assert (read.op, read.argument) == ("load", "x_ptr")
    assert read.mask.all()
    small = microscope.poison(torch.empty(4, dtype=torch.int8, device=device))
    look = microscope.look(low_bytes_kernel, (1,), small, out, SIZE=1, N=4)
    assert look.uninitialised() == ()


def store_to(address: int, offset: int, program: int) -> Access:
    return Access(
        op="store",
        argument="a" if address == 1000 else "b",
        program=(program, 0, 0),
        address=address,
        itemsize=4,
        offsets=np.array([offset]),
        width=4,
        mask=np.array([True]),
        line=1,
        values=np.zeros(1),
    )


@pytest.mark.parametrize(
    ("address", "offset", "elements"),
    [(1000, 4, None), (1000, 0, [0]), (1003, 0, [0]), (1005, 0, None), (999, 4, [0])],
)
def test_arguments_may_overlap_at_any_byte(address, offset, elements):
    """NumPy makes such tensors: two views of a buffer, a few bytes apart."""
    races = look_of((store_to(1000, 0, 0), store_to(address, offset, 1))).races()
    assert [race.elements.tolist() for race in races] == [elements] * bool(elements)
    others = store_to(1000, 0, 0), store_to(1005, 0, 1), store_to(1005, 4, 2)
    assert look_of(others).races() == ()


@st.composite
def launches(draw) -> tuple[Access, ...]:
    """Accesses by four programs to 24 bytes, of which two arguments each see a part."""
    seen = {"a": (1000, 4), "b": (1000 + draw(st.integers(0, 4)), 2)}
    found = []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(sorted(seen)))
        address, itemsize = seen[name]
        width = draw(st.sampled_from([1, 2, 4, 8]))
        lanes = draw(st.integers(1, 3))
        highest = 24 - (address - 1000) - width
        starts = draw(st.lists(st.integers(0, highest), min_size=lanes, max_size=lanes))
        mask = draw(st.lists(st.booleans(), min_size=lanes, max_size=lanes))
        found.append(
            Access(
                op=draw(st.sampled_from(["load", "store", "atomic"])),
                argument=name,
                program=(draw(st.integers(0, 3)), 0, 0),
                address=address,
                itemsize=itemsize,
                offsets=np.array(starts, dtype=np.int64),
                width=width,
                mask=np.array(mask),
                line=1,
                values=np.zeros(lanes),
            )
        )
    return tuple(found)


def look_of(accesses: tuple[Access, ...], undefined: np.ndarray | None = None) -> Look:
    arguments = {
        "a": Argument((6,), (1,), 4, 1000, undefined),
        "b": Argument((9,), (1,), 2, 0, None),
    }
    return Look("kernel", (4, 1, 1), arguments, accesses, (), "", None)


def bytes_of(access: Access, lane: int) -> set[int]:
    start = access.address + int(access.offsets[lane])
    return set(range(start, start + access.width)) if access.mask[lane] else set()


def all_bytes(access: Access) -> set[int]:
    return set().union(*(bytes_of(access, i) for i in range(access.mask.size)))


@given(launches())
def test_races_agree_with_sets_of_bytes(accesses):
    expected: dict[tuple, set[int]] = {}
    for p, q in itertools.product(accesses, accesses):
        kind = f"{p.op}/{q.op}"
        both = all_bytes(p) & all_bytes(q)
        known = "store/store", "load/store", "store/atomic", "load/atomic"
        if kind in known and p.program != q.program and both:
            key = kind, p.argument, q.argument
            elements = {(byte - p.address) // p.itemsize for byte in both}
            expected.setdefault(key, set()).update(elements)
    races = look_of(accesses).races()
    for race in races:
        assert race.elements.size == len(set(race.elements.tolist()))
        assert set(race.elements.tolist()) <= expected[race.kind, *race.arguments]
        assert race.programs[0] != race.programs[1]
    # A byte under two names is told of once a kind, through either of them.
    assert {race.kind for race in races} == {kind for kind, _, _ in expected}
    alone = tuple(access for access in accesses if access.argument == "a")
    for race in look_of(alone).races():
        assert set(race.elements.tolist()) == expected[race.kind, "a", "a"]


@given(launches(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_rest_agrees_with_sets_of_bytes(accesses, undefined):
    look = look_of(accesses, np.array(undefined))
    owner, counts, written = [-1] * 6, [0] * 6, set()
    blank = {1000 + i for i in range(24) if undefined[i // 4]}
    early = []
    for access in accesses:
        lanes = [bytes_of(access, i) for i in range(access.mask.size)]
        if access.argument == "a" and access.op != "store":
            mask = [bool(lane & blank) for lane in lanes]
            early += [mask] if any(mask) else []
        if access.op != "load":
            blank -= all_bytes(access)
        if access.argument != "a":
            continue
        for lane in lanes:
            for element in {(byte - 1000) // 4 for byte in lane}:
                counts[element] += access.op == "store"
                if access.op != "load":
                    owner[element] = access.program[0]
        if access.op != "load":
            written |= all_bytes(access)
    assert look.ownership("a").tolist() == owner
    assert look.counts("a", "store").tolist() == counts
    missing = set(range(1000, 1024)) - written
    assert look.unwritten("a").tolist() == sorted({(b - 1000) // 4 for b in missing})
    # Writes through b count if the launch said where a lies.
    if any(access.argument == "a" for access in accesses):
        assert [a.mask.tolist() for a in look.uninitialised()] == early


@given(
    start=st.integers(-9, 9),
    width=st.integers(1, 9),
    size=st.integers(1, 9),
    shift=st.integers(-5, 5),
)
def test_cells_are_those_that_hold_a_byte(start, width, size, shift):
    offsets, mask = np.array([start, 0, start + 1]), np.array([True, False, True])
    access = Access(
        "load", "a", (0, 0, 0), 100, 4, offsets, width, mask, 1, np.zeros(3)
    )
    expected = [
        cell
        for low in (start, start + 1)
        for cell in sorted({math.floor((low + i - shift) / size) for i in range(width)})
    ]
    assert access.cells(size, 100 + shift).tolist() == expected


# One tensor under several names.


def test_an_access_goes_by_the_parameter_it_came_through(device):
    x, y = torch.ones(4, device=device), torch.full((4,), 2.0, device=device)
    through = [("load", "x_ptr"), ("load", "y_ptr"), ("store", "out_ptr")]
    look = microscope.look(add_kernel, (1,), x, y, x, N=4)
    assert touches(look) == through
    assert x.tolist() == [3] * 4
    assert look.counts("x_ptr").tolist() == [1] * 4
    assert look.counts("out_ptr").tolist() == [0] * 4
    assert look.ownership("x_ptr").tolist() == [-1] * 4
    assert look.ownership("out_ptr").tolist() == [0] * 4
    by_name = microscope.look(add_kernel, (1,), out_ptr=x, x_ptr=x, y_ptr=x, N=4)
    assert touches(by_name) == through
    assert x.tolist() == [6] * 4


def test_views_of_one_storage_go_by_their_parameters(device):
    base = torch.arange(8.0, device=device)
    look = microscope.look(add_kernel, (1,), base[:4], base[4:], base[2:6], N=4)
    assert touches(look)[1:] == [("load", "y_ptr"), ("store", "out_ptr")]
    assert base.tolist() == [0, 1, 4, 6, 8, 10, 6, 7]
    assert [access.elements[0] for access in look.accesses] == [0, 0, 0]


@pytest.mark.parametrize("make", [lambda x: (x, x), lambda x: (x, x[:])])
def test_tuples_of_one_tensor_go_by_their_places(make, device):
    x = torch.ones(4, device=device)
    look = microscope.look(pair_kernel, (1,), make(x), x, N=4)
    assert touches(look) == [
        ("load", "pair[0]"),
        ("load", "pair[1]"),
        ("store", "out_ptr"),
    ]
    assert x.tolist() == [2] * 4


def test_descriptors_of_one_tensor_go_by_their_parameters(device):
    x = torch.ones(4, device=device)
    tile = TensorDescriptor.from_tensor(x, [4])
    other = TensorDescriptor.from_tensor(x, [4])
    for second in (tile, other):
        x.fill_(1)
        look = microscope.look(tiles_kernel, (1,), tile, second, x, N=4)
        assert touches(look) == [
            ("load", "x_desc"),
            ("load", "out_ptr"),
            ("store", "y_desc"),
        ]
        assert x.tolist() == [2] * 4


def test_the_helper_process_tells_names_of_one_tensor_apart():
    x = torch.ones(4)
    args, meta = (x, x, x), {"N": 4}
    log = record_elsewhere(add_kernel, (1, 1, 1), args, meta, frozenset())
    assert [a.argument for a in log.accesses] == ["x_ptr", "y_ptr", "out_ptr"]
    assert x.tolist() == [2] * 4


def test_what_one_name_wrote_another_may_read(device):
    x = microscope.poison(torch.empty(4, device=device))
    out = torch.zeros(4, device=device)
    look = microscope.look(write_then_read_kernel, (1,), x, x, out, N=4)
    assert look.uninitialised() == ()
    half = microscope.poison(torch.empty(4, device=device))
    apart = torch.zeros(4, device=device)
    look = microscope.look(write_then_read_kernel, (1,), half, apart, out, N=4)
    (read,) = look.uninitialised()
    assert read.mask.all()
    view = half[1:]
    look = microscope.look(write_then_read_kernel, (1,), half, view, out, N=2)
    (read,) = look.uninitialised()
    assert read.mask.tolist() == [True, False]


def test_reading_rubbish_twice_is_told_twice(device):
    x = microscope.poison(torch.empty(4, device=device))
    look = microscope.look(add_kernel, (1,), x, x, torch.zeros_like(x), N=4)
    assert [read.argument for read in look.uninitialised()] == ["x_ptr", "y_ptr"]


def test_one_tensor_under_two_names_races_with_itself(device):
    x = torch.zeros(4, device=device)
    (race,) = microscope.look(add_kernel, (2,), x, x, x[:2], N=2).races()[:1]
    assert race.kind == "store/store"
    kinds = {
        r.arguments for r in microscope.look(add_kernel, (2,), x, x, x, N=4).races()
    }
    assert ("out_ptr", "out_ptr") in kinds
    assert {a for pair in kinds for a in pair} >= {"x_ptr", "out_ptr"}


def test_a_lane_that_leaves_its_tensor_goes_by_the_allowed_one(device):
    if device.type != "cpu":
        pytest.skip("what is allowed here isn't in the helper process")
    x, hidden = torch.zeros(2), torch.zeros(2)
    distance = (hidden.data_ptr() - x.data_ptr()) // 4 - 2
    with allow(hidden, "hidden"):
        look = microscope.look(far_kernel, (1,), x, x, distance, N=4)
    assert hidden.tolist() == [1, 1]
    assert touches(look) == [("store", "x_ptr"), ("store", "hidden")]
    assert look.ownership("x_ptr").tolist() == [0, 0]
    assert look.accesses[1].touched().tolist() == [0, 1]
    assert look.unwritten("x_ptr").size == 0
