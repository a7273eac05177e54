"""Gradients of wide heads in one kernel for Hopper, in orders that barriers allow."""

import itertools

import pytest
import torch

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import (
    backward_blocks,
    backward_trades,
    backward_wide,
    configs,
    ways,
)
from tilebook.attention import backward_trials as trials
from tilebook.attention.backward_wide import Config
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.hopper.launching import SHARED
from tilebook.matmul.evidence import launches

BF16, FP16 = torch.bfloat16, torch.float16
# Batches, heads, heads of keys, queries, keys, columns; causal.
WIDE = (
    *((1, 2, 1, 130, 70, 136, True), (1, 1, 1, 65, 66, 256, False)),
    *((1, 1, 1, 64, 150, 192, True), (1, 3, 1, 1, 1, 248, False)),
)
# Of fewer columns, which the same kernel computes here faster.
NARROW = (
    *((1, 2, 1, 200, 130, 64, True), (2, 1, 1, 130, 70, 64, False)),
    *((1, 1, 1, 64, 150, 40, True), (1, 4, 2, 130, 70, 56, True)),
)

# Where mistakes are looked for.
FEW = ((2, 1, 1, 130, 70, 64, False), (1, 4, 1, 130, 70, 56, True))


def gradient_for(case, dtype=BF16, device="cpu"):
    return trials.gradient_for(case, dtype, device)


def scheduled(asked, config, seed):
    return trials.scheduled(backward_wide.launch, asked, config, seed)


def assert_right(asked):
    trials.assert_right(asked, handed=True)


@pytest.fixture
def narrow(monkeypatch):
    """The kernel, for heads of 64 columns."""
    monkeypatch.setattr(backward_wide, "LEAST", 8)
    monkeypatch.setattr(backward_wide, "WIDTH", 64)


@pytest.mark.parametrize("case", WIDE, ids=str)
def test_any_order_gives_gradients(case):
    for seed in (0, 1):
        torch.manual_seed(seed)
        asked = gradient_for(case, (BF16, FP16)[seed])
        scheduled(asked, Config(2), seed)
        assert_right(asked)


@pytest.mark.parametrize("case", NARROW, ids=str)
def test_any_order_of_few_columns(case, narrow):
    for seed, stages in ((0, 2), (1, 3), (2, 2)):
        torch.manual_seed(seed)
        asked = gradient_for(case, (BF16, FP16)[seed % 2])
        scheduled(asked, Config(stages), 10 * stages + seed)
        assert_right(asked)


def test_who_arrives_and_who_waits(narrow):
    events = scheduled(gradient_for((1, 1, 1, 300, 64, 64, False)), Config(2), 3)
    found = schedules.meetings(events[0])
    one, other = {"weigh"}, {"differentiate"}
    who = {name: (set(each.arrive), set(each.wait)) for name, each in found.items()}
    engine = {"produce", "copy engine"}
    assert who == {
        "kv_arrived": (engine, one | other), "q_arrived": (engine, one | other),
        "do_arrived": (engine, one | other), "free": (one | other, {"produce", *one}),
        "p_there": (one, other), "p_free": (other, one),
        "ds_there": (other, one),
    }  # fmt: skip


def mistakes():
    """Lines of the kernel, and what each is changed to."""
    trades, wide, blocks = backward_trades, backward_wide, backward_blocks
    return (
        (trades, "    # Who has read weights has multiplied `do` before.\n"
            "    mbarrier.wait(p_free.index(0), count & 1)\n", ""),
        (trades, "mbarrier.wait(p_there.index(0), count & 1)", "pass"),
        (trades, "turn = count % STAGES, count & 1", "turn = count % STAGES, 0"),
        (trades, "(last >> 1) & 1, pred=count > 0", "(last >> 1) & 1, pred=False"),
        (trades, "    fence_async_shared()\n    mbarrier", "    mbarrier"),
        (trades, "    fence_async_shared()\n    async_add", "    async_add"),
        (trades, "tma.store_wait(0)", "pass"),
        (trades, "HALF * half.shape[1]", "0 * half.shape[1]"),
        (trades, "(dp * scale - delta)", "(dp - delta)"),
        (trades, "before, row_before, ring", "before, row, ring"),
        (trades, "ring, 2 * at + 1, WEIGHS", "ring, 2 * at, WEIGHS"),
        (trades, "ring, 2 * at, DIFF", "ring, 2 * at + 1, DIFF"),
        (trades, "lines.index(2 * at + 1).load", "lines.index(2 * at).load"),
        (trades, "slice(HALF * WIDE, WIDE, 1)", "slice(0, WIDE, 1)"),
        (trades, "turn = (count + 1) & 1", "turn = count & 1"),
        (wide, "        half = warpgroup_mma_wait(0, deps=(half,))\n", ""),
        (wide, "(last >> 1) & 1)", "((last >> 1) & 1) ^ 1)"),
        (wide, "(free.index(at), (last // STAGES) & 1)", "(kv_arrived.index(0), 0)"),
        (wide, "before, row_before = head * share + each, row", "row_before = row"),
        (blocks, "line = batch * heads * share", "line = 0 * batch * share"),
        (blocks, "((count // STAGES) & 1) ^ 1", "(count // STAGES) & 1"),
        (wide, "barriers(STAGES, 2)", "barriers(STAGES, 1)"),
        (wide, "RAGGED=keys % BLOCK_N > 0", "RAGGED=False"),
    )  # fmt: skip


def ragged():
    """Beside logits that are all far below 0 those of zeros would be infinite."""
    asked = gradient_for((1, 1, 1, 64, 70, 64, False))
    task = asked.task
    task.q.fill_(4.0)
    task.k.fill_(-4.0)
    task.out.copy_(task.v.double().mean(2, keepdim=True))
    task.lse.fill_(-16 * 64 * task.scale + torch.tensor(70.0).log())
    scheduled(asked, Config(2), 5)
    for x in (asked.dq, asked.dk, asked.dv):
        assert x.isfinite().all()


