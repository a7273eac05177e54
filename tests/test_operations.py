"""The operations' page: none is missing, none invented, every link leads there."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "book" / "operations.yaml"
VERSIONS = ("3.6.0", "3.7.1", "3.8.0", "3.9.0")
CONF = """\
import sys
sys.path[:0] = {paths!r}
project, author, html_theme, root_doc = "Tiny", "A", "basic", "book/index"
extensions = ["myst_parser", "sphinx.ext.viewcode"]
extensions += ["bookext.crossref", "bookext.operations"]
include_patterns = ["book/**", "chapters/**"]
exclude_patterns = {drafts!r}
"""
FIRST = """\
# The page tiling

## Before

The name `program_id` alone may be anybody's, and so may `sum(x)`.

## Where am I

A program asks `tl.program_id(0)`. It sums with `sum`, or `arange(0, 4)`.

```python
offs = tl.arange(0, BLOCK)
total = tl.sum(x)
```
"""
SECOND = """\
# The page parallel

## Later

Again `tl.program_id` and `tl.extra.libdevice.sin`, and of old `tl.make_block_ptr`,
and `tl.sum`.

```python
y = tl.cumsum(tl.sum(x))
```

```{literalinclude} CODE/parallel/masked.py
:pyobject: add_kernel
```
"""
DRAFT = """\
# The page matmul

Only here: `tl.histogram`.
"""
REFERENCE = """\
# Reference

```{py:function} tilebook.parallel.masked.add_kernel()
```

