"""Every way that the tuner tries is right, and what ships is among them."""

import pytest
import torch

from tilebook import device, measure
from tilebook.softmax import (
    axes,
    backward,
    experiments,
    experiments_reductions,
    fused,
    groups,
    resident,
    tuning,
    tuning_reductions,
)

MOST_WAYS = 550
"""Of a contest: each is compiled and checked before anything is timed."""
MOST_BYTES = 3 * 2**30
"""Of inputs: each of a dozen processes holds its own."""


class Tried:
    """In place of a bench: calls some of the ways, on what it is told to."""

    def __init__(self, every):
        self.every = every
        self.cases = []

    def compare(self, *, shape, dtype, providers, make_inputs, reference, **_):
        self.cases.append((shape, dtype, list(providers)))
        if not device.interpreting():
            return
        inputs = make_inputs()
        expected = reference(*(x.double() for x in inputs))
        names = list(providers)
        for name in dict.fromkeys([names[0], *names[1 :: self.every]]):
            assert isinstance(providers[name], measure.Provider)
            got = providers[name].fn(*inputs).double()
            assert got.shape == expected.shape, name
            assert torch.allclose(got, expected.double(), rtol=0.02, atol=1e-3), name


class Listed(Tried):
    """Calls nothing."""

    def compare(self, *, shape, dtype, providers, **_):
        self.cases.append((shape, dtype, list(providers)))


@pytest.fixture
def small(monkeypatch):
    """Few rows, of about as many elements as make several chunks."""
    singles, halves = torch.float32, torch.bfloat16
    monkeypatch.setattr(experiments, "ELEMENTS", 1)
    monkeypatch.setattr(experiments, "LENGTHS", (96, 97))
    monkeypatch.setattr(experiments, "FEW", ((2, 4104),))
    for name, cases in {
        "SINGLE_LENGTHS": (64,),
        "SHORT": ((halves, 256), (singles, 90)),
        "MIDDLE": ((halves, 4097),),
        "LONG": ((halves, 33000),),
        "GRADIENTS": ((halves, 250), (singles, 2056)),
    }.items():
        monkeypatch.setattr(tuning, name, cases)
    monkeypatch.setattr(
        tuning_reductions,
        "CASES",
        (
            (("sum", "argmax"), (3, 700, 1), tuning_reductions.TILES),
            (("var",), (70, 9, 0), tuning_reductions.LINES),
            (("logsumexp",), (1, 900, 2), tuning_reductions.SPLITS),
            (("sum",), (5, 65, 1), tuning_reductions.EDGES),
        ),
    )
    planned = ((singles, (9, 1300, 1)), (halves, (1300, 9, 0)), (halves, (1, 900, 2)))
    monkeypatch.setattr(tuning_reductions, "PLANNED", planned)
    monkeypatch.setattr(tuning_reductions, "LENGTHS", (300,))
    monkeypatch.setattr(tuning_reductions, "LARGEST", (8,))
    monkeypatch.setattr(tuning_reductions, "ELEMENTS", 600)


@pytest.mark.parametrize(
    ("contest", "every"),
    [
        *(("forward", 1), ("short", 2), ("middle", 4), ("long", 4), ("few", 3)),
        *(("backward", 4), ("reductions", 2), ("plans", 3), ("topk", 3)),
    ],
)
def test_ways_are_right(contest, every, small):
    tried = Tried(every)
    tuning.CONTESTS[contest](tried)
    assert tried.cases
    assert all(names[0] == "shipped" for *_, names in tried.cases)


@pytest.mark.parametrize("contest", tuning.CONTESTS)
def test_ways_are_few_and_their_inputs_small(contest, monkeypatch):
    """As on a card that has everything."""
    monkeypatch.setattr(device, "has", lambda feature: True)
    listed = Listed(1)
    tuning.CONTESTS[contest](listed)
    assert 40 < sum(len(names) for *_, names in listed.cases) <= MOST_WAYS
    assert all(len(set(names)) == len(names) > 1 for *_, names in listed.cases)
    cases = [(str(shape), dtype) for shape, dtype, _ in listed.cases]
    assert len(set(cases)) == len(cases)
    for shape, dtype, _ in listed.cases:
        assert 2 * shape["m"] * shape["n"] * dtype.itemsize <= MOST_BYTES


