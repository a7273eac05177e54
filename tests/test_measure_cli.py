"""The command line, with a device of made-up time."""

import pytest
import torch

from tilebook import device, measure
from tilebook.measure import __main__ as command
from tilebook.measure import registry, runner, schema
from tilebook.measure.simulated import Simulated
from tilebook.measure.timing import Timing

NAME = "sample-add"


def sample(bench):
    for impl, ms in (("ours [fast]", 1.0), ("peer", 2.0)):
        bench.row(
            impl=impl,
            ours=impl != "peer",
            shape={"n": 1024},
            dtype=torch.float32,
            regime="cold",
            timing=Timing(ms, ms, ms, (ms,) * bench.budget.rounds),
            bytes=12e6,
        )


def ahead(record):
    return record.one(impl="peer")["ms"] > 3, "only twice as fast"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    measure.experiments()
    monkeypatch.setattr(registry, "_experiments", {})
    monkeypatch.setattr(registry, "_claims", {})
    monkeypatch.setattr(registry, "_homes", list)
    measure.experiment(NAME, question="Why?", op="add", modules=["check"])(sample)
    monkeypatch.setattr(measure.records, "RECORDS", tmp_path / "records")
    monkeypatch.delenv("TILEBOOK_LIVE", raising=False)
    return tmp_path / "records"


@pytest.fixture
def gpu(monkeypatch, folder):
    monkeypatch.setattr(device, "launch_device_type", lambda: "cuda")
    monkeypatch.setattr(device, "has", lambda feature: True)
    monkeypatch.setattr(device, "require", lambda feature: None)
    monkeypatch.setattr(runner, "here", Simulated)


@pytest.fixture
def laptop(monkeypatch, folder):
    monkeypatch.setattr(device, "launch_device_type", lambda: "cpu")
    monkeypatch.setattr(device, "has", lambda feature: False)


def recorded(folder, slug, times=1.0):
    made = runner.measure(registry.find(NAME), Simulated(), measure.Budget(2))
    data = made.data()
    data["provenance"] |= {"slug": slug, "gpu": slug.upper()}
    for row in data["rows"]:
        for key in ("ms", "ms_low", "ms_high"):
            row[key] *= times
    schema.write(folder / slug / f"{NAME}.json", data)


def test_list_says_what_is_recorded_where(folder, laptop, capsys):
    recorded(folder, "h100-sxm")
    assert command.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert NAME in out
    assert "Why?" in out
    assert "h100-sxm" in out


def test_a_laptop_prints_the_record_and_says_so(folder, laptop, capsys):
    recorded(folder, "h100-sxm")
    assert command.main([NAME]) == 0
    out = capsys.readouterr().out
    assert "these are the recorded figures" in out
    assert "ours [fast] *" in out
    assert "Recorded on H100-SXM" in out
    assert "12 GB/s" in out


def test_a_gpu_is_printed_beside_the_recorded_one(folder, gpu, capsys):
    recorded(folder, "h100-sxm", times=3.0)
    assert command.main([NAME, "--rounds", "3"]) == 0
    out = capsys.readouterr().out
    [ours] = [line for line in out.splitlines() if "ours [fast] *" in line]
    assert "1 ms" in ours
    assert "3 ms" in ours
    assert "3.00x" in ours
    assert "Measured in this build on Simulated" in out
    assert "Recorded on H100-SXM" in out


def test_recording_needs_a_gpu(folder, laptop, capsys):
    assert command.main(["--record"]) == 2
    assert "there is no GPU here" in capsys.readouterr().err
    assert not folder.exists()


def test_recording_writes_and_knows_its_options(folder, gpu, capsys):
    asked = ["--record", "--only", "sample", "--rounds", "7", "--budget", "0.5"]
    assert command.main(asked) == 0
    assert f"simulated/{NAME}.json" in capsys.readouterr().out
    made = measure.load(NAME).provenance
    assert (made["rounds"], made["budget_s"]) == (7, 0.5)


def test_claims_that_do_not_hold_fail(folder, laptop, capsys):
    recorded(folder, "h100-sxm")
    measure.claim(NAME, "Three times as fast.")(ahead)
    assert command.main([NAME]) == 0
    assert command.main([NAME, "--claims"]) == 1
    out = capsys.readouterr().out
    assert "DOES NOT HOLD" in out
    assert "only twice as fast" in out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["sample-adx"], "is it sample-add"),
        (["--only", "zzz"], "begins with 'zzz'"),
        ([NAME], "has not been recorded"),
    ],
)
def test_what_goes_wrong_is_one_line(folder, laptop, capsys, asked, message):
    assert command.main(asked) == 1
    err = capsys.readouterr().err
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_one_failure_does_not_stop_the_rest(folder, gpu, capsys):
    def mistaken(bench):
        raise measure.WrongResult("ours on add n=1: output 0 is wrong")

    mistaken.__qualname__ = mistaken.__name__ = "sample"
    measure.experiment("a-wrong", question="", op="add", modules=["check"])(mistaken)
    assert command.main([]) == 1
    out, err = capsys.readouterr()
    assert "output 0 is wrong" in err
    assert "Measured in this build" in out
