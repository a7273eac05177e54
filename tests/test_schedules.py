"""A multiprocessor without time: what it promises, and what it doesn't forgive."""

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import schedules
from tilebook._gluon import async_load, async_store
from tilebook.schedules import Deadlock, ScheduleError

SIDE = 16
SEEDS = range(40)
NBYTES = gl.constexpr(2 * SIDE * SIDE)
FLAT = gl.NVMMASharedLayout(swizzle_byte_width=32, element_bitwidth=16, rank=2)


def numbers(rows=SIDE, columns=SIDE):
    """Small whole numbers, no two neighbours equal."""
    return (torch.arange(rows * columns).view(rows, columns) % 7 + 1).bfloat16()


def described(x, side=SIDE):
    return TensorDescriptor.from_tensor(x, [side, side], FLAT)


def run(kernel, *args, seed=0, **meta):
    """The events of one program, whose arguments' tensors are described."""
    args = [described(x) if isinstance(x, torch.Tensor) else x for x in args]
    (events,) = schedules.run(kernel, (1,), *args, seed=seed, **meta)
    return events


def outcomes(kernel, make, seeds=SEEDS, **meta):
    """What comes of a kernel: for each seed the result, or the error's type."""
    found = []
    for seed in seeds:
        *args, out = make()
        try:
            run(kernel, *args, out, seed=seed, **meta)
        except ScheduleError as error:
            found.append(type(error))
        else:
            found.append(out)
    return found


def copied():
    """A matrix to copy from and one to copy to."""
    return numbers(), torch.zeros(SIDE, SIDE, dtype=torch.bfloat16)


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


def waiter(bars, PHASES: gl.constexpr):
    for phase in range(PHASES):
        mbarrier.wait(bars.index(0), phase & 1)


def arriver(bars, PHASES: gl.constexpr, COUNT: gl.constexpr):
    for _ in range(PHASES):
        mbarrier.arrive(bars.index(0), count=COUNT)


waiter, arriver = gluon.jit(waiter), gluon.jit(arriver)


@gluon.jit
def meeting_kernel(
    COUNT: gl.constexpr, WAITS: gl.constexpr, ARRIVES: gl.constexpr,
    EACH: gl.constexpr, ARRIVERS: gl.constexpr,
):  # fmt: skip
    bars = barriers(1, COUNT)
    if ARRIVERS == 2:
        gl.warp_specialize(
            [
                (waiter, (bars, WAITS)),
                (arriver, (bars, ARRIVES, EACH)),
                (arriver, (bars, ARRIVES, EACH)),
            ],
            [1, 1],
        )
    else:
        gl.warp_specialize(
            [(waiter, (bars, WAITS)), (arriver, (bars, ARRIVES, EACH))], [1]
        )


def met(count, waits, arrives, each=1, arrivers=1, seeds=SEEDS):
    for seed in seeds:
        run(
            meeting_kernel, COUNT=count, WAITS=waits, ARRIVES=arrives, EACH=each,
            ARRIVERS=arrivers, seed=seed,
        )  # fmt: skip


