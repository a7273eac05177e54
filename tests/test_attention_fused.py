"""All gradients in one kernel for Hopper, in orders that barriers allow; on a card."""

import itertools

import pytest
import torch
import triton

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import (
    backward_blocks,
    backward_fits,
    backward_fused,
    launching,
    public,
    reference,
    ways,
)
from tilebook.attention import backward_trials as trials
from tilebook.attention.backward_fits import Config
from tilebook.attention.backward_trials import assert_right
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.hopper.launching import SHARED
from tilebook.matmul.evidence import launches

BF16, FP16 = torch.bfloat16, torch.float16
# Batches, heads, heads of keys, queries, keys, columns; causal.
CASES = (
    *((1, 2, 1, 200, 200, 64, True), (2, 2, 2, 130, 190, 64, False)),
    *((1, 1, 1, 64, 300, 128, True), (1, 2, 1, 300, 70, 128, True)),
    *((1, 3, 1, 1, 1, 128, False), (1, 2, 2, 129, 257, 72, True)),
    *((1, 1, 1, 128, 256, 64, False), (1, 4, 2, 65, 127, 40, False)),
)


def gradient_for(case, dtype=BF16, device="cpu"):
    return trials.gradient_for(case, dtype, device)


def scheduled(asked, config, seed):
    return trials.scheduled(backward_fused.launch, asked, config, seed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_order_gives_gradients(case):
    for seed, stages in itertools.product((0, 1), (2, 3)):
        torch.manual_seed(seed)
        asked = gradient_for(case, (BF16, FP16)[seed])
        scheduled(asked, Config(stages), 10 * stages + seed)
        assert_right(asked)


def test_keys_that_are_not_there_weigh_nothing():
    """Beside logits that are all far below 0 theirs, of zeros, would be infinite."""
    asked = gradient_for((1, 1, 1, 64, 70, 64, False))
    task = asked.task
    task.q.fill_(4.0)
    task.k.fill_(-4.0)
    out, lse = reference.attention(
        *(x.double() for x in task[:3]), scale=task.scale, right=None
    )
    task.out.copy_(out)
    task.lse.copy_(lse)
    scheduled(asked, Config(2), 5)
    for x in (asked.dq, asked.dk, asked.dv):
        assert x.isfinite().all()


def test_who_arrives_and_who_waits():
    events = scheduled(gradient_for((1, 1, 1, 300, 128, 64, False)), Config(2), 3)
    found = schedules.meetings(events[0])
    both = {"consume 0", "consume 1"}
    who = {name: (set(each.arrive), set(each.wait)) for name, each in found.items()}
    engine = {"produce", "copy engine"}
    assert who == {
        "kv_arrived": (engine, both), "q_arrived": (engine, both),
        "do_arrived": (engine, both), "ds_there": (both, both),
        "free": (both, {"produce"}),
    }  # fmt: skip


def mistakes():
    """Lines of the kernel, and what each is changed to."""
    blocks, fused = backward_blocks, backward_fused
    return (
        (blocks, "mbarrier.wait(ds_there.index(turn), (count >> 1) & 1)", "pass"),
        (blocks, "    fence_async_shared()\n    mbarrier", "    mbarrier"),
        (blocks, "mbarrier.wait(do_arrived.index(at), (count // STAGES) & 1)", "pass"),
        (blocks, "keys + ahead <= queries", "keys + ahead < queries"),
        (blocks, "keys < keys_left", "keys < keys_left + 128"),
        (blocks, "PARTS * turn + part", "PARTS * turn + PART"),
        (blocks, "tma.store_wait(0)", "pass"),
        (blocks, "(dp * scale - delta)", "(dp - delta)"),
        (blocks, "index(2 * at + 1).load", "index(2 * at).load"),
        (blocks, "[line, where[2]]", "[line, 0 * where[2]]"),
        (blocks, "line = batch * heads * share", "line = 0 * batch * share"),
        (launching, "strides = [x.stride(1), 1]", "strides = [rows, 1]"),
        (blocks, "count + 1, PART, more", "count, PART, more"),
        (blocks, "((count // STAGES) & 1) ^ 1", "(count // STAGES) & 1"),
        (blocks, "begin = gl.minimum(key // BLOCK_M, end)", "begin = 0 * key + 1"),
        (blocks, "count += 1\n\n\n", "count += 2\n\n\n"),
        (blocks, "one = head * share + each", "one = head * share + 0 * each"),
        (fused, "free = barriers(STAGES, PARTS)", "free = barriers(STAGES, 1)"),
        (fused, "place = places.index(PARTS + PART)", "place = places.index(0)"),
    )


def all_of_it():
    for case, seed in itertools.product(CASES, range(3)):
        torch.manual_seed(seed)
        asked = gradient_for(case)
        scheduled(asked, Config(2), seed)
        assert_right(asked)
    test_keys_that_are_not_there_weigh_nothing()


@pytest.mark.parametrize("number", range(len(mistakes())))
def test_each_mistake_is_noticed(number):
    module, old, new = mistakes()[number]
    wrong = (AssertionError, schedules.ScheduleError, IndexError)
    with testing.mutated_module(module, old, new), pytest.raises(wrong):
        all_of_it()


class TestRefusal:
    def good(self, **more):
        x = torch.empty(2, 4, 256, 64, dtype=BF16, device="meta")
        task = Task(x, x, x, x, torch.empty(2, 4, 256, device="meta"), 0.1)
        return Gradient(task._replace(**more), x, None, x, x, x)

    def test_none(self):
        assert backward_fused.refusal(self.good()) is None
        assert backward_fused.refusal(self.good(right=0)) is None

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"q": torch.empty(2, 4, 256, 64, device="meta")}, "q must be of"),
            ({"scale": -1.0}, "no option"),
            ({"cap": 3.0}, "no option"),
            ({"dropout": 0.5}, "no option"),
            ({"sinks": torch.empty(4)}, "no option"),
            ({"left": 5}, "queries see"),
            ({"right": 5}, "queries see"),
        ],
    )
    def test_reasons(self, more, words):
        asked = self.good(**more)
        assert words in backward_fused.refusal(asked)
        with pytest.raises(ValueError, match=words):
            backward_fused.launch(asked)

    def test_sides(self):
        for columns, words in ((136, "multiple of 8"), (60, "multiple of 8")):
            x = torch.empty(2, 4, 256, columns, dtype=BF16, device="meta")
            assert words in backward_fused.refusal(self.good(q=x, k=x, v=x))
        x = torch.empty(2, 4, 128, 64, dtype=BF16, device="meta")
        short = self.good(k=x, v=x, right=0, bottom=True)
        assert "first positions" in backward_fused.refusal(short)
        asked = self.good()
        turned = asked._replace(do=asked.do.mT)
        assert "do can't be described" in backward_fused.refusal(turned)


