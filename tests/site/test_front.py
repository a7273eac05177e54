"""The front page in a browser: the map, its keyboard, the figure; lost addresses."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Page

from . import axe
from .conftest import THEMES, WIDTHS, chapters
from .test_pages import STAMP

FRONT = "book/index.html"
MAP = "nav.learning-path"


@pytest.fixture
def front(soups: dict[str, BeautifulSoup]) -> BeautifulSoup:
    """The front page."""
    return soups[FRONT]


def test_the_map_leads_to_every_chapter(front: BeautifulSoup):
    links = front.select(f"{MAP} a")
    pages = [link["href"] for link in links]
    for stem in chapters():
        assert pages.count(f"../chapters/{stem}.html") == 1, stem
    assert len(set(pages)) == len(pages)
    assert all(link.get_text().strip() for link in links)


def test_the_map_says_what_each_chapter_says_of_itself(
    front: BeautifulSoup, soups: dict[str, BeautifulSoup]
):
    for stem in chapters():
        [link] = front.select(f'{MAP} a[href="../chapters/{stem}.html"]')
        facts = link.find_parent("li").select_one(".map-facts").get_text()
        badges = [x.get_text() for x in soups[f"chapters/{stem}.html"].select(".badge")]
        assert facts.startswith(f"{badges[0]}. {badges[1]}."), stem
        title = soups[f"chapters/{stem}.html"].h1.get_text()
        assert re.fullmatch(rf"[\d. ]*{re.escape(link.get_text())}\W?", title), title


def test_what_is_not_written_is_named_and_no_link(front: BeautifulSoup):
    names = front.select(f"{MAP} .unwritten, ol.way .unwritten")
    assert names
    assert not any(name.find_parent("a") or name.find("a") for name in names)
    planned = front.select(f"{MAP} .map-planned")
    assert all(row.get_text().strip().startswith("Planned: ") for row in planned)


def test_ways_are_three_lists(front: BeautifulSoup):
    section = front.select_one("section#three-ways-to-read")
    ways = section.select("section > ol.way")
    assert len(ways) == len(section.select("h3")) == 3
    assert all(len(way.select(":scope > li")) >= 5 for way in ways)
    for way in ways:
        words = " ".join(x.get_text() for x in way.find_parent("section").select("p"))
        assert re.search(r"\bskip\b", words)


def test_the_figure_has_words_and_provenance(front: BeautifulSoup, site: Path):
    [figure] = front.select("figure.overview")
    image = figure.img
    assert (site / "book" / image["src"]).resolve().is_file()
    assert "behind" in image["alt"]
    assert re.search(r"in \d+ cases", figure.figcaption.get_text())
    [line] = front.select("figure.overview + .provenance")
    assert STAMP.search(line.get_text())
    records = [a["href"] for a in line.select("a")]
    assert len(records) >= len(chapters())
    assert all("verification.html#record-" in link for link in records)


def test_the_markdown_has_map_ways_and_figure(site: Path):
    text = (site / "book" / "index.md").read_text(encoding="utf-8")
    for stem in chapters():
        assert len(re.findall(rf"^ *- \[.+/chapters/{stem}\.html\)", text, re.M)) == 1
    assert "Planned: " in text
    assert re.search(r"^\*\[A picture\. .+ behind", text, re.M)


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_join_the_dots(open_page: Callable[..., Page], width: str):
    page = open_page(FRONT, width)
    rows = page.locator(f"{MAP} li.map-chapter").all()
    for row in rows:
        dot, title = row.locator(".dot"), row.locator(".map-title")
        at, words = dot.bounding_box(), title.bounding_box()
        middle = at["y"] + at["height"] / 2
        assert words["y"] < middle < words["y"] + 34
        assert at["x"] + at["width"] < words["x"] + float(
            title.evaluate("x => parseFloat(getComputedStyle(x).paddingLeft)")
        )
        for line in row.locator(".rail i.to, .rail i.from").all():
            piece = line.bounding_box()
            ends = (piece["y"], piece["y"] + piece["height"])
            assert min(abs(end - middle) for end in ends) <= 2
    # Pieces of one line touch where one row ends and the next begins.
    ends = page.evaluate(
        """selector => {
            const rails = [...document.querySelectorAll(selector)]
                .map(x => x.getBoundingClientRect())
            return rails.slice(1).map((x, i) => x.top - rails[i].bottom)
        }""",
        f"{MAP} .rail",
    )
    assert max(map(abs, ends)) <= 1.5, ends


@pytest.mark.parametrize("width", WIDTHS)
def test_the_map_is_walked_by_keyboard(open_page: Callable[..., Page], width: str):
    page = open_page(FRONT, width)
    links = page.locator(f"{MAP} a")
    names = [link.inner_text() for link in links.all()]
    links.first.focus()
    for name in names:
        assert page.evaluate("document.activeElement.innerText") == name
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        shadow = "getComputedStyle(document.activeElement).boxShadow"
        assert page.evaluate(f"[{outline}, {shadow}]") != ["none", "none"]
        page.keyboard.press("Tab")
    links.nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/chapters/*.html")


def test_a_lost_address_leads_on(soups: dict[str, BeautifulSoup]):
    page = soups["404.html"]
    prefix = page.select_one("form.missing-search")["action"].removesuffix(
        "search.html"
    )
    links = [a["href"] for a in page.select(".missing-pages a")]
    assert f"{prefix}chapters/{chapters()[0]}.html" in links
    for link in links:
        assert link.removeprefix(prefix) in soups, link
    assert page.select_one('article a[href$="/issues"]')


def test_a_lost_address_is_readable(
    open_page: Callable[..., Page], soups: dict[str, BeautifulSoup], site: Path
):
    """At the root of a server its absolute addresses lack the prefix of the site."""
    prefix = soups["404.html"].select_one("form.missing-search")["action"]
    page = open_page(FRONT, "phone")
    root = page.url.removesuffix(FRONT)
    start = prefix.removesuffix("search.html")
    page.route(
        f"{root}{start.lstrip('/')}**",
        lambda route: route.continue_(
            url=route.request.url.replace(root + start.lstrip("/"), root, 1)
        ),
    )
    page.goto(f"{root}404.html")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert not axe.violations(page, THEMES)
    page.locator("#missing-words").fill("coalescing")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=coalescing**")


@pytest.mark.parametrize("name", ["errata", "changelog"])
def test_readers_pages_are_dated_and_lead_somewhere(
    name: str, soups: dict[str, BeautifulSoup]
):
    article = soups[f"book/{name}.html"].article
    heads = article.select("dt" if name == "errata" else "h2")
    dates = [re.match(r"\d{4}-\d{2}-\d{2}", x.get_text().strip())[0] for x in heads]
    assert dates == sorted(dates, reverse=True)
    assert dates
    if name == "errata":
        assert all(head.select_one("a[href*='.html']") for head in heads)
        assert len(article.select("dd .mended")) == len(heads)
