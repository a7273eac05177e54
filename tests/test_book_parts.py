"""The parts of the book's extension that need no build."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from packaging.version import Version
from sphinx import addnodes
from sphinx.environment.collectors.toctree import TocTreeCollector

from tilebook import measure

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


def test_a_dated_claim_is_read():
    claim = part("asof").parse("triton 3.7.1 2026-11")
    assert (claim.tool, claim.version) == ("triton", Version("3.7.1"))
    assert claim.date == "2026-11"


@pytest.mark.parametrize(
    "text", ["triton 3.7.1", "triton new 2026-11", "triton 3.7.1 2026-13", ""]
)
def test_a_malformed_dated_claim_is_refused(text: str):
    with pytest.raises(ValueError, match="asof wants"):
        part("asof").parse(text)


def test_dated_claims_are_found_with_their_lines(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("One.\n\nTrue {asof}`torch 2.0 2023-03` then.\n")
    [(line, claim)] = part("asof").found_in(page)
    assert (line, claim.tool) == (3, "torch")


def test_no_dated_claim_is_older_than_the_pins():
    asof = part("asof")
    pins = asof.newest_pins(ROOT / "requirements")
    assert pins["triton"] >= Version("3.7")
    pages = sorted((ROOT / "chapters").glob("*.md"))
    pages += sorted((ROOT / "book").glob("*.md"))
    older = [
        f"{page.name}:{line}: {claim.tool} {claim.version}, pinned {pins[claim.tool]}"
        for page in pages
        for line, claim in asof.found_in(page)
        if claim.tool in pins and claim.version < pins[claim.tool]
    ]
    assert not older, "check these again:\n" + "\n".join(older)


def test_the_newest_of_several_pins_counts(tmp_path: Path):
    (tmp_path / "a.txt").write_text("triton==3.6.0\n# triton==9\n")
    (tmp_path / "b.txt").write_text("triton==3.7.1  # why\ntorch==2.13.0\n")
    pins = part("asof").newest_pins(tmp_path)
    assert pins == {"triton": Version("3.7.1"), "torch": Version("2.13.0")}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of the real one."""
    files = {
        "__init__.py": "",
        "low.py": "",
        "alone.py": "",
        "chap/__init__.py": "from . import rung\n",
        "chap/rung.py": "from ..low import thing\nfrom .deep import x\n",
        "chap/deep.py": "",
        "chap/experiments.py": "import tilebook.alone\n",
        "records/g1/chap-speed.json": "{}",
        "records/g1/other-speed.json": "{}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(part("inputs"), "package_root", lambda: tmp_path)
    return tmp_path


def test_modules_are_followed_through_relative_imports(package: Path):
    inputs = part("inputs")
    cells = inputs.cells_of("```{code-cell} python\nfrom tilebook import chap\n```\n")
    found = inputs.modules_of([inputs.parsed(cell) for cell in cells])
    names = [path.relative_to(package).as_posix() for path in found]
    expected = ["__init__.py", "chap/__init__.py", "chap/deep.py", "chap/rung.py"]
    assert names == [*expected, "low.py"]


def test_a_chapter_depends_on_all_of_its_own_package(package: Path):
    inputs = part("inputs")
    found = inputs.modules_of([], inputs.own_modules("chap"))
    assert package / "alone.py" in found


def test_records_are_those_of_the_chapter_and_those_it_names(package: Path):
    inputs = part("inputs")
    folder = package / "records" / "g1"
    assert inputs.records_of([], "chap") == [folder / "chap-speed.json"]
    named = inputs.parsed('measure.run("other-speed")')
    assert folder / "other-speed.json" in inputs.records_of([named], "chap")


def test_importing_the_package_changes_no_digest():
    ask = "from bookext import machine; import sys"
    ask += "; sys.argv[1:] and __import__('tilebook'); print(machine.surroundings())"
    folder = str(ROOT / "book" / "_ext")
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    clean["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    said = [
        subprocess.run(
            [sys.executable, "-c", ask, *more],
            env=clean,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ([], ["import"])
    ]
    assert said[0] == said[1]
    assert "triton " in said[0]


def test_options_magics_and_broken_code_import_nothing():
    inputs = part("inputs")
    text = "```{code-cell} python\n:tags: [x]\n%timeit 1\n!ls\nimport a b\n```\n"
    [cell] = inputs.cells_of(text)
    assert cell == "import a b"
    assert list(inputs.imported(inputs.parsed(cell), "")) == []


def test_a_missing_record_is_an_error_that_the_build_catches():
    kinds = (OSError, LookupError, ValueError, RuntimeError)
    with pytest.raises(kinds, match="no-such"):
        measure.load("no-such-record")


def test_a_warning_names_the_line_of_the_number(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("a\nb\nc {measured}`x.y` d\n")
    assert part("records").line_of(page, 1, "{measured}`x.y`") == 3
    assert part("records").line_of(page, 2, "absent") == 2


def test_a_shown_error_is_its_message():
    message_of = part("chapters").message_of
    frames = "----\nTypeError    Traceback\nCell In[3], line 1\n----> 1 f()\n\n"
    frames += "File /home/me/f.py:9, in f()\n---> 9 raise TypeError(1)\n\n"
    assert message_of(frames + "TypeError: no\n\nreally") == "TypeError: no\n\nreally"
    assert message_of("KeyError: 'x'") == "KeyError: 'x'"


def test_cells_are_written_for_reading():
    row = {"ms": 0.05, "ms_low": 0.049, "ms_high": 0.051, "ours": True, "gbps": None}
    row |= {"shape": {"n": 1048576}, "extra": {"launches": 3}}
    cell = part("tables").cell
    assert cell(row, "us") == "50.00"
    assert cell(row, "spread") == "4.0%"
    assert cell(row, "shape") == cell(row, "n") == "1,048,576"
    assert cell(row, "launches") == "3"
    assert cell(row, "gbps") == "\N{EN DASH}"
    with pytest.raises(LookupError, match="no field 'nothing'"):
        cell(row, "nothing")


def test_ours_stand_out_among_peers_only():
    table_of = part("tables").table_of
    ours, peer = ({"ours": ours, "ms": 1.0} for ours in (True, False))
    for rows, marked in (([ours, peer], [True, False]), ([ours, ours], [False, False])):
        found = table_of(rows, ["us"]).findall(nodes.row)
        assert ["ours" in row["classes"] for row in found] == [False, *marked]


def test_a_page_becomes_plain_markdown():
    box = nodes.tip("", nodes.paragraph("", "Careful."))
    link = nodes.reference("", "1,234", refuri="../book/v.html#r", internal=True)
    section = nodes.section(
        "",
        nodes.title("", "Masks"),
        nodes.paragraph("", "It moves ", link, nodes.Text(" GB/s at a_b.")),
        nodes.container(nb_element="cell_code", cell_index=7),
        box,
        nodes.literal_block("", "x = 1\n", language="python"),
    )
    found = part("plain").Converter("https://b.org/chapters/p.html").blocks(section)
    assert found == [
        "# Masks",
        "It moves [1,234](https://b.org/book/v.html#r) GB/s at a\\_b.",
        7,
        "> **Tip**\n>\n> Careful.",
        "```python\nx = 1\n```",
    ]


def test_a_fence_is_longer_than_those_inside():
    block = nodes.literal_block("", "```\nx\n```", language="none")
    [text] = part("plain").Converter("").blocks(block)
    assert text.startswith("````\n```")
    assert text.endswith("````")


JUNIT = """\
<testsuites><testsuite>
<testcase classname="tests.test_a" name="one"/>
<testcase classname="tests.test_a.TestX" name="two"><failure/></testcase>
<testcase classname="tests.test_b" name="three"><skipped/></testcase>
</testsuite></testsuites>
"""


def verification() -> dict:
    """Return what a verification file holds."""
    text = ("gpu", "slug", "driver", "torch", "triton", "python", "date", "commit")
    return {
        "schema": 1,
        **dict.fromkeys(text, "x"),
        "dirty": False,
        "digest": "0",
        "tests": {"tests/test_a.py": {"passed": 1, "failed": 0, "skipped": 0}},
        "sanitizer": [{"tool": "memcheck", "version": "2025.3", "errors": 0}],
    }


def test_outcomes_are_counted_by_file(tmp_path: Path):
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    counts = part("runs").test_counts(path)
    assert counts == {
        "tests/test_a.py": {"passed": 1, "failed": 1, "skipped": 0},
        "tests/test_b.py": {"passed": 0, "failed": 0, "skipped": 1},
    }


@pytest.mark.parametrize(
    ("log", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 3 errors", 3),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", 2),
    ],
)
def test_the_sanitizers_verdict_is_read(log: str, errors: int):
    assert part("runs").sanitizer_errors(log) == errors


def test_a_sanitizer_that_did_not_end_has_no_verdict():
    with pytest.raises(ValueError, match="did not end"):
        part("runs").sanitizer_errors("========= COMPUTE-SANITIZER\n")


def test_a_sound_verification_file_is_read(tmp_path: Path):
    path = tmp_path / "verification.json"
    path.write_text(json.dumps(verification()))
    assert part("runs").read(path) == verification()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"dirty": 1}, "dirty wants bool"),
        ({"extra": 1}, "the file wants"),
        ({"tests": {"a": {"passed": 1}}}, r"tests\[a\] wants"),
        ({"sanitizer": [{"tool": "memcheck"}]}, r"sanitizer\[0\] wants"),
    ],
)
def test_a_damaged_verification_file_is_named(tmp_path: Path, change: dict, said: str):
    path = tmp_path / "verification.json"
    path.write_text(json.dumps(verification() | change))
    with pytest.raises(ValueError, match=said) as caught:
        part("runs").read(path)
    assert str(path) in str(caught.value)


