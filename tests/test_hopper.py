"""Hopper's kernels: on the CPU in any order that luck finds, on a GPU as they ship."""

import dataclasses
import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import schedules, testing
from tilebook.hopper import (
    cooperative,
    folded,
    launching,
    pingpong,
    pipelined,
    widths,
)
from tilebook.hopper.launching import Config
from tilebook.matmul import accuracy
from tilebook.matmul.evidence import launches, matrix
from tilebook.matmul.operands import Task, task_of

RUNGS = (pipelined, cooperative, folded, pingpong, widths)
TURNS = ("NN", "NT", "TN", "TT")
BF16, FP16 = launching.DTYPES
# Tiles so small that a program has several, of several chunks, in few slots.
SMALL = {
    pipelined: (Config(32, 32, 16, 3, group=2), Config(16, 32, 16, 2, 2, group=1)),
    cooperative: (Config(32, 32, 16, 3, group=2), Config(64, 32, 16, 2, 2, group=1)),
    folded: (Config(32, 32, 16, 3, group=2), Config(64, 32, 16, 2, 2, group=1)),
    pingpong: (Config(32, 32, 16, 3, group=2), Config(16, 32, 16, 2, group=1)),
    widths: (
        widths.Config(32, 32, 16, 16, 2, group=2),
        widths.Config(64, 16, 16, 16, 3, group=1),
    ),
}
# Rows, columns and terms: a part of a tile, one, several; of a chunk, one, two, many.
SHAPES = (
    *((1, 8, 1), (32, 32, 16), (33, 40, 17), (7, 104, 32), (130, 16, 8)),
    *((64, 96, 33), (97, 72, 80)),
)


def name(value):
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return text.rpartition(".")[2]


each_rung = pytest.mark.parametrize("rung", RUNGS, ids=name)
each_turn = pytest.mark.parametrize("turn", TURNS)
each_dtype = pytest.mark.parametrize("dtype", [BF16, FP16], ids=str)


@pytest.fixture
def hopper(device):
    if not here.has("wgmma"):
        pytest.skip("needs Hopper's tensor cores")
    return device