class TestBarriers:
    def test_a_phase_is_over_when_all_have_arrived(self):
        met(2, waits=1, arrives=1, arrivers=2)
        met(2, waits=1, arrives=1, each=2)
        met(1, waits=0, arrives=3)
        with pytest.raises(Deadlock, match="1 of 3 arrivals missing"):
            met(3, waits=1, arrives=1, arrivers=2)

    def test_the_phase_before_the_first_is_over(self):
        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            mbarrier.wait(bars.index(0), 1)
            mbarrier.wait(bars.index(0), 3)

        run(kernel)

    def test_the_first_is_not(self):
        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            mbarrier.wait(bars.index(0), 0)

        with pytest.raises(
            Deadlock, match=r"the program waits for bars\[0\], phase 0 "
        ):
            run(kernel)

    def test_who_is_slow_misses_a_phase(self):
        """Two phases later the parity is the same, one later it isn't."""
        stuck = 0
        for seed in SEEDS:
            try:
                met(1, waits=1, arrives=2, seeds=[seed])
            except Deadlock:
                stuck += 1
        assert 0 < stuck < len(SEEDS)

    def test_a_wait_two_phases_ahead_is_let_through(self):
        """Phase 2 is waited for as phase 0 is: by its parity alone."""

        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            mbarrier.arrive(bars.index(0))
            mbarrier.wait(bars.index(0), 2 & 1)

        assert [event.what for event in run(kernel)] == ["arrive", "wait", "pass"]

    def test_a_wait_one_phase_ahead_is_not(self):
        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            mbarrier.arrive(bars.index(0))
            mbarrier.wait(bars.index(0), 1)

        with pytest.raises(Deadlock, match=r"phase 1 \(phase 1 goes on, 1 of 1 arr"):
            run(kernel)

    @pytest.mark.parametrize("count", [0, 2**20])
    def test_counts_that_do_not_fit(self, count):
        with pytest.raises(ScheduleError, match=f"can't wait for {count} arrivals"):
            met(count, 0, 0)

    @pytest.mark.parametrize("each", [0, 2])
    def test_more_arrivals_than_a_phase_has(self, each):
        with pytest.raises(
            ScheduleError, match=rf"bars\[0\]: {each} more of 1 arrivals, and 1 are"
        ):
            met(1, 0, 1, each=each)

    def test_what_is_not_done(self):
        @gluon.jit
        def kernel():
            bars = barriers(1, 1)
            mbarrier.arrive(bars.index(0), pred=False)
            mbarrier.expect(bars.index(0), 8, pred=False)
            mbarrier.wait(bars.index(0), 0, pred=False)

        assert run(kernel) == []

    def test_twice_or_never_initialised_or_not_there(self):
        @gluon.jit
        def twice():
            bars = barriers(1, 1)
            mbarrier.init(bars.index(0), count=1)

        @gluon.jit
        def never():
            bars = gl.allocate_shared_memory(
                gl.int64, [2, 1], mbarrier.MBarrierLayout()
            )
            mbarrier.arrive(bars.index(1))

        @gluon.jit
        def beyond():
            bars = barriers(2, 1)
            mbarrier.arrive(bars.index(bars.shape[0]))

        for kernel, match in (
            (twice, "is initialised already"),
            (never, r"bars\[1\] was not initialised"),
            (beyond, "bars has no part 2"),
        ):
            with pytest.raises(ScheduleError, match=match):
                run(kernel)


@gluon.jit
def copy_kernel(
    a_desc, out_desc,
    ROW: gl.constexpr = 0, COLUMN: gl.constexpr = 0, EXPECTED: gl.constexpr = NBYTES,
    WAITS: gl.constexpr = True, FENCE: gl.constexpr = True, STORED: gl.constexpr = True,
):  # fmt: skip
    """Copy a tile by way of registers."""
    slot, place = room(a_desc, 2), room(out_desc, 1)
    here = barriers(1, 1)
    mbarrier.expect(here.index(0), EXPECTED)
    async_load(a_desc, [ROW, COLUMN], here.index(0), slot.index(1))
    mbarrier.wait(here.index(0), 0, pred=WAITS)
    place.index(0).store(slot.index(1).load())
    if FENCE:
        fence_async_shared()
    async_store(out_desc, [ROW, COLUMN], place.index(0))
    if STORED:
        tma.store_wait(0)


