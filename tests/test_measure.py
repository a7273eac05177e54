"""Declaring, reading and keeping measurements."""

import copy
import fcntl
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from tilebook import device, measure
from tilebook.measure import Budget, Record, RecordError, registry, runner, schema
from tilebook.measure import lock as locking
from tilebook.measure.simulated import Simulated
from tilebook.measure.timing import Timing

NAME = "sample-add"


def sample(bench):
    for impl, ours, ms in (("ours", True, 1.0), ("peer", False, 1.1)):
        for n in (1024, 2048):
            bench.row(
                impl=impl,
                ours=ours,
                shape={"n": n},
                dtype=torch.float32,
                regime="cold",
                timing=Timing(ms, ms * 0.9, ms * 1.2, (ms, ms * 0.9, ms * 1.2)),
                bytes=12 * n,
                extra={"lanes": 4},
            )


def fast(record):
    return record.best(n=2048)["gbps"]


def broken(record):
    return record.one(impl="missing")["ms"]


def endless(record):
    return float("inf")


def ahead(record):
    ours, peer = (record.one(impl=x, n=2048) for x in ("ours", "peer"))
    return measure.ratio(ours, peer).median > 1, "slower"


@pytest.fixture
def declared(monkeypatch):
    """The registry with one experiment, and as it was afterwards."""
    # What a chapter declares when it is first imported has to outlast this test.
    measure.experiments()
    for name in ("_experiments", "_values", "_claims"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    measure.experiment(NAME, question="Why?", op="add", modules=["check"])(sample)
    measure.value(NAME)(fast)
    measure.claim(NAME, "Ours is ahead.")(ahead)
    return registry.find(NAME)


@pytest.fixture
def record(declared) -> Record:
    return runner.measure(declared, Simulated(), Budget(3))


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """An empty place of committed records."""
    monkeypatch.setattr(measure.records, "RECORDS", tmp_path / "records")
    monkeypatch.delenv("TILEBOOK_LIVE", raising=False)
    return tmp_path / "records"


def keep(folder: Path, record: Record, slug: str) -> Path:
    data = copy.deepcopy(record.data())
    data["provenance"]["slug"] = slug
    path = folder / slug / f"{record.name}.json"
    schema.write(path, data)
    return path


def test_a_record_survives_its_file(folder, record):
    keep(folder, record, "h100-sxm")
    again = measure.load(NAME)
    assert again.rows == record.rows
    assert again.canary == record.canary
    assert not again.live
    assert again.stamp().startswith("Recorded on Simulated")
    assert f", torch {torch.__version__}, " in again.stamp()
    assert measure.stale(NAME) == []


def test_one_row_stands_on_each_line(folder, record):
    lines = keep(folder, record, "h100-sxm").read_text().splitlines()
    assert sum('"impl"' in line for line in lines) == len(record.rows) == 4


def test_preferred_gpus_come_first(folder, record):
    with pytest.raises(RecordError, match=f"{NAME} has not been recorded on any GPU"):
        measure.load(NAME)
    for slug in ("a100-sxm-80gb", "h200-sxm"):
        keep(folder, record, slug)
    assert measure.gpus(NAME) == ["h200-sxm", "a100-sxm-80gb"]
    assert measure.load(NAME).slug == "h200-sxm"
    assert measure.load(NAME, gpu="a100-sxm-80gb").slug == "a100-sxm-80gb"
    keep(folder, record, "h100-sxm")
    assert measure.load(NAME).slug == "h100-sxm"
    with pytest.raises(RecordError, match="not been recorded on b200"):
        measure.load(NAME, gpu="b200")


@pytest.mark.parametrize("size", [0, 1, 100, -1, -3])
def test_a_truncated_file_is_named(folder, record, size):
    path = keep(folder, record, "h100-sxm")
    path.write_bytes(path.read_bytes()[:size].rstrip())
    if size == -1:
        assert measure.load(NAME).rows == record.rows  # only the newline is gone
        return
    with pytest.raises(RecordError, match=rf"{path}: damaged"):
        measure.load(NAME)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["rows"][0].pop("ms"), r"rows\[0\].ms is missing"),
        (lambda d: d["rows"][1].update(ms="1"), r"rows\[1\].ms: expected int or float"),
        (lambda d: d["rows"][0].update(ours=1), r"rows\[0\].ours: expected bool"),
        (lambda d: d["rows"][0].update(ms=True), r"rows\[0\].ms"),
        (lambda d: d["rows"][0].update(colour=1), r"colour is not part of a record"),
        (lambda d: d["rows"][0].update(regime="hot"), "regime"),
        (lambda d: d["rows"][0].update(ms=9.0), "ms_low <= ms <= ms_high"),
        (lambda d: d["rows"][0].update(ms=-1.0, ms_low=-2.0), "0 < ms_low"),
        (lambda d: d["rows"][0]["shape"].update(n="many"), r"shape\[n\]"),
        (lambda d: d["rows"][0]["rounds"].append(None), r"rounds\[3\]"),
        (lambda d: d["rows"].append([]), r"rows\[4\]: expected an object"),
        (lambda d: d["canary"]["open"].pop("copy_gbps"), "canary.open.copy_gbps"),
        (lambda d: d["provenance"].update(date="today"), "provenance.date"),
        (lambda d: d["provenance"].update(digest={}), "provenance.digest"),
        (lambda d: d["provenance"].pop("torch"), "provenance.torch is missing"),
        (lambda d: d.update(experiment="other"), "belongs to 'sample-add'"),
        (lambda d: d["provenance"].update(slug="b200"), "belongs to 'h100-sxm'"),
    ],
)
def test_a_spoilt_file_is_named_with_the_field(folder, record, spoil, message):
    path = keep(folder, record, "h100-sxm")
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=message) as caught:
        measure.load(NAME)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_finite_numbers_are_written(folder, record, value):
    path = keep(folder, record, "h100-sxm")
    before = path.read_bytes()
    data = record.data()
    data["rows"][0]["gbps"] = value
    with pytest.raises(RecordError, match="finite"):
        schema.write(path, data)
    assert path.read_bytes() == before


