"""Other books and courses: every topic has a place here, a plan or a reason."""

import datetime
import importlib
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "book" / "rivals.yaml"
CONF = """\
import sys
sys.path.insert(0, {ext!r})
project, author, html_theme, root_doc = "Tiny", "A", "basic", "book/index"
extensions = ["myst_parser", "sphinx_design", "bookext.rivals"]
exclude_patterns = {drafts!r}
"""


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


@pytest.fixture(scope="module")
def data() -> dict:
    """What the file holds."""
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def learning_path() -> dict[str, str]:
    """The chapters of the catalogue."""
    catalogue = part("catalogue")
    return catalogue.load(ROOT / "book" / catalogue.NAME).path


def own_sections() -> dict[str, str]:
    """The labels of our sections and puzzles, label -> stem."""
    catalogue = part("catalogue")
    return catalogue.sections(ROOT) | catalogue.puzzles(ROOT)


def test_every_topic_has_a_place_a_plan_or_a_reason(data: dict):
    topics = [(x["id"], topic) for x in data["entries"] for topic in x["topics"]]
    assert len(topics) > 110
    for name, topic in topics:
        here = bool(topic.get("covered") or topic.get("planned"))
        assert here != bool(topic.get("why")), f"{name}: {topic['topic']}"


def test_every_section_that_is_named_is_there():
    sections = own_sections()
    assert {"ch-parallel", "puzzle-27"} <= sections.keys()
    assert sections["puzzle-27"] == "puzzles"
    entries = part("rivals").load(DATA).entries
    named = {x for entry in entries for topic in entry.topics for x in topic.covered}
    assert sorted(named - sections.keys()) == []
    assert {sections[label] for label in named} <= learning_path().keys()


