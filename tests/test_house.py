"""Makefile, README, CONTRIBUTING, citation and workflow agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
SET_BY_CALLERS = {"PYTHON", "OFFLINE", "ONLY", "ARGS", "JOBS", "WORKERS", "TRITONS"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def targets() -> set[str]:
    listed = re.search(r"^\.PHONY: (.*?)\n\n", MAKEFILE, re.M | re.S)[1]
    return set(listed.replace("\\", "").split())


def make(
    folder: Path, *arguments: str, path: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run make as if no other make, nor a caller's settings, were around it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in SET_BY_CALLERS and not name.startswith(("MAKE", "MFLAGS"))
    }
    inherited["PATH"] = path or inherited["PATH"]
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of what the Makefile depends on, without an environment."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def with_nvidia_smi(folder: Path, script: str) -> str:
    """A search path on which ``nvidia-smi`` is this script."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    tool = bin_folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return f"{bin_folder}:{os.environ['PATH']}"


def test_make_alone_lists_every_target(house):
    listed = make(house).stdout.splitlines()
    assert {line.split()[0] for line in listed} == targets()
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in listed)


@pytest.mark.parametrize(
    "text",
    [README, CONTRIBUTING, CI, WORKFLOW],
    ids=["README", "CONTRIBUTING", "CI", "WF"],
)
def test_documents_name_targets_that_exist(text):
    commands = re.findall(
        r"(?:^|[`:] |    |step |`)make ([a-z]+(?:-[a-z]+)*)", text, re.M
    )
    assert set(commands) <= targets()
    assert commands or ".ci/run" in text


def test_continuous_integration_runs_the_commands_of_the_readme():
    shown = re.findall(r"^    make ([a-z-]+)", README, re.M)
    assert shown == ["html", "test"]
    steps = re.findall(r"^step make ([a-z-]+)", CI, re.M)
    assert {*shown, "check-site", "test-versions"} <= set(steps)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "run: .ci/run" in WORKFLOW


@pytest.mark.parametrize(
    ("script", "machine"),
    [
        ("echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'", "gpu"),
        ("echo 'No devices were found'; exit 6", "cpu"),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", "cpu"),
    ],
)
def test_the_environment_fits_the_machine(house, tmp_path, script, machine):
    done = make(house, "-n", "html", path=with_nvidia_smi(tmp_path, script))
    assert f"--requirement requirements/{machine}.txt" in done.stdout
    jobs = {"gpu": "1", "cpu": "auto"}[machine]
    assert f"tools/build_book.py --jobs {jobs}" in done.stdout


def test_a_filled_environment_is_not_filled_again(house, tmp_path):
    path = with_nvidia_smi(tmp_path, "exit 1")
    (house / ".venv").mkdir()
    ready = house / ".venv" / "ready-cpu"
    ready.touch()
    later = ready.stat().st_mtime + 10
    os.utime(ready, (later, later))
    assert "pip" not in make(house, "-n", "html", path=path).stdout

    os.utime(house / "requirements" / "constraints.txt", (later + 10, later + 10))
    assert "pip" in make(house, "-n", "html", path=path).stdout


def test_a_given_python_is_used_as_it_is(house):
    given = make(house, "-n", "test", "PYTHON=/some/python").stdout
    assert "/some/python -m pytest" in given
    assert "pip" not in given
    assert (
        "/some/python -m pytest"
        in make(house, "-n", "test", PYTHON="/some/python").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["PYTHON=env"], "code"),
        (["OFFLINE=.whl"], "_build/site-packages"),
        ([], ""),
    ],
)
def test_the_package_is_found_where_it_cannot_be_installed(house, arguments, first):
    (house / ".whl").mkdir()
    (house / ".whl" / "some.whl").touch()
    (house / "Makefile").write_text(MAKEFILE + '\nshow:\n\t@echo "<$$PYTHONPATH>"\n')
    shown = make(house, "show", *arguments, PYTHONPATH="/mine").stdout
    entries = re.search(r"<(.*)>", shown)[1].split(":")
    assert entries[0] == (str(house / first) if first else "")
    assert ("/mine" in entries) is bool(first)
    assert first == "" or str(house / "code") in entries
    assert first == "" or "" not in entries


def test_wheels_are_installed_without_a_network(house):
    (house / "wheels").mkdir()
    assert "no wheels in wheels" in make(house, "html", "OFFLINE=wheels").stderr
    (house / "wheels" / "some.whl").touch()
    done = make(house, "-n", "html", "OFFLINE=wheels").stdout
    assert re.search(
        r"^python3 .*--no-index --no-deps --target .* wheels/some.whl", done, re.M
    )


def test_record_measures_what_is_asked_for(house):
    one = make(house, "-n", "record", "PYTHON=py", "ONLY=parallel-add").stdout
    assert one.strip().endswith("-m tilebook.measure --record --only parallel-add")
    assert make(house, "-n", "record", "PYTHON=py").stdout.strip().endswith("--record")


def test_the_readme_names_the_pinned_versions():
    for machine in ("cpu", "gpu"):
        pins = (ROOT / "requirements" / f"{machine}.txt").read_text()
        torch, triton = (
            re.search(rf"^{name}==(.+)$", pins, re.M)[1] for name in ("torch", "triton")
        )
        assert re.search(rf"\| {re.escape(torch)} \| {re.escape(triton)} \|", README)
    tested = re.search(r"^TRITONS \?= (.+)$", MAKEFILE, re.M)[1].split()
    assert f"Triton {', '.join(tested[:-1])} and {tested[-1]}" in README


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_links_to_files_lead_somewhere(text):
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [path for path in linked if not (ROOT / path).exists()] == []
    named = re.findall(
        r"`((?:code|chapters|tests|book|tools|requirements)/[\w./-]*)`", text
    )
    assert named
    # What is said of any chapter has to be true of the first.
    named = [path.replace("STEM", "parallel") for path in named]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert set(citation["license"]) == {"Apache-2.0", "CC-BY-4.0"}
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_site_is_published_from_a_live_build_only_where_there_is_one():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert "vars.GPU_RUNNER != ''" in jobs["live"]["if"]
    assert "pull_request" in jobs["live"]["if"]
    publish = jobs["publish"]
    assert publish["needs"] == ["recorded", "live"]
    assert "needs.recorded.result == 'success'" in publish["if"]
    uploaded = {
        step["with"]["name"]
        for job in ("recorded", "live")
        for step in jobs[job]["steps"]
        if "upload-pages-artifact" in step.get("uses", "")
    }
    (deploy,) = publish["steps"]
    assert uploaded == set(re.findall(r"site-\w+", deploy["with"]["artifact_name"]))


def test_licences_are_whole():
    apache = (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in apache
    assert "9. Accepting Warranty or Additional Liability." in apache
    assert text.startswith("Attribution 4.0 International")
    assert [int(n) for n in re.findall(r"^Section (\d) --", text, re.M)] == list(
        range(1, 9)
    )


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("_", range(3))
def test_groups_are_heeded(_, request, pytestconfig):
    """Newer versions of pytest and pytest-xdist have lost groups without a word."""
    if not hasattr(pytestconfig, "workerinput"):
        pytest.skip("a single process")
    if not pytestconfig.getoption("loadgroup"):
        pytest.skip("not asked for")
    assert request.node.nodeid.endswith("@together")