class TestLoads:
    def test_a_tile_comes_whole(self):
        for seed in SEEDS:
            a, out = copied()
            events = run(copy_kernel, a, out, seed=seed)
            assert torch.equal(out, a)
        assert [event.on for event in events if event.what == "loaded"] == ["slot[1]"]

    @pytest.mark.parametrize(
        ("row", "column"),
        [(0, 0), (8, 16), (16, 16), (-5, 0), (0, -3), (-16, 0), (40, 0), (0, 99)],
    )
    def test_outside_there_are_zeros_and_nothing_is_stored(self, row, column):
        """Bytes are counted in full: the wait ends."""
        a, out = numbers(24, 24), torch.full((24, 24), -1.0).bfloat16()
        run(copy_kernel, a, out, ROW=row, COLUMN=column)
        inside = torch.zeros(24, 24, dtype=bool)
        inside[max(row, 0) : max(row + SIDE, 0), max(column, 0) : column + SIDE] = True
        assert torch.equal(out, torch.where(inside, a, -1))

    def test_what_lies_outside_comes_as_zeros(self):
        a, out = numbers(5, 8), torch.full((SIDE, SIDE), -1.0).bfloat16()
        run(copy_kernel, a, out)
        assert torch.equal(out[:5, :8], a)
        assert not out[5:].any()
        assert not out[:, 8:].any()

    def test_a_store_writes_whole_granules(self):
        """As on the card: 16 bytes are never written in part."""
        a, wide = numbers(5, 8), torch.full((5, SIDE), -1.0).bfloat16()
        run(copy_kernel, a, wide[:, :3])
        assert torch.equal(wide[:, :8], a)
        assert (wide[:, 8:] == -1).all()

    def test_a_store_past_the_end_of_memory_is_an_error(self):
        a, out = numbers(5, 8), torch.zeros(4 * 8 + 3).bfloat16()
        with pytest.raises(ScheduleError, match="past the end of the matrix's memory"):
            run(copy_kernel, a, out.as_strided((5, 3), (8, 1)))

    def test_nothing_is_there_before_it_has_come(self):
        found = outcomes(copy_kernel, copied, WAITS=False)
        whole = [torch.is_tensor(x) and torch.equal(x, numbers()) for x in found]
        assert 0 < sum(whole) < len(whole)
        poisoned = [x for x in found if torch.is_tensor(x) and x.isnan().all()]
        assert poisoned
        # Whoever ends before its load has come is told so.
        assert ScheduleError in found

    @pytest.mark.parametrize(
        ("expected", "said"),
        [(NBYTES.value + 2, "2 bytes missing"), (NBYTES.value - 2, "2 bytes too many")],
    )
    def test_too_many_or_too_few_bytes(self, expected, said):
        with pytest.raises(Deadlock, match=said):
            run(copy_kernel, *copied(), EXPECTED=expected)

    def test_more_bytes_than_a_barrier_counts(self):
        with pytest.raises(ScheduleError, match=r"here\[0\] can't count 1048576 bytes"):
            run(copy_kernel, *copied(), EXPECTED=2**20)

    def test_bytes_may_come_before_they_are_expected(self):
        @gluon.jit
        def kernel(a_desc, out_desc):
            slot, here = room(a_desc, 1), barriers(1, 1)
            async_load(a_desc, [0, 0], here.index(0), slot.index(0))
            mbarrier.expect(here.index(0), NBYTES)
            mbarrier.wait(here.index(0), 0)
            async_store(out_desc, [0, 0], slot.index(0))
            tma.store_wait(0)

        orders = set()
        for seed in SEEDS:
            a, out = copied()
            events = [event.what for event in run(kernel, a, out, seed=seed)]
            assert torch.equal(out, a)
            orders.add(events.index("bytes") < events.index("expect"))
        assert orders == {True, False}

    def test_loads_end_in_any_order(self):
        @gluon.jit
        def kernel(a_desc):
            slot, here = room(a_desc, 2), barriers(1, 1)
            mbarrier.expect(here.index(0), 2 * NBYTES)
            async_load(a_desc, [0, 0], here.index(0), slot.index(0))
            async_load(a_desc, [0, 0], here.index(0), slot.index(1))
            mbarrier.wait(here.index(0), 0)

        orders = {
            tuple(e.on for e in run(kernel, numbers(), seed=seed) if e.what == "loaded")
            for seed in SEEDS
        }
        assert len(orders) == 2

    def test_nobody_waits(self):
        @gluon.jit
        def kernel(a_desc):
            slot, here = room(a_desc, 1), barriers(1, 1)
            mbarrier.expect(here.index(0), NBYTES)
            async_load(a_desc, [0, 0], here.index(0), slot.index(0))

        found = outcomes(kernel, lambda: (numbers(),))
        assert ScheduleError in found

    def test_where_it_does_not_fit(self):
        @gluon.jit
        def kernel(a_desc, SHAPE: gl.constexpr, DTYPE: gl.constexpr):
            slot = gl.allocate_shared_memory(DTYPE, SHAPE, a_desc.layout)
            here = barriers(1, 1)
            async_load(a_desc, [0, 0], here.index(0), slot)

        for shape, dtype in (([8, 16], gl.bfloat16), ([16, 16], gl.float16)):
            with pytest.raises(ScheduleError, match=r"slot is \[\d+, 16\] of .*, not"):
                run(kernel, numbers(), SHAPE=shape, DTYPE=dtype)


