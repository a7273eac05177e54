"""Attention in eight bits for Hopper, in orders that barriers allow; and on a card."""

import itertools
import re

import pytest
import torch
import triton

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import (
    eight_errors,
    eight_hopper,
    eight_operands,
    eight_public,
    eight_wgmma,
    reference,
)
from tilebook.attention.eight_operands import E4M3, Eight, back
from tilebook.attention.launching import Config
from tilebook.attention.trials import close
from tilebook.fp8 import scaling
from tilebook.hopper.launching import SHARED
from tilebook.matmul.evidence import launches

BITS = 12 if here.has("wgmma") else None
CONFIG = Config(64, 2, 128, 2)
# Batches, heads, heads of keys, queries, keys, features, those of values; causal.
CASES = (
    *((1, 2, 1, 200, 300, 64, 64, False), (1, 2, 2, 130, 260, 64, 64, True)),
    *((2, 1, 1, 300, 129, 32, 64, True), (1, 1, 1, 1, 1, 128, 16, False)),
    (1, 2, 1, 70, 600, 16, 64, False),
)


def quantised(case, device="cpu", granularity="block"):
    """Codes by PyTorch's own operations; scales differ from block to block."""
    batch, heads, kv, rows, keys, d, e, _ = case
    q = torch.randn(batch, heads, rows, d, device=device)
    k = torch.randn(batch, kv, keys, d, device=device)
    v = torch.randn(batch, kv, keys, e, device=device)
    q[:, :, 128:] *= 3.0
    k[:, :, :128] *= 0.25
    v *= torch.logspace(-2, 2, e, device=device)

    def rounded(x, matrix, shape):
        codes, scale = scaling.reference(matrix, "row")
        return Eight(codes.view(x.shape), scale.reshape(shape))

    def lines(x):
        if granularity == "head":
            return rounded(x, x.flatten(0, 1).flatten(1), (*x.shape[:2], 1))
        parts = [
            rounded(part, part.flatten(0, 1).flatten(1), (*x.shape[:2], 1))
            for part in x.split(eight_operands.GROUP, 2)
        ]
        return Eight(
            torch.cat([x.codes.contiguous().view(torch.uint8) for x in parts], 2).view(
                E4M3
            ),
            torch.cat([x.scale for x in parts], 2),
        )

    turned = eight_operands.turned(v)
    values = rounded(turned, turned.flatten(0, 2), turned.shape[:3])
    return lines(q), lines(k), values


def task_for(eights, causal, wrap=None):
    q, k, v = eights
    task = eight_operands.task_of(
        q.codes, k.codes, v.codes, q.scale, k.scale, v.scale, causal,
        q.codes.shape[3] ** -0.5, torch.bfloat16,
    )  # fmt: skip
    task.out.fill_(torch.nan)
    task.lse.fill_(torch.nan)
    return task


def assert_right(task, eights):
    wide = back(*eights)
    told = {"scale": task.scale}
    want = reference.attention(*wide, **told, right=0 if task.causal else None)
    apart = eight_hopper.widths(task)[1] <= eight_hopper.APART
    limits = eight_errors.bounds(
        *wide, causal=task.causal, bits=BITS, apart=apart, chunk=128, **told
    )
    for x, exact, limit in zip((task.out, task.lse), want, limits, strict=True):
        close(x, exact, limit)


def scheduled(case, seed, granularity="block", config=CONFIG):
    torch.manual_seed(seed)
    eights = quantised(case, granularity=granularity)
    task = task_for(eights, case[-1])
    (found,) = launches(
        lambda wrap: eight_hopper.launch(task._replace(wrap=wrap), config)
    )
    events = schedules.run(
        found.kernel, found.grid, *found.args, **found.meta, seed=seed
    )
    assert_right(task, eights)
    return events


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_order(case):
    for seed, granularity in enumerate(("block", "head")):
        scheduled(case, seed, granularity, CONFIG._replace(stages=2 + seed))


def test_values_in_one_sum(monkeypatch):
    """As of heads with 256 features, whose sums registers hold but once."""
    monkeypatch.setattr(eight_hopper, "APART", 32)
    scheduled(CASES[1], 3)


