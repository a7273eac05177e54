"""The collector of wheels, and the pins it collects by."""

import importlib.util
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tilebook.measure import provenance

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
DIRECT = ("book", "test", "tools")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "wheelhouse.py"
    spec = importlib.util.spec_from_file_location("wheelhouse", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def roots(*names: str) -> list[Requirement]:
    return [Requirement(name) for name in names]


NEEDS = {
    "book": ["theme>=1", "Old_Dash.Name", 'tomli; python_version < "3.12"'],
    "theme": ['speed; sys_platform == "win32"', "parts[fast]", "torch"],
    "parts": ['turbo; extra == "fast"', 'dev-only; extra == "dev"', "book"],
    "torch": ["jinja2"],
}


def test_closure_follows_requirements_and_markers(tool):
    found = tool.closure(roots("book"), NEEDS.get)
    assert found == {"book", "theme", "old-dash-name", "parts", "turbo"} | {
        "torch",
        "jinja2",
    }


def test_closure_leaves_out_names_and_what_only_they_need(tool):
    found = tool.closure(roots("book"), NEEDS.get, without=["Torch"])
    assert found.isdisjoint({"torch", "jinja2"})
    assert "parts" in found


def test_closure_evaluates_markers_for_the_target(tool):
    older = {**tool.TARGET, "python_version": "3.11"}
    assert "tomli" in tool.closure(roots("book"), NEEDS.get, environment=older)


def test_closure_adds_an_extra_asked_for_later(tool):
    found = tool.closure(roots("parts", "parts[dev]"), NEEDS.get, without=["book"])
    assert "dev-only" in found


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy==2,<3"])
def test_a_loose_pin_is_refused(tool, tmp_path, line):
    path = tmp_path / "loose.txt"
    path.write_text(f"# comment\n-c constraints.txt\n{line}\n")
    with pytest.raises(ValueError, match=r"numpy.* fixes no version"):
        tool.pins([path])


def test_every_requirement_is_an_exact_pin_in_one_place(tool):
    files = [*DIRECT, "constraints"]
    counts = [len(tool.requirements(REQUIREMENTS / f"{name}.txt")) for name in files]
    pinned = tool.pins(REQUIREMENTS / f"{name}.txt" for name in files)
    assert len(pinned) == sum(counts)
    for machine in ("cpu", "gpu"):
        assert tool.pins([REQUIREMENTS / f"{machine}.txt"]).keys() == {
            "torch",
            "triton",
        }


def test_peers_are_pinned_and_named_as_their_records_do(tool):
    pinned = tool.pins([REQUIREMENTS / "peers.txt"])
    assert pinned.keys() == set(provenance.PEERS.values())
    ours = tool.pins(REQUIREMENTS / f"{name}.txt" for name in (*DIRECT, "constraints"))
    assert pinned.keys().isdisjoint(ours)


def installed_as_pinned(tool: ModuleType) -> dict[str, str]:
    pinned = tool.pins(
        REQUIREMENTS / f"{name}.txt" for name in (*DIRECT, "constraints", "cpu")
    )
    here = {
        canonicalize_name(found.name): found.version.partition("+")[0]
        for found in metadata.distributions()
    }
    moved = [
        name
        for name, version in pinned.items()
        if name in here and here[name] != version
    ]
    if moved or not here.keys() >= {"torch", "sphinx", "playwright"}:
        pytest.skip("this environment is not the one of requirements/cpu.txt")
    return pinned


def test_the_constraints_are_all_that_is_needed_and_no_more(tool):
    """Installing twice gives the same versions, and no pin outlives its reason."""
    pinned = installed_as_pinned(tool)
    asked = [
        line
        for name in (*DIRECT, "cpu")
        for line in tool.requirements(REQUIREMENTS / f"{name}.txt")
    ]
    needed = set()
    for python in ("3.11", "3.12"):
        environment = {**tool.TARGET, "python_version": python}
        needed |= tool.closure(asked, metadata.requires, environment=environment)
    assert needed == pinned.keys()


def test_the_wheelhouse_holds_pinned_packages_and_nothing_of_torch(tool):
    pinned = installed_as_pinned(tool)
    there = tool.requirements(REQUIREMENTS / "gpu-machine.txt")
    asked = [
        line
        for name in ("book", "test")
        for line in tool.requirements(REQUIREMENTS / f"{name}.txt")
    ]
    names = tool.closure(asked, metadata.requires, without=[x.name for x in there])
    assert names <= pinned.keys()
    assert names >= {"sphinx", "myst-nb", "ipykernel", "pytest-timeout"}
    assert names.isdisjoint({"torch", "triton", "numpy", "sympy", "playwright"})


def test_the_wheelhouse_is_filled_with_the_pins(tool, tmp_path, monkeypatch):
    """All that the roots lead to is pinned where the tool looks for it."""
    fetched = {}

    def download(names, folder):
        fetched.update(names)

    monkeypatch.setattr(tool, "download", download)
    monkeypatch.setattr(tool.sys, "argv", ["wheelhouse.py", str(tmp_path)])
    assert tool.main() == 0
    assert fetched.items() <= installed_as_pinned(tool).items() | peers(tool).items()
    assert fetched.keys() >= {"sphinx", "beautifulsoup4", *peers(tool)}


def peers(tool: ModuleType) -> dict[str, str]:
    return tool.pins([REQUIREMENTS / "peers.txt"])