```{py:function} tilebook.matmul.tile.matmul_kernel()
```
"""


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


@pytest.fixture
def data() -> dict:
    """What the file holds."""
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def test_every_name_that_a_kernel_uses_is_in_the_table():
    vocabulary = part("vocabulary")
    users, unknown = vocabulary.uses(vocabulary.load(DATA), ROOT / "code" / "tilebook")
    assert unknown == []
    masked = ("tilebook.parallel.masked", "add_kernel")
    for name in ("tl.load", "tl.store", "tl.program_id", "tl.arange", "tl.constexpr"):
        assert masked in users[name], name
    assert masked not in users["tl.dot"]
    for name in ("gl.nvidia.hopper.mbarrier.wait", "gl.nvidia.hopper.tma.store_wait"):
        assert {x for x, _ in users[name]} >= {"tilebook.memory.engine"}, name
    assert any(name.startswith("gl.nvidia.hopper.tma.async_") for name in users)


def test_every_kernel_of_the_package_is_found():
    """Against a search for the decorator in the text, which knows nothing of trees."""
    vocabulary = part("vocabulary")
    root = ROOT / "code" / "tilebook"
    found = {(module, kernel) for module, kernel, _ in vocabulary.written(root)}
    for path in sorted(root.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        marked = re.findall(
            r"^@(?:triton|gluon)\.jit(?:\(.*\))?\n(?:@.*\n)*def (\w+)", text, re.M
        )
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for kernel in marked:
            body = text.partition(f"def {kernel}(")[2].partition("\n\n\n")[0]
            if re.search(r"\b(?:tl|gl)\.", body):
                home = module.removesuffix(".__init__")
                assert (home, kernel) in found, f"{home}.{kernel}"


def test_names_are_followed_to_where_they_come_from(tmp_path: Path):
    vocabulary = part("vocabulary")
    package = tmp_path / "small"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "import triton\n"
        "import triton.language as lang\n"
        "from triton import jit\n"
        "from triton.language.extra.cuda import gdc_wait as wait\n"
        "from triton.experimental.gluon import language as gl\n"
        "from triton.experimental.gluon.language.nvidia.hopper import mbarrier\n"
        "@triton.jit\n"
        "def a(x, N: lang.constexpr):\n"
        "    wait()\n"
        "    lang.nothing(x)\n"
        "    gl.arange(lang.extra.libdevice.sin(x).lang)\n"
        "@jit(noinline=True)\n"
        "def b(x):\n"
        "    mbarrier.init(x)\n"
        "def no_kernel(x):\n"
        "    lang.dot(x, x)\n"
    )
    users, unknown = vocabulary.uses(vocabulary.load(DATA), package)
    a, b = ("small.one", "a"), ("small.one", "b")
    assert users == {
        "tl.constexpr": [a],
        "tl.extra.cuda.gdc_wait": [a],
        "gl.arange": [a],
        "tl.extra.libdevice": [a],
        "gl.nvidia.hopper.mbarrier.init": [b],
    }
    assert unknown == ["tl.nothing in small.one.a"]


@pytest.mark.parametrize("root", ["tl", "gl"])
def test_every_public_name_is_in_a_group_or_set_apart(root: str):
    vocabulary = part("vocabulary")
    found = vocabulary.load(DATA)
    names = set(vocabulary.public(root))
    assert {f"{root}.load", f"{root}.atomic_cas"} <= names
    assert sorted(names - found.operations().keys() - found.apart) == []


def test_what_is_set_apart_is_used_by_no_kernel(data: dict):
    vocabulary = part("vocabulary")
    found = vocabulary.load(DATA)
    written = {x for *_, x in vocabulary.written(ROOT / "code" / "tilebook")}
    assert not written & found.apart
    assert not found.apart & found.operations().keys()


def test_a_planned_chapter_is_in_the_path_and_not_written(data: dict):
    path = part("catalogue").load(ROOT / "book" / "resources.yaml").path
    noted = [*data["notes"].values(), *data["groups"]]
    planned = {note["planned"] for note in noted if "planned" in note}
    assert planned
    assert planned <= path.keys()
    assert not [x for x in planned if (ROOT / "chapters" / f"{x}.md").exists()]


def small(**change: object) -> dict:
    """Return sound data of one group, with some of its parts changed."""
    sound = {
        "groups": [{"title": "G", "root": "tl", "names": "load old"}],
        "apart": {"tl": "extra"},
        "notes": {"tl.old": {"removed": "3.9", "reason": "it went"}},
        "ours": {},
    }
    return sound | change


def read(data: dict, version: str = "3.7.1", *, lacks: str = "") -> object:
    """Read data against a Triton that has everything but one name."""
    return part("vocabulary").vocabulary_of(data, version, lambda x: x != lacks)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": None}, "groups is not a"),
        ({"apart": {"tl": "load"}}, "tl.load: is named twice"),
        ({"apart": {"tl": ["load"]}}, "apart, tl: wants names"),
        ({"notes": {"tl.sum": {"reason": "x"}}}, "tl.sum: has a note and is in no"),
        ({"notes": {"tl.old": {"why": "x"}}}, "tl.old: a note has planned, reason"),
        ({"notes": {"tl.old": {"since": 3.9}}}, "tl.old: a note's fields are texts"),
        ({"notes": {"tl.old": {"since": "3.8"}}}, "is in triton 3.7.1, not since 3.8"),
        ({"ours": {"tilebook._gluon.x": "gl.x"}}, "none of gl.x is in a group"),
        ({"groups": [{"title": "G", "names": "load"}]}, "G: a group has"),
        ({"groups": [{"root": "tl", "names": "load"}]}, "a group has a title"),
        (
            {"groups": [{"title": "G", "root": "tl", "names": "old load old"}]},
            "tl.old: is named twice",
        ),
    ],
)
def test_faulty_data_are_refused_by_name(change: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read(small(**change))


def test_a_name_that_no_triton_has_is_an_error():
    with pytest.raises(ValueError, match=r"tl\.load: triton 3\.7\.1 has no such"):
        read(small(), lacks="tl.load")
    with pytest.raises(ValueError, match=r"tl\.old: triton 3\.8\.0 has no such"):
        read(small(), "3.8.0", lacks="tl.old")
    read(small(), "3.9.0", lacks="tl.old")


def test_the_installed_triton_has_all_but_what_the_notes_say():
    vocabulary = part("vocabulary")
    for one in vocabulary.load(DATA).operations().values():
        assert one.here <= vocabulary.has(one.name), one.name
    assert not vocabulary.has("tl.lode")
    assert not vocabulary.has("gl.nvidia.hopper.tmo.load")


@pytest.mark.parametrize("version", VERSIONS)
def test_operations_that_came_and_went_are_told_apart(data: dict, version: str):
    lacks = {
        name
        for name, note in data["notes"].items()
        if version < note.get("since", "") or version >= note.get("removed", "9")
    }
    found = part("vocabulary").vocabulary_of(data, version, lambda x: x not in lacks)
    known = found.operations()
    old, late = version < "3.9", version >= "3.9"
    assert known["tl.make_block_ptr"].here == known["tl.advance"].here == old
    assert known["tl.atomic_poll"].here == late
    assert known["tl.squeeze"].here == (version >= "3.7")


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "operations.yaml"
    path.write_text("groups: [")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        part("vocabulary").load(path)


def test_the_page_is_written_again_whatever_changes():
    again = part("operations").again
    env = SimpleNamespace(found_docs={"book/operations", "chapters/one"})
    assert again(None, env) == ["book/operations"]
    env.found_docs.clear()
    assert again(None, env) == []


def test_a_function_is_not_explained_in_a_folded_solution():
    crossref = part("crossref")
    section = nodes.section("", nodes.title("", "One"), ids=["one"])
    body = nodes.section("", ids=["solution-content"])
    for where, name in ((section, "open"), (body, "folded")):
        where += addnodes.pending_xref("", refdomain="py", reftarget=name)
    section += nodes.container("", body)
    doctree = nodes.document(None, None)
    doctree += section
    env = SimpleNamespace(current_document=SimpleNamespace(docname="chapters/x"))
    crossref.Explained().process_doc(SimpleNamespace(env=env), doctree)
    assert crossref.mentioned_in(env) == {"open": [("chapters/x", "one", "One")]}


def test_a_source_page_leads_back_to_its_own_entries():
    """Of a class of which another module holds an instance, too."""
    crossref = part("crossref")
    entry = SimpleNamespace(docname="book/api/a", node_id="tilebook.a.shapes.Shape")
    app = SimpleNamespace(
        env=SimpleNamespace(
            domains=SimpleNamespace(
                python_domain=SimpleNamespace(
                    objects={"tilebook.a.shapes.Shape": entry}
                )
            )
        ),
        builder=SimpleNamespace(get_relative_uri=lambda start, to: f"{to}.html"),
    )
    for found in ("tilebook.a.evidence.Shape", "tilebook.a.Shape"):
        context = {"body": f'<a href="x.html#{found}">[docs]</a>'}
        crossref.mend_back_links(app, "_modules/tilebook/a/shapes", "", context, None)
        wanted = '<a href="book/api/a.html#tilebook.a.shapes.Shape">[docs]</a>'
        assert context["body"] == wanted


def test_no_place_is_in_a_folded_solution():
    survey = part("survey")
    solution = nodes.section("", ids=["solution-content"])
    solution += nodes.literal("", "tl.sum")
    section = nodes.section("", nodes.title("", "One"), ids=["one"])
    section += nodes.container("", solution)
    doctree = nodes.document(None, None)
    doctree += section
    env = SimpleNamespace(current_document=SimpleNamespace(docname="chapters/x"))
    survey.Named().process_doc(SimpleNamespace(env=env), doctree)
    places = survey.words_in(env)["text tl.sum"]
    assert survey.sections_in(env) == {"chapters/x": ["one"]}
    here = SimpleNamespace(order=["chapters/x"], env=env)
    assert survey.Survey.first(here, places) is None
    place = ("chapters/x", "one", "One")
    assert survey.Survey.first(here, [*places, place]) == place


def small_book(folder: Path, drafts: list[str]) -> Path:
    """Write a book of the real page and three small chapters, the last a draft."""
    for name in ("book/api", "chapters"):
        (folder / name).mkdir(parents=True)
    paths = [str(ROOT / "book" / "_ext"), str(ROOT / "code")]
    conf = CONF.format(paths=paths, drafts=[f"chapters/{x}.md" for x in drafts])
    (folder / "conf.py").write_text(conf)
    for name in ("operations.md", "operations.yaml", "resources.yaml"):
        (folder / "book" / name).write_bytes((ROOT / "book" / name).read_bytes())
    (folder / "code").symlink_to(ROOT / "code" / "tilebook")
    second = SECOND.replace("CODE", "../code")
    for stem, text in (("tiling", FIRST), ("parallel", second), ("matmul", DRAFT)):
        (folder / "chapters" / f"{stem}.md").write_text(text)
    (folder / "book" / "api" / "all.md").write_text(REFERENCE)
    shown = [x for x in ("tiling", "parallel", "matmul") if x not in drafts]
    tree = "\n".join(["operations", "api/all", *(f"/chapters/{x}" for x in shown)])
    (folder / "book" / "index.md").write_text(
        f"# Tiny\n\n```{{toctree}}\n{tree}\n```\n"
    )
    return folder


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, small_books: Callable
) -> SimpleNamespace:
    """Three books, built by one process: with a draft, without, and a broken one."""
    folder = tmp_path_factory.mktemp("books")
    small_book(folder / "draft", ["matmul"])
    small_book(folder / "whole", [])
    broken = small_book(folder / "broken", []) / "book"
    text = (broken / "operations.yaml").read_text(encoding="utf-8")
    assert "program_id num_programs" in text
    text = text.replace("program_id num_programs", "program_idea num_programs")
    (broken / "operations.yaml").write_text(text)
    page = (broken / "operations.md").read_text(encoding="utf-8")
    (broken / "operations.md").write_text(f"{page}\n```{{operations}} sums\n```\n")
    return small_books(folder, "operations")


def row(page: BeautifulSoup, name: str) -> list:
    """Return the cells of an operation's row; none if it has no row."""
    place = page.find(id="op-" + re.sub(r"[._]", "-", name))
    assert place, f"{name} is not on the page"
    line = place.find_parent("tr")
    return line.select("td") if line else []


