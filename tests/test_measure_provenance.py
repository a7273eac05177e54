"""Where a measurement says that it comes from."""

import subprocess
from importlib import metadata

import pytest

from tilebook.measure import provenance, roofline
from tilebook.measure.roofline import Roof
from tilebook.measure.simulated import CEILINGS, Simulated
from tilebook.measure.timing import time_cold, time_host, time_steady


def git(root, *command):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", root, *who, *command], check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.delenv("TILEBOOK_COMMIT", raising=False)
    root = tmp_path / "tree"
    (root / "code/tilebook/records").mkdir(parents=True)
    (root / "file").write_text("1")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_peers_are_named_by_their_rows(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1")
    found = provenance.peers(["softmax", "liger", "torch", "liger"])
    assert found == {"liger-kernel": "liger-kernel 1"}


def test_commit_and_whether_the_tree_differs(tree):
    name, dirty = provenance.commit(tree)
    assert len(name) == 40
    assert dirty is False
    # Records just written aren't code.
    (tree / "code/tilebook/records/new.json").write_text("{}")
    assert provenance.commit(tree) == (name, False)
    (tree / "file").write_text("2")
    assert provenance.commit(tree) == (name, True)


def test_a_tree_without_a_repository_may_be_told_its_commit(
    tmp_path, tree, monkeypatch
):
    assert provenance.commit(tmp_path) == (None, None)
    # Inside another project's repository, that one's commit isn't ours.
    assert provenance.commit(tree / "code") == (None, None)
    monkeypatch.setenv("TILEBOOK_COMMIT", "abc123")
    assert provenance.commit(tmp_path) == ("abc123", None)


def answering(monkeypatch, tmp_path, script):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_sensors_are_read_by_name(monkeypatch, tmp_path):
    answering(monkeypatch, tmp_path, 'echo "$@" > $0.log; echo "1980, 2619, [N/A], 41"')
    assert provenance.sensors("GPU-1") == {
        "sm_mhz": 1980.0,
        "memory_mhz": 2619.0,
        "power_limit_w": None,
        "temperature_c": 41.0,
    }
    asked = (tmp_path / "nvidia-smi.log").read_text()
    assert "-i GPU-1" in asked
    assert "clocks.sm,clocks.mem,power.limit,temperature.gpu" in asked


@pytest.mark.parametrize("script", ["exit 6", ""])
def test_sensors_that_cannot_be_read_are_none(monkeypatch, tmp_path, script):
    answering(monkeypatch, tmp_path, script)
    assert set(provenance.sensors("0").values()) == {None}
    assert provenance.driver("0") in (None, "")


def test_machines_without_the_tool_have_no_sensors(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(provenance.sensors("0").values()) == {None}
    assert provenance.driver("0") is None


def test_low_level_timings_ask_the_given_device():
    timer = Simulated(lambda call: 3.0)
    assert time_cold(print, timer=timer).ms == 3.0
    assert time_steady([print, print], timer=timer).ms == 3.0
    assert time_host(print, timer=timer).ms == 3.0
    assert time_host(print, wait=True, timer=timer).ms == 3.0
    assert [regime for regime, _ in timer.log] == [
        "cold",
        "cold",
        "steady",
        "host",
        "wait",
    ]
    with pytest.raises(ValueError, match="at least one call"):
        time_steady([], timer=timer)


def test_the_roof_is_the_lower_of_two_limits():
    roof = Roof(gbps=2000.0, tflops=500.0)
    assert roof.ridge == 250.0
    assert roof.attainable(1.0) == 2.0
    assert roof.attainable(1000.0) == 500.0
    assert roof.floor(bytes=2e9) == 1.0
    assert roof.floor(bytes=2e9, flops=2e12) == 4.0


def test_measured_roof_is_the_better_of_before_and_after():
    later = CEILINGS | {"copy_gbps": 1100.0, "matmul_tflops": 90.0}
    assert roofline.measured({"open": CEILINGS, "close": later}) == Roof(1100.0, 100.0)


def test_datasheets_are_by_card_and_dtype():
    assert roofline.datasheet("h100-sxm", "bfloat16").gbps == 3350
    fp8 = roofline.datasheet("h100-sxm", "float8_e4m3fn").tflops
    assert fp8 == 2 * roofline.datasheet("h100-sxm").tflops
    assert roofline.datasheet("a100-sxm-80gb", "float8_e4m3fn") is None
    assert roofline.datasheet("unknown") is None


def test_what_the_vendor_promises_or_else_a_copy():
    canary = {"open": CEILINGS, "close": CEILINGS}
    assert roofline.promised_gbps("h200-sxm", canary) == 4800
    assert roofline.promised_gbps("unknown", canary) == CEILINGS["copy_gbps"]
