"""What the tuner tries of Hopper's kernels fits, and is compared with what ships."""

import pytest
import torch

from tilebook import device, hopper, measure
from tilebook.hopper import launching, tuning, widths
from tilebook.hopper.ways import GROUPS, TILED
from tilebook.matmul import operands, ways
from tilebook.matmul.evidence import task_for
from tilebook.matmul.shapes import Shape


@pytest.fixture
def card(monkeypatch):
    there = device.Device("cuda", "a GPU", "gpu", "cuda", capability=(9, 0), sms=132)
    monkeypatch.setattr(device, "current", lambda: there)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("choose", [tuning.every_way, tuning.more_tiles])
def test_all_kernels_are_tried_in_ways_that_fit(choose):
    task = task_for(Shape(4096, 4096, 4096), "NT", torch.bfloat16)
    found = choose(task)
    assert len(set(found)) == len(found)
    assert {way.kernel for way in found} >= {*TILED, "widths"}
    for way in found:
        assert ways.read([way.kernel, list(way.config)], "hopper") == way
        if way.kernel in TILED:
            config = launching.Config(*way.config)
            parts = GROUPS.get(way.kernel, 2)
            assert launching.room(config, parts) == config
        elif way.kernel == "widths":
            assert widths.room(widths.Config(*way.config)) is not None


@pytest.mark.usefixtures("card")
def test_the_earlier_chapters_ways_race_beside_them():
    task = task_for(Shape(512, 512, 512), "NN", torch.bfloat16)
    assert set(ways.entrants(task)) <= set(tuning.every_way(task))


@pytest.mark.parametrize("contest", ["every", "large"])
def test_contests_compare_with_what_ships_and_with_cublas(contest, monkeypatch):
    compared = []

    class Bench:
        def compare(self, *, providers, make_inputs, reference, **_):
            compared.append((providers, make_inputs(), reference))

    launched = []
    monkeypatch.setattr(tuning, "CASES", ((Shape(24, 40, 48), "NN"),))
    monkeypatch.setattr(tuning, "LARGE", ((Shape(24, 40, 48), "TN"),))
    for name in ("every_way", "more_tiles"):
        way = ways.Way("folded", (128, 256, 64, 3, 1, 8))
        monkeypatch.setattr(tuning, name, lambda task, way=way: [way])
    monkeypatch.setattr(ways, "launch", lambda *args: launched.append(args))
    tuning.CONTESTS[contest](Bench())
    ((providers, (a, b), reference),) = compared
    assert list(providers) == ["shipped", "cuBLAS", "folded 128 256 64 3 1 8"]
    assert all(isinstance(each, measure.Provider) for each in providers.values())
    assert providers["shipped"].fn is hopper.matmul
    assert reference(a, b).shape == (24, 40)
    providers["folded 128 256 64 3 1 8"].fn(a, b)
    ((task, way, field),) = launched
    assert isinstance(task, operands.Task)
    assert (way.kernel, field) == ("folded", "hopper")