def test_a_sound_book_builds_without_a_warning(built: SimpleNamespace):
    assert built.status["draft"] == built.status["whole"] == "0", built.said


def test_every_operation_is_on_the_page_once(built: SimpleNamespace):
    found = part("vocabulary").load(DATA).operations()
    ids = [x["id"] for x in built.pages["draft"].select("[id^=op-]")]
    assert len(ids) == len(set(ids)) == len(found)
    names = {x.get_text() for x in built.pages["draft"].select("code")}
    assert found.keys() <= names


@pytest.mark.parametrize(
    ("name", "link", "text"),
    [
        ("tl.program_id", "parallel.html#later", "Later (The page parallel)"),
        ("tl.sum", "tiling.html#where-am-i", "Where am I (The page tiling)"),
        ("tl.arange", "tiling.html#where-am-i", "Where am I (The page tiling)"),
        ("tl.extra.libdevice", "parallel.html#later", "Later (The page parallel)"),
        ("tl.cumsum", "parallel.html#later", "shown in Later (The page parallel)"),
        ("tl.store", "parallel.html#later", "shown in Later (The page parallel)"),
    ],
)
def test_the_first_place_is_linked(built, name: str, link: str, text: str):
    _, where, _ = row(built.pages["draft"], name)
    assert where.a["href"] == f"../chapters/{link}"
    assert where.get_text(strip=False).strip() == text