@pytest.mark.parametrize(
    ("sizes", "causal", "group"),
    [
        # Batches, heads, heads of keys, positions, columns.
        ((4, 16, 2, 4096, 128), True, 4), ((4, 16, 2, 4096, 128), False, 1),
        ((4, 16, 16, 4096, 128), True, 8), ((1, 16, 16, 16384, 128), True, 2),
        ((16, 32, 32, 1024, 64), True, 16), ((1, 2, 1, 128, 64), True, 1),
    ],
)  # fmt: skip
def test_heads_at_a_time(sizes, causal, group):
    batch, heads, kv, rows, columns = sizes
    q = torch.empty(batch, heads, rows, columns, dtype=BF16, device="meta")
    k = torch.empty(batch, kv, rows, columns, dtype=BF16, device="meta")
    lse = torch.empty(batch, heads, rows, device="meta")
    task = Task(q, k, k, q, lse, 0.1, None, 0 if causal else None)
    assert backward_fits.heads_at_a_time(task) == group


def test_which_gradients_are_launched(monkeypatch):
    launched = []
    for name in ("backward", "backward_fused", "backward_whole"):
        rung = getattr(ways, name)
        monkeypatch.setattr(rung, "launch", lambda *_, name=name: launched.append(name))
    asked = TestRefusal().good()
    monkeypatch.setattr(here, "has", lambda name: True)
    for deterministic in (True, False):
        ways.launch_gradients(asked, deterministic)
    capped = asked._replace(task=asked.task._replace(cap=2.0))
    ways.launch_gradients(capped, False)
    steps = asked._replace(steps=asked.task.lse)
    ways.launch_gradients(steps, False)
    assert launched == ["backward", "backward_fused", "backward", "backward"]
    monkeypatch.setattr(here, "has", lambda name: False)
    ways.launch_gradients(asked, False)
    assert launched[-1] == "backward_whole"


