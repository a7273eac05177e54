"""Clocks in the schedule that overlaps: what they measure, and what is made of them."""

import inspect

import pytest
import torch

from tilebook import compile_only, measure, schedules
from tilebook import device as here
from tilebook.attention import (
    cases,
    clocked,
    experiments_timeline,
    figures_timeline,
    launching,
    overlapped,
    reference,
    timeline,
)
from tilebook.attention.cases import Case
from tilebook.attention.clocked import EVENT, WHO
from tilebook.attention.launching import Config, Task
from tilebook.attention.timeline import Block
from tilebook.matmul.evidence import launches
from tilebook.measure.simulated import rehearse, retimed

NAME = "attention-timeline"
PERIOD, WEIGHING, WAITING = 100, 40, 10
"""Of a schedule that is made up: scores take 30 clocks, and 20 pass before the next."""


def task_on(place, length=256, d=64, keys=None):
    keys = length if keys is None else keys
    told = {"device": place, "dtype": torch.bfloat16}
    q = torch.empty(1, 2, length, d, **told)
    k, v = (torch.empty(1, 2, keys, d, **told) for _ in "kv")
    if place != "meta":
        for x in (q, k, v):
            x.normal_()
    lse = torch.empty(1, 2, length, device=place)
    return Task(q, k, v, torch.full_like(q, torch.nan), lse, d**-0.5)


