"""Attention for Hopper on the CPU: interpreted, and in orders that barriers allow."""

import itertools

import pytest
import torch

from tilebook import device as here
from tilebook import schedules
from tilebook.attention import (
    cooperative,
    described,
    folded,
    folding,
    launching,
    overlapped,
    wgmma,
)
from tilebook.attention.launching import Config, Task
from tilebook.device import HardwareError
from tilebook.hopper.launching import SHARED
from tilebook.matmul.evidence import launches
from tilebook.schedules.translation import Translation

RUNGS = (cooperative, overlapped, folded)
BF16, FP16 = torch.bfloat16, torch.float16
# Tiles so small that a program has several, of several blocks, in few places.
SMALL = (
    Config(16, 2, 16, 2),
    Config(16, 3, 32, 2, 2),
    Config(16, 3, 16, 3, 1, 2),
    Config(16, 2, 32, 3, 2, dynamic=True, halved=True, placed=True),
)
# Batches, heads, heads of keys, queries, keys; causal; keys before its own.
CASES = (
    *((1, 1, 1, 1, 1, True, None), (2, 2, 1, 40, 40, True, None)),
    *((1, 4, 2, 70, 33, True, None), (1, 2, 2, 33, 70, True, None)),
    *((2, 3, 1, 40, 57, False, None), (1, 2, 2, 64, 64, False, None)),
    *((1, 2, 1, 70, 70, True, 20), (1, 1, 1, 50, 75, False, 7)),
    (1, 2, 1, 49, 49, True, 0),
)


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


each_rung = pytest.mark.parametrize("rung", RUNGS, ids=name)


@pytest.fixture
def narrow(monkeypatch):
    """Heads of 16 columns, as kernels for a card have no need of."""
    monkeypatch.setattr(launching, "WIDTHS", (16, 32, 64, 128, 256))


def heads(batches, count, rows, columns, dtype):
    """Numbers about zero, heads side by side as a layer makes them, NaN between."""
    wide = torch.full((batches, rows + 3, count, columns + 8), torch.nan)
    wide[:, :rows, :, :columns] = torch.randn(batches, rows, count, columns)
    return wide.to(dtype)[:, :rows, :, :columns].transpose(1, 2)


def task_for(case, columns=16, dtype=BF16, scale=None):
    """A task over what is not a number."""
    batches, count, kv, rows, keys, causal, left = case
    return Task(
        heads(batches, count, rows, columns, dtype),
        heads(batches, kv, keys, columns, dtype),
        heads(batches, kv, keys, columns, dtype),
        heads(batches, count, rows, columns, dtype).fill_(torch.nan),
        torch.full((batches, count, rows), torch.nan),
        scale or columns**-0.5, left, 0 if causal else None,
    )  # fmt: skip


