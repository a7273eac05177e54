"""How a reduction sees its operand: three dimensions, no copies without need, tiles."""

import pytest
import torch

from tilebook.softmax import axes


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_plans_are_sound(size):
    """Whatever the shape: every term in one part, offsets of 31 bits, a grid's size."""
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[size]
    for m, n in ((1, 1), (1, 2**32), (2**31, 2), (7, 4097), (8192, 1024), (3, 2**27)):
        for dim in (0, 1, None):
            seen = axes.view(torch.empty((m, n), dtype=dtype, device="meta"), dim)
            for registers in (1, 2, 4):
                plan = axes.plan(seen, registers)
                part, meta = plan.args[3], plan.meta
                assert plan.parts * part >= seen.terms > (plan.parts - 1) * part
                assert part <= axes.LONGEST + meta["TERMS"]
                assert plan.programs < 2**31
                lanes = meta["KEPT"] * meta["TERMS"] * registers
                room = 32 * meta["num_warps"] * axes.LANE_REGISTERS
                assert lanes <= room
                assert plan.parts == 1 or part % meta["TERMS"] == 0


@pytest.mark.parametrize("shape", [(2**20, 1000), (2**27, 1), (2**14, 2**14)], ids=str)
def test_the_second_launch_of_a_split_never_splits(shape):
    plan = axes.plan(axes.view(torch.empty(shape, device="meta"), 0))
    assert plan.parts > 1
    parts = torch.empty((plan.parts, shape[1]), device="meta")
    assert axes.plan(axes.view(parts, 0)).parts == 1
    kept, width = axes.merge_tile(shape[1], plan.parts)
    assert width >= plan.parts > width // 2
    assert kept >= 1


@pytest.mark.parametrize(
    ("x", "dim", "form"),
    [
        (meta(5, 7), 1, (1, 5, 7, (0, 7, 1))),
        (meta(5, 7), 0, (1, 7, 5, (0, 1, 7))),
        (meta(5, 7).t(), 0, (1, 5, 7, (0, 7, 1))),
        (meta(5, 7)[:, ::2], 1, (1, 5, 4, (0, 7, 2))),
        (meta(2, 3, 4), 1, (2, 4, 3, (12, 1, 4))),
        (meta(2, 3, 4), 2, (1, 6, 4, (0, 4, 1))),
        (meta(2, 3, 4), None, (1, 1, 24, (0, 0, 1))),
        # Both kept dimensions, the one with neighbours inside.
        (meta(4, 3, 2).permute(2, 1, 0), 1, (4, 2, 3, (6, 1, 2))),
        (meta(5, 1).expand(5, 7), 1, (1, 5, 7, (0, 1, 0))),
        (meta(2, 3, 4, 5)[:, :, 1:], 3, (6, 3, 5, (20, 5, 1))),
        (meta(1, 9), 0, (1, 9, 1, (0, 1, 0))),
        (torch.empty((), device="meta"), None, (1, 1, 1, (0, 0, 0))),
    ],
    ids=str,
)
def test_views_that_need_no_copy(x, dim, form):
    seen = axes.view(x, dim)
    assert seen.x is x
    outer, inner, terms, strides = form
    assert (seen.outer, seen.inner, seen.terms) == (outer, inner, terms)
    relevant = [n > 1 for n in (outer, inner, terms)]
    for here, there, counts in zip(seen.strides, strides, relevant, strict=True):
        assert here == there or not counts


def test_views_that_do_need_one():
    cut = meta(3, 4, 5, 6)[:, 1:, 1:, 1:]
    for dim in (3, None):
        assert axes.view(cut, dim).x.is_contiguous()
    turned = meta(5, 7).t()
    assert axes.view(turned, None).x.is_contiguous()
    # The order of the terms is of no matter to a sum.
    assert axes.view(turned, None, any_order=True).x is turned


@pytest.mark.parametrize(
    ("x", "dim", "div", "edges"),
    [
        (meta(64, 4096), 1, 4, False),
        (meta(64, 4098), 1, 2, True),
        (meta(64, 4097), 1, 1, True),
        (meta(64, 4097)[:, :4096], 1, 1, True),
        (meta(64, 4096)[:, 1:], 1, 1, True),
        (meta(64, 4096)[:, 4:], 1, 4, False),
        (meta(64, 1000, dtype=torch.bfloat16), 1, 8, False),
        (meta(64, 1000, dtype=torch.bfloat16), 0, 8, False),
        (meta(64, 1001, dtype=torch.bfloat16), 0, 1, False),
        (meta(64, 4096)[:, ::2], 1, 4, False),
        (meta(4096, 63), 1, 1, False),
        (meta(4096, 65), 1, 1, True),
    ],
    ids=str,
)
def test_what_can_be_loaded_16_bytes_at_a_time(x, dim, div, edges):
    plan = axes.plan(axes.view(x, dim))
    assert plan.meta["DIV"] == div
    assert plan.meta["EDGES"] == edges


def test_long_rows_have_many_warps_and_short_ones_one():
    warps = [
        axes.plan(axes.view(meta(8192, n), 1)).meta["num_warps"]
        for n in (8, 1024, 2048, 4096, 8192, 131072)
    ]
    assert warps == [1, 1, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("x", "dim", "kept", "terms"),
    [
        # Narrow where each row starts at a whole vector, wide where it starts anywhere.
        (meta(8192, 8192, dtype=torch.bfloat16), 0, 32, 64),
        (meta(8192, 8192), 0, 32, 32),
        (meta(8191, 8193, dtype=torch.bfloat16), 0, 256, 8),
        # 16 bytes for each thread, and more where programs are few.
        (meta(16384, 4096, dtype=torch.bfloat16), 1, 1, 256),
        (meta(512, 131072, dtype=torch.bfloat16), 1, 1, 8192),
    ],
    ids=str,
)
def test_tiles_are_as_wide_as_it_takes(x, dim, kept, terms):
    plan = axes.plan(axes.view(x, dim))
    assert (plan.meta["KEPT"], plan.meta["TERMS"]) == (kept, terms)


def test_what_is_small_is_reduced_in_one_launch():
    for dim in (0, 1):
        assert axes.plan(axes.view(meta(1000, 1000), dim)).parts == 1
    assert axes.plan(axes.view(meta(8192, 8192), 0)).parts > 1
    assert axes.plan(axes.view(meta(8192, 8192), 0), split=False).parts == 1