def test_who_arrives_and_who_waits():
    events = scheduled(CASES[0], 4)
    found = schedules.meetings(events[0])
    groups, engine = {"consume 0", "consume 1"}, {"produce", "copy engine"}
    who = {name: (set(each.arrive), set(each.wait)) for name, each in found.items()}
    arrived = dict.fromkeys(("q_arrived", "k_arrived", "v_arrived"), (engine, groups))
    free = dict.fromkeys(("k_free", "v_free"), (groups, {"produce"}))
    assert who == arrived | free


def mistakes():
    return (
        (eight_wgmma, "(0, 1, 3, 2, 4)", "(0, 1, 2, 3, 4)"),
        (eight_wgmma, "scaled(sums, shrink) + partial", "sums + partial"),
        (eight_wgmma, "block * BLOCK_N // GROUP * stride", "0 * stride"),
        (eight_wgmma, "((count // STAGES) & 1) ^ 1", "(count // STAGES) & 1"),
        (eight_hopper, "let_go(k_free, count)\n    most", "most"),
        (eight_hopper, "let_go(v_free, count - 1)\n", "pass\n"),
        (eight_hopper, "acc = scaled(acc, shrink) + part if APART else scaled",
         "acc = acc + part if APART else scaled"),
        (eight_hopper, "read(weights)\n    let_go(v_free, count - 1)",
         "part = part + part\n    let_go(v_free, count - 1)"),
        (eight_hopper, "v_arrived, count - 1, APART", "v_arrived, count, APART"),
        (eight_hopper, "row // GROUP * scale_qs", "0 * scale_qs"),
        (eight_hopper, "end - 2 - done, 0)", "end - 1 - done, 0)"),
        (eight_hopper, "at * scale_ve", "0 * at"),
        (eight_hopper, "head //= share\n    at", "head //= 1\n    at"),
        (eight_hopper, "own //= share", "own //= 1"),
        (eight_hopper, "        at += BLOCK_N\n", ""),
        (eight_hopper, "barriers(STAGES, PARTS), barriers(STAGES, PARTS)",
         "barriers(STAGES, 1), barriers(STAGES, 1)"),
    )  # fmt: skip


def all_of_it():
    for case, seed in itertools.product((*CASES[:2], CASES[4]), range(2)):
        scheduled(case, seed)


@pytest.mark.parametrize("number", range(len(mistakes())))
def test_each_mistake_is_noticed(number):
    module, old, new = mistakes()[number]
    wrong = (AssertionError, schedules.ScheduleError, IndexError)
    with testing.mutated_module(module, old, new), pytest.raises(wrong):
        all_of_it()


