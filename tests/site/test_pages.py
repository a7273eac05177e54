"""The pages as files: links, pictures, provenance."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from .conftest import ROOT, chapters

STAMP = re.compile(r"(Measured in this build|Recorded) on .+\d{4}-\d{2}-\d{2}")
QUOTED = re.compile(r"\{measured\}`([a-z0-9-]+)\.")


def links(soup: BeautifulSoup) -> list[tuple[str, str]]:
    """Return what a page links to or loads, with the element's name."""
    found = [(tag.name, tag["href"]) for tag in soup.select("a[href], link[href]")]
    return found + [
        (tag.name, tag["src"]) for tag in soup.select("img[src], script[src]")
    ]


def test_every_link_and_anchor_resolves(site: Path, soups: dict):
    ids = {
        name: {tag["id"] for tag in soup.select("[id]")} for name, soup in soups.items()
    }
    broken = []
    for name, soup in soups.items():
        if name == "404.html":
            continue
        for kind, link in links(soup):
            parts = urlsplit(urljoin(f"https://site/{name}", link))
            if parts.netloc != "site" or parts.scheme not in ("http", "https"):
                continue
            target = unquote(parts.path).lstrip("/")
            if not (site / target).is_file():
                broken.append(f"{name}: <{kind}> {link}")
            elif parts.fragment and target in ids:
                known = unquote(parts.fragment) in ids[target] | {""}
                if not known:
                    broken.append(f"{name}: no anchor {link}")
    assert not broken, "\n".join(broken)


def test_no_page_shows_where_it_was_built(soups: dict):
    assert not [name for name, soup in soups.items() if str(ROOT) in soup.get_text()]


def test_nothing_is_loaded_from_another_host(soups: dict):
    foreign = [
        f"{name}: {link}"
        for name, soup in soups.items()
        for kind, link in links(soup)
        if kind in ("script", "img") and urlsplit(link).netloc
    ]
    sheets = [
        f"{name}: {tag['href']}"
        for name, soup in soups.items()
        for tag in soup.select("link[href]")
        if "canonical" not in tag.get("rel", []) and urlsplit(tag["href"]).netloc
    ]
    assert not foreign + sheets


