"""The front page: the learning path and ways through it; lost addresses, errata."""

import datetime
import importlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
INDEX = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
LINK = re.compile(r"</chapters/(\w+)>|\(#ch-(\w+)\)")
CONF = """\
import sys
sys.path.insert(0, {ext!r})
project, author, html_theme, root_doc = "Tiny", "A", "basic", "book/index"
html_baseurl = "https://example.invalid/tiny/"
extensions = ["myst_parser", "sphinx_exercise", "notfound.extension"]
extensions += ["bookext." + x for x in ("chapters", "route", "missing", "texts")]
exclude_patterns = {drafts!r}
notfound_urls_prefix = "/tiny/"
book_repository = "https://example.invalid/source"
def setup(app):
    app.add_config_value("book_repository", "", "html", str)
"""
PAGE = """\
# Tiny

A tiny book.

```{learning-path}
```

```{way} parallel memory tiling softmax hopper
```

```{toctree}
:glob:
:caption: Pages
:hidden:
/chapters/*
```
"""


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


def path() -> dict[str, str]:
    """The learning path, stem -> title."""
    return yaml.safe_load((ROOT / "book/resources.yaml").read_text("utf-8"))["path"]


# What each chapter needs first


def test_each_chapter_needs_what_its_box_names():
    after = part("learning").prerequisites(ROOT, list(path()))
    pages = sorted((ROOT / "chapters").glob("*.md"))
    assert sorted(after) == [page.stem for page in pages]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        [box] = re.findall(r"^\*\*You need\*\* (.*)$", text, re.M)
        named = [one or other for one, other in LINK.findall(box)]
        assert after[page.stem] == named, page.stem
        assert "after" in part("learning").front_matter(page), page.stem


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("[nowhere]", "b: after names 'nowhere'; written and earlier: a"),
        ("[b]", "b: after names 'b'"),
        ("[c]", "b: after names 'c'"),
        ("[a, a]", "b: after wants a list"),
        ("a", "b: after wants a list"),
    ],
)
def test_what_a_chapter_cannot_need_is_refused(tmp_path: Path, after: str, said: str):
    (tmp_path / "chapters").mkdir()
    for stem, needs in {"a": "[]", "b": after, "c": "[a, b]"}.items():
        page = tmp_path / "chapters" / f"{stem}.md"
        page.write_text(f"---\nneeds: none\nafter: {needs}\n---\n# {stem}\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        part("learning").prerequisites(tmp_path, ["a", "b", "planned", "c"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# No marks\n", {}),
        ("---\nneeds: none\n# No end\n", {}),
        ("---\n---\n# Nothing\n", {}),
        ("---\nafter: [x]\n---\nafter: [y]\n---\n", {"after": ["x"]}),
    ],
)
def test_front_matter_is_what_stands_between_marks(
    tmp_path: Path, text: str, found: dict
):
    (tmp_path / "page.md").write_text(text)
    assert part("learning").front_matter(tmp_path / "page.md") == found


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n"])
def test_damaged_front_matter_is_named(tmp_path: Path, text: str):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(page))):
        part("learning").front_matter(page)


def test_what_follows_is_left_out():
    after = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "c"], "e": ["a"]}
    left = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["a"]}
    assert part("learning").reduced(after) == left


# Lines of the map


def drawn(rails: SimpleNamespace) -> set[tuple[int, int]]:
    """Follow the lines of a map from dot to dot, as an eye does."""
    found = set()
    for row, pieces in enumerate(rails.rows):
        for lane in (lane for lane, way in pieces if way == "from"):
            for below in range(row + 1, len(rails.rows)):
                ways = [way for at, way in rails.rows[below] if at == lane]
                assert "from" not in ways or ways == ["to", "from"], "two lines in one"
                if "to" in ways:
                    found.add((row, below))
                if "through" not in ways:
                    assert "to" in ways, "a line that ends nowhere"
                    break
    return found


def test_a_chain_is_one_straight_line():
    rails = part("learning").rails(["", "a", "", "b", "c"], {"b": ["a"], "c": ["b"]})
    assert rails.lanes == 1
    assert rails.rows[2] == [(0, "through")]
    assert rails.rows[3] == [(0, "to"), (0, "from")]
    assert drawn(rails) == {(1, 3), (3, 4)}


def test_lines_of_any_path_lead_where_they_should_and_share_no_lane():
    stems = list("abcdef")
    pairs = list(itertools.combinations(range(6), 2))
    for chosen in range(0, 2 ** len(pairs), 37):
        links = [pair for i, pair in enumerate(pairs) if chosen >> i & 1]
        after: dict[str, list[str]] = {stem: [] for stem in stems}
        for low, high in links:
            after[stems[high]].append(stems[low])
        rails = part("learning").rails(stems, after)
        assert drawn(rails) == set(links)
        for pieces in rails.rows:
            assert len(set(pieces)) == len(pieces)
            assert all(lane < rails.lanes for lane, _ in pieces)


