"""Layouts read back are Triton's own, and so is what they say of banks."""

import numpy as np
import pytest
import torch
import triton
from triton._C.libtriton import gluon_ir, ir
from triton.experimental.gluon.language import (
    BlockedLayout,
    NVMMASharedLayout,
    SwizzledSharedLayout,
)

from tilebook.tiling import described, explicit, layouts, tiled
from tilebook.tiling.evidence import compiled
from tilebook.tiling.layouts import Blocked, Shared

ELEMENTS = {torch.uint8: "i8", torch.int16: "i16", torch.int32: "i32"}
# A shared layout can be asked for its bases from Triton 3.7 on; before, it aborts.
shared_bases = pytest.mark.skipif(
    triton.__version__ < "3.7", reason="this Triton doesn't tell"
)


def bases(layout, shape):
    """What Triton makes of a layout: where each bit of an index leads."""
    context = ir.context()
    ir.load_dialects(context)
    builder = gluon_ir.GluonOpBuilder(context)
    return builder.to_linear_layout(layout._to_ir(builder), list(shape))


def led(vectors, number, width=2):
    """Follow the bits of a number along bases, which are added without a carry."""
    place = np.zeros(width, dtype=np.int64)
    for bit, vector in enumerate(vectors):
        if number >> bit & 1:
            place ^= np.array(vector)
    return tuple(int(at) for at in place)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Blocked((1, 8), (4, 8), (4, 1), (1, 0)), (64, 64)),
        (Blocked((8, 1), (8, 4), (1, 4), (0, 1)), (64, 64)),
        (Blocked((8, 8), (2, 16), (8, 1), (1, 0)), (128, 128)),
        (Blocked((1, 4), (8, 4), (2, 2), (1, 0)), (32, 64)),
    ],
)
def test_threads_are_those_that_triton_names(layout, shape):
    found = bases(BlockedLayout(*map(list, layout)), shape)
    threads = layout.threads(shape)
    for thread in range(int(threads.max()) + 1):
        lane, warp = thread % 32, thread // 32
        row, column = (
            a ^ b
            for a, b in zip(
                led(found.lane_bases, lane), led(found.warp_bases, warp), strict=True
            )
        )
        assert threads[row, column] == thread
        for register in range(2 ** len(found.reg_bases)):
            at = led(found.reg_bases, register)
            assert threads[row ^ at[0], column ^ at[1]] == thread


def test_a_turned_layout_holds_the_transpose():
    layout = Blocked((1, 8), (4, 8), (4, 1), (1, 0))
    turned = layout.turned()
    assert turned == Blocked((8, 1), (8, 4), (1, 4), (0, 1))
    assert np.array_equal(turned.threads((64, 64)), layout.threads((64, 64)).T)


@shared_bases
@pytest.mark.parametrize(
    ("theirs", "ours", "shape"),
    [
        (SwizzledSharedLayout(8, 8, 8, [1, 0]), Shared(8, 8, 8, 128), (128, 128)),
        (SwizzledSharedLayout(4, 1, 8, [1, 0]), Shared(4, 1, 8, 64), (64, 64)),
        (NVMMASharedLayout(128, 16, 2), layouts.engine(2), (64, 128)),
        (NVMMASharedLayout(128, 8, 2), layouts.engine(1), (128, 128)),
        (NVMMASharedLayout(128, 32, 2), layouts.engine(4), (64, 64)),
    ],
)
def test_elements_lie_where_triton_puts_them(theirs, ours, shape):
    found = bases(theirs, shape)
    offsets = ours.offset(*np.indices(shape), shape[0])
    assert sorted(offsets.ravel()) == list(range(shape[0] * shape[1]))
    for offset in range(shape[0] * shape[1]):
        assert offsets[led(found.offset_bases, offset)] == offset


def test_the_layouts_on_the_page():
    ttgir = compiled(tiled).ttgir
    (loaded,) = layouts.moved(ttgir, "tt.load", "i16")
    assert loaded == Blocked((1, 8), (4, 8), (4, 1), (1, 0))
    assert layouts.moved(ttgir, "tt.trans", "i16") == [loaded, loaded.turned()]
    change = layouts.moved(ttgir, "ttg.convert_layout", "i16")
    assert change == [loaded.turned(), loaded]
    assert set(layouts.blocked(ttgir).values()) == {loaded, loaded.turned()}
    with pytest.raises(ValueError, match=r"no tt\.dot of i16"):
        layouts.moved(ttgir, "tt.dot", "i16")


@pytest.mark.parametrize(("dtype", "element"), ELEMENTS.items(), ids=str)
def test_the_engine_has_lanes_wait(dtype, element):
    """What the prediction for descriptors rests on."""
    size = dtype.itemsize
    lies = layouts.engine(size)
    for wide, waits in ((True, 8), (False, {1: 2, 2: 4, 4: 4}[size])):
        blocks = described.WIDE_BLOCKS if wide else described.BLOCKS
        ttgir = compiled(described, dtype=dtype, wide=wide).ttgir
        _, held = layouts.moved(ttgir, "tt.trans", element)
        assert layouts.cycles(held, lies, blocks[size][::-1], size) == waits


@pytest.mark.parametrize(("dtype", "element"), ELEMENTS.items(), ids=str)
def test_nobody_waits_in_explicit(dtype, element):
    vector, (block, _) = 16 // dtype.itemsize, explicit.SIDES[dtype.itemsize]
    ttgir = compiled(explicit, dtype=dtype).ttgir
    lies = Shared(vector, vector, 8, block)
    assert f"vec = {vector}, perPhase = {vector}, maxPhase = 8" in ttgir
    written = layouts.moved(ttgir, "tt.trans", element)[-1]
    read = layouts.moved(ttgir, "tt.store", element)[-1]
    for held in (written, read):
        shape = (block, block)
        assert layouts.cycles(held, lies, shape, dtype.itemsize, vector) == 1


def test_cycles_of_known_patterns():
    rows = Blocked((1, 1), (1, 32), (1, 1), (1, 0))
    columns = rows.turned()
    plain, shifted = Shared(1, 1, 1, 32), Shared(1, 1, 32, 32)
    assert layouts.cycles(rows, plain, (32, 32), 4) == 1
    assert layouts.cycles(columns, plain, (32, 32), 4) == 32
    assert layouts.cycles(columns, shifted, (32, 32), 4) == 1
    # Two bytes side by side are one word, which two lanes write together.
    assert layouts.cycles(columns, plain, (32, 32), 2) == 16