def test_every_link_leads_to_something(built: SimpleNamespace):
    for name, page in built.pages.items():
        links = [a["href"] for a in page.select("table a[href]")]
        assert len(links) > 8
        for link in links:
            path, _, anchor = link.partition("#")
            target = built.folder / name / "out" / "book" / path
            soup = BeautifulSoup(target.read_bytes(), "html.parser")
            assert soup.find(id=anchor), link


def test_kernels_lead_to_the_reference(built: SimpleNamespace):
    *_, kernels = row(built.pages["draft"], "tl.store")
    assert [a["href"] for a in kernels.select("a")] == [
        "api/all.html#tilebook.parallel.masked.add_kernel"
    ]
    *_, kernels = row(built.pages["whole"], "tl.store")
    assert [a.get_text() for a in kernels.select("a")] == [
        "masked.add_kernel",
        "tile.matmul_kernel",
    ]


def test_a_draft_is_not_linked_and_comes_out_as_planned(built: SimpleNamespace):
    page = built.pages["draft"]
    assert "matmul" not in " ".join(a["href"] for a in page.select("table a[href]"))
    assert row(page, "tl.histogram") == []
    dot = page.find(id="op-tl-dot").find_parent(["li", "tr"]).get_text()
    assert "The page matmul" not in dot
    _, where, _ = row(built.pages["whole"], "tl.histogram")
    assert where.a["href"] == "../chapters/matmul.html#the-page-matmul"
    planned = page.find(id="op-tl-sort").find_parent("li").get_text()
    assert planned == "tl.histogram, tl.sort: planned: Work that doesn't line up."


def test_an_operation_that_goes_says_when(built: SimpleNamespace):
    name, _, _ = row(built.pages["draft"], "tl.make_block_ptr")
    assert name.get_text().strip() == "tl.make_block_ptr before 3.9"
    poll = built.pages["draft"].find(id="op-tl-atomic-poll").get_text()
    assert poll == "tl.atomic_poll from 3.9"


def test_counts_are_those_of_the_tables(built: SimpleNamespace):
    for page in built.pages.values():
        counts, *tables = page.select("table")
        rows = [
            [x.get_text(strip=True) for x in r.select("td")]
            for r in counts.select("tbody tr")
        ]
        found = {r[0]: int(r[1]) + int(r[2]) for r in rows}
        known = part("vocabulary").load(DATA).operations()
        gone = {x for x, one in known.items() if not one.here}
        lines = [r.select("td") for t in tables for r in t.select("tbody tr")]
        cells = [x[1].get_text() for x in lines if x[0].code.get_text() not in gone]
        shown = sum(x.startswith("shown in") for x in cells)
        used = sum(x.startswith("not taught") for x in cells)
        assert found["Shown"] == shown > 0
        assert found["Used"] == used > 0
        assert found["Explained"] == len(cells) - shown - used > 0
        assert found.pop("All") == sum(found.values())
        assert sum(found.values()) == len(known) - len(gone)


def test_a_name_that_triton_lacks_and_an_unknown_part_fail_the_build(built):
    assert built.status["broken"] != "0"
    assert "tl.program_idea: triton" in built.said
    assert "choose one of counts, tables" in built.said
