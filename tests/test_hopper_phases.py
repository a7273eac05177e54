"""The figure of slots and barriers: the kernels' own runs, told in moments."""

import itertools
from collections import defaultdict

import pytest

from tilebook.hopper import phases
from tilebook.hopper.moments import CONSUMERS, ENGINE, PRODUCER, Ring, Teller
from tilebook.hopper.phases import MISTAKES, PLANS, STAGES, STEPS, Setting
from tilebook.schedules import Event
from tilebook.schedules.machine import Machine
from tilebook.schedules.memory import Barrier

RIGHT = [Setting(*x) for x in itertools.product(PLANS, STAGES, STEPS)]


@pytest.fixture(scope="module")
def every():
    return phases.every()


def total(setting: Setting) -> int:
    """Chunks of all tiles."""
    return PLANS[setting.kernel].tiles(setting.steps) * setting.steps


def test_every_choice_is_there(every):
    wanted = {
        Setting(kernel, stages, steps, name)
        for name, mistake in MISTAKES.items()
        for kernel, stages, steps in itertools.product(mistake.edits, STAGES, STEPS)
    }
    assert set(every) == wanted
    assert {x.kernel for x in every if x.mistake == "unhanded"} == {"pingpong"}


@pytest.mark.parametrize("setting", RIGHT, ids=str)
def test_a_chunk_is_asked_for_brought_read_and_freed_in_that_order(every, setting):
    told, plan = every[setting], PLANS[setting.kernel]
    assert told.end == "right"
    at = {what: {} for what in ("asks", "brings", "begins", "ends", "frees")}
    for i, moment in enumerate(told.moments):
        if moment.what in at:
            at[moment.what].setdefault(moment.on, []).append(i)
    uses = total(setting) // setting.stages
    for slot in range(setting.stages):
        count = uses + (slot < total(setting) % setting.stages)
        # By use of the slot: one request, its tiles, and what each reader does.
        several = {"asks": 1, "brings": plan.parts + 1}
        several |= dict.fromkeys(("begins", "ends", "frees"), plan.parts)
        turns = {}
        for what, places in at.items():
            assert len(places[slot]) == count * several[what], (what, slot)
            one = several[what]
            turns[what] = [places[slot][i * one :][:one] for i in range(count)]
        for use in range(count):
            asked, brought, begun, ended, freed = (x[use] for x in turns.values())
            assert asked[0] < brought[0]
            assert brought[-1] < begun[0]
            assert max(ended) < freed[-1]
            if use + 1 < count:
                assert freed[-1] < turns["asks"][use + 1][0]


