"""The rules of the house: names, imports, masked loads, what a file may not hold."""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "code"
PACKAGE = CODE / "tilebook"
# What every chapter may use. It knows no chapter.
FOUNDATION = {
    "browser",
    "check",
    "compile_only",
    "device",
    "doctor",
    "interpreter",
    "library",
    "measure",
    "microscope",
    "schedules",
    "testing",
}
# It may use everything, and nothing uses it.
ROOF = "ops"
# Folders whose files are ours, and the names in them that aren't.
OURS = ("book", "chapters", "code", "requirements", "tests", "tools", ".ci", ".github")
BUILT = {"__pycache__", "_build", "_static", ".venv", "jupyter_execute"}
TEXT = {".py", ".md", ".txt", ".toml", ".yml", ".cff", ".css", ".js", ".bib", ""}
# In two parts, so that this file doesn't hold what it forbids.
FORBIDDEN = [
    "/" + "work/",
    "/" + "tmp/w",
    "../" + "shared",
    "no" + "qa",
    "type: " + "ignore",
    "pragma: " + "no cover",
    "TO" + "DO",
    "FIX" + "ME",
    "index" + "-url",
    "pypi" + ".org",
    "python" + "hosted",
]


def stems() -> list[str]:
    """The chapters in the order of the book's table of contents."""
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    toctrees = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.M | re.S)
    return re.findall(r"^(?:.*<)?/chapters/(\w+)>?$", "\n".join(toctrees), re.M)


def appendices() -> list[str]:
    """The appendices that have a package: pages of book/ in the table of contents."""
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    toctrees = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.M | re.S)
    names = re.findall(r"^(\w+)$", "\n".join(toctrees), re.M)
    return [name for name in names if (PACKAGE / name).is_dir()]


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def ours() -> Iterator[Path]:
    candidates = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in OURS:
        candidates += (ROOT / folder).rglob("*")
    for path in candidates:
        inside = path.relative_to(ROOT)
        if path.is_file() and path.suffix in TEXT and not BUILT & set(inside.parts):
            yield path


def top(path: Path) -> str:
    """The name under `tilebook` to which a file belongs; its own for `__init__`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_code_is_a_source_root_and_pythons_code_module_is_intact():
    found = {p.name for p in CODE.iterdir() if not p.name.endswith(".egg-info")}
    assert found - {"__pycache__"} == {"tilebook"}
    code = importlib.import_module("code")
    assert hasattr(code, "InteractiveConsole")
    assert Path(code.__file__).is_relative_to(sys.base_prefix)


def test_chapters_packages_and_tests_have_one_stem():
    listed = stems()
    assert listed
    assert len(set(listed)) == len(listed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["tilebook"]["drafts"]) <= set(listed)
    on_disk = {p.stem for p in (ROOT / "chapters").glob("*.md")}
    assert on_disk == set(listed), "chapters/ and the toctree of book/index.md differ"
    public = {top(p) for p in modules() if not top(p).startswith("_")}
    assert public == set(listed) | FOUNDATION | {ROOF} | set(appendices())
    for stem in public:
        assert (ROOT / "tests" / f"test_{stem}.py").is_file(), f"no test_{stem}.py"


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """The modules that a file imports, in full, with their lines."""
    package = list(path.relative_to(CODE).with_suffix("").parts)
    if package[-1] == "__init__":
        package.append("")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            for name in node.names:
                yield node.lineno, ".".join([*base, name.name])


def allowed(stem: str, order: list[str]) -> set[str]:
    """The names under `tilebook` that a file of this one may import."""
    if stem == ROOF:
        return FOUNDATION | set(order)
    if stem in order:
        return FOUNDATION | set(order[: order.index(stem) + 1])
    if stem in appendices():
        return FOUNDATION | set(order) | {stem}
    return FOUNDATION


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports_point_down(path):
    permitted = allowed(top(path), stems())
    wrong = []
    for line, name in imported(path):
        root, _, rest = name.partition(".")
        first = rest.partition(".")[0]
        if root in ("sphinx", "docutils", "myst_nb", "myst_parser"):
            wrong.append(f"line {line}: {name}: the package knows no Sphinx")
        is_public = root == "tilebook" and first and not first.startswith("_")
        known = first in FOUNDATION | set(stems()) | set(appendices()) | {ROOF}
        if is_public and known and first not in permitted:
            wrong.append(f"line {line}: {name}: {top(path)} may not use {first}")
    assert not wrong, "\n".join(wrong)


def test_the_import_rule_sees_every_form(tmp_path):
    order = ["parallel", "softmax"]
    assert allowed("measure", order) == FOUNDATION
    assert "softmax" not in allowed("parallel", order)
    assert "parallel" in allowed("softmax", order)
    assert ROOF not in allowed("softmax", order)
    file = CODE / "tilebook" / "parallel" / "__init__.py"
    relative_names = {name for _, name in imported(file)}
    assert any(name.startswith("tilebook.parallel.") for name in relative_names)


def unsafe_loads(source: str) -> list[int]:
    """Lines of `tl.load` calls with a mask but nothing for the lanes it turns off."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != "tl.load":
            continue
        names = {keyword.arg for keyword in node.keywords}
        masked = "mask" in names or len(node.args) > 1
        if masked and "other" not in names and len(node.args) < 3:
            lines.append(node.lineno)
    return lines


def not_wrong_on_purpose() -> list[Path]:
    return [p for p in modules() if "bugs" not in p.with_suffix("").parts]


@pytest.mark.parametrize("path", not_wrong_on_purpose(), ids=relative)
def test_masked_loads_say_what_the_other_lanes_read(path):
    assert unsafe_loads(path.read_text(encoding="utf-8")) == []


def test_the_load_rule_sees_every_form():
    source = """
tl.load(x, mask=m)
tl.load(x, m)
tl.load(x, mask=m, other=0)
tl.load(x, m, 0)
tl.load(x)
tl.store(x, y, mask=m)
"""
    assert unsafe_loads(source) == [2, 3]


@pytest.mark.parametrize("path", list(ours()), ids=relative)
def test_nothing_forbidden(path):
    text = path.read_text(encoding="utf-8")
    found = [
        f"line {number}: {word}"
        for number, line in enumerate(text.splitlines(), 1)
        for word in FORBIDDEN
        if word in line
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [p for p in ours() if p.suffix == ".py"], ids=relative)
def test_a_file_fits_in_a_head(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    # Tests are lists, which are read one at a time.
    assert lines <= (600 if "tests" in path.relative_to(ROOT).parts else 350)
