"""The curated list: no link is lost, every entry is whole, the page shows them all."""

import datetime
import hashlib
import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "book" / "resources.yaml"
# How many links the list has under each of its headings.
LINKS = {
    "documentation": 1,
    "articles": 20,
    "papers": 1,
    "videos": 7,
    "meetup": 1,
    "puzzles": 2,
    "tools": 5,
    "conferences": 2,
    "kernels": 15,
    "integrations": 1,
    "backends": 1,
    "communities": 1,
}
# Of its addresses, sorted, one a line: none may change unnoticed either.
DIGEST = "11b98d3510e828fc"
CONF = """\
import sys
sys.path.insert(0, {ext!r})
project, author, html_theme, root_doc = "Tiny", "A", "basic", "book/index"
extensions = ["myst_parser", "sphinx_design", "bookext.resources"]
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


def listed() -> list[str]:
    """The chapters and appendices of the book's table of contents, in order."""
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    return re.findall(r"^/chapters/(\w+)$", index, re.M)


def test_no_link_of_the_list_is_lost(data: dict):
    groups = Counter(entry["group"] for entry in data["entries"])
    assert dict(groups) == LINKS
    assert list(groups) == list(data["groups"]) == list(LINKS)
    addresses = {entry["address"] for entry in data["entries"]}
    assert len(addresses) == sum(LINKS.values()) == 57
    digest = hashlib.sha256("\n".join(sorted(addresses)).encode()).hexdigest()
    assert digest.startswith(DIGEST), "an address is not the list's"


def test_every_entry_is_whole():
    catalogue = part("catalogue")
    found = catalogue.load(DATA)
    assert len(found.entries) == 57
    for entry in found.entries:
        sentences = re.findall(r"[.?!](?= |$)", entry.what)
        assert 1 <= len(sentences) <= 3, f"{entry.id}: {len(sentences)} sentences"
        assert entry.looked <= datetime.date.today(), entry.id
        assert all(x.wrong != x.right for x in entry.errors), entry.id


def test_every_section_that_is_named_is_there():
    catalogue = part("catalogue")
    sections = catalogue.sections(ROOT)
    named = {x for entry in catalogue.load(DATA).entries for x in entry.covered}
    assert sorted(named - sections.keys()) == []
    assert {sections[label] for label in named} <= catalogue.load(DATA).path.keys()


def test_the_learning_path_goes_on_from_the_chapters_that_stand(data: dict):
    path = data["path"]
    stems = listed()
    assert [stem for stem in path if stem in stems] == stems
    for stem in stems:
        text = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
        assert path[stem] == re.search(r"^# (.+)$", text, re.M)[1]


def test_three_entries_are_advised_after_each_chapter_that_stands():
    found = part("catalogue").load(DATA)
    for stem in ("parallel", "memory", "tiling", "softmax", "matmul", "hopper"):
        assert len(found.after(stem)) == 3, stem


def test_all_that_was_not_read_has_no_opinion(data: dict):
    unread = [x for x in data["entries"] if x["read"]["how"] == "title"]
    assert unread
    for entry in unread:
        assert entry["state"] == "unread"
        assert not entry["errors"]
        assert not entry["after"]


def entry_with(change: dict) -> dict:
    """Return a sound entry with some fields changed; None takes a field away."""
    sound = {
        "id": "one",
        "group": "g",
        "title": "One",
        "address": "https://one.invalid/",
        "kind": "article",
        "what": "It is one.",
        "state": "stale",
        "note": "Against two.",
        "read": {"how": "page", "what": "a copy"},
        "errors": [{"wrong": "a", "right": "b"}],
        "covered": ["ch-parallel"],
        "planned": ["hopper"],
        "after": {"parallel": "why"},
        "looked": datetime.date(2026, 11, 23),
    }
    return {k: v for k, v in (sound | change).items() if v is not None}


def read(entries: list[dict]) -> object:
    """Read entries as if a file held them."""
    return part("catalogue").catalogue_of(
        {
            "list": {"title": "T", "address": "https://list.invalid/"},
            "path": {"parallel": "P", "hopper": "H"},
            "groups": {"g": "G"},
            "entries": entries,
        }
    )