def test_a_truncated_verification_file_is_named(tmp_path: Path):
    path = tmp_path / "verification.json"
    path.write_text(json.dumps(verification())[:40])
    with pytest.raises(ValueError, match=r"verification\.json: damaged"):
        part("runs").read(path)


def test_committed_verification_files_are_sound():
    for path in (ROOT / "code/tilebook/records").glob("*/verification.json"):
        data = part("runs").read(path)
        assert data["slug"] == path.parent.name
        assert sum(counts["failed"] for counts in data["tests"].values()) == 0
        assert all(tool["errors"] == 0 for tool in data["sanitizer"])


def test_the_codes_digest_ignores_comments(tmp_path: Path):
    module = tmp_path / "m.py"
    module.write_text("x = 1\n")
    before = part("runs").code_digest(tmp_path)
    module.write_text('"""Doc."""\n\nx = 1  # one\n')
    assert part("runs").code_digest(tmp_path) == before
    module.write_text("x = 2\n")
    assert part("runs").code_digest(tmp_path) != before


def test_numbers_go_on_from_part_to_part():
    """Also after the numbering pages are read as before."""
    numbering = part("numbering")

    def table(*pages: str, numbered: int = 999) -> addnodes.toctree:
        entries = [(None, page) for page in pages]
        return addnodes.toctree("", entries=entries, numbered=numbered)

    def page(name: str) -> nodes.document:
        document = new_document(name)
        document += [table("preface", numbered=0), table("a", "b"), table("c")]
        return document

    def contents() -> nodes.bullet_list:
        link = nodes.reference("", "title", anchorname="")
        line = addnodes.compact_paragraph("", "", link)
        return nodes.bullet_list("", nodes.list_item("", line))

    names = ("preface", "a", "b", "c")
    env = SimpleNamespace(
        numbered_toctrees={"index"},
        toc_secnumbers={},
        tocs={name: contents() for name in names},
        titles={name: nodes.title() for name in names},
        get_doctree=page,
    )
    numbering.throughout(TocTreeCollector(), env)
    assert env.toc_secnumbers == {"a": {"": (1,)}, "b": {"": (2,)}, "c": {"": (3,)}}
    assert env.titles["c"]["secnumber"] == [3]
    assert env.get_doctree is page


