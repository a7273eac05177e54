"""Layouts by bits are Triton's own, and orders are those of real launches."""

import itertools

import numpy as np
import pytest
import torch
from triton._C.libtriton import gluon_ir, ir
from triton.experimental.gluon.language import BlockedLayout

from tilebook import microscope
from tilebook.tiling import by_hand, grouped, linear, orders
from tilebook.tiling.layouts import Blocked

POWERS = (1, 2, 4, 8)
WARPS = [pair for pair in itertools.product(POWERS, POWERS) if np.prod(pair) <= 8]
LANES = [(2**i, 2 ** (5 - i)) for i in range(6)]
ON_THE_PAGE = Blocked((1, 8), (4, 8), (4, 1), (1, 0))


@pytest.mark.parametrize("order", [(1, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (16, 64), (64, 64)], ids=str)
def test_bits_lead_where_triton_has_them_lead(shape, order):
    context = ir.context()
    ir.load_dialects(context)
    builder = gluon_ir.GluonOpBuilder(context)
    sizes = itertools.product(POWERS, POWERS)
    for size, lanes, warps in itertools.product(sizes, LANES, WARPS):
        layout = Blocked(size, lanes, warps, order)
        theirs = builder.to_linear_layout(
            BlockedLayout(*map(list, layout))._to_ir(builder), list(shape)
        )
        wanted = tuple(
            tuple(map(tuple, steps))
            for steps in (theirs.reg_bases, theirs.lane_bases, theirs.warp_bases)
        )
        assert tuple(linear.bases(layout, shape)) == wanted, layout


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (ON_THE_PAGE, (64, 64)),
        (ON_THE_PAGE.turned(), (64, 64)),
        (Blocked((2, 4), (8, 4), (2, 2), (1, 0)), (32, 32)),
    ],
)
def test_elements_are_those_of_the_thread_that_is_named(layout, shape):
    found, threads = linear.bases(layout, shape), layout.threads(shape)
    registers, lanes, warps = (range(2 ** len(steps)) for steps in found)
    seen = np.zeros(shape, dtype=np.int64)
    for register, lane, warp in itertools.product(registers, lanes, warps):
        at = found.place(register, lane, warp)
        seen[at] += 1
        # Copies count upwards from the thread that is named.
        assert threads[at] <= 32 * warp + lane
        assert seen[at] > 1 or threads[at] == 32 * warp + lane
    copies = len(registers) * len(lanes) * len(warps) // threads.size
    assert (seen == copies).all()


def test_a_layout_larger_than_the_tile_has_steps_that_lead_nowhere():
    found = linear.bases(ON_THE_PAGE, (16, 16))
    assert found.lane == ((0, 8), (0, 0), (0, 0), (1, 0), (2, 0))
    assert found.register == ((0, 1), (0, 2), (0, 4))


def test_sides_are_powers_of_two():
    with pytest.raises(ValueError, match="powers of two, got 48"):
        linear.bases(ON_THE_PAGE, (64, 48))
    with pytest.raises(ValueError, match="powers of two, got 3"):
        linear.bases(ON_THE_PAGE._replace(size_per_thread=(1, 3)), (64, 64))


@pytest.mark.parametrize(
    ("rows", "columns", "group"), [(3, 4, 2), (5, 3, 2), (4, 4, 1), (2, 3, 2)]
)
def test_the_order_is_that_of_a_launch(rows, columns, group):
    x = torch.zeros(rows, columns)
    out = torch.zeros(columns, rows)
    look = microscope.look(
        grouped.transpose_kernel,
        (rows * columns,),
        *(x, out, rows, columns, columns, 1),
        **{"BLOCK_M": 1, "BLOCK_N": 1, "GROUP": group},
        raise_error=True,
    )
    owners = look.ownership("out_ptr").T
    found = orders.order(rows, columns, group)
    assert found.dtype == np.int64
    assert owners[found[:, 0], found[:, 1]].tolist() == list(range(rows * columns))


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_wave_needs_what_the_first_programs_read(group):
    first = orders.waves(6, 6, group, 6)[0]
    assert first.tiles(6) == by_hand.reads(6, group).blocks


def test_waves_cover_a_launch():
    found = orders.waves(10, 7, 4, 16)
    assert len(found) == 5
    # The last six programs walk down a strip of two rows.
    assert found[-1] == (2, 3)
    assert orders.waves(9, 9, 1, 81) == [(9, 9)]


@pytest.mark.parametrize("name", ["tiles_m", "tiles_n", "group", "programs"])
def test_numbers_are_asked_for(name):
    sizes = {"tiles_m": 2, "tiles_n": 2, "group": 1, "programs": 2} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        orders.waves(**sizes)