def meta_task(d=64, causal=False, length=4096, same=False, **more):
    def empty(*shape, dtype=torch.float32):
        return torch.empty(*shape, dtype=dtype, device="meta")

    q = empty(4, 16, length, d, dtype=E4M3)
    v = empty(4, 16, d, -(-length // 16) * 16, dtype=E4M3)
    scale = empty(4, 16, 1 if same else -(-length // 128))
    told = {"q": q, "k": q, "v": v} | more
    if more:
        scale = scale[..., :1]
    return eight_operands.task_of(
        told["q"], told["k"], told["v"], scale, scale, empty(4, 16, d), causal, 0.1,
        torch.bfloat16,
    )  # fmt: skip


def test_refusals():
    assert eight_hopper.refusal(meta_task()) is None
    odd = torch.empty(4, 16, 4096, 72, dtype=E4M3, device="meta")
    apart = torch.empty(4, 4096, 16, 65, dtype=E4M3, device="meta")
    apart = apart[..., :64].transpose(1, 2)
    for more, words in (
        ({"q": odd, "k": odd}, "q must have a multiple of 16"),
        ({"k": apart}, "k can't be described"),
    ):
        task = meta_task(**more)
        assert words in eight_hopper.refusal(task)
        with pytest.raises(ValueError, match=words):
            eight_hopper.launch(task)


def test_which_is_launched(monkeypatch):
    launched = []
    for name in ("eight", "eight_hopper"):
        rung = getattr(eight_public, name)
        monkeypatch.setattr(rung, "launch", lambda _, name=name: launched.append(name))
    monkeypatch.setattr(here, "has", lambda name: True)
    odd = torch.empty(4, 16, 4096, 72, dtype=E4M3, device="meta")
    short = torch.empty(4, 16, 63, 64, dtype=E4M3, device="meta")
    for task in (meta_task(), meta_task(q=odd, k=odd), meta_task(q=short)):
        eight_public.launch(task)
    monkeypatch.setattr(here, "has", lambda name: False)
    eight_public.launch(meta_task())
    assert launched == ["eight_hopper", "eight", "eight", "eight"]


EARLIER = tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 8)
# From 3.8 on weights are copied for a product, and a few registers are short.
SPILLED = 0 if EARLIER else 64


@pytest.mark.parametrize(
    ("d", "causal", "length", "same"),
    [(64, True, 4096, False), (128, False, 4096, True), (128, True, 4100, False),
     (256, False, 4100, False)],
)  # fmt: skip
def test_compiles_clean(d, causal, length, same):
    task = meta_task(d, causal, length, same)
    (found,) = launches(lambda wrap: eight_hopper.launch(task._replace(wrap=wrap)))
    made = compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)
    evidence = made.evidence
    assert not evidence.warnings
    assert evidence.spill_store_bytes <= SPILLED
    config = eight_hopper.config_for(task)
    room = eight_hopper.shared_bytes(config, *eight_hopper.widths(task))
    assert evidence.shared_bytes <= room <= SHARED
    assert "e4m3.e4m3" in made.ptx
    # No thread gives weights away: rows' maxima and sums are all that is exchanged.
    assert made.ptx.count("st.shared.b8") == 0
    assert made.ptx.count("shfl.sync.bfly") <= 32
    if EARLIER:
        # The registers that products take weights from are read after the wait.
        taken, read = set(), set()
        for block in re.findall(r"wgmma\S+e4m3\s*\{[^}]*\},\s*\{([^}]*)\}", made.ptx):
            taken.update(re.findall(r"%r\d+", block))
        for block in re.findall(r"/\* read \*/(.*?)nanosleep", made.ptx):
            read.update(re.findall(r"%r\d+", block))
        assert taken
        assert taken <= read


def test_powers_stand_under_products():
    """In machine code, whose order isn't PTX's: after the wait for scores alone."""
    task = meta_task(128, False, 4096, True)
    (found,) = launches(lambda wrap: eight_hopper.launch(task._replace(wrap=wrap)))
    made = compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)
    order = re.findall(r"MUFU\.EX2|DEPBAR\.LE gsb0, 0x[01]", made.sass)
    scores = [at for at, what in enumerate(order) if what.endswith("0x1")]
    assert scores
    for at in scores:
        powers = order[at + 1 :].index("DEPBAR.LE gsb0, 0x0")
        # Of 64 weights a thread has, and of what two rows shrink by.
        assert powers == 66


@pytest.mark.gpu
class TestOnACard:
    @pytest.fixture(autouse=True)
    def hopper(self, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")

    @pytest.mark.parametrize("case", [
        *CASES, (2, 4, 2, 1000, 1000, 64, 64, True), (1, 2, 1, 70, 900, 256, 256, True),
        (1, 8, 1, 300, 4097, 128, 128, False), (1, 2, 2, 4097, 500, 128, 128, True),
    ], ids=str)  # fmt: skip
    def test_any_shape(self, case, device):
        for granularity in ("block", "head"):
            eights = quantised(case, device, granularity)
            task = task_for(eights, case[-1])
            for config in eight_hopper.CONFIGS[max(eight_hopper.widths(task))]:
                task.out.fill_(torch.nan)
                eight_hopper.launch(task, config)
                assert_right(task, eights)

    def test_the_same_bits_each_time(self, device):
        for d in (64, 128, 256):
            eights = quantised((2, 8, 8, 2048, 2048, d, d, True), device)
            task = task_for(eights, True)
            eight_hopper.launch(task)
            first = task.out.clone()
            for _ in range(20):
                task.out.fill_(torch.nan)
                eight_hopper.launch(task)
                assert task.out.equal(first)