def test_the_reference_leaves_drafts_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    api = part("api")
    # It would leave this process without kernels.
    monkeypatch.setattr(api, "unwrap", lambda: None)
    shown = tmp_path / "chapters"
    shown.mkdir()
    (shown / "parallel.md").touch()
    app = SimpleNamespace(
        srcdir=tmp_path,
        doctreedir=tmp_path / "_build" / "doctrees",
        config=SimpleNamespace(exclude_patterns=["book/_*", "chapters/tiling.md"]),
    )
    pages = tmp_path / "book" / "api"
    pages.mkdir(parents=True)
    api.write_pages(app)
    written = {path.stem for path in pages.glob("*.md")}
    assert "parallel" in written
    assert "tiling" not in written
    app.config.exclude_patterns.pop()
    api.write_pages(app)
    assert {path.stem for path in pages.glob("*.md")} == written | {"tiling"}


LADDER = '''\
"""A module."""

import json

LADDER = (json, json)
"""The rungs in order."""
RUNGS: dict[str, object] = {"first": json}
"""The rungs by name."""


class Config:
    """How a kernel is launched."""

    rung = json
    """A module."""
'''
REFERENCE = """\
import sys
sys.path[:0] = [{ext!r}, {here!r}]
project, html_theme = "Tiny", "basic"
extensions = ["sphinx.ext.autodoc", "bookext.api"]
"""


def test_the_reference_shows_no_path_of_the_builder(tmp_path: Path):
    here = tmp_path / "source"
    here.mkdir()
    ext = str(ROOT / "book" / "_ext")
    (here / "conf.py").write_text(REFERENCE.format(ext=ext, here=str(here)))
    (here / "ladder_of_modules.py").write_text(LADDER)
    listed = ".. automodule:: ladder_of_modules\n   :members:\n"
    (here / "index.rst").write_text(f"Tiny\n====\n\n{listed}")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        str(here),
        str(tmp_path / "x"),
    ]
    subprocess.run(command, check=True)
    page = BeautifulSoup((tmp_path / "x" / "index.html").read_bytes(), "html.parser")
    shown = page.get_text()
    for name in ("LADDER", "RUNGS", "Config", "Config.rung"):
        assert page.find(id=f"ladder_of_modules.{name}")
    assert "The rungs in order." in shown
    assert "module 'json'" not in shown
    assert str(Path(json.__file__).parent) not in shown