# The path's parts


def test_parts_are_those_of_the_table_of_contents():
    found = part("catalogue").load(ROOT / "book" / "resources.yaml")
    groups = part("route").by_part(list(found.path), found.parts)
    assert [stem for stems in groups.values() for stem in stems] == list(found.path)
    trees = re.findall(
        r"^```\{toctree\}\n:caption: ([^\n]+)\n(.*?)^```", INDEX, re.M | re.S
    )
    for caption, body in trees:
        stems = re.findall(r"^(?:/chapters/)?(\w+)$", body, re.M)
        shown = [stem for stem in stems if stem in found.path]
        if caption != "Reference" and shown != ["resources"]:
            assert [x for x in groups[caption] if x in shown] == shown, caption


@pytest.mark.parametrize(
    "wrong", [{"I": "nowhere"}, {"I": "b", "II": "a"}, {"I": "a", "II": "a"}, ["a"]]
)
def test_parts_that_are_out_of_order_are_refused(wrong: object):
    data = {
        "list": {"title": "L", "address": "https://list.invalid/"},
        "path": {"a": "A", "b": "B"},
        "groups": {},
        "entries": [],
        "parts": wrong,
    }
    with pytest.raises(ValueError, match="parts"):
        part("catalogue").catalogue_of(data)


# On a small book


def chapter(stem: str, after: str) -> str:
    """A chapter of a few words."""
    return f"---\nneeds: gpu\nafter: {after}\n---\n\n# {path()[stem]}\n\nWords.\n"


def small_book(folder: Path, drafts: list[str], page: str = PAGE) -> None:
    """Write a book of three chapters and a fourth, which may be a draft."""
    hidden = [f"chapters/{stem}.md" for stem in drafts]
    ext = str(ROOT / "book" / "_ext")
    for name in ("book", "chapters"):
        (folder / name).mkdir(parents=True)
    (folder / "conf.py").write_text(CONF.format(ext=ext, drafts=hidden))
    (folder / "book" / "index.md").write_text(page)
    data = (ROOT / "book" / "resources.yaml").read_bytes()
    (folder / "book" / "resources.yaml").write_bytes(data)
    needs = {"parallel": "[]", "memory": "[parallel]", "tiling": "[parallel, memory]"}
    for stem, after in (needs | {"softmax": "[memory]"}).items():
        (folder / "chapters" / f"{stem}.md").write_text(chapter(stem, after))


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, small_books: Callable
) -> SimpleNamespace:
    """Three books: with a draft, without, and one that names what can't be."""
    folder = tmp_path_factory.mktemp("books")
    small_book(folder / "draft", ["softmax"])
    small_book(folder / "whole", [])
    wrong = "```{way} memory\n```\n\n```{way} parallel nowhere\n```\n"
    small_book(folder / "broken", [], PAGE.replace("A tiny book.\n", wrong))
    return small_books(folder, "index")


def test_sound_books_build_without_a_warning(built: SimpleNamespace):
    assert built.status["draft"] == built.status["whole"] == "0", built.said


def test_a_way_that_cannot_be_walked_is_refused(built: SimpleNamespace):
    assert built.status["broken"] != "0"
    assert "memory needs parallel before it" in built.said
    assert "'nowhere' is not in the learning path" in built.said


def test_the_map_names_every_chapter_once(built: SimpleNamespace):
    for page in built.pages.values():
        text = page.select_one("nav.learning-path").get_text()
        rows = [x.get_text() for x in page.select(".map-title, .map-planned")]
        for title in path().values():
            assert sum(title in row for row in rows) == 1, title
        headings = [x.get_text() for x in page.select(".map-part > p")]
        assert headings[:2] == ["I Thinking in tiles", "II Reducing"]
        assert text.count("Planned: ") >= 4


def test_only_what_is_shown_is_a_link(built: SimpleNamespace):
    links = {
        name: [a["href"] for a in page.select("nav.learning-path a")]
        for name, page in built.pages.items()
    }
    stems = ["parallel", "memory", "tiling", "softmax"]
    pages = [f"../chapters/{stem}.html" for stem in stems]
    assert links == {"draft": pages[:3], "whole": pages}
    [draft] = built.pages["draft"].select(".map-title:has(.planned)")
    assert draft.get_text() == f"{path()['softmax']} draft"
    assert len(built.pages["draft"].select(".dot.draft")) == 1
    assert not built.pages["whole"].select(".dot.draft")


