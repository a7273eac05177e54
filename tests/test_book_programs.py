"""Programs of the pages: made whole, put beside the pages, and allowed by a policy."""

import ast
import importlib
import io
import json
import re
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """One module of the extension."""
    return importlib.import_module(f"bookext.{name}")


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> ModuleType:
    """The part that takes kernels out, on a package of these files."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("inputs", "whole"):
        monkeypatch.setattr(part(name), "package_root", lambda: folder)
    return part("whole")


HEAD = "import torch\nimport triton\nimport triton.language as tl\n"
ADD = "@triton.jit\ndef add_kernel(x_ptr, n):\n"


def test_a_kernel_is_taken_with_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = HEAD + (
        "from tilebook.others import helper\n\n"
        "SIZE = tl.constexpr(4)\nUNUSED = torch.float32\n\n"
        "def launch(x):\n    add_kernel[(1,)](x, torch.tensor(1))\n\n"
        '@triton.autotune(configs=[], key=["n"])\n'
        f"{ADD}    # why\n    tl.store(x_ptr, helper(n) + SIZE)\n"
    )
    others = (
        HEAD
        + "TWO = 2\n\n@triton.jit\ndef helper(n):\n    TOP = n\n    return TOP * TWO\n"
    )
    whole = package(tmp_path, monkeypatch, own=own, others=others).whole
    assert whole("tilebook.own", "add_kernel") == (
        "import triton\nimport triton.language as tl\n\n"
        "SIZE = tl.constexpr(4)\nTWO = 2\n\n\n"
        "@triton.jit\ndef helper(n):\n    TOP = n\n    return TOP * TWO\n\n\n"
        f"{ADD}    # why\n    tl.store(x_ptr, helper(n) + SIZE)\n"
    )


def test_names_of_a_module_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = (
        HEAD
        + f"from tilebook import tools\n\n{ADD}    tl.store(x_ptr, tools.twice(n))\n"
    )
    tools = HEAD + "@triton.jit\ndef twice(n):\n    return n + n\n"
    whole = package(tmp_path, monkeypatch, own=own, tools=tools).whole
    text = whole("tilebook.own", "add_kernel")
    assert "tl.store(x_ptr, twice(n))" in text
    assert "def twice" in text
    assert "tools" not in text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("tl.store(x_ptr, torch.pi)", "needs torch"),
        ("tl.store(x_ptr, missing)", "has no missing"),
        ("tl.store(x_ptr, SIZE + other(n))", "SIZE is something else"),
    ],
)
def test_what_can_t_be_in_a_page_is_refused(
    body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = HEAD + f"from tilebook.others import other\nSIZE = 1\n\n{ADD}    {body}\n"
    others = HEAD + "SIZE = 2\n\n@triton.jit\ndef other(n):\n    return n * SIZE\n"
    whole = package(tmp_path, monkeypatch, own=own, others=others)
    with pytest.raises(whole.NotWhole, match=why):
        whole.whole("tilebook.own", "add_kernel")


def test_every_program_shows_its_kernel_and_is_python():
    programs = part("programs")
    for name, (stem, module, function) in programs.places().items():
        text = programs.program(name)
        tree = ast.parse(text)
        kernel = name.rpartition(".")[2]
        defined = [x.name for x in ast.walk(tree) if isinstance(x, ast.FunctionDef)]
        assert kernel in defined, name
        source = ROOT / "code" / Path(*module.split(".")).with_suffix(".py")
        found = next(
            x
            for x in ast.parse(source.read_text()).body
            if isinstance(x, ast.FunctionDef) and x.name == kernel
        )
        shown = ast.get_source_segment(source.read_text(), found)
        assert "import torch" not in text
        # As the page shows it; what it takes from a module by name loses that.
        assert re.sub(r"\bepilogues\.", "", shown) in text, name
        assert f"{kernel}[" in programs.bodies(stem)[function][1], name


def test_chapters_show_what_their_programs_run():
    programs = part("programs")
    for name, (stem, module, _) in programs.places().items():
        path = module.replace(".", "/").removeprefix("tilebook/")
        chapter = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
        kernel = name.rpartition(".")[2]
        asked = f"../code/tilebook/{path}.py\n:pyobject: {kernel}\n"
        assert asked in chapter, f"{stem}.md doesn't show {name}"


def test_a_puzzle_s_program_is_its_stub_and_its_check():
    text = part("programs").puzzle_program("puzzle-08")
    assert "def softmax_kernel(" in text
    assert text.endswith('check("puzzle-08", softmax_kernel)\n')


def test_a_page_gets_what_needs_no_torch():
    data = part("runtime").package()
    assert data == part("runtime").package()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names}
    assert "tilebook/browser/libtriton.py" in names
    assert "tilebook/microscope/__init__.py" not in names
    assert not [x for x in texts.values() if "\nimport torch\n" in x]
    assert len(data) < 200_000


def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> ModuleType:
    """The part for programs, with a runtime or without one."""
    folder = tmp_path / ".runtime"
    if there:
        folder.mkdir()
        (folder / "a.wasm").write_bytes(b"a")
        (folder / "manifest.json").write_text('{"files": {"a.wasm": "0"}}')
    monkeypatch.setattr(part("runtime"), "folder", lambda: folder)
    return part("programs")


@pytest.mark.parametrize("there", [True, False])
def test_the_runtime_is_beside_the_pages_where_it_was_assembled(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    programs = marked(tmp_path, monkeypatch, there)
    app = SimpleNamespace(
        outdir=tmp_path / "html", builder=SimpleNamespace(name="html")
    )
    programs.write_all(app, None)
    target = tmp_path / "html" / "_static" / "runtime"
    assert target.is_dir() == there
    if there:
        assert (target / "a.wasm").read_bytes() == b"a"
        known = json.loads((target / "programs" / "parallel.json").read_text())
        assert "parallel.masked.add_kernel" in known
        assert (target / "programs" / "scratch.json").is_file()


def test_pages_are_read_again_when_the_runtime_comes_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    env = SimpleNamespace(found_docs={"chapters/parallel", "book/puzzles", "x"})
    asked = (None, env, set(), set(), set())
    programs = marked(tmp_path, monkeypatch, False)
    assert programs.outdated(*asked) == []
    assert programs.outdated(*asked) == []
    programs = marked(tmp_path, monkeypatch, True)
    assert set(programs.outdated(*asked)) == {"chapters/parallel", "book/puzzles"}
    assert programs.outdated(*asked) == []


# The policy

PAGE = """<!DOCTYPE html><html><head>
<meta charset="utf-8" />
<script>var a = 1;</script><script src="x.js"></script>
<script type="application/json">{"no": "script"}</script>
</head><body><button onclick="go(&quot;b&quot;)">x</button></body></html>"""


def test_a_policy_names_what_stands_in_the_page_and_nothing_else():
    policy = part("policy")
    scripts, handlers = policy.inline(PAGE)
    assert scripts == ["var a = 1;"]
    assert handlers == ['go("b")']
    rules = dict(x.split(" ", 1) for x in policy.policy(PAGE).split("; "))
    assert rules["default-src"] == "'self'"
    assert rules["object-src"] == rules["frame-src"] == "'none'"
    allowed = set(rules["script-src"].split())
    assert allowed == {
        "'self'",
        "'wasm-unsafe-eval'",
        "'unsafe-hashes'",
        policy.hashed("var a = 1;"),
        policy.hashed('go("b")'),
    }


def test_a_policy_comes_before_all_that_it_is_about_and_once():
    policy = part("policy")
    page = policy.with_policy(PAGE)
    assert page.index("Content-Security-Policy") < page.index("<script")
    assert policy.with_policy(page) == page
    changed = policy.with_policy(page.replace("var a = 1;", "var a = 2;"))
    assert changed.count("Content-Security-Policy") == 1
    assert policy.hashed("var a = 2;") in changed


def test_a_hash_is_the_standard_s():
    # From the specification: a script of these letters.
    assert part("policy").hashed("alert('Hello, world.');") == (
        "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    )
