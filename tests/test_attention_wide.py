"""Gradients of wide heads in one kernel for Hopper, in orders that barriers allow."""

import itertools

import pytest
import torch
import triton

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import (
    backward_fits,
    backward_trades,
    backward_wide,
    launching,
    public,
    ways,
)
from tilebook.attention import backward_trials as trials
from tilebook.attention.backward_wide import Config
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.matmul.evidence import launches

BF16, FP16 = torch.bfloat16, torch.float16
# Batches, heads, heads of keys, queries, keys, columns; causal.
WIDE = (
    *((1, 2, 1, 130, 70, 136, True), (1, 1, 1, 65, 66, 256, False)),
    *((1, 1, 1, 64, 150, 192, True), (1, 3, 1, 1, 1, 248, False)),
)
# Of fewer columns, which the same kernel computes here faster.
NARROW = (
    *((1, 2, 1, 200, 200, 64, True), (2, 2, 2, 130, 190, 64, False)),
    *((1, 1, 1, 64, 150, 40, True), (1, 4, 2, 200, 70, 56, True)),
)


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
        scheduled(asked, backward_wide.CONFIGS[seed], seed)
        assert_right(asked)


@pytest.mark.parametrize("case", NARROW, ids=str)
def test_any_order_of_few_columns(case, narrow):
    for seed, stages in itertools.product((0, 1, 2), (2, 3)):
        torch.manual_seed(seed)
        asked = gradient_for(case, (BF16, FP16)[seed % 2])
        scheduled(asked, Config(stages, (16, 32)[seed % 2]), 10 * stages + seed)
        assert_right(asked)


def test_who_arrives_and_who_waits(narrow):
    events = scheduled(gradient_for((1, 1, 1, 300, 64, 64, False)), Config(2, 16), 3)
    found = schedules.meetings(events[0])
    one, other = {"weigh"}, {"differentiate"}
    who = {name: (set(each.arrive), set(each.wait)) for name, each in found.items()}
    engine = {"produce", "copy engine"}
    assert who == {
        "kv_arrived": (engine, one | other), "q_arrived": (engine, one | other),
        "do_arrived": (engine, one | other), "free": (one | other, {"produce", *one}),
        "p_there": (one, other), "p_free": (other, one),
        "ds_there": (other, one), "ds_free": (one, other),
    }  # fmt: skip


def mistakes():
    """Lines of the kernel, and what each is changed to."""
    trades, wide = backward_trades, backward_wide
    return (
        (trades, "mbarrier.wait(p_free.index(0), (count & 1) ^ 1)", "pass"),
        (trades, "mbarrier.wait(p_there.index(0), count & 1)", "pass"),
        (trades, "mbarrier.wait(ds_free.index(0), count & 1)", "pass"),
        (trades, "(count & 1) ^ 1, pred=count > 0", "(count & 1) ^ 1, pred=False"),
        (trades, "    fence_async_shared()\n    mbarrier", "    mbarrier"),
        (trades, "    half = warpgroup_mma_wait(1, deps=(half,))\n    mbarrier.arrive"
            "(ds_free.index(0))", "    mbarrier.arrive(ds_free.index(0))\n    half = "
            "warpgroup_mma_wait(1, deps=(half,))"),
        (trades, "tma.store_wait(0)", "pass"),
        (trades, "column + COLUMNS // 2", "column + COLUMNS // 4"),
        (trades, "(dp * scale - delta)", "(dp - delta)"),
        (trades, "before, row_before, 0, dq_place", "before, row, 0, dq_place"),
        (trades, "lines.index(2 * at + 1).load", "lines.index(2 * at).load"),
        (trades, "slice(HALF * WIDE, WIDE, 1)", "slice(0, WIDE, 1)"),
        (trades, "    dk, _ = warpgroup_mma_wait(0, deps=(dk, ds))\n    mbarrier.arrive"
            "(free.index(at))", "    mbarrier.arrive(free.index(at))\n    dk, _ = "
            "warpgroup_mma_wait(0, deps=(dk, ds))"),
        (wide, "    if count > 0:", "    if count > 1:"),
        (wide, "mbarrier.wait(free.index(last % STAGES), (last // STAGES) & 1)", "pass"),
        (wide, "before, row_before = head * share + each, row", "row_before = row"),
        (wide, "line = batch * heads * share", "line = 0 * batch * share"),
        (wide, "((count // STAGES) & 1) ^ 1", "(count // STAGES) & 1"),
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
    scheduled(asked, Config(2, 16), 5)
    for x in (asked.dq, asked.dk, asked.dv):
        assert x.isfinite().all()


def all_of_it():
    for case, seed in itertools.product(NARROW, range(3)):
        torch.manual_seed(seed)
        asked = gradient_for(case)
        scheduled(asked, Config(2, 16), seed)
        assert_right(asked)
    ragged()


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