def test_forward_is_about_the_matrices_of_the_experiments():
    listed = Listed(1)
    tuning.forward(listed)
    halves = [tuple(s.values()) for s, d, _ in listed.cases if d == torch.bfloat16]
    assert halves == list(experiments.shapes())
    # What is timed with other numbers is launched alike.
    assert {d.itemsize for d in experiments.DTYPES} == {
        d.itemsize for _, d, _ in listed.cases
    }


def test_what_is_near_differs_in_one_field():
    for name, rung in tuning.MODULES.items():
        for n, itemsize in ((1024, 2), (4096, 2), (16384, 4), (65536, 2)):
            found = tuning.near(name, 300, n, itemsize)
            own = found.pop("own")
            assert isinstance(own, rung.Config)
            assert len({own, *found.values()}) == len(found) + 1
            if name in tuning.WHOLE:
                continue
            for label, config in found.items():
                field, value = label.split("=")
                assert str(getattr(config, field)) == value
                changed = {
                    f for f in own._fields if getattr(own, f) != getattr(config, f)
                }
                if field != "stages":
                    assert changed - {"slots", "tail"} == {field}


def test_rings_near_a_ring_hold_the_row_too():
    for n in (1024, 16384, 65536, 131072):
        for config in tuning.near("resident", 512, n, 2).values():
            ring = min(n // config.chunk, config.slots)
            assert n - ring * config.chunk <= config.tail * config.chunk
            assert config.tail <= resident.TAIL
            held = config.per_sm * config.slots * config.chunk * 2
            assert held <= resident.SHARED


def test_what_can_not_be_sensible_is_left_out():
    few = tuning.near("fused", 8, 64, 4)
    assert list(few) == ["own"]
    long = tuning.near("walk", 8, backward.LARGEST, 4)
    assert all(c.per_sm >= 1 for c in long.values())
    for n in (64, 4096, fused.LARGEST):
        assert all(c.num_warps <= 32 for c in tuning.near("fused", 8, n, 2).values())


def test_constants_that_are_tried_are_not_those_of_today_and_matter():
    knobs = {}
    for _, _, found in tuning_reductions.CASES:
        knobs |= found
    for (module, name), values in (knobs | tuning_reductions.SORTS).items():
        assert getattr(module, name) not in values
    before = {name: getattr(axes, name) for _, name in knobs}
    x = torch.empty((2**16, 4096), dtype=torch.bfloat16, device="meta")
    seen = axes.view(x, 1)
    plans = dict(tuning_reductions.settings(lambda: axes.plan(seen), knobs))
    told = {name: str(plan()) for name, plan in plans.items()}
    assert told["WARP_BYTES=2048"] != told["shipped"]
    assert before == {name: getattr(axes, name) for _, name in knobs}
    assert {m for m, _ in tuning_reductions.SORTS} == {axes, groups}


def test_plans_are_all_that_launch_something_else(monkeypatch):
    seen = []
    monkeypatch.setattr(
        tuning_reductions,
        "REDUCTIONS",
        {"sum": experiments_reductions.Reduction(lambda x, dim: plan_of(x, dim), None)},
    )

    def plan_of(x, dim):
        seen.append(str(axes.plan(axes.view(x, dim), 1)))

    before = [getattr(axes, name) for _, name in tuning_reductions.ACROSS]
    found = tuning_reductions.plans("sum", 8192, 8192, 0, torch.bfloat16)
    assert next(iter(found)) == "shipped"
    x = torch.empty((8192, 8192), dtype=torch.bfloat16, device="meta")
    for fn in found.values():
        fn(x)
    assert len(set(seen)) == len(found) > 8
    assert before == [getattr(axes, name) for _, name in tuning_reductions.ACROSS]


def test_every_reduction_has_its_contest():
    listed = Listed(1)
    tuning_reductions.reduced(listed)
    tried = {tuning_reductions.OPS[shape["which"]] for shape, *_ in listed.cases}
    # A mean is a sum, and topk has a contest of its own.
    assert tried | {"mean", "topk"} == set(experiments_reductions.REDUCTIONS)
