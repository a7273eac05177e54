"""Runs on a multiprocessor without time: seeds, programs, errors, events."""

import threading

import pytest
import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma_init,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import schedules
from tilebook._gluon import async_load, async_store
from tilebook.schedules import Deadlock, ScheduleError

SIDE = 16
FLAT = gl.NVMMASharedLayout(swizzle_byte_width=32, element_bitwidth=16, rank=2)


def described(x):
    return TensorDescriptor.from_tensor(x, [SIDE, SIDE], FLAT)


@gluon.jit
def room(desc, COUNT: gl.constexpr):
    shape: gl.constexpr = desc.block_type.shape
    return gl.allocate_shared_memory(
        desc.dtype, [COUNT, shape[0], shape[1]], desc.layout
    )


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    found = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(found.index(i), count=ARRIVALS)
    return found


@gluon.jit
def bring(a_desc, ring, arrived, free, tiles):
    SLOTS: gl.constexpr = ring.shape[0]
    for tile in range(tiles):
        slot = tile % SLOTS
        mbarrier.wait(free.index(slot), ((tile // SLOTS) & 1) ^ 1)
        mbarrier.expect(arrived.index(slot), a_desc.block_type.nbytes)
        async_load(a_desc, [16 * tile, 0], arrived.index(slot), ring.index(slot))


@gluon.jit
def send(out_desc, slots, arrived, free, tiles, PART: gl.constexpr):
    SLOTS: gl.constexpr = slots.shape[0]
    for tile in range(tiles):
        slot = tile % SLOTS
        mbarrier.wait(arrived.index(slot), (tile // SLOTS) & 1)
        async_store(out_desc, [16 * tile, 16 * PART], slots.index(slot))
        tma.store_wait(0)
        mbarrier.arrive(free.index(slot))


@gluon.jit
def twice_kernel(a_desc, out_desc, tiles, SLOTS: gl.constexpr = 2):
    """Copy tiles below one another twice, by way of a ring."""
    memory = room(a_desc, SLOTS)
    arrived, free = barriers(SLOTS, 1), barriers(SLOTS, 2)
    gl.warp_specialize(
        [
            (send, (out_desc, memory, arrived, free, tiles, 0)),
            (bring, (a_desc, memory, arrived, free, tiles)),
            (send, (out_desc, memory, arrived, free, tiles, 1)),
        ],
        [1, 1],
    )


def twice(seed=0, tiles=5):
    a = (torch.arange(SIDE * SIDE * tiles).view(-1, SIDE) % 7).bfloat16()
    out = torch.zeros(SIDE * tiles, 2 * SIDE).bfloat16()
    (events,) = schedules.run(
        twice_kernel, (1,), described(a), described(out), tiles, seed=seed,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    assert torch.equal(out, torch.cat([a, a], 1))
    return events


def run(kernel, *args, **meta):
    (events,) = schedules.run(kernel, (1,), *args, **meta)
    return events


class TestRuns:
    def test_a_seed_is_an_order(self):
        orders = [tuple(twice(seed)) for seed in range(8)]
        assert orders == [tuple(twice(seed)) for seed in range(8)]
        assert len(set(orders)) == 8

    def test_each_program_has_its_own(self):
        a = torch.zeros(2 * SIDE, SIDE).bfloat16()
        out = torch.zeros(2 * SIDE, 2 * SIDE).bfloat16()
        found = schedules.run(twice_kernel, (6,), described(a), described(out), 2)
        assert len(found) == 6
        assert len({tuple(events) for events in found}) > 1

    def test_programs_know_their_number(self):
        @gluon.jit
        def kernel(out_desc):
            place = room(out_desc, 1)
            place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
            fence_async_shared()
            row = gl.program_id(0) + gl.num_programs(0) + gl.program_id(1)
            async_store(out_desc, [16 * row * gl.num_programs(1), 0], place.index(0))
            tma.store_wait(0)

        out = torch.ones(80, SIDE).bfloat16()
        schedules.run(kernel, (2,), described(out))
        assert out.amax(1).tolist() == [1] * 32 + [0] * 32 + [1] * 16
        with pytest.raises(ValueError, match=r"along one axis, got grid \(2, 1\)"):
            schedules.run(kernel, (2, 1), described(out))

    def test_an_error_in_a_partition_ends_all(self):
        @gluon.jit
        def waiter(bars):
            mbarrier.wait(bars.index(0), 0)

        @gluon.jit
        def wrong(bars):
            mbarrier.arrive(bars.index(0), count=1 // 0)

        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            gl.warp_specialize(
                [(waiter, (bars,)), (wrong, (bars,)), (waiter, (bars,))], [1, 1]
            )

        before = threading.active_count()
        with pytest.raises(ZeroDivisionError) as caught:
            run(kernel)
        assert "program 0 of 1" in caught.value.__notes__[0]
        assert threading.active_count() == before

    def test_another_groups_fence_is_not_enough(self):
        @gluon.jit
        def write(place, bars):
            place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
            mbarrier.arrive(bars.index(0))

        @gluon.jit
        def send(out_desc, place, bars):
            mbarrier.wait(bars.index(0), 0)
            fence_async_shared()
            async_store(out_desc, [0, 0], place.index(0))
            tma.store_wait(0)

        @gluon.jit
        def kernel(out_desc):
            place, bars = room(out_desc, 1), barriers(1, 1)
            gl.warp_specialize(
                [(write, (place, bars)), (send, (out_desc, place, bars))], [1]
            )

        with pytest.raises(ScheduleError, match=r"write wrote place\[0\], and an engi"):
            run(kernel, described(torch.zeros(SIDE, SIDE).bfloat16()))

    def test_functions_of_triton_are_run_too(self):
        @triton.jit
        def more(x, y):
            return tl.cdiv(tl.maximum(x, y), 2)

        inner = gluon.jit(more.fn)

        @gluon.jit
        def kernel():
            bars = barriers(gl.minimum(inner(3, 5), 9), 1)
            mbarrier.arrive(bars.index(2))

        assert [event.on for event in run(kernel)] == ["bars[2]"]


class TestGlobalMemory:
    """What threads read themselves: scales, and where they are."""

    @staticmethod
    def kernel(x, out_desc, n, FIRST: gl.constexpr):
        offs = gl.arange(0, 16, layout=None) + FIRST
        found = gl.load(x + offs // 2 * 3, mask=offs < n, other=7.0)
        one = gl.load(x + 3)
        tile = gl.zeros([16, 16], gl.float32) + gl.expand_dims(found, 1) * one
        place = room(out_desc, 1).index(0)
        place.store((2 * tile + 1.0).to(out_desc.dtype))
        fence_async_shared()
        async_store(out_desc, [0, 0], place)
        tma.store_wait(0)

    def made(self, n, first=0):
        x, out = torch.arange(64.0)[1:], torch.zeros(SIDE, SIDE).bfloat16()
        run(gluon.jit(self.kernel), x, described(out), n, FIRST=first)
        return out

    def test_what_is_off_is_not_read(self):
        out = self.made(10)
        lanes = torch.arange(16)
        expected = torch.where(lanes < 10, lanes // 2 * 3 + 1.0, 7.0) * 4.0 * 2 + 1
        assert (out.float() == expected[:, None].bfloat16().float()).all()

    def test_what_is_on_lies_inside(self):
        self.made(10, first=30)
        with pytest.raises(IndexError, match="outside of a tensor of 63 elements"):
            self.made(46, first=30)

    def test_sums_in_flight_are_no_numbers(self):
        def body():
            acc = warpgroup_mma_init(gl.zeros([8, 8], gl.float32))
            return gl.zeros([8, 8], gl.float32) * acc

        with pytest.raises(ScheduleError, match="sums are read"):
            run(gluon.jit(body))


def maps():
    gl.map_elementwise(None)


def invalidates():
    mbarrier.invalidate(None)


def copies():
    hopper.async_copy.commit_group()


def describes():
    tma.make_tensor_descriptor(None)


def adds_up():
    tl.cumsum(None)


def shares():
    return gl.zeros([8, 8], gl.float32) / 2


def less():
    return 1 - gl.zeros([8, 8], gl.float32)


def reduces():
    return gl.zeros([8, 8], gl.float32).sum(0)


def assembles():
    gl.inline_asm_elementwise("add.u32", "=r,r", [0])


class TestWhatIsNotModelled:
    @pytest.mark.parametrize(
        ("body", "name"),
        [
            (maps, r"\.map_elementwise"),
            (invalidates, r"\.invalidate"),
            (copies, r"async_copy\.commit_group"),
            (describes, r"tma\.make_tensor_descriptor"),
            (adds_up, r"\.cumsum"),
            (shares, r"Tile\.__truediv__"),
            (less, r"Tile\.__rsub__"),
            (reduces, r"Tile\.sum"),
            (assembles, r"inline assembly 'add\.u32'"),
        ],
    )
    def test_is_refused_by_name(self, body, name):
        with pytest.raises(NotImplementedError, match=f"{name} is not modelled"):
            run(gluon.jit(body))

    def test_of_memory_and_of_descriptors(self):
        @gluon.jit
        def kernel(a_desc, WHAT: gl.constexpr):
            if WHAT == "memory":
                room(a_desc, 1).gather(0)
            elif WHAT == "barriers":
                barriers(1, 1).slice(0, 1)
            else:
                a_desc.gather(0)

        for what, name in (
            ("memory", "Memory.gather"),
            ("barriers", "Barriers.slice"),
            ("descriptor", "Descriptor.gather"),
        ):
            with pytest.raises(NotImplementedError, match=f"{name} is not modelled"):
                run(kernel, described(torch.zeros(SIDE, SIDE).bfloat16()), WHAT=what)

    def test_padding_that_is_not_zero(self):
        desc = described(torch.zeros(SIDE, SIDE).bfloat16())
        desc.padding = "nan"
        with pytest.raises(NotImplementedError, match="padding 'nan'"):
            run(twice_kernel, desc, desc, 1)


class TestEvents:
    def test_who_meets_at_a_barrier(self):
        found = schedules.meetings(twice(seed=3))
        assert set(found) == {"arrived", "free"}
        assert set(found["arrived"].arrive) == {"bring", "copy engine"}
        assert set(found["arrived"].wait) == {"send 0", "send 1"}
        assert set(found["free"].arrive) == {"send 0", "send 1"}
        assert found["free"].wait == ("bring",)

    def test_memory_is_called_as_the_first_partition_calls_it(self):
        for seed in range(4):
            names = {e.on for e in twice(seed) if e.what in ("load", "taken")}
            assert names == {"slots[0]", "slots[1]"}

    def test_a_deadlock_says_who_waits_for_what(self):
        """The last tile is never brought."""

        @gluon.jit
        def kernel(a_desc, out_desc):
            memory, arrived, free = room(a_desc, 2), barriers(2, 1), barriers(2, 1)
            gl.warp_specialize(
                [
                    (send, (out_desc, memory, arrived, free, 3, 0)),
                    (bring, (a_desc, memory, arrived, free, 2)),
                ],
                [1],
            )

        x = torch.zeros(3 * SIDE, SIDE).bfloat16()
        before = threading.active_count()
        with pytest.raises(Deadlock) as caught:
            run(kernel, described(x), described(x), seed=5)
        assert str(caught.value) == (
            "nobody can go on: send waits for arrived[0], phase 1 (phase 1 goes on, 1 "
            "of 1 arrivals missing)"
        )
        assert caught.value.__notes__ == ["This was program 0 of 1, seed 5."]
        assert threading.active_count() == before

    @pytest.mark.parametrize("seed", range(4))
    def test_what_took_a_while(self, seed):
        events = twice(seed)
        found = schedules.spans(events)
        begins = ("load", "wait", "multiply", "store")
        assert [s.begin for s in found] == [
            at for at, event in enumerate(events) if event.what in begins
        ]
        ends = {"load": "loaded", "wait": "pass", "store": "taken"}
        for span in found:
            assert span.begin < span.end
            begin, end = events[span.begin], events[span.end]
            assert (begin.who, begin.what, begin.on) == span[:3]
            assert (end.what, end.on) == (ends[span.what], span.on)
            assert end.who == (span.who if span.what == "wait" else "copy engine")
        assert len({span.end for span in found}) == len(found)

    def test_what_never_ended_is_left_out(self):
        events = twice()
        first = next(at for at, e in enumerate(events) if e.what == "loaded")
        assert "load" not in {span.what for span in schedules.spans(events[:first])}