class TestStores:
    def test_need_a_fence_between(self):
        with pytest.raises(
            ScheduleError, match=r"the program wrote place\[0\], and an"
        ):
            run(copy_kernel, *copied(), FENCE=False)

    def test_must_be_waited_for(self):
        with pytest.raises(ScheduleError, match=r"a wait for the store of place\[0\]"):
            run(copy_kernel, *copied(), STORED=False)

    @pytest.mark.parametrize("pending", [0, 1])
    def test_what_is_overwritten_too_early_shows(self, pending):
        @gluon.jit
        def kernel(out_desc, PENDING: gl.constexpr):
            place = room(out_desc, 1)
            for i in gl.static_range(2):
                tma.store_wait(PENDING)
                place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
                if i == 1:
                    # Nobody's memory: what is written here is not a number.
                    place.index(0).store(room(out_desc, 1).index(0).load())
                fence_async_shared()
                async_store(out_desc, [16 * i, 0], place.index(0))
            tma.store_wait(0)

        intact = set()
        for seed in SEEDS:
            out = torch.ones(2 * SIDE, SIDE).bfloat16()
            run(kernel, out, PENDING=pending, seed=seed)
            assert out[SIDE:].isnan().all()
            intact.add(not out[:SIDE].any())
        assert intact == ({True} if pending == 0 else {True, False})

    def test_a_wait_for_all_but_the_last_frees_the_first(self):
        @gluon.jit
        def kernel(out_desc, PENDING: gl.constexpr):
            place = room(out_desc, 2)
            for i in gl.static_range(3):
                if i == 2:
                    tma.store_wait(PENDING)
                place.index(i % 2).store(gl.zeros([16, 16], gl.bfloat16))
                fence_async_shared()
                async_store(out_desc, [0, 0], place.index(i % 2))
            tma.store_wait(0)

        def taken(pending):
            for seed in SEEDS:
                events = run(kernel, torch.ones(SIDE, SIDE).bfloat16(), PENDING=pending,
                             seed=seed)  # fmt: skip
                writes = [i for i, e in enumerate(events) if e.what == "write"]
                before = [e.on for e in events[: writes[2]] if e.what == "taken"]
                yield tuple(before)

        assert all("place[0]" in before for before in taken(1))
        assert {("place[0]",), ("place[0]", "place[1]")} <= set(taken(1))
        # The second may be taken before the first: only the wait orders them.
        assert () in set(taken(2))
        assert ("place[1]",) in set(taken(2))

    def test_they_arrive_at_any_time_until_the_program_ends(self):
        """A wait is for shared memory, not for the matrix."""

        @gluon.jit
        def kernel(a_desc, out_desc):
            place, slot, here = room(a_desc, 1), room(a_desc, 1), barriers(1, 1)
            place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
            fence_async_shared()
            async_store(a_desc, [0, 0], place.index(0))
            tma.store_wait(0)
            mbarrier.expect(here.index(0), NBYTES)
            async_load(a_desc, [0, 0], here.index(0), slot.index(0))
            mbarrier.wait(here.index(0), 0)
            async_store(out_desc, [0, 0], slot.index(0))
            tma.store_wait(0)

        sums = set()
        for seed in SEEDS:
            a, out = numbers(), torch.ones(SIDE, SIDE).bfloat16()
            run(kernel, a, out, seed=seed)
            assert not a.any()
            sums.add(float(out.sum()))
        assert sums == {0.0, float(numbers().sum())}


def pair():
    return numbers(SIDE, 2 * SIDE), numbers(2 * SIDE, SIDE)


@gluon.jit
def bring(a_desc, b_desc, here, a_slot, b_slot, STEP: gl.constexpr):
    mbarrier.expect(here, 2 * NBYTES)
    async_load(a_desc, [0, 16 * STEP], here, a_slot)
    async_load(b_desc, [16 * STEP, 0], here, b_slot)


@gluon.jit
def product_kernel(
    a_desc, b_desc, out_desc,
    SPOILT: gl.constexpr, LEFT: gl.constexpr, DONE: gl.constexpr = 0,
    ADDS: gl.constexpr = True,
):  # fmt: skip
    """Multiply two pairs of tiles, then bring others to where one pair was."""
    a_ring, b_ring, place = room(a_desc, 2), room(b_desc, 2), room(out_desc, 1)
    here, again = barriers(2, 1), barriers(1, 1)
    for step in gl.static_range(2):
        bring(
            a_desc, b_desc, here.index(step), a_ring.index(step), b_ring.index(step),
            step,
        )  # fmt: skip
    acc = warpgroup_mma_init(gl.zeros([16, 16], gl.float32))
    for step in gl.static_range(2):
        mbarrier.wait(here.index(step), 0)
        acc = warpgroup_mma(
            a_ring.index(step), b_ring.index(step), acc, use_acc=ADDS, is_async=True
        )
    acc = warpgroup_mma_init(warpgroup_mma_wait(LEFT, deps=(acc,)))
    if SPOILT is not None:
        bring(
            a_desc, b_desc, again.index(0), a_ring.index(SPOILT), b_ring.index(SPOILT),
            0,
        )  # fmt: skip
        mbarrier.wait(again.index(0), 0)
    sums = warpgroup_mma_wait(DONE, deps=(acc,))
    place.index(0).store(sums.to(gl.bfloat16))
    fence_async_shared()
    async_store(out_desc, [0, 0], place.index(0))
    tma.store_wait(0)