def test_writing_is_all_or_nothing(folder, record, monkeypatch):
    path = keep(folder, record, "h100-sxm")
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        schema.write(path, record.data())
    assert path.read_bytes() == before
    assert [x.name for x in path.parent.iterdir()] == [path.name]


def test_rows_are_picked_by_field_and_dimension(record):
    assert len(record.select(impl="ours")) == 2
    assert len(record.select(n=1024, dtype=torch.float32, regime="cold")) == 2
    assert record.select(m=1024) == []
    assert record.one(ours=False, n=1024)["ms"] == 1.1
    assert record.best(n=1024)["impl"] == "ours"
    with pytest.raises(RecordError, match="2 rows have impl=ours, not one"):
        record.one(impl="ours")
    with pytest.raises(RecordError, match="no row has n=3"):
        record.best(n=3)


def test_frame_has_a_column_per_dimension_and_extra(record):
    frame = record.frame()
    assert list(frame["n"]) == [1024, 2048] * 2
    assert set(frame["lanes"]) == {4}
    assert {"impl", "ms", "gbps"} <= set(frame)
    assert not {"shape", "extra", "rounds"} & set(frame)


def test_values_are_derived_and_finite(record):
    assert record.values() == {"fast": pytest.approx(12 * 2048 / 1e6, rel=1e-5)}
    with pytest.raises(RecordError, match="has no value 'slow'; it has fast"):
        record.value("slow")
    measure.value(NAME)(broken)
    with pytest.raises(RecordError, match=r"sample-add.broken: .*0 rows"):
        record.value("broken")
    del registry._values[NAME]["broken"]
    measure.value(NAME)(endless)
    with pytest.raises(RecordError, match="not a finite number"):
        record.values()


