"""The tuner: what a rehearsal survives, and which ways it ranks first."""

import importlib.util
import textwrap
from pathlib import Path

import pytest
import torch

from tilebook.measure import Provider
from tilebook.measure.simulated import Simulated
from tilebook.measure.timing import Budget

ROOT = Path(__file__).resolve().parent.parent
TRIALS = """
    import os, sys, time, torch
    from tilebook.measure import Provider

    def hang(x):
        time.sleep(1000)

    def cramped(x):
        if "alone" not in sys.argv[-1]:
            raise torch.OutOfMemoryError("others have it")
        return x + x

    def choosing(x):
        assert os.environ["TILEBOOK_CACHE"] == ""
        return x + x

    def inputs():
        if "alone" not in sys.argv[-1]:
            raise torch.OutOfMemoryError("others have it")
        return [torch.randn(3)]

    def doubled(bench):
        ways = {
            "shipped": Provider(lambda x: x + x, ours=True),
            "wrong": Provider(lambda x: x + x + 1, ours=True),
            "dead": Provider(lambda x: os._exit(3), ours=True),
            "endless": Provider(hang, ours=True),
            "cramped": Provider(cramped, ours=True),
            "choosing": Provider(choosing, ours=True),
            "out": Provider(lambda x, *, out: torch.mul(x, 2, out=out), out=True),
        }
        for n in (5, 9):
            if n == 9:
                del ways["endless"], ways["dead"]
            bench.compare(
                shape={"n": n},
                dtype=torch.float32,
                providers=ways,
                make_inputs=lambda: [torch.randn(n)],
                reference=lambda x: 2 * x,
                bytes=8 * n,
            )
        bench.compare(
            shape={"n": 3},
            dtype=torch.float32,
            providers=ways,
            make_inputs=inputs,
            reference=lambda x: 2 * x,
            bytes=8 * 3,
        )

    CONTESTS = {"doubled": doubled}
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tune", ROOT / "tools" / "tune.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # As when it is run: what lies beside it can be imported.
        patch.syspath_prepend(str(ROOT / "tools"))
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_rehearsal_outlives_what_hangs_and_what_crashes(tool, tmp_path, monkeypatch):
    (tmp_path / "trials.py").write_text(textwrap.dedent(TRIALS))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT / 'code'}")
    ends = tool.rehearse("trials", "doubled", tmp_path, workers=1, patience=8)
    assert len(ends) == 17
    for n in (5, 9, 3):
        case = f"doubled n={n} float32"
        for name in ("shipped", "out", "cramped", "choosing"):
            assert ends[f"{case}: {name}"] == "passed"
        assert ends[f"{case}: wrong"].startswith("WrongResult")
    assert ends["doubled n=5 float32: dead"] == "crashed"
    assert ends["doubled n=5 float32: endless"] == "hung"


def test_a_line_for_each_case_and_kind_of_failure(tool):
    ends = {
        "contest n=5 float32: a": "passed",
        "contest n=5 float32: b": "WrongResult: off by 3",
        "contest n=5 float32: c": "hung",
        "contest n=5 float32: d": f"WrongResult: off by 4{'!' * 500}",
        "contest n=9 float32: b": f"WrongResult: off by {'5' * 500}",
    }
    said = tool.failures(ends)
    assert said[:2] == [
        "contest n=5 float32: 2 ways, b first: WrongResult: off by 3",
        "contest n=5 float32: 1 way, c first: hung",
    ]
    start, end = "contest n=9 float32: 1 way, b first: ", "WrongResult: off by "
    assert said[2:] == [start + end + "5" * (160 - len(end))]


def test_a_rehearsal_that_never_begins_is_an_error(tool, tmp_path):
    with pytest.raises(RuntimeError, match="no progress"):
        tool.rehearse("no_such_module", "x", tmp_path, workers=1, patience=60)


def ways(slowness):
    """Providers that differ in name only, which is all that the made-up clock sees."""
    return {name: Provider(lambda x, name=name: x + x, ours=True) for name in slowness}


def contest(tool, slowness, passed, **more):
    def cost(call):
        # The provider's function knows its name as a default.
        return slowness[call.func.__defaults__[0]]

    bench = tool.Contest(
        "doubled",
        {f"doubled n=8 float32: {name}" for name in passed},
        timer=Simulated(cost),
        heat=Budget(1, 0.001),
        final=Budget(3, 0.001),
        **more,
    )
    bench.compare(
        shape={"n": 8},
        dtype=torch.float32,
        providers=ways(slowness),
        make_inputs=lambda: [torch.randn(8)],
        reference=lambda x: 2 * x,
        bytes=64,
    )
    return bench


SLOWNESS = {"shipped": 4.0, "a": 3.0, "b": 2.0, "c": 1.0, "barred": 0.5}


def test_the_best_of_the_heat_and_what_ships_are_timed_again(tool):
    bench = contest(tool, SLOWNESS, {"shipped", "a", "b", "c"}, finalists=2)
    assert {row["impl"] for row in bench.heats} == {"a", "b", "c", "shipped"}
    assert {row["regime"] for row in bench.heats} == {"cold"}
    finals = {(row["impl"], row["regime"]) for row in bench.rows}
    assert finals == {
        (name, regime)
        for name in ("c", "b", "shipped")
        for regime in ("cold", "steady")
    }
    assert all(len(row["rounds"]) == 3 for row in bench.rows)


def test_the_standing_says_how_far_each_leads_what_ships(tool):
    bench = contest(tool, SLOWNESS, {"shipped", "a", "b", "c"})
    table = tool.standing(bench.rows)
    cold = table[table.regime == "cold"]
    assert cold.way.tolist() == ["c", "b", "a", "shipped"]
    assert cold.lead.tolist() == [4.0, 2.0, pytest.approx(4 / 3, abs=1e-3), 1.0]
    assert tool.losses(bench.heats).to_dict() == {
        "c": 1.0, "b": 2.0, "a": 3.0, "shipped": 4.0,
    }  # fmt: skip


def test_nothing_passed_leaves_nothing_to_time(tool):
    assert not contest(tool, SLOWNESS, set()).rows