def test_planned_chapters_are_in_the_path_and_not_written():
    rivals = part("rivals")
    found = rivals.load(DATA)
    rivals.check(found, learning_path())
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    written = set(re.findall(r"^/chapters/(\w+)$", index, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # A draft may lack what is planned for it still.
    written -= set(project["tool"]["tilebook"]["drafts"])
    planned = {x for y in found.entries for topic in y.topics for x in topic.planned}
    assert sorted(planned & written) == [], "written: name the sections that cover it"


def test_a_planned_chapter_outside_the_path_is_named():
    rivals = part("rivals")
    with pytest.raises(ValueError, match="one, A topic: 'hopper' is not in the learn"):
        rivals.check(read([entry_with({})]), {"parallel": "P"})


def test_every_entry_is_whole():
    for entry in part("rivals").load(DATA).entries:
        sentences = re.findall(r"[.?!](?= |$)", entry.what)
        assert 1 <= len(sentences) <= 3, f"{entry.id}: {len(sentences)} sentences"
        assert entry.better.endswith((".", '"')), entry.id
        assert entry.looked <= datetime.date.today(), entry.id
        assert all(x.wrong != x.right for x in entry.errors), entry.id


def test_nothing_wrong_is_said_of_what_was_not_read(data: dict):
    unread = [x for x in data["entries"] if x["read"]["how"] in ("title", "abstract")]
    assert unread
    assert not any(entry["errors"] for entry in unread)


def entry_with(change: dict) -> dict:
    """Return a sound entry with some fields changed; None takes a field away."""
    sound = {
        "id": "one",
        "group": "g",
        "title": "One",
        "address": "https://one.invalid/",
        "kind": "book",
        "what": "It is one.",
        "better": "It is first.",
        "read": {"how": "page", "what": "a copy"},
        "errors": [],
        "looked": datetime.date(2026, 11, 23),
        "topics": [topic_with({})],
    }
    return {k: v for k, v in (sound | change).items() if v is not None}


def topic_with(change: dict) -> dict:
    """Return a sound topic with some fields changed; None takes a field away."""
    sound = {"topic": "A topic", "covered": ["ch-parallel"], "planned": ["hopper"]}
    return {k: v for k, v in (sound | change).items() if v is not None}


def read(entries: list[dict]) -> object:
    """Read entries as if a file held them."""
    return part("rivals").rivals_of({"groups": {"g": "G"}, "entries": entries})


def test_a_sound_entry_is_read():
    left = {"topic": "Another", "why": "no place"}
    [entry] = read([entry_with({"topics": [topic_with({}), left]})]).entries
    assert [topic.covered for topic in entry.topics] == [["ch-parallel"], []]
    assert [topic.why for topic in entry.topics] == ["", "no place"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"better": None}, "one: lacks better"),
        ({"rank": 1}, "one: has unknown rank"),
        ({"kind": "rival"}, "one: kind 'rival' is none of benchmark, book"),
        ({"looked": "2026-11-23"}, "one: looked wants a date"),
        ({"topics": []}, "one: has no topic"),
        ({"topics": {}}, "one: topics wants a list"),
        ({"topics": [topic_with({}), topic_with({})]}, "one: has a topic twice"),
    ],
)
def test_a_faulty_entry_is_refused_by_name(change: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read([entry_with(change)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"topic": None}, "one, topics: lacks topic"),
        ({"where": "x"}, "one, topics: has unknown where"),
        ({"covered": "ch-parallel"}, "covered wants a list of names"),
        ({"covered": None, "planned": None}, "is neither covered nor planned"),
        ({"covered": [], "planned": []}, "is neither covered nor planned"),
        ({"why": "no place"}, "is covered or planned and says why not"),
        ({"planned": ["hopper", "hopper"]}, "names a section or chapter twice"),
    ],
)
def test_a_faulty_topic_is_refused_by_name(change: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read([entry_with({"topics": [topic_with(change)]})])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{}, {"id": "two"}], "https://one.invalid/: two entries have this address"),
        ([{}, {"address": "https://two.invalid/"}], "one: two entries have this id"),
        (
            [{}, {"id": "again", "address": "https://two.invalid/"}],
            "again: does not stand in the alphabet's order",
        ),
        ([], "g: has no entry"),
    ],
)
def test_entries_that_clash_are_refused(entries: list[dict], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read([entry_with(change) for change in entries])


def small_book(folder: Path, drafts: list[str]) -> Path:
    """Write a book of the real page and of pages that are nothing but labels."""
    for name in ("book", "chapters"):
        (folder / name).mkdir(parents=True)
    hidden = [f"chapters/{stem}.md" for stem in drafts]
    conf = CONF.format(ext=str(ROOT / "book" / "_ext"), drafts=hidden)
    (folder / "conf.py").write_text(conf)
    for name in ("elsewhere.md", "rivals.yaml", "resources.yaml"):
        (folder / "book" / name).write_bytes((ROOT / "book" / name).read_bytes())
    for name in ("operations", "preface", "resources"):
        (folder / "book" / f"{name}.md").write_text(f"# The page {name}\n")
    texts: dict[str, str] = {}
    for label, stem in own_sections().items():
        texts.setdefault(stem, f"(ch-{stem})=\n# The page {stem}\n")
        if label != f"ch-{stem}":
            texts[stem] += f"\n({label})=\n## Section {label}\n"
    # The labels of puzzles are found by their fences.
    fences = [
        f"```{{puzzle}} {x}\n```\n" for x, y in own_sections().items() if y == "puzzles"
    ]
    comment = "".join(f"<!--\n{fence}-->\n\n" for fence in fences)
    for stem, text in texts.items():
        place = "book" if stem == "puzzles" else "chapters"
        more = f"\n{comment}" if stem == "puzzles" else ""
        (folder / place / f"{stem}.md").write_text(text + more)
    pages = "elsewhere\noperations\npreface\nresources\npuzzles\n/chapters/*\n"
    tree = f"```{{toctree}}\n:glob:\n{pages}```\n"
    (folder / "book" / "index.md").write_text(f"# Tiny\n\n{tree}")
    return folder


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, small_books: Callable
) -> SimpleNamespace:
    """Three books, built by one process: with a draft, without, and a broken one."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    folder = tmp_path_factory.mktemp("books")
    small_book(folder / "draft", ["matmul"])
    small_book(folder / "whole", [])
    broken = small_book(folder / "broken", []) / "book"
    sys.path.pop(0)
    text = (broken / "rivals.yaml").read_text(encoding="utf-8")
    assert "parallel-why" in text
    (broken / "rivals.yaml").write_text(text.replace("parallel-why", "no-such"))
    return small_books(folder, "elsewhere")


def test_a_sound_book_builds_without_a_warning(built: SimpleNamespace):
    assert built.status["draft"] == built.status["whole"] == "0", built.said


def test_a_label_that_no_section_has_fails_the_build(built: SimpleNamespace):
    assert built.status["broken"] != "0"
    assert "no section has the label 'no-such'" in built.said


def test_the_page_shows_every_work_with_every_topic(built: SimpleNamespace, data: dict):
    page = built.pages["draft"]
    for entry in data["entries"]:
        box = page.find(id=f"elsewhere-{entry['id']}")
        assert box, entry["id"]
        links = [a["href"] for a in box.select("a[href]")]
        assert entry["address"] in links
        rows = box.select("tbody tr")
        assert len(rows) == len(entry["topics"])
        assert all(row.select("td")[1].get_text(strip=True) for row in rows)
        assert len(box.select(".resource-errors > li")) == len(entry["errors"])
        dated = f"Found in the version read on {entry['looked']}:" in box.get_text()
        assert dated is bool(entry["errors"])
    assert len(page.select(".resource")) == len(data["entries"])


def test_counts_are_those_of_the_data(built: SimpleNamespace, data: dict):
    rows = built.pages["draft"].select("table")[0].select("tbody tr")
    last = [cell.get_text(strip=True) for cell in rows[-1].select("td")]
    links = [a["href"] for row in rows for a in row.select("a")]
    assert links == [f"#elsewhere-{entry['id']}" for entry in data["entries"]]
    topics = [topic for entry in data["entries"] for topic in entry["topics"]]
    assert last[:2] == ["All", str(len(data["entries"]))]
    assert sum(map(int, last[2:])) == len(topics)
    assert int(last[4]) == sum("why" in topic for topic in topics)


def test_what_is_left_out_leads_to_its_work(built: SimpleNamespace, data: dict):
    index = built.pages["draft"].select_one(".resource-index")
    wanted = [
        f"#elsewhere-{entry['id']}"
        for entry in data["entries"]
        for topic in entry["topics"]
        if "why" in topic
    ]
    found = [a["href"] for a in index.select("dd a[href^='#elsewhere-']")]
    assert sorted(found) == sorted(wanted)


def cell(page: object, work: str, topic: str) -> object:
    """Return the cell that says where the book has a topic of a work."""
    for row in page.find(id=f"elsewhere-{work}").select("tbody tr"):
        name, place = row.select("td")
        if name.get_text(strip=True) == topic:
            return place
    raise AssertionError(f"{work} has no topic {topic}")


def test_a_draft_comes_out_as_planned_and_becomes_a_link(built: SimpleNamespace):
    draft = cell(built.pages["draft"], "manning", "tl.dot")
    assert draft.get_text().strip() == "Planned: Matrix multiplication up to cuBLAS."
    assert not draft.select("a")
    [chapter, section] = cell(built.pages["whole"], "manning", "tl.dot").select("a")
    assert chapter["href"] == "../chapters/matmul.html"
    assert section["href"] == "../chapters/matmul.html#matmul-tile"


def test_a_puzzle_is_a_place_and_a_reason_is_shown(built: SimpleNamespace):
    page = built.pages["draft"]
    rotary = cell(page, "jangedoo", "Rotary embedding")
    assert "puzzles.html#puzzle-15" in str(rotary)
    assert "Planned: One token at a time." in rotary.get_text()
    reason = cell(page, "cs336", "GeLU in CUDA").get_text().strip()
    assert reason == "Left out: this book writes no CUDA."