def test_every_icon_of_a_page_is_in_the_style_sheet(site: Path, soups: dict):
    sheet = (site / "_static" / "icons.css").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^\.(fa-[\w-]+) \{$", sheet, re.M))
    families = {"fas", "fab", "fa-solid", "fa-brands"}
    shapes = {"fa-lg", "fa-fw", "fa-solid", "fa-brands"}
    for name, soup in soups.items():
        for tag in soup.select("[class*='fa-']"):
            classes = {x for x in tag["class"] if x.startswith(("fa-", "fas", "fab"))}
            if classes & families:
                assert classes - families - shapes <= drawn, f"{name}: {tag}"
    assert drawn


def test_no_page_but_that_of_search_loads_the_index_of_all(soups: dict):
    loading = {
        name
        for name, soup in soups.items()
        if soup.select("script[src*='searchindex.js'], script[src*='searchtools.js']")
    }
    assert loading == {"search.html"}


@pytest.mark.parametrize("stem", chapters())
def test_pictures_below_the_first_wait_in_the_room_kept_for_them(
    stem: str, soups: dict
):
    pictures = soups[f"chapters/{stem}.html"].select("article img")
    assert len(pictures) > 2
    assert [x.get("loading") for x in pictures[1:]] == ["lazy"] * (len(pictures) - 1)
    for picture in pictures:
        if picture["src"].endswith(".svg"):
            assert int(picture["width"]) > 0 < int(picture["height"])
            assert picture.parent.name != "a"


def test_every_figure_has_an_alternative_text(soups: dict):
    mute = [
        f"{name}: {picture.get('src')}"
        for name, soup in soups.items()
        for picture in soup.select("article img, main svg[role=img]")
        if not (picture.get("alt") or picture.get("aria-label") or "").strip()
    ]
    assert not mute


def test_ids_are_unique_on_a_page(soups: dict):
    twice = [
        f"{name}: {value}"
        for name, soup in soups.items()
        for value, count in Counter(tag["id"] for tag in soup.select("[id]")).items()
        if count > 1
    ]
    assert not twice, "\n".join(twice)


def test_a_page_has_a_title_and_a_language(soups: dict):
    for name, soup in soups.items():
        assert soup.html.get("lang"), name
        assert len(soup.select("article h1")) <= 1, name
        assert soup.title.get_text().strip(), name


@pytest.mark.parametrize("stem", chapters())
def test_every_provenance_line_is_there(stem: str, soups: dict):
    source = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
    asked = re.findall(r"\{(?:provenance|records)\}\s+([a-z0-9-]+)", source)
    lines = soups[f"chapters/{stem}.html"].select(".provenance")
    for line in lines:
        assert STAMP.search(line.get_text()), line
    said = " ".join(a["href"] for line in lines for a in line.select("a[href]"))
    missing = [name for name in asked if f"#record-{name}-" not in said]
    assert not missing
    assert len(lines) >= len(asked)


@pytest.mark.parametrize("stem", chapters())
def test_every_quoted_number_links_to_its_record(stem: str, soups: dict):
    source = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
    links = soups[f"chapters/{stem}.html"].select("a.measured")
    shown = [re.search(r"#record-([a-z0-9-]+)-", a["href"])[1] for a in links]
    for name, count in Counter(QUOTED.findall(source)).items():
        assert sum(x.startswith(name) for x in shown) >= count, name
    assert all(STAMP.search(a["title"]) for a in links)


@pytest.mark.parametrize("stem", chapters())
def test_a_chapter_says_what_it_needs(stem: str, soups: dict):
    badges = soups[f"chapters/{stem}.html"].select(".badges .badge")
    assert len(badges) == 3
    assert re.search(r"About \d+ minutes", badges[1].get_text())


def test_functions_link_to_chapters_and_source(soups: dict):
    for stem in chapters():
        page = soups[f"book/api/{stem}.html"]
        explained = [a["href"] for a in page.select(".explained a")]
        assert any(f"chapters/{stem}.html#" in link for link in explained)
        assert page.select("a.viewcode-link, .viewcode-link")
        shown = soups[f"chapters/{stem}.html"].select(".code-bar")
        assert shown, f"{stem} shows no code of its package"
        linked = [bar for bar in shown if bar.select("a")]
        assert linked
        # A program of the compiler chapter's language is no function of Python's.
        own = [bar for bar in linked if bar.select_one("span.source-line")]
        assert len(own) <= (stem == "compiler")
        for bar in linked:
            if bar not in own:
                assert "/_modules/" in bar.select_one("a.source-line")["href"]


def test_every_page_is_there_as_markdown_and_listed(site: Path, soups: dict):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.+\]\((\S+)\): \S", text, re.M)
    assert len(set(listed)) == len(listed)
    for name, soup in soups.items():
        if not name.startswith(("book/", "chapters/")):
            continue
        page = (site / name).with_suffix(".md")
        assert page.is_file(), name
        assert sum(x.endswith(f"/{name.removesuffix('.html')}.md") for x in listed) == 1
        written = page.read_text(encoding="utf-8")
        assert written.startswith(f"# {soup.h1.find(string=True)}"), name
    rules = (site / "tutor.md").read_text(encoding="utf-8")
    assert str(ROOT) not in rules + text


@pytest.mark.parametrize("stem", chapters())
def test_a_chapters_markdown_says_what_measured_each_number(stem: str, site: Path):
    text = (site / f"chapters/{stem}.md").read_text(encoding="utf-8")
    source = (ROOT / "chapters" / f"{stem}.md").read_text(encoding="utf-8")
    quoted = re.findall(r"\]\(\S+#record-[a-z0-9-]+ \"([^\"]*)\"\)", text)
    assert len(quoted) >= len(QUOTED.findall(source))
    assert all(STAMP.search(said) for said in quoted)


def test_lists_have_every_figure_exercise_and_claim(soups: dict):
    page = soups["book/indexes.html"]
    shown = [soups[f"chapters/{stem}.html"] for stem in chapters()]
    for name, select in {
        "figures": "figure[id]",
        "exercises": ".admonition.exercise[id]",
        "claims": ".claims li",
    }.items():
        lines = page.select(f"section#{name} .listing li")
        assert len(lines) >= sum(len(x.select(select)) for x in shown) > 0, name


def test_the_sitemap_has_every_page_once(site: Path, soups: dict):
    text = (site / "sitemap.xml").read_text(encoding="utf-8")
    found = re.findall(r"<loc>([^<]+)</loc>", text)
    assert len(set(found)) == len(found)
    assert not [x for x in found if "/_modules/" in x]
    for name in soups:
        if name.startswith(("book/", "chapters/")):
            assert sum(x.endswith(f"/{name}") for x in found) == 1, name