def test_a_sound_entry_is_read():
    [entry] = read([entry_with({})]).entries
    assert entry.errors[0].right == "b"
    assert entry.read.how == "page"
    assert entry.authors == entry.now == ""
    assert entry.year is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": None}, "one: lacks title"),
        ({"what": " "}, "one: what is empty"),
        ({"verdict": "good"}, "one: has unknown verdict"),
        ({"title": 3}, "one: title wants text, got 3"),
        ({"year": "2024"}, "one: year wants a year, got '2024'"),
        ({"covered": "ch-parallel"}, "one: covered wants a list of names"),
        ({"id": "One Two"}, "id wants a-z"),
        ({"group": "h"}, "group 'h' is none of g"),
        ({"state": "old"}, "state 'old' is none of current, gone"),
        ({"kind": "book"}, "kind 'book' is none of article"),
        ({"address": "one.invalid"}, "'one.invalid' is no address"),
        ({"read": {"how": "page"}}, "one, read: lacks what"),
        ({"read": {"how": "glance", "what": "x"}}, "read.how 'glance' is none of"),
        ({"errors": [{"wrong": "a"}]}, "one, errors: lacks right"),
        ({"errors": "none"}, "one: errors wants a list"),
        ({"planned": ["hoper"]}, "'hoper' is not in the learning path"),
        ({"after": {"nowhere": "why"}}, "'nowhere' is not in the learning path"),
        ({"after": ["parallel"]}, "one: after wants a mapping"),
        ({"looked": "2026-11-23"}, "looked wants a date, got '2026-11-23'"),
        ({"note": None}, "is stale, so it wants a note"),
        ({"state": "renamed"}, "is renamed, so it wants now"),
        ({"now": "https://one.invalid/"}, "one: now is address"),
        ({"now": "elsewhere"}, "'elsewhere' is no address"),
        ({"read": {"how": "title", "what": "t"}}, "was not read and has a state"),
        ({"state": "unread"}, "was read and says unread"),
        (
            {"state": "unread", "read": {"how": "title", "what": "t"}},
            "was not read and has errors",
        ),
        ({"covered": [], "planned": []}, "one: is covered nowhere"),
        ({"planned": ["hopper", "hopper"]}, "names a chapter twice"),
    ],
)
def test_a_faulty_entry_is_refused_by_name(change: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read([entry_with(change)])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{}, {"address": "https://two.invalid/"}], "one: two entries have this id"),
        ([{}, {"id": "two"}], "https://one.invalid/: two entries have this address"),
        (
            [{"id": f"e{i}", "address": f"https://{i}.invalid/"} for i in range(4)],
            "parallel: 4 entries after it, 3 at most",
        ),
        ([], "g: has no entry"),
    ],
)
def test_entries_that_clash_are_refused(entries: list[dict], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        read([entry_with(change) for change in entries])


@pytest.mark.parametrize("text", ["", "entries: []", "list: [", "- a"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str):
    path = tmp_path / "resources.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"resources\.yaml: ") as caught:
        part("catalogue").load(path)
    assert str(path) in str(caught.value)


def test_the_page_is_read_again_when_a_chapter_or_a_label_comes_or_goes(
    tmp_path: Path,
):
    again = part("resources").again
    (tmp_path / "chapters").mkdir()
    chapter = tmp_path / "chapters" / "one.md"
    chapter.write_text("(ch-one)=\n# One\n")
    env = SimpleNamespace(found_docs={"book/resources"}, srcdir=tmp_path)
    none: set[str] = set()
    assert again(None, env, none, {"chapters/one"}, none) == ["book/resources"]
    chapter.write_text("(ch-one)=\n# One\n\nAnother sentence.\n")
    assert again(None, env, none, {"chapters/one"}, none) == []
    for moved in (({"chapters/two"}, none, none), (none, none, {"chapters/two"})):
        assert again(None, env, *moved) == ["book/resources"]
    assert again(None, env, {"book/preface"}, none, none) == []
    chapter.write_text("(ch-one)=\n# One\n\n(new)=\n## New\n")
    assert again(None, env, none, {"chapters/one"}, none) == ["book/resources"]
    chapter.rename(chapter.with_name("other.md"))
    assert again(None, env, none, none, none) == ["book/resources"]
    env.found_docs.clear()
    assert again(None, env, {"chapters/two"}, none, none) == []


def small_book(folder: Path, drafts: list[str], **chapters: str) -> Path:
    """Write a book of the real page and of chapters that are nothing but labels."""
    for name in ("book", "chapters"):
        (folder / name).mkdir(parents=True)
    hidden = [f"chapters/{stem}.md" for stem in drafts]
    conf = CONF.format(ext=str(ROOT / "book" / "_ext"), drafts=hidden)
    (folder / "conf.py").write_text(conf)
    for name in ("resources.md", "resources.yaml"):
        (folder / "book" / name).write_bytes((ROOT / "book" / name).read_bytes())
    texts = {stem: f"# The page {stem}\n" for stem in listed()} | chapters
    for label, stem in part("catalogue").sections(ROOT).items():
        level = "" if label == f"ch-{stem}" else f"\n({label})=\n## Section {label}\n"
        first = f"({label})=\n" if label == f"ch-{stem}" else ""
        texts[stem] = first + texts[stem] + level
    for stem, text in texts.items():
        (folder / "chapters" / f"{stem}.md").write_text(text)
    tree = "```{toctree}\n:glob:\nresources\n/chapters/*\n```\n"
    (folder / "book" / "index.md").write_text(f"# Tiny\n\n{tree}")
    return folder


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, small_books: Callable
) -> SimpleNamespace:
    """Three books, built by one process: with a draft, without, and a broken one."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    folder = tmp_path_factory.mktemp("books")
    small_book(folder / "draft", ["matmul", "hopper", "fp8"])
    small_book(folder / "whole", [], fp8="# The page fp8\n")
    broken = small_book(folder / "broken", []) / "book"
    sys.path.pop(0)
    text = (broken / "resources.yaml").read_text(encoding="utf-8")
    assert "parallel-why" in text
    (broken / "resources.yaml").write_text(text.replace("parallel-why", "no-such"))
    lost = (broken / "resources.md").read_text(encoding="utf-8")
    (broken / "lost.md").write_text("# Lost\n\n```{resources} nothing\n```\n")
    (broken / "index.md").write_text(f"{lost}\n```{{toctree}}\nlost\n```\n")
    (broken / "resources.md").unlink()
    return small_books(folder, "resources")


def test_a_sound_book_builds_without_a_warning(built: SimpleNamespace):
    assert built.status["draft"] == built.status["whole"] == "0", built.said


def test_the_page_shows_every_entry(built: SimpleNamespace, data: dict):
    page = built.pages["draft"]
    for entry in data["entries"]:
        box = page.find(id=f"resource-{entry['id']}")
        assert box, entry["id"]
        links = [a["href"] for a in box.select("a[href]")]
        assert entry["address"] in links
        assert entry.get("now", entry["address"]) in links
        assert f"#resource-{entry['id']}" in links
        assert len(box.select(".resource-errors > li")) == len(entry["errors"])
        assert str(entry["looked"]) in box.get_text()
    assert len(page.select(".resource")) == len(data["entries"])
    headings = [x.get_text().rstrip("¶") for x in page.select("section h3")]
    assert headings == list(data["groups"].values())


def test_an_index_leads_to_every_entry(built: SimpleNamespace, data: dict):
    states, chapters = built.pages["draft"].select(".resource-index")
    wanted = {f"#resource-{entry['id']}" for entry in data["entries"]}
    for index in (states, chapters):
        found = [a["href"] for a in index.select("a[href^='#']")]
        assert set(found) == wanted
    assert len(states.select("a[href^='#']")) == len(wanted)


def test_counts_are_those_of_the_data(built: SimpleNamespace, data: dict):
    page = built.pages["draft"]
    states = Counter(entry["state"] for entry in data["entries"])
    rows = [
        [cell.get_text(strip=True) for cell in row.select("td")]
        for row in page.select("table")[0].select("tbody tr")
    ]
    labels = part("resources").LABELS
    assert {row[0]: int(row[1]) for row in rows} == {
        label: states[state] for state, label in labels.items()
    }
    errors = sum(len(entry["errors"]) for entry in data["entries"])
    assert f"{errors} errors are noted" in page.get_text()


def test_a_draft_and_an_unwritten_chapter_come_out_as_planned(built: SimpleNamespace):
    box = built.pages["draft"].find(id="resource-tiled-matmul-video")
    planned = box.select_one(".resource-places").get_text()
    assert "Planned: Matrix multiplication up to cuBLAS." in planned
    assert "chapters/tiling.html#tiling-by-hand" in str(box)
    assert "chapters/matmul" not in str(built.pages["draft"].select(".resource"))
    assert "chapters/hopper" not in str(built.pages["draft"].select(".resource"))
    assert "chapters/fp8" not in str(built.pages["draft"])


def test_a_chapter_that_stands_becomes_a_link(built: SimpleNamespace):
    page = built.pages["whole"]
    box = page.find(id="resource-tiled-matmul-video")
    link = box.find("a", href="../chapters/matmul.html#matmul-tile")
    assert link.get_text() == "Section matmul-tile"
    assert "Planned" not in box.get_text()
    fp8 = page.find(id="resource-tma-article").select(".resource-places a")
    assert [a.get_text() for a in fp8][-1] == "The page fp8"


def test_a_missing_label_and_an_unknown_part_fail_the_build(built: SimpleNamespace):
    assert built.status["broken"] != "0"
    assert "accelerating-ai: no section has the label 'no-such'" in built.said
    assert "choose one of counts, by-state, by-chapter, entries" in built.said
