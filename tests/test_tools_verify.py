"""The verifier: which tests a sanitizer watches, and that each part has to end."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("verify", ROOT / "tools/verify.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ran:
    """In place of a process under compute-sanitizer: writes the log it is told to."""

    def __init__(self, seen, says, status=0):
        self._seen, self._says, self._status = seen, says, status

    def __call__(self, command, **_):
        self._seen.append(command)
        log = Path(command[command.index("--log-file") + 1])
        log.write_text(self._says(len(self._seen)))
        return self

    def wait(self):
        return self._status


def summary(_):
    return "========= ERROR SUMMARY: 0 errors\n"


def test_every_test_is_in_one_part(tool, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(subprocess, "Popen", Ran(seen, summary))
    names = [f"tests/test_x.py::test[{i}]" for i in range(10)]
    log = tmp_path / "memcheck.log"
    assert tool.sanitizer("memcheck", log, names, 3) == 0
    assert len(seen) == 3
    assert sorted(x for command in seen for x in command if "::" in x) == sorted(names)
    assert log.read_text().count("SUMMARY") == 3


def test_a_part_that_did_not_end_leaves_no_verdict(tool, tmp_path, monkeypatch):
    says = Ran([], lambda n: summary(n) if n == 1 else "=========\n")
    monkeypatch.setattr(subprocess, "Popen", says)
    log = tmp_path / "memcheck.log"
    assert tool.sanitizer("memcheck", log, ["a::b", "a::c"], 2) == 1
    assert not log.exists()


def test_a_failed_part_is_told(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Ran([], summary, status=9))
    assert tool.sanitizer("memcheck", tmp_path / "m.log", ["a::b"], 2) == 1


def left(tool, logs):
    """What the steps leave, all of them about the code as it is."""
    for name in ("tests-a.xml", "tests-b.xml", "memcheck.log", "racecheck.log"):
        (logs / name).write_text("")
        tool.stamp(logs / name)


def test_the_note_is_of_all_steps(tool, tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    left(tool, tmp_path)
    assert tool.note(tmp_path) == 0
    (command,) = commands
    assert command.count("--junit") == 2
    assert f"racecheck={tmp_path / 'racecheck.log'}" in command


@pytest.mark.parametrize("name", ["tests-b.xml", "memcheck.log"])
def test_a_step_about_other_code_is_not_noted(name, tool, tmp_path, capsys):
    left(tool, tmp_path)
    (tmp_path / name).with_suffix(".code").write_text("other")
    assert tool.note(tmp_path) == 1
    assert f"{name} is about other code" in capsys.readouterr().err


def test_a_step_that_is_missing_is_named(tool, tmp_path, capsys):
    left(tool, tmp_path)
    (tmp_path / "racecheck.log").unlink()
    assert tool.note(tmp_path) == 1
    assert "racecheck.log" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_watched_is_found(tool):
    names = tool.watched("tests/test_parallel.py")
    assert len(names) > 5
    assert all(name.startswith("tests/test_parallel.py::") for name in names)