def draw(rows, columns, dtype, turn="N", device="cpu"):
    """Numbers about zero, in rows or columns that lie 16 bytes apart, NaN between."""
    if turn == "T":
        return draw(columns, rows, dtype, device=device).t()
    wide = torch.full((rows, -(-columns // 8) * 8 + 8), torch.nan, device=device)
    wide[:, :columns] = torch.randn(rows, columns, device=device)
    return wide.to(dtype)[:, :columns]


def task_for(shape, dtype=BF16, turn="NN", device="cpu"):
    """A product to be made, over what is not a number."""
    m, n, k = shape
    a, b = draw(m, k, dtype, turn[0], device), draw(k, n, dtype, turn[1], device)
    return Task(a, b, draw(m, n, dtype, device=device).fill_(torch.nan))


def scheduled(rung, task, config, programs, seed):
    """Make a task's product in one of the orders that barriers allow."""
    (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
    assert found.grid[0] >= 1
    return schedules.run(
        found.kernel, (programs,), *found.args, **found.meta, seed=seed
    )


def assert_right(task):
    """Within its bound, and nothing beside it is written."""
    accuracy.check(task)
    out = task.out
    assert out._base[:, out.shape[1] :].isnan().all()


class TestOnTheCPU:
    @each_rung
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_any_shape(self, rung, shape):
        for seed, turn in enumerate(TURNS):
            config = SMALL[rung][seed % 2]
            task = task_for(shape, (BF16, FP16)[seed % 3 == 0], turn)
            scheduled(rung, task, config, 1 + seed % 3, seed)
            assert_right(task)

    @each_rung
    @pytest.mark.parametrize("which", [0, 1])
    def test_any_order(self, rung, which):
        """Programs with several tiles, fewer than tiles, and more."""
        for seed in range(8):
            task = task_for((70, 72, 40), turn=TURNS[seed % 4])
            scheduled(rung, task, SMALL[rung][which], (1, 2, 5, 20)[seed % 4], seed)
            assert_right(task)

    @each_rung
    def test_one_slot_more_than_one(self, rung):
        """Two are the fewest that `room` leaves."""
        for seed in range(4):
            task = task_for((64, 64, 64))
            config = SMALL[rung][0]._replace(num_stages=2)
            scheduled(rung, task, config, 2, seed)
            assert_right(task)

    @each_rung
    def test_infinities_and_nan_stay_in_their_row_and_column(self, rung):
        task = task_for((40, 40, 40))
        task.a[3, 5], task.a[39, 39] = torch.inf, torch.nan
        task.b[7, 2], task.b[39, 33] = torch.nan, -torch.inf
        scheduled(rung, task, SMALL[rung][0], 2, 0)
        assert_right(task)

    @each_rung
    def test_launches_as_many_programs_as_live_at_once(self, rung, monkeypatch):
        for module in (launching, widths):
            monkeypatch.setattr(module, "programs", lambda count, per: (count, per))
        task = task_for((70, 72, 40))
        config = SMALL[rung][0]
        (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
        columns = config.block_n + getattr(config, "more", 0)
        tiles = -(-70 // config.block_m) * -(-72 // columns)
        assert found.grid == ((tiles, 1),)


class TestBarriers:
    """Who arrives, who waits: what the modules say in their tables."""

    def events(self, rung, seed=0):
        task = task_for((64, 96, 64))
        (events,) = scheduled(rung, task, SMALL[rung][0], 1, seed)
        return events

    @each_rung
    def test_meetings(self, rung):
        found = {
            name: (set(meeting.arrive), set(meeting.wait))
            for name, meeting in schedules.meetings(self.events(rung)).items()
        }
        if rung is pipelined:
            everyone = {"the program"}
            assert found == {"arrived": ({*everyone, "copy engine"}, everyone)}
            return
        groups, producer = {"consume 0", "consume 1"}, {"produce"}
        assert found.pop("arrived") == ({*producer, "copy engine"}, groups)
        assert found.pop("free") == (groups, producer)
        assert found == ({"handed": (groups, groups)} if rung is pingpong else {})

    @pytest.mark.parametrize(
        ("rung", "late"), [(cooperative, 0), (folded, 1), (widths, 0)], ids=name
    )
    def test_when_a_tile_is_stored(self, rung, late):
        """`folded` begins the next tile's first product before, all others don't."""
        config = SMALL[rung][0]
        steps = 64 // config.block_k * (2 if rung is widths else 1)
        mine = [e.what for e in self.events(rung) if e.who == "consume 0"]
        begun = [
            mine[:at].count("multiply")
            for at, what in enumerate(mine)
            if what == "write"
        ]
        tiles = mine.count("multiply") // steps
        expected = [steps * tile + late for tile in range(1, tiles)] + [steps * tiles]
        if rung is folded:
            # What precedes the first tile is stored nowhere.
            expected = [1, *expected]
        assert sorted(set(begun)) == expected

    @pytest.mark.parametrize("seed", range(6))
    def test_pingpong_takes_turns(self, seed):
        events = self.events(pingpong, seed)
        tiles = [
            [who] * len(list(found))
            for who, found in itertools.groupby(
                e.who for e in events if e.what == "multiply"
            )
        ]
        assert tiles == [[f"consume {i % 2}"] * 4 for i in range(6)]

    def test_pingpong_stores_while_the_other_multiplies(self):
        overlaps = 0
        for seed in range(6):
            spans = schedules.spans(self.events(pingpong, seed))
            stores = [s for s in spans if s.what == "store" and s.who == "consume 0"]
            products = [
                s for s in spans if s.what == "multiply" and s.who == "consume 1"
            ]
            overlaps += any(
                max(x.begin, y.begin) < min(x.end, y.end)
                for x, y in itertools.product(stores, products)
            )
        assert overlaps


class TestRefusals:
    def good(self, **changes):
        x = matrix(64, 64, BF16)
        return Task(x, x, x)._replace(**changes)

    def cases(self):
        wide = torch.empty(64, 160, dtype=BF16, device="meta")
        apart = "its rows must lie a multiple of 16 bytes apart"
        for x, why in (
            (wide[:, :128:2], "its last stride must be 1, got 2"),
            (wide[:1, :64].expand(64, 64), f"{apart}, got 0"),
            (matrix(64, 72, BF16).as_strided((64, 64), (68, 1)), f"{apart}, got 136"),
            (matrix(64, 64, BF16).as_strided((64, 64), (8, 1)), "must not overlap"),
            (matrix(64, 68, BF16).t()[:64], f"{apart}, got 136"),
        ):
            yield {"a": x}, f"a can't be described: .*{why}"
            yield {"b": x}, f"b can't be described: .*{why}"
        yield {"out": wide[:, ::2]}, "the result can't be described: .*stride must be 1"
        yield {"out": matrix(64, 64, BF16, turned=True)}, "the result can't be descr"
        far = matrix(2**31, 64, BF16)
        yield {"a": far}, "a can't be described: a side must be at most"
        for dtype in (torch.float32, torch.int8):
            x = matrix(64, 64, dtype)
            yield {"a": x, "b": x}, f"operands must be of bfloat16 or .*, got {dtype}"
            yield {"out": x}, f"the result must be of bfloat16 or float16, got {dtype}"
        for changes in (
            {"scale": 2.0},
            {"activation": "relu"},
            {"bias": matrix(1, 64, BF16)[0]},
            {"residual": matrix(64, 64, BF16)},
        ):
            yield changes, "nothing may be done to the product before it is stored"

    def test_each_rule(self):
        assert launching.refusal(self.good()) is None
        for changes, match in self.cases():
            task = self.good(**changes)
            with pytest.raises(ValueError, match=match):
                cooperative.launch(task)

    @each_rung
    def test_every_rung_asks(self, rung):
        with pytest.raises(ValueError, match="nothing may be done to the product"):
            rung.launch(self.good(scale=2.0))

    def test_either_order_of_memory(self):
        x = matrix(64, 64, BF16, turned=True)
        assert launching.refusal(self.good(a=x, b=x)) is None

    def test_another_type_of_result(self):
        assert launching.refusal(self.good(out=matrix(64, 64, FP16))) is None

    @each_rung
    def test_operands(self, rung, device):
        """In this order, before anything is said about the hardware."""
        a = torch.zeros(16, 24, dtype=BF16, device=device)
        with pytest.raises(TypeError, match=r"a must be a torch\.Tensor, got list"):
            rung.matmul([1], a)
        with pytest.raises(TypeError, match="a must be bfloat16, float16, float32 or"):
            rung.matmul(a.double(), a.double())
        with pytest.raises(TypeError, match="b must have the dtype of a, bfloat16"):
            rung.matmul(a, a.half())
        with pytest.raises(ValueError, match="b must have 2 dimensions, got 1"):
            rung.matmul(a, a[0])
        with pytest.raises(ValueError, match="as many columns as b has rows, got 24 a"):
            rung.matmul(a, a)
        for dtype in (torch.float32, torch.int8):
            with pytest.raises(ValueError, match=r"bfloat16 or float16, got .* takes"):
                rung.matmul(a.to(dtype), a.t().to(dtype))
        with pytest.raises(ValueError, match=r"b can't be described.*ordered takes it"):
            rung.matmul(a, torch.zeros(24, 20, dtype=BF16, device=device)[:, :16])
        with pytest.raises(
            ValueError, match=r"the result can't be described: .*, got 6"
        ):
            rung.matmul(a, torch.zeros(24, 8, dtype=BF16, device=device)[:, :3])

    @each_rung
    @pytest.mark.parametrize("shape", [(0, 8, 16), (8, 0, 16), (8, 8, 0), (0, 0, 0)])
    def test_nothing_to_multiply(self, rung, shape, device):
        m, n, k = shape
        a = torch.empty(m, k, dtype=FP16, device=device)
        with testing.guarded():
            out = rung.matmul(a, torch.empty(k, n, dtype=FP16, device=device))
        assert out.shape == (m, n)
        assert out.dtype == FP16
        assert not out.any()

    @each_rung
    def test_other_hardware(self, rung, device):
        if here.has("wgmma"):
            pytest.skip("here it runs")
        a = torch.zeros(16, 16, dtype=BF16, device=device)
        with pytest.raises(here.HardwareError, match="warp-group matrix instructions"):
            rung.matmul(a, a)


class TestConfigurations:
    def shared(self, rung, config):
        if rung is widths:
            columns, piece = config.block_n + config.more, config.more
        else:
            columns, piece = config.block_n, config.block_n // config.pieces
        chunk = (config.block_m + columns) * config.block_k
        # Both groups have a place for what they store: for half a tile, or a whole.
        rows = config.block_m * (2 if rung is pingpong else 1)
        return 2 * (config.num_stages * chunk + rows * piece)

    @each_rung
    @given(sizes=st.tuples(*[st.integers(1, 40_000)] * 3))
    def test_fit_for_any_shape(self, rung, sizes):
        m, n, k = sizes
        x = matrix(m, -(-k // 8) * 8, BF16)[:, :k]
        task = Task(x, matrix(k, n, BF16), matrix(m, n, BF16))
        config = rung.config_for(task)
        assert config.num_stages >= 2
        assert self.shared(rung, config) <= launching.SHARED - launching.BARRIERS

    @each_rung
    def test_those_to_choose_from_fit_as_they_are(self, rung):
        parts = 1 if rung is pingpong else 2
        for config in rung.CONFIGS:
            fits = (
                widths.room(config) if rung is widths else launching.room(config, parts)
            )
            assert fits == config
        assert len(set(rung.CONFIGS)) == len(rung.CONFIGS)

    @each_rung
    @pytest.mark.parametrize("kib", [164, 99])
    def test_less_shared_memory_gets_fewer_stages(self, rung, kib, monkeypatch):
        small = dataclasses.replace(
            here.current(), sms=60, shared_memory_per_block=kib * 1024
        )
        monkeypatch.setattr(here, "current", lambda: small)
        for size in (64, 512, 8192):
            x = matrix(size, size, BF16)
            config = rung.config_for(Task(x, x, x))
            assert config.num_stages >= 2
            assert self.shared(rung, config) <= kib * 1024

    @each_rung
    def test_large_products_get_large_tiles(self, rung):
        x = matrix(8192, 8192, BF16)
        config = rung.config_for(Task(x, x, x))
        columns = config.block_n + getattr(config, "more", 0)
        assert config.block_m * columns >= 128 * 128


every_config = pytest.mark.parametrize(
    ("rung", "config"),
    [(rung, config) for rung in RUNGS for config in rung.CONFIGS],
    ids=lambda value: name(value) if value in RUNGS else "-".join(map(str, value)),
)


def launched(rung, make, config=None):
    """A task as a rung made it, over poison and between guards."""
    with testing.guarded():
        task = make()
        rung.launch(task, *([config] if config else []))
    return task


@pytest.mark.gpu
class TestOnAGPU:
    def make(self, shape, dtype, turn, device):
        """Operands between bands of NaN; the result's place is made when asked for."""
        m, n, k = shape
        a, b = (
            testing.guard(x.contiguous().clone()).tensor
            for x in (
                draw(m, k, dtype, device=device),
                draw(k, n, dtype, device=device),
            )
        )
        a = a.t().contiguous().t() if turn[0] == "T" else a
        b = b.t().contiguous().t() if turn[1] == "T" else b
        return lambda: task_of(a, b)[0]

    @each_turn
    @every_config
    def test_every_configuration(self, rung, config, turn, hopper):
        for shape, dtype in (((1000, 1032, 328), BF16), ((264, 520, 1096), FP16)):
            accuracy.check(
                launched(rung, self.make(shape, dtype, turn, hopper), config)
            )

    @each_turn
    @each_dtype
    @each_rung
    def test_ragged_shapes(self, rung, dtype, turn, hopper):
        for shape in ((8, 8, 8), (136, 264, 72), (2056, 1544, 40), (72, 4104, 2056)):
            accuracy.check(launched(rung, self.make(shape, dtype, turn, hopper)))

    @pytest.mark.sanitize
    @each_turn
    @each_rung
    def test_small(self, rung, turn, hopper):
        for shape in ((8, 16, 24), (200, 136, 152)):
            accuracy.check(launched(rung, self.make(shape, BF16, turn, hopper)))

    @each_turn
    @each_rung
    def test_sides_that_no_8_divides(self, rung, turn, hopper):
        for shape in ((1, 8, 1), (129, 72, 33), (517, 264, 1001)):
            task = task_for(shape, turn=turn, device=hopper)
            rung.launch(task)
            assert_right(task)

    @every_config
    def test_20_repeats(self, rung, config, hopper):
        make = self.make((2048, 2176, 1032), BF16, "NT", hopper)

        def once():
            task = make()
            rung.launch(task, config)
            return task.out

        testing.deterministic(once)

    @each_rung
    def test_many_tiles_to_a_program(self, rung, hopper):
        """Barriers go through all their phases many times."""
        for shape in ((8192, 8192, 64), (8192, 8192, 8), (128, 128, 2**17)):
            accuracy.check(launched(rung, self.make(shape, BF16, "NT", hopper)))

    @pytest.mark.large
    @each_rung
    @pytest.mark.parametrize("side", ["a", "b", "out"])
    def test_more_than_2_to_the_31_elements(self, rung, side, hopper):
        far = 2**31 // 64 + 128
        m, n, k = {"a": (far, 16, 64), "b": (16, far, 64), "out": (far, 64, 16)}[side]
        a = torch.randn(m, k, dtype=BF16, device=hopper)
        b = torch.randn(k, n, dtype=BF16, device=hopper)
        out = rung.matmul(a, b)
        for ends in (slice(None, 100), slice(-100, None)):
            if m == far:
                accuracy.check(Task(a[ends], b, out[ends]))
            else:
                accuracy.check(Task(a, b[:, ends], out[:, ends]))