def expected(task):
    """Results in float64, and how far off they may be.

    Weights are rounded once to the dtype of values, the result once more; scores,
    exponentials and sums are of float32, whatever the order.
    """
    q, k, v = (x.double() for x in (task.q, task.k, task.v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    rows, keys = q.shape[2], k.shape[2]
    i, j = torch.arange(rows)[:, None], torch.arange(keys)
    seen = (j <= i) | (task.right is None)
    if task.left is not None:
        seen = seen & (j >= i - task.left)
    scores = (q @ k.mT * task.scale).masked_fill(~seen, -torch.inf)
    weights, lse = scores.softmax(-1), scores.logsumexp(-1)
    unit = torch.finfo(task.q.dtype).eps / 2
    size = (q.abs() @ k.abs().mT).amax(-1, keepdim=True) * task.scale
    near = 2.0**-22 * (size * (q.shape[3] + 8) + keys + 16)
    out = weights @ v
    # Weights of less than the least normal number have fewer digits.
    least = torch.finfo(task.q.dtype).smallest_normal * unit
    bound = (1.01 * unit + 2 * near) * (weights @ v.abs()) + 1.01 * unit * out.abs()
    bound = bound + least * v.abs().sum(-2, keepdim=True)
    return out, bound, lse, 2 * near.squeeze(-1) + 2.0**-21 * (1 + lse.abs())


def assert_right(task):
    """Within their bounds, and nothing beside them is written."""
    out, bound, lse, near = expected(task)
    assert ((task.out.double() - out).abs() <= bound).all()
    assert ((task.lse.double() - lse).abs() <= near).all()
    outside = task.out._base.clone()
    rows, columns = task.out.shape[2:]
    outside[:, :rows, :, :columns] = torch.nan
    assert outside.isnan().all()


def scheduled(rung, task, config, seed, most=3):
    """Compute a task in one of the orders that barriers allow."""
    (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
    programs = found.grid[0]
    if rung is folded:
        programs = min(most, launching.tiles(task, config))
    return schedules.run(
        found.kernel, (programs,), *found.args, **found.meta, seed=seed
    )


class TestInterpreted:
    @pytest.mark.usefixtures("narrow")
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_any_shape(self, case):
        for number, sides in enumerate(((16, 16), (32, 16), (16, 32))):
            task = task_for(case, dtype=(BF16, FP16)[number % 2])
            described.launch(task, described.Config(*sides, 4, 2))
            assert_right(task)

    @pytest.mark.usefixtures("narrow")
    def test_heads_that_are_filled_up(self):
        task = task_for(CASES[1], columns=24)
        described.launch(task, described.Config(32, 16, 4, 2))
        assert_right(task)

    def test_as_a_function(self):
        task = task_for((1, 2, 1, 20, 20, True, None))
        out, lse = described.attention(task.q, task.k, task.v, causal=True)
        wanted, bound, logs, near = expected(task)
        assert ((out.double() - wanted).abs() <= bound).all()
        assert ((lse.double() - logs).abs() <= near).all()
        assert out.is_contiguous()


@pytest.mark.usefixtures("narrow")
class TestScheduled:
    @each_rung
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_any_shape(self, rung, case):
        for seed, config in enumerate(SMALL):
            task = task_for(case, dtype=(BF16, FP16)[seed % 2])
            scheduled(rung, task, config, seed)
            assert_right(task)

    @each_rung
    @pytest.mark.parametrize("config", SMALL, ids=str)
    def test_any_order(self, rung, config):
        for seed in range(8):
            task = task_for(CASES[1 + seed % 2])
            scheduled(rung, task, config, seed, most=1 + seed % 4)
            assert_right(task)

    @each_rung
    def test_heads_that_are_filled_up(self, rung):
        task = task_for(CASES[1], columns=24)
        scheduled(rung, task, SMALL[0], 0)
        assert_right(task)

    @each_rung
    def test_large_scores(self, rung):
        """Sums that would overflow were it not for each row's greatest score."""
        task = task_for((1, 1, 1, 40, 40, True, None), scale=30.0)
        scheduled(rung, task, SMALL[0], 0)
        assert_right(task)

    @each_rung
    def test_heads_keep_to_themselves(self, rung):
        task = task_for((2, 2, 2, 40, 41, False, None))
        task.k[0, 1], task.v[1, 0] = torch.nan, torch.inf
        scheduled(rung, task, SMALL[1], 0)
        assert task.out[0, 1].isnan().all()
        assert not task.out[1, 0].isfinite().any()
        assert task.out[[0, 1], [0, 1]].isfinite().all()

    def test_the_counter_is_set_back(self):
        task = task_for((1, 2, 1, 70, 70, True, None))
        counter, config = torch.zeros(1, dtype=torch.int32), SMALL[3]
        for most in (1, 2, 3):
            (found,) = launches(
                lambda wrap: folded.launch(task._replace(wrap=wrap), config)
            )
            args = (*found.args[:-1], counter)
            schedules.run(found.kernel, (most,), *args, **found.meta)
            assert counter.item() == 0
            assert_right(task)


class TestTiles:
    """Which tile is whose, and which blocks it needs."""

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("group", [1, 2, 4])
    def test_each_tile_once_and_long_ones_first(self, causal, group):
        place_of = Translation().of(wgmma.place_of)
        places = [place_of(tile, 6, 70, 32, group, causal) for tile in range(18)]
        assert sorted(places) == [(h, r) for h in range(6) for r in (0, 32, 64)]
        for first in range(0, 18, 3 * group):
            rows = [row for _, row in places[first : first + 3 * group]]
            assert rows == sorted(rows, reverse=bool(causal))

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("left", [None, 0, 5, 16, 40])
    def test_blocks(self, causal, left):
        span_of = Translation().of(wgmma.span_of)
        rows, keys, block = 70, 75, 16
        for row in range(0, rows, 16):
            begin, whole, end = span_of(
                row, 16, rows, keys, left or 0, block, causal, left is not None
            )
            i = torch.arange(row, min(row + 16, rows))[:, None]
            j = torch.arange(keys)
            seen = (j <= i) | (not causal)
            seen &= (j >= i - left) if left is not None else True
            blocks = seen.any(0).nonzero().flatten() // block
            assert (begin, end) == (blocks.min(), blocks.max() + 1)
            for at in range(max(begin, whole), end - 1):
                assert seen[:, at * block : (at + 1) * block].all()


@pytest.mark.usefixtures("narrow")
class TestBarriers:
    """Who arrives, who waits: what the modules say in their tables."""

    def events(self, rung, config=SMALL[0], seed=0):
        task = task_for((1, 1, 1, 64, 64, True, None))
        events, *_ = scheduled(rung, task, config, seed, most=1)
        return events

    @each_rung
    def test_meetings(self, rung):
        config = SMALL[3] if rung is folded else SMALL[0]
        found = {
            name: (set(meeting.arrive), set(meeting.wait))
            for name, meeting in schedules.meetings(self.events(rung, config)).items()
        }
        groups, producer = {"consume 0", "consume 1"}, {"produce"}
        for name in ("q_arrived", "k_arrived", "v_arrived"):
            assert found.pop(name) == ({*producer, "copy engine"}, groups)
        for name in ("k_free", "v_free"):
            assert found.pop(name) == (groups, producer)
        if rung is folded:
            assert found.pop("q_free") == (groups, producer)
            assert found.pop("told_arrived") == (producer, groups)
            assert found.pop("told_free") == (groups, producer)
        assert not found

    @each_rung
    def test_what_is_in_flight_together(self, rung):
        """Products that a group has begun and not waited for: one, or two."""
        most = 0
        for seed in range(4):
            spans = schedules.spans(self.events(rung, seed=seed))
            mine = [s for s in spans if (s.who, s.what) == ("consume 1", "multiply")]
            for one, other in itertools.pairwise(mine):
                most = max(most, 1 + (other.begin < one.end))
        assert most == (1 if rung is cooperative else 2)

    def test_a_tile_is_stored_after_the_next_has_begun(self):
        for rung, late in ((overlapped, 0), (folded, 1)):
            mine = [e for e in self.events(rung) if e.who == "consume 0"]
            at = next(i for i, e in enumerate(mine) if e.what == "store")
            scores = [e for e in mine[:at] if e.what == "multiply" and "q_pl" in e.on]
            sums = [e for e in mine[:at] if e.what == "multiply" and "regis" in e.on]
            assert len(scores) == len(sums) + late


class TestLaunching:
    def good(self, **changes):
        x = torch.empty(2, 4, 64, 64, dtype=BF16, device="meta")
        lse = torch.empty(2, 4, 64, device="meta")
        return Task(x, x, x, x, lse, 0.125)._replace(**changes)

    def test_refusals(self):
        assert launching.refusal(self.good()) is None
        x = self.good().q
        far = x.new_empty(2, 4, 64, 72)
        apart = "along dimension {} must lie a multiple of 16 bytes apart, got {}"
        for changes, why in (
            ({"q": x.float()}, "q must be of bfloat16 or float16, got torch.float32"),
            ({"q": x.new_empty(2, 4, 64, 60)}, "a multiple of 8 columns up to 256"),
            ({"q": x.new_empty(2, 4, 64, 264)}, "up to 256, got 264"),
            ({"scale": 0.0}, "scale must be above 0 and finite, got 0.0"),
            ({"scale": float("inf")}, "scale must be above 0 and finite, got inf"),
            ({"right": 1}, "queries see no or all later keys, got 1 of them"),
            ({"left": 3, "q": x.new_empty(2, 4, 65, 64)}, "a key for each query"),
            ({"v": x[:, :2]}, r"v must have the shape of k, got \(2, 2, 64, 64\)"),
            ({"q": x.new_empty(2**21, 4, 256, 64)}, "rows of queries"),
            (
                {"q": torch.empty(2, 4, 64, 72).to(BF16)[..., 4:68]},
                "q can't be described: it must start",
            ),
            ({"out": x.mT}, "out can't be described: its last stride must be 1"),
            (
                {"q": far.as_strided(x.shape, (18688, 4672, 73, 1))},
                apart.format(2, 146),
            ),
            (
                {"k": far[:, :1].expand((*x.shape[:3], 72))[..., :64]},
                apart.format(1, 0),
            ),
        ):
            for rung in (described, *RUNGS):
                with pytest.raises(ValueError, match=why):
                    rung.launch(self.good(**changes))

    def test_groups_that_would_wait_for_one_another(self):
        with pytest.raises(ValueError, match="stages must be above 2 where groups ski"):
            folded.launch(self.good(right=0), Config(16, 3, 16, 2))

    def test_one_element_has_any_stride(self):
        x = torch.empty(1, 1, 1, 64, dtype=BF16).as_strided((1, 1, 1, 64), (3, 5, 7, 1))
        assert launching.unfit(x) is None
        assert launching.strides_of(x) == [8, 8, 8, 1]

    def test_what_fits(self, monkeypatch):
        task = self.good()._replace(q=torch.empty(1, 1, 1, 128, dtype=BF16))
        configs = {128: (Config(64, 2, 128, 3), Config(64, 2, 64, 2))}
        assert launching.shared_bytes(configs[128][0], 128) == 263168
        assert launching.config_for(task, configs) == configs[128][1]
        with pytest.raises(ValueError, match="no configuration fits into 232448 bytes"):
            launching.config_for(task, {128: configs[128][:1]})
        for rung in RUNGS:
            for width in (64, 128, 256):
                for config in rung.CONFIGS[width]:
                    assert launching.shared_bytes(config, width) <= SHARED

    @pytest.mark.parametrize(
        ("length", "causal", "group"),
        [(1024, True, 16), (16384, True, 8), (1024, False, 1), (2**20, True, 1)],
    )
    def test_heads_at_a_time(self, length, causal, group):
        x = torch.empty(4, 16, length, 64, dtype=BF16, device="meta")
        task = self.good(q=x, k=x, v=x, right=0 if causal else None)
        assert launching.heads_at_a_time(task) == group

    def test_short_queries_get_two_groups(self):
        for length, groups in ((1024, 2), (4096, 3)):
            x = torch.empty(1, 1, length, 64, dtype=BF16, device="meta")
            assert folding.config_for(self.good(q=x, k=x)).parts == groups
            assert folding.config_for(self.good(q=x, k=x, right=0, left=9)).parts == 2


class TestFunctions:
    def test_nothing_to_do(self):
        for rung in (described, *RUNGS):
            q = torch.empty(2, 3, 0, 64, dtype=BF16)
            out, lse = rung.attention(q, q, q)
            assert out.shape == q.shape
            assert lse.shape == (2, 3, 0)
            k = torch.empty(2, 3, 0, 64, dtype=BF16)
            out, lse = rung.attention(torch.ones(2, 3, 5, 64, dtype=BF16), k, k)
            assert (out == 0).all()
            assert (lse == -torch.inf).all()

    def test_what_cant_be_described_is_copied(self):
        task = task_for((1, 1, 1, 20, 20, True, None))
        q = task.q.mT.contiguous().mT
        out, _ = described.attention(q, task.k[..., ::1], task.v, causal=True)
        wanted, bound, *_ = expected(task)
        assert ((out.double() - wanted).abs() <= bound).all()

    def test_needs_hopper(self):
        if here.has("wgmma"):
            pytest.skip("has Hopper's tensor cores")
        q = torch.ones(1, 1, 4, 64, dtype=BF16)
        for rung in RUNGS:
            with pytest.raises(HardwareError, match="Hopper's warp-group matrix"):
                rung.attention(q, q, q)

    def test_refusals_by_name(self):
        q = torch.ones(1, 2, 4, 64, dtype=BF16)
        for arguments, error, match in (
            ((q[0], q, q), ValueError, "q must have 4 dimensions, got 3"),
            ((q.int(), q, q), TypeError, "q must be bfloat16 or float16, got int32"),
            ((q, q.half(), q), TypeError, "k must have the dtype of q"),
            ((q, q, q[..., :1, :]), ValueError, "v must have the shape of k"),
            ((q, q[..., :32], q[..., :32]), ValueError, "k must have the batches and"),
            ((q[:, :1], q, q), ValueError, "the heads of k must divide those of q"),
        ):
            with pytest.raises(error, match=match):
                folded.attention(*arguments)
        for options, error, match in (
            ({"window": -1}, ValueError, "window must be at least 0, got -1"),
            ({"window": 1.5}, TypeError, "window must be an int"),
            ({"scale": "1"}, TypeError, "scale must be a number"),
            ({"scale": -1.0}, ValueError, "scale must be above 0"),
        ):
            with pytest.raises(error, match=match):
                folded.attention(q, q, q, **options)