def test_a_claim_that_fails_is_told_with_its_detail(record):
    assert record.broken_claims() == []
    for row in record.rows:
        if row["ours"]:
            row["rounds"] = [2 * ms for ms in row["rounds"]]
    [(claim, detail)] = record.broken_claims()
    assert (claim.text, detail) == ("Ours is ahead.", "slower")
    measure.claim(NAME, "Unmeasured.")(broken)
    assert "cannot be told" in dict_of(record.broken_claims())["broken"]


def dict_of(told):
    return {claim.name: detail for claim, detail in told}


def test_code_that_moved_on_is_named(record):
    digests = record.provenance["digest"]
    assert record.stale() == []
    digests["check"] = "0" * 12
    digests["gone"] = "0" * 12
    del digests["experiment"]
    assert record.stale() == ["check", "experiment", "gone"]
    assert record.stamp().endswith(
        "on an earlier version of this code (moved since: check, experiment, gone)."
    )


def test_declarations_are_checked(declared):
    with pytest.raises(ValueError, match="must be like 'chapter-"):
        measure.experiment("add", question="", op="add", modules=["check"])
    with pytest.raises(ValueError, match="modules must name"):
        measure.experiment("a-b", question="", op="add", modules=[])
    with pytest.raises(ValueError, match=rf"taken by {__name__}\.sample"):
        measure.experiment(NAME, question="", op="add", modules="check")(fast)
    # The same function again, as when a module is reloaded.
    measure.experiment(NAME, question="How?", op="add", modules="check")(sample)
    assert measure.find(NAME).question == "How?"


def test_an_unknown_experiment_has_its_neighbours_named(declared):
    with pytest.raises(measure.UnknownExperiment, match="is it sample-add"):
        measure.find("sample-ad")
    with pytest.raises(measure.UnknownExperiment, match=r"there are .*sample-add"):
        measure.find("zzz-zzz")


def test_chapters_are_discovered():
    found = {e.name: e for e in measure.experiments()}
    assert {"parallel-add", "parallel-launch", "parallel-pitfalls"} <= found.keys()
    for name, made in found.items():
        home = made.function.__module__
        assert home.startswith(f"tilebook.{name.split('-')[0]}.")
        assert made.digest()["experiment"]


@pytest.fixture
def gpu(monkeypatch):
    """A machine that seems to have a GPU, with a device of made-up time."""
    timer = Simulated()
    monkeypatch.setattr(device, "launch_device_type", lambda: "cuda")
    monkeypatch.setattr(device, "has", lambda feature: feature == "gpu")
    monkeypatch.setattr(runner, "here", lambda: timer)
    return timer


def test_without_a_gpu_the_record_is_read(folder, record, monkeypatch):
    monkeypatch.setattr(device, "launch_device_type", lambda: "cpu")
    keep(folder, record, "h200-sxm")
    assert measure.run(NAME).slug == "h200-sxm"
    assert not measure.run(NAME).live


def test_hardware_that_lacks_a_feature_reads_the_record(folder, record, gpu):
    keep(folder, record, "h200-sxm")
    again = measure.experiment(
        NAME, question="Why?", op="add", modules="check", needs="sm90"
    )
    again(sample)
    assert not measure.run(NAME).live


def test_with_a_gpu_it_is_measured_and_kept_for_this_build(
    folder, declared, gpu, monkeypatch, tmp_path
):
    live = tmp_path / "live"
    monkeypatch.setenv("TILEBOOK_LIVE", str(live))
    assert measure.run(NAME).live
    assert gpu._looked == 2
    assert [x.name for x in live.iterdir()] == [f"{NAME}.json"]
    assert not folder.exists()
    # Read again by another cell, and by whoever quotes it.
    assert measure.run(NAME).live
    assert measure.load(NAME).live
    assert gpu._looked == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d["provenance"]["digest"].update(check="0"),
        lambda d: d["provenance"].update(torch="1.0"),
        lambda d: d["provenance"].update(gpu="another"),
        lambda d: d["provenance"].update(protocol=0),
        lambda d: d.pop("rows"),
    ],
)
def test_a_live_record_of_something_else_is_measured_again(
    folder, declared, gpu, monkeypatch, tmp_path, spoil
):
    monkeypatch.setenv("TILEBOOK_LIVE", str(tmp_path))
    measure.run(NAME)
    path = tmp_path / f"{NAME}.json"
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))
    assert measure.run(NAME).live
    # What closed the first sitting opened the second.
    assert gpu._looked == 3
    assert measure.load(NAME).stale() == []