def assert_right(task):
    want, lse = reference.attention(*(x.double() for x in task[:3]), scale=task.scale)
    torch.testing.assert_close(task.out.double(), want, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(task.lse.double(), lse, atol=1e-3, rtol=1e-3)


def launched(task, config, log=None):
    (found,) = launches(
        lambda wrap: clocked.launch(task._replace(wrap=wrap), config, log)
    )
    return found


def test_it_attends():
    for seed, length in enumerate((128, 200)):
        task = task_on("cpu", length, keys=256)
        found = launched(task, Config(64, 2, 128, 2))
        schedules.run(found.kernel, found.grid, *found.args, **found.meta, seed=seed)
        assert_right(task)


def test_its_step_is_the_one_that_is_clocked():
    """Line by line the same, but for looks, and for masks that there aren't."""

    def body(module):
        lines = inspect.getsource(module.step.fn).partition('"""\n')[2].splitlines()
        lines = [line.strip() for line in lines]
        left_out = ("mark", "scores = unseen", "weights_first(")
        return [x for x in lines if not x.startswith(left_out)]

    assert body(clocked) == body(overlapped)


def test_without_a_log_it_is_the_same_machine_code():
    task, config = task_on("meta", 4096, 128), Config(64, 2, 128, 2)

    def compiled(found):
        return compile_only.compile(
            found.kernel, *found.args, target="sm_90", **found.meta
        ).evidence

    (other,) = launches(
        lambda wrap: overlapped.launch(task._replace(wrap=wrap), config)
    )
    plain, bare = compiled(other), compiled(launched(task, config))
    for what in ("registers", "instructions", "barriers", "mma"):
        assert getattr(plain, what) == getattr(bare, what)
    log = clocked.log_for(task, config)
    looks = compiled(launched(task, config, log))
    assert not looks.spill_store_bytes
    assert not looks.warnings
    assert looks.mma == plain.mma
    assert 0 < looks.instructions - plain.instructions < 200


def test_what_is_refused():
    task, config = task_on("meta"), Config(64, 2, 128, 2)
    for bad in (task._replace(right=0), task._replace(left=5)):
        with pytest.raises(ValueError, match="no mask and no window"):
            clocked.launch(bad, config)
    for bad in (task_on("meta", keys=200), task_on("meta", keys=64)):
        with pytest.raises(ValueError, match="must fill blocks of 128"):
            clocked.launch(bad, config)
    with pytest.raises(ValueError, match="for two groups"):
        clocked.launch(task, config._replace(parts=3))
    with pytest.raises(ValueError, match="scale must be"):
        clocked.launch(task._replace(scale=-1.0), config)


def planned(apart, blocks=12):
    """What two groups do, one so many clocks after the other."""
    found = []
    for turn, who in enumerate(WHO):
        for block in range(1, blocks):
            asked = turn * apart + block * PERIOD
            there = asked + 30
            weighed = there + WEIGHING
            found.append(Block(who, block, asked, there, weighed, weighed + WAITING))
    return found


def logged(blocks, programs=2):
    """A log that says so; other threads are earlier to see the same."""
    log = torch.zeros(programs, 2, 32, 4, 16, dtype=torch.int64)
    for block in blocks:
        at = log[:, WHO.index(block.who), block.block]
        at[:, :, 0] = 1000 + torch.tensor(block[2:])
        at[:, 2, 1:] = at[:, 2, :1] - 5
    return log


def test_a_log_is_read():
    plan = planned(50)
    first = plan[0].asked
    for found, block in zip(timeline.read(logged(plan)), plan, strict=True):
        assert found[:2] == block[:2]
        assert found[2:] == tuple(x - first for x in block[2:])
    assert timeline.read(torch.zeros(1, 2, 32, 4, 16, dtype=torch.int64)) == []


def test_shares():
    """In step nobody waits while another one weighs; half a period apart both do."""
    together, apart = (timeline.shares(planned(x)) for x in (0, 50))
    assert together.beside == 0
    # One weighs from 30 to 70, and the other waits from 50 to 80, and until 30.
    assert apart.beside == pytest.approx(0.5, abs=0.05)
    for found in (together, apart):
        assert found.waits == pytest.approx(0.4, abs=0.03)
        assert found[2:] == (WEIGHING, WAITING, PERIOD)


def test_what_is_typical():
    logs = [logged(planned(x), 1) for x in (50, 0, 20)]
    program, middle = timeline.typical(torch.cat(logs), 3)
    assert program == 2
    assert middle.beside == timeline.shares(planned(20)).beside
    found = timeline.kept(timeline.read(logs[1]), 5, 7)
    assert [(block.block, block.asked) for block in found] == [(5, 0), (6, PERIOD)] * 2


@pytest.fixture(scope="module")
def measured(interpreted):
    """The experiment, of clocks that are made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "TOKENS", 1024)
        patch.setattr(cases, "FEATURES", 128)
        few = {
            Case(d, 1024, False): config
            for d, config in zip(
                (64, 128), experiments_timeline.CASES.values(), strict=True
            )
        }
        patch.setattr(experiments_timeline, "CASES", few)
        patch.setattr(experiments_timeline, "FIRST", 5)
        patch.setattr(experiments_timeline, "LAST", 9)

        def clocks(task, config, log=None):
            if log is not None:
                log[:] = logged(planned(50), len(log))

        patch.setattr(clocked, "launch", clocks)
        patch.setattr(overlapped, "launch", lambda task, config: None)
        return rehearse(NAME)


def test_all_blocks_are_there(measured):
    for d in (64, 128):
        found = figures_timeline.blocks(measured, d)
        assert [(b.who, b.block) for b in found] == [
            (who, block) for who in WHO for block in range(5, 9)
        ]


def test_values(measured):
    for name in measure.values(NAME):
        assert measured.value(name) > 0
    assert measured.value("busy_128") == pytest.approx(10.24)
    assert measured.value("busy_64") == pytest.approx(5.12)


def changed(record, d, **shares):
    record = retimed(record, 1.0)
    record.one(op="shares", d=d)["extra"].update(shares)
    return record


def test_claims(measured):
    half, turns, cheap = measure.claims(NAME)
    assert turns.broken(measured) is None
    assert cheap.broken(measured) is None
    assert half.broken(changed(measured, 128, beside=0.6)) is None
    assert half.broken(changed(measured, 128, beside=0.4))
    assert half.broken(changed(measured, 128, beside=0.6, waits=0.7)) is None
    for d in (64, 128):
        assert turns.broken(changed(measured, d, beside=0.3))
    assert cheap.broken(retimed(measured, 1.2, impl="clocked", op="time", d=64))


def test_the_picture(measured):
    picture = figures_timeline.timeline(measured)
    upper, lower = picture.figure.axes
    assert upper.get_title("left") == "64 features"
    # Three bars for each of four blocks of two groups.
    assert len(lower.patches) == 24
    assert "128 features: 0.5" in picture.alt
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert names == ["scores", "weights", "values"]


@pytest.mark.gpu
def test_on_a_card(device):
    if not here.has("wgmma"):
        pytest.skip("needs Hopper's tensor cores")
    for d in (64, 128):
        task = task_on(device, 1024, d)
        config = Config(64, 2, 128, 2)
        log = timeline.measured(task, config)
        assert_right(task)
        for program in range(launching.tiles(task, config)):
            blocks = timeline.read(log, program)
            assert len(blocks) == 2 * 7
            for block in blocks:
                assert [*block[2:]] == sorted(block[2:])
            assert all(name in Block._fields for name in EVENT)