@pytest.mark.parametrize("setting", RIGHT, ids=str)
def test_parities_are_those_of_the_table(every, setting):
    """Chunk q is use q // slots of its slot: that is the phase to wait for."""
    plan, stages = PLANS[setting.kernel], setting.stages
    asked = 0
    begun = dict.fromkeys(CONSUMERS, 0)
    for who, what, on, parity in every[setting].moments:
        if what == "asks":
            assert (on, parity) == (asked % stages, (asked // stages & 1) ^ 1)
            asked += 1
        elif what == "begins":
            due = plan.chunk(CONSUMERS.index(who), begun[who], setting.steps)
            assert (on, parity) == (due % stages, due // stages & 1)
            begun[who] += 1
        elif what in ("misreads", "loses"):
            pytest.fail(f"{who} {what} slot {on}")
    assert asked == total(setting)
    assert sum(begun.values()) == asked * plan.parts


@pytest.mark.parametrize(
    "setting", [Setting("cooperative", 2, 3), Setting("pingpong", 3, 2)], ids=str
)
def test_barriers_are_as_the_machine_has_them(monkeypatch, setting):
    """At each event: phase, arrivals, and whether something is to come."""
    say, init = Machine.say, Barrier.init
    barriers, states, events = [], [], []

    def seen(machine, *what):
        states.append({x.name: (x._phase, x._missing, x._bytes > 0) for x in barriers})
        say(machine, *what)
        events.append(machine.events[-1])

    def begun(barrier, count):
        init(barrier, count)
        barriers.append(barrier)

    monkeypatch.setattr(Machine, "say", seen)
    monkeypatch.setattr(Barrier, "init", begun)
    assert phases.run(setting, 5).end == "right"
    plan = PLANS[setting.kernel]
    for at, state in enumerate(states):
        teller = Teller(plan, setting.stages, setting.steps, defaultdict(int))
        ring = Ring(plan, setting.stages)
        for moment in teller.tell(events[:at]):
            ring.happen(moment)
        found = ring.seen()["barriers"].items()
        told = {
            name: (phase, lacks, tiles > 0) for name, (phase, lacks, tiles) in found
        }
        # Until it is used, the machine doesn't know the name of a barrier.
        assert all(told[name] == x for name, x in state.items() if name in told), at
    assert told.keys() == states[-1].keys()
    assert max(phase for phase, *_ in told.values()) > 2


def test_who_waits_waits_for_what_has_not_come(every):
    """And who goes on is let through by the last phase that is over."""
    for setting, told in every.items():
        plan = PLANS[setting.kernel]
        ring = Ring(plan, setting.stages)
        names = {"asks": "free", "begins": "arrived", "goes": "handed"}
        for moment in told.moments:
            who, what, on, parity = moment
            if what == "waits":
                assert who not in ring.waits
            if what in names:
                barrier = ring.barriers[f"{names[what]}[{on}]"]
                assert (barrier.phase - 1) & 1 == parity, (setting, moment)
            ring.happen(moment)
        if told.end == "stuck":
            assert ring.waits
            for on, parity in ring.waits.values():
                assert (ring.barriers[on].phase - 1) & 1 != parity


def test_planted_mistakes_show(every):
    found = {}
    for setting, told in every.items():
        kinds = {moment.what for moment in told.moments}
        found.setdefault(setting.mistake, []).append((setting, told.end, kinds))
    for setting, end, kinds in found["early"]:
        assert end == "wrong", setting
        assert "loses" in kinds
    assert {end for _, end, _ in found["opposite"]} == {"stuck"}
    assert all(kinds <= {"waits", "goes"} for *_, kinds in found["opposite"])
    for setting, end, _ in found["restarted"]:
        # Whole turns of the ring, twice, are what hides it.
        harmless = setting.steps % (2 * setting.stages) == 0
        assert end == ("right" if harmless else "stuck"), setting
    unhanded = [kinds for _, end, kinds in found["unhanded"] if end != "right"]
    assert len(unhanded) >= 7
    assert all({"misreads", "loses"} & kinds for kinds in unhanded)


def test_mistakes_are_taken_back():
    with phases.planted("cooperative", "opposite"):
        assert phases.run(Setting("cooperative", 2, 2), 1).end == "stuck"
    assert phases.run(Setting("cooperative", 2, 2), 1).end == "right"


def test_who_does_what(every):
    does = {}
    for told in every.values():
        for moment in told.moments:
            does.setdefault(moment.what, set()).add(moment.who)
    both = set(CONSUMERS)
    assert does["asks"] == {PRODUCER}
    assert does["brings"] == does["takes"] == {ENGINE}
    assert does["waits"] == both | {PRODUCER}
    for what in ("begins", "ends", "frees", "stores", "hands", "goes", "loses"):
        assert does[what] == both, what


def test_the_texts_are_the_runs(every):
    data = phases.data()
    by = dict(zip(data["letters"], data["moments"], strict=True))
    count = 0
    for key, runs in data["runs"].items():
        kernel, mistake = key.split()
        places = itertools.product(STAGES, STEPS)
        for (stages, steps), (text, end) in zip(places, runs, strict=True):
            told = every[Setting(kernel, stages, steps, mistake)]
            assert tuple(by[letter] for letter in text) == told.moments
            assert end == told.end
            count += 1
    assert count == len(every)
    assert not set(data["letters"]) & set('"\\<')


def test_an_overwritten_operand_is_lost_once():
    plan = PLANS["cooperative"]
    teller = Teller(plan, 2, 3, {0: 0})
    names = ("a_ring[0]", "a_ring[1]", "b_ring[0]")
    events = [
        Event("consume 0", "wait", "arrived[0]"),
        Event("consume 0", "pass", "arrived[0]"),
    ]
    loads = [Event("produce", "load", name) for name in names]
    begin = Event("consume 0", "multiply", "a_ring[0], b_ring[0]")
    said = [(x.who, x.what) for x in teller.tell([*events, begin, *loads])]
    me = CONSUMERS[0]
    # Nothing is there yet; then the engine writes where it reads, three times.
    assert said == [(me, "begins"), (me, "misreads"), (me, "loses")]
