"""How ways to multiply are found: raced, remembered, estimated."""

import dataclasses
import json
import os
import threading

import pytest
import torch

from tilebook import device
from tilebook.matmul import estimates, operands, racing, remembered
from tilebook.measure.timing import Samples


class Clock:
    """Times by name, and what was timed in which order."""

    def __init__(self, times):
        self.times = times
        self.log = []
        self.waited = 0

    def cold(self, calls, seconds):
        (call,) = calls
        name = call.__name__
        self.log.append((name, seconds))
        taken = self.times[name]
        return Samples([taken() if callable(taken) else taken])

    def synchronize(self):
        self.waited += 1


def way(name, work=lambda: None):
    def call():
        return work()

    call.__name__ = name
    return call


def fails():
    raise RuntimeError("out of shared memory")


def test_the_fastest_comes_first_and_only_those_in_front_are_timed_again():
    clock = Clock({"slow": 2.0, "best": 1.0, "near": 1.1})
    ways = {name: way(name) for name in clock.times}
    found, late = racing.race(ways, clock)
    assert late == []
    assert list(found) == ["best", "near", "slow"]
    assert found == {"best": 1.0, "near": 1.1, "slow": 2.0}
    names = [name for name, _ in clock.log]
    assert names == ["slow", "best", "near"] + 3 * ["best", "near"]
    assert [seconds for _, seconds in clock.log] == pytest.approx([0.1] * 9, abs=1e-3)
    assert clock.waited


def test_a_lucky_first_timing_does_not_decide():
    lucky = iter([0.95, 1.3, 1.3, 1.3])
    clock = Clock({"lucky": lambda: next(lucky), "steady": 1.0})
    found, _ = racing.race({name: way(name) for name in clock.times}, clock)
    assert next(iter(found)) == "steady"


def test_ways_that_fail_or_come_late_are_left_out():
    late = threading.Event()
    clock = Clock({"good": 1.0, "other": 2.0})
    ways = {
        "bad": way("bad", fails),
        "late": way("late", lambda: late.wait(60)),
        "good": way("good"),
        "other": way("other"),
    }
    found, missing = racing.race(ways, clock, compiling=0.5)
    late.set()
    assert list(found) == ["good", "other"]
    assert missing == ["late"]
    assert racing.race({"bad": way("bad", fails)}, clock) == ({}, [])
    # Where one is left, there is nothing to time.
    alone = Clock({})
    assert list(racing.race({"good": way("good")}, alone).ms) == ["good"]
    assert alone.log == []


def test_one_way_is_waited_for_as_long_as_it_takes():
    first, second = threading.Event(), threading.Event()
    ways = {
        "bad": way("bad", fails),
        "last": way("last", lambda: second.wait(60)),
        "first": way("first", lambda: first.wait(60)),
    }
    threading.Timer(0.3, first.set).start()
    found, missing = racing.race(ways, Clock({}), compiling=0.01)
    second.set()
    assert list(found) == ["first"]
    assert missing == ["last"]


def test_ways_are_compiled_at_the_same_time_where_they_are_told_to_be():
    together = threading.Barrier(2, timeout=60)
    entered = []

    class Here:
        def __enter__(self):
            entered.append(threading.get_ident())

        def __exit__(self, *error):
            return None

    clock = Clock({"a": 1.0, "b": 1.0})
    ways = {name: way(name) for name in clock.times}
    prepare = {name: way(name, together.wait) for name in clock.times}
    found = racing.race(ways, clock, prepare=prepare, here=Here)
    assert set(found.ms) == {"a", "b"}
    assert len(entered) == 2
    assert threading.get_ident() not in entered


def test_what_comes_late_is_never_launched():
    late, launched = threading.Event(), []
    ways = {n: way(n, lambda n=n: launched.append(n)) for n in ("a", "b", "late")}
    prepare = {"a": way("a"), "b": way("b"), "late": way("late", late.wait)}
    found = racing.race(ways, Clock({"a": 1.0, "b": 2.0}), prepare=prepare,
                        compiling=0.2)  # fmt: skip
    late.set()
    assert (list(found.ms), found.late) == (["a", "b"], ["late"])
    assert "late" not in launched


def test_what_compiles_and_fails_when_launched_is_left_out():
    ways = {"bad": way("bad", fails), "good": way("good")}
    prepare = {name: way(name) for name in ways}
    assert list(racing.race(ways, Clock({}), prepare=prepare).ms) == ["good"]


def test_when_time_is_up_first_sight_decides():
    clock = Clock({"a": 2.0, "b": 1.0})
    moments = iter([0.0, 10.0])
    ways = {name: way(name) for name in clock.times}
    found, _ = racing.race(ways, clock, now=lambda: next(moments))
    assert list(found) == ["b", "a"]
    assert len(clock.log) == 2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(remembered.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_answer_survives_the_process(cache):
    remembered.Memory("matmul", "card").put("m=1", ["ordered", [16, 64]])
    again = remembered.Memory("matmul", "card")
    assert again.get("m=1") == ["ordered", [16, 64]]
    assert again.get("m=2") is None
    (file,) = (cache / "matmul").iterdir()
    assert json.loads(file.read_text())["question"] == "m=1"


def test_an_answer_may_be_for_this_process_alone(cache):
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1, kept=False)
    assert memory.get("m=1") == 1
    assert remembered.Memory("matmul", "card").get("m=1") is None