def test_without_a_gpu_a_live_record_is_not_this_builds(
    folder, record, monkeypatch, tmp_path
):
    monkeypatch.setenv("TILEBOOK_LIVE", str(tmp_path))
    monkeypatch.setattr(device, "launch_device_type", lambda: "cpu")
    schema.write(tmp_path / f"{NAME}.json", record.data())
    keep(folder, record, "h200-sxm")
    assert not measure.load(NAME).live


def test_recording_writes_a_committed_record(folder, declared, gpu, monkeypatch):
    monkeypatch.setattr(device, "require", lambda feature: None)
    made, path = runner.record(NAME, folder=folder)
    assert path == folder / "simulated" / f"{NAME}.json"
    assert measure.load(NAME).rows == made.rows


def test_an_impossible_measurement_is_not_recorded(folder, declared, gpu, monkeypatch):
    monkeypatch.setattr(device, "require", lambda feature: None)
    slow = dict.fromkeys(("copy_gbps", "read_gbps", "add_gbps"), 1e-6)
    gpu.l2_bytes = 0
    gpu.looks = [slow | {"matmul_tflops": 1.0}]
    with pytest.raises(RecordError, match="past the cache"):
        runner.record(NAME, folder=folder)
    assert not folder.exists()


def hold(path: str, name: str, log: str) -> None:
    locking.path = lambda: Path(path)
    with measure.gpu_alone(), measure.gpu_alone():
        with open(log, "a") as file:
            file.write(f"{name} in\n")
        time.sleep(0.05)
        with open(log, "a") as file:
            file.write(f"{name} out\n")


def test_measurements_never_overlap(tmp_path):
    fork = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [
        fork.Process(target=hold, args=(str(tmp_path / "lock"), str(i), str(log)))
        for i in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    lines = log.read_text().split("\n")[:-1]
    assert len(lines) == 8
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert second == first.replace("in", "out")


def test_the_lock_is_free_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "path", lambda: tmp_path / "lock")
    with pytest.raises(KeyError), measure.gpu_alone():
        raise KeyError
    fork = multiprocessing.get_context("fork")
    other = fork.Process(
        target=hold, args=(str(tmp_path / "lock"), "0", str(tmp_path / "log"))
    )
    other.start()
    other.join(30)
    assert other.exitcode == 0


def test_a_child_forked_inside_does_not_keep_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "path", lambda: tmp_path / "lock")
    fork = multiprocessing.get_context("fork")
    with measure.gpu_alone():
        child = fork.Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with open(tmp_path / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.join()


def test_only_ceilings_that_rows_are_held_against_drift():
    cool = {"copy_gbps": 4000.0, "matmul_tflops": 750.0}
    warm = {"copy_gbps": 4040.0, "matmul_tflops": 700.0}
    timed, rated = {"tflops": None}, {"tflops": 3.0}
    assert measure.roofline.drift(cool, warm, [timed]) == pytest.approx(0.01)
    assert measure.roofline.drift(cool, warm, [timed, rated]) == pytest.approx(1 / 15)


def test_rows_are_held_against_the_fastest_peer(record):
    ours, peer = (record.one(impl=name, n=1024) for name in ("ours", "peer"))
    faster = peer | {"impl": "faster", "ms": peer["ms"] / 2}
    faster["rounds"] = [ms / 2 for ms in peer["rounds"]]
    record.rows[:] = [ours, peer, faster]
    for names, best in ((("peer",), peer), (("peer", "faster"), faster)):
        found = record.against("ours", *names)
        assert found == [(ours, measure.ratio(ours, best))]
    with pytest.raises(RecordError, match=r"no .*nobody.* beside"):
        record.against("ours", "nobody")