def test_the_map_says_hardware_minutes_and_prerequisites(built: SimpleNamespace):
    facts = [x.get_text() for x in built.pages["draft"].select(".map-facts")]
    live = "Live on a GPU, recorded elsewhere"
    assert facts == [
        f"{live}. About 5 minutes.",
        f"{live}. About 5 minutes. After: {path()['parallel']}.",
        f"{live}. About 5 minutes. After: {path()['parallel']}; {path()['memory']}.",
        f"{live}. After: {path()['memory']}.",
    ]


def test_a_way_lists_its_chapters_in_order(built: SimpleNamespace):
    items = [x.get_text().strip() for x in built.pages["draft"].select("ol.way > li")]
    titles = [path()[x] for x in ("parallel", "memory", "tiling", "softmax", "hopper")]
    assert items == [*titles[:3], f"{titles[3]} draft", f"{titles[4]} planned"]


def test_markdown_has_the_map_as_a_list(built: SimpleNamespace):
    text = (built.folder / "draft/out/book/index.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    address = "https://example.invalid/tiny/chapters/parallel.html"
    first = lines.index(f"  - [{path()['parallel']}]({address})")
    assert lines[first - 2] == "- **I Thinking in tiles**"
    assert (
        lines[first + 2].strip()
        == "Live on a GPU, recorded elsewhere. About 5 minutes."
    )
    assert f"  - {path()['softmax']} (draft)" in lines
    assert f"  - Planned: {path()['attention']}; {path()['decoding']}" in lines
    end = lines.index(f"4. {path()['softmax']} (draft)")
    assert lines[end + 1] == f"5. {path()['hopper']} (planned)"
    assert not re.search(r"</?(nav|span|i|b)\b", text)


def test_a_lost_address_leads_on(built: SimpleNamespace):
    from bs4 import BeautifulSoup

    out = built.folder / "draft" / "out"
    page = BeautifulSoup((out / "404.html").read_bytes(), "html.parser")
    form = page.select_one("form.missing-search")
    assert form["action"] == "/tiny/search.html"
    assert form.label["for"] == form.input["id"]
    links = [a["href"] for a in page.select("h1 ~ p a, .missing-pages a")]
    assert "https://example.invalid/source/issues" in links
    inside = [x.removeprefix("/tiny/") for x in links if x.startswith("/tiny/")]
    assert "book/index.html" in inside
    assert "chapters/tiling.html" in inside
    assert "chapters/softmax.html" not in inside
    assert all((out / name).is_file() for name in [*inside, "search.html"])


# Errata and what is new


def test_errata_are_whole_and_their_places_are_there():
    entries = part("errata").load(ROOT / "book" / "errata.yaml")
    dates = [entry.date for entry in entries]
    assert dates == sorted(dates, reverse=True)
    assert dates[0] <= datetime.date.today()
    assert len({(x.at, x.wrong) for x in entries}) == len(entries) > 0
    for entry in entries:
        assert entry.wrong != entry.right
        assert (ROOT / entry.at.partition("#")[0].lstrip("/")).is_file(), entry.at


SOUND = {
    "date": datetime.date(2026, 1, 2),
    "at": "/chapters/one.md#a-section",
    "wrong": "It is two.",
    "right": "It is three.",
    "commit": "0123abc",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"date": "soon"}, "date wants a day"),
        ({"at": "one"}, "at wants"),
        ({"wrong": " "}, "wrong wants a text"),
        ({"commit": "HEAD"}, "commit wants a hash"),
        ({"who": "me"}, "wants at, commit"),
    ],
)
def test_an_erratum_that_lacks_something_is_refused(change: dict, said: str):
    errata = part("errata")
    assert errata.entry_of(SOUND, "here").commit == "0123abc"
    with pytest.raises(ValueError, match=f"here: {said}"):
        errata.entry_of(SOUND | change, "here")


def test_errata_come_newest_first(tmp_path: Path):
    later = SOUND | {"date": datetime.date(2026, 1, 3), "wrong": "It is one."}
    file = tmp_path / "errata.yaml"
    file.write_text(yaml.safe_dump([SOUND, later]))
    text = part("errata").markdown(part("errata").load(file))
    assert text.index("It is one.") < text.index("It is two.")
    assert (
        "2026-01-02, [](</chapters/one.md>), [](</chapters/one.md#a-section>)" in text
    )
    file.write_text("- [")
    with pytest.raises(ValueError, match="damaged"):
        part("errata").load(file)


def test_what_is_new_has_its_days_newest_first():
    text = (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")
    days = re.findall(r"^## (.+)$", text, re.M)
    found = [datetime.date.fromisoformat(day) for day in days]
    assert found == sorted(set(found), reverse=True)
    assert found
    assert found[0] <= datetime.date.today()