class TestProducts:
    def results(self, **meta):
        right = []
        for seed in SEEDS:
            a, b = pair()
            out = torch.zeros(SIDE, SIDE).bfloat16()
            run(product_kernel, a, b, out, seed=seed, **meta)
            right.append(torch.equal(out.float(), (a.float() @ b.float()).bfloat16()))
        return right

    @pytest.mark.parametrize(
        ("spoilt", "left", "always"),
        [(None, 2, True), (0, 1, True), (1, 0, True), (0, 2, False), (1, 1, False)],
    )
    def test_operands_are_read_until_they_are_waited_for(self, spoilt, left, always):
        right = self.results(SPOILT=spoilt, LEFT=left)
        assert any(right)
        assert all(right) == always

    def test_sums_begin_anew(self):
        a, b = pair()
        out = torch.zeros(SIDE, SIDE).bfloat16()
        run(product_kernel, a, b, out, SPOILT=None, LEFT=0, ADDS=False)
        expected = a[:, SIDE:].float() @ b[SIDE:].float()
        assert torch.equal(out, expected.bfloat16())

    @pytest.mark.parametrize("left", [2, 1])
    def test_sums_are_read_too_early(self, left):
        """Whatever luck has done: what counts is what the wait says."""
        for seed in SEEDS:
            out = torch.zeros(SIDE, SIDE).bfloat16()
            with pytest.raises(ScheduleError, match=r"sums are read \(to\) before the"):
                run(product_kernel, *pair(), out, SPOILT=None, LEFT=left, DONE=1,
                    seed=seed)  # fmt: skip

    def test_at_once(self):
        @gluon.jit
        def kernel(out_desc):
            place = room(out_desc, 2)
            place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
            fence_async_shared()
            acc = gl.zeros([16, 16], gl.float32)
            acc = warpgroup_mma(place.index(0), place.index(0).permute((1, 0)), acc)
            place.index(1).store(acc.to(gl.bfloat16))

        events = [event.what for event in run(kernel, numbers())]
        assert events == ["write", "multiply", "multiplied", "write"]

    def test_need_a_fence_between(self):
        @gluon.jit
        def kernel(out_desc):
            place = room(out_desc, 2)
            place.index(0).store(gl.zeros([16, 16], gl.bfloat16))
            acc = gl.zeros([16, 16], gl.float32)
            warpgroup_mma(place.index(1), place.index(0), acc)

        with pytest.raises(ScheduleError, match=r"the program wrote place\[0\], and"):
            run(kernel, numbers())

    def test_only_those_with_the_same_sums_are_done_in_order(self):
        @gluon.jit
        def kernel(out_desc, SAME: gl.constexpr):
            ring = room(out_desc, 2)
            acc = warpgroup_mma_init(gl.zeros([16, 16], gl.float32))
            other = warpgroup_mma_init(gl.zeros([16, 16], gl.float32))
            if SAME:
                other = acc
            for i in gl.static_range(2):
                acc = warpgroup_mma(ring.index(i), ring.index(i), acc, is_async=True)
                acc, other = other, acc
            warpgroup_mma_wait(0, deps=(acc, other))

        for same, count in ((True, 1), (False, 2)):
            orders = {
                tuple(
                    event.on
                    for event in run(kernel, numbers(), SAME=same, seed=seed)
                    if event.what == "multiplied"
                )
                for seed in SEEDS
            }
            assert len(orders) == count

    def test_must_be_waited_for_whatever_luck_has_done(self):
        @gluon.jit
        def kernel(out_desc):
            ring = room(out_desc, 1)
            acc = warpgroup_mma_init(gl.zeros([16, 16], gl.float32))
            warpgroup_mma(ring.index(0), ring.index(0), acc, is_async=True)

        for seed in SEEDS:
            with pytest.raises(ScheduleError, match=r"the product of ring\[0\], ring"):
                run(kernel, numbers(), seed=seed)

    def test_sides_that_do_not_meet(self):
        @gluon.jit
        def kernel(out_desc):
            ring = room(out_desc, 1)
            warpgroup_mma(ring.index(0), ring.index(0), gl.zeros([16, 8], gl.float32))

        with pytest.raises(ScheduleError, match="the sides don't meet"):
            run(kernel, numbers())