def all_of_it():
    ragged()
    for seed, case in itertools.product(range(6), FEW):
        torch.manual_seed(seed)
        asked = gradient_for(case)
        scheduled(asked, Config(2), seed)
        assert_right(asked)


def test_keys_that_are_not_there_weigh_nothing(narrow):
    ragged()


@pytest.mark.parametrize("number", range(len(mistakes())))
def test_each_mistake_is_noticed(number, narrow):
    module, old, new = mistakes()[number]
    wrong = (AssertionError, schedules.ScheduleError, IndexError)
    with testing.mutated_module(module, old, new):
        for name, x in (("LEAST", 8), ("WIDTH", 64)):
            setattr(backward_wide, name, x)
        with pytest.raises(wrong):
            all_of_it()


def test_what_is_no_mistake_is_not(narrow):
    old, new = "tma.store_wait(0)", "tma.store_wait(0 + 0)"
    with testing.mutated_module(backward_trades, old, new):
        all_of_it()


class TestRefusal:
    def good(self, **more):
        x = torch.empty(2, 4, 256, 256, dtype=BF16, device="meta")
        task = Task(x, x, x, x, torch.empty(2, 4, 256, device="meta"), 0.1)
        return Gradient(task._replace(**more), x, None, x, x, x)

    def test_none(self):
        assert backward_wide.refusal(self.good()) is None
        assert backward_wide.refusal(self.good(right=0)) is None

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"q": torch.empty(2, 4, 256, 256, device="meta")}, "q must be of"),
            ({"cap": 3.0}, "no option"),
            ({"left": 5}, "queries see"),
        ],
    )
    def test_reasons(self, more, words):
        asked = self.good(**more)
        assert words in backward_wide.refusal(asked)
        with pytest.raises(ValueError, match=words):
            backward_wide.launch(asked)

    @pytest.mark.parametrize("columns", [128, 252, 264])
    def test_columns(self, columns):
        x = torch.empty(2, 4, 256, columns, dtype=BF16, device="meta")
        words = "multiple of 8 columns from 136 to 256"
        assert words in backward_wide.refusal(self.good(q=x, k=x, v=x))

    def test_no_room(self, monkeypatch):
        monkeypatch.setattr(configs, "SHARED", 100_000)
        with pytest.raises(ValueError, match="no configuration fits"):
            backward_wide.launch(self.good())


def test_it_is_not_chosen_yet(monkeypatch):
    """Nobody has seen it run on a card."""
    launched = []
    for name in ("backward", "backward_fused"):
        rung = getattr(ways, name)
        monkeypatch.setattr(rung, "launch", lambda *_, name=name: launched.append(name))
    monkeypatch.setattr(here, "has", lambda name: True)
    asked = TestRefusal().good()
    ways.launch_gradients(asked, False)
    x = torch.empty(2, 4, 256, 128, dtype=BF16, device="meta")
    few = asked._replace(task=asked.task._replace(q=x, k=x, v=x), do=x, dk=x, dv=x)
    ways.launch_gradients(few, False)
    assert launched == ["backward", "backward_fused"]


# Sums take more than half of a thread's registers: some addresses leave for memory.
SPILLED = 80


@pytest.mark.parametrize("kind", ["full", "ragged-causal"])
def test_compiles_clean(kind):
    length = 4100 if "ragged" in kind else 4096
    x = torch.empty(4, 16, length, 256, dtype=BF16, device="meta")
    task = Task(x, x, x, x, torch.empty(4, 16, length, device="meta"), 0.1)
    task = task._replace(right=0 if "causal" in kind else None)
    asked = Gradient(task, x, None, x, x, x)
    for config in backward_wide.CONFIGS:

        def launch(wrap, config=config):
            wrapped = asked._replace(task=task._replace(wrap=wrap))
            backward_wide.launch(wrapped, config)

        *_, found = launches(launch)
        made = compile_only.compile(
            found.kernel, *found.args, target="sm_90", **found.meta
        )
        evidence = made.evidence
        assert not evidence.warnings
        assert evidence.spill_store_bytes <= SPILLED
        room = backward_wide.shared_bytes(config)
        assert evidence.shared_bytes <= room <= SHARED
        assert "UTMAREDG" in made.sass


@pytest.mark.gpu
class TestOnACard:
    @pytest.fixture(autouse=True)
    def hopper(self, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")

    @pytest.mark.parametrize("case", [
        *WIDE, (2, 4, 2, 1000, 1000, 256, True), (1, 4, 4, 2049, 2049, 256, False),
        (2, 8, 1, 1000, 1200, 256, True), (1, 2, 2, 2048, 777, 184, True),
    ], ids=str)  # fmt: skip
    def test_any_shape(self, case, device):
        for dtype in (BF16, FP16):
            asked = gradient_for(case, dtype, device)
            for config in backward_wide.CONFIGS:
                asked.dq.fill_(torch.nan)
                backward_wide.launch(asked, config)
                assert_right(asked)

    def test_what_stays_the_same_and_what_may_not(self, device):
        """dk and dv are summed in registers: of them every bit is the same."""
        asked = gradient_for((2, 8, 4, 1024, 1024, 256, True), device=device)
        backward_wide.launch(asked)
        first = [x.clone() for x in (asked.dk, asked.dv)]
        for _ in range(20):
            backward_wide.launch(asked)
            assert torch.equal(asked.dk, first[0])
            assert torch.equal(asked.dv, first[1])
        assert_right(asked)