def test_answers_of_other_circumstances_are_not_seen(cache):
    remembered.Memory("matmul", "card").put("m=1", 1)
    assert remembered.Memory("matmul", "another card").get("m=1") is None
    assert remembered.Memory("softmax", "card").get("m=1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"question": "m=1"}', "\xff"])
def test_a_torn_or_foreign_file_is_no_answer(cache, text):
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    (file,) = (cache / "matmul").iterdir()
    file.write_text(text, encoding="latin-1")
    fresh = remembered.Memory("matmul", "card")
    assert fresh.get("m=1") is None
    fresh.put("m=1", 2)
    assert remembered.Memory("matmul", "card").get("m=1") == 2


def test_a_file_of_another_question_is_no_answer(cache):
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    (file,) = (cache / "matmul").iterdir()
    file.write_text(file.read_text().replace("m=1", "m=3"))
    assert remembered.Memory("matmul", "card").get("m=1") is None


def test_a_folder_that_cannot_be_written_is_no_error(cache):
    cache.write_text("a file where the folder should be")
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    assert memory.get("m=1") == 1
    assert remembered.Memory("matmul", "card").get("m=1") is None


def test_nothing_is_written_where_nobody_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv(remembered.FOLDER, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    assert memory.get("m=1") == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv(remembered.FOLDER)
    memory.put("m=1", 1)
    assert list((tmp_path / "tilebook" / "matmul").iterdir())


def test_what_was_known_can_be_forgotten(cache):
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    memory.put("m=2", 2)
    memory.forget()
    assert memory.get("m=1") is None
    assert list((cache / "matmul").iterdir()) == []


def test_no_half_written_file_is_left(cache, monkeypatch):
    def full(*paths):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    memory = remembered.Memory("matmul", "card")
    memory.put("m=1", 1)
    assert memory.get("m=1") == 1
    assert list((cache / "matmul").iterdir()) == []


def task(m, n, k, dtype=torch.bfloat16, precision="ieee"):
    a, b, out = (
        torch.empty(shape, dtype=dtype, device="meta")
        for shape in ((m, k), (k, n), (m, n))
    )
    return operands.Task(a, b, out, precision)


WIDE = estimates.Tile(128, 256, 64, 8, 3)
SQUARE = estimates.Tile(128, 128, 64, 4, 4)
THIN = estimates.Tile(16, 64, 128, 4, 4)


@pytest.fixture
def hopper(monkeypatch):
    here = dataclasses.replace(
        device.current(),
        slug="h100-sxm",
        sms=132,
        shared_memory_per_block=227 * 1024,
        shared_memory_per_sm=228 * 1024,
    )
    monkeypatch.setattr(device, "current", lambda: here)


def test_what_a_program_holds():
    assert estimates.shared_bytes(WIDE, 2) == 3 * (128 + 256) * 64 * 2
    assert estimates.accumulators(WIDE) == 128
    assert estimates.accumulators(SQUARE) == 128


@pytest.mark.usefixtures("hopper")
def test_what_does_not_fit_is_refused():
    assert estimates.fits(WIDE, 2)
    assert estimates.fits(WIDE._replace(num_stages=4), 2)
    # 256 sums a thread spill, and 5 stages of 48 KiB are more than there is.
    assert not estimates.fits(WIDE._replace(num_warps=4), 2)
    assert not estimates.fits(WIDE._replace(num_stages=5), 2)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(
    ("shape", "better", "worse"),
    [
        # Large squares want the tile that is read the fewest times.
        ((8192, 8192, 8192), WIDE, THIN),
        ((4096, 4096, 4096), WIDE, estimates.Tile(64, 64, 64, 4, 4)),
        # A matrix of few rows would fill most of a tall tile with nothing.
        ((16, 4096, 4096), THIN, WIDE),
        # Sixteen wide tiles would leave most of the card idle.
        ((512, 1024, 4096), estimates.Tile(64, 64, 64, 4, 4), WIDE),
    ],
)
def test_the_order_is_the_expected_one(shape, better, worse):
    product = task(*shape)
    assert estimates.seconds(product, better) < estimates.seconds(product, worse)


@pytest.mark.usefixtures("hopper")
def test_few_tiles_and_a_long_sum_are_shared_out():
    few = task(16, 4096, 16384)
    assert estimates.seconds(few, THIN, 4) < estimates.seconds(few, THIN)
    many = task(8192, 8192, 1024)
    assert estimates.seconds(many, WIDE) < estimates.seconds(many, WIDE, 4)


@pytest.mark.usefixtures("hopper")
def test_precision_and_dtype_have_their_rates():
    large = (4096, 4096, 4096)
    taken = [
        estimates.seconds(task(*large, torch.int8), WIDE),
        estimates.seconds(task(*large), WIDE),
        *(
            estimates.seconds(task(*large, torch.float32, precision), SQUARE)
            for precision in operands.PRECISIONS
        ),
    ]
    assert taken == sorted(taken)
    assert len(set(taken)) == 5
