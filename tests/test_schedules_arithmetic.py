"""What threads compute and write under `schedules`: weights, sums, global memory."""

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from tilebook import schedules
from tilebook.schedules import ScheduleError


def run(body, *args, **meta):
    (events,) = schedules.run(gluon.jit(body), (1,), *args, **meta)
    return events


@gluon.jit
def matrix_at(x, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    offs = gl.arange(0, ROWS, layout=None) * COLUMNS
    places = gl.expand_dims(offs, 1) + gl.expand_dims(gl.arange(0, COLUMNS), 0)
    return gl.load(x + places), places


@gluon.jit
def place_for(tile):
    layout: gl.constexpr = gl.NVMMASharedLayout(32, 16, 2)
    found = gl.allocate_shared_memory(tile.dtype, [1, 1, 8, 8], layout)
    return found.reshape([8, 8])


class TestTiles:
    def test_two_tiles_side_by_side(self):
        """Joined between columns and taken apart again."""

        def body(x, out, other):
            tile, places = matrix_at(x, 4, 8)
            both = gl.join(tile, tile + 1.0).permute((0, 2, 1)).reshape([4, 16])
            offs = gl.expand_dims(gl.arange(0, 4, layout=None) * 16, 1)
            offs += gl.expand_dims(gl.arange(0, 16, layout=None), 0)
            gl.store(out + offs, both)
            _, right = gl.split(both.reshape([4, 2, 8]).permute((0, 2, 1)))
            gl.store(other + places, right)

        x = torch.randn(4, 8)
        out, other = torch.empty(4, 16), torch.empty(4, 8)
        run(body, x, out, other)
        assert torch.equal(out, torch.cat((x, x + 1), 1))
        assert torch.equal(other, x + 1)

    def test_tiles_that_dont_go_together(self):
        def body(x):
            gl.join(matrix_at(x, 4, 8)[0], matrix_at(x, 2, 8)[0])

        with pytest.raises(ValueError, match=r"\[4, 8\] and \[2, 8\] don't go"):
            run(body, torch.zeros(4, 8))

    def test_softmax(self):
        """Every operation that makes weights of scores, and its opposite."""

        def body(x, out, most, log):
            scores, places = matrix_at(x, 4, 8)
            rows = gl.expand_dims(gl.arange(0, 4, layout=None), 1)
            columns = gl.expand_dims(gl.arange(0, 8, layout=None), 0)
            scores = gl.where(columns <= rows + 3, scores, -float("inf"))
            scores = gl.where(columns + 3 >= rows, scores, -float("inf"))
            top = gl.max(scores, 1)
            weights = gl.exp2(scores - gl.expand_dims(top, 1))
            total = gl.sum(weights.reshape([4, 2, 4]), 1)
            total = gl.convert_layout(gl.sum(total, 1), total.type.layout)
            gl.store(out + places, weights * gl.expand_dims(1.0 / total, 1))
            at = gl.arange(0, 4, layout=None)
            gl.store(log + at, top + gl.log2(total), mask=at < 3)
            gl.store(most, gl.max(gl.maximum(top, gl.full([4], 0.5, gl.float32)), 0))

        x = torch.randn(4, 8)
        out, log, most = torch.empty(4, 8), torch.full((4,), 7.0), torch.zeros(1)
        run(body, x, out, most, log)
        i, j = torch.arange(4)[:, None], torch.arange(8)
        hidden = (j > i + 3) | (j + 3 < i)
        scores = x.masked_fill(hidden, -torch.inf) * torch.log(torch.tensor(2.0))
        torch.testing.assert_close(out, scores.softmax(1))
        expected = scores.logsumexp(1)[:3] / torch.log(torch.tensor(2.0))
        torch.testing.assert_close(log[:3], expected)
        assert log[3] == 7
        assert most == scores.max().div(torch.log(torch.tensor(2.0))).clamp(min=0.5)

    def test_numbers_stay_numbers(self):
        def body(out, n):
            gl.store(out, gl.maximum(n, 3) + gl.minimum(n, 3))
            gl.store(out + 1, 9, mask=n > 5)

        out = torch.zeros(2, dtype=torch.int32)
        run(body, out, 5)
        assert out.tolist() == [8, 0]


class TestGlobalMemory:
    def test_a_lane_that_is_on_lies_inside(self):
        def body(out, n):
            at = gl.arange(0, 8, layout=None)
            gl.store(out + at, at + 1, mask=at < n)

        out = torch.zeros(6, dtype=torch.int32)
        run(body, out, 4)
        assert out.tolist() == [1, 2, 3, 4, 0, 0]
        with pytest.raises(IndexError, match="outside of a tensor of 6 elements"):
            run(body, out, 7)

    def test_a_counter_lives_on_from_program_to_program(self):
        def body(counter, out):
            gl.store(out + gl.program_id(0), gl.atomic_add(counter, 2))

        counter, out = torch.ones(1, dtype=torch.int32), torch.zeros(3)
        schedules.run(gluon.jit(body), (3,), counter, out)
        assert out.tolist() == [1, 3, 5]
        assert counter == 7


class TestProductsFromRegisters:
    @staticmethod
    def body(x, y, out, EARLY: gl.constexpr):
        a, places = matrix_at(x, 8, 8)
        b, _ = matrix_at(y, 8, 8)
        slot = place_for(b)
        slot.store(b)
        fence_async_shared()
        acc = warpgroup_mma_init(gl.zeros([8, 8], gl.float32))
        acc = warpgroup_mma(a, slot, acc, is_async=True)
        if EARLY:
            acc = warpgroup_mma(acc, slot, acc, is_async=True)
        acc, a = warpgroup_mma_wait(0, deps=(acc, a))
        gl.store(out + places, acc * a)

    def test_product(self):
        x, y = torch.randn(2, 8, 8).bfloat16()
        out = torch.zeros(8, 8)
        for seed in range(4):
            (events,) = schedules.run(
                gluon.jit(self.body), (1,), x, y, out, seed=seed, EARLY=False
            )
            torch.testing.assert_close(out, (x.float() @ y.float()) * x.float())
            assert "registers, found" in {event.on for event in events}

    def test_of_sums_in_flight(self):
        x = torch.zeros(8, 8).bfloat16()
        with pytest.raises(ScheduleError, match="reads sums before their products"):
            run(self.body, x, x, torch.zeros(8, 8), EARLY=True)

    def test_needs_a_fence(self):
        def body(x):
            a, _ = matrix_at(x, 8, 8)
            slot = place_for(a)
            slot.store(a)
            warpgroup_mma(a, slot, gl.zeros([8, 8], gl.float32), is_async=True)

        with pytest.raises(ScheduleError, match="no fence between"):
            run(body, torch.zeros(8, 8).bfloat16())
