"""Compiling before measuring: every case once, nothing timed, nothing remembered."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tilebook.matmul import searching, ways
from tilebook.measure import Provider, registry

PATH = Path(__file__).resolve().parent.parent / "tools" / "compile_ahead.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("compile_ahead", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comparing(called):
    def function(bench):
        for n in (2, 3, 5, 7, 11):
            bench.compare(
                shape={"n": n},
                dtype=torch.float32,
                providers={
                    "ours": Provider(lambda x: called.append(len(x)), ours=True),
                    "fails": Provider(lambda x: x.nothing, ours=True),
                    "theirs": Provider(lambda x: called.append("theirs")),
                },
                make_inputs=lambda n=n: [torch.randn(n)],
                reference=lambda x: x,
                bytes=8 * n,
            )
        bench.time_cold(lambda: called.append("timed"))
        called.append("past the end")

    return function


def test_shares_make_the_whole_and_nothing_is_timed(tool):
    called, seen = [], []
    experiment = registry.experiments()[0]
    experiment = type("E", (), {"op": experiment.op, "function": comparing(called)})
    for part in range(3):
        before = len(called)
        named = tool.ahead(experiment, (part, 3))
        assert len(named) == len(called) - before
        seen.append(called[before:])
    assert seen == [[2, 7], [3, 11], [5]]


def test_what_could_race_is_compiled_and_nothing_is_remembered(monkeypatch):
    compiled = []
    found = [ways.Way("ordered", (16, 16, 32, 4, 2, 8)), ways.Way("split", (1,) * 7)]

    def launch(task, way, field):
        compiled.append((task.wrap, way, field))
        if way.kernel == "ordered":
            raise ValueError("not this one")

    monkeypatch.setattr(ways, "entrants", lambda task, field: found)
    monkeypatch.setattr(ways, "launch", launch)
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    task = searching.operands.Task(a, b, torch.empty(8, 8))
    with searching.forgetting():
        with searching.compiling():
            assert searching.way_for(task) is None
        wrap = searching.operands.compiled
        assert compiled == [(wrap, way, "matmul") for way in found]
        assert not searching.memory().at_hand
        # Afterwards nothing is compiled where nothing may be searched.
        assert searching.way_for(task) is None
        assert len(compiled) == 2


def test_ways_that_race_are_shared_too(tool, monkeypatch):
    """Whatever the case, each way is compiled by one process; then cases are called."""
    found = [ways.Way("ordered", (16, 16, 32, 4, 2, n)) for n in range(20)]
    compiled, called = [], []
    monkeypatch.setattr(tool, "ENTRANTS", lambda task, field: found)
    monkeypatch.setattr(ways, "entrants", lambda task, field: [])
    monkeypatch.setattr(ways, "launch", lambda task, way, field: compiled.append(way))

    def raced(x):
        searching.way_for(
            searching.operands.Task(x[None], x[:, None], x.new_empty(1, 1))
        )
        called.append(len(x))

    def function(bench):
        for n in (2, 3, 5):
            bench.compare(
                shape={"n": n},
                dtype=torch.float32,
                providers={"ours": Provider(raced, ours=True)},
                make_inputs=lambda n=n: [torch.randn(n)],
            )

    experiment = type("E", (), {"op": "matmul", "function": function})
    shares = []
    for part in range(3):
        tool.ahead(experiment, (part, 3), racing=True)
        assert called == [(2, 3, 5)[part]]
        shares.append(set(compiled))
        assert len(compiled) == 3 * len(shares[-1])
        compiled.clear(), called.clear()
    assert all(shares)
    assert sum(map(len, shares)) == len(set().union(*shares)) == len(found)


def test_the_command_line_runs_every_part(tool):
    assert tool.main(["no-such-experiment", "--workers", "2"]) == 0