# Of 128 columns the sums alone take more than half of a thread's registers: some of
# what is computed once leaves for memory, on Triton 3.9 more.
NEWER = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
SPILLED = {64: 0, 128: 160 if NEWER else 48}


@pytest.mark.parametrize("columns", [64, 128])
@pytest.mark.parametrize("kind", ["full", "causal", "ragged", "ragged-causal"])
def test_compiles_clean(columns, kind):
    length = 4100 if "ragged" in kind else 4096
    x = torch.empty(4, 16, length, columns, dtype=BF16, device="meta")
    task = Task(x, x, x, x, torch.empty(4, 16, length, device="meta"), 0.1)
    task = task._replace(right=0 if "causal" in kind else None)
    asked = Gradient(task, x, None, x, x, x)
    for config in backward_fits.CONFIGS[columns]:

        def launch(wrap, config=config):
            wrapped = asked._replace(task=task._replace(wrap=wrap))
            backward_fused.launch(wrapped, config)

        *_, found = launches(launch)
        made = compile_only.compile(
            found.kernel, *found.args, target="sm_90", **found.meta
        )
        evidence = made.evidence
        assert not evidence.warnings
        assert evidence.spill_store_bytes <= SPILLED[columns]
        room = backward_fits.shared_bytes(config, columns)
        assert evidence.shared_bytes <= room <= SHARED
        assert "UTMAREDG" in made.sass


@pytest.mark.gpu
class TestOnACard:
    @pytest.fixture(autouse=True)
    def hopper(self, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")

    @pytest.mark.parametrize("case", [
        *CASES, (2, 4, 2, 1000, 1000, 64, True), (1, 4, 4, 4097, 4097, 128, False),
        (2, 8, 1, 1000, 1200, 128, True), (1, 2, 2, 2048, 777, 56, True),
    ], ids=str)  # fmt: skip
    def test_any_shape(self, case, device):
        for dtype in (BF16, FP16):
            asked = gradient_for(case, dtype, device)
            for config in backward_fits.CONFIGS[backward_fits.width_of(asked.task)]:
                asked.dq.fill_(torch.nan)
                backward_fused.launch(asked, config)
                assert_right(asked)

    def test_what_stays_the_same_and_what_may_not(self, device):
        """dk and dv are summed in registers: of them every bit is the same."""
        asked = gradient_for((2, 8, 4, 2048, 2048, 128, True), device=device)
        backward_fused.launch(asked)
        first = [x.clone() for x in (asked.dk, asked.dv)]
        for _ in range(20):
            backward_fused.launch(asked)
            assert torch.equal(asked.dk, first[0])
            assert torch.equal(asked.dv, first[1])
        assert_right(asked)

    def test_by_default_and_when_bits_must_not_differ(self, device):
        q, k, v = (
            torch.randn(2, 4, 512, 64, device=device, dtype=BF16, requires_grad=True)
            for _ in "qkv"
        )
        grad = torch.randn_like(q)

        def gradients(**more):
            out = public.attention(q, k, v, causal=True, **more)
            return torch.autograd.grad(out, (q, k, v), grad)

        same = gradients(deterministic=True)
        for found, other in zip(gradients(), same, strict=True):
            torch.testing.assert_close(found, other, atol=0.05, rtol=0.05)
        torch.use_deterministic_algorithms(True)
        try:
            for found, other in zip(gradients(), same, strict=True):
                assert torch.equal(found, other)
        finally:
            torch.use_deterministic_algorithms(False)
