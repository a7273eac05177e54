"""The doctor: says what is here, finds what is broken, and survives it."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
import torch

from tilebook import _pulse, device, doctor, interpreter, measure


@pytest.fixture
def cheap(monkeypatch):
    """Leave out the compilations, which take seconds."""
    monkeypatch.setattr(_pulse, "compile_for", lambda target: f"compiled for {target}")


def states() -> dict[str, tuple[str, str]]:
    return {f.name: (f.state, f.detail) for f in doctor.examine()}


def test_this_machine_is_healthy():
    done = subprocess.run(
        [sys.executable, "-m", "tilebook.doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stderr
    found = {f["name"]: f for f in report["findings"]}
    assert found["triton"]["detail"] == importlib.metadata.version("triton")
    assert found["kernels run on"]["detail"] == device.describe()
    assert found["run kernels"]["state"] == "ok"
    assert found["compile for sm_90"]["state"] == "ok"
    gpu = device.launch_device_type() == "cuda"
    assert found["gpu"]["state"] == found["measure"]["state"] == ("ok" if gpu else "no")


def test_text_report(cheap, capsys):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for section in ("Versions", "Mode", "Hardware", "What runs", "Records"):
        assert section in text
    assert (interpreter.LIMITS[0][:30] in text) == device.interpreting()


def test_unsupported_version(cheap, monkeypatch, capsys):
    version = importlib.metadata.version
    old = {"triton": "3.5.1"}
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: old.get(name) or version(name)
    )
    assert states()["triton"] == ("broken", "3.5.1 is outside >=3.6,<4")
    assert doctor.main(["--json"]) == 1
    printed = capsys.readouterr()
    assert "broken: triton: 3.5.1 is outside >=3.6,<4" in printed.err
    assert json.loads(printed.out)["ok"] is False


def test_missing_package(cheap, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert states()["torch"] == ("broken", "not installed")


def test_kernels_that_fail_or_lie(cheap, monkeypatch):
    def fails():
        raise OSError("no such driver\nand a long story")

    monkeypatch.setattr(_pulse, "run", fails)
    assert states()["run kernels"] == ("broken", "OSError: no such driver")


def test_pulse_notices_a_wrong_answer(monkeypatch):
    monkeypatch.setattr(torch, "equal", lambda a, b: False)
    with pytest.raises(RuntimeError, match="got them wrong"):
        _pulse.run()


@pytest.mark.skipif(not device.interpreting(), reason="repairs are of the interpreter")
def test_repair_without_effect(cheap, monkeypatch):
    monkeypatch.setattr(type(interpreter.REPAIRS[0]), "needed", lambda self: True)
    state, detail = states()["interpreter as repaired"]
    assert state == "broken"
    assert interpreter.REPAIRS[0].name in detail


def test_damaged_record(cheap, monkeypatch, tmp_path):
    path = tmp_path / "h100-sxm" / "parallel-add.json"
    path.parent.mkdir()
    path.write_text('{"experiment": "paral')

    def damaged(name, gpu):
        raise measure.RecordError(f"{path} is damaged")

    monkeypatch.setattr(measure, "committed", lambda: [path])
    monkeypatch.setattr(measure, "load", damaged)
    assert states()["h100-sxm"] == ("broken", f"{path} is damaged")


def test_without_gpu_and_interpreter(cheap, monkeypatch):
    monkeypatch.setattr(device, "launch_device_type", lambda: None)
    state, detail = states()["run kernels"]
    assert (state, detail) == ("no", "no GPU, and TRITON_INTERPRET=0")


@pytest.mark.parametrize(
    ("environment", "cuda", "expected"),
    [
        ({"TILEBOOK_DEVICE": "cpu"}, "13.0", ("no", "TILEBOOK_DEVICE=cpu hides it")),
        ({"CUDA_VISIBLE_DEVICES": ""}, "13.0", ("no", "CUDA_VISIBLE_DEVICES hides it")),
        ({}, None, ("no", "this torch was built without CUDA")),
    ],
)
def test_hidden_gpu(monkeypatch, environment, cuda, expected):
    for name in ("TILEBOOK_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert doctor._hidden_gpu() == expected
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("TILEBOOK_DEVICE", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert doctor._hidden_gpu()[0] == "broken"


def test_an_examination_that_fails_is_a_finding(cheap, monkeypatch):
    def fails():
        raise ImportError("libcudart is missing")

    monkeypatch.setattr(device, "describe", fails)
    assert states()["examination"] == ("broken", "ImportError: libcudart is missing")
