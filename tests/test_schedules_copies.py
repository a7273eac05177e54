"""Copies by threads, past registers: the older kind, that joins a barrier."""

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from tilebook import schedules
from tilebook._gluon import async_copy_load, seen_as
from tilebook.schedules import Deadlock, ScheduleError

SIDE = 16
SEEDS = range(40)


@gluon.jit
def copy_kernel(
    x_ptr, out_ptr, count,
    SIZE: gl.constexpr, WAITS: gl.constexpr = True, PROMISE: gl.constexpr = True,
    COUNTED: gl.constexpr = True, EARLY: gl.constexpr = False,
):  # fmt: skip
    """Copy a vector into shared memory, and use it as where to load from."""
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
    lanes: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    place = gl.allocate_shared_memory(gl.float32, [2, SIZE], flat)
    bars = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    mbarrier.init(bars.index(0), count=1)
    here = bars.index(0)
    offs = gl.arange(0, SIZE, layout=lanes)
    if EARLY:
        mbarrier.arrive(here)
    async_copy_load(place.index(1), x_ptr + offs, offs < count)
    if PROMISE:
        async_copy.mbarrier_arrive(here, increment_count=COUNTED)
    if not EARLY:
        mbarrier.arrive(here)
    mbarrier.wait(here, 0, pred=WAITS)
    place.index(0).store(place.index(1).load(lanes))
    check(place.index(0).load(lanes), out_ptr)


def check(tile, out_ptr):
    """Take what was read: a stand-in for a store, that the model doesn't have."""
    out_ptr.base.copy_(tile.value)


def run(count=SIDE, seeds=SEEDS, **meta):
    """What comes of the kernel, for each seed: a vector, or an error's type."""
    found = []
    for seed in seeds:
        x, out = torch.arange(1.0, SIDE + 1), torch.zeros(SIDE)
        try:
            schedules.run(
                copy_kernel, (1,), x, out, count, SIZE=SIDE, seed=seed, **meta
            )
        except ScheduleError as error:
            found.append(type(error))
        else:
            found.append(out)
    return found


@pytest.mark.parametrize("count", [0, 5, SIDE])
def test_what_was_asked_for_comes_and_else_zeros(count):
    wanted = torch.where(torch.arange(SIDE) < count, torch.arange(1.0, SIDE + 1), 0)
    assert all(torch.equal(x, wanted) for x in run(count))


def whole(found):
    return [torch.is_tensor(x) and bool(x.isfinite().all()) for x in found]


@pytest.mark.parametrize(
    "meta", [{"WAITS": False}, {"PROMISE": False}, {"EARLY": True}], ids=str
)
def test_nothing_is_there_before_it_has_come(meta):
    """An arrival of its own in time isn't a promise of the copies'."""
    found = whole(run(**meta))
    assert 0 < sum(found) < len(found)


def test_an_arrival_that_nobody_counted_on_ends_a_phase_too_soon():
    """Two arrivals where one is expected: one is of the next phase."""
    found = run(COUNTED=False)
    assert not all(whole(found))


def test_who_promises_and_nobody_else_arrives_waits():
    @gluon.jit
    def kernel(x_ptr):
        bars = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
        mbarrier.init(bars.index(0), count=1)
        async_copy.mbarrier_arrive(bars.index(0))
        mbarrier.wait(bars.index(0), 0)

    with pytest.raises(Deadlock, match="1 of 1 arrivals missing"):
        schedules.run(kernel, (1,), torch.zeros(4), seed=0)


def test_a_copy_that_does_not_fit():
    @gluon.jit
    def kernel(x_ptr):
        flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
        lanes: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
        place = gl.allocate_shared_memory(gl.float32, [1, 8], flat)
        bars = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
        mbarrier.init(bars.index(0), count=1)
        async_copy_load(place.index(0), x_ptr + gl.arange(0, 4, layout=lanes))
        async_copy.mbarrier_arrive(bars.index(0), increment_count=False)
        mbarrier.wait(bars.index(0), 0)

    with pytest.raises(ScheduleError, match=r"is \[8\] of fp32, not \[4\] of fp32"):
        schedules.run(kernel, (1,), torch.zeros(4), seed=0)


@gluon.jit
def viewed_kernel(x_ptr, out_ptr, count, SIZE: gl.constexpr, WIDE: gl.constexpr):
    """Write float32 where bfloat16 were."""
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
    lanes: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    place = gl.allocate_shared_memory(gl.bfloat16, [2, 2 * SIZE], flat)
    there = seen_as(place.index(1), gl.float32, [WIDE], flat)
    offs = gl.arange(0, SIZE, layout=lanes)
    there.store(gl.load(x_ptr + offs, offs < count))
    check(seen_as(place.index(1), gl.float32, [WIDE], flat).load(lanes), out_ptr)


def test_memory_is_seen_as_another_type():
    x, out = torch.arange(1.0, SIDE + 1) / 3, torch.zeros(SIDE)
    told = {"SIZE": SIDE, "WIDE": SIDE}
    schedules.run(viewed_kernel, (1,), x, out, SIDE, **told)
    assert torch.equal(out, x)
    with pytest.raises(ScheduleError, match=r"place\[1\] is \[32\] of bf16"):
        schedules.run(viewed_kernel, (1,), x, out, SIDE, SIZE=SIDE, WIDE=2 * SIDE)
